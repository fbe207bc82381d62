"""Runs of the CUDA path where no GPU is, in processes of their own; they go on while tests before theirs compile kernels.

The emulator runs all that needs a GPU, with the real driver and the kernels' PTX; Numba's simulator a few of it. Where
the emulator cannot be built the simulator runs what it can.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from emulator import build
from emulator.__main__ import settings

HERE = Path(__file__).parent
EITHER = [HERE / f"test_{name}.py" for name in (
    "cuda_groups", "cuda_tensors", "cuda_own", "cuda_functions", "cuda_folds", "cuda_beside", "cuda_waits", "tape_devices")]
# the last one finds the PTX that test_cuda_kernels.py compiles meanwhile
EMULATED = [*EITHER, HERE / "test_cuda_emulated.py", HERE / "test_cuda_rows.py", HERE / "test_cuda_device.py"]
SIMULATED = [HERE / "cuda_simulated_benchmark.py", HERE / "cuda_simulated.py",
             *(EITHER if build.missing() else [HERE / "test_cuda_functions.py"])]
Done = subprocess.CompletedProcess[str]
Runs = dict[tuple[str, Path], "Future[Done]"]


def simulated(file: Path) -> Done:
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", str(file)], text=True, cwd=HERE.parent,
                          env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True)


def emulated(file: Path) -> Done:
    command, environment = settings()
    return subprocess.run([*command, "-q", "-x", str(file)], text=True, cwd=HERE.parent, env=environment,
                          capture_output=True)


WAYS = {"emulated": emulated, "simulated": simulated}


@functools.cache
def started(session: pytest.Session) -> Runs:
    """Those that tests of the session ask for, in their order; one for each core at a time."""
    asked = [item.callspec.params["asked"] for item in session.items if "asked" in getattr(item, "fixturenames", ())]
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    session.config.add_cleanup(lambda: pool.shutdown(cancel_futures=True))
    return {(way, file): pool.submit(WAYS[way], file) for way, file in asked}
