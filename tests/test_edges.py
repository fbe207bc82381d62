"""Edges of derivatives, sources that share memory, parameters that point outside: what must not be wrong or crash."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import jitgrad as jg
from tapes import orders


@pytest.mark.parametrize(("f", "want"), [
    (lambda x: jg.where(x > 0., x**3, x), [6., 12.]),
    (lambda x: x**3 * jg.constant([1., 2.], dtype="float64"), [6., 24.]),
    (lambda x: jg.astype(x, "float64") * jg.astype(x, "float64") * x, [6., 12.]),
    (lambda x: jg.take(x, jg.constant([1, 1]))**3, [0., 24.]),
    (lambda x: x[[1, 0]]**3, [6., 12.]),
], ids=["where", "float64", "cast", "take", "index"])
def test_second_order_through_operands_of_several_dtypes(f, want):
    np.testing.assert_allclose(orders(f, [1., 2.])[2], want, rtol=1e-6)


@pytest.mark.parametrize(("f", "x", "want"), [
    (lambda x: jg.where(x > 0, x**0.5, 0.), [0., 4.], [0., .25]),
    (lambda x: jg.where(x > 0, x**-1, 0.), [0., 4.], [0., -.0625]),
    (lambda x: jg.where(x > 0, jg.power(x, jg.constant(-1.)), 0.), [0., 4.], [0., -.0625]),
    (lambda x: jg.where(x > 0, 1 / x, 0.), [0., 4.], [0., -.0625]),
    (lambda x: jg.where(x > 0, jg.log(x), 0.), [0., 4.], [0., .25]),
    (lambda x: jg.where(x > 0, jg.sqrt(x), 0.), [0., 4.], [0., .25]),
    (lambda x: jg.sqrt(jg.sum(x * x)), [0., 0.], [0., 0.]),
    (lambda x: jg.logsumexp(x, axis=1), [[-math.inf, -math.inf], [0., 0.]], [[0., 0.], [.5, .5]]),
], ids=["sqrt by power", "reciprocal by literal", "reciprocal by power", "divide", "log", "sqrt", "norm", "logsumexp"])
def test_a_gradient_that_was_not_asked_for_is_zero_and_not_nan(f, x, want):
    np.testing.assert_allclose(orders(f, x, 1)[1], want, rtol=1e-6)


INF = math.inf


def derivatives(f: Callable[[Any], Any], x: Any, count: int = 2) -> list[np.ndarray]:
    """Those of the sum, first to ``count``-th order, in float64."""
    return orders(f, np.asarray(x, np.float64), count)[1:]


MASKED = {        # what where() did not choose has no gradient of any order, be its own value or slope infinite
    "1/x": (lambda x: 1 / x, 0.), "x**-1": (lambda x: x**-1, 0.), "x**-1.": (lambda x: x**-1., 0.),
    "x**.5": (lambda x: x**.5, 0.), "x/x": (lambda x: x / x, 0.), "log": (jg.log, 0.), "log2": (jg.log2, 0.),
    "log10": (jg.log10, 0.), "log1p": (jg.log1p, -1.), "sqrt": (jg.sqrt, 0.), "rsqrt": (jg.rsqrt, 0.),
    "reciprocal": (jg.reciprocal, 0.), "cbrt": (jg.cbrt, 0.), "asin": (jg.asin, 1.), "acos": (jg.acos, -1.),
    "atanh": (jg.atanh, 1.), "acosh": (jg.acosh, 1.), "xlogy": (lambda x: jg.xlogy(x, x), 0.),
    "exp": (jg.exp, 1000.), "expm1": (jg.expm1, 1000.), "exp2": (jg.exp2, 2000.), "sinh": (jg.sinh, 1000.),
    "cosh": (jg.cosh, -1000.), "x**9": (lambda x: x**9, 1e200), "hypot": (lambda x: jg.hypot(x, x), 0.),
    "atan2": (lambda x: jg.atan2(x, x), 0.), "sin(x)/x": (lambda x: jg.sin(x) / x, 0.),
    "sqrt below 0": (jg.sqrt, -1.), "hypot at inf": (lambda x: jg.hypot(x, 1.), INF), "erf at inf": (jg.erf, INF),
    "atan2 at inf": (lambda x: jg.atan2(x, x), INF), "atan at inf": (jg.atan, -INF), "erfc at 1e308": (jg.erfc, 1e308),
}


@pytest.mark.parametrize("name", MASKED)
def test_what_where_did_not_choose_has_gradient_zero_to_third_order(name):
    f, edge = MASKED[name]
    for found in derivatives(lambda x: jg.where(x == edge, 0., f(x)), [edge, .5 if name != "acosh" else 2.], 3):
        assert found[0] == 0 and np.isfinite(found[1])


SECOND = {        # f, x, first and second derivative
    "where 1/x": (lambda x: jg.where(x > 0, 1 / x, 0.), [0., 4.], [0., -1 / 16], [0., 1 / 32]),
    "x**0.": (lambda x: x**0., [0., -2., 2.], [0., 0., 0.], [0., 0., 0.]),
    "x**1.": (lambda x: x**1., [0., -2., 2.], [1., 1., 1.], [0., 0., 0.]),
    "x**2.": (lambda x: x**2., [0., -2., 2.], [0., -4., 4.], [2., 2., 2.]),
    "x**3.": (lambda x: x**3., [0., -2., 2.], [0., 12., 12.], [0., -12., 12.]),
    "x**.5": (lambda x: x**.5, [0., 4.], [INF, .25], [-INF, -1 / 32]),
    "x**-1.": (lambda x: x**-1., [-2., 2.], [-.25, -.25], [-.25, .25]),
    "x**0": (lambda x: x**0, [0., -2.], [0., 0.], [0., 0.]),
    "x**3": (lambda x: x**3, [0., -2., 2.], [0., 12., 12.], [0., -12., 12.]),
    "x**-1": (lambda x: x**-1, [0., -2., 2.], [-INF, -.25, -.25], [INF, -.25, .25]),
    "0**y": (lambda y: jg.power(0., y), [1., 2.], [0., 0.], [0., 0.]),
    "sqrt": (jg.sqrt, [0., 4.], [0., .25], [0., -1 / 32]),
    "rsqrt": (jg.rsqrt, [0., 4.], [-INF, -1 / 16], [INF, 3 / 128]),
    "norm": (lambda x: jg.sqrt(jg.sum(x * x)), [0., 0.], [0., 0.], [0., 0.]),
    "hypot": (lambda x: jg.hypot(x, 0.), [0., -3.], [0., -1.], [0., 0.]),
    "atan2": (lambda x: jg.atan2(x, x), [0., 3.], [0., 0.], [0., 0.]),
    "cbrt": (jg.cbrt, [0., 8.], [INF, 1 / 12], [0., -1 / 144]),
    "abs": (jg.abs, [0., -2.], [0., -1.], [0., 0.]),
    "copysign": (lambda x: jg.copysign(x, -1.), [0., 2.], [0., -1.], [0., 0.]),
    "relu": (lambda x: jg.relu(x)**2, [0., 1., -1.], [0., 2., 0.], [0., 2., 0.]),
    "maximum": (lambda x: jg.maximum(x * x, x), [1., 0., 2.], [2., 0., 4.], [2., 2., 2.]),
    "minimum": (lambda x: jg.minimum(x, x * x), [1., 0.], [1., 1.], [0., 0.]),
    "max": (lambda x: jg.max(x * x), [3., 3., 1.], [3., 3., 0.], [1., 1., 0.]),
    "min": (lambda x: jg.min(x * x), [1., 1., 3.], [1., 1., 0.], [1., 1., 0.]),
    "clip": (lambda x: jg.clip(x * x, 0., 1.), [0., 1., .5, 2.], [0., 2., 1., 0.], [2., 2., 2., 0.]),
    "log with zero cotangent": (lambda x: jg.log(x) * 0., [0., 1.], [0., 0.], [0., 0.]),
    "asin": (jg.asin, [1., -1., 0.], [INF, INF, 1.], [INF, -INF, 0.]),
    "acos": (jg.acos, [1., -1., 0.], [-INF, -INF, -1.], [-INF, INF, 0.]),
    "atanh": (jg.atanh, [1., -1., 0.], [INF, INF, 1.], [INF, -INF, 0.]),
    "acosh": (jg.acosh, [1., 1.25], [INF, 4 / 3], [-INF, -80 / 27]),
    "atan": (jg.atan, [INF, 0., 1.], [0., 1., .5], [0., 0., -.5]),
    "erf": (jg.erf, [-INF, 0., 1e200], [0., 2 / math.pi**.5, 0.], [0., 0., 0.]),
    "asinh": (jg.asinh, [0., 1e200, .75], [1., 1e-200, .8], [0., 0., -.384]),
    "logsumexp": (lambda x: jg.logsumexp(x, axis=1), [[-INF, -INF], [0., 0.], [-INF, 1.]],
                  [[0., 0.], [.5, .5], [0., 1.]], [[0., 0.], [0., 0.], [0., 0.]]),
    "logsumexp of squares": (lambda x: jg.logsumexp(x * x), [0., 0.], [0., 0.], [1., 1.]),
    "softmax": (lambda x: jg.softmax(x)[:, 0], [[1e4, 1e4], [1e4, -1e4]], [[.25, -.25], [0., 0.]],
                [[0., 0.], [0., 0.]]),
    "log_softmax": (lambda x: jg.log_softmax(x)[:, 0], [[1e4, 1e4], [1e4, -1e4]], [[.5, -.5], [0., 0.]],
                    [[0., 0.], [0., 0.]]),
    "logaddexp": (lambda x: jg.logaddexp(x, 0.), [0., -INF, INF], [.5, 0., 1.], [.25, 0., 0.]),
    "logaddexp of itself": (lambda x: jg.logaddexp(x, x), [-INF, INF, 1.], [0., 1., 1.], [0., 0., 0.]),
    "softplus": (jg.softplus, [0., -INF, INF], [.5, 0., 1.], [.25, 0., 0.]),
    "fmod": (lambda x: jg.fmod(x, 3.), [4., 0., -4.], [1., 1., 1.], [0., 0., 0.]),
    "remainder": (lambda y: jg.remainder(jg.constant(7., "float64"), y), [2., -2.], [-3., 4.], [0., 0.]),
}


@pytest.mark.parametrize("name", SECOND)
def test_edges_to_second_order(name):
    f, x, first, second_order = SECOND[name]
    for found, want in zip(derivatives(f, x), (first, second_order), strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name, power", [("asin", -0.5), ("acos", -0.5), ("atanh", -1.0)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_slopes_near_one_keep_their_digits(name, power, dtype):
    """1 - x^2 would lose as many digits as x has nines."""
    x = 1 - np.logspace(-1, -6, 30).astype(dtype)
    wide = x.astype(np.longdouble)
    want = ((1 - wide) * (1 + wide))**power
    found = np.abs(orders(getattr(jg, name), x, 1)[1])
    np.testing.assert_allclose(found, want.astype(dtype), rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("f", [lambda x: jg.power(x, 3.), lambda x: x**3, jg.log, jg.exp, jg.sqrt, jg.rsqrt, jg.cbrt,
                               jg.acosh, jg.sinh, lambda x: jg.power(2., x), lambda x: jg.hypot(x, 1.)])
def test_a_zero_that_is_a_source_still_has_a_derivative(f):
    """d/dc of d/dx c f(x) at c = 0 is f'(x): the rules leave out infinities there, not the dependence on c."""
    c, x = jg.constant(0., "float64"), jg.constant(2., "float64")
    with jg.GradientTape() as outer:
        outer.watch(c)
        with jg.GradientTape() as inner:
            inner.watch(x)
            y = c * f(x)
        slope = inner.gradient(y, x)
    np.testing.assert_allclose(outer.gradient(slope, c).numpy(), derivatives(f, 2., 1)[0], rtol=1e-15)


