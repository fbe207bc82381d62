"""Fresh processes: until the first answer of machine code, and how much memory the work takes at its peak.

``python -m benchmarks.engine.fresh LIBRARY ROW TURNS`` is such a process: it imports the library, makes the inputs,
runs the row's first mode and prints what that took.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.side_by_side import ROOT, environment

NAMES = ("first-call", "memory")
HEAVY = ("adam", "expression-1e7")      # rows whose memory is weighed
TURNS = 5                               # of which the peak is taken
AHEAD = "BENCHMARK_EAGER_COMPILE"       # set where `jitgrad.function` is to compile before the first call
AT_ONCE = {AHEAD: "1"}
# what is built once for a machine, whatever runs on it: Tensors, tapes, functions, the derivation of gradients
BASE = """import jitgrad as jg
jg.function(jg.grad(lambda x: x * x), eager_compile=True)(jg.constant(1.0))"""
Line = tuple[str, str, bool | None]


@dataclass
class Process:
    """One kind of process."""

    what: str
    library: str
    row: str
    label: str
    turns: int
    cold: bool = False                  # each has an empty cache
    settings: dict[str, str] = field(default_factory=dict)
    first: list[float] = field(default_factory=list)        # seconds of the turns
    whole: list[float] = field(default_factory=list)        # seconds from start to end
    peak: list[float] = field(default_factory=list)         # megabytes above those after the import


def kinds() -> list[Process]:
    """What is measured."""
    first = [Process("first-call", "jitgrad", "mlp", "one call of function(step, eager_compile=True), object cache "
                     "with nothing of this program", 1, cold=True, settings=AT_ONCE),
             Process("first-call", "jitgrad", "mlp", "one call of function(step, eager_compile=True), warm object "
                     "cache", 1, settings=AT_ONCE),
             Process("first-call", "jax", "mlp", "one call of jit(step)", 1),
             Process("first-call", "jax", "mlp", "one call of jit(step), warm compilation cache", 1,
                     settings={"JAX_COMPILATION_CACHE_DIR": "{place}/jax",
                               "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                               "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}),
             Process("first-call", "numba", "mlp", "one call, compiled without a cache", 1)]
    memory = [Process("memory", library, row, "", TURNS) for row in HEAVY
              for library in ("jitgrad", "jax", "torch", "numba", "numpy")]
    return first + memory + [Process("memory", "jitgrad", row, "eager_compile=True", TURNS, settings=AT_ONCE)
                             for row in HEAVY]


def measure(names: list[str], libraries: list[str], threads: int, rounds: int) -> list[Process]:
    """All kinds whose library is here, interleaved."""
    wanted = [p for p in kinds() if p.what in names and p.library in libraries]
    with tempfile.TemporaryDirectory() as place:
        here = [p for p in wanted if _run(p, place, threads, 0)]
        for turn in range(1, rounds + 1):
            for process in here:
                if process.what == "first-call" or turn <= 3:
                    _run(process, place, threads, turn)
    for process in here:                # the first run of all filled the caches
        for figures in (process.first, process.whole, process.peak):
            del figures[0]
    return here


def _run(process: Process, place: str, threads: int, turn: int) -> bool:
    """One process, its figures kept; False if the library is absent."""
    cache = f"{place}/cold-{turn}" if process.cold else f"{place}/warm"
    if process.cold:
        subprocess.run([sys.executable, "-c", BASE], check=True, cwd=ROOT, capture_output=True,
                       env={**os.environ, "PYTHONPATH": str(ROOT), "JITGRAD_CACHE_DIR": cache})
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    settings = {name: value.format(place=place) for name, value in process.settings.items()}
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "benchmarks.engine.fresh", process.library, process.row,
                           str(process.turns)], cwd=ROOT, text=True, capture_output=True, stdin=subprocess.DEVNULL,
                          env={**inherited, **environment(threads), "PYTHONPATH": path, "JITGRAD_CACHE_DIR": cache,
                               "PYTHONPYCACHEPREFIX": f"{place}/bytecode", **settings})
    seconds = time.perf_counter() - begin
    if "ModuleNotFoundError" in done.stderr:
        return False
    if done.returncode:
        raise RuntimeError(f"{process.library}, {process.row}:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    process.first.append(found["seconds"])
    process.peak.append(found["megabytes"])
    process.whole.append(seconds)
    return True


# ---- within such a process -----------------------------------------------------------------------

def peak() -> float:
    """Megabytes that this process held at most. (Linux: ru_maxrss counts the parent's, from before the exec.)"""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def report(library: str, row: str, turns: int) -> None:
    """Print what a row's first mode takes."""
    module = importlib.import_module(f"benchmarks.engine.use_{library}")
    if os.environ.get(AHEAD):
        module.jg.function = functools.partial(module.jg.function, eager_compile=True)
    before = peak()
    mode = next(iter(module.WORKLOADS[row]()))
    begin = time.perf_counter()
    mode.loop(turns)
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "megabytes": peak() - before}))


# ---- printing ------------------------------------------------------------------------------------

def show(processes: list[Process]) -> None:
    """Two tables, as markdown."""
    first = [p for p in processes if p.what == "first-call"]
    if first:
        print("\n### first-call: an SGD step of `mlp` in a fresh process, its inputs made before, until the first "
              "answer of machine code\n\n| library | what | median s | min s | the process from start to end, median s "
              "|\n|---|---|--:|--:|--:|")
        for p in first:
            print(f"| {p.library} | {p.label} | {statistics.median(p.first):.3f} | {min(p.first):.3f} | "
                  f"{statistics.median(p.whole):.3f} |")
    memory = [p for p in processes if p.what == "memory"]
    if memory:
        print(f"\n### memory: the peak of a fresh process that makes a row's inputs and takes {TURNS} turns, above its "
              "peak after the import, MB\n\n| row | library | median | min |\n|---|---|--:|--:|")
        for p in memory:
            print(f"| {p.row} | {', '.join(filter(None, (p.library, p.label)))} | {statistics.median(p.peak):.1f} | "
                  f"{min(p.peak):.1f} |")
    sys.stdout.flush()


def targets(processes: list[Process]) -> list[Line]:
    """What was asked for, what was measured, whether it holds."""
    lines: list[Line] = []
    jax = [p for p in processes if p.what == "first-call" and p.library == "jax"]
    for p in processes:
        if p.what == "first-call" and p.library == "jitgrad" and jax:
            ratio, whole = (statistics.median(getattr(p, which)) / statistics.median(getattr(jax[0], which))
                            for which in ("first", "whole"))
            limit = 0.8 if p.cold else 0.2
            lines.append((f"first-call: {p.label}, at most {limit:g}x of {jax[0].library} ({jax[0].label})",
                          f"{ratio:.2f}x; {whole:.2f}x from the processes' start to their end", ratio <= limit))
    weighed = {(p.row, p.library, p.label): statistics.median(p.peak) for p in processes if p.what == "memory"}
    for (row, library, label), ours in weighed.items():
        theirs = weighed.get((row, "jax", ""))
        if library == "jitgrad" and theirs is not None:
            lines.append((f"memory: {row}, {label or 'by default'}, not above JAX's",
                          f"{ours:.1f} MB against {theirs:.1f}", ours <= theirs))
    return lines


if __name__ == "__main__":
    report(sys.argv[1], sys.argv[2], int(sys.argv[3]))
