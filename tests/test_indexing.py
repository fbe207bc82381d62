"""x[...] with arrays, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg

FEW, PAIRS = np.array([1, -1, 0]), np.array([[2], [0], [-3]])
MASK = np.random.default_rng(5).integers(0, 2, (4, 5)).astype(bool)
ROWS, COLUMNS = np.array([True, False, True, True]), np.array([False, True, True, False, True])
ALL = slice(None)
KEYS = [(FEW,), (FEW, FEW), (FEW, PAIRS), (0, FEW), (0, ALL, FEW % 3), (ALL, FEW, PAIRS % 3), (FEW, ALL, PAIRS % 3), (..., PAIRS % 2), (..., FEW % 3, PAIRS % 2),
        (FEW, ..., PAIRS % 2), (MASK,), (MASK, 0), (MASK, FEW[:1] % 3), (slice(1, None), FEW, 1), (None, FEW, PAIRS), (FEW, None, PAIRS),
        (ROWS, FEW[:1]), (ALL, COLUMNS), (ALL, COLUMNS, ..., None), (FEW, ...), (..., FEW % 2, None), (0, ..., FEW % 2),
        (FEW, ALL, ALL, 0), (ALL, 0, FEW % 3, 0), ([0, 1], [1, 2]), (np.array(1), FEW), (MASK, slice(0, 2), 1),
        (slice(None, None, -1), FEW), (np.zeros((0,), int), FEW[:1]), (ROWS & False,)]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_against_numpy(key, rng):
    x = rng.normal(size=(4, 5, 3, 2))
    t = jg.constant(x)
    with jg.GradientTape() as tape:
        tape.watch(t)
        y = t[key]
    np.testing.assert_array_equal(y.numpy(), x[key], strict=True)
    w = rng.normal(size=y.shape)
    want = np.zeros_like(x)
    np.add.at(want, key, w)
    np.testing.assert_allclose(tape.gradient(y, t, output_gradients=w).numpy(), want, rtol=1e-13)


@pytest.mark.parametrize("key, words", [
    ((FEW, np.array([9])), "an index is out of range"), ((FEW, np.array([-6])), "an index is out of range"),
    ((ROWS[:3],), r"a mask of shape \(3,\) does not fit axes of shape \(4, 5\)"),
    ((MASK[:, :3],), r"a mask of shape \(4, 3\) does not fit"), ((FEW, np.zeros(2, int)), "do not broadcast together"),
    ((FEW, FEW, FEW), "3 indices for shape"), ((np.array(True),), "needs at least one axis"),
    ((4, COLUMNS & False), "4 is out of range for an axis of length 4"),
    ((np.zeros(0, int), -6), "-6 is out of range for an axis of length 5"),
])
def test_errors(key, words):
    with pytest.raises(IndexError, match=words):
        jg.zeros((4, 5))[key]
