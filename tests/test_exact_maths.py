"""Functions whose results are numbers, not approximations: bit for bit NumPy's, on any bits."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, np.inf, -np.inf, np.nan]


def numbers(dtype, rng):
    """Pairs: of any bits, of like size, of small whole numbers, and every special number with every other."""
    n, word = 20_000, np.int32 if dtype == "float32" else np.int64
    info = np.iinfo(word)
    limits = np.finfo(dtype)
    special = np.array([*SPECIAL, limits.max, -limits.max, limits.tiny, limits.smallest_subnormal,
                        -limits.smallest_subnormal], dtype)
    pairs = [[rng.integers(info.min, info.max, n, dtype=word).view(dtype) for _ in range(2)],
             [rng.normal(size=n).astype(dtype) * s for s in (30, 1)],
             [rng.integers(-60, 60, n).astype(dtype) / s for s in (1, 2)],
             [g.ravel() for g in np.meshgrid(special, special)]]
    return [np.concatenate(side) for side in zip(*pairs, strict=True)]


def assert_same(got, want):
    same = (got == want) & (np.signbit(got) == np.signbit(want)) | np.isnan(got) & np.isnan(want)
    assert got.dtype == want.dtype and same.all(), (got[~same][:5], want[~same][:5])


@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("name", ("fmod", "remainder", "floor_divide", "nextafter", "copysign"))
def test_two_numbers(name, dtype, rng):
    x, y = numbers(dtype, rng)
    with np.errstate(all="ignore"):
        want = getattr(np, name)(x, y)
    assert_same(getattr(jg, name)(x, y).numpy(), want)


@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("name, reference", [("floor", np.floor), ("ceil", np.ceil), ("trunc", np.trunc),
                                             ("round", np.rint), ("sqrt", np.sqrt), ("isnan", np.isnan),
                                             ("isinf", np.isinf), ("isfinite", np.isfinite), ("signbit", np.signbit)])
def test_one_number(name, reference, dtype, rng):
    x = numbers(dtype, rng)[0]
    with np.errstate(all="ignore"):
        want = reference(x)
    assert_same(getattr(jg, name)(x).numpy(), want)


def test_powers_of_the_base():
    twos = np.arange(-1074, 1024)
    np.testing.assert_array_equal(jg.exp2(twos.astype(float)).numpy(), np.ldexp(1.0, twos))
    np.testing.assert_array_equal(jg.log2(np.ldexp(1.0, twos)).numpy(), twos)
    np.testing.assert_array_equal(jg.exp2(np.arange(-149, 128, dtype="float32")).numpy(),
                                  np.ldexp(np.float32(1), np.arange(-149, 128)))
    tens = np.arange(23)
    np.testing.assert_array_equal(jg.log10(10.0**tens).numpy(), tens)
    np.testing.assert_array_equal(jg.cbrt(np.arange(-99.0, 100) ** 3).numpy(), np.arange(-99, 100))


def test_integers_stay_integers():
    x = np.array([-7, 7, 0, 2**31 - 1], "int32")
    for name in ("floor", "ceil", "trunc", "round", "positive"):
        got = getattr(jg, name)(x)
        assert got.dtype == "int32"
        np.testing.assert_array_equal(got.numpy(), x)
    assert jg.bitwise_left_shift(x, 33).numpy().tolist() == [0, 0, 0, 0]
    assert jg.bitwise_right_shift(x, 33).numpy().tolist() == [-1, 0, 0, 0]
    assert jg.bitwise_right_shift(x, 31).numpy().tolist() == [-1, 0, 0, 0]
    with pytest.raises(TypeError, match="takes integers"):
        jg.bitwise_left_shift(1.5, 2)


def test_clip():
    x = np.array([-3.0, 0.0, 0.5, 1.0, 9.0, np.nan])
    np.testing.assert_array_equal(jg.clip(x, 0.0, 1.0).numpy(), np.clip(x, 0.0, 1.0))
    np.testing.assert_array_equal(jg.clip(x, max=0.5).numpy(), np.clip(x, None, 0.5))
    np.testing.assert_array_equal(jg.clip(x, 0.5).numpy(), np.clip(x, 0.5, None))
    np.testing.assert_array_equal(jg.clip(x).numpy(), x)
    np.testing.assert_array_equal(jg.clip(x, 2.0, 1.0).numpy(), np.clip(x, 2.0, 1.0))
    assert jg.clip(np.arange(5), 1, 3).numpy().tolist() == [1, 1, 2, 3, 3]
