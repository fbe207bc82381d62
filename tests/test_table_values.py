"""Values of every entry of the table against its reference, in every dtype it takes and every shape."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.dtypes import DTYPES
from jitgrad.core.primitive import OPS, Kind, Linear
from table import ENTRIES, cases, check, data_domains, drawn, dtypes_of, error, ident, points, samples
from tolerance import assert_close, wider

SHAPES = [((), ()), ((0,), ()), ((3, 0, 2), (2,)), ((3, 1), (1, 4)), ((2, 1, 3, 1, 2), (4, 1, 5, 1)), ((1,), (1, 1)),
          ((5,), ()), ((4, 3), (3,)), ((2, 3, 4), (2, 1, 4)), ((37,), (37,))]


def test_every_entry_has_samples_and_a_reference():
    assert len(ENTRIES) >= 40
    assert [p.name for p in ENTRIES if p.samples is None or not callable(p.ref)] == []


@pytest.mark.parametrize("prim, dtype", cases(ENTRIES), ids=ident)
def test_value(prim, dtype, rng):
    for arrays, params in samples(prim, dtype, rng):
        check(prim, arrays, params)


@pytest.mark.parametrize("prim, dtype", cases([p for p in ENTRIES if p.at], chars="if"), ids=ident)
def test_special_points(prim, dtype, rng):
    arrays = points(prim, dtype)
    for _, params in prim.samples(rng):
        check(prim, arrays, params)


@pytest.mark.parametrize("prim", [p for p in ENTRIES if p.kind is Kind.ELEMENTWISE], ids=ident)
def test_shapes(prim, rng):
    dtype = dtypes_of(prim)[-1]
    for first, second in SHAPES:
        arrays, params = drawn(prim, dtype, rng, (first, second, first)[: len(prim.domains)])
        check(prim, arrays, params)


@pytest.mark.parametrize("prim", [p for p in ENTRIES if data_domains(p)], ids=ident)
def test_numpy_arrays_in_any_layout(prim, rng):
    """Fortran order, every second element, backwards and byte-swapped: an op takes what NumPy has."""
    arrays, params = next(samples(prim, dtypes_of(prim)[-1], rng))
    want = OPS[prim.name](*map(jg.asarray, arrays), **params).numpy()

    def spaced(a):
        out = np.zeros([2 * n for n in a.shape], a.dtype)[tuple(slice(None, None, 2) for _ in a.shape)]
        out[...] = a
        return out
    for layout in (np.asfortranarray, spaced, lambda a: np.flip(np.flip(a).copy()),
                   lambda a: a.astype(a.dtype.newbyteorder())):
        given = [layout(a) for a in arrays]
        got = OPS[prim.name](*given, **params).numpy()
        np.testing.assert_array_equal(got, want, strict=True)


@pytest.mark.parametrize("prim, dtype", cases(ENTRIES, (Kind.REDUCE,)), ids=ident)
def test_reduction_of_many(prim, dtype, rng):
    """Lengths around the lanes and the chunk, along the first and the last axis, and none at all."""
    lengths = (1, 7, 31, 32, 33, 4095, 4096, 4097, 9001)
    pool = drawn(prim, dtype, rng, [(3 * max(lengths),)])[0][0]
    for n in lengths:
        # each factor of a product rounds it once; the terms of a sum meet in a tree
        check(prim, [pool[: 3 * n].reshape(3, n)], {"axes": (1,)},
              room=np.sqrt(n) / 2 if prim.ulp and prim.linear is Linear.NO else 0)
        check(prim, [pool[: 3 * n].reshape(n, 3)], {"axes": (0,)})
    check(prim, [pool[:6].reshape(2, 3)], {"axes": ()})
    check(prim, [pool[:0].reshape(0, 3)], {"axes": (1,)})


AXES = [axes for count in range(5) for axes in itertools.combinations(range(4), count)]
NUMPY = {jg.sum: np.sum, jg.mean: np.mean, jg.max: np.max, jg.min: np.min, jg.prod: np.prod, jg.any: np.any,
         jg.all: np.all, jg.count_nonzero: np.count_nonzero}


@pytest.mark.parametrize("dtype", DTYPES, ids=ident)
@pytest.mark.parametrize("op", NUMPY, ids=lambda f: f.__name__)
def test_reduction_over_every_set_of_axes(op, dtype, rng):
    x = rng.integers(0, 2, (2, 3, 4, 5)).astype(bool) if dtype.kind == "b" else \
        rng.integers(-9, 9, (2, 3, 4, 5)).astype(dtype) / dtype.type(1)
    x = x.astype(dtype)
    for axes, keepdims in itertools.product([*AXES, None], (False, True)):
        got = op(jg.asarray(x), axis=axes, keepdims=keepdims).numpy()
        want = NUMPY[op](wider(x), axis=axes, keepdims=keepdims)
        kinds = {np.mean: "f", np.sum: "fi", np.prod: "fi"}.get(NUMPY[op], "fib")
        fixed = {np.any: "bool", np.all: "bool", np.count_nonzero: "int64"}.get(NUMPY[op])
        assert got.dtype == (fixed or (dtype if dtype.kind in kinds else {"f": "float32", "fi": "int32"}[kinds]))
        assert_close(got, np.asarray(want).astype(got.dtype))


@pytest.mark.parametrize("op", NUMPY, ids=lambda f: f.__name__)
def test_reduction_axes_may_be_negative_and_of_any_kind(op, rng):
    x = rng.normal(size=(2, 3, 4))
    for axis in (-1, -3, np.int64(1), [0, -1], (2, 0), np.array([0, 1])):
        as_tuple = tuple(np.atleast_1d(axis).tolist())
        assert_close(op(jg.asarray(x), axis=axis).numpy(), NUMPY[op](x, axis=as_tuple))


def test_reductions_of_nothing():
    empty = jg.zeros((0, 3), "float64")
    assert jg.sum(empty, axis=0).numpy().tolist() == [0, 0, 0]
    assert np.isnan(jg.mean(empty, axis=0).numpy()).all() and jg.mean(empty, axis=1).shape == (0,)
    assert jg.max(empty, axis=1).shape == (0,)
    assert jg.prod(empty, axis=0).numpy().tolist() == [1, 1, 1] and jg.count_nonzero(empty).numpy() == 0
    assert jg.any(empty, axis=0).numpy().tolist() == [False] * 3 and jg.all(empty, axis=0).numpy().tolist() == [True] * 3
    for op in (jg.max, jg.min, jg.argmax, jg.argmin):
        with pytest.raises(ValueError, match=r"no elements to choose from in shape \(0, 3\)"):
            op(empty, axis=0)


def test_float32_sum_of_a_million_is_accurate(rng):
    """Chunks meet in float64: the error is that of one chunk, however long the array."""
    x = rng.uniform(0, 1, 1_000_003).astype(np.float32)
    prim = OPS["reduce_sum"].prim
    got = OPS["reduce_sum"](jg.asarray(x), (0,)).numpy()
    assert error(prim, got, [x], {"axes": (0,)}) <= prim.ulp


@pytest.mark.parametrize("source", ("float32", "float64"))
@pytest.mark.parametrize("target", ("int32", "int64"))
def test_cast_of_floats_out_of_range_saturates(source, target):
    bound = np.iinfo(target)
    x = np.array([np.inf, -np.inf, np.nan, 1e30, -1e30, 2.9, -2.9, 2.0**31, 2.0**63, -(2.0**31), -(2.0**63)], source)
    want = [0 if v != v else int(min(max(v, bound.min), bound.max)) for v in x.astype(object)]
    got = jg.astype(x, target).numpy()
    assert got.dtype == target and got.tolist() == [min(max(v, bound.min), bound.max) for v in want]
