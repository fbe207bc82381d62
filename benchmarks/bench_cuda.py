"""The rows of `benchmarks.cuda`, by jitgrad, where there is a GPU; and the host's part of them, where there is none."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.cuda import workloads
from benchmarks.cuda.workloads import Sizes
from benchmarks.side_by_side import ROOT
from benchmarks.worker import warm_up
from jitgrad.execute.cuda import stream, toolkit

ROWS = [row.name for row in workloads.rows(Sizes()) if row.name != "matmul-tf32"]     # that is a process of its own
TURNS = {"expression": 10, "matmul": 3}


class Replays:
    """A hundred turns of jitgrad's first mode, or fewer of those that take long, waited for at the end."""

    params = ROWS
    param_names = ["row"]

    def setup(self, row: str) -> None:
        if stream.problem() or toolkit.simulated():  # asv skips a benchmark whose setup raises this class, and no other
            raise NotImplementedError(stream.problem() or "Numba's simulator takes the place of a GPU")
        from benchmarks.cuda import use_jitgrad
        self.mode = next(iter(use_jitgrad.WORKLOADS[row]()))
        warm_up(self.mode, bool)

    def time_turns(self, row: str) -> None:
        self.mode.loop(TURNS.get(row, 100))


def track_host_of_adam() -> float:
    """Microseconds of the host for a replayed step of Adam, under a driver whose work is nothing."""
    code = ("import statistics; from benchmarks.cuda import host, idle; idle.install(); "
            "print(statistics.median(host.timed(host.modes()[2][1], 9)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


track_host_of_adam.unit = "us"
