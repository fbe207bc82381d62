"""Workers of all libraries, their results checked, their rounds interleaved."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workloads import Workload

LIBRARIES = ["jitgrad", "numpy", "torch", "jax", "tensorflow", "autograd", "numba"]
ROOT = Path(__file__).resolve().parent.parent


def environment(threads: int) -> dict[str, str]:
    """What tells every library how many threads it has; those of OpenBLAS look for work for 2**22 cycles, not 2**28."""
    counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
                            "JITGRAD_NUM_THREADS", "NPROC", "TF_NUM_INTRAOP_THREADS"), str(threads))
    alone = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1" if threads == 1 else ""
    return {**counts, "OPENBLAS_THREAD_TIMEOUT": "22", "XLA_FLAGS": alone, "JAX_PLATFORMS": "cpu",
            "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}


class Absent(Exception):
    """A library that cannot be imported here; says why."""


class Worker:
    """The parent's end of one library's process."""

    def __init__(self, module: str, settings: Mapping[str, str] = {}, library: str | None = None, threads: int = 1,
                 package: str = "benchmarks.libraries") -> None:
        self.library = library or module
        self.version = ""
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        settings = {**os.environ, **environment(threads), "PYTHONPATH": path, **settings}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", module, package], cwd=ROOT, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=settings)

    def _reply(self) -> Any:
        assert self._process.stdout is not None and self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._process.stderr.read().strip().splitlines()
            raise Absent(said[-1] if said else "its process ended")
        return json.loads(line)

    def hello(self) -> None:
        """Wait until the library is imported."""
        self.version = self._reply()["version"]

    def ask(self, **what: Any) -> Any:
        """One question, one answer."""
        assert self._process.stdin is not None
        print(json.dumps(what), file=self._process.stdin, flush=True)
        return self._reply()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@dataclass
class Row:
    """One line of a table: microseconds a turn, one figure per round."""

    library: str
    version: str
    label: str
    recorded: bool
    worst: float                   # largest error, in units of what is allowed
    rounds: list[float]
    replayed: bool = False         # jitgrad: a function that was recorded before
    nodes: int = 0                 # launches on a GPU that a turn is made of, where that is known

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def minimum(self) -> float:
        return min(self.rounds)

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "median": self.median, "minimum": self.minimum}


def start(libraries: list[str]) -> tuple[list[Worker], dict[str, str]]:
    """Processes of the libraries that are here, and why the others are not."""
    return ready([Worker(name) for name in libraries])


def ready(started: list[Worker]) -> tuple[list[Worker], dict[str, str]]:
    """The workers whose library is here, and why the others' is not."""
    workers, absent = [], {}
    for worker in started:
        try:
            worker.hello()
        except Absent as why:
            absent[worker.library] = str(why)
            worker.close()
        else:
            workers.append(worker)
    return workers, absent


def excess(results: list[Any], answers: list[np.ndarray], workload: Workload) -> float:
    """The largest error, in units of what the workload allows."""
    errors = [np.max(np.abs(np.asarray(got) - want) / (workload.atol + workload.rtol * np.abs(want)))
              for got, want in zip(results, answers, strict=True)]
    return float(np.max(errors))


def compare(workload: Workload, workers: list[Worker], rounds: int, seconds: float,
            pause: float = 0.0) -> tuple[list[Row], list[str]]:
    """Check every mode of every library, then time them in turns; and why a library is not among them.

    A mode whose numbers are wrong is not timed: its time would mean nothing. One that gives none is no library's way
    to do the work but a part of it, that nobody can do without. ``pause``, before each round: threads of the library
    before may still look for work.
    """
    answers = workload.answers()
    rows, turns, failed = [], [], []
    for worker in workers:
        made = worker.ask(do="setup", workload=workload.name)
        if "error" in made:
            failed.append(f"{worker.library}: {made['error']}")
            continue
        counts = worker.ask(do="calibrate", seconds=seconds)
        for mode, (told, n) in enumerate(zip(made["modes"], counts, strict=True)):
            worst = excess(told["result"], answers, workload) if told["result"] else 0.0
            if worst <= 1:
                rows.append(Row(worker.library, worker.version, told["label"], told["recorded"], worst, [],
                                told["replayed"], told["nodes"]))
                turns.append((worker, mode, n))
            else:
                failed.append(f"{worker.library} ({told['label']}): {worst:.3g} times further from NumPy's answer than "
                              "allowed")
    for _ in range(rounds):
        for row, (worker, mode, n) in zip(rows, turns, strict=True):
            time.sleep(pause)
            row.rounds.append(1e6 * worker.ask(do="round", mode=mode, turns=n) / n)
    return rows, failed


# ---- the command line ------------------------------------------------------------------------------

def options(command: str, says: str, names: Sequence[str], libraries: Sequence[str], seconds: float,
            ) -> argparse.ArgumentParser:
    """What every comparison can be told; ``names`` are its rows."""
    parser = argparse.ArgumentParser(prog=f"python -m {command}", description=says.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--libraries", nargs="+", choices=libraries, default=libraries, metavar="NAME",
                        help=", ".join(libraries))
    parser.add_argument("--rounds", type=int, default=25, help="rounds of every mode (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=seconds, help="length of a round (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 2 ms: does everything run?")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write every round's figures there")
    return parser


def parsed(parser: argparse.ArgumentParser, given: list[str] | None) -> argparse.Namespace:
    """The options, where a quick run has its own."""
    out = parser.parse_args(given)
    if out.quick:
        out.rounds, out.seconds = 3, 0.002
    return out
