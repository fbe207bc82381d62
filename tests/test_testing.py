"""`jitgrad.testing`: right derivatives pass, wrong ones are named, and every entry is right to third order."""

from __future__ import annotations

import re
from collections import namedtuple
from typing import Any

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.primitive import OPS, Missing
from jitgrad.testing import assert_allclose, check_grads, tolerances
from table import ENTRIES, ident, operands

RULED = [p for p in ENTRIES if p.vjp is not None and not isinstance(p.vjp, Missing)]
Pair = namedtuple("Pair", "first second")


def sine(first: float = 1.0, second: float = 1.0) -> Any:
    """sin whose first and second derivatives are off by a factor."""
    @jg.custom_gradient
    def slope(x: Any) -> Any:
        return first * jg.cos(x), lambda g: -second * g * jg.sin(x)

    @jg.custom_gradient
    def f(x: Any) -> Any:
        return jg.sin(x), lambda g: g * slope(x)
    return f


POINTS = np.linspace(0.2, 1.4, 7)


@pytest.mark.parametrize("prim", RULED, ids=ident)
def test_every_entry_to_third_order(prim: Any, rng: Any) -> None:
    arrays, params = prim.samples(rng)[0]
    given = operands(prim, [np.asarray(a) for a in arrays], np.dtype("float64"))
    if any(a.dtype.kind == "f" for a in given) and params.get("dtype", "float") in ("float", "float32", "float64"):
        # a step small enough that hardly a sample has a kink within it
        check_grads(lambda *xs: OPS[prim.name](*xs, **params), given, order=3, eps=2.0**-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_derivatives_pass(dtype: str) -> None:
    x, y = jg.constant(POINTS, dtype), jg.constant(2.0, dtype)
    check_grads(sine(), (x,))
    check_grads(lambda a, b: {"s": jg.sin(a * b), "m": [jg.mean(a), None, 3]}, (x, y), order=3)
    check_grads(lambda p, k, name: p.first * p.second["w"][k], (Pair(x, {"w": [y, y]}), 1, "a name"))
    check_grads(lambda v: jg.sum(v * v), (jg.Variable(x),), order=1)


def test_large_and_constant_parts_do_not_hide_or_break_it() -> None:
    """A derivative of 1 beside a constant of 1e6, whose rounding is in the differences."""
    check_grads(lambda x: 1e6 + jg.sin(x), (POINTS,))
    with pytest.raises(AssertionError):
        check_grads(lambda x: 1e6 + sine(1.0001)(x), (POINTS,))
    check_grads(lambda x, y: jg.sin(x), (POINTS, 1.0))              # unconnected: zero is right


@pytest.mark.parametrize(("modes", "name"), [(("fwd",), "jvp"), (("rev",), "the tape"), (("fwd", "rev"), "jvp")])
@pytest.mark.parametrize(("dtype", "off"), [("float64", 1.00001), ("float32", 1.01)])
def test_a_wrong_derivative_is_named(dtype: str, off: float, modes: tuple[str, ...], name: str) -> None:
    x = jg.constant(POINTS, dtype)
    with pytest.raises(AssertionError, match=r"order 1 of .* in args\[1\]\['x'\]\[0\] \(shape \(7,\), " + dtype) as said:
        check_grads(lambda a, d: a * sine(off)(d["x"][0]), (2.0, {"x": [x]}), modes=modes)
    assert "test_testing.py" in str(said.value)
    got, want = map(float, re.findall(rf"is ([-.\de+]+) by {name} but ([-.\de+]+) by", str(said.value))[0])
    assert got / want == pytest.approx(off, rel=1e-3)
    with pytest.raises(AssertionError, match="order 2 of"):
        check_grads(sine(second=off), (x,), modes=modes)
    check_grads(sine(second=off), (x,), order=1, modes=modes)


def test_a_rule_that_needs_numbers_has_reverse_mode() -> None:
    @jg.custom_gradient
    def f(x: Any) -> Any:
        return jg.sin(x), lambda g: jg.constant(g.numpy() * np.cos(x.numpy()))
    check_grads(f, (POINTS,), order=1, modes=("rev",))
    with pytest.raises(TypeError):
        check_grads(f, (POINTS,), order=1)


def test_a_wrong_element_among_many_is_found() -> None:
    """Directions are along all elements, none of them weakly."""
    @jg.custom_gradient
    def f(x: Any) -> Any:
        wrong = np.ones(1000)
        wrong[617] = 1.01
        return jg.sin(x), lambda g: g * jg.cos(x) * wrong
    with pytest.raises(AssertionError):
        check_grads(f, (np.linspace(-1, 1, 1000),), order=1)


def test_nan_agrees_with_nothing() -> None:
    with pytest.raises(AssertionError, match="by jvp but nan by"):
        check_grads(lambda x: jg.log(x) * 0.0, (np.array([-1.0]),), order=1)


def test_tolerances_may_be_given() -> None:
    f = sine(1.001)
    check_grads(f, (POINTS,), order=1, rtol=1e-2)
    check_grads(f, (POINTS,), order=1, atol=1e-1)
    with pytest.raises(AssertionError, match="at eps=0.25"):
        check_grads(jg.exp, (3 * POINTS,), order=1, eps=0.25, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize(("arguments", "options", "words"), [
    ((np.arange(3),), {}, "no argument is a float; got int64"), ((), {}, "no argument is a float"),
    ((True, "a"), {}, "got bool, str"), ((1.0,), {"modes": ("fwd", "reverse")}, "some of fwd, rev"),
    ((1.0,), {"modes": "rev"}, "modes are"), ((1.0,), {"modes": ()}, "modes are"), ((1.0,), {"order": 0}, "order=0")])
def test_wrong_arguments(arguments: Any, options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        check_grads(jg.sin, arguments, **options)


def test_a_function_without_float_results() -> None:
    with pytest.raises(ValueError, match="argmax returns no float Tensor"):
        check_grads(jg.argmax, (POINTS,))


# ---- values --------------------------------------------------------------------------------------

def test_values_agree_to_their_dtype() -> None:
    assert_allclose([jg.constant([0.3]), {"n": 3, "none": None}], [jg.constant([0.1]) * 3, {"n": 3, "none": None}])
    assert_allclose(jg.constant([np.nan, np.inf, 1e-9]), np.array([np.nan, np.inf, 0], "float32"), atol=1e-8)
    assert_allclose(jg.constant(1.0), np.float32(1.001), rtol=1e-2)
    for got, want, words in [
            (1.0, jg.constant(1.0), "got is float64\\[\\], not float32\\[\\]"), ([1], [1, 2], "the nests differ"),
            (jg.constant([1.0, 1.001]), jg.constant([1.0, 1.0]), "got"), (jg.constant([1, 2]), jg.constant([1, 3]), "got"),
            ({"a": [jg.constant(np.nan)]}, {"a": [jg.constant(1.0)]}, "got\\['a'\\]\\[0\\]")]:
        with pytest.raises(AssertionError, match=words):
            assert_allclose(got, want)


def test_tolerances_are_those_of_floats() -> None:
    assert tolerances("float32").derivatives > tolerances(np.float64).derivatives
    with pytest.raises(ValueError, match="int32 is compared exactly"):
        tolerances("int32")
