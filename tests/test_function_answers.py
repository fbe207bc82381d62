"""What a replay returns: the objects that Python would return, each once."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

import jitgrad as jg


def test_what_is_returned_twice_is_one_object() -> None:
    @jg.function
    def twice(x: Any) -> Any:
        y = x + 1.0
        return y, {"again": [y]}, x * 2.0

    for turn in range(3):
        y, nest, z = twice(jg.ones(3) * float(turn))
        assert nest["again"][0] is y
        np.testing.assert_array_equal(y.numpy(), [turn + 1] * 3)
        np.testing.assert_array_equal(z.numpy(), [turn * 2] * 3)
    assert len(twice.program(jg.ones(3)).results) == 2


def test_what_is_returned_and_held_is_computed_once_and_stays() -> None:
    a, b = jg.Variable(np.zeros(3, np.float32)), jg.Variable(np.ones(3, np.float32))

    @jg.function
    def step(x: Any) -> Any:
        y = a * 0.5 + x
        a.assign(y)
        b.assign(y)
        return y

    kept, expected = [], np.zeros(3, np.float32)
    for turn in range(4):
        kept.append(step(jg.ones(3) * float(turn)))
        expected = expected * np.float32(0.5) + np.float32(turn)
        for held in (a, b, kept[-1]):
            np.testing.assert_array_equal(held.numpy(), expected)
    a.assign_add(jg.ones(3))
    np.testing.assert_array_equal(b.numpy(), expected)
    np.testing.assert_array_equal(kept[-1].numpy(), expected)
    np.testing.assert_array_equal(kept[1].numpy(), np.ones(3))


def test_what_is_returned_and_held_has_a_gradient() -> None:
    v, w = jg.Variable(2.0), jg.Variable(0.0)

    @jg.function
    def step(x: Any) -> Any:
        y = v * x
        w.assign(y)
        return y, y

    for x in (3.0, 4.0, 5.0):
        with jg.GradientTape() as tape:
            p, q = step(jg.constant(x))
            total = p * q
        assert float(tape.gradient(total, v)) == 4 * x * x
        assert float(w) == 2 * x


def test_other_containers_count_too():
    Pair = namedtuple("Pair", "a b")
    f = jg.function(lambda pair: Pair(pair.a * pair.b, pair.b))
    pair = Pair(jg.constant([1.0, 2.0]), jg.constant([3.0, 4.0]))
    for _ in range(3):
        assert f(pair).a.numpy().tolist() == [3.0, 8.0]
    assert f.cache_info() == (2, 1, 1, 0, False)
    assert "multiply" in f.show() and [made.prim.name for made, _, _ in f.program(pair).rows()] == ["multiply"]
