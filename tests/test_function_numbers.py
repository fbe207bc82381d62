"""Python numbers as arguments of recorded functions: data where that gives the bits of plain Python, else keys."""

from __future__ import annotations

import copy
import math
import operator

import numpy as np
import pytest

import jitgrad as jg
from replays import assert_alike

X = jg.constant([1.0, -2.0, 3.0])
RNG = np.random.default_rng(4)
FLOATS = [1.0, 2.0, 3.5, float("nan"), 0.0, -0.0, math.inf, 1e300, 1e-310, 5e-324, -1e39,
          *RNG.normal(size=12).tolist(), *np.exp(40 * RNG.normal(size=12)).tolist()]
INTS = [1, 2, 3, 0, -1, 255, 2**24 + 1, 2**31 - 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63 - 1, -(2**63), 2**64, True,
        *map(int, RNG.integers(-(2**62), 2**62, 12)), *map(int, RNG.integers(2**24, 2**31, 12))]
DTYPES = ["float32", "float64", "int32", "int64", "bool"]


def like(dtype):
    return jg.constant(np.array([1, 0, 3]).astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "lt", "le", "gt", "ge", "eq", "ne"])
def test_arithmetic_with_a_tensor_has_the_bits_of_python(name, dtype):
    op, x = getattr(operator, name), like(dtype)
    def both(x, a):
        return op(x, a), op(a, x)
    for numbers in (FLOATS, INTS):
        assert_alike(lambda wrap: wrap(both), [(x, a) for a in numbers])


def test_arithmetic_among_numbers_has_the_bits_of_python():
    def f(x, a, b):
        c = (a * 2.0 + 0.1) / 3.0 - a * b
        return x * c, x + (c / 7 - b), -a * x, abs(a) * x + (+b)
    assert_alike(lambda wrap: wrap(f), [(X, a, b) for a, b in zip(FLOATS, reversed(FLOATS), strict=True)])