def test_mixed_derivative_of_a_power_at_exponent_zero():
    x, y = jg.constant(3., "float64"), jg.constant(0., "float64")
    with jg.GradientTape() as outer:
        outer.watch(y)
        with jg.GradientTape() as inner:
            inner.watch(x)
            z = jg.power(x, y)
        slope = inner.gradient(z, x)
    np.testing.assert_allclose(outer.gradient(slope, y).numpy(), 1 / 3, rtol=1e-15)


def test_variables_with_one_value_are_two_sources():
    a, b = jg.Variable([1., 2.]), jg.Variable([0., 0.])
    b.assign(a)
    with jg.GradientTape() as tape:
        y = jg.sum(a * 3 + b * 5)
    for g, want in zip(tape.gradient(y, [a, b]), (3, 5), strict=True):
        np.testing.assert_array_equal(g.numpy(), [want, want])


def test_an_assigned_tensor_is_no_source_of_the_variable():
    v, z = jg.Variable([1., 2.]), jg.zeros(2)
    v.assign(z)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(z)
        through_variable, through_tensor = v * 2, z * 3
    assert tape.gradient(through_variable, z) is None
    assert tape.gradient(through_tensor, v) is None


def test_a_constant_of_a_variable_is_a_tensor_of_its_own():
    v = jg.Variable([1., 2.])
    c = jg.constant(v)
    with jg.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(c)
        y = v * 2
    assert tape.gradient(y, c) is None


