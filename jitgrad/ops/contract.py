"""Matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core.aval import Aval, aval
from jitgrad.core.exact import untransposed
from jitgrad.core.primitive import Kind, Linear, kernel, several, shape_error, uniform
from jitgrad.ops import composite
from jitgrad.ops.batching import Batch, moved
from jitgrad.ops.scalar import fmuladd


def _aval(x: Aval, y: Aval, *, ta: bool, tb: bool) -> Aval:
    if x.ndim < 2 or x.ndim != y.ndim or x.shape[:-2] != y.shape[:-2]:
        raise shape_error("matmul", (x, y), "are not matrices with equal batch axes")
    m, k = x.shape[-2:][::-1] if ta else x.shape[-2:]
    k2, n = y.shape[-2:][::-1] if tb else y.shape[-2:]
    if k != k2:
        raise shape_error("matmul", (x, y), f"do not match: inner lengths {k} and {k2}")
    return aval(x.code, (*x.shape[:-2], m, n))


def _words(x: Aval, y: Aval, *, ta: bool, tb: bool) -> tuple[int, ...]:
    m, k = x.shape[-2:][::-1] if ta else x.shape[-2:]
    n = y.shape[-2] if tb else y.shape[-1]
    batch = int(np.prod(x.shape[:-2], dtype=np.int64))
    return batch, m, n, k, int(ta), int(tb)


def _general(x: Any, y: Any, *, ta: bool, tb: bool) -> Any:
    """Vectors and broadcasting are put together from products of matrices."""
    a, b = x.shape, y.shape
    fits = len(a) >= 2 and len(a) == len(b) and a[:-2] == b[:-2]
    return None if fits else composite.matmul(x, y, ta, tb)


def _ref(x: Any, y: Any, *, ta: bool, tb: bool) -> Any:
    return np.matmul(x.swapaxes(-1, -2) if ta else x, y.swapaxes(-1, -2) if tb else y)


def _vjp(g: Any, ans: Any, x: Any, y: Any, *, ta: bool, tb: bool) -> tuple[Any, Any]:
    """With X and Y after transposition, dX = g Y' and dY = X' g; an operand given transposed gets its transpose."""
    by_x = ops.matmul(y, g, ta=tb, tb=True) if ta else ops.matmul(g, y, ta=False, tb=not tb)
    by_y = ops.matmul(g, x, ta=True, tb=ta) if tb else ops.matmul(x, g, ta=not ta, tb=False)
    return by_x, by_y


def _batch(batched: Sequence[bool], size: int, x: Any, y: Any, *, ta: bool, tb: bool) -> Batch:
    """One product for all examples, the shared matrix read once; only where the other has its columns batched (or is
    one row) do elements move.
    """
    if all(batched):
        return (ops.matmul(x, y, ta, tb),), (True,)
    if batched[0]:
        return (_shared(size, x, y, ta, tb),), (True,)
    *lead, k, n = y.shape if not tb else (*y.shape[:-2], y.shape[-1], y.shape[-2])
    if n == 1:                                        # columns: as rows they need no move
        rows = _shared(size, ops.reshape(y, (*lead, 1, k)), x, False, not ta)
        return (ops.reshape(rows, (*lead, rows.shape[-1], 1)),), (True,)
    at = len(lead) - 1
    y = moved(y, 0, at if tb else at + 1)             # among the rows that make columns of the product
    flat = (*lead[1:], size * n, k) if tb else (*lead[1:], k, size * n)
    out = ops.matmul(x, ops.reshape(y, flat), ta, tb)
    return (moved(ops.reshape(out, (*out.shape[:-1], size, n)), at + 1, 0),), (True,)


def _shared(size: int, x: Any, y: Any, ta: bool, tb: bool) -> Any:
    """Batched matrices times one: their rows are rows of one product."""
    *lead, m, k = x.shape if not ta else (*x.shape[:-2], x.shape[-1], x.shape[-2])
    if m == 1 and ta:                                 # a column is a row that needs no move
        x, ta = ops.reshape(x, (*lead, 1, k)), False
    at = len(lead) - 1
    x = moved(x, 0, at + 1 if ta else at)
    out = ops.matmul(ops.reshape(x, (*lead[1:], k, size * m) if ta else (*lead[1:], size * m, k)), y, ta, tb)
    return moved(ops.reshape(out, (*lead[1:], size, m, out.shape[-1])), at, 0)


_samples = several(uniform((2, 3, 4), (2, 4, 5), ta=False, tb=False), uniform((4, 3), (4, 5), ta=True, tb=False),
                   uniform((3, 4), (5, 4), ta=False, tb=True), uniform((2, 1, 4, 3), (2, 1, 5, 4), ta=True, tb=True))


@kernel(Kind.CONTRACT, vjp=_vjp, ref=_ref, samples=_samples,
        operands=("x", "y"), params=("ta", "tb"), defaults={"ta": False, "tb": False}, symbol="@",
        domain="number", linear=Linear.MULTI, ulp=16.0, aval=_aval,
        words=_words, general=_general, batch=_batch, vectors="products", cuda="products",
        exact=(untransposed("ta", "tb"),))
def matmul(out, x, y, batch, m, n, k, ta, tb):
    """Matrix product of stacks of matrices, either given transposed; `jitgrad.matmul` broadcasts and takes vectors."""
    for b in range(batch):
        for i in range(m):
            for j in range(n):
                acc = out.dtype.type(0)
                for p in range(k):
                    left = x[b * m * k + (p * m + i if ta else i * k + p)]
                    right = y[b * k * n + (j * k + p if tb else p * n + j)]
                    acc = fmuladd(left, right, acc)
                out[(b * m + i) * n + j] = acc
    return 0
