"""What samples do not show of kernels for GPUs that move, pick, sort, search, draw and multiply."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import cuda_here
from cuda_here import RUNS, UNTOUCHED
from jitgrad.core.primitive import BY_NAME, GUARD_FAILED
from jitgrad.execute.cuda import kernel, library, movement, products, searching, sorting
from table import form_of
from table import run as on_cpu

pytestmark = RUNS


def run(name, *arrays, **params):
    """Outputs and the error code."""
    return cuda_here.run(form_of(BY_NAME[name], arrays, params), arrays)


def same_as_reference(name, *arrays, **params):
    """Every bit is the reference's, but for NaN."""
    (got,), status = run(name, *arrays, **params)
    want = np.asarray(BY_NAME[name].ref(*arrays, **params))
    assert status == 0 and got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)
    if got.dtype.kind == "f":
        np.testing.assert_array_equal(np.signbit(got) & (got == got), np.signbit(want) & (want == want))


@pytest.fixture
def small(monkeypatch):
    """Blocks that hold so little that a few dozen elements need many, of no more threads than have work."""
    monkeypatch.setattr(kernel, "WARP", 2)
    monkeypatch.setattr(sorting, "CHUNK", 4)
    monkeypatch.setattr(searching, "SHARE", 4)
    monkeypatch.setattr(searching, "SHORT", 3)
    monkeypatch.setattr(movement, "SIDE", 2)
    monkeypatch.setattr(movement, "TURNED", 2)
    monkeypatch.setattr(products, "SIDES", (2, 4))
    library.work_of.cache_clear()
    yield
    library.work_of.cache_clear()


# ---- moving ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", ["bool", "float64"])
@pytest.mark.parametrize("squares", [False, True])
def test_elements_move_by_any_strides(request, rng, dtype, squares):
    if squares:
        request.getfixturevalue("small")
    x = (rng.normal(size=(2, 3, 4, 5)) > 0).astype(dtype)
    for axes in [(3, 2, 1, 0), (0, 2, 1, 3), (2, 3, 0, 1)]:
        same_as_reference("permute_dims", x, axes=axes)
    spans = ((1, 1, 1), (2, 3, -1), (0, 2, 2), (4, 2, -3))
    same_as_reference("slice", x, spans=spans)
    part = x[1:, ::-1, ::2, 4::-3]
    same_as_reference("embed", np.ascontiguousarray(part), shape=x.shape, spans=spans)
    same_as_reference("broadcast_to", x[:, :1, :, :1].copy(), shape=(2, 2, 3, 4, 2))
    same_as_reference("broadcast_to", np.array(True).astype(dtype), shape=(3, 1, 2))


def test_nothing_is_moved_where_nothing_is(rng):
    none = np.zeros((0, 3), np.float32)
    same_as_reference("permute_dims", none, axes=(1, 0))
    same_as_reference("embed", np.zeros((2, 0), np.float32), shape=(2, 3), spans=((0, 2, 1), (0, 0, 1)))
    same_as_reference("concat", none, np.ones((2, 3), np.float32), axis=0)
    same_as_reference("concat", none, none, axis=1)
    same_as_reference("sort", none, axis=1, descending=False)
    same_as_reference("searchsorted", np.zeros(0), np.ones(2), right=False)
    same_as_reference("matmul", np.ones((2, 0)), np.ones((0, 3)), ta=False, tb=False)
    same_as_reference("matmul", np.ones((0, 2)), np.ones((2, 3)), ta=False, tb=False)


# ---- picking by indices ------------------------------------------------------------------------------------

