"""The rows of `benchmarks.engine`: jitgrad's functions as machine code, and by hand for Numba."""

from __future__ import annotations

from benchmarks.engine import fresh, use_jitgrad, use_numba
from benchmarks.engine.workloads import ROWS
from benchmarks.worker import Mode, warm_up

NAMES = [row.name for row in ROWS if row.name != "njit-call"]        # not there yet: `fn.njit`
THREADS = 2
TURNS = {"adam": 20, "lstm": 20, "rk4": 20, "mlp-epoch": 1000, "expression-1e5": 20, "expression-1e7": 1}


def _warm(mode: Mode) -> Mode:
    """The mode, once it is as fast as it gets."""
    warm_up(mode, use_jitgrad.settle)
    return mode


class Engine:
    """Turns of jitgrad's first mode: a thousand, or fewer of those that take long."""

    params = [name for name in NAMES if name in use_jitgrad.WORKLOADS]
    param_names = ["row"]

    def setup(self, row: str) -> None:
        self.mode = _warm(next(iter(use_jitgrad.WORKLOADS[row]())))

    def time_turns(self, row: str) -> None:
        self.mode.loop(TURNS.get(row, 1000))


class ByHand:
    """The same work, gradients and all, written by hand under ``numba.njit``."""

    params = [name for name in NAMES if name in use_numba.WORKLOADS]
    param_names = ["row"]

    def setup(self, row: str) -> None:
        self.mode = _warm(next(iter(use_numba.WORKLOADS[row]())))

    def time_turns(self, row: str) -> None:
        self.mode.loop(TURNS.get(row, 1000))


def _process(what: str, row: str, cold: bool = False) -> fresh.Process:
    """Fresh processes of one kind, the inputs made before anything is measured."""
    return next(p for p in fresh.measure([what], ["jitgrad"], THREADS, 1) if (p.row, p.cold) == (row, cold))


def track_first_call_cold() -> float:
    """An SGD step as machine code, compiled ahead, with an object cache that has nothing of it."""
    return _process("first-call", "mlp", cold=True).first[-1]


def track_first_call_warm() -> float:
    return _process("first-call", "mlp").first[-1]


def track_memory_adam() -> float:
    return _process("memory", "adam").peak[-1]


def track_memory_expression_1e7() -> float:
    return _process("memory", "expression-1e7").peak[-1]


track_first_call_cold.unit = track_first_call_warm.unit = "s"
track_memory_adam.unit = track_memory_expression_1e7.unit = "MB"
