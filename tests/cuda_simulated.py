"""Kernels for GPUs run by Numba's simulator against the references of the table; see test_cuda_stand_ins.py."""

from __future__ import annotations

import numpy as np
import pytest

from cuda_here import check
from jitgrad.core.primitive import ACCUMULATING, Kind
from jitgrad.execute.cuda import library, toolkit
from table import ENTRIES, cases, ident, points, samples

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")      # integers wrap, floats overflow: NumPy says so

@pytest.fixture(autouse=True, scope="module")
def _simulator():
    assert toolkit.simulated()


CASES = [(prim, dtype) for prim, dtype in cases([p for p in ENTRIES if library.has_kernel(p)])
         if dtype not in (np.int64, np.float64)]                           # the simulator computes in wide numbers anyway


@pytest.mark.parametrize(("prim", "dtype"), CASES, ids=ident)
def test_kernels_compute_what_the_table_says(prim, dtype, rng):
    for arrays, params in samples(prim, dtype, rng):
        check(prim, arrays, params)
    special = points(prim, dtype) if prim.kind is Kind.ELEMENTWISE and dtype in (np.float32, np.int32) else []
    if special and prim.kind not in ACCUMULATING:
        check(prim, [a[:64] for a in special], samples(prim, dtype, rng).__next__()[1])