X = np.arange(24.0, dtype=np.float32).reshape(2, 4, 3)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("wrong", [4, -5, 2**31 - 1, -2**31])
def test_an_index_out_of_range_is_an_error_and_touches_nothing(wrong, kind):
    indices = np.array([1, wrong, -1], kind)
    outs, status = run("gather", X, indices, axis=1, rows=0)
    assert status == 1
    np.testing.assert_array_equal(outs[0][:, [0, 2]], X[:, [1, 3]])
    assert (outs[0][:, 1] == UNTOUCHED).all()

    outs, status = run("scatter_add", X[:, :3].copy(), indices, axis=1, n=4, rows=0)
    want = np.zeros((2, 4, 3))
    want[:, 1], want[:, 3] = X[:, 0], X[:, 2]
    assert status == 1
    np.testing.assert_array_equal(outs[0], want)

    rows = np.array([[0, wrong, -4], [3, 1, 2]], kind)
    x = X.swapaxes(1, 2).copy()
    outs, status = run("pick", x, rows)
    assert status == 1
    np.testing.assert_array_equal(outs[0], [[0, UNTOUCHED, UNTOUCHED], [21, 16, 20]])
    outs, status = run("unpick", x[..., 0].copy(), rows, n=4)
    assert status == 1 and (outs[0][0, 1:] == UNTOUCHED).all() and (outs[0][1].sum(1) == x[1, :, 0]).all()

    along = np.array([[[0, wrong, -4]], [[3, -1, 2]]], kind)
    outs, status = run("take_along_axis", X, along, axis=1)
    assert status == 1
    np.testing.assert_array_equal(outs[0][:, 0], [[0, UNTOUCHED, 2], [21, 22, 20]])
    outs, status = run("add_along_axis", np.ones((2, 1, 3), np.float32), along, axis=1, n=4)
    assert status == 1 and outs[0].sum() == 5 and outs[0][0, :, 1].sum() == 0


def test_indices_are_checked_where_no_element_is(rng):
    wrong, right, none = np.array([0, 3]), np.array([0, 2]), np.zeros((0, 3))
    assert run("gather", none, wrong, axis=1, rows=0)[1] == 1
    assert run("gather", none, right, axis=1, rows=0)[1] == 0
    assert run("gather", np.zeros((2, 0)), right, axis=1, rows=0)[1] == 1
    assert run("scatter_add", np.zeros((0, 2)), wrong, axis=1, n=3, rows=0)[1] == 1
    outs, status = run("scatter_add", np.zeros((2, 0)), right, axis=0, n=3, rows=0)
    assert status == 0 and outs[0].shape == (3, 0)
    assert run("unpick", np.ones(2), right, n=0)[1] == 1
    assert run("pick", np.zeros((2, 0)), right)[1] == 1
    same_as_reference("gather", X, np.zeros(0, int), axis=1, rows=0)
    same_as_reference("scatter_add", X[:, :0].copy(), np.zeros(0, int), axis=1, n=2, rows=0)


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64"])
def test_all_that_has_one_index_is_added_up(rng, dtype):
    g = rng.integers(-9, 9, (3, 20, 2)).astype(dtype)
    same_as_reference("scatter_add", g, np.tile([1, -1], 10), axis=1, n=2, rows=0)
    same_as_reference("scatter_add", g, rng.integers(-2, 2, (3, 20)), axis=1, n=2, rows=1)
    same_as_reference("add_along_axis", g, rng.integers(-2, 2, g.shape, np.int32), axis=1, n=2)
    same_as_reference("gather", g, np.array(-3), axis=1, rows=0)
    same_as_reference("gather", g, rng.integers(-2, 2, (3, 1, 2)), axis=2, rows=1)


# ---- sorting and searching --------------------------------------------------------------------------------

def elements(rng, dtype, shape):
    """Few different ones, so that many are equal; of floats NaN of both signs, zeros and infinities, too."""
    if dtype == "bool":
        return rng.random(shape) > 0.5
    limits = np.iinfo(dtype) if dtype[0] == "i" else np.finfo(dtype)
    some = [limits.min, limits.max, 0, -1, 1, 5]
    floats = [np.nan, -np.nan, 0.0, -0.0, np.inf, -np.inf, limits.tiny, -limits.tiny] if dtype[0] == "f" else []
    return rng.choice(np.array([*some, *floats], dtype), shape)


@pytest.mark.parametrize("dtype", ["bool", "int32", "int64", "float32", "float64"])
def test_rows_are_sorted_across_blocks(small, rng, dtype):
    for name, shape, descending in [("argsort", (1, 19), False), ("sort", (1, 5, 2), True), ("argsort", (2, 4), True),
                                    ("sort", (2, 3), False), ("sort", (3, 1), False)]:
        x = elements(rng, dtype, shape)
        same_as_reference(name, x, axis=1, descending=descending)
    x = np.zeros((1, 19), dtype)
    assert len(library.work_of(form_of(BY_NAME["sort"], [x], {"axis": 1, "descending": True})).launches) == 12


