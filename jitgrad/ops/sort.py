"""Sorting: by the bits of the elements, stable, NaN last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core import dtypes
from jitgrad.core.aval import Aval, aval
from jitgrad.core.errors import user_error
from jitgrad.core.primitive import Kind, kernel, several, uniform
from jitgrad.ops.batching import Batch, moved, spread

FEW = 40                 # elements up to which insertion is fastest
SHORT = 4096             # elements up to which digits of 8 bits beat digits of 11
COUNTERS = 3 * 2048
HIGH = 32                # elements are told apart by the upper 32 bits of words first, then by the lower ones
LEAST = -(1 << 63)


# ---- words in scratch memory s: n from `first`, as many spare ones `gap` further, counters at `counts` ------------

def by_digits(s, first, n, gap, base, counts):
    """Sort words by their bits base to base + 32, read as unsigned: least digit first, hence stable.

    A pass whose words all share a digit is left out.
    """
    if n <= SHORT:
        count_digits(s, first, n, base, counts, 4, 8)
        return deal_all(s, first, n, gap, base, counts, 4, 8)
    count_digits(s, first, n, base, counts, 3, 11)
    return deal_all(s, first, n, gap, base, counts, 3, 11)


def count_digits(s, first, n, base, counts, passes, width):
    """How many words have each digit; passes and width are numbers where this is called, so that it is unrolled."""
    for d in range(passes << width):
        s[counts + d] = 0
    for i in range(first, first + n):
        w = s[i] >> base
        for p in range(passes):
            s[counts + (p << width) + ((w >> (p * width)) & ((1 << width) - 1))] += 1
    return 0


def deal_all(s, first, n, gap, base, counts, passes, width):
    """A pass for each digit that differs; `counts` says how many words have it."""
    size = 1 << width
    away = 0
    for p in range(passes):
        at = counts + p * size
        shift = base + p * width
        if s[at + ((s[first + away] >> shift) & (size - 1))] < n:
            total = first + gap - away
            for d in range(at, at + size):
                count = s[d]
                s[d] = total
                total += count
            deal(s, first + away, n, shift, size - 1, at)
            away = gap - away
    if away > 0:
        for i in range(first, first + n):
            s[i] = s[gap + i]
    return 0


def deal(s, first, n, shift, mask, places):
    """Each word to the next place of its digit."""
    for i in range(first, first + n):
        w = s[i]
        d = places + ((w >> shift) & mask)
        place = s[d]
        s[place] = w
        s[d] = place + 1
    return 0


def by_insertion(s, first, n):
    """Sort words, read as unsigned, each into those before it."""
    for i in range(first + 1, first + n):
        w = s[i]
        key = w ^ LEAST
        j = i - 1
        while j >= first and (s[j] ^ LEAST) > key:
            s[j + 1] = s[j]
            j -= 1
        s[j + 1] = w
    return 0


def by_half(s, first, n, gap, base, counts):
    """Sort words by 32 bits; where they are few, by all."""
    if n <= FEW:
        return by_insertion(s, first, n)
    return by_digits(s, first, n, gap, base, counts)


def run_of(s, first, end):
    """How many words from `first` have the same upper half."""
    high = s[first] >> HIGH
    at = first + 1
    while at < end and (s[at] >> HIGH) == high:
        at += 1
    return at - first


# ---- elements as unsigned integers in the same order ------------------------------------------------------------

def key_of(b, magnitude, infinity, zero, descending):
    """The order of the elements whose bits, sign-extended, are b: NaN greatest, both zeros equal.

    magnitude masks the bits of a float but its sign, infinity are those of inf, zero those of -0; for integers they
    are 0, the greatest integer, and 0. Without branches, which signs would make hard to predict.
    """
    k = ((b ^ ((b >> 63) & magnitude)) & -np.int64(b != zero)) ^ -descending
    return magnitude if (b & magnitude) > infinity else k


def element_of(key, magnitude, infinity, descending):
    """The bits of an element by its key; every NaN is one."""
    k = key ^ -descending
    return key if key > infinity else k ^ ((k >> 63) & magnitude)


def zeros_in_turn(out, x, start, n, inner, zero):
    """Zeros of both signs, which stand together, in the order of x."""
    k = 0
    while out[start + k * inner] != 0 and out[start + k * inner] != zero:
        k += 1
    for j in range(n):
        b = np.int64(x[start + j * inner])
        if b == 0 or b == zero:
            out[start + k * inner] = b
            k += 1
    return 0


def _words(x: Aval, *, axis: int, descending: bool) -> tuple[int, ...]:
    outer, n, inner = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1:])
    width = 8 * x.dtype.itemsize
    if x.dtype.kind != "f":
        return outer, n, inner, 0, 2**63 - 1, 0, width, int(descending)
    infinity = int(np.array(np.inf, x.dtype).view(f"i{x.dtype.itemsize}"))
    return outer, n, inner, 2**(width - 1) - 1, infinity, -2**(width - 1), width, int(descending)


def _scratch(x: Aval, *, axis: int, descending: bool) -> int:
    return 2 * x.shape[axis] + COUNTERS


def _argsort_aval(x: Aval, *, axis: int, descending: bool) -> Aval:
    return aval(dtypes.INT64, _sort_aval(x, axis=axis, descending=descending).shape)


def _sort_aval(x: Aval, *, axis: int, descending: bool) -> Aval:
    if type(axis) is not int or not 0 <= axis < x.ndim:
        raise user_error(ValueError, f"sort: axis {axis!r} is out of range for shape {x.shape}")
    return x


def _argsort_ref(x: Any, *, axis: int, descending: bool) -> Any:
    """NumPy's stable order; falling is rising of the negative, NaN last in both."""
    if descending:
        x = -x if x.dtype.kind == "f" else ~x
    return np.argsort(x, axis, stable=True)


