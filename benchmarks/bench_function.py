"""`jg.function` and what runs inside one: entering, replaying, recording, branches, loops, batches."""

from __future__ import annotations

import jitgrad as jg
from benchmarks import replays
from benchmarks import workloads as w
from benchmarks.libraries import use_jitgrad

TURNS = 1000
ROWS = 10_000


class Workloads:
    """A turn of the first replayed mode of `benchmarks.peers`."""

    params = ["entry", "partials", "chain", "chain-value", "mlp", "mlp-layers"]
    param_names = ["workload"]

    def setup(self, workload: str) -> None:
        self.loop = next(m for m in use_jitgrad.WORKLOADS[workload]() if m.replayed).loop
        self.loop(2 * w.PAIRS)

    def time_1000_turns(self, workload: str) -> None:
        self.loop(TURNS)


class Branches:
    """Python goes one way and the other by turns."""

    def setup(self) -> None:
        function, arguments = replays.cases()["branches by turns"]
        self.loop = replays.calls(jg.function(function), arguments)
        self.loop(4)

    def time_1000_turns(self) -> None:
        self.loop(TURNS)


class Loops:
    """One call with a loop inside, and one with a batch."""

    def setup(self) -> None:
        self.x = jg.asarray(w.chain_input())
        self.xs = jg.zeros((TURNS, w.LENGTH))
        self.scanned = jg.function(lambda x, xs: jg.scan(lambda c, k: (jg.sin(c) + k, jg.sum(c)), x, xs))
        self.gradient = jg.function(jg.grad(lambda x, xs: jg.sum(self.scanned(x, xs)[0])))
        self.mapped = jg.function(jg.vmap(lambda x: jg.sum(jg.sin(x) * x)))
        self.time_scan_1000()
        self.time_scan_gradient_1000()
        self.time_vmap_1000()

    def time_scan_1000(self) -> None:
        """A thousand iterations."""
        self.scanned(self.x, self.xs)

    def time_scan_gradient_1000(self) -> None:
        self.gradient(self.x, self.xs)

    def time_vmap_1000(self) -> None:
        """A thousand examples."""
        self.mapped(self.xs)


def track_recording() -> float:
    """A function of 10,000 rows: the first call above the eager run."""
    return replays.recording(ROWS)["row"]


def track_first_call() -> float:
    """A function of 10,000 rows: the time until its answer is there."""
    return replays.recording(ROWS)["first"]


def track_memory_growth() -> float:
    """What a hundred thousand replays add to a process that made ten thousand."""
    found = [*replays.weighed((10_000, 100_000)).values()]
    return found[-1] - found[0]


def track_one_row_to_eager() -> float:
    """A function of one operation: a replay against the eager run of the same code."""
    function, arguments = replays.cases()["1 operation on 16 elements"]
    loops = [replays.calls(f, arguments) for f in (function, jg.function(function))]
    for loop in loops:
        loop(TURNS)
    eager, replay = (min(loop(TURNS) for _ in range(9)) for loop in loops)
    return replay / eager


track_recording.unit = "us a row"
track_first_call.unit = "s"
track_memory_growth.unit = "MB"