@pytest.mark.parametrize(("name", "dtype"), [("argmax", "bool"), ("argmin", "int64"), ("argmax", "float32"),
                                             ("argmin", "float32")])
def test_the_first_of_equals_is_found_across_blocks(small, rng, name, dtype):
    for shape, axis in [((2, 3), 1), ((2, 4), 1), ((1, 15), 1), ((1, 9, 2), 1)]:
        x = elements(rng, dtype, shape)
        same_as_reference(name, x, axis=axis)
        if dtype[0] == "f":
            same_as_reference(name, np.where(x == x, x, 0).astype(dtype), axis=axis)
    same_as_reference(name, np.ones((1, 15), dtype), axis=1)
    (got,), status = run(name, np.ones((2, 0), dtype), axis=1)
    assert status == 0 and (got == 0).all()


def test_elements_are_placed_before_or_behind_their_equals(rng):
    x = np.array([-np.inf, -1, -1, -0.0, 0.0, 2, np.inf, np.nan, np.nan])
    for right in (False, True):
        same_as_reference("searchsorted", x, np.array([np.nan, -np.inf, np.inf, 0, -0.0, -1, 3, -2]), right=right)
    same_as_reference("searchsorted", np.array([False, False, True]), np.array([[True], [False]]), right=True)


# ---- drawing ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64"])
def test_bits_are_those_of_the_processor(rng, dtype):
    state = rng.integers(-2**63, 2**63, (4, 3))
    state[:, 2] = 2**34 + 3, -1, -2**63, 2**63 - 4
    params = {"size": 9, "dtype": dtype}
    (got,), status = run("random_bits", state, **params)
    assert status == 0
    np.testing.assert_array_equal(got, on_cpu(BY_NAME["random_bits"], [state], params))


def test_permutations_are_those_of_the_processor(small, rng):
    full = np.array([0, -1, 2**62])              # each number to the first place; none moves; a quarter of the way
    for bits in (rng.integers(-2**63, 2**63, (1, 37)), np.repeat(full[:, None], 9, 1)):
        same_as_reference("random_permutation", bits)


# ---- multiplying, checking ------------------------------------------------------------------------------------

@pytest.mark.parametrize(("ta", "tb"), list(itertools.product((False, True), repeat=2)))
@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 9, 2), (2, 1, 5)])
def test_products_of_any_shape(small, rng, ta, tb, shape):
    m, n, k = shape
    for dtype in (np.int32, np.float64)[: 1 if m > 2 else 2]:
        x = rng.integers(-2**20, 2**20, (2, k, m) if ta else (2, m, k)).astype(dtype)
        y = rng.integers(-2**20, 2**20, (2, n, k) if tb else (2, k, n)).astype(dtype)
        same_as_reference("matmul", x, y, ta=ta, tb=tb)


def test_a_product_in_squares_of_full_size(rng):
    x, y = rng.integers(-9, 9, (17, 18)).astype(np.float32), rng.integers(-9, 9, (3, 18)).astype(np.float32)
    same_as_reference("matmul", x, y, ta=False, tb=True)


@pytest.mark.parametrize("dtype", ["bool", "int32", "int64", "float32", "float64"])
def test_guards_compare_bits(rng, dtype):
    x = np.array([[1, 0, 0], [0, 1, 1]]).astype(dtype)
    assert run("guard", x, x.copy()) == ([], 0)
    for place in [(0, 0), (1, 2)]:
        other = x.copy()
        other[place] = 1 - x[place] if dtype != "bool" else not x[place]
        assert run("guard", x, other) == ([], GUARD_FAILED)
    if dtype[0] == "f":
        assert run("guard", np.array(0.0, dtype), np.array(-0.0, dtype))[1] == GUARD_FAILED
        assert run("guard", np.array([np.nan], dtype), np.array([np.nan], dtype))[1] == 0
    assert run("guard", x[:0], x[:0].copy())[1] == 0
