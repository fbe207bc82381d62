"""Kernels on large arrays, side by side: elementary functions, reductions, sorting, scans, gathers, one thread each.

Every row is one eager call on float32 arrays of the library's own kind, made before; the result is a new array (or one
given before, where a library offers it and that is faster) that nothing reads. `copy` writes as much as it reads and
computes nothing: no elementwise row can take less. Beside sum and mean, in the same rounds, loops that only add up the
array show how fast it can be read.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks import side_by_side
from benchmarks.side_by_side import Row, Worker
from benchmarks.workloads import Workload

MANY, MORE = 1_000_000, 10_000_000
STEP = 997                      # every so many elements of a result are checked
FUNCTIONS = ("exp", "tanh", "log", "sin", "cos", "erf", "pow")
READS = ("sum", "mean")
MOVES = ("sort", "cumsum", "gather", "scatter-add")
NAMES = ("copy", *FUNCTIONS, *READS, *MOVES)
WIDEST = ("AVX512", "X86_V4")   # prefixes of NumPy's names for what few CPUs have
NARROW = "numpy-narrow"         # NumPy told not to use that
NOISE = 0.03                    # by so much two runs of one loop differ: what is "not slower" is not slower by more
READING = "reading alone"       # how labels of loops begin that are no library's

Tables = dict[str, list[Row]]


def inputs(name: str) -> list[np.ndarray]:
    """The operands of a row."""
    rng = np.random.default_rng(4)
    if name in READS:
        return [rng.random(MORE, np.float32)]
    signed = (3 * rng.standard_normal(MANY)).astype(np.float32)
    positive = (np.abs(signed) + np.float32(0.1)).astype(np.float32)
    if name == "pow":
        return [positive, rng.uniform(-2, 2, MANY).astype(np.float32)]
    if name in ("gather", "scatter-add"):
        return [signed, rng.integers(0, MANY, MANY)]
    return [positive if name == "log" else signed]


def sampled(result: np.ndarray) -> np.ndarray:
    """What is checked of a result."""
    return np.asarray(result).reshape(-1)[::STEP]


def answer(name: str) -> list[np.ndarray]:
    """NumPy's answer in float64, sampled."""
    x, *others = (a.astype(np.float64) if a.dtype.kind == "f" else a for a in inputs(name))
    if name == "erf":
        from math import erf
        return [np.array([erf(v) for v in sampled(x)])]
    if name == "scatter-add":
        return [sampled(np.bincount(others[0], x, MANY))]
    if name == "gather":
        return [sampled(x[others[0]])]
    functions: dict[str, Callable[..., np.ndarray]] = {
        "copy": np.negative, "pow": np.power, "sort": np.sort, "cumsum": np.cumsum}
    return [sampled(functions.get(name, getattr(np, name, None))(x, *others))]


@dataclass(frozen=True)
class Kernel(Workload):
    """A row of the table."""

    def answers(self) -> list[np.ndarray]:
        """What every library must give."""
        return answer(self.name)


def workload(name: str) -> Kernel:
    """How close the libraries have to come: a few units in the last place, or what adding so many numbers costs."""
    rtol, atol = {"sum": (1e-3, 0.0), "mean": (1e-3, 0.0), "cumsum": (1e-3, 0.5)}.get(name, (2e-6, 1e-6))
    return Kernel(name, "", "", "", rtol, atol)


# ---- measuring -----------------------------------------------------------------------------------

def narrow_numpy() -> dict[str, str]:
    """The environment in which NumPy runs as on a CPU without 512-bit vectors; empty where it has none."""
    try:
        from numpy._core import _multiarray_umath as core
    except ImportError:
        return {}
    wide = [f for f in core.__cpu_dispatch__ if f.startswith(WIDEST) and core.__cpu_features__.get(f)]
    return {"NPY_DISABLE_CPU_FEATURES": " ".join(wide)} if wide else {}


def measure(names: Iterable[str], workers: list[Worker], rounds: int, seconds: float) -> tuple[Tables, list[str]]:
    """Rows of every kernel, and why a library is missing in one."""
    narrow = narrow_numpy()
    extra = [Worker("numpy", narrow, NARROW)] if narrow and any(w.library == "numpy" for w in workers) else []
    tables, failed = {}, []
    try:
        for worker in extra:
            worker.hello()
        for name in names:
            tables[name], why = side_by_side.compare(workload(name), [*workers, *extra], rounds, seconds)
            failed += [f"{name}: {line}" for line in why]
    finally:
        for worker in extra:
            worker.close()
    return tables, failed


