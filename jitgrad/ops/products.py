"""Sums of products: of two Tensors over axes, and of any number by index names."""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core.aval import as_int, stands_for_int
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.ops.axes import axes_of
from jitgrad.ops.composite import aval_of, matmul, permute_dims
from jitgrad.ops.composite import sum as sum_

__all__ = ["einsum", "outer", "tensordot", "vecdot"]


def einsum(subscripts: str, *operands: Any) -> Any:
    """The sum of products that ``subscripts`` names, in NumPy's language: ``"ij,jk->ik"``, ``...`` for broadcasting.

    A name that the result lacks is summed over; one that an operand has twice takes the diagonal. Without ``->`` the
    result has the names that occur once, in alphabetical order. Pairs are contracted as matrix products, more than two
    operands pairwise in the order that costs least by NumPy's estimate. Raises ValueError where names and shapes
    do not fit.

    >>> import jitgrad as jg
    >>> x = jg.constant([[1., 2.], [3., 4.]])
    >>> jg.einsum("ij,ij->i", x, x).numpy(), float(jg.einsum("ii", x))
    (array([ 5., 25.], dtype=float32), 5.0)
    """
    if not isinstance(subscripts, str) or not operands:
        raise user_error(ValueError, f"einsum: needs subscripts as a string and operands, got {subscripts!r}")
    xs = [tensor(x) for x in operands]
    names, result, lengths, path = _plan(subscripts, tuple(aval_of(x).shape for x in xs))
    parts = [_plain(x, own) for x, own in zip(xs, names, strict=True)]
    for step in path:
        taken = [parts.pop(k) for k in sorted(step, reverse=True)][::-1]
        while len(taken) > 1:
            wanted = set(result).union(*(own for _, own in (*parts, *taken[2:])))
            taken[:2] = [_product(taken[0], taken[1], wanted, lengths)]
        parts += taken
    (x, own), = parts
    x, own = _single(x, own, set(result))
    if aval_of(x).shape != tuple(lengths[n] for n in own):
        x = ops.broadcast_to(x, tuple(lengths[n] for n in own))
    return x if own == result else ops.permute_dims(x, tuple(own.index(n) for n in result))


@functools.lru_cache(maxsize=1024)
def _plan(subscripts: str, shapes: tuple[tuple[int, ...], ...]) -> tuple[Any, ...]:
    """Names of each operand's axes and of the result's, their lengths, and which operands meet when."""
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    given = left.split(",")
    if len(given) != len(shapes):
        raise user_error(ValueError, f"einsum: {subscripts!r} names {len(given)} operands, got {len(shapes)}")
    names = [_spelled(subscripts, own, len(shape)) for own, shape in zip(given, shapes, strict=True)]
    dots = max((n for own in names for n in own if n < 0), key=abs, default=0)
    batch = tuple(range(dots, 0))
    if arrow:
        first, found, last = right.partition("...")
        result = (*map(ord, first), *(batch if found else ()), *map(ord, last))
    else:
        once = [n for own in names for n in own if n > 0]
        result = (*batch, *sorted(n for n in set(once) if once.count(n) == 1))
    lengths: dict[int, int] = {}
    for own, shape in zip(names, shapes, strict=True):
        for n, length in zip(own, shape, strict=True):
            if lengths.setdefault(n, length) != length and length != 1:
                if lengths[n] != 1:
                    raise user_error(ValueError, f"einsum: {subscripts!r} gives {_name(n)} the lengths {lengths[n]} "
                                                 f"and {length} (shapes {' and '.join(map(str, shapes))})")
                lengths[n] = length
    unknown = [_name(n) for n in result if n not in lengths]
    if unknown or len(set(result)) != len(result):
        raise user_error(ValueError, f"einsum: the result of {subscripts!r} has a name that no operand has, or one "
                                     "twice")
    return names, result, lengths, _path(names, result, shapes)


def _name(n: int) -> str:
    return repr(chr(n)) if n > 0 else "an axis of ..."


def _spelled(subscripts: str, own: str, ndim: int) -> tuple[int, ...]:
    """Names as numbers: letters by their code, the axes of ... as -1 for the last, -2 before it."""
    first, found, last = own.partition("...")
    letters = first + last
    if not (letters.isalpha() or letters == "") or len(letters) > ndim or not found and len(letters) != ndim:
        raise user_error(ValueError, f"einsum: {own!r} of {subscripts!r} does not name the {ndim} axes of its operand")
    return (*map(ord, first), *range(len(letters) - ndim, 0), *map(ord, last))


def _path(names: list[tuple[int, ...]], result: tuple[int, ...], shapes: tuple[tuple[int, ...], ...]) -> list[Any]:
    """NumPy's greedy order; it looks at shapes only, so the operands may be one number seen as often as needed."""
    if len(names) <= 2:
        return [tuple(range(len(names)))]
    sublists: list[Any] = []
    numbers = {n: k for k, n in enumerate(dict.fromkeys(n for own in names for n in own))}
    for own, shape in zip(names, shapes, strict=True):
        sublists += [np.broadcast_to(np.float32(0), shape), [numbers[n] for n in own]]
    found: list[Any] = np.einsum_path(*sublists, [numbers[n] for n in result], optimize="greedy")[0]
    return found[1:]