@pytest.mark.parametrize("call", [
    lambda: jg.slice(jg.ones(3), ((0, 20, 1),)),
    lambda: jg.slice(jg.ones(3), ((10**9, 2, 1),)),
    lambda: jg.slice(jg.ones(3), ((0, -5, 1),)),
    lambda: jg.embed(jg.ones(3), (3,), ((10**9, 3, 1),)),
    lambda: jg.embed(jg.ones(2), (3,), ((0, 3, 1),)),
    lambda: jg.gather(jg.ones((2, 2)), jg.constant([0, 0]), -1),
    lambda: jg.gather(jg.ones((2, 3)), jg.constant([0]), 7),
    lambda: jg.scatter_add(jg.ones((2, 3)), jg.zeros(100000, "int32"), 0, 10),
    lambda: jg.unpick(jg.ones(2), jg.zeros(2, "int32"), -1),
    lambda: jg.random_bits(jg.constant([1], "int64"), 3, "int32"),
], ids=["span too long", "span outside", "span negative", "embed outside", "embed unlike", "gather axis -1",
        "gather axis 7", "scatter unlike", "unpick", "random state"])
def test_parameters_that_point_outside_are_refused(call):
    with pytest.raises(ValueError, match=r"(?s)^\w+: .*test_edges\.py:\d+\)$"):
        call()


