"""Numba's simulator takes the place of a GPU in a process of its own, as it changes what Numba is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jitgrad.execute.cuda import toolkit

HERE = Path(__file__).parent


@pytest.mark.skipif(bool(toolkit.missing()), reason=toolkit.missing())
@pytest.mark.parametrize("file", sorted(HERE.glob("cuda_simulated*.py")), ids=lambda file: file.stem)
def test_kernels_in_the_simulator(file):
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", str(file)], text=True, cwd=HERE.parent,
                          env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]
