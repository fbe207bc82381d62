"""`checkpoint`: the gradients of plain Python, whatever happens inside."""

from __future__ import annotations

import pytest

import jitgrad as jg
from replays import told


def assigning(w):
    def f(v):
        y = w * v * w
        w.assign_add(1.0)
        return jg.sin(y)
    return f


def reading_again(w):
    first = assigning(w)
    return lambda v: first(v) * w


def making(w):
    held = []

    def f(v):
        first = not held
        if first:
            held.append(jg.Variable(3.0))
        y = jg.sin(v * held[0] * w)
        if first:
            w.assign_add(1.0)
        return y
    return f


@pytest.mark.parametrize("make", [assigning, reading_again, making])
@pytest.mark.parametrize("wrap", [lambda f: f, jg.function])
def test_variables_that_change_inside(make, wrap):
    def calls(around):
        w = jg.Variable(2.0)
        f = around(make(w))

        def step(x):
            with jg.GradientTape() as tape:
                tape.watch(x)
                y = f(x)
            return y, tape.gradient(y, [x, w]), w + 0.0
        step = wrap(step)
        return [told(step(jg.constant(0.7))) for _ in range(3)]
    assert calls(jg.checkpoint) == calls(lambda f: f)
