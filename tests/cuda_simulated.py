"""Kernels for GPUs run by Numba's simulator against the references of the table; see test_cuda_simulated.py."""

from __future__ import annotations

import numpy as np
import pytest

from jitgrad.core.primitive import ACCUMULATING, Kind
from jitgrad.execute.cuda import library, simulator, toolkit
from table import ENTRIES, cases, error, form_of, ident, points, samples

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")      # integers wrap, floats overflow: NumPy says so

SLACK = {Kind.REDUCE: 2.0, Kind.SCAN: 2.0, Kind.CONTRACT: 8.0}      # another order of sums than the CPU's, in ulp


@pytest.fixture(autouse=True, scope="module")
def _simulator():
    assert toolkit.simulated()


def check(prim, arrays, params):
    outs, status = simulator.run(form_of(prim, arrays, params), arrays)
    assert status == 0
    wants = prim.ref(*arrays, **params)
    if isinstance(wants, tuple):
        for got, want in zip(outs, wants, strict=True):
            np.testing.assert_array_equal(got, want)
        return
    found = error(prim, outs[0], arrays, params)
    assert found <= prim.ulp + SLACK.get(prim.kind, 0.0), f"{prim.name}{params}: {found} ulp, states {prim.ulp}"


@pytest.mark.parametrize(("prim", "dtype"), cases([p for p in ENTRIES if library.has_kernel(p)]), ids=ident)
def test_kernels_compute_what_the_table_says(prim, dtype, rng):
    for arrays, params in samples(prim, dtype, rng):
        check(prim, arrays, params)
    special = points(prim, dtype) if prim.kind is Kind.ELEMENTWISE and dtype in (np.float32, np.int32) else []
    if special and prim.kind not in ACCUMULATING:
        check(prim, [a[:64] for a in special], samples(prim, dtype, rng).__next__()[1])
