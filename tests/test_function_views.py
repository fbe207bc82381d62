"""What a replay reads of parts of its values is what plain Python reads, wherever the parts lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.execute.cpu import layout
from jitgrad.execute.cpu.plans import plan_of
from jitgrad.execute.cpu.types import peek
from jitgrad.transform.simplify import simplify

RNG = np.random.default_rng(3)
TABLE = RNG.standard_normal((6, 8)).astype(np.float32)
FIXED = jg.asarray(TABLE[::-1].copy())
held = jg.Variable(TABLE + 1)


def gates(x: Any) -> Any:
    y = jg.reshape(x * 2.0, (4, 12))
    return jg.tanh(y[0]) * y[1] + jg.exp(-y[2]) * y[3]


def parts_of_parts(x: Any) -> Any:
    y = x + 0.5
    return (y[2:][1][3:] * 2.0, jg.sum(y[1:4][1:] * y[3:5]), jg.reshape(y[1:5], (2, 16))[1] + 1.0)


def parts_returned(x: Any) -> Any:
    """Of what is given, of what is computed, of a result, of a constant, of a Variable, and the same one twice."""
    y = x * x
    part = y[1:3]
    return x[2:4], part, part * 2.0, (y - 1.0)[5], y, FIXED[1], FIXED[2:] + y[2:], held.read_value()[3], part


def parts_that_outlive_the_whole(x: Any) -> Any:
    first = (x + 1.0)[1]
    for k in range(6):
        first = first + jg.sin(x * float(k))[k]
    return first


def parts_of_numbers_and_truths(x: Any) -> Any:
    n = jg.cast(x * 100.0, "int32")
    positive = x > 0.0
    return jg.where(positive[2], n[3], n[1]), positive[4] & positive[5], jg.take(x, jg.abs(n[0][3:5]) % 6, axis=0)


def neighbours(x: Any) -> Any:
    line = jg.reshape(x, (-1,))
    return line[1:] - line[:-1], jg.sum(line[7:] * line[:-7])


def products(x: Any) -> Any:
    y = x + 0.0
    return y[1:3] @ jg.reshape(y[3:5], (8, 2)), jg.concat([y[4:], y[:2]], axis=0)


def scanned(x: Any) -> Any:
    def step(carry: Any, row: Any) -> Any:
        state = carry * 0.5 + row[2:6]
        pair = jg.concat([state, row[:4]], axis=0)
        return pair[2:6], (pair[:3], pair[5])
    return jg.scan(step, x[0][4:], x[1:])


def chosen(x: Any) -> Any:
    return jg.cond(jg.sum(x[1]) > 0.0, lambda: x[2:4][1] * 2.0, lambda: (x + 1.0)[5])


def until(x: Any) -> Any:
    return jg.while_loop(lambda s: s[1] < 4, lambda s: (jg.concat([s[0], s[0] * 2.0], axis=0)[3:11], s[1] + 1), (x[3], 0))


CASES = [gates, parts_of_parts, parts_returned, parts_that_outlive_the_whole, parts_of_numbers_and_truths, neighbours,
         products, scanned, chosen, until]


def leaves(nest: Any) -> list[np.ndarray]:
    if isinstance(nest, tuple | list):
        return [leaf for part in nest for leaf in leaves(part)]
    return [nest.numpy() if hasattr(nest, "numpy") else np.asarray(nest)]


def assert_same(got: Any, want: Any) -> None:
    for a, b in zip(leaves(got), leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("function", CASES, ids=lambda f: f.__name__)
def test_parts_have_the_numbers_of_plain_python(function: Any) -> None:
    replayed = jg.function(function)
    for turn in range(4):
        x = jg.asarray((TABLE * (-1) ** turn + turn / 8).astype(np.float32))
        assert_same(replayed(x), function(x))
    assert replayed.cache_info().hits >= 2


@pytest.mark.parametrize("function", [gates, neighbours, products, parts_of_parts, scanned], ids=lambda f: f.__name__)
def test_parts_have_the_gradients_of_plain_python(function: Any) -> None:
    def total(x: Any) -> Any:
        return sum((jg.sum(leaf * leaf) for leaf in flat(function(x))), jg.constant(0.0))

    def flat(nest: Any) -> list[Any]:
        return [leaf for part in nest for leaf in flat(part)] if isinstance(nest, tuple | list) else [nest]

    step = jg.function(jg.value_and_grad(total))
    for turn in range(3):
        x = jg.asarray((TABLE + turn / 8).astype(np.float32))
        for a, b in zip(leaves(step(x)), leaves(jg.value_and_grad(total)(x)), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)
    jacobian = jg.function(jg.jacrev(function))
    for _ in range(2):
        for a, b in zip(leaves(jacobian(x)), leaves(jg.jacrev(function)(x)), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5)


def test_parts_stay_across_calls_and_after_what_they_are_of() -> None:
    """Nothing that a call hands out changes with a later call."""
    def function(x: Any) -> Any:
        y = x * 3.0
        return y[1], x[2], jg.reshape(y, (-1,))[5:9]

    replayed, kept, want = jg.function(function), [], []
    for turn in range(6):
        x = jg.asarray(TABLE + np.float32(turn))
        kept.append(replayed(x))
        want.append(leaves(function(x)))
        del x
    for got, numbers in zip(kept, want, strict=True):
        assert_same(got, numbers)


def test_parts_of_a_variable_are_those_before_it_is_assigned() -> None:
    def make() -> tuple[Any, Any]:
        v = jg.Variable(TABLE)

        def step(x: Any) -> Any:
            before = v.read_value()[2]
            v.assign_sub(x)
            return before, v.read_value()[2] * 2.0, v[3]
        return v, step

    (v, step), (w, plain) = make(), make()
    replayed, kept = jg.function(step), []
    for turn in range(4):
        x = jg.asarray(TABLE * np.float32(turn + 1))
        kept.append((replayed(x), [a.copy() for a in leaves(plain(x))]))
        np.testing.assert_array_equal(v.numpy(), w.numpy())
    for got, want in kept:
        assert_same(got, want)


def test_large_parts_are_read_where_they_are() -> None:
    line = RNG.standard_normal(300_000)
    replayed = jg.function(lambda x: x[1000:] * 2.0 + x[:-1000])
    for _ in range(3):
        np.testing.assert_array_equal(replayed(jg.asarray(line)).numpy(), line[1000:] * 2.0 + line[:-1000])
    made = plan_of(simplify(replayed.program(jg.asarray(line))))
    assert peek(made.address + layout.P_CODE_COUNT) <= 2          # the product and the sum: no part is copied
