"""Activations and the logarithms beside them: values, limits, derivatives to second order, conventions at kinks."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

import jitgrad as jg
from jitgrad import nn
from jitgrad.testing import check_grads
from tapes import orders

mp = mpmath.mp
A = nn.activations


def mp_sigmoid(x):
    return 1 / (1 + mpmath.exp(-x))


def mp_softplus(x):
    return mpmath.log1p(mpmath.exp(x))


def over_zero(x, below):
    return x if x >= 0 else below(x)


# name: (function, formula, its limits at -inf and inf, kinks)
FUNCTIONS = {
    "relu": (A.relu, lambda x: max(x, 0), (0, math.inf), [0]),
    "relu6": (A.relu6, lambda x: min(max(x, 0), 6), (0, 6), [0, 6]),
    "leaky_relu": (A.leaky_relu, lambda x: over_zero(x, lambda v: mpmath.mpf(0.2) * v), (-math.inf, math.inf), [0]),
    "elu": (lambda x: A.elu(x, 1.5), lambda x: over_zero(x, lambda v: mpmath.expm1(v) * 1.5), (-1.5, math.inf), [0]),
    "selu": (A.selu, lambda x: 1.0507009873554805 * over_zero(x, lambda v: mpmath.expm1(v) * 1.6732632423543772),
             (-1.0507009873554805 * 1.6732632423543772, math.inf), [0]),
    "celu": (lambda x: A.celu(x, 2.0), lambda x: over_zero(x, lambda v: mpmath.expm1(v / 2) * 2), (-2, math.inf), [0]),
    "silu": (A.silu, lambda x: x * mp_sigmoid(x), (0, math.inf), []),
    "gelu": (A.gelu, lambda x: x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2, (0, math.inf), []),
    "gelu_by_tanh": (lambda x: A.gelu(x, approximate=True), lambda x: x * mp_sigmoid(
        1.5957691216057308 * (x + mpmath.mpf(0.044715) * x**3)), (0, math.inf), []),
    "mish": (A.mish, lambda x: x * mpmath.tanh(mp_softplus(x)), (0, math.inf), []),
    "softplus": (A.softplus, mp_softplus, (0, math.inf), []),
    "log_sigmoid": (A.log_sigmoid, lambda x: -mp_softplus(-x), (-math.inf, 0), []),
    "softsign": (A.softsign, lambda x: x / (1 + abs(x)), (-1, 1), [0]),
    "sigmoid": (A.sigmoid, mp_sigmoid, (0, 1), []),
    "tanh": (A.tanh, mpmath.tanh, (-1, 1), []),
    "hard_sigmoid": (A.hard_sigmoid, lambda x: min(max(x + 3, 0), 6) / 6, (0, 1), [-3, 3]),
    "hard_silu": (A.hard_silu, lambda x: x * min(max(x + 3, 0), 6) / 6, (0, math.inf), [-3, 3]),
    "hard_tanh": (A.hard_tanh, lambda x: min(max(x, -1), 1), (-1, 1), [-1, 1]),
    "hard_shrink": (A.hard_shrink, lambda x: x if abs(x) > 0.5 else 0, (-math.inf, math.inf), [-0.5, 0.5]),
    "soft_shrink": (A.soft_shrink, lambda x: mpmath.sign(x) * max(abs(x) - 0.5, 0), (-math.inf, math.inf),
                    [-0.5, 0.5]),
    "tanh_shrink": (A.tanh_shrink, lambda x: x - mpmath.tanh(x), (-math.inf, math.inf), []),
    "threshold": (lambda x: A.threshold(x, 1.0, -2.0), lambda x: x if x > 1 else -2, (-2, math.inf), [1]),
}
# the exponent of gelu, up to 700, multiplies the error of its argument; what a formula loses by cancellation near 0 counts against x, not against the small result
ABSOLUTE = {"tanh_shrink", "mish"}
BENT = {"elu", "selu", "celu", "softsign"}         # beside their kinks; the others are straight there
POINTS = np.array([-1e30, -1e4, -700, -90, -20, -8, -5.5, -3.5, -2, -1.25, -0.75, -0.25, -1e-3, -1e-20, 1e-20, 1e-3, 0.25,
                   0.75, 1.25, 2, 3.5, 5.5, 8, 20, 90, 700, 1e4, 1e30])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_values(name, dtype):
    function, formula, _, _ = FUNCTIONS[name]
    x = POINTS.astype(dtype)
    got = function(x).numpy()
    assert got.dtype == dtype
    with mp.workdps(60):
        want = np.array([float(formula(mpmath.mpf(float(v)))) for v in x])
    eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
    room = np.abs(want) + (np.abs(x) if name in ABSOLUTE else 0)
    assert (np.abs(got - want) <= (1500 if name.startswith("gelu") else 40) * eps * room + 4 * tiny).all(), np.column_stack([x, got, want])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_limits(name, dtype):
    function, _, limits, _ = FUNCTIONS[name]
    got = function(np.array([-np.inf, np.inf], dtype)).numpy()
    np.testing.assert_allclose(got, np.array(limits, dtype), rtol=1e-6)
    if name != "threshold":
        assert np.isnan(function(np.array([np.nan], dtype)).numpy()).all()
    for shape in ((), (0,), (2, 0)):
        assert function(np.ones(shape, dtype)).shape == shape
    assert function([1, 2]).dtype.kind == "f" or name == "relu"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_where_it_bends(name):
    function, _, _, kinks = FUNCTIONS[name]
    x = np.array([v for v in (-6.7, -3.3, -2.2, -1.4, -0.7, -0.2, 0.0, 0.3, 0.8, 1.3, 2.1, 3.6, 6.9)
                  if all(abs(v - k) > 0.05 for k in kinks)])
    check_grads(function, (jg.asarray(x),), order=2 if not kinks or name in BENT else 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_far_out(name, dtype):
    """At large arguments and at +-inf derivatives are those of the asymptotes: no NaN, no infinity, right to second order."""
    function, _, (low, high), _ = FUNCTIONS[name]
    x = np.array([-np.inf, -1e30, -2000, 2000, 1e30, np.inf], dtype)
    _, first, second = orders(function, x)
    left = 0.0 if np.isfinite(low) else 0.2 if name == "leaky_relu" else 1.0
    right = 0.0 if np.isfinite(high) else 1.0507009873554805 if name == "selu" else 1.0
    np.testing.assert_allclose(first, [left] * 3 + [right] * 3, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(second, 0.0, atol=1e-9)


def test_conventions_at_kinks():
    def slopes(function, *x):
        return orders(function, np.array(x), 1)[1].tolist()
    assert slopes(A.relu, 0.0) == [0.0] and slopes(A.relu6, 0.0, 6.0) == [0.0, 0.0]
    assert slopes(A.leaky_relu, 0.0) == [0.2] and slopes(A.elu, 0.0) == [1.0] and slopes(A.celu, 0.0) == [1.0]
    assert slopes(A.selu, 0.0) == [1.0507009873554805]
    assert slopes(A.hard_sigmoid, -3.0, 3.0) == [0.0, 0.0] and slopes(A.hard_tanh, -1.0, 1.0) == [1.0, 1.0]
    assert slopes(A.softsign, 0.0) == [1.0]


def test_glu_takes_halves():
    x = np.random.default_rng(1).normal(size=(2, 6, 3))
    want = x[:, :3] / (1 + np.exp(-x[:, 3:]))
    np.testing.assert_allclose(A.glu(x, axis=1).numpy(), want, rtol=1e-14)
    check_grads(lambda v: A.glu(v, axis=-2), (jg.asarray(x),))
    with pytest.raises(ValueError, match=r"glu: axis -1 of shape \(2, 6, 3\) has no two halves"):
        A.glu(x)


def test_names_resolve():
    for name in (*FUNCTIONS, "linear", "softmax", "log_softmax", "swish", "hard_swish", "exponential", "glu", "gelu"):
        if name != "gelu_by_tanh":
            assert callable(A.get(name))
    assert A.get(None) is A.linear and A.get(A.mish) is A.mish and A.get("swish") is A.silu
    for word in ("composite", "get", "user_error", "_gated", "nonsense", 3):
        with pytest.raises(ValueError, match="there is no activation"):
            A.get(word)
    assert nn.silu is A.silu and nn.hard_tanh is A.hard_tanh


# ---- log1mexp, logit -----------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logarithms_keep_their_digits(dtype):
    eps = np.finfo(dtype).eps
    small = np.array([1e-30, 1e-8, 0.1, 0.69, 0.7, 1.0, 30.0, 80.0], dtype)
    unit = np.array([1e-30, 0.01, 0.2499, 0.25, 0.4, 0.4999, 0.5, 0.5001, 0.7, 0.75, 0.99, 1 - eps], dtype)
    with mp.workdps(60):
        minus = [float(mpmath.log(-mpmath.expm1(-mpmath.mpf(float(v))))) for v in small]
        odds = [float(mpmath.log(mpmath.mpf(float(v)) / (1 - mpmath.mpf(float(v))))) for v in unit]
    np.testing.assert_allclose(jg.log1mexp(small).numpy(), minus, rtol=8 * eps)
    np.testing.assert_allclose(jg.logit(unit).numpy(), odds, rtol=8 * eps)


def test_logarithms_at_their_ends():
    assert jg.log1mexp([0.0, math.inf]).numpy().tolist() == [-math.inf, 0.0]
    assert jg.logit([0.0, 1.0, 0.5]).numpy().tolist() == [-math.inf, math.inf, 0.0]
    assert np.isnan(jg.logit([-0.1, 1.1, math.nan]).numpy()).all() and np.isnan(jg.log1mexp([-1.0]).numpy()).all()
    check_grads(jg.logit, (jg.constant([0.1, 0.3, 0.5, 0.6, 0.9], "float64"),), eps=2.0**-12)
    check_grads(jg.log1mexp, (jg.constant([0.3, 0.6, 0.8, 2.0, 5.0], "float64"),), eps=2.0**-12)
    _, first, second = orders(jg.log1mexp, np.array([np.inf, 800.0]))
    assert first.tolist() == [0.0, 0.0] and second.tolist() == [0.0, 0.0]
    np.testing.assert_allclose(orders(jg.logit, np.array([0.5]), 1)[1], [4.0])