def _sort_ref(x: Any, *, axis: int, descending: bool) -> Any:
    return np.take_along_axis(x, _argsort_ref(x, axis=axis, descending=descending), axis)


_samples = several(*(uniform(shape, axis=0, descending=descending)
                     for shape, descending in (((7, 3), False), ((5,), True), ((60,), False))))
_POINTS = (0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 0.0, 0.5, -0.0)


@kernel(Kind.OPAQUE, vjp=None, ref=_argsort_ref, samples=_samples, at=_POINTS, operands=("x",),
        params=("axis", "descending"), domain="any", aval=_argsort_aval, words=_words, scratch=_scratch, bits=True,
        vectors="sorting", cuda="sorting",
        batch=lambda batched, size, x, *, axis, descending: ((ops.argsort(x, axis + 1, descending),), (True,)))
def argsort(out, x, s, outer, n, inner, magnitude, infinity, zero, width, descending):
    """Indices that sort along an axis, rising or falling: stable, zeros of both signs equal, NaN last in both.

    Radix sort of words that hold 32 bits of an element above its index; a float64 or int64 goes by its upper half
    first, then runs of one upper half by the lower.
    """
    counts = 2 * n
    narrow = 64 - width
    for row in range(outer * inner):
        start = row // inner * n * inner + row % inner
        for k in range(n):
            s[k] = x[start + k * inner]
        for k in range(n):
            u = (key_of(s[k], magnitude, infinity, zero, descending) << narrow) ^ LEAST
            s[k] = (u >> HIGH << HIGH) | k
        by_half(s, 0, n, n, HIGH, counts)
        if width == 64:
            first = 0
            while first < n:
                m = run_of(s, first, n)
                if m > 1:
                    for i in range(first, first + m):
                        k = s[i] & 0xFFFFFFFF
                        u = key_of(np.int64(x[start + k * inner]), magnitude, infinity, zero, descending)
                        s[i] = (u << HIGH) | k
                    by_half(s, first, m, n, HIGH, counts)
                first += m
        for k in range(n):
            out[start + k * inner] = s[k] & 0xFFFFFFFF
    return 0


def _sort_vjp(g: Any, ans: Any, x: Any, *, axis: int, descending: bool) -> tuple[Any]:
    order = ops.argsort(x, axis=axis, descending=descending)
    return (ops.add_along_axis(g, order, axis=axis, n=x.shape[axis]),)


@kernel(Kind.OPAQUE, vjp=_sort_vjp, ref=_sort_ref, samples=_samples, at=_POINTS, operands=("x",),
        params=("axis", "descending"), domain="any", aval=_sort_aval, words=_words, scratch=_scratch, bits=True,
        vectors="sorting", cuda="sorting", ulp=0.0,
        batch=lambda batched, size, x, *, axis, descending: (
            (ops.sort(x, axis + 1, descending),), (True,)))  # type: ignore[operator]  # the op, not this module
