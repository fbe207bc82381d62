"""Recorded functions inside `numba.njit` code: numbers, guards, Variables, threads, memory."""

from __future__ import annotations

import pickle

import numba
import numpy as np
import pytest

import jitgrad as jg
from inside_numba import apply1, apply2, loss
from tolerance import assert_same_bits

# ---- numbers ----

@pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.int64, np.float32, np.float64])
def test_arrays_and_scalars_of_every_dtype(dtype):
    x = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    f = jg.function(lambda x: (jg.reshape(x, shape=(3, 2)), x[0, 1], x)).njit(x)
    a, b, c = apply1(f, x)
    assert_same_bits(a, x.reshape(3, 2))
    assert type(b) is (bool if dtype is np.bool_ else int if dtype in (np.int32, np.int64) else float)
    assert b == x[0, 1] and not np.shares_memory(c, x)
    assert_same_bits(c, x)
    g = jg.function(lambda s: s == 1).njit(dtype(1))
    assert apply1(g, dtype(1)) is True and apply1(g, dtype(0)) is False


def test_value_and_grad_has_the_bits_of_python(xw):
    f = jg.function(jg.value_and_grad(loss, argnums=(0, 1)))
    made = f.njit(*xw)
    want, slopes = f(*map(jg.constant, xw))
    for got, found in (apply2(made, *xw), made(*xw)):
        assert np.float32(got) == want.numpy()
        for a, b in zip(found, slopes, strict=True):
            assert_same_bits(a, b.numpy())


def test_nests_of_arguments_and_results():
    def f(params, scale, rest):
        return {"a": [params["w"] * scale, None], "b": (params["b"] + rest[0],)}

    x = np.arange(3.0)
    made = jg.function(f).njit({"w": x, "b": x + 1}, 2.0, [x])

    @numba.njit
    def call(x):
        return made((x, x + 1), 2, (x,))

    (a, none), (b,) = call(x)
    assert none is None
    assert_same_bits(a, x * 2)
    assert_same_bits(b, x + 1 + x)


def test_what_is_no_number_is_fixed_by_the_example():
    f = jg.function(lambda x, mode: x * 2 if mode == "double" else x).njit(np.ones(2), "double")
    assert apply1(f, np.ones(2)).tolist() == [2, 2]


def test_numbers_are_cast_and_single_elements_taken():
    f = jg.function(lambda s: s * 0.5).njit(np.float32(1))
    for one in (3, 3.0, np.float64(3), np.int8(3), np.array(3, np.float32)):
        assert apply1(f, one) == 1.5
    assert apply1(f, True) == 0.5


def test_tensors_are_read_where_they_lie():
    f = jg.function(lambda x, s: (x * s, x + s)).njit(np.ones(3), 1.0)
    x, s = jg.constant(np.arange(3.0)), jg.constant(np.float64(2))
    for call in (f, lambda *args: apply2(f, *args)):
        assert call(x, s)[0].tolist() == [0, 2, 4]
    with pytest.raises(numba.TypingError, match="argument 0 .* array of float64 with 1 axes, not readonly buffer"):
        f(jg.constant([1.0]), s)
    g = jg.function(lambda x: x * 2).njit(np.ones(3), out=True)
    with pytest.raises(numba.TypingError, match="argument 1 .* a writable array"):
        g(np.ones(3), x)


def test_empty_arrays():
    f = jg.function(lambda x: (x * 2, jg.sum(x))).njit(np.zeros((0, 3)))
    a, b = apply1(f, np.zeros((0, 3)))
    assert a.shape == (0, 3) and b == 0


def test_large_arrays_and_long_programs(rng):
    x = rng.normal(size=100_000)

    def f(x):
        for k in range(60):
            x = jg.cumulative_sum(jg.tanh(x)) / (k + 1.0)
        return x

    made, f = jg.function(f).njit(x), jg.function(f)
    assert_same_bits(apply1(made, x), f(x).numpy())


def test_a_program_with_more_constants_than_the_stack_has_room_for():
    tables = tuple(np.full(2, float(k)) for k in range(300))
    f = jg.function(lambda x: jg.stack([x + t for t in tables])).njit(np.ones(2))

    @numba.njit
    def last(x):
        return f(x)[299]

    assert last(np.ones(2)).tolist() == [300, 300]


def test_loops_and_branches():
    def f(x, n):
        y, _ = jg.scan(lambda c, r: (c * 0.5 + r, c), x[0], x)
        z = jg.while_loop(lambda v: jg.sum(v) < 100.0, lambda v: v * 2, y)
        return jg.cond(n > 0, lambda v: v, lambda v: -v, z)

    x = np.ones((5, 3))
    made = jg.function(f).njit(x, np.int32(1))
    for n in map(np.int32, (1, -1)):
        assert_same_bits(apply2(made, x, n), f(jg.constant(x), jg.constant(n)).numpy())


def test_a_whole_training_loop(xw):
    x, w = xw
    f = jg.function(jg.value_and_grad(loss, argnums=1))
    step = f.njit(x, w)

    @numba.njit(nogil=True)
    def train(x, w, steps, rate):
        value = np.float32(0)
        for _ in range(steps):
            value, slope = step(x, w)
            w = w - rate * slope
        return value, w

    value, trained = train(x, w, 50, np.float32(0.1))
    for _ in range(50):
        want, slope = f(jg.constant(x), w)
        w = w - np.float32(0.1) * slope.numpy()
    assert np.float32(value) == want.numpy()
    assert_same_bits(trained, w)
    assert value < 0.5 * float(loss(jg.constant(x), jg.constant(xw[1])))


# ---- guards and errors ----

