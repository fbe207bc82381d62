"""Numba's simulator takes the place of a GPU in a process of its own, as it changes what Numba is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jitgrad.execute.cuda import toolkit


@pytest.mark.skipif(bool(toolkit.missing()), reason=toolkit.missing())
def test_kernels_in_the_simulator():
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", str(here / "cuda_simulated.py")], text=True,
                          cwd=here.parent, env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]
