"""jitgrad's functions against the eager run of the same code; what a recording costs; what replays keep."""

from __future__ import annotations

import itertools
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import jitgrad as jg
from benchmarks import workloads as w
from benchmarks.libraries import use_jitgrad as here

MANY = 1_000_000                # elements of large arrays
RECORDED = (1_000, 10_000, 100_000)     # rows
CALLS = (100_000, 1_000_000)    # after which the process is weighed
LIMIT = 1.0                     # of a replay to the eager run
NOISE = 0.03                    # by so much two runs of one loop differ


@dataclass
class Ratio:
    """One line: a function run eagerly and replayed, microseconds a call, one figure per round."""

    label: str
    eager: list[float] = field(default_factory=list)
    replay: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Of the medians; noise hits rounds of both."""
        return statistics.median(self.replay) / statistics.median(self.eager)


# ---- the functions -------------------------------------------------------------------------------

def repeated(times: int) -> Callable[[Any], Any]:
    """So many cheap operations in a chain."""
    def run(x: Any) -> Any:
        for i in range(times):
            x = x * 1.01 if i % 2 else x + 0.1
        return x
    return run


def branched(x: Any) -> Any:
    """Python goes another way for another x."""
    return jg.sin(x) * 2.0 if float(jg.sum(x)) > 0 else x - 1.0


def chain_gradient(x: Any) -> Any:
    """Value and gradient of the chain, by a tape."""
    with jg.GradientTape() as tape:
        tape.watch(x)
        total = here.chain_total(x)
    return total, tape.gradient(total, x)


def cases() -> dict[str, tuple[Callable[..., Any], list[tuple[Any, ...]]]]:
    """By label: a function, and the arguments that it gets in turn. Functions with Variables have their own."""
    x, y, z = (jg.asarray(a) for a in w.entry_inputs()[:3])
    rng = np.random.default_rng(7)
    large = [rng.standard_normal(MANY).astype(np.float32) for _ in range(3)]
    tensors = [jg.asarray(a) for a in large]
    parameters, batches = [jg.asarray(p) for p in w.mlp_parameters()], here.batches()
    counter, held = jg.Variable(np.zeros(w.LENGTH, np.float32)), jg.Variable(np.zeros(MANY, np.float32))
    return {
        "1 operation on 16 elements": (lambda a: a + 0.1, [(x,)]),
        "1 operation on 16 elements, 2 arguments": (lambda a, b: a + b, [(x, y)]),
        "3 operations on 16 elements, 3 arguments": (lambda a, b, c: a * b + c - a, [(x, y, z)]),
        "10 operations on 16 elements": (repeated(10), [(x,)]),
        "1 operation on a NumPy array of 16": (lambda a: jg.asarray(a) + 0.1, [(w.entry_inputs()[0],)]),
        "chain of 99, forward": (here.chain_total, [(jg.asarray(w.chain_input()),)]),
        "chain of 99, value and gradient": (chain_gradient, [(jg.asarray(w.chain_input()),)]),
        "MLP, forward": (lambda i, t: here.mlp_loss(parameters, i, t), batches),
        "MLP, training step": (here.mlp_training()[0], batches),
        "MLP of layers, training step": (here.layers_training()[0], batches),
        "branches by turns": (branched, [(x * x,), (x * -x,)]),
        "32 results of 16 elements": (lambda x: [x + float(k) for k in range(32)], [(x,)]),
        "a view of 16 elements": (lambda x: jg.reshape(x, (4, 4)), [(x,)]),
        "a Variable of 16 assigned": (lambda x: counter.assign_add(x).read_value(), [(x,)]),
        "1 operation on 1e6 elements": (lambda a, b: a + b, [(tensors[0], tensors[1])]),
        "3 operations on 1e6 elements": (lambda a, b, c: jg.sin(a) * b + c, [tuple(tensors)]),
        "3 operations on 1e6 elements, NumPy arrays": (
            lambda a, b, c: jg.sin(jg.asarray(a)) * jg.asarray(b) + jg.asarray(c), [tuple(large)]),
        "6 results of 1e6 elements": (lambda a: tuple(a + float(k) for k in range(6)), [(tensors[0],)]),
        "sum of 1e6 elements": (lambda a: jg.sum(a * a), [(tensors[0],)]),
        "1e6 elements returned twice": (lambda a: (lambda b: (b, b))(a + 1.0), [(tensors[0],)]),
        "a view of 1e6 elements": (lambda a: jg.reshape(a, (1000, 1000)), [(tensors[0],)]),
        "1 operation on a slice of 1e6 elements": (lambda a: a[1000:] * 2.0, [(tensors[0],)]),
        "a Variable of 1e6 read": (held.read_value, [()]),
        "a Variable of 1e6 assigned": (lambda a: held.assign_add(a).shape, [(tensors[0],)]),
    }


# ---- replay against eager ------------------------------------------------------------------------

def calls(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> Callable[[int], float]:
    """Seconds of so many calls, results dropped."""
    cycle = itertools.cycle(arguments)

    def loop(n: int) -> float:
        start = time.perf_counter()
        for given in itertools.islice(cycle, n):
            function(*given)
        return time.perf_counter() - start
    return loop


def ratios(rounds: int, seconds: float) -> list[Ratio]:
    """Every function, eager and replayed in turns."""
    out = []
    for label, (function, arguments) in cases().items():
        found = Ratio(label)
        eager, replay = calls(function, arguments), calls(jg.function(function), arguments)
        for loop in (eager, replay):
            loop(4 * len(arguments))
        n = max(len(arguments), round(seconds / max(replay(len(arguments)), 1e-7) * len(arguments)))
        for _ in range(rounds):
            found.eager.append(1e6 * eager(n) / n)
            found.replay.append(1e6 * replay(n) / n)
        out.append(found)
    return out


# ---- recording -----------------------------------------------------------------------------------

def recording(rows: int) -> dict[str, float]:
    """Seconds of a function of so many rows: run eagerly, called first, and called again at once.

    In microseconds a row: what recording adds while the function runs, and all of a first call beyond an eager run, in
    which the rows are made a Program, simplified and planned.
    """
    x, f = jg.asarray(w.chain_input()), repeated(rows)
    f(x)
    within: list[float] = []

    def timed(x: Any) -> Any:
        start = time.perf_counter()
        out = f(x)
        within.append(time.perf_counter() - start)
        return out
    timed(x)
    jg.function(timed)(x)
    taken = []
    replayed = jg.function(f)
    for function in (f, replayed, replayed):
        start = time.perf_counter()
        function(x)
        taken.append(time.perf_counter() - start)
    eager, first, again = taken
    return {"rows": rows, "eager": eager, "first": first, "again": again, "row": 1e6 * (first - eager) / rows,
            "within": 1e6 * (within[1] - within[0]) / rows}


# ---- memory --------------------------------------------------------------------------------------

def weight() -> float:
    """Megabytes that the process holds."""
    table = Path("/proc/self/statm")
    if table.exists():
        return int(table.read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def weighed(counts: tuple[int, ...] = CALLS) -> dict[int, float]:
    """Megabytes after so many replays: partials of Python floats, and a branch by turns, one after the other."""
    partials = jg.function(jg.value_and_grad(lambda w1, w2: 3 * w1**2 + 2 * w1 * w2, argnums=(0, 1)))
    function, arguments = cases()["branches by turns"]
    branches = calls(jg.function(function), arguments)
    loops = (calls(partials, w.pairs()), branches)
    out, done = {}, 0
    for count in counts:
        for loop in loops:
            loop((count - done) // len(loops))
        done = count
        out[count] = weight()
    return out


# ---- the whole -----------------------------------------------------------------------------------

@dataclass
class Replays:
    """What this file measures."""

    ratios: list[Ratio]
    recordings: list[dict[str, float]]
    memory: dict[int, float]


def measure(rounds: int, seconds: float, quick: bool) -> Replays:
    """All of it; ``quick``: without what takes seconds."""
    return Replays(ratios(rounds, seconds), [recording(n) for n in (RECORDED[:1] if quick else RECORDED)],
                   weighed((1000, 10_000) if quick else CALLS))


def show(found: Replays) -> None:
    """Three tables, as markdown."""
    print("\n### replay: a call of `jg.function`, recorded before, against the same code run eagerly, Tensors in\n\n"
          "| function | eager, median us | replay, median us | replay/eager |\n|---|--:|--:|--:|")
    for r in found.ratios:
        print(f"| {r.label} | {statistics.median(r.eager):.3f} | {statistics.median(r.replay):.3f} | {r.ratio:.2f} |")
    print("\n| rows | eager, s | first call, s | second call, s | recording, us a row | until ready, us a row |"
          "\n|--:|--:|--:|--:|--:|--:|")
    for f in found.recordings:
        print(f"| {f['rows']:,.0f} | {f['eager']:.4f} | {f['first']:.4f} | {f['again']:.4f} | {f['within']:.2f} | "
              f"{f['row']:.2f} |")
    print("\nThe process: " + ", ".join(f"{mb:.1f} MB after {n:,} replays" for n, mb in found.memory.items()) + ".")
    sys.stdout.flush()


def targets(found: Replays) -> list[tuple[str, str, bool]]:
    """What was asked for, what was measured, whether it holds."""
    slower = [r for r in sorted(found.ratios, key=lambda r: -r.ratio) if r.ratio > LIMIT + NOISE]
    longest = found.recordings[-1]
    grown = [*found.memory.values()][-1] - next(iter(found.memory.values()))
    said = "; ".join(f"{r.ratio:.2f} of it: {r.label}" for r in slower)
    return [("replay: never slower than the eager run of the same code",
             said or f"at most {max(r.ratio for r in found.ratios):.2f} of it", not slower),
            ("replay: recording at most 3 us a row while the function runs",
             ", ".join(f"{f['within']:.2f}" for f in found.recordings) + " us; until it is ready "
             + ", ".join(f"{f['row']:.2f}" for f in found.recordings), all(f["within"] <= 3 for f in found.recordings)),
            (f"replay: a function of {longest['rows']:,.0f} rows is ready within 5 s", f"{longest['first']:.2f} s",
             longest["first"] <= 5),
            (f"replay: {max(found.memory):,} calls hold the memory of {min(found.memory):,} (1 MB)",
             f"{grown:+.2f} MB", grown <= 1)]
