"""Sorting by its public names: stability, special numbers, lengths at which the method changes, gradients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.aval import AVALS
from jitgrad.core.form import form
from jitgrad.core.primitive import OPS
from jitgrad.execute.cpu import llvm, quicksort, sorting
from jitgrad.execute.cpu.library import kernel_of
from table import call
from tolerance import assert_same_bits

NAN, INF = np.nan, np.inf
KINDS = ("spread", "few", "near", "odd")
DTYPES = ("bool", "int32", "int64", "float32", "float64")
LENGTHS = (0, 1, 2, 7, 39, 40, 41, 129, 700, 4096, 4097, 30_000)


def order_of(x, descending=False):
    """The stable order, NaN last."""
    if descending:
        x = -x if x.dtype.kind == "f" else ~x
    return np.argsort(x, -1, stable=True)


def drawn(rng, n, dtype, kind):
    """Elements of one sort: spread, from few values, equal in their upper halves, or with all that is special."""
    if dtype == "bool":
        return rng.integers(0, 2, n).astype(bool)
    if np.dtype(dtype).kind == "i":
        bound = np.iinfo(dtype)
        x = rng.integers(bound.min, bound.max, n, dtype, endpoint=True)
        return {"few": x % 5, "near": 2**30 + x % 1000}.get(kind, x).astype(dtype)
    x = rng.normal(size=n).astype(dtype)
    if kind == "few":
        return np.round(x)
    if kind == "near":
        return (1 + np.finfo(dtype).eps * rng.integers(0, 1000, n)).astype(dtype)
    if kind == "odd":
        x[rng.uniform(size=n) < 0.4] = 0.0
        at = rng.uniform(size=n) < 0.4
        x[at] = rng.choice(np.array([0.0, -0.0, INF, -INF, NAN, -NAN, 1e-40], dtype), at.sum())
    return x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_against_the_stable_order(dtype, kind, rng):
    for n, descending in itertools.product(LENGTHS, (False, True)):
        x = drawn(rng, n, dtype, kind)
        order = order_of(x, descending)
        np.testing.assert_array_equal(jg.argsort(x, descending=descending).numpy(), order)
        got = jg.sort(x, descending=descending).numpy()
        np.testing.assert_array_equal(got, x[order])
        if x.dtype.kind == "f":
            real = ~np.isnan(got)
            np.testing.assert_array_equal(np.signbit(got[real]), np.signbit(x[order][real]))


@pytest.mark.parametrize("entry, dtype", list(itertools.product(("sort", "argsort"), DTYPES[1:])))
def test_builds_agree(entry, dtype, rng, monkeypatch):
    """The vector text and the entry's own kernel, bit for bit; orders that make medians of samples bad pivots, too."""
    prim = OPS[entry].prim
    ends = np.arange(4000)
    crafted = [np.tile([0, 1], 2000), np.minimum(ends, 4000 - ends), ends // 250 * 250 + ends[::-1] % 250, ends % 16]
    for x in [drawn(rng, n, dtype, kind) for n in (1, 17, 128, 129, 3000) for kind in KINDS] + [
            a.astype(dtype) for a in crafted]:
        for falling in (False, True):
            made = form(prim, [AVALS[jg.asarray(x)._aval]], {"axis": 0, "descending": falling})
            both = []
            for kernels in ("", "numba"):
                monkeypatch.setenv("JITGRAD_KERNELS", kernels)
                address, words = kernel_of(made)
                out = np.full_like(x, 7, "int64" if entry == "argsort" else dtype)
                call(address, words, out, x)
                both.append((address, out))
            (vector, one), (own, other) = both
            if vector == own:
                pytest.skip("this processor has no vector text for it")
            assert_same_bits(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_axes(dtype, rng):
    """Columns by squares, what squares leave over, and more than are turned at once."""
    for shape in ((5, 43, 3), (16, 16), (33, 70), (300, 129), (0, 4), (4, 0), (1, 9), (2, 40, 65)):
        x = drawn(rng, np.prod(shape), dtype, "odd").reshape(shape)
        for axis in range(-1, len(shape) - 1):
            order = np.argsort(x, axis, stable=True)
            got = jg.sort(x, axis=axis).numpy()
            assert_same_bits(np.abs(got), np.abs(np.take_along_axis(x, order, axis)))
            np.testing.assert_array_equal(jg.argsort(x, axis=axis).numpy(), order)


def test_more_columns_than_room(rng):
    """Long columns, of which few are turned at once."""
    x = rng.integers(0, 1000, (700_000, 4)).astype("float64")
    np.testing.assert_array_equal(jg.sort(x, axis=0).numpy(), np.sort(x, 0))
    np.testing.assert_array_equal(jg.argsort(x, axis=0).numpy(), np.argsort(x, 0, stable=True))


def orders(n, rng):
    """Integers below n in orders that are hard for one sort or another."""
    rising = np.arange(n)
    pipe = np.minimum(rising, n - 1 - rising)
    nearly = rising.copy()
    nearly[rng.integers(0, max(n, 1), n // 20)] = 0
    return {
        "rising": rising, "falling": rising[::-1], "pipe": pipe, "valley": n - pipe, "equal": rising * 0, "one": rising // max(n - 1, 1),
        "two": rng.integers(0, 2, n), "ends": (rising & 1) * (n - 2 * rising), "teeth": rising % 37, "steps": rising // 37,
        "nearly": nearly, "few": rng.integers(0, 9, n), "doubled": rng.integers(0, n // 2 + 1, n), "any": rng.permutation(n),
        "evens": np.concatenate([rising[::2], rising[1::2]]), "squares": rising * rising % max(n, 1), "powers": rising & -rising,
    }  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_orders_of_all_kinds(dtype, rng):
    """Around the lengths at which the method changes: vectors, networks, whole blocks, samples."""
    lengths = {m + d for m in (0, 8, 16, 64, 128, 192, 256, 272, 320, 512, 4096) for d in (-1, 0, 1)} - {-1}
    for n in sorted(lengths | set(rng.integers(130, 6000, 6).tolist())):
        for name, order in orders(n, rng).items():
            x = order.astype(dtype)
            falling = bool(rng.integers(2))
            want = order_of(x, falling)
            np.testing.assert_array_equal(jg.argsort(x, descending=falling).numpy(), want, f"{name} {n}")
            np.testing.assert_array_equal(jg.sort(x, descending=falling).numpy(), x[want], f"{name} {n}")


@pytest.mark.parametrize("entry, dtype", list(itertools.product(("sort", "argsort"), DTYPES[1:])))
def test_when_no_median_is_left(entry, dtype, rng, monkeypatch):
    """The middles between least and greatest that bound the time, alone."""
    if not llvm.has_feature("avx512f"):
        pytest.skip("this processor has no vector text for it")
    monkeypatch.setattr(quicksort.Rows, "depth", lambda self, text: "0")
    symbol = f"middles_{entry}_{dtype}"
    address = llvm.link(llvm.emit(sorting.ir(symbol, entry, np.dtype(dtype))), [symbol])[symbol]
    for n in (100, 300, 5000):
        for x in [a.astype(dtype) for a in orders(n, rng).values()] + [drawn(rng, n, dtype, k) for k in KINDS]:
            made = form(OPS[entry].prim, [AVALS[jg.asarray(x)._aval]], {"axis": 0, "descending": False})
            out = np.empty(n, "int64" if entry == "argsort" else dtype)
            call(address, kernel_of(made)[1], out, x)
            np.testing.assert_array_equal(out, order_of(x) if entry == "argsort" else x[order_of(x)])


def test_words_that_differ_in_few_bits(rng):
    """Elements whose upper bits agree in runs of all lengths, which indices cannot stand beside."""
    for n in (2, 9, 130, 1000, 70_000):
        high = np.sort(rng.integers(-4, 4, n)) << 40
        for x in (high + rng.integers(0, 1 << 10, n), high + rng.integers(0, 3, n), (high >> 38) * (1 << 60) + n):
            x = rng.permutation(x)
            for made in (x, x.view("float64")):
                for falling in (False, True):
                    got = jg.argsort(made, descending=falling).numpy()
                    np.testing.assert_array_equal(got, order_of(made, falling))


def test_in_order_backwards_and_all_equal():
    for x in (np.arange(9000.0), np.arange(9000.0)[::-1], np.ones(9000), np.repeat([2.0, 1.0], 4500)):
        np.testing.assert_array_equal(jg.sort(x).numpy(), np.sort(x))
        np.testing.assert_array_equal(jg.argsort(x).numpy(), np.argsort(x, stable=True))


def test_gradients_go_back_to_where_elements_came_from(rng):
    x = rng.normal(size=(4, 50))
    w = rng.normal(size=(4, 50))
    for descending in (False, True):
        t = jg.constant(x)
        with jg.GradientTape() as outer:
            outer.watch(t)
            with jg.GradientTape() as inner:
                inner.watch(t)
                y = jg.sum(jg.sort(t, descending=descending) ** 2 * w)
            first = inner.gradient(y, t)
            total = jg.sum(first * first)
        order = order_of(x, descending)
        back = np.empty_like(w)
        np.put_along_axis(back, order, w, -1)
        np.testing.assert_allclose(first.numpy(), 2 * x * back, rtol=1e-13)
        np.testing.assert_allclose(outer.gradient(total, t).numpy(), 8 * x * back * back, rtol=1e-13)


def test_top_k(rng):
    x = rng.normal(size=(3, 20))
    t = jg.constant(x)
    with jg.GradientTape() as tape:
        tape.watch(t)
        values, indices = jg.top_k(t, 4)
    want = np.argsort(-x, -1, stable=True)[:, :4]
    np.testing.assert_array_equal(indices.numpy(), want)
    np.testing.assert_array_equal(values.numpy(), np.take_along_axis(x, want, -1))
    hit = np.zeros_like(x)
    np.put_along_axis(hit, want, 1.0, -1)
    np.testing.assert_array_equal(tape.gradient(values, t).numpy(), hit)
    assert jg.top_k([1.0, NAN, 2.0], 2)[1].numpy().tolist() == [2, 0]
    assert jg.top_k(jg.zeros((2, 0)), 0)[0].shape == (2, 0)
    assert [t.shape for t in jg.top_k(jg.zeros((5, 2)), 3, axis=0)] == [(3, 2), (3, 2)]
    with pytest.raises(ValueError, match=r"top_k: k = 3 is more than the 2 elements along axis 1 of shape \(4, 2\)"):
        jg.top_k(jg.zeros((4, 2)), 3)


@pytest.mark.parametrize("side", ("left", "right"))
def test_searchsorted(side, rng):
    x = np.sort(np.concatenate([rng.integers(-5, 5, 20).astype("d"), [NAN, NAN, INF, -INF]]))
    wanted = np.concatenate([x, [NAN, 0.5, -100, 100]])
    np.testing.assert_array_equal(jg.searchsorted(x, wanted, side=side).numpy(), np.searchsorted(x, wanted, side))
    shuffled = rng.permutation(x)
    got = jg.searchsorted(shuffled, 0.5, side=side, sorter=jg.argsort(shuffled))
    assert got.shape == () and int(got) == np.searchsorted(x, 0.5, side)
    assert int(jg.searchsorted([1, 3], 2)) == 1 and jg.searchsorted([], [1.0]).numpy().tolist() == [0]
    rows = np.sort(rng.normal(size=(2, 3, 9)), -1)
    inner = rng.normal(size=(2, 3, 4, 2))
    want = [[np.searchsorted(rows[i, k], inner[i, k], side) for k in range(3)] for i in range(2)]
    np.testing.assert_array_equal(jg.searchsorted(rows, inner, side=side).numpy(), want)
    with pytest.raises(ValueError, match="side must be 'left' or 'right', got 'middle'"):
        jg.searchsorted(x, 1.0, side="middle")
    with pytest.raises(ValueError, match=r"sorted elements of one dimension, got shape \(2, 2\)"):
        jg.searchsorted(jg.zeros((2, 2)), 1.0)


def test_errors():
    with pytest.raises(ValueError, match="sort: axis 1 is out of range for 1 dimensions"):
        jg.sort([1.0], axis=1)
    with pytest.raises(ValueError, match="argsort: axis -1 is out of range for 0 dimensions"):
        jg.argsort(1.0)


def test_take_along_axis_broadcasts(rng):
    x, i = rng.normal(size=(3, 5, 1)), rng.integers(-5, 5, (1, 2, 4))
    got = jg.take_along_axis(x, i, axis=1)
    wide = np.broadcast_to(x, (3, 5, 4)), np.broadcast_to(i, (3, 2, 4))
    np.testing.assert_array_equal(got.numpy(), np.take_along_axis(*wide, 1))
    with pytest.raises(IndexError, match="out of range"):
        jg.take_along_axis([1.0, 2.0], [2])
    with pytest.raises(ValueError, match="differ in their number of axes"):
        jg.take_along_axis([1.0, 2.0], 0)
    with pytest.raises(ValueError, match="do not broadcast beside axis 1"):
        jg.take_along_axis(x, jg.zeros((2, 2, 1), "int32"), axis=1)
