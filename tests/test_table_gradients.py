"""Derivative rules of every entry against finite differences of the oracle, first and second order."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.aval import AVALS
from jitgrad.core.primitive import OPS, Missing
from jitgrad.core.record import tensor
from jitgrad.core.recorder import Recorder
from jitgrad.execute import oracle
from jitgrad.transform.vjp import vjp
from table import ENTRIES, ident, operands, points, reference
from tolerance import DIFFERENCES, DIFFERENCES_ZERO, STEP

FLOAT = np.dtype("float64")
RULED = [p for p in ENTRIES if p.vjp is not None and not isinstance(p.vjp, Missing)]


def float_samples(prim, rng):
    """Samples in float64 that a gradient can reach, with the positions of the operands that have one."""
    for arrays, params in prim.samples(rng):
        given = operands(prim, [np.asarray(a) for a in arrays], FLOAT)
        answer = reference(prim, given, params)
        places = [i for i, a in enumerate(given) if a.dtype.kind == "f"]
        if answer.dtype.kind == "f" and places:
            yield given, params, places, rng.normal(size=answer.shape)


def gradients(prim, arrays, params, places, weight, directions=None):
    """Cotangents of the operands for the cotangent ``weight``; with ``directions``, those of <cotangents, directions>."""
    xs = [tensor(a) for a in arrays]
    sources = [xs[i] for i in places]
    with jg.GradientTape() as outer:
        outer.watch(sources)
        with jg.GradientTape() as inner:
            inner.watch(sources)
            y = OPS[prim.name](*xs, **params)
        first = inner.gradient(y, sources, output_gradients=tensor(weight),
                               unconnected_gradients=jg.UnconnectedGradients.ZERO)
        total = None if directions is None else sum(
            jg.sum(g * tensor(d)) for g, d in zip(first, directions, strict=True))
    if directions is None:
        return [g.numpy() for g in first]
    return [g.numpy() for g in outer.gradient(total, sources, unconnected_gradients=jg.UnconnectedGradients.ZERO)]


def differences(f, arrays, place):
    """Central differences of the scalar ``f(arrays)`` in each element of one operand."""
    out = np.zeros(arrays[place].shape)
    for at in np.ndindex(out.shape):
        ends = []
        for step in (STEP, -STEP):
            moved = [a.copy() for a in arrays]
            moved[place][at] += step
            ends.append((f(moved), moved[place][at]))
        (high, right), (low, left) = ends
        out[at] = (high - low) / (right - left)
    return out


def assert_derivative(got, want):
    assert got.dtype == FLOAT and got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=DIFFERENCES, atol=DIFFERENCES_ZERO * max(1, np.abs(want).max(initial=0)))


@pytest.mark.parametrize("prim", RULED, ids=ident)
def test_vjp(prim, rng):
    tried = 0
    for arrays, params, places, weight in float_samples(prim, rng):
        tried += 1
        found = gradients(prim, arrays, params, places, weight)
        for place, g in zip(places, found, strict=True):
            want = differences(lambda moved, p=params, w=weight: float(np.sum(w * reference(prim, moved, p))),
                               arrays, place)
            assert_derivative(g, want)
    assert tried


def backward_program(prim, arrays, params, places):
    """The vjp of an entry as a Program of its operands and the cotangent."""
    recorder = Recorder()
    xs = [recorder.input(AVALS[tensor(a)._aval]) for a in arrays]
    return vjp(recorder.program([OPS[prim.name](*xs, **params)]), places)


@pytest.mark.parametrize("prim", RULED, ids=ident)
def test_second_order(prim, rng):
    """Nested tapes against differences of the first derivative, which the oracle computes."""
    for arrays, params, places, weight in float_samples(prim, rng):
        directions = [rng.normal(size=arrays[i].shape) for i in places]
        back = backward_program(prim, arrays, params, places)

        def slope(moved, back=back, weight=weight, directions=directions):
            found = oracle.run(back, [*moved, weight])
            return sum(float(np.sum(d * g)) for d, g in zip(directions, found, strict=True) if g is not None)
        found = gradients(prim, arrays, params, places, weight, directions)
        for place, g in zip(places, found, strict=True):
            assert_derivative(g, differences(slope, arrays, place))


@pytest.mark.parametrize("prim", [p for p in RULED if p.at], ids=ident)
def test_zero_cotangents_meet_no_infinity(prim, rng):
    """At special points where operands and value are finite: sqrt at 0, powers of 0, ties, kinks."""
    for _, params in prim.samples(rng):
        arrays = points(prim, FLOAT)
        finite = np.isfinite([*arrays, reference(prim, arrays, params)]).all(axis=0)
        arrays = [a[finite] for a in arrays]
        for g in gradients(prim, arrays, params, range(len(arrays)), np.zeros(finite.sum())):
            np.testing.assert_array_equal(g, 0)


@pytest.mark.parametrize("prim", [p for p in ENTRIES if p.vjp is None], ids=ident)
def test_without_a_rule_the_gradient_is_none(prim, rng):
    for arrays, params in prim.samples(rng):
        xs = [tensor(a) for a in operands(prim, arrays, None)]
        floats = [x for x in xs if x.dtype.kind == "f"]
        with jg.GradientTape() as tape:
            tape.watch(floats)
            y = OPS[prim.name](*xs, **params)
        assert tape.gradient(y, floats) == [None] * len(floats)


# ---- documented conventions where the derivative is not unique or not finite ---------------------

def slope_at(f, x):
    t = jg.constant(x, "float64")
    with jg.GradientTape() as tape:
        tape.watch(t)
        y = f(t)
    return tape.gradient(y, t).numpy().tolist()


def test_ties_share_in_reductions_and_go_to_the_first_elsewhere():
    assert slope_at(jg.max, [1.0, 3.0, 3.0, 3.0, 0.0]) == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0])
    assert slope_at(lambda x: jg.min(x, axis=0), [2.0, 2.0]) == [0.5, 0.5]
    for op in (jg.maximum, jg.minimum):
        assert slope_at(lambda x, op=op: op(x, 1.0), [1.0]) == [1.0]
        assert slope_at(lambda x, op=op: op(1.0, x), [1.0]) == [0.0]


def test_kinks_have_gradient_zero():
    assert slope_at(jg.abs, [0.0, -0.0, -2.0]) == [0.0, 0.0, -1.0]
    assert slope_at(jg.relu, [0.0, -1.0, 2.0]) == [0.0, 0.0, 1.0]
    assert slope_at(lambda x: jg.where(x > 0, jg.log(x), 0.0), [0.0, 1.0]) == [0.0, 1.0]
    assert slope_at(lambda x: jg.where(x > 0, jg.sqrt(x), 0.0), [0.0, 4.0]) == [0.0, 0.25]


def test_powers_at_zero():
    assert slope_at(lambda x: x**2.0, [0.0]) == [0.0] and slope_at(lambda x: x**2, [0.0]) == [0.0]
    assert slope_at(lambda x: x**0.0, [0.0]) == [0.0] and slope_at(lambda x: x**1.0, [0.0]) == [1.0]
    assert slope_at(lambda y: jg.power(0.0, y), [2.0]) == [0.0]
    assert slope_at(lambda x: x**3, [-2.0]) == [12.0] and slope_at(lambda x: x**-1, [2.0]) == [-0.25]
