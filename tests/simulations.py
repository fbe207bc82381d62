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
EITHER = [HERE / f"test_{name}.py" for name in ("cuda_folds", "cuda_functions", "cuda_groups", "cuda_own",
                                                "cuda_tensors", "tape_devices")]
EMULATED = [HERE / "test_cuda_device.py", HERE / "test_cuda_emulated.py", *EITHER]
SIMULATED = [*sorted(HERE.glob("cuda_simulated*.py")), *([HERE / "test_cuda_functions.py"] if not build.missing() else EITHER)]
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
    """Those that tests of the session ask for, the longest first; one for each core at a time."""
    asked = {item.callspec.params.get("asked") for item in session.items if hasattr(item, "callspec")} - {None}
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    session.config.add_cleanup(lambda: pool.shutdown(cancel_futures=True))
    return {(way, file): pool.submit(WAYS[way], file)
            for way, file in sorted(asked, key=lambda one: -one[1].stat().st_size)}
