"""Traces of Tensors whose elements are in no memory of the host: the machine matches, a callable runs the plan."""

from __future__ import annotations

import sys

import pytest

import jitgrad as jg
from entry import F32, F64, function, is_slow, trace
from jitgrad.core import backend
from jitgrad.core.aval import AVALS, aval
from jitgrad.execute.cpu import layout, types


class Owner:
    """Holds the elements of a Tensor, here in a list."""

    def __init__(self, items):
        self.items = items


@pytest.fixture(autouse=True)
def _owners():
    before = types.get_state(layout.S_ELSEWHERE)
    types.set_state(layout.S_ELSEWHERE, id(Owner))
    yield
    types.set_state(layout.S_ELSEWHERE, before)


def placed(*items):
    return backend.current().dry(aval(F32, (len(items),)), 0, Owner(list(items)))


def items(t):
    return t._owner.items


def twice(x, *more):
    return (placed(*(2 * v for v in items(x))),)


def doubling(run=twice, **fields):
    return trace([(F32, (3,))], lambda x: x * 2.0, fields.pop("recipe", [("placed", 0, 0)]), elsewhere=run, **fields)


def test_the_callable_makes_the_answer():
    f = function(doubling())
    assert items(f(placed(1, 2, 3))) == [2, 4, 6]
    assert f._hits == 1
    x = placed(1, 2, 3)
    before = sys.getrefcount(x)
    for _ in range(100):
        f(x)
    assert sys.getrefcount(x) == before


@pytest.mark.parametrize("other", [jg.constant([1.0, 2.0, 3.0]), 2.0, None, [1.0]])
def test_what_is_in_this_memory_is_another_call(other):
    assert is_slow(function(doubling())(other))


def test_other_shapes_and_other_owners_are_other_calls():
    f = function(doubling())
    assert is_slow(f(placed(1, 2)))
    assert is_slow(f(backend.current().dry(aval(F32, (3,)), 0, object())))
    assert is_slow(function(trace([(F32, (3,))], lambda x: x * 2.0, [("tensor", 0, 0)]))(placed(1, 2, 3)))
    types.set_state(layout.S_ELSEWHERE, 0)
    assert is_slow(f(placed(1, 2, 3)))


def test_variables_are_read_and_assigned():
    v = jg.Variable([0.0, 0.0, 0.0])
    types.variable_hold(v, placed(1, 2, 3))

    def add(w, x):
        total = placed(*(a + b for a, b in zip(items(w), items(x), strict=True)))
        return total, total
    f = function(trace([(F32, (3,)), (F32, (3,))], lambda w, x: [w + x, w + x],
                       [("placed_variable", v, 0), ("placed", 0, 1)], elsewhere=add, positional=1,
                       assignments=[(v, 1)], answer=[("result", 0)]))
    assert items(f(placed(1, 1, 1))) == [2, 3, 4]
    assert items(v._value) == [2, 3, 4]
    assert items(f(placed(1, 1, 1))) == [3, 4, 5]


def test_a_number_is_the_guard_that_failed():
    f = function(doubling(lambda x: 3, names=("x",), positional=0))
    answer = f(x=placed(1, 2, 3))
    assert answer[0] == "failed" and answer[2] == 3


def test_exceptions_pass_and_nonsense_is_left_to_python():
    def fails(x):
        raise KeyError("mine")
    with pytest.raises(KeyError, match="mine"):
        function(doubling(fails))(placed(1, 2, 3))
    for nonsense in ((), (1, 2), None, "ab"):
        assert is_slow(function(doubling(lambda x, made=nonsense: made))(placed(1, 2, 3)))


def test_numbers_come_as_python_has_them():
    seen = []

    def run(x, k):
        seen.append(k)
        return (placed(*(k * v for v in items(x))),)
    f = function(trace([(F32, (3,)), (F64, ())], lambda x, k: x * jg.cast(k, "float32"),
                       [("placed", 0, 0), ("float", 1, 1)], elsewhere=run))
    assert items(f(placed(1, 2, 3), 0.5)) == [0.5, 1.0, 1.5]
    assert seen == [0.5]


def test_a_tape_that_watches_leaves_it_to_python():
    f, x = function(doubling()), placed(1, 2, 3)
    with jg.GradientTape() as tape:
        tape.watch(x)
        assert is_slow(f(x))
    with jg.GradientTape():
        assert items(f(placed(1, 2, 3))) == [2, 4, 6]
    assert AVALS[x._aval].shape == (3,)