def test_a_guard_that_fails_raises_inside_numba():
    def f(x):
        return x * 2 if x[0] > 0 else x          # the line of the guard

    made = jg.function(f).njit(np.ones(2))

    @numba.njit
    def careful(x):
        try:
            return made(x)
        except Exception:
            return np.zeros(2)

    assert apply1(made, np.full(2, 3.0)).tolist() == [6, 6]
    with pytest.raises(RuntimeError, match=rf"f: .* at .*test_numba_calls.py:{f.__code__.co_firstlineno + 1} is not") as e:
        apply1(made, np.array([-1.0, 1]))
    assert careful(np.array([-1.0, 1])).tolist() == [0, 0]
    assert str(pickle.loads(pickle.dumps(e.value))) == str(e.value)
    with pytest.raises(RuntimeError, match="is not the one"):
        made(np.array([-1.0, 1]))


def test_a_guard_in_a_gradient_and_among_others():
    def f(x):
        y = jg.sum(x)
        if y > 10:
            return y * y
        return y if y < 5 else -y

    made = jg.function(jg.grad(f)).njit(np.ones(2))
    assert apply1(made, np.ones(2)).tolist() == [1, 1]
    for x in (np.full(2, 3.0), np.full(2, 9.0)):
        with pytest.raises(RuntimeError, match="is not the one"):
            apply1(made, x)


def test_an_index_out_of_range():
    made = jg.function(lambda x, i: jg.take(x, i, axis=0)).njit(np.ones(3), np.int64(1))
    assert apply2(made, np.arange(3.0), 2) == 2
    with pytest.raises(IndexError, match="an operation failed"):
        apply2(made, np.arange(3.0), 3)


@pytest.mark.parametrize("given, said", [
    (np.ones(3, np.float32), r"argument 0 of a recorded jitgrad function is a C-contiguous array of float64 with 1 axes, not array\(float32"),
    (np.ones((3, 1)), r"array of float64 with 1 axes, not array\(float64, 2d"),
    (1.0, "with 1 axes, not float64"),
    ((np.ones(3),), "not Tuple|not UniTuple"),
    ("x", "not unicode_type"),
])
def test_types_that_do_not_fit(given, said):
    made = jg.function(lambda x: x * 2).njit(np.ones(3))
    for call in (made, lambda x: apply1(made, x)):
        with pytest.raises(numba.TypingError, match=said):
            call(given)


def test_numbers_that_would_lose_their_fraction_do_not_fit():
    made = jg.function(lambda n: n + 1).njit(1)
    with pytest.raises(numba.TypingError, match="is a number, int64, not float64"):
        apply1(made, 1.5)


def test_counts_and_names_of_arguments():
    made = jg.function(lambda x, y: x + y).njit(1.0, (2.0,)[0])
    with pytest.raises(numba.TypingError, match=r"takes 2 arguments \(float64, float64\), not 1"):
        apply1(made, 1.0)

    @numba.njit
    def named(x):
        return made(x, y=x)

    with pytest.raises(numba.TypingError, match="takes its arguments by position"):
        named(1.0)
    pair = jg.function(lambda p: p[0] + p[1]).njit((1.0, 2.0))
    with pytest.raises(numba.TypingError, match=r"argument 0 of .* is a tuple \(float64, float64\)"):
        apply1(pair, (1.0, 2.0, 3.0))


def test_shapes_and_layouts_that_do_not_fit():
    made = jg.function(lambda p: p[0] + p[1]).njit((np.ones((3, 4)), np.ones((3, 4))))
    fine = np.ones((3, 4))
    for wrong, axis, n in ((np.ones((2, 4)), 0, 2), (np.ones((3, 5)), 1, 5), (np.ones((0, 4)), 0, 0)):
        with pytest.raises(ValueError, match=rf"argument 0\[1\] was recorded with shape \(3, 4\), but axis {axis} has length {n}"):
            apply1(made, (fine, wrong))
    apart = np.ones((3, 8))[:, ::2]
    for wrong in (np.asfortranarray(fine), apart, fine[::-1], np.ones((4, 3)).T):
        with pytest.raises(ValueError, match="is not C-contiguous or not aligned"):
            apply1(made, (fine, wrong))
    block = np.zeros(3 * 4 * 8 + 1, np.uint8)
    with pytest.raises(ValueError, match="is not C-contiguous or not aligned"):
        apply1(made, (fine, block[1:].view(np.float64).reshape(3, 4)))
    rows = np.ones((6, 4))
    assert apply1(made, (rows[2:5], fine)).tolist() == (fine * 2).tolist()
    read_only = np.ones((3, 4))
    read_only.flags.writeable = False
    assert apply1(made, (read_only, fine)).tolist() == (fine * 2).tolist()


def test_what_cannot_be_called_says_so():
    @jg.function
    def f(x):
        return x

    with pytest.raises(numba.TypingError, match=r"runs Python: give Numba f.njit\(\*example_args\)"):
        apply1(f, 1.0)


@pytest.mark.parametrize("f, args, said", [
    (lambda x: "a", (1.0,), "returns a str"),
    ((lambda held: lambda x: x * next(held))(iter([1.0, 2.0])), (1.0,), "cannot run without Python: it uses a list_iterator"),
    (lambda x: jg.Variable(x), (1.0,), "returns a Variable"),
])
def test_what_cannot_be_recorded_says_so(f, args, said):
    with pytest.raises((TypeError, RuntimeError), match=said):
        jg.function(f).njit(*args)


def test_a_body_that_raises_raises_and_leaves_variables_alone():
    v = jg.Variable(1.0)

    def f(x):
        v.assign(x)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        jg.function(f).njit(2.0)
    assert v.numpy() == 1
