"""Variances, averages, covariances, norms and `nn`'s functions: against NumPy, at edges, to second order."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import jitgrad as jg
from jitgrad import nn
from jitgrad.testing import assert_allclose, check_grads
from tapes import orders

rng = np.random.default_rng(11)
X = rng.normal(size=(3, 4, 5))
AXES = [None, 0, -1, (0, 2), (-1, 1), (0, 1, 2), ()]


# ---- spread --------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("axis", "keepdims"), list(itertools.product(AXES, (False, True))))
def test_var_std_and_moments(axis, keepdims, dtype):
    x = X.astype(dtype)
    wide = x.astype(np.float64)
    for correction in (0, 0 if axis == () else 1, 0.5):
        want = wide.var(axis=axis, ddof=correction, keepdims=keepdims)
        for got, value in ((jg.var(x, axis, correction, keepdims), want),
                           (jg.std(x, axis=axis, correction=correction, keepdims=keepdims), np.sqrt(want))):
            assert got.dtype == dtype and got.shape == want.shape
            np.testing.assert_allclose(got.numpy(), value, rtol=20 * np.finfo(dtype).eps, atol=1e-30)
    mean, variance = jg.moments(x, axis, keepdims)
    np.testing.assert_allclose(mean.numpy(), wide.mean(axis=axis, keepdims=keepdims), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(variance.numpy(), wide.var(axis=axis, keepdims=keepdims), rtol=1e-5)


def test_a_large_mean_costs_no_digits_of_the_variance():
    x = np.array([1e6, 1e6 + 1, 1e6 + 2, 1e6 + 3], np.float32)
    assert float(jg.var(x)) == 1.25 and float(jg.var(x, correction=1)) == np.float32(5 / 3)


def test_spread_of_integers_and_of_nothing():
    assert jg.var([1, 2, 4]).dtype == np.float32 and float(jg.var([True, False])) == 0.25
    assert math.isnan(float(jg.var(jg.zeros((0,))))) and math.isnan(float(jg.var([1.0], correction=1)))
    assert float(jg.var([1.0, 2.0], correction=3)) == math.inf
    assert jg.std(jg.zeros((0, 3)), axis=1).shape == (0,) and float(jg.var(3.0)) == 0.0
    with pytest.raises(ValueError, match="axis 3 is out of range"):
        jg.var(X, axis=3)


def test_gradients_of_spread():
    x = jg.asarray(X)
    check_grads(lambda v: jg.var(v, (0, 2), 1), (x,))
    check_grads(lambda v: jg.std(v, -1, keepdims=True), (x,))
    check_grads(lambda v: jg.moments(v, (1,)), (x,))
    check_grads(lambda v: jg.standardize(v, (-1,)), (x,))


def test_the_gradient_of_std_at_no_variance_is_zero():
    for x in ([2.0, 2.0, 2.0], [7.0]):
        y, g, h = orders(jg.std, np.array(x))
        assert y == 0 and not g.any() and not h.any()


def test_standardize():
    z = jg.standardize(X, (0, 1), epsilon=0.0).numpy()
    np.testing.assert_allclose(z.mean((0, 1)), 0, atol=1e-15)
    np.testing.assert_allclose(z.var((0, 1)), 1, rtol=1e-13)
    y, g, h = orders(jg.standardize, np.full(4, 3.0))
    assert not y.any() and np.isfinite(g).all() and np.isfinite(h).all()


def test_average():
    w = rng.uniform(0.5, 2, 4)
    assert_allclose(jg.average(X, 1, w), jg.asarray(np.average(X, 1, w)))
    assert_allclose(jg.average(X, 1, w, keepdims=True), jg.asarray(np.average(X, 1, w, keepdims=True)))
    full = rng.uniform(0.5, 2, X.shape)
    assert_allclose(jg.average(X, (0, 2), full), jg.asarray(np.average(X, (0, 2), full)))
    assert_allclose(jg.average(X), jg.mean(X))
    check_grads(lambda x, v: jg.average(x, 1, v), (jg.asarray(X), jg.asarray(w)))
    with pytest.raises(ValueError, match=r"3 weights do not fit axis 1 of shape \(3, 4, 5\)"):
        jg.average(X, 1, np.ones(3))


def test_covariances():
    x, y = X[0], X[1][:2]
    for given in ((x,), (x, y), (x[0],), (x[0], x[1])):
        np.testing.assert_allclose(jg.cov(*given).numpy(), np.cov(*given), rtol=1e-13)
        np.testing.assert_allclose(jg.corrcoef(*given).numpy(), np.corrcoef(*given), rtol=1e-13)
    np.testing.assert_allclose(jg.cov(x, correction=0).numpy(), np.cov(x, ddof=0), rtol=1e-13)
    check_grads(jg.cov, (jg.asarray(x),))
    check_grads(jg.corrcoef, (jg.asarray(x),))
    with pytest.raises(ValueError, match=r"cov: takes a matrix or a vector, got shape \(3, 4, 5\)"):
        jg.cov(X)


@pytest.mark.parametrize("q", [0.5, 0, 1, 0.3, [0.1, 0.25, 1.0]])
@pytest.mark.parametrize("axis", [None, 1, -1, (0, 2), (2, 0, 1)])
def test_quantiles(axis, q):
    np.testing.assert_allclose(jg.quantile(X, q, axis).numpy(), np.quantile(X, q, axis), rtol=1e-14)
    kept = jg.quantile(X, q, axis, keepdims=True)
    np.testing.assert_allclose(kept.numpy(), np.quantile(X, q, axis, keepdims=True), rtol=1e-14)
    np.testing.assert_allclose(jg.median(X, axis).numpy(), np.median(X, axis), rtol=1e-14)
    check_grads(lambda v: jg.quantile(v, q, axis), (jg.asarray(X),), eps=2.0**-14)


def test_quantiles_at_their_edges():
    assert float(jg.median([5])) == 5.0 and jg.median([1, 2]).dtype == np.float32
    assert np.isnan(jg.median([[1.0, math.nan, 2.0], [1.0, 2.0, 3.0]], axis=1).numpy()).tolist() == [True, False]
    assert float(jg.median([1.0, math.inf, 2.0])) == 2.0 and math.isnan(float(jg.median(jg.zeros((0,)))))
    assert jg.quantile(jg.zeros((0, 3)), [0.5, 0.1], axis=1).shape == (2, 0) and jg.quantile(X, []).shape == (0,)
    y, g, h = orders(jg.median, np.array([4.0, 1.0, 3.0, 2.0]))
    assert y == 2.5 and g.tolist() == [0, 0, 0.5, 0.5] and not h.any()
    for q in (1.5, [-0.1], math.nan, [[0.5]]):
        with pytest.raises(ValueError, match=r"quantile: q must be numbers in \[0, 1\]"):
            jg.quantile(X, q)


# ---- norms ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("ord", [1, 2, 3, 0.5, 1.5, 0, math.inf, -math.inf, -1, -2.5])
def test_vector_norm(ord):
    flat = X.ravel()
    np.testing.assert_allclose(jg.linalg.vector_norm(X, ord=ord).numpy(), np.linalg.norm(flat, ord), rtol=1e-13)
    for axis, keepdims in itertools.product((0, -1), (False, True)):
        got = jg.linalg.vector_norm(X, axis=axis, keepdims=keepdims, ord=ord).numpy()
        np.testing.assert_allclose(got, np.linalg.norm(X, ord, axis, keepdims), rtol=1e-13)
    both = jg.linalg.vector_norm(X, axis=(0, 2), ord=ord).numpy()
    np.testing.assert_allclose(both, np.linalg.norm(X.transpose(1, 0, 2).reshape(4, 15), ord, 1), rtol=1e-13)
    if ord:
        check_grads(lambda v: jg.linalg.vector_norm(v, axis=1, ord=ord),
                    (jg.asarray(np.sign(X) * (np.abs(X) + 0.3)),), eps=2.0**-12)


@pytest.mark.parametrize("ord", [1, 2, 3, 0.5, 1.5, math.inf])
def test_norms_at_zero_have_gradient_zero(ord):
    def norm(v):
        return jg.linalg.vector_norm(v, ord=ord)
    y, g, h = orders(norm, np.zeros(3))
    assert y == 0 and not g.any() and not h.any()
    y, g, h = orders(norm, np.array([0.0, 3.0, 0.0]))
    np.testing.assert_allclose(y, 3.0)
    np.testing.assert_allclose(g, [0, 1, 0])
    assert np.isfinite(h).all()
    assert jg.linalg.vector_norm(jg.zeros((0, 2)), axis=0, ord=ord).numpy().tolist() == [0.0, 0.0]


def test_norms_do_not_overflow():
    for dtype, size in (("float32", 1e30), ("float64", 1e300)):
        for scale in (size, 1 / size):
            x = np.array([3.0, -4.0], dtype) * np.dtype(dtype).type(scale)
            y, g, _ = orders(jg.linalg.vector_norm, x)
            np.testing.assert_allclose(y, 5.0 * scale, rtol=1e-6)
            np.testing.assert_allclose(g, [0.6, -0.8], rtol=1e-6)
    assert float(jg.linalg.vector_norm([math.inf, 1.0])) == math.inf
    assert float(jg.linalg.vector_norm([0.0, 1.0], ord=-1)) == 0.0
    assert math.isnan(float(jg.linalg.vector_norm([math.nan, 1.0])))
    assert jg.linalg.vector_norm([3, 4]).dtype == np.float32
    with pytest.raises(ValueError, match="ord must be a number, got 'fro'"):
        jg.linalg.vector_norm([1.0], ord="fro")
    with pytest.raises(ValueError, match="no elements"):
        jg.linalg.vector_norm(jg.zeros((0,)), ord=-math.inf)


@pytest.mark.parametrize("ord", ["fro", 1, -1, math.inf, -math.inf])
def test_matrix_norm(ord):
    got = jg.linalg.matrix_norm(X, ord=ord, keepdims=True).numpy()
    np.testing.assert_allclose(got, np.linalg.norm(X, ord, (-2, -1), True), rtol=1e-13)
    assert jg.linalg.matrix_norm(X, ord=ord).shape == (3,)
    check_grads(lambda v: jg.linalg.matrix_norm(v, ord=ord), (jg.asarray(X),), eps=2.0**-14)


def test_matrix_norms_that_are_not_offered():
    for ord in (2, "nuc", 3):
        with pytest.raises(ValueError, match="matrix_norm: ord must be 'fro', 1, -1, inf or -inf"):
            jg.linalg.matrix_norm(X, ord=ord)
    with pytest.raises(ValueError, match="has no two axes"):
        jg.linalg.matrix_norm([1.0])


# ---- functions of nn -----------------------------------------------------------------------------

def test_l2_normalize():
    want = X / np.sqrt((X**2).sum(1, keepdims=True))
    np.testing.assert_allclose(nn.l2_normalize(X, 1).numpy(), want, rtol=1e-14)
    check_grads(lambda v: nn.l2_normalize(v, 1), (jg.asarray(X),))
    y, g, h = orders(lambda v: nn.l2_normalize(v), np.zeros(3))
    assert not y.any() and np.isfinite(g).all() and np.isfinite(h).all()
    np.testing.assert_allclose(float(nn.l2_loss([3.0, 4.0])), 12.5)


def test_dropout():
    x = jg.ones((1000, 4))
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = nn.dropout(x, 0.25, seed=3)
    assert set(np.unique(y.numpy())) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs(float(jg.mean(y)) - 1) < 0.05
    np.testing.assert_array_equal(tape.gradient(y, x).numpy(), y.numpy())
    rows = nn.dropout(x, 0.5, noise_shape=(1000, 1), seed=3).numpy()
    assert (rows == rows[:, :1]).all() and 0.4 < (rows == 0).mean() < 0.6
    assert nn.dropout(x, 0.0) is x and nn.dropout(jg.ones((2,), "float64"), 0.5).dtype == np.float64
    with pytest.raises(ValueError, match=r"dropout: rate must be in \[0, 1\), got 1.0"):
        nn.dropout(x, 1.0)


def test_small_functions_of_nn():
    targets, x = np.array([0.0, 1.0, 2.0, 7.0]), np.array([0.3, -0.5, 1.0, 2.0])
    plain = np.exp(x) - x * targets
    np.testing.assert_allclose(nn.log_poisson_loss(targets, x).numpy(), plain, rtol=1e-14)
    t = np.maximum(targets, 1)
    stirling = np.where(targets > 1, t * np.log(t) - t + 0.5 * np.log(2 * np.pi * t), 0)
    np.testing.assert_allclose(nn.log_poisson_loss(targets, x, True).numpy(), plain + stirling, rtol=1e-14)
    check_grads(lambda v: nn.log_poisson_loss(targets, v, True), (jg.asarray(x),))
    np.testing.assert_array_equal(nn.bias_add(X, np.arange(5.0)).numpy(), X + np.arange(5.0))
    with pytest.raises(ValueError, match=r"a bias of shape \(4,\) does not fit the last axis of shape \(3, 4, 5\)"):
        nn.bias_add(X, np.ones(4))
    assert float(nn.zero_fraction([0, 1, 0, 5])) == 0.5
