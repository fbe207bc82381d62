"""Cumulative operations by their public names: shapes, dtypes, edges, and gradients where division would fail."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import jitgrad as jg
from jitgrad import ops

INF, NAN = np.inf, np.nan
NUMPY = {"cumulative_sum": np.cumsum, "cumulative_prod": np.cumprod}


@pytest.mark.parametrize("name", NUMPY)
@pytest.mark.parametrize("dtype", ("int32", "int64", "float32", "float64", "bool"))
def test_against_numpy(name, dtype, rng):
    for shape in ((7,), (3, 4), (2, 3, 5), (0,), (3, 0), (0, 3), (2, 3, 4, 2)):
        x = rng.integers(0, 2, shape).astype(dtype) if dtype == "bool" else rng.integers(-3, 4, shape).astype(dtype)
        for axis in range(-len(shape), len(shape)):
            for initial in (False, True):
                got = getattr(jg, name)(x, axis=axis, include_initial=initial)
                want = NUMPY[name](x.astype("int32") if dtype == "bool" else x, axis=axis)
                if initial:
                    start = np.full_like(want, 0 if name == "cumulative_sum" else 1, shape=[
                        1 if i == axis % len(shape) else n for i, n in enumerate(shape)])
                    want = np.concatenate([start, want], axis)
                assert got.dtype == ("int32" if dtype == "bool" else dtype)
                np.testing.assert_array_equal(got.numpy(), want)


def test_axis_dtype_and_errors():
    assert jg.cumulative_sum([1, 2, 3]).numpy().tolist() == [1, 3, 6]
    made = jg.cumulative_prod(np.array([[1, 2], [3, 4]]), axis=1, dtype="float64", include_initial=True)
    assert made.dtype == jg.float64 and made.numpy().tolist() == [[1, 1, 2], [1, 3, 12]]
    with pytest.raises(ValueError, match=r"cumulative_sum: shape \(2, 2\) needs an axis"):
        jg.cumulative_sum(jg.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"cumulative_sum: shape \(\) needs an axis"):
        jg.cumulative_sum(1.0)
    with pytest.raises(ValueError, match="cumulative_prod: axis 2 is out of range for 2 dimensions"):
        jg.cumulative_prod(jg.zeros((2, 2)), axis=2)
    with pytest.raises(ValueError, match=r"linear_recurrence: shapes \(3,\) and \(2,\) differ"):
        ops.linear_recurrence(jg.zeros(3), jg.zeros(2), axis=0)


def test_edges():
    assert np.isnan(jg.cumulative_sum([1.0, NAN, 2.0]).numpy()).tolist() == [False, True, True]
    np.testing.assert_array_equal(jg.cumulative_sum([INF, 1.0, -INF]).numpy(), [INF, INF, NAN])
    np.testing.assert_array_equal(jg.cumulative_prod([2.0, 0.0, INF]).numpy(), [2, 0, NAN])
    assert np.signbit(jg.cumulative_prod([-0.0, 2.0, -1.0]).numpy()).tolist() == [True, True, False]
    got = jg.logcumsumexp([-INF, -INF, 0.0, -INF, 1000.0, INF, INF, NAN]).numpy()
    np.testing.assert_array_equal(got, np.array([-INF, -INF, 0, 0, 1000, INF, INF, NAN], "f"))
    assert jg.logcumsumexp(jg.zeros((0,))).shape == (0,)


def test_float32_accumulates_in_float64(rng):
    x = rng.uniform(0, 1, 1_000_003).astype("f")
    np.testing.assert_array_equal(jg.cumulative_sum(x).numpy(), np.cumsum(x.astype("d")).astype("f"))
    strided = x[:1_000_000].reshape(-1, 4)
    np.testing.assert_array_equal(jg.cumulative_sum(strided, axis=0).numpy(),
                                  np.cumsum(strided.astype("d"), axis=0).astype("f"))


def derivatives(f, x):
    """The gradient of sum(w f(x)) and that of a fixed combination of it, by nested tapes."""
    t = jg.constant(x, "float64")
    w, d = (np.random.default_rng(k).normal(size=t.shape) for k in (1, 2))
    with jg.GradientTape() as outer:
        outer.watch(t)
        with jg.GradientTape() as inner:
            inner.watch(t)
            y = jg.sum(f(t) * w)
        first = inner.gradient(y, t)
        combined = jg.sum(first * d)
    return first.numpy(), outer.gradient(combined, t).numpy()


def products(x, w):
    """d/dx_k and d2/dx_k dx_m of sum_j w_j prod_{i <= j} x_i, by leaving factors out."""
    n = len(x)
    first, second = np.zeros(n), np.zeros((n, n))
    for j, k in itertools.product(range(n), repeat=2):
        if k <= j:
            rest = [i for i in range(j + 1) if i != k]
            first[k] += w[j] * np.prod(x[rest])
            for m in rest:
                second[k, m] += w[j] * np.prod(x[[i for i in rest if i != m]])
    return first, second


@pytest.mark.parametrize("zeros", ((), (0,), (3,), (5,), (0, 3), (2, 3, 5), (0, 1, 2, 3, 4, 5)))
def test_product_gradients_with_zeros(zeros, rng):
    x = rng.uniform(0.5, 2, 6)
    x[list(zeros)] = 0
    w, d = (np.random.default_rng(k).normal(size=6) for k in (1, 2))
    want, hessian = products(x, w)
    first, second = derivatives(jg.cumulative_prod, x)
    np.testing.assert_allclose(first, want, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(second, hessian @ d, rtol=1e-12, atol=1e-13)


def test_logcumsumexp_gradients_with_nothing_and_much():
    """Elements of -inf have gradient 0 and disturb nobody; a large one is no overflow."""
    x = np.array([-INF, -INF, 0.5, -INF, 1.5, 800.0, 799.0, -INF, 802.0])
    kept = np.isfinite(x)
    w, d = (np.random.default_rng(k).normal(size=len(x)) for k in (1, 2))
    y = np.logaddexp.accumulate(x[kept])
    weights = np.exp(np.where(np.tri(5, dtype=bool), x[kept][None] - y[:, None], -INF))            # [result j, element k]
    # results after an element of -inf repeat those before it
    at = np.cumsum(kept) - 1
    total = np.zeros(kept.sum())
    np.add.at(total, at[at >= 0], w[at >= 0])
    first, second = derivatives(jg.logcumsumexp, np.where(kept, x, -INF))
    np.testing.assert_allclose(first[kept], total @ weights, rtol=1e-12, atol=1e-14)
    assert first[~kept].tolist() == second[~kept].tolist() == [0, 0, 0, 0]
    hessian = sum(total[j] * (np.diag(p) - np.outer(p, p)) for j, p in enumerate(weights))
    np.testing.assert_allclose(second[kept], hessian @ d[kept], rtol=1e-10, atol=1e-13)
