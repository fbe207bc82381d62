"""Reductions. Axes are adjacent and kept as length 1; `jitgrad.sum` and its like normalise and squeeze."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core import dtypes
from jitgrad.core.aval import Aval, aval
from jitgrad.core.exact import itself
from jitgrad.core.primitive import Kind, Linear, kernel, reduction, several, uniform
from jitgrad.ops import scalar


def _least(dtype: np.dtype[Any]) -> float:
    return float("-inf") if dtype.kind == "f" else 0 if dtype.kind == "b" else int(np.iinfo(dtype).min)


def _greatest(dtype: np.dtype[Any]) -> float:
    return float("inf") if dtype.kind == "f" else 1 if dtype.kind == "b" else int(np.iinfo(dtype).max)


def _of_one(x: Aval, axes: tuple[int, ...]) -> bool:
    """Each result is of one element."""
    return all(x.shape[a] == 1 for a in axes)


def _share_ties(g: Any, ans: Any, x: Any, *, axes: tuple[int, ...]) -> tuple[Any]:
    hit = ops.cast(x == ans, dtype=x.dtype.name)
    return (ops.where(x == ans, g / ops.reduce_sum(hit, axes=axes), 0),)


@reduction(init=0, linear=Linear.EACH, ref=lambda x, *, axes: np.sum(x, axes, keepdims=True), ulp=4.0,
           samples=several(uniform((3, 4, 2), axes=(1, 2)), uniform((3, 4), axes=(0,)), uniform((3,), axes=())),
           vjp=lambda g, ans, x, *, axes: (ops.broadcast_to(g, shape=x.shape),),
           exact=(itself(lambda x, axes: x.dtype.kind == "i" and _of_one(x, axes)),))     # 0 + -0.0 is 0.0
def reduce_sum(acc, x):
    """Sum over axes: along the last in chunks of 4,096 with 32 accumulators each, along others in blocks of 64 with 8
    elements at a time. The sums of chunks and blocks meet in sequence, in float64. Where they are float64 themselves,
    k of them may be off by 0.4 sqrt(k) ulp: more than is stated from a hundred on.
    """
    return acc + x


@reduction(init=_least, domain="any", ref=lambda x, *, axes: np.max(x, axes, keepdims=True), ulp=0.0,
           samples=several(uniform((3, 4), axes=(1,)), uniform((3, 4), axes=(0,))), vjp=_share_ties,
           exact=(itself(_of_one),))
def reduce_max(acc, x):
    """Greatest over axes; NaN wins, ties share the gradient equally."""
    if x.dtype.kind == "b":
        return acc | x
    return scalar.where((x > acc) | (x != x), x, acc)


@reduction(init=_greatest, domain="any", ref=lambda x, *, axes: np.min(x, axes, keepdims=True), ulp=0.0,
           samples=several(uniform((3, 4), axes=(1,)), uniform((3, 4), axes=(0,))), vjp=_share_ties,
           exact=(itself(_of_one),))
def reduce_min(acc, x):
    """Least over axes; NaN wins, ties share the gradient equally."""
    if x.dtype.kind == "b":
        return acc & x
    return scalar.where((x < acc) | (x != x), x, acc)


def _prod_vjp(g: Any, ans: Any, x: Any, *, axes: tuple[int, ...]) -> tuple[Any]:
    """The products of the others, those before times those behind: no division, so zeros are as good as others."""
    first, last = (axes[0], axes[-1] + 1) if axes else (x.ndim, x.ndim)
    outer, n, inner = (math.prod(part) for part in (x.shape[:first], x.shape[first:last], x.shape[last:]))
    line = ops.reshape(x, shape=(outer, n, inner))
    others = (ops.cumulative_prod(line, axis=1, exclusive=True)
              * ops.cumulative_prod(line, axis=1, exclusive=True, reverse=True))
    return (g * ops.reshape(others, shape=x.shape),)


def _with_zeros(rng: np.random.Generator) -> list[Any]:
    x = rng.uniform(0.5, 1.5, (4, 3, 2))
    x[1, 2, 0] = x[2, 1, 1] = x[2, 0, 1] = 0
    return [((x,), {"axes": (1, 2)}), ((x,), {"axes": (0,)})]


@reduction(init=1, ref=lambda x, *, axes: np.prod(x, axes, keepdims=True), ulp=4.0, vjp=_prod_vjp,
           samples=several(uniform((3, 4, 2), axes=(1, 2)), uniform((3, 4), axes=(0,)), uniform((3,), axes=()),
                           _with_zeros), exact=(itself(_of_one),))
def reduce_prod(acc, x):
    """Product over axes, in the order of `reduce_sum`: n factors round n times, about sqrt(n) / 2 ulp in all.

    Gradients divide by nothing: they are right with any number of zeros.
    """
    return acc * x


def _position_aval(x: Aval, *, axis: int) -> Aval:
    return aval(dtypes.INT64, x.shape[:axis] + x.shape[axis + 1:])


def _position_words(x: Aval, *, axis: int) -> tuple[int, int, int]:
    return math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1:])


_along = several(uniform((3, 4), axis=1), uniform((3, 4, 2), axis=0))


@kernel(Kind.OPAQUE, vjp=None, ref=lambda x, *, axis: np.argmax(x, axis), samples=_along, operands=("x",),
        params=("axis",), domain="any", aval=_position_aval, words=_position_words, cuda="searching",
        batch=lambda batched, size, x, *, axis: ((ops.argmax(x, axis + 1),), (True,)),
        indexes=lambda x, axis: (x.shape[axis], ()))
def argmax(out, x, outer, n, inner):
    """Index of the first greatest element along an axis; of the first NaN if there is one."""
    for o in range(outer):
        for i in range(inner):
            best = 0
            for k in range(1, n):
                candidate, champion = x[(o * n + k) * inner + i], x[(o * n + best) * inner + i]
                if candidate > champion or (candidate != candidate and champion == champion):
                    best = k
            out[o * inner + i] = best
    return 0


@kernel(Kind.OPAQUE, vjp=None, ref=lambda x, *, axis: np.argmin(x, axis), samples=_along, operands=("x",),
        params=("axis",), domain="any", aval=_position_aval, words=_position_words, cuda="searching",
        batch=lambda batched, size, x, *, axis: ((ops.argmin(x, axis + 1),), (True,)),
        indexes=lambda x, axis: (x.shape[axis], ()))
def argmin(out, x, outer, n, inner):
    """Index of the first least element along an axis; of the first NaN if there is one."""
    for o in range(outer):
        for i in range(inner):
            best = 0
            for k in range(1, n):
                candidate, champion = x[(o * n + k) * inner + i], x[(o * n + best) * inner + i]
                if candidate < champion or (candidate != candidate and champion == champion):
                    best = k
            out[o * inner + i] = best
    return 0
