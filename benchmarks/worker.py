"""One library's process: told over a pipe what to set up and how many times to run it."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.kernels import sampled

FEW, WARM = 5, 20               # turns of long ones, and of others, after which a library has begun to compile


@dataclass(frozen=True)
class Mode:
    """One way in which a library does a workload."""

    label: str
    loop: Callable[[int], Any]                # do it so many times
    result: Callable[[], Sequence[Any]]       # do it (from the start) and give the numbers to check
    recorded: bool = True                     # operations are recorded at each call
    whole: int = 1                            # turns come in multiples of this
    replayed: bool = False                    # jitgrad: a function that was recorded before
    clock: Callable[[int], float] | None = None     # seconds of so many turns, where they are not those of the loop
    nodes: int = 0                            # launches on a GPU that a turn is made of, where that is known


def repeated(call: Callable[[], Any]) -> Callable[[int], Any]:
    """A loop of calls."""
    def loop(n: int) -> Any:
        out = None
        for _ in itertools.repeat(None, n):
            out = call()
        return out
    return loop


def over(items: Iterable[Any], step: Callable[..., Any]) -> Callable[[int], Any]:
    """A loop of steps over items that come around again."""
    cycle = itertools.cycle(items)

    def loop(n: int) -> Any:
        out = None
        for item in itertools.islice(cycle, n):
            out = step(*item)
        return out
    return loop


def with_pairs(items: Iterable[tuple[Any, Any]], call: Callable[[Any, Any], Any]) -> Callable[[int], Any]:
    """A loop of calls with two arguments that come around again, their results dropped."""
    cycle = itertools.cycle(items)

    def loop(n: int) -> None:
        for a, b in itertools.islice(cycle, n):
            call(a, b)
    return loop


def with_four(call: Callable[..., Any], a: Any, b: Any, c: Any, d: Any) -> Callable[[int], Any]:
    """A loop of calls with the same four arguments, their results dropped."""
    def loop(n: int) -> None:
        for _ in itertools.repeat(None, n):
            call(a, b, c, d)
    return loop


def measured(call: Callable[[], Any], label: str, numbers: Callable[[Any], np.ndarray] = np.asarray) -> Mode:
    """A call on a large array, whose result is dropped before the next; it is checked in samples."""
    def loop(n: int) -> None:
        for _ in itertools.repeat(None, n):
            call()
    return Mode(label, loop, lambda: [sampled(numbers(call()))], recorded=False)


def warm_up(mode: Mode, settle: Callable[[], Any]) -> None:
    """Turns until what is compiled in the background has been asked for; it is waited for."""
    start = time.perf_counter()
    for k in range(WARM):
        mode.loop(mode.whole)
        if k >= FEW and time.perf_counter() - start > 1:
            break
    settle()
    mode.loop(mode.whole)


def turns_in(mode: Mode, seconds: float, settle: Callable[[], Any]) -> int:
    """How many turns of the loop take that long, once what is compiled in the background is waited for."""
    warm_up(mode, settle)
    n = mode.whole
    while True:
        taken = _timed(mode, n)
        if taken >= seconds / 2:
            return mode.whole * max(1, round(n / mode.whole * seconds / taken))
        n *= 4


def _timed(mode: Mode, n: int) -> float:
    if mode.clock is not None:
        return mode.clock(n)
    start = time.perf_counter()
    mode.loop(n)
    return time.perf_counter() - start


def described(mode: Mode) -> dict[str, Any]:
    """What the parent needs of a mode, its checked numbers included."""
    return {"label": mode.label, "recorded": mode.recorded, "replayed": mode.replayed, "nodes": mode.nodes,
            "result": [np.asarray(r, np.float64).tolist() for r in mode.result()]}


def serve(library: str, package: str) -> None:
    """Answer the parent's lines until it closes the pipe."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)                             # whatever a library prints is no reply
    module = importlib.import_module(f"{package}.use_{library}")
    print(json.dumps({"version": module.VERSION}), file=replies, flush=True)
    modes: list[Mode] = []
    for line in sys.stdin:
        asked = json.loads(line)
        answer: Any
        if asked["do"] == "setup":
            make = module.WORKLOADS.get(asked["workload"])
            try:
                modes = list(make()) if make else []
                answer = {"modes": [described(m) for m in modes]}
            except Exception as error:        # whatever a library raises: the others go on without it
                modes = []
                answer = {"error": f"{type(error).__name__}: {error}"}
        elif asked["do"] == "calibrate":
            answer = [turns_in(m, asked["seconds"], getattr(module, "settle", bool)) for m in modes]
        else:
            answer = _timed(modes[asked["mode"]], asked["turns"])
        print(json.dumps(answer), file=replies, flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