def _plain(x: Any, own: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    """The diagonal of axes that share a name."""
    for n in dict.fromkeys(own):
        while own.count(n) > 1:
            a = own.index(n)
            b = own.index(n, a + 1)
            rest = [k for k in range(len(own)) if k not in (a, b)]
            shape = aval_of(x).shape
            m = shape[a]
            if shape[b] != m:
                raise user_error(ValueError, f"einsum: {_name(n)} names axes of lengths {m} and {shape[b]} of one "
                                             "operand")
            x = ops.reshape(ops.permute_dims(x, (*rest, a, b)), (*(shape[k] for k in rest), m * m))
            spans = (*((0, shape[k], 1) for k in rest), (0, m, m + 1))
            x, own = ops.slice(x, spans), (*(own[k] for k in rest), n)
    return x, own


def _single(x: Any, own: tuple[int, ...], wanted: set[int]) -> tuple[Any, tuple[int, ...]]:
    """Sum over the names that nobody wants."""
    gone = tuple(k for k, n in enumerate(own) if n not in wanted)
    return (sum_(x, gone), tuple(n for n in own if n in wanted)) if gone else (x, own)


def _product(one: tuple[Any, Any], other: tuple[Any, Any], wanted: set[int], lengths: dict[int, int]) -> Any:
    """Two operands as one stack of matrix products: names of both that stay, of the first, of both that go."""
    x, a = _single(*one, wanted | set(other[1]))
    y, b = _single(*other, wanted | set(a))
    x, y = (ops.broadcast_to(t, tuple(lengths[n] for n in own)) if any(
        m != lengths[n] and n in shared for m, n in zip(aval_of(t).shape, own, strict=True)) else t
        for t, own, shared in ((x, a, set(b)), (y, b, set(a))))
    batch = tuple(n for n in a if n in b and n in wanted)
    summed = tuple(n for n in a if n in b and n not in wanted)
    left, right = (tuple(n for n in own if n not in theirs) for own, theirs in ((a, b), (b, a)))
    size = {n: m for t, own in ((x, a), (y, b)) for n, m in zip(own, aval_of(t).shape, strict=True)}

    def matrices(t: Any, own: tuple[int, ...], *groups: tuple[int, ...]) -> Any:
        order = tuple(own.index(n) for group in groups for n in group)
        t = t if order == tuple(range(len(own))) else ops.permute_dims(t, order)
        return ops.reshape(t, tuple(size[n] for n in batch) + tuple(
            math.prod(size[n] for n in group) for group in groups[1:]))
    out = matmul(matrices(x, a, batch, left, summed), matrices(y, b, batch, summed, right))
    names = (*batch, *left, *right)
    return ops.reshape(out, tuple(size[n] for n in names)), names


# ---- products of two ------------------------------------------------------------------------------------

def outer(x1: Any, x2: Any) -> Any:
    """All products of an element of one vector with one of the other."""
    a, b = tensor(x1), tensor(x2)
    if aval_of(a).ndim != 1 or aval_of(b).ndim != 1:
        raise user_error(ValueError, f"outer: takes vectors, got shapes {aval_of(a).shape} and {aval_of(b).shape}")
    return ops.reshape(a, (aval_of(a).size, 1)) * ops.reshape(b, (1, aval_of(b).size))


def vecdot(x1: Any, x2: Any, axis: int = -1) -> Any:
    """Sums of products along ``axis``, which both have; the other axes broadcast."""
    a, b = tensor(x1), tensor(x2)
    ndim, axis = min(aval_of(a).ndim, aval_of(b).ndim), as_int(axis, "vecdot: axis")
    if ndim == 0 or not -ndim <= axis < 0:
        raise user_error(ValueError, f"vecdot: axis must be negative and count from the end of both, got {axis} for "
                                     f"shapes {aval_of(a).shape} and {aval_of(b).shape}")
    if aval_of(a).shape[axis] != aval_of(b).shape[axis]:
        raise user_error(ValueError, f"vecdot: shapes {aval_of(a).shape} and {aval_of(b).shape} differ along axis "
                                     f"{axis}")
    return sum_(a * b, axis)


def tensordot(x1: Any, x2: Any, axes: Any = 2) -> Any:
    """Sums of products over axes of both: so many last ones with so many first ones, or those of two lists."""
    a, b = tensor(x1), tensor(x2)
    have, other = aval_of(a).shape, aval_of(b).shape
    if stands_for_int(axes):
        count = operator.index(axes)
        if not 0 <= count <= min(len(have), len(other)):
            raise user_error(ValueError, f"tensordot: shapes {have} and {other} have no {count} axes to sum over")
        mine, theirs = tuple(range(len(have) - count, len(have))), tuple(range(count))
    else:
        if not hasattr(axes, "__len__") or len(axes) != 2:
            raise user_error(ValueError, f"tensordot: axes must be a count or two lists of axes, got {axes!r}")
        mine, theirs = axes_of("tensordot", axes[0], len(have)), axes_of("tensordot", axes[1], len(other))
    if [have[i] for i in mine] != [other[i] for i in theirs]:
        raise user_error(ValueError, f"tensordot: shapes {have} and {other} differ along axes {mine} and {theirs}")
    free, rest = (tuple(i for i in range(len(s)) if i not in t) for s, t in ((have, mine), (other, theirs)))
    inner = math.prod(have[i] for i in mine)
    left = ops.reshape(permute_dims(a, (*free, *mine)), (math.prod(have[i] for i in free), inner))
    right = ops.reshape(permute_dims(b, (*theirs, *rest)), (inner, math.prod(other[i] for i in rest)))
    return ops.reshape(matmul(left, right), (*(have[i] for i in free), *(other[i] for i in rest)))
