"""The error that an entry states holds: a smaller sample of what `python -m benchmarks.accuracy` measures."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.accuracy import FLOATS, entries, exact, exact_error, measure
from jitgrad.core.primitive import BY_NAME
from table import ident

ENTRIES = entries()     # without those that other tests add
ROUNDING = 1e-3         # the widest format rounds too: half an ulp shows as a little more


@pytest.mark.parametrize("dtype", FLOATS, ids=ident)
@pytest.mark.parametrize("prim", ENTRIES, ids=ident)
def test_measured_error_is_at_most_the_stated_one(prim, dtype):
    found = measure(prim, dtype, count=4_000, exactly=80)
    assert found.error <= prim.ulp + ROUNDING, f"{prim.name} of {found.at}: {found.error} ulp, states {prim.ulp}"


def test_stated_errors_are_small_or_explained():
    assert [p.name for p in ENTRIES if p.ulp > 4 or p.ulp > 2 and " ulp: " not in p.doc and " ulp." not in p.doc] == []


def test_every_error_above_half_an_ulp_has_an_exact_function():
    assert [p.name for p in ENTRIES if p.ulp > 0.5 and exact(p) is None and p.ref is not None
            and p.name != "floor_divide"] == []


def test_the_measure_sees_an_error():
    """A result three units away is three units away, also in the last binade and among the subnormals."""
    for prim, x in ((BY_NAME["exp"], 1.0), (BY_NAME["exp"], -87.5), (BY_NAME["exp"], 88.7), (BY_NAME["exp"], -100.0)):
        right = np.float32(np.exp(np.longdouble(np.float32(x))))
        wrong = right
        for _ in range(3):
            wrong = np.nextafter(wrong, np.float32(0))
        error = exact_error(prim, wrong, (np.float32(x),), {})
        assert error is not None and 2.4 < error < 3.6
