"""Numba's simulator takes the place of a GPU in processes of its own, as it changes what Numba is; one for each core."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from jitgrad.execute.cuda import toolkit

HERE = Path(__file__).parent
FILES = [*sorted(HERE.glob("cuda_simulated*.py")), HERE / "test_tape_devices.py"]

pytestmark = pytest.mark.skipif(bool(toolkit.missing()), reason=toolkit.missing())


def simulate(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", str(file)], text=True, cwd=HERE.parent,
                          env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True)


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> dict[Path, Future[subprocess.CompletedProcess[str]]]:
    """Of the files that are asked for, as they come; the longest first."""
    wanted = {item.callspec.params["file"] for item in request.session.items if item.fspath == request.node.fspath}
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    request.addfinalizer(lambda: pool.shutdown(cancel_futures=True))
    return {file: pool.submit(simulate, file) for file in sorted(wanted, key=lambda f: -f.stat().st_size)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_kernels_in_the_simulator(file: Path, runs: dict[Path, Future[subprocess.CompletedProcess[str]]]) -> None:
    done = runs[file].result()
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]