@pytest.mark.parametrize("use", [
    lambda x, a: x ** a, lambda x, a: x * round(a), lambda x, a: x * math.floor(a), lambda x, a: x * (a // 2.0),
    lambda x, a: x * (a % 2.0), lambda x, a: x * 2.0 ** a, lambda x, a: x / a if a else x, lambda x, a: x * math.sin(a),
    lambda x, a: (x, f"{a:.2f}", str(a)), lambda x, a: x * int(a), lambda x, a: x * {1.0: 2.0}.get(a, 3.0),
    lambda x, a: x * np.float32(a), lambda x, a: x * np.array([a, 1.0, 2.0]), lambda x, a: x + jg.constant(a),
    lambda x, a: jg.stack([x[0], jg.constant([a, 2.0])[1]]), lambda x, a: jg.full((2,), a), lambda x, a: (x, a),
    lambda x, a: x * a if a > 1.0 else x, lambda x, a: x * a.is_integer(), lambda x, a: jg.maximum(x, a),
    lambda x, a: jg.where(x > a, a, x), lambda x, a: x * (1.0 / a) if a != 0.0 else x, lambda x, a: x * [a, a][0],
    lambda x, a: x * max(a, 1.0), lambda x, a: x * sum([a, a, 0.5]), lambda x, a: x * math.fsum([a, 0.1])])
def test_every_use_of_a_float(use):
    assert_alike(lambda wrap: wrap(use), [(X, a) for a in (1.0, 2.0, 3.0, 0.5, -0.0, 0.0, 1.0, 2.5, 4.0, -3.0)])


@pytest.mark.parametrize("use", [
    lambda x, n: x ** n, lambda x, n: jg.zeros(n) + n, lambda x, n: x[n % 3], lambda x, n: [x] * n,
    lambda x, n: sum((x for _ in range(n)), x), lambda x, n: x * (n // 2), lambda x, n: x * (n & 1),
    lambda x, n: jg.reshape(jg.zeros(2 * n), (n, 2)), lambda x, n: x * n + n, lambda x, n: x * (n + 2**62),
    lambda x, n: jg.sum(jg.ones((2, 2, 2)), axis=n % 3), lambda x, n: x * math.factorial(n), lambda x, n: (n, -n, x)])
def test_every_use_of_an_int(use):
    assert_alike(lambda wrap: wrap(use), [(X, n) for n in (1, 2, 3, 1, 5, 0, 2, 4)])


@pytest.mark.parametrize("tells", [
    lambda a: isinstance(a, float), lambda a: type(a) is float, lambda a: isinstance(a, int | float),
    lambda a: a.__class__ is float, lambda a: {float: True}.get(type(a), False)])
def test_code_that_asks_for_the_type_of_a_number(tells):
    """The first value is one with which both ways do the same."""
    assert_alike(lambda wrap: wrap(lambda x, a: x * (a if tells(a) else 1.0)), [(X, a) for a in (1.0, 2.0, 3.0, 4.0)])


def test_a_trial_with_numbers_as_data_leaves_no_trace_in_variables():
    def make(wrap):
        w, v = jg.Variable(0.0), jg.Variable(0.0)

        def f(x, a):
            v.assign_add(a)
            if a > 1.0:
                w.assign_add(1.0)
            return x * round(a) + v + w              # a Number has no __round__
        return wrap(f)
    assert_alike(make, [(X, a) for a in (0.5, 1.5, 1.7, 0.2, 2.2, 1.5)])


def test_numbers_are_data_where_shapes_differ_between_calls():
    f = jg.function(lambda x, a: x * a)
    for n, a in enumerate((0.5, 0.25, 0.125, 4.0, 5.0, 6.0, 7.0)):
        f(jg.ones(3 + n % 2), a)
    assert f.cache_info().recordings <= 4


def test_numbers_deep_in_arguments():
    def f(x, cfg, *, rates):
        return x * cfg["a"][0] + rates[1] * cfg["b"], len(rates)
    calls = [(X, {"a": [a], "b": 2.0 * a}, (1.0, a + b)) for a in (0.5, 1.5, -0.0) for b in (1.0, 2.0)]

    def make(wrap):
        replayed = wrap(f)
        return lambda x, cfg, rates: replayed(x, cfg, rates=rates)
    assert_alike(make, calls)


def _branching(use):
    return lambda x, a: x * a if jg.sum(x) > 0 else use(x, a)


@pytest.mark.parametrize(("use", "numbers"), [
    (lambda x, a: x * np.sin(a), (1.5, 2.5, 3.5)), (lambda x, a: x * round(a, 1), (1.5, 2.5, 3.25)),
    (lambda x, a: x * (math.floor(a) + math.ceil(a) + math.trunc(a)), (1.5, 2.5, -3.5)),
    (lambda x, a: x * divmod(a, 2)[1] + divmod(7, a)[0], (1.5, 2.5, 3.5)),
    (lambda x, a: (x, a * 1j, 1j - a, copy.deepcopy(a)), (1.5, 2.5, 3.5)),
    (lambda x, n: x * (n & 1) + (n | 8) + (n ^ 3) + (1 << n) + (n >> 1) + ~n, (1, 2, 5))])
def test_a_number_that_is_data_already_is_used_in_another_branch(use, numbers):
    y = jg.constant([1.0, 2.0])
    assert_alike(lambda wrap: wrap(_branching(use)), [(s, a) for s in (y, -y) for a in numbers])


@pytest.mark.parametrize("values", [(True, False, True), ("a", "b", "a"), (None, 1.0, None, 2.0), (1, 1.0, True, 1),
                                    (0.0, -0.0, 0.0), (1j, 2j, 1j), (0j, -0j, complex(0.0, -0.0)), (b"a", b"b"), (slice(1), slice(2)), (..., None),
                                    (slice(1, 3), slice(1.0, 3), slice(True, 3)), (range(0, 3, 2), range(0, 4, 2)),
                                    (frozenset([1]), frozenset([1.0]), frozenset([True])), (1j, 1.0), (2**64, 2.0**64)])
def test_other_plain_values_are_keys(values):
    assert_alike(lambda wrap: wrap(lambda x, a: (x, a, str(a))), [(X, a) for a in values * 2])


@pytest.mark.parametrize("kind", [str, bytes, frozenset])
def test_equal_values_of_a_class_of_the_users_may_differ(kind):
    made = type("Own", (kind,), {})
    values = [made(), made()]
    for k, value in enumerate(values):
        value.rate = 2.0 + k
    assert_alike(lambda wrap: wrap(lambda x, a: x * a.rate), [(X, a) for a in values * 2])


def test_numbers_under_another_default_dtype():
    def f(x, a):
        return x * jg.constant(0.1) + 1.5 + a + jg.zeros(3)

    def make(wrap):
        replayed = wrap(f)

        def step(dtype, x, a):
            jg.set_default_dtype(dtype)
            return replayed(x, a)
        return step
    try:
        assert_alike(make, [(dtype, x, a) for dtype in ("float32", "float64") * 2 for x in (X, jg.constant([1, 2, 3]))
                            for a in (1.0, 2.0, 3.0)])
    finally:
        jg.set_default_dtype("float32")


@pytest.mark.parametrize("kind", [float, int])
def test_numbers_that_meet_tensors_become_data(kind):
    f = jg.function(lambda x, a: x * a + (a - x))
    for k in range(10):
        f(X, kind(k))
    assert f.cache_info() == (8, 2, 2, 0, False)
