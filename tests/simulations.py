"""Runs of Numba's simulator, in processes of their own; they go on while tests that come before theirs compile kernels."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = [*sorted(HERE.glob("cuda_simulated*.py")), HERE / "test_tape_devices.py"]
Runs = dict[Path, "Future[subprocess.CompletedProcess[str]]"]


def simulate(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", str(file)], text=True, cwd=HERE.parent,
                          env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True)


@functools.cache
def started(session: pytest.Session) -> Runs:
    """Those that tests of the session ask for, the longest first; one for each core at a time."""
    asked = {item.callspec.params.get("simulated") for item in session.items if hasattr(item, "callspec")}
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    session.config.add_cleanup(lambda: pool.shutdown(cancel_futures=True))
    return {file: pool.submit(simulate, file)
            for file in sorted(asked.intersection(FILES), key=lambda file: -file.stat().st_size)}
