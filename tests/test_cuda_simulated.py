"""Numba's simulator takes the place of a GPU in processes of its own, as it changes what Numba is."""

from __future__ import annotations

from pathlib import Path

import pytest

from jitgrad.execute.cuda import toolkit
from simulations import FILES, started

pytestmark = pytest.mark.skipif(bool(toolkit.missing()), reason=toolkit.missing())


@pytest.mark.parametrize("simulated", FILES, ids=lambda file: file.stem)
def test_kernels_in_the_simulator(simulated: Path, request: pytest.FixtureRequest) -> None:
    done = started(request.session)[simulated].result()
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]
