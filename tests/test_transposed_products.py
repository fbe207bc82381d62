"""Transposes that products take over: of either operand, and of the product."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg
from jitgrad import ops
from jitgrad.core import backend
from jitgrad.core.aval import aval
from jitgrad.core.dtypes import CODES
from jitgrad.core.recorder import Recorder
from jitgrad.execute import oracle
from jitgrad.execute.cpu.plans import plan_of
from jitgrad.transform.simplify import simplify

WAYS = [(False, False), (True, False), (False, True), (True, True)]
SIZES = [(5, 7, 6), (1, 4, 3), (130, 90, 70)]           # m, k, n: the last is BLAS's
TOLERANCE = {"float32": 2e-5, "float64": 1e-13}


def turn(x):
    return jg.swapaxes(x, -1, -2)


def arrays(size, batch, ways, dtype):
    """The operands, stored transposed where `ways` says so."""
    m, k, n = size
    rng = np.random.default_rng(7)
    shapes = [s[::-1] if t else s for s, t in zip(((m, k), (k, n)), ways, strict=True)]
    return [rng.standard_normal((*batch, *s)).astype(dtype) for s in shapes]


def product(ways, within, x, y):
    """Transposed by their own rows, or by the product."""
    if within:
        return jg.matmul(x, y, *ways)
    return (turn(x) if ways[0] else x) @ (turn(y) if ways[1] else y)


def close(found, wanted, dtype):
    for a, b in zip(found, wanted, strict=True):
        a, b = a.numpy(), b.numpy()
        assert a.shape == b.shape and a.dtype == b.dtype == dtype
        assert np.abs(a - b).max() <= TOLERANCE[dtype] * np.abs(b).max()


def simple(build, *shapes, dtype="float32"):
    """A Program of dry inputs, and the same simplified."""
    recorder = Recorder()
    made = build(*(recorder.input(aval(CODES[np.dtype(dtype)], shape)) for shape in shapes))
    program = recorder.program(made if isinstance(made, list) else [made])
    return program, simplify(program, backend.current().run)


def names(program):
    return [made.prim.name for made, _, _ in program.rows()]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [(), (3,), (2, 2)], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("ways", WAYS, ids=str)
def test_values_and_gradients_to_the_second_order(ways, size, batch, dtype):
    given = [jg.asarray(a) for a in arrays(size, batch, ways, dtype)]

    def all_orders(within):
        def value(x, y):
            return jg.sum(jg.tanh(product(ways, within, x, y)) ** 2)

        def slope(x, y):
            gx, gy = jg.grad(value, (0, 1))(x, y)
            return jg.sum(gx * gx) + jg.sum(jg.sin(gy))

        def f(x, y):
            return [product(ways, within, x, y), *jg.grad(value, (0, 1))(x, y), *jg.grad(slope, (0, 1))(x, y)]
        return f
    replayed, named = jg.function(all_orders(False)), all_orders(True)
    for _ in range(3):
        close(replayed(*given), named(*given), dtype)


@pytest.mark.parametrize("batch", [(), (3,)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("flags", WAYS, ids=str)
@pytest.mark.parametrize("ways", WAYS, ids=str)
def test_no_copy_is_left(ways, flags, dtype, batch):
    shapes = [a.shape for a in arrays((5, 7, 6), batch, [t is not f for t, f in zip(ways, flags, strict=True)], dtype)]

    def build(x, y):
        x, y = (turn(t) if w else t for t, w in zip((x, y), ways, strict=True))
        return turn(jg.matmul(x, y, *flags))
    program, small = simple(build, *shapes, dtype=dtype)
    small.verify()
    assert names(small) == ["matmul"]
    given = [np.random.default_rng(3).standard_normal(s).astype(dtype) for s in shapes]
    (found,), (wanted,) = (plan_of(small).run([jg.asarray(a) for a in given]), oracle.run(program, given))
    assert np.abs(found.numpy() - wanted).max() <= TOLERANCE[dtype] * np.abs(wanted).max()


def test_a_product_that_others_read_is_computed_once():
    _, small = simple(lambda x, y: [turn(x @ y), jg.sum(x @ y)], (5, 7), (7, 6))
    assert names(small).count("matmul") == 1 and "permute_dims" in names(small)
    _, small = simple(lambda x, y: (lambda p: [turn(p), p])(x @ y), (5, 7), (7, 6))
    assert names(small).count("matmul") == 1 and "permute_dims" in names(small)


def test_a_transpose_that_others_read_stays():
    _, small = simple(lambda x, y: [turn(x) @ y, turn(x)], (7, 5), (7, 6))
    assert sorted(names(small)) == ["matmul", "permute_dims"]


def test_other_movements_stay():
    _, small = simple(lambda x, y: ops.permute_dims(x, (1, 0, 2)) @ y, (4, 3, 5), (3, 5, 6))
    assert names(small) == ["permute_dims", "matmul"]
    _, small = simple(lambda x, y: ops.permute_dims(x, (2, 0, 1)) @ y, (4, 5, 3), (3, 5, 6))
    assert names(small) == ["permute_dims", "matmul"]
    _, small = simple(lambda x, y: ops.permute_dims(x @ y, (0, 2, 1, 3)), (2, 3, 4, 5), (2, 3, 5, 6))
    assert names(small) == ["matmul", "permute_dims"]


def test_integers_keep_their_copies_and_bits():
    _, small = simple(lambda x, y: turn(turn(x) @ y), (7, 5), (7, 6), dtype="int32")
    assert names(small) == ["permute_dims", "matmul", "permute_dims"]


def test_two_ways_to_write_a_product_become_one():
    _, small = simple(lambda x, y: turn(x) @ y + jg.matmul(x, y, True) + turn(turn(y) @ x), (7, 5), (7, 6))
    assert names(small).count("matmul") == 1


@pytest.mark.parametrize("size", [(5, 7, 6), (130, 90, 70)], ids=str)
@pytest.mark.parametrize("ways", WAYS, ids=str)
def test_what_is_no_number_stays_where_it_was(ways, size):
    x, y = arrays(size, (), ways, "float32")
    x[2, 3], x[3, 1], y[0, 2], y[4, 3] = np.nan, np.inf, -np.inf, 0.0
    f = jg.function(lambda x, y: (product(ways, False, x, y), turn(product(ways, False, x, y))))
    with np.errstate(invalid="ignore"):
        wanted = (x.T if ways[0] else x) @ (y.T if ways[1] else y)
    for _ in range(3):
        upright, turned = (t.numpy() for t in f(jg.asarray(x), jg.asarray(y)))
        for found in (upright, turned.T):
            assert np.array_equal(np.isnan(found), np.isnan(wanted))
            sure = np.isinf(wanted)
            assert np.array_equal(found[sure], wanted[sure])


def test_within_a_loop():
    def f(w, xs):
        return jg.scan(lambda c, x: (jg.tanh(c @ turn(w) + x), turn(turn(c) @ x)), jg.zeros((4, 5), "float64"), xs)
    w, xs = (jg.asarray(np.random.default_rng(k).standard_normal(s)) for k, s in enumerate([(5, 5), (6, 4, 5)]))
    wanted, replayed = f(w, xs), jg.function(f)
    for _ in range(3):
        close(replayed(w, xs), wanted, "float64")
