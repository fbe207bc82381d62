"""Gathering by integer indices, and its transpose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core.aval import Aval, aval
from jitgrad.core.errors import user_error
from jitgrad.core.primitive import Kind, Linear, kernel, shape_error
from jitgrad.ops.batching import Batch, moved, spread

CHECKED = 1024           # indices checked together before they are used: still in the first cache
_OUT_OF_RANGE = {1: "an index is out of range for the axis it picks from"}


def _check_axis(name: str, x: Aval, axis: int, width: int = 1) -> None:
    if type(axis) is not int or not 0 <= axis <= x.ndim - width:
        raise user_error(ValueError, f"{name}: axis {axis!r} is out of range for shape {x.shape}")


def _check_rows(name: str, x: Aval, i: Aval, axis: int, rows: int) -> None:
    if type(rows) is not int or not 0 <= rows <= min(axis, i.ndim) or x.shape[:rows] != i.shape[:rows]:
        raise shape_error(name, (x, i), f"do not begin with {rows} equal axes before axis {axis}")


def _gather_aval(x: Aval, i: Aval, *, axis: int, rows: int) -> Aval:
    _check_axis("gather", x, axis)
    _check_rows("gather", x, i, axis, rows)
    return aval(x.code, (*x.shape[:axis], *i.shape[rows:], *x.shape[axis + 1:]))


def _gather_words(x: Aval, i: Aval, *, axis: int, rows: int) -> tuple[int, ...]:
    return (math.prod(x.shape[:rows]), math.prod(x.shape[rows:axis]), x.shape[axis], math.prod(i.shape[rows:]),
            math.prod(x.shape[axis + 1:]))


def _gather_ref(x: Any, i: Any, *, axis: int, rows: int) -> Any:
    out = np.empty((*x.shape[:axis], *i.shape[rows:], *x.shape[axis + 1:]), x.dtype)
    for row in np.ndindex(x.shape[:rows]):
        out[row] = np.take(x[row], i[row], axis - rows)
    return out


def _gather_batch(batched: Sequence[bool], size: int, x: Any, i: Any, *, axis: int, rows: int) -> Batch:
    if not batched[0]:                       # all examples from the same elements: one gather of more indices
        return (moved(ops.gather(x, moved(i, 0, rows), axis, rows), axis, 0),), (True,)
    if not batched[1] and rows == 0:
        return (ops.gather(x, i, axis + 1),), (True,)
    return (ops.gather(*spread(batched, size, x, i), axis + 1, rows + 1),), (True,)


def _samples(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [((rng.normal(size=(3, 5, 2)), np.array([4, 0, 4, -1])), {"axis": 1, "rows": 0}),
            ((rng.normal(size=(3, 2)), np.array([[2, 0], [0, -3]], np.int32)), {"axis": 0, "rows": 0}),
            ((rng.normal(size=(2, 3, 5)), np.array([[4, 0, 4, -1], [1, 2, -5, 3]])), {"axis": 2, "rows": 1})]


@kernel(Kind.INDEX, ref=_gather_ref, samples=_samples, operands=("x", "indices"), params=("axis", "rows"),
        defaults={"rows": 0}, domain=("any", "index"), linear=Linear.EACH, ulp=0.0, aval=_gather_aval,
        words=_gather_words, errors=_OUT_OF_RANGE, cuda="indexing", batch=_gather_batch,
        indexes=lambda x, i, axis, rows: (0, (0,)),
        vjp=lambda g, ans, x, i, *, axis, rows: (ops.scatter_add(g, i, axis, x.shape[axis], rows), None))
def gather(out, x, indices, rows, outer, n, count, inner):
    """Elements of ``x`` along an axis at integer indices; negative ones count from the end.

    The first ``rows`` axes are axes of both operands: each row of ``x`` has indices of its own.
    """
    for row in range(rows):
        first = row * count
        while first < (row + 1) * count:
            end = min(first + CHECKED, (row + 1) * count)
            if outside(indices, first, end, n):
                return 1
            for o in range(row * outer, (row + 1) * outer):
                gap = (o - row) * count
                if inner == 1:
                    for k in range(first, end):
                        out[np.uint64(gap + k)] = x[np.uint64(o * n + place(np.int64(indices[k]), n))]
                elif inner == 2:
                    for k in range(first, end):
                        copy_row(out, x, (gap + k) * 2, (o * n + place(np.int64(indices[k]), n)) * 2, 2)
                elif inner == 4:
                    for k in range(first, end):
                        copy_row(out, x, (gap + k) * 4, (o * n + place(np.int64(indices[k]), n)) * 4, 4)
                elif inner == 8:
                    for k in range(first, end):
                        copy_row(out, x, (gap + k) * 8, (o * n + place(np.int64(indices[k]), n)) * 8, 8)
                else:
                    for k in range(first, end):
                        to = (gap + k) * inner
                        at = (o * n + place(np.int64(indices[k]), n)) * inner
                        for i in range(inner):
                            out[np.uint64(to + i)] = x[np.uint64(at + i)]
            first = end
    return 0


def outside(indices, first, end, n):
    """Whether an index of a stretch, which is not empty, is out of range."""
    low = np.int64(0)
    high = np.int64(0)
    for k in range(first, end):
        i = np.int64(indices[k])
        low = min(low, i)
        high = max(high, i)
    return low < -n or high >= n


def place(i, n):
    """An index that may count from the end, as one from the start."""
    return i + (n & (i >> 63))


def copy_row(out, x, to, at, n):
    """A row of a length that is a number where this is called, so that the compiler moves it as one vector."""
    for i in range(n):
        out[np.uint64(to + i)] = x[np.uint64(at + i)]
    return 0


def _scatter_aval(g: Aval, i: Aval, *, axis: int, n: int, rows: int) -> Aval:
    _check_axis("scatter_add", g, axis, i.ndim - rows)
    _check_rows("scatter_add", g, i, axis, rows)
    if g.shape[axis: axis + i.ndim - rows] != i.shape[rows:] or type(n) is not int or n < 0:
        raise shape_error("scatter_add", (g, i), f"do not match at axis {axis}, or {n} is no length")
    return aval(g.code, (*g.shape[:axis], n, *g.shape[axis + i.ndim - rows:]))


def _scatter_words(g: Aval, i: Aval, *, axis: int, n: int, rows: int) -> tuple[int, ...]:
    return (math.prod(g.shape[:rows]), math.prod(g.shape[rows:axis]), n, math.prod(i.shape[rows:]),
            math.prod(g.shape[axis + i.ndim - rows:]))


def _scatter_ref(g: Any, i: Any, *, axis: int, n: int, rows: int) -> Any:
    out = np.zeros((*g.shape[:axis], n, *g.shape[axis + i.ndim - rows:]), g.dtype)
    for row in np.ndindex(g.shape[:rows]):
        np.add.at(out[row], (slice(None),) * (axis - rows) + (i[row],), g[row])
    return out


def _scatter_batch(batched: Sequence[bool], size: int, g: Any, i: Any, *, axis: int, n: int, rows: int) -> Batch:
    if not batched[1] and rows == 0:
        return (ops.scatter_add(g, i, axis + 1, n),), (True,)
    return (ops.scatter_add(*spread(batched, size, g, i), axis + 1, n, rows + 1),), (True,)


def _scatter_samples(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [((rng.normal(size=(3, 4, 2)), np.array([4, 0, 4, -1])), {"axis": 1, "n": 5, "rows": 0}),
            ((rng.normal(size=(2, 3, 4)), np.array([[4, 0, 4, -1], [1, 2, -5, 3]])), {"axis": 2, "n": 5, "rows": 1})]


@kernel(Kind.INDEX, ref=_scatter_ref, samples=_scatter_samples, operands=("g", "indices"),
        params=("axis", "n", "rows"), defaults={"rows": 0}, domain=("number", "index"), linear=Linear.EACH, ulp=4.0,
        aval=_scatter_aval, words=_scatter_words, errors=_OUT_OF_RANGE, cuda="indexing", batch=_scatter_batch,
        vjp=lambda h, ans, g, i, *, axis, n, rows: (ops.gather(h, i, axis, rows), None))
def scatter_add(out, g, indices, rows, outer, n, count, inner):
    """Zeros of length ``n`` along an axis, with ``g``'s slices added at integer indices: the transpose of `gather`.

    On a GPU, floats with one index are added in any order.
    """
    for i in range(out.size):
        out[i] = 0
    for row in range(rows):
        first = row * count
        while first < (row + 1) * count:
            end = min(first + CHECKED, (row + 1) * count)
            if outside(indices, first, end, n):
                return 1
            for o in range(row * outer, (row + 1) * outer):
                gap = (o - row) * count
                if inner == 1:
                    for k in range(first, end):
                        out[np.uint64(o * n + place(np.int64(indices[k]), n))] += g[np.uint64(gap + k)]
                else:
                    for k in range(first, end):
                        at = (o * n + place(np.int64(indices[k]), n)) * inner
                        given = (gap + k) * inner
                        for i in range(inner):
                            out[np.uint64(at + i)] += g[np.uint64(given + i)]
            first = end
    return 0


def _pick_aval(x: Aval, i: Aval) -> Aval:
    if x.ndim == 0 or x.shape[:-1] != i.shape:
        raise shape_error("pick", (x, i), "do not match: one index for each row of the last axis")
    return aval(x.code, i.shape)


def _pick_batch(batched: Sequence[bool], size: int, x: Any, i: Any) -> Batch:
    return (ops.pick(*spread(batched, size, x, i)),), (True,)


def _pick_samples(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [((rng.normal(size=(3, 2, 5)), np.array([[4, 0], [1, 2], [2, 2]])), {})]


@kernel(Kind.INDEX, samples=_pick_samples, operands=("x", "indices"), domain=("any", "index"), linear=Linear.EACH,
        ref=lambda x, i: np.take_along_axis(x, np.expand_dims(i, -1), -1)[..., 0], ulp=0.0, aval=_pick_aval,
        words=lambda x, i: (i.size, x.shape[-1]), errors=_OUT_OF_RANGE, cuda="indexing", batch=_pick_batch,
        indexes=lambda x, i: (0, (0,)),
        vjp=lambda g, ans, x, i: (ops.unpick(g, i, n=x.shape[-1]), None))
def pick(out, x, indices, rows, n):
    """One element of each row of the last axis, at an index of its own: a label, which never counts from the end."""
    for r in range(rows):
        at = indices[r]
        if at < 0 or at >= n:
            return 1
        out[r] = x[r * n + at]
    return 0


def _unpick_ref(g: Any, i: Any, *, n: int) -> Any:
    out = np.zeros((*g.shape, n), g.dtype)
    np.put_along_axis(out, np.expand_dims(i, -1), np.expand_dims(g, -1), -1)
    return out


def _unpick_samples(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [((rng.normal(size=(3, 2)), np.array([[4, 0], [1, 2], [2, 2]])), {"n": 5})]


def _unpick_aval(g: Aval, i: Aval, *, n: int) -> Aval:
    if g.shape != i.shape or type(n) is not int or n < 0:
        raise shape_error("unpick", (g, i), f"differ, or {n} is no length")
    return aval(g.code, (*g.shape, n))


@kernel(Kind.INDEX, samples=_unpick_samples, operands=("g", "indices"), params=("n",), domain=("any", "index"),
        linear=Linear.EACH, ref=_unpick_ref, ulp=0.0, aval=_unpick_aval,
        words=lambda g, i, *, n: (i.size, n), errors=_OUT_OF_RANGE, cuda="indexing",
        batch=lambda batched, size, g, i, *, n: ((ops.unpick(*spread(batched, size, g, i), n),), (True,)),
        vjp=lambda h, ans, g, i, *, n: (ops.pick(h, i), None))
def unpick(out, g, indices, rows, n):
    """Rows of zeros with one element each: the transpose of `pick`."""
    for k in range(rows * n):
        out[k] = 0
    for r in range(rows):
        at = indices[r]
        if at < 0 or at >= n:
            return 1
        out[r * n + at] = g[r]
    return 0


# ---- an index of its own for each element, as NumPy's take_along_axis ---------------------------------------------

def _along_aval(x: Aval, i: Aval, *, axis: int) -> Aval:
    _check_axis("take_along_axis", x, axis)
    _check_along("take_along_axis", x, i, axis)
    return aval(x.code, i.shape)


def _check_along(name: str, x: Aval, i: Aval, axis: int) -> None:
    if x.ndim != i.ndim or any(m != n for a, (m, n) in enumerate(zip(x.shape, i.shape, strict=True)) if a != axis):
        raise shape_error(name, (x, i), f"differ in more than axis {axis}")


def _along_words(x: Aval, i: Aval, *, axis: int) -> tuple[int, ...]:
    return math.prod(x.shape[:axis]), x.shape[axis], i.shape[axis], math.prod(x.shape[axis + 1:])


def _along_batch(batched: Sequence[bool], size: int, x: Any, i: Any, *, axis: int) -> Batch:
    if batched[0]:
        return (ops.take_along_axis(*spread(batched, size, x, i), axis + 1),), (True,)
    i = moved(i, 0, axis)                    # all examples from the same elements: so many more along the axis
    shape = i.shape
    many = ops.reshape(i, (*shape[:axis], size * shape[axis + 1], *shape[axis + 2:]))
    return (moved(ops.reshape(ops.take_along_axis(x, many, axis), shape), axis, 0),), (True,)


def _along_samples(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [((rng.normal(size=(3, 5, 2)), rng.integers(-5, 5, (3, 4, 2))), {"axis": 1}),
            ((rng.normal(size=(4, 3)), rng.integers(-3, 3, (4, 6), np.int32)), {"axis": 1})]


@kernel(Kind.INDEX, ref=lambda x, i, *, axis: np.take_along_axis(x, i, axis), samples=_along_samples,
        operands=("x", "indices"), params=("axis",), domain=("any", "index"), linear=Linear.EACH, ulp=0.0,
        aval=_along_aval, words=_along_words, errors=_OUT_OF_RANGE, cuda="indexing", batch=_along_batch,
        indexes=lambda x, i, axis: (0, (0,)),
        vjp=lambda g, ans, x, i, *, axis: (ops.add_along_axis(g, i, axis=axis, n=x.shape[axis]), None))
def take_along_axis(out, x, indices, outer, n, count, inner):
    """Elements of ``x`` along an axis, each at an index of its own; negative ones count from the end."""
    for o in range(outer):
        for k in range(count):
            row = (o * count + k) * inner
            for i in range(inner):
                at = indices[row + i]
                if at < -n or at >= n:
                    return 1
                out[row + i] = x[(o * n + (at if at >= 0 else at + n)) * inner + i]
    return 0


def _add_along_aval(g: Aval, i: Aval, *, axis: int, n: int) -> Aval:
    _check_axis("add_along_axis", g, axis)
    if g.shape != i.shape or type(n) is not int or n < 0:
        raise shape_error("add_along_axis", (g, i), f"differ, or {n} is no length")
    return aval(g.code, (*g.shape[:axis], n, *g.shape[axis + 1:]))


def _add_along_ref(g: Any, i: Any, *, axis: int, n: int) -> Any:
    out = np.zeros((*g.shape[:axis], n, *g.shape[axis + 1:]), g.dtype)
    places = list(np.indices(i.shape, sparse=True))
    places[axis] = i
    np.add.at(out, tuple(places), g)
    return out


def _add_along_samples(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [((rng.normal(size=(3, 4, 2)), rng.integers(-5, 5, (3, 4, 2))), {"axis": 1, "n": 5})]


@kernel(Kind.INDEX, ref=_add_along_ref, samples=_add_along_samples, operands=("g", "indices"), params=("axis", "n"),
        domain=("number", "index"), linear=Linear.EACH, ulp=4.0, aval=_add_along_aval, errors=_OUT_OF_RANGE,
        cuda="indexing",
        words=lambda g, i, *, axis, n: (math.prod(g.shape[:axis]), n, g.shape[axis], math.prod(g.shape[axis + 1:])),
        batch=lambda batched, size, g, i, *, axis, n: (
            (ops.add_along_axis(*spread(batched, size, g, i), axis + 1, n),), (True,)),
        vjp=lambda h, ans, g, i, *, axis, n: (ops.take_along_axis(h, i, axis=axis), None))
def add_along_axis(out, g, indices, outer, n, count, inner):
    """Zeros of length ``n`` along an axis with each element of ``g`` added at an index of its own.

    The transpose of `take_along_axis`. On a GPU, floats with one index are added in any order.
    """
    for i in range(out.size):
        out[i] = 0
    for o in range(outer):
        for k in range(count):
            row = (o * count + k) * inner
            for i in range(inner):
                at = indices[row + i]
                if at < -n or at >= n:
                    return 1
                out[(o * n + (at if at >= 0 else at + n)) * inner + i] += g[row + i]
    return 0
