"""What every test may ask for."""

from __future__ import annotations

import os
import sys
import zlib

import numpy as np
import pytest

sys.path.insert(0, os.path.dirname(__file__))       # `tolerance` and `table`, which several files share


LAST = "test_cuda_stand_ins.py"      # it waits for processes, beside which the others run


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name == LAST)


def pytest_collection_finish(session):
    if session.items and session.items[-1].path.name == LAST and not session.config.option.collectonly:
        from simulations import started
        started(session)


@pytest.fixture
def rng(request):
    """Random numbers seeded by the test's name, so that a test alone draws what it draws in a whole run."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@pytest.fixture
def threads_as_before():
    """Leaves the number of threads as it is."""
    import jitgrad as jg
    before = jg.get_num_threads()
    yield
    jg.set_num_threads(before)


@pytest.fixture
def xw(rng):
    """Examples and the weights of a layer, in float32."""
    return rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32)