def test_a_variable_made_past_its_constructor_is_refused():
    empty = object.__new__(jg.Variable)
    for use in (lambda: empty + 1, lambda: float(empty), lambda: bool(empty)):
        with pytest.raises(ValueError, match="without a value"):
            use()


def test_equal_parameters_of_other_types_are_refused_at_every_call():
    x = jg.ones((2, 3))
    for _ in range(2):
        assert jg.sum(x, axis=1).shape == (2,)
        assert jg.reshape(x, (3, 2)).shape == (3, 2)
        with pytest.raises(TypeError, match="axis must be"):
            jg.sum(x, axis=1.0)
        with pytest.raises(TypeError, match="shape must be"):
            jg.reshape(x, (3.0, 2))


def test_numbers_of_a_users_own_type_are_numbers():
    class Mine(float):
        pass
    assert (jg.constant([1.], dtype="float64") + Mine(0.1)).numpy()[0] == 1.1


def test_a_tape_entered_inside_its_pause_stops():
    x = jg.constant(2.)
    with jg.GradientTape() as tape:
        tape.watch(x)
        with tape.stop_recording():
            tape.__enter__()
    before = tape.nbytes
    _ = x * x
    assert tape.nbytes == before


def test_shapes_that_share_a_place_in_the_inline_cache_stay_right():
    for k in range(200):
        n = k % 40 + 1
        a = jg.constant(np.arange(n, dtype="float32"))
        np.testing.assert_array_equal((a + a).numpy(), 2 * np.arange(n))
        np.testing.assert_array_equal(jg.reshape(a, (n, 1)).numpy(), np.arange(n)[:, None])


def test_a_rule_that_holds_its_tape_is_collected():
    import gc
    import weakref

    def run() -> weakref.ref:
        v = jg.Variable(2.0)
        with jg.GradientTape(persistent=True) as tape:
            @jg.custom_gradient
            def f(x):
                return x * 2., lambda dy: (dy, tape)[0]
            assert f(v) is not None
        return weakref.ref(tape)
    seen = run()
    gc.collect()
    assert seen() is None
