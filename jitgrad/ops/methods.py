"""Methods of Tensor and Variable that are operations."""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core.aval import AVALS, broadcast_shapes, stands_for_int
from jitgrad.core.device import beside
from jitgrad.core.errors import user_error
from jitgrad.core.primitive import OPS, TABLE
from jitgrad.core.record import tensor
from jitgrad.ops import composite

__all__ = ["nonzero"]


def getitem(x: Any, key: Any) -> Any:
    """``x[key]`` as in NumPy: ints, slices, ``...``, ``None``, and integer or boolean arrays among them.

    Arrays broadcast together and pick one element of their axes for each of theirs; the axes they make stand where
    the arrays stood, or in front where something stands between the arrays. A mask is read as it is now.
    """
    x = tensor(x)
    parts = key if isinstance(key, tuple) else (key,)
    if all(type(p) in (int, slice, type(None), type(...)) for p in parts):
        return _regular(x, parts)
    return _with_array(x, [p if _is_plain(p) else _as_index(p, x) for p in parts])


def _is_plain(part: Any) -> bool:
    return part is None or part is ... or isinstance(part, slice)


def _as_index(part: Any, x: Any) -> Any:
    """An int, or an array of integers or booleans."""
    if isinstance(part, int) and not isinstance(part, bool):
        return part
    kind = "b" if isinstance(part, bool) else getattr(part, "dtype", np.dtype(int)).kind
    if kind in "iu" and stands_for_int(part):
        return operator.index(part)
    index = tensor(part, what="index")
    if index.dtype.kind == "f":
        raise user_error(IndexError, f"index: only integers, slices, None, ... and integer or boolean arrays pick "
                                     f"elements, got dtype {index.dtype}")
    return index if index is part else beside(index, x)


def _regular(x: Any, parts: tuple[Any, ...]) -> Any:
    frozen = tuple((p.start, p.stop, p.step) if isinstance(p, slice) else p for p in parts)
    try:
        spans, shape = _spans(x._aval, frozen)
    except TypeError:
        frozen = tuple(tuple(map(_bound, p)) if isinstance(p, tuple) else p for p in frozen)
        spans, shape = _spans(x._aval, frozen)
    out = ops.slice(x, spans)
    return out if shape is None else ops.reshape(out, shape)


def _bound(v: Any) -> int | None:
    try:
        return None if v is None else operator.index(v)
    except TypeError:
        raise user_error(TypeError, f"index: a slice is made of ints or None, got {v!r}") from None


@functools.lru_cache(maxsize=4096, typed=True)
def _spans(aval_id: int, parts: tuple[Any, ...]) -> tuple[Any, tuple[int, ...] | None]:
    """Spans per axis, and the shape after dropping ints and adding None, or None if that is the same."""
    shape = AVALS[aval_id].shape
    used = sum(p is not None and p is not ... for p in parts)
    if used > len(shape):
        raise user_error(IndexError, f"index: {used} indices for shape {shape}")
    if sum(p is ... for p in parts) > 1:
        raise user_error(IndexError, f"index: only one ... picks axes of shape {shape}")
    if any(isinstance(p, tuple) and p[2] == 0 for p in parts):
        raise user_error(ValueError, f"index: the step of a slice must not be 0 (shape {shape})")
    parts = parts if any(p is ... for p in parts) else (*parts, ...)
    spans: list[tuple[int, int, int]] = []
    final: list[int] = []
    for p in parts:
        n = shape[len(spans)] if len(spans) < len(shape) else 0
        if p is None:
            final.append(1)
        elif p is ...:
            for m in shape[len(spans): len(spans) + len(shape) - used]:
                spans.append((0, m, 1))
                final.append(m)
        elif isinstance(p, tuple):
            picked = range(*slice(*p).indices(n))
            spans.append((picked.start if len(picked) else 0, len(picked), picked.step))
            final.append(len(picked))
        else:
            if not -n <= p < n:
                raise user_error(IndexError, f"index: {p} is out of range for axis {len(spans)} of shape {shape}")
            spans.append((p % n, 1, 1))
    kept = tuple(count for _, count, _ in spans)
    return tuple(spans), None if kept == tuple(final) else tuple(final)


def _with_array(x: Any, parts: list[Any]) -> Any:
    """Arrays among regular parts: the regular ones first, then one gather along the arrays' axes made one."""
    if all(_is_plain(p) or isinstance(p, int) for p in parts):
        return _regular(x, tuple(parts))
    parts = [index for p in parts for index in ([p] if _is_plain(p) or isinstance(p, int) else _by_position(p, x))]
    picks = [k for k, p in enumerate(parts) if not _is_plain(p)]
    kept = _regular(x, tuple(p if _is_plain(p) else slice(None) for p in parts))
    # where the arrays' axes went: counted from the end behind an ellipsis
    dots = next((k for k, p in enumerate(parts) if p is ...), len(parts))
    axes = [k if k < dots else kept.ndim - len(parts) + k for k in picks]
    _check_parts(x, kept, axes, [parts[k] for k in picks])
    together = picks[-1] - picks[0] == len(picks) - 1
    first = axes[0] if together else 0           # as in NumPy: in front if something stands between
    if len(axes) > 1:
        kept, index = _merged(kept, axes, [_index_of(parts[k]) for k in picks], first)
    else:
        index = _index_of(parts[picks[0]])
    return ops.gather(kept, index, first)


