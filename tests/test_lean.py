"""Loops for what is needed of them: the same bits, from fewer rows, operands and results."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.primitive import BY_NAME


def scans(f, *args):
    """The scans of a recorded function: consts, carry, xs, ys."""
    found = [made for made, _, _ in jg.function(f).program(*args).rows() if made.prim is BY_NAME["scan"]]
    return [(p["consts"], p["carry"], len(made.avals) - p["consts"] - p["carry"], len(made.outs) - p["carry"])
            for made in found for p in (made.params,)]


def replayed(f, *args):
    made = jg.function(f)
    made(*args)
    return made(*args)


def same(got, want):
    got, want = (x if isinstance(x, tuple | list) else (x,) for x in (got, want))
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()


@pytest.fixture
def x():
    return jg.constant(np.random.default_rng(0).normal(size=(6, 3)))


def test_ys_that_nobody_reads_go_with_what_only_they_need(x):
    def f(x, c):
        (h, _), (_, y) = jg.scan(lambda s, v: ((s[0] * 0.5 + v[0], s[1] * v[1]), (jg.sin(c * v[1]), s[0])),
                                 (x[0], x[1]), (x, x * 2))
        return h, y
    c = jg.constant(3.0, "float64")
    (consts, carry, xs, ys), = scans(f, x, c)
    assert (carry, xs, ys) == (1, 1, 1) and consts == 1      # 0.5
    same(replayed(f, x, c), f(x, c))


def test_entries_that_read_each_other_stay_together(x):
    def f(x):
        def step(s, v):
            a, b, c, d = s
            return (b + v, a * 0.5, d - v, c * 2), ()
        return jg.scan(step, (x[0], x[1], x[2], x[3]), x)[0][1]
    assert [s[1:] for s in scans(f, x)] == [(2, 1, 0)]
    same(replayed(f, x), f(x))


def test_what_is_given_twice_is_read_once(x):
    def f(x, c):
        return jg.scan(lambda h, v: (h * c + v[0] * jg.exp(v[1]), h * (v[0] + c)), x[0], (x, x))
    assert [s[2] for s in scans(f, x, x[1])] == [1]
    same(replayed(f, x, x[1]), f(x, x[1]))

    def equal(x):                              # constants are one where their numbers are
        return jg.scan(lambda h, v: (h * jg.constant(0.3, "float64") + v * jg.constant(0.3, "float64"), None), x[0], x)[0]
    assert [s[0] for s in scans(equal, x)] == [1]
    same(replayed(equal, x), equal(x))

    def alike(x):                              # entries of the carry that start alike are two
        return jg.scan(lambda s, v: ((s[1] + v, s[0] * 0.5), None), (x[0], x[0]), x)[0]
    assert [s[1] for s in scans(alike, x)] == [2]
    same(replayed(alike, x), alike(x))


def test_a_scan_of_which_nothing_is_needed_goes(x):
    def f(x):
        jg.scan(lambda h, v: (h + v, h), x[0], x)
        return x * 2
    assert scans(f, x) == []
    same(replayed(f, x), f(x))


def test_a_chain_of_scans_goes_where_its_end_does(x):
    """What only a dropped operand needs is not computed either."""
    def f(x):
        _, y = jg.scan(lambda h, v: (h + v, (jg.cos(h), h * v)), x[0], x)
        _, z = jg.scan(lambda h, v: (h * v[1], (h - v[1], v[0] * 2)), x[1], (jg.exp(y[0]), y[1]))
        return z[0]
    assert [s[2:] for s in scans(f, x)] == [(1, 1), (1, 1)]
    names = [made.prim.name for made, _, _ in jg.function(f).program(x).rows()]
    assert "exp" not in names
    same(replayed(f, x), f(x))


def test_gradients_keep_what_they_read(x):
    def step(h, v):
        return jg.sin(h * v) * jg.exp(-v), jg.cos(h)

    def loss(w, x):
        return jg.sum(jg.scan(lambda h, v: step(h * w, v), x[0], x)[0])
    w = jg.constant(0.7, "float64")
    grads = jg.grad(loss, argnums=0)
    forward, backward = scans(grads, w, x)
    assert forward[3] <= backward[2]           # every stream that is left behind is read

    def plain(w, x):
        h = x[0]
        for k in range(x.shape[0]):
            h = step(h * w, x[k])[0]
        return jg.sum(h)
    np.testing.assert_allclose(replayed(grads, w, x).numpy(), jg.grad(plain)(w, x).numpy(), rtol=1e-12)


def test_effects_stay(x):
    v = jg.Variable(np.zeros(3))

    def f(x):
        def step(h, xt):
            v.assign_add(h)
            return h + xt, jg.sin(h)
        jg.scan(step, x[0], x)
        return jg.sum(x)
    made = jg.function(f)
    f(x)
    want = v.numpy()
    for _ in range(3):
        v.assign(np.zeros(3))
        made(x)
        assert v.numpy().tobytes() == want.tobytes()


def test_random_numbers_are_drawn_as_before(x):
    def f(x):
        _, (_, kept) = jg.scan(lambda h, v: (h, (jg.random.normal((2,)), jg.random.normal((3,)) + v)), x[0] * 0,
                               jg.cast(x, "float32"))
        return kept, jg.random.normal((2,))
    made = jg.function(f)
    made(x)
    jg.random.set_seed(5)
    got = made(x)
    jg.random.set_seed(5)
    same(got, f(x))


@pytest.mark.parametrize("length", (0, 1, 6))
@pytest.mark.parametrize("first", (0, 20, 40))
def test_random_bodies_with_random_results(first, length):
    """Loops in loops too; nothing but sums and products of elements, so the bits are the same."""
    dropped = 0
    for seed in range(first, first + 20):
        rng = np.random.default_rng(seed)
        count, picks = int(rng.integers(2, 5)), rng.integers(0, 99, (12, 2)).tolist()
        wanted = [bool(rng.integers(2)) for _ in range(2 * count)]
        nested, reverse = bool(rng.integers(2)), bool(rng.integers(2))

        def body(carry, xs, picks=picks, count=count):
            values = [*carry, *xs]
            for i, j in picks:
                values.append(values[i % len(values)] * 0.5 - values[j % len(values)])
            return tuple(values[-count:]), tuple(values[len(carry): len(carry) + count])

        def f(*args, count=count, body=body, wanted=wanted, nested=nested, reverse=reverse):
            carry, xs = args[:count], args[count:]

            def outer(s, v):
                (inner, ys) = jg.scan(lambda c, _: (body(c, v)[0], c[0]), s, length=2)
                return body(inner, v)[0], (ys, *body(s, v)[1][1:])
            carry, ys = jg.scan(outer if nested else body, tuple(carry), tuple(xs), reverse=reverse)
            return [y for y, keep in zip([*carry, *ys], wanted, strict=False) if keep]
        args = [jg.constant(rng.normal(size=shape)) for shape in [(2,)] * count + [(length, 2)] * count]
        same(replayed(f, *args), f(*args))
        found = scans(f, *args)
        dropped += not found or found[0][1] + found[0][3] < 2 * count
    assert dropped > 5