def sort(out, x, s, outer, n, inner, magnitude, infinity, zero, width, descending):
    """The elements in order along an axis, rising or falling: stable, zeros of both signs equal, NaN last in both."""
    counts = 2 * n
    narrow = 64 - width
    for row in range(outer * inner):
        start = row // inner * n * inner + row % inner
        minus = np.int64(0)
        plus = np.int64(0)
        for k in range(n):
            s[k] = x[start + k * inner]
        for k in range(n):
            b = s[k]
            minus += np.int64(b == zero)
            plus += np.int64(b == 0)
            s[k] = (key_of(b, magnitude, infinity, 0, descending) << narrow) ^ LEAST
        by_half(s, 0, n, n, HIGH, counts)
        if width == 64:
            first = 0
            while first < n:
                m = run_of(s, first, n)
                if m > 1:
                    by_half(s, first, m, n, 0, counts)
                first += m
        for k in range(n):
            s[k] = element_of((s[k] ^ LEAST) >> narrow, magnitude, infinity, descending)
        for k in range(n):
            out[start + k * inner] = s[k]
        if 0 < minus < plus + minus and zero != 0:
            zeros_in_turn(out, x, start, n, inner, zero)
    return 0


def less(a, b):
    """a before b, NaN after all."""
    return a < b or (b != b and a == a)


def _sorted_at(rng: np.random.Generator) -> list[Any]:
    x = np.sort(rng.uniform(-1.5, 1.5, 7))
    wanted = np.concatenate([x[[0, 3, 6]], rng.uniform(-2, 2, 5)]).reshape(2, 4)
    rows = np.sort(rng.uniform(-1.5, 1.5, (3, 5)))
    return [*(((x, wanted), {"right": right}) for right in (False, True)),
            ((rows, rng.uniform(-2, 2, (3, 2, 4))), {"right": True})]


def _searchsorted_aval(x: Aval, v: Aval, *, right: bool) -> Aval:
    if x.ndim == 0 or v.shape[: x.ndim - 1] != x.shape[:-1]:
        raise user_error(ValueError, f"searchsorted: needs sorted elements of one dimension, got shape {x.shape}, "
                                     f"whose leading axes are not those of the shape {v.shape} to be placed")
    return aval(dtypes.INT64, v.shape)


def _searchsorted_words(x: Aval, v: Aval, *, right: bool) -> tuple[int, ...]:
    rows = math.prod(x.shape[:-1])
    return rows, x.shape[-1], v.size // rows if rows else 0, int(right)


def _searchsorted_ref(x: Any, v: Any, *, right: bool) -> Any:
    out = np.empty(v.shape, np.int64)
    for row in np.ndindex(x.shape[:-1]):
        out[row] = np.searchsorted(x[row], v[row], "right" if right else "left")
    return out


def _searchsorted_batch(batched: Sequence[bool], size: int, x: Any, v: Any, *, right: bool) -> Batch:
    if not batched[0]:                                # all examples in the same sorted elements
        rows = len(x.shape) - 1
        return (moved(ops.searchsorted(x, moved(v, 0, rows), right), rows, 0),), (True,)
    return (ops.searchsorted(*spread(batched, size, x, v), right),), (True,)


@kernel(Kind.OPAQUE, vjp=None, samples=_sorted_at, operands=("x", "v"), params=("right",), domain="any",
        ref=_searchsorted_ref, aval=_searchsorted_aval, words=_searchsorted_words, cuda="searching",
        batch=_searchsorted_batch)
def searchsorted(out, x, v, rows, n, count, right):
    """Where in the sorted ``x`` each element of ``v`` belongs: before its equals, or behind them; NaN is greatest.

    ``x`` may be rows of sorted elements, of which each has its own of the elements of ``v``.
    """
    for row in range(rows):
        for k in range(row * count, (row + 1) * count):
            low = row * n
            high = low + n
            while low < high:
                middle = (low + high) >> 1
                before = not less(v[k], x[middle]) if right else less(x[middle], v[k])
                if before:
                    low = middle + 1
                else:
                    high = middle
            out[k] = low - row * n
    return 0
