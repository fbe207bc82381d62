"""What stands in for a GPU has processes of its own: it changes what Numba is, or which driver is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator import build
from jitgrad.execute.cuda import toolkit
from simulations import EMULATED, SIMULATED, Done, started


def check(done: Done) -> None:
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.skipif(bool(toolkit.missing()), reason=toolkit.missing())
@pytest.mark.parametrize("asked", [("simulated", file) for file in SIMULATED], ids=lambda asked: asked[1].stem)
def test_the_simulator_runs(asked: tuple[str, Path], request: pytest.FixtureRequest) -> None:
    check(started(request.session)[asked].result())


@pytest.mark.skipif(bool(build.missing()), reason=build.missing())
@pytest.mark.parametrize("asked", [("emulated", file) for file in EMULATED], ids=lambda asked: asked[1].stem)
def test_the_emulator_runs(asked: tuple[str, Path], request: pytest.FixtureRequest) -> None:
    check(started(request.session)[asked].result())
