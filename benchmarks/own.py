"""Figures of jitgrad alone: gradient/primal ratio, tapes of new lengths, a fresh import."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jitgrad as jg
from benchmarks import workloads as w
from benchmarks.libraries.use_jitgrad import mlp_loss
from jitgrad.core.aval import AVALS
from jitgrad.core.program import Program
from jitgrad.core.recorder import Recorder
from jitgrad.execute.cpu import types as machine
from jitgrad.execute.cpu.plans import Plan
from jitgrad.transform.vjp import joined, pullback

ROWS = 1000                     # of a tape of a new length
FIRST_GRADIENT = """import jitgrad as jg
x = jg.Variable(3.0)
with jg.GradientTape() as tape:
    y = jg.sin(x) * x
float(tape.gradient(y, x))"""


def microseconds(call: Callable[[], Any], rounds: int, seconds: float) -> list[float]:
    """Of a call, once per round."""
    call()
    start = time.perf_counter()
    call()
    n = max(1, round(seconds / (time.perf_counter() - start)))
    out = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(n):
            call()
        out.append(1e6 * (time.perf_counter() - start) / n)
    return out


# ---- gradient/primal ratio -----------------------------------------------------------------------

def loss_and_gradient() -> tuple[Plan, Plan, tuple[Any, ...]]:
    """Plans of the loss, and of its four gradients with the primal rows that they need, over the same inputs."""
    inputs = tuple(jg.asarray(a) for a in (*w.mlp_parameters(), *w.mlp_batches()[0]))
    recorder = Recorder()
    *parameters, x, y = (recorder.input(AVALS[t._aval]) for t in inputs)
    primal = recorder.program([mlp_loss(parameters, x, y)])
    back, saved = pullback(primal, primal.results.tolist(), [-1], primal.inputs.tolist()[:len(parameters)])
    return _planned(primal), _planned(joined(primal, back, saved)), inputs


def _planned(program: Program) -> Plan:
    plan = Plan(program, range(len(program.inputs)))
    plan.recordable()
    return plan


def gradient_ratio(rounds: int, seconds: float) -> dict[str, float]:
    """Microseconds of both plans run by the sweep, interleaved, and their ratio."""
    primal, both, inputs = loss_and_gradient()
    found: dict[str, list[float]] = {"primal": [], "gradient": []}
    for _ in range(rounds):
        for name, plan in (("primal", primal), ("gradient", both)):
            found[name] += microseconds(lambda plan=plan: machine.plan_run(plan.address, inputs), 1, seconds)
    out = {name: statistics.median(rounds) for name, rounds in found.items()}
    return {**out, "ratio": out["gradient"] / out["primal"], "primal_rows": len(primal.program),
            "gradient_rows": len(both.program)}


# ---- fresh processes -----------------------------------------------------------------------------

def process_seconds(code: str, cache: str | None = None) -> float:
    """Wall time of a process that runs the code, with bytecode files as it would have at the second run; ``cache``: the
    folder of its object cache."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env |= {"JITGRAD_CACHE_DIR": cache} if cache else {}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=env, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def above_numpy(code: str, rounds: int) -> float:
    """Median seconds of a process that runs the code above one that imports numpy."""
    process_seconds(code)
    found = [process_seconds(code) - process_seconds("import numpy") for _ in range(rounds)]
    return statistics.median(found)


# ---- tapes of new lengths ------------------------------------------------------------------------

def tape_of(rows: int, x: Any) -> tuple[Any, Any]:
    """A persistent tape with so many rows, and its target."""
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = x
        for i in range(rows):
            y = (jg.sin(y), y * 1.01, y + 0.1)[i % 3]
    return tape, y


def new_lengths(tapes: int) -> dict[str, float]:
    """Microseconds a row of a tape's first gradient, whose pieces were all seen before, and of its second."""
    x = jg.asarray(w.chain_input())
    for warm in range(3):                       # the pieces, and the kernels
        tape, y = tape_of(ROWS - 1 - warm, x)
        tape.gradient(y, x)
    first, again = [], []
    for k in range(tapes):
        tape, y = tape_of(ROWS + k, x)
        for found in (first, again):
            start = time.perf_counter()
            tape.gradient(y, x)
            found.append(1e6 * (time.perf_counter() - start) / (ROWS + k))
    made = [a - b for a, b in zip(first, again, strict=True)]
    return {"first": statistics.median(first), "again": statistics.median(again), "made": statistics.median(made)}
