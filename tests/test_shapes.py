"""Composites that move elements against NumPy: shapes, axes, nothing and single numbers, dtypes, gradients, errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import jitgrad as jg

DTYPES = ("bool", "int32", "int64", "float32", "float64")
SHAPES = ((), (1,), (5,), (0,), (2, 3), (3, 0), (2, 3, 4), (1, 2, 1, 3))


def drawn(rng, shape, dtype="float64"):
    return (rng.normal(size=shape) * 4).astype(dtype)


def same(got, want):
    got, want = (got.numpy() if hasattr(got, "numpy") else got), np.asarray(want)
    np.testing.assert_array_equal(got, want, strict=True)


def assert_transposes(f, rng, *shapes):
    """f is linear in each argument; y = f(x)^2 needs its transpose once for the gradient and twice for the second."""
    xs, vs = ([drawn(rng, s) for s in shapes] for _ in range(2))
    for k in range(len(xs)):
        def g(t, k=k):
            return f(*xs[:k], t, *xs[k + 1:])
        t = jg.constant(xs[k])
        w = rng.normal(size=g(t).shape)
        with jg.GradientTape() as outer:
            outer.watch(t)
            with jg.GradientTape() as inner:
                inner.watch(t)
                y = jg.sum(g(t) ** 2 * w)
            first = inner.gradient(y, t)
            total = jg.sum(first * vs[k])
        along = g(jg.constant(vs[k])).numpy()
        np.testing.assert_allclose(np.sum(first.numpy() * vs[k]), np.sum(2 * w * g(t).numpy() * along), rtol=1e-11)
        u = rng.normal(size=shapes[k])
        np.testing.assert_allclose(np.sum(outer.gradient(total, t).numpy() * u),
                                   np.sum(2 * w * along * g(jg.constant(u)).numpy()), rtol=1e-10, atol=1e-11)


def axes_of(ndim):
    """None, each axis from either end, and all pairs."""
    return [None, *range(-ndim, ndim), *itertools.combinations(range(ndim), 2)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_flip_and_roll(dtype, rng):
    for shape in SHAPES:
        x = drawn(rng, shape, dtype)
        for axis in axes_of(len(shape)):
            same(jg.flip(x, axis=axis), np.flip(x, axis))
            for shift in (0, 1, -1, 7):
                same(jg.roll(x, shift, axis=axis), np.roll(x, shift, axis))
    x = drawn(rng, (3, 4))
    same(jg.roll(x, (1, -2), axis=(0, 1)), np.roll(x, (1, -2), (0, 1)))
    same(jg.roll(x, (1, 2), axis=1), np.roll(x, (1, 2), 1))
    same(jg.roll(x, (1, 2), axis=(1, 1)), np.roll(x, (1, 2), (1, 1)))
    assert_transposes(lambda t: jg.flip(jg.roll(t, 2, axis=1), axis=0), rng, (3, 4))


def test_axes_move(rng):
    x = drawn(rng, (2, 3, 4, 5))
    for source, destination in ((0, -1), (-1, 0), ((0, 1), (-1, -2)), ([2, 0], [0, 1]), (1, 1)):
        same(jg.moveaxis(x, source, destination), np.moveaxis(x, source, destination))
    for a, b in itertools.product((-4, 0, 2, 3), repeat=2):
        same(jg.swapaxes(x, a, b), np.swapaxes(x, a, b))
    assert_transposes(lambda t: jg.swapaxes(jg.moveaxis(t, 0, 2), 0, 1), rng, (2, 3, 4))


def test_split_and_unstack(rng):
    x = drawn(rng, (6, 4))
    for where, axis in ((3, 0), (1, 0), (2, 1), ([1, 4], 0), ([0, 9], 0), ([4, 2], 0), ([-2], 1), ([], 0)):
        for got, want in zip(jg.split(x, where, axis=axis), np.split(x, where, axis), strict=True):
            same(got, want)
    assert [part.shape for part in jg.split(jg.zeros((0, 2)), 3)] == [(0, 2)] * 3
    for axis in (0, 1, -1):
        for k, part in enumerate(jg.unstack(x, axis=axis)):
            same(part, np.take(x, k, axis))
    assert jg.unstack(jg.zeros((0, 3))) == ()
    assert_transposes(lambda t: jg.concat(jg.split(t, [1, 3])[::-1]), rng, (5, 2))
    with pytest.raises(ValueError, match=r"split: axis 0 of shape \(6, 4\) has no 4 parts of one length"):
        jg.split(x, 4)


def test_grids(rng):
    xs = [drawn(rng, n) for n in (3, 2, 4)]
    for indexing in ("xy", "ij"):
        for count in (1, 2, 3):
            for got, want in zip(jg.meshgrid(*xs[:count], indexing=indexing), np.meshgrid(*xs[:count], indexing=indexing), strict=True):
                same(got, want)
    assert jg.meshgrid() == [] and [t.shape for t in jg.meshgrid(1.0, [1.0, 2.0])] == [(2, 1), (2, 1)]
    for got, want in zip(jg.broadcast_arrays(xs[0], drawn(rng, (2, 1)), 1.5), np.broadcast_arrays(xs[0], np.zeros((2, 1)), 1.5), strict=True):
        assert got.shape == want.shape
    with pytest.raises(ValueError, match=r"broadcast_arrays: shapes \(2,\) and \(3,\) do not broadcast together"):
        jg.broadcast_arrays(jg.zeros(2), jg.zeros(3))
    with pytest.raises(ValueError, match="indexing must be 'xy' or 'ij'"):
        jg.meshgrid([1], indexing="yx")
    with pytest.raises(ValueError, match=r"meshgrid: takes vectors, got shape \(2, 2\)"):
        jg.meshgrid(jg.zeros((2, 2)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_tile_and_repeat(dtype, rng):
    for shape in SHAPES:
        x = drawn(rng, shape, dtype)
        for counts in (2, (2,), (1, 3), (2, 1, 2), (0,), ()):
            same(jg.tile(x, counts), np.tile(x, counts))
        for axis in (None, *range(-len(shape), len(shape))):
            n = x.size if axis is None else shape[axis]
            for counts in (0, 1, 3, [2], rng.integers(0, 3, n)):
                same(jg.repeat(x, counts, axis=axis), np.repeat(x, counts, axis))
    assert_transposes(lambda t: jg.tile(t, (2, 1, 3)), rng, (3, 2))
    assert_transposes(lambda t: jg.repeat(jg.repeat(t, [2, 0, 1], axis=0), 2, axis=1), rng, (3, 2))
    same(jg.repeat(np.zeros((2, 0), dtype), [], axis=1), np.zeros((2, 0), dtype))
    for bad in (-1, [1, 2], [0.5, 1, 2], [[1, 1, 1]]):
        with pytest.raises(ValueError, match="repeat: repeats must be a count or 3 of them"):
            jg.repeat(np.zeros(3), bad)


@pytest.mark.parametrize("mode", ("constant", "edge", "reflect", "symmetric", "wrap"))
def test_pad(mode, rng):
    for shape in ((5,), (2, 3), (2, 3, 4), (1, 4)):
        for width in (0, 2, (1, 3), ((1, 3),), [[k, k + 1] for k in range(len(shape))], 7):
            x = drawn(rng, shape)
            same(jg.pad(x, width, mode=mode), np.pad(x, width, mode))
    same(jg.pad(np.float64(3.0), 0, mode=mode), np.float64(3.0))
    assert_transposes(lambda t: jg.pad(t, ((1, 2), (0, 3)), mode=mode), rng, (3, 2))


def test_pad_with_numbers_and_nothing(rng):
    for dtype, value in (("int32", 7), ("float32", -1.5), ("bool", True), ("float64", np.nan), ("float64", -0.0)):
        x = drawn(rng, (2, 3), dtype)
        same(jg.pad(x, (1, 2), constant_values=value), np.pad(x, (1, 2), constant_values=value))
    same(jg.pad(np.zeros((0, 2)), 1, constant_values=3.0), np.full((2, 4), 3.0))
    c = jg.constant(2.0)
    with jg.GradientTape() as tape:
        tape.watch(c)
        y = jg.sum(jg.pad(jg.zeros((2, 2)), 1, constant_values=c))
    assert float(tape.gradient(y, c)) == 12
    for bad, words in ((-1, "not negative"), (1.5, "not negative"), ([1, 2, 3], "a pair for each of the 2 axes")):
        with pytest.raises(ValueError, match=words):
            jg.pad(jg.zeros((2, 2)), bad)
    with pytest.raises(ValueError, match="mode must be one of constant, edge, reflect, symmetric, wrap, got 'mirror'"):
        jg.pad(jg.zeros(2), 1, mode="mirror")
    with pytest.raises(ValueError, match=r"axis 0 of shape \(0,\) has nothing to repeat"):
        jg.pad(jg.zeros(0), 1, mode="edge")
    with pytest.raises(ValueError, match=r"constant_values must be one number, got shape \(2,\)"):
        jg.pad(jg.zeros(2), 1, constant_values=[1.0, 2.0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_triangles_and_diagonals(dtype, rng):
    for shape in ((3, 3), (2, 5), (5, 2), (2, 3, 4), (0, 3), (3, 0)):
        x = drawn(rng, shape, dtype)
        for k in range(-6, 7):
            same(jg.tril(x, k), np.tril(x, k))
            same(jg.triu(x, k), np.triu(x, k))
            same(jg.diagonal(x, k, -2, -1), np.diagonal(x, k, -2, -1))
            if x.ndim == 2:
                same(jg.diag(x, k), np.diag(x, k))
    for n, k in itertools.product((0, 1, 4), (-2, 0, 3)):
        x = drawn(rng, n, dtype)
        same(jg.diag(x, k), np.diag(x, k))
    x = drawn(rng, (2, 3, 4))
    for a, b in itertools.permutations(range(3), 2):
        same(jg.diagonal(x, 1, a, b), np.diagonal(x, 1, a, b))
    np.testing.assert_allclose(jg.trace(x, offset=1).numpy(), np.trace(x, 1, -2, -1), rtol=1e-14)
    assert_transposes(lambda t: jg.tril(jg.triu(t, -1), 1), rng, (3, 4))
    assert_transposes(lambda t: jg.diag(jg.diag(t, 1), -1), rng, (3, 4))
    assert_transposes(lambda t: jg.trace(t, offset=1), rng, (2, 3, 4))
    for name in ("tril", "triu", "diagonal", "trace"):
        with pytest.raises(ValueError, match=name + r": shape \(3,\) has no"):
            getattr(jg, name)(jg.zeros(3))
    with pytest.raises(ValueError, match=r"diag: takes a vector or a matrix, got shape \(\)"):
        jg.diag(1.0)


def test_scatter_add(rng):
    x, i, u = drawn(rng, (3, 5)), np.array([4, 0, -1, 4]), drawn(rng, (3, 4))
    want = x.copy()
    np.add.at(want, (slice(None), i), u)
    np.testing.assert_allclose(jg.scatter_add(x, i, u, axis=1).numpy(), want, rtol=1e-14)
    same(jg.scatter_add(np.zeros(3), [1, 1], 2.0), [0.0, 4.0, 0.0])
    assert_transposes(lambda t: jg.scatter_add(t, i, np.zeros((3, 4)), axis=1), rng, (3, 5))
    assert_transposes(lambda v: jg.scatter_add(np.zeros((3, 5)), i, v, axis=1), rng, (3, 4))
    with pytest.raises(IndexError, match="out of range"):
        jg.scatter_add(jg.zeros(3), [3], 1.0)


def test_nonzero(rng):
    x = rng.integers(0, 2, (3, 4))
    for got, want in zip(jg.nonzero(x), np.nonzero(x), strict=True):
        same(got, want)
    with pytest.raises(ValueError, match="nonzero: a single number has no axes"):
        jg.nonzero(1.0)


def test_shapes_axes_and_parts_may_be_arrays():
    """NumPy's arrays and Tensors have `__index__` whatever their shape; only one integer is one."""
    x = jg.reshape(jg.arange(6), (2, 3))
    for array in (np.array, jg.constant, jg.Variable):
        assert jg.zeros(array([2, 3])).shape == jg.full(array([2, 3]), 1.0).shape == (2, 3)
        assert jg.zeros(array(3)).shape == (3,)
        assert jg.reshape(x, array([3, -1])).shape == (3, 2) and jg.reshape(x, array(6)).shape == (6,)
        assert jg.broadcast_to(x, array([2, 2, 3])).shape == (2, 2, 3)
        same(jg.tile(x, array([2, 1])), np.tile(x.numpy(), [2, 1]))
        same(jg.sum(x, axis=array(1)), x.numpy().sum(1, dtype="int32"))
        same(jg.flip(x, axis=array([0, 1])), x.numpy()[::-1, ::-1])
        assert [part.shape for part in jg.split(jg.zeros(5), array([1, 3]))] == [(1,), (2,), (2,)]
        assert [part.shape for part in jg.split(jg.zeros(4), array(2))] == [(2,), (2,)]
        assert jg.random.normal(array([2, 2]), seed=1).shape == (2, 2)
