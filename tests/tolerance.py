"""How far numbers may be apart, chosen once per dtype."""

from __future__ import annotations

import numpy as np

from jitgrad.testing import tolerances

RTOL = {np.dtype(name): tolerances(name).values for name in ("float32", "float64")}

# Central differences in float64 with the step below: the truncation h^2 f'''/6f' is 1e-9 where f'''/f' is below 600,
# as it is for the samples of the table; rounding, eps/h, is 1e-11.
STEP = 2.0**-18
DIFFERENCES = 1e-6             # largest measured: 3e-8 first order, 5e-8 second

# What a finite difference of a number that is exactly zero may show beside terms of size 1: eps/h, room for ten terms.
DIFFERENCES_ZERO = 1e-9


def wider(array: np.ndarray) -> np.ndarray:
    """A float array in the widest format, where a reference has no error to speak of (and where NumPy works element by
    element: its vector code for narrow floats orders zeros of two signs as it happens); others as they are."""
    return array.astype(np.longdouble) if array.dtype.kind == "f" else array


def ulps(got: np.ndarray, want: np.ndarray, scale: np.ndarray | None = None) -> np.ndarray:
    """Errors of floats in units of the last place of ``want`` (given in a wider format), or of ``scale``.

    Infinities, NaNs and the sign of zero must agree exactly: where they do not, the error is infinite.
    """
    with np.errstate(all="ignore"):
        rounded = want.astype(got.dtype)
        unit = np.spacing(np.abs(rounded if scale is None else scale).astype(got.dtype)).astype(want.dtype)
        error = np.abs(got.astype(want.dtype) - want) / unit
        same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
        special = ~np.isfinite(rounded) | ~np.isfinite(got)
        flipped = (got == 0) & (rounded == 0) & (np.signbit(got) != np.signbit(rounded))
    if scale is not None:
        flipped = np.zeros_like(flipped)       # a sum's zero has the sign of whichever order
    return np.where(special, np.where(same, 0, np.inf), np.where(flipped, np.inf, error)).astype(np.float64)


def assert_close(got: object, want: object, rtol: float | None = None) -> None:
    """Arrays of one shape and dtype agree to the dtype's tolerance, relative to each element or to the largest."""
    a, b = np.asarray(got), np.asarray(want)
    assert a.dtype == b.dtype and a.shape == b.shape, (a.dtype, b.dtype, a.shape, b.shape)
    if a.dtype.kind != "f":
        np.testing.assert_array_equal(a, b)
        return
    rtol = RTOL[a.dtype] if rtol is None else rtol
    finite = np.abs(b[np.isfinite(b)])
    np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * float(finite.max(initial=0)))


def assert_same_bits(got: np.ndarray, want: np.ndarray) -> None:
    """Arrays agree bit for bit, NaN payloads aside."""
    assert got.dtype == want.dtype and got.shape == want.shape, (got.dtype, want.dtype, got.shape, want.shape)
    word = f"u{got.dtype.itemsize}"
    a, b = np.ascontiguousarray(got), np.ascontiguousarray(want)
    same = (a.view(word) == b.view(word)) | ((a != a) & (b != b))
    assert np.all(same), (a[~same][:5], b[~same][:5])
