"""Cumulative operations: a body folded along an axis, every partial result kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core.primitive import Linear, scan, several, uniform
from jitgrad.ops import maths, scalar
from jitgrad.ops.scalar import INF


def _samples(count: int, exclusive: bool = True) -> Callable[..., Any]:
    """Along the first, a middle and the last axis; both directions; with and without the element itself."""
    shapes = ((5,), (3, 4, 2), (2, 3))
    modes = [(False, False), (False, True), *([(True, False), (True, True)] if exclusive else [])]
    return several(*(uniform(*[shape] * count, axis=axis, exclusive=without, reverse=reverse)
                     for shape, axis in zip(shapes, (0, 1, 1), strict=True) for without, reverse in modes))


def _reference(accumulate: Callable[..., Any], start: Callable[[np.dtype[Any]], Any]) -> Callable[..., Any]:
    """NumPy's accumulation in either direction, with and without the element itself."""
    def ref(x: Any, *, axis: int, exclusive: bool, reverse: bool) -> Any:
        x = np.flip(x, axis) if reverse else x
        out = accumulate(x, axis=axis).astype(x.dtype) if x.size else x
        if exclusive and x.size:
            first = np.full_like(np.take(x, [0], axis), start(x.dtype))
            out = np.concatenate([first, np.delete(out, -1, axis)], axis)
        return np.flip(out, axis) if reverse else out
    return ref


def _shifted(x: Any, fill: float, axis: int, reverse: bool) -> Any:
    """The element that the scan met before, ``fill`` at the first."""
    shape = x.shape
    if shape[axis] == 0:
        return x
    edge = ops.broadcast_to(ops.cast(fill, dtype=x.dtype.name),
                            shape=tuple(1 if i == axis else n for i, n in enumerate(shape)))
    first = 1 if reverse else 0
    rest = ops.slice(x, spans=tuple((first if i == axis else 0, n - (i == axis), 1) for i, n in enumerate(shape)))
    return ops.concat(rest, edge, axis=axis) if reverse else ops.concat(edge, rest, axis=axis)


@scan(init=0, linear=Linear.EACH, associative=True, ulp=4.0, samples=_samples(1),
      ref=_reference(np.cumsum, lambda dtype: 0), vjp=lambda g, ans, x, *, axis, exclusive, reverse: (
          ops.cumulative_sum(g, axis=axis, exclusive=exclusive, reverse=not reverse),))
def cumulative_sum(acc, x):
    """Running sums along an axis; float32 accumulates in float64. Starts from 0, so that a first -0.0 gives 0.0."""
    return acc + x


def _recurrence_ref(x: Any, a: Any, *, axis: int, exclusive: bool, reverse: bool) -> Any:
    x, a = (np.moveaxis(np.flip(v, axis) if reverse else v, axis, 0) for v in (x, a))
    out, acc = np.empty_like(x), np.zeros_like(x[:1]).sum(axis=0)
    for k in range(len(x)):
        new = acc * a[k] + x[k]
        out[k], acc = acc if exclusive else new, new
    out = np.moveaxis(out, 0, axis)
    return np.flip(out, axis) if reverse else out


def _recurrence_vjp(g: Any, ans: Any, x: Any, a: Any, *, axis: int, exclusive: bool, reverse: bool) -> tuple[Any, Any]:
    """Backwards s = g + a' s', where a' and s' belong to the element met after; a's share is s times the y before."""
    after = _shifted(a, 0, axis, not reverse)
    if exclusive:
        s = ops.linear_recurrence(_shifted(g, 0, axis, not reverse), after, axis=axis, reverse=not reverse)
        return s, s * ans
    s = ops.linear_recurrence(g, after, axis=axis, reverse=not reverse)
    return s, s * _shifted(ans, 0, axis, reverse)


@scan(init=0, domain="float", ulp=4.0, samples=_samples(2), ref=_recurrence_ref, vjp=_recurrence_vjp)
def linear_recurrence(acc, x, a):
    """``y[k] = a[k] y[k-1] + x[k]`` along an axis, from 0; float32 accumulates in float64.

    The first ``a`` meets that 0. What turns running products and running logsumexps around is one of these.
    """
    return scalar.fmuladd(acc, a, x)


def _product_vjp(g: Any, ans: Any, x: Any, *, axis: int, exclusive: bool, reverse: bool) -> tuple[Any]:
    """The product before an element times s = g + x' s' behind it: no division, so zeros are as good as others."""
    before = ops.cumulative_prod(x, axis=axis, exclusive=True, reverse=reverse)
    if exclusive:
        g = _shifted(g, 0, axis, not reverse)
    behind = ops.linear_recurrence(g, _shifted(x, 0, axis, not reverse), axis=axis, reverse=not reverse)
    return (before * behind,)


def _with_zeros(rng: np.random.Generator) -> list[Any]:
    x = rng.uniform(0.5, 1.5, (4, 6))
    x[1, 2] = x[2, 1] = x[2, 4] = x[3, 0] = 0
    return [((x,), {"axis": 1, "exclusive": exclusive, "reverse": exclusive}) for exclusive in (False, True)]


@scan(init=1, associative=True, ulp=4.0, samples=several(_samples(1), _with_zeros), vjp=_product_vjp,
      ref=_reference(np.cumprod, lambda dtype: 1))
def cumulative_prod(acc, x):
    """Running products along an axis; float32 accumulates in float64."""
    return acc * x


def _logsumexp_vjp(g: Any, ans: Any, x: Any, *, axis: int, exclusive: bool, reverse: bool) -> tuple[Any]:
    """exp(x - y) times s = g + exp(y - y') s' backwards: all exponents are at most 0, and -inf weighs nothing."""
    if exclusive:
        g, ans = _shifted(g, 0, axis, not reverse), ops.logcumsumexp(x, axis=axis, reverse=reverse)
    decay = _weight(_shifted(ans, -INF, axis, reverse), ans)
    s = ops.linear_recurrence(g, _shifted(decay, 0, axis, not reverse), axis=axis, reverse=not reverse)
    return (_weight(x, ans) * s,)


def _weight(x: Any, y: Any) -> Any:
    """exp(x - y) of x <= y: 0 at x = -inf, 1 where both are inf."""
    finite = ops.less(ops.abs(x), INF) & ops.less(ops.abs(y), INF)
    e = ops.exp(ops.where(finite, x, 0) - ops.where(finite, y, 0))
    odd = ops.where(ops.equal(x, INF), 1, ops.where(ops.equal(x, x) & ops.equal(y, y), 0, x + y))
    return ops.where(finite, e, odd)


def _with_nothing(rng: np.random.Generator) -> list[Any]:
    x = rng.uniform(-1.5, 1.5, (3, 5))
    x[0, :2] = x[1, 3] = -800
    return [((x,), {"axis": 1, "exclusive": False, "reverse": reverse}) for reverse in (False, True)]


@scan(init=-INF, domain="float", associative=True, ulp=4.0, vjp=_logsumexp_vjp,
      samples=several(_samples(1, exclusive=False), _with_nothing),
      ref=_reference(np.logaddexp.accumulate, lambda dtype: -np.inf))
def logcumsumexp(acc, x):
    """``log(cumsum(exp(x)))`` without overflow; float32 accumulates in float64. -inf adds nothing, NaN stays."""
    high: Any = scalar.where(acc > x, acc, x)
    low: Any = scalar.where(acc > x, x, acc)
    gap = scalar.where(low == high, 0, low - high)
    sum_ = high + maths.log1p(maths.exp(gap))
    return scalar.where(low == -INF, high, sum_)