def best(rows: list[Row], library: str) -> Row | None:
    """A library's fastest mode."""
    fit = [r for r in rows if r.library == library and not r.label.startswith(READING)]
    return min(fit, key=lambda r: r.median, default=None)


def reading(rows: list[Row]) -> Row | None:
    """The fastest loop that only reads."""
    return min((r for r in rows if r.label.startswith(READING)), key=lambda r: r.median, default=None)


# ---- printing ------------------------------------------------------------------------------------

def size(name: str) -> int:
    """Elements of a row's first operand."""
    return MORE if name in READS else MANY


def show(tables: Tables, failed: list[str]) -> None:
    """One table of medians and minima, as markdown."""
    print("\n### kernels: ns an element, median (minimum) of each library's fastest mode\n")
    print(f"In: float32 arrays of the library's own kind, {MANY:,} elements, for sum and mean {MORE:,}; indices int64 "
          f"in random order (JAX: int32).  \nOut: a new array, or one given before where the library offers that, "
          f"dropped (JAX: waited for). copy: -x. {NARROW}: NumPy without 512-bit vectors. NumPy's erf is SciPy's.\n")
    here = [n for n in [*side_by_side.LIBRARIES[:2], NARROW, *side_by_side.LIBRARIES[2:]]
            if any(r.library == n for rows in tables.values() for r in rows)]
    print(f"| kernel | {' | '.join(here)} |\n|---|{'--:|' * len(here)}")
    for name, rows in tables.items():
        cells = []
        for library in here:
            row = best(rows, library)
            unit = 1000 / size(name)
            cells.append(f"{row.median * unit:.3f} ({row.minimum * unit:.3f})" if row else "-")
        print(f"| {name} | {' | '.join(cells)} |")
    for name in READS:
        if read := reading(tables.get(name, [])):
            print(f"\nIn the rounds of {name}, the fastest loop that only adds up the array: "
                  f"{1000 * read.median / MORE:.3f} ({1000 * read.minimum / MORE:.3f}) ns an element, "
                  f"{4e-3 * MORE / read.median:.1f} GB/s.")
    for why in failed:
        print(f"\nNot timed: {why}")
    sys.stdout.flush()


# ---- targets -------------------------------------------------------------------------------------

def ratio(tables: Tables, name: str, library: str) -> tuple[float, float] | None:
    """How many times jitgrad is faster."""
    ours, theirs = best(tables.get(name, []), "jitgrad"), best(tables.get(name, []), library)
    return times_faster(ours, theirs) if ours and theirs else None


def times_faster(ours: Row, theirs: Row) -> tuple[float, float]:
    """The median ratio of rounds that followed one another, which a machine that slows down leaves as it is; and the
    ratio of minima."""
    pairs = zip(ours.rounds, theirs.rounds, strict=True)
    return statistics.median(b / a for a, b in pairs), theirs.minimum / ours.minimum


def targets(tables: Tables) -> list[tuple[str, str, bool]]:
    """What was asked for, what was measured, whether it holds."""
    asked = [(name, "numpy", 2.0) for name in FUNCTIONS] + [(name, NARROW, 2.0) for name in FUNCTIONS]
    asked += [(name, "torch", 1.0) for name in FUNCTIONS] + [(name, "numpy", 1.0) for name in MOVES]
    copy, found = best(tables.get("copy", []), "jitgrad"), []
    for name, library, factor in asked:
        times = ratio(tables, name, library)
        if times is None:
            continue
        theirs = best(tables[name], library)
        floor = ""
        if copy and theirs and name in FUNCTIONS and theirs.minimum < factor * copy.minimum:
            floor = f"; a copy alone allows {theirs.minimum / copy.minimum:.2f}x"
        wanted = f"at least {factor:g}x faster than {library}"
        if factor == 1:
            wanted, factor = f"not slower than {library} (to {NOISE:.0%})", 1 - NOISE
        found.append((f"{name}: {wanted}", f"{times[0]:.2f}x by rounds, {times[1]:.2f}x by minima{floor}",
                      times[0] >= factor))
    for name in READS:
        read, row = reading(tables.get(name, [])), best(tables.get(name, []), "jitgrad")
        if read and row:
            part, least = times_faster(row, read)
            rate = 4e-3 * MORE / read.median
            found.append((f"{name}: 80 % of the read bandwidth ({rate:.1f} GB/s)",
                          f"{100 * part:.0f} % by rounds, {100 * least:.0f} % by minima", part >= 0.8))
    return found