class _Positions:
    """One of the index arrays that a mask stands for."""

    def __init__(self, index: Any, shape: tuple[int, ...], axis: int) -> None:
        self.index, self.shape, self.axis = index, shape, axis


def _by_position(index: Any, x: Any) -> list[Any]:
    """An index array itself; for a mask the positions where it is true, an array for each of its axes."""
    if index.dtype.kind != "b":
        return [index]
    if index.ndim == 0:
        raise user_error(IndexError, "index: a boolean array needs at least one axis")
    return [_Positions(beside(tensor(found), x), index.shape, axis)
            for axis, found in enumerate(np.nonzero(index.numpy()))]


def _index_of(part: Any) -> Any:
    return part.index if isinstance(part, _Positions) else part


def _check_parts(x: Any, kept: Any, axes: list[int], picked: list[Any]) -> None:
    for axis, part in zip(axes, picked, strict=True):
        if isinstance(part, _Positions) and kept.shape[axis] != part.shape[part.axis]:
            raise user_error(IndexError, f"index: a mask of shape {part.shape} does not fit axes of shape {x.shape}")
        if isinstance(part, int) and not -kept.shape[axis] <= part < kept.shape[axis]:
            # told here: the kernel does not see the index of a result without elements
            raise user_error(IndexError, f"index: {part} is out of range for an axis of length {kept.shape[axis]} of "
                                         f"shape {x.shape}")


def _merged(x: Any, axes: list[int], indices: list[Any], first: int) -> tuple[Any, Any]:
    """``x`` with the axes as one, at ``first``, and the indices along them as one, out of range where any is."""
    shape = x.shape
    rest = [a for a in range(len(shape)) if a not in axes]
    lengths = [shape[a] for a in axes]
    x = ops.permute_dims(x, (*rest[:first], *axes, *rest[first:]))
    total = math.prod(lengths)
    x = ops.reshape(x, (*(shape[a] for a in rest[:first]), total, *(shape[a] for a in rest[first:])))
    shapes = [() if isinstance(i, int) else i.shape for i in indices]
    if broadcast_shapes(*shapes) is None:
        raise user_error(IndexError, f"index: arrays of shapes {' and '.join(map(str, shapes))} do not broadcast "
                                     "together")
    place: Any = 0
    wrong = []
    for index, n in zip(indices, lengths, strict=True):
        index = tensor(np.int64(index)) if isinstance(index, int) else ops.cast(index, "int64")
        wrong += [index < -n, index >= n]
        place = place * n + ops.where(index < 0, index + n, index)
    return x, ops.where(functools.reduce(operator.or_, wrong), total, place)


def nonzero(x: Any) -> tuple[Any, ...]:
    """The indices (int64) of elements that are not zero, one Tensor for each axis, in row-major order.

    The result is read from the numbers, so it has no derivative and cannot be recorded dry.

    >>> import jitgrad as jg
    >>> [i.numpy().tolist() for i in jg.nonzero(jg.constant([[1, 0], [2, 3]]))]
    [[0, 1, 1], [0, 0, 1]]
    """
    x = tensor(x)
    if x.ndim == 0:
        raise user_error(ValueError, "nonzero: a single number has no axes; reshape it to (1,)")
    return tuple(beside(tensor(found), x) for found in np.nonzero(x.numpy()))


def array_ufunc(self: Any, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """NumPy's functions on Tensors: the op whose reference the ufunc is, else NumPy on the elements."""
    op = _ufuncs().get(ufunc)
    if method == "__call__" and not kwargs and op is not None:
        return op(*inputs)
    arrays = [x.numpy() if hasattr(x, "_aval") or hasattr(x, "_value") else x for x in inputs]
    return getattr(ufunc, method)(*arrays, **kwargs)


@functools.cache
def _ufuncs() -> dict[Any, Any]:
    found = {p.ref: OPS[p.name] for p in TABLE if isinstance(p.ref, np.ufunc)}
    return {**found, np.matmul: composite.matmul, np.true_divide: OPS["divide"]}


class Operations:
    """Methods that Tensor and Variable share."""

    __getitem__ = getitem
    __array_ufunc__ = array_ufunc

    @property
    def T(self) -> Any:
        """The transpose of a matrix."""
        return composite.matrix_transpose(self)

    @property
    def mT(self) -> Any:
        """The last two axes swapped."""
        return composite.matrix_transpose(self)

    def __pos__(self) -> Any:
        return composite.identity(self)

    def __divmod__(self, other: Any) -> Any:
        return ops.floor_divide(self, other), ops.remainder(self, other)
