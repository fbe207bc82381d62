"""Moving elements by the array API's and NumPy's names: all are slices, placements, broadcasts and gathers."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core.aval import as_int, as_shape, broadcast_shapes, stands_for_int
from jitgrad.core.device import beside
from jitgrad.core.errors import user_error
from jitgrad.core.record import loose, tensor
from jitgrad.ops.axes import Axis, as_axes, axes_of, axis_index
from jitgrad.ops.composite import aval_of, broadcast_to, expand_dims
from jitgrad.ops.composite import sum as sum_

__all__ = ["broadcast_arrays", "diag", "diagonal", "flip", "meshgrid", "moveaxis", "pad", "repeat", "roll",
           "scatter_add", "split", "swapaxes", "tile", "trace", "tril", "triu", "unstack"]


def spans_of(shape: tuple[int, ...], **given: Any) -> tuple[tuple[int, int, int], ...]:
    """Spans that take everything, but along ``axis`` the ``span``."""
    return tuple(given["span"] if i == given["axis"] else (0, n, 1) for i, n in enumerate(shape))


# ---- order of elements -----------------------------------------------------------------------------

def flip(x: Any, axis: Axis = None) -> Any:
    """``x`` backwards along ``axis`` (all axes by default).

    >>> import jitgrad as jg
    >>> jg.flip(jg.constant([1, 2, 3])).numpy()
    array([3, 2, 1], dtype=int32)
    """
    x = tensor(x)
    shape = aval_of(x).shape
    axes = axes_of("flip", axis, len(shape))
    return ops.slice(x, tuple((n - 1, n, -1) if i in axes and n else (0, n, 1) for i, n in enumerate(shape)))


def roll(x: Any, shift: int | Sequence[int], axis: Axis = None) -> Any:
    """Elements moved on by ``shift`` places along ``axis``, those that leave come in at the other end.

    With ``axis=None`` the flattened Tensor is rolled. Several axes take a shift each, or one for all; an axis named
    twice is rolled twice.
    """
    x = tensor(x)
    shape = aval_of(x).shape
    if axis is None:
        return ops.reshape(roll(ops.reshape(x, (aval_of(x).size,)), int(np.sum(as_axes("roll", shift))), 0), shape)
    axes = [axis_index("roll", a, len(shape)) for a in as_axes("roll", axis)]
    shifts = as_axes("roll", shift)
    if len(axes) > 1 and len(shifts) == 1:
        shifts = shifts * len(axes)
    if len(axes) == 1 and len(shifts) > 1:
        axes = axes * len(shifts)
    if len(shifts) != len(axes):
        raise user_error(ValueError, f"roll: {len(shifts)} shifts for {len(axes)} axes")
    for a, by in zip(axes, shifts, strict=True):
        n = shape[a]
        if n and by % n:
            cut = n - by % n
            x = ops.concat(ops.slice(x, spans_of(shape, axis=a, span=(cut, n - cut, 1))),
                           ops.slice(x, spans_of(shape, axis=a, span=(0, cut, 1))), axis=a)
    return x


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Any:
    """Axes ``source`` moved to the places ``destination``; the others keep their order."""
    x = tensor(x)
    ndim = aval_of(x).ndim
    come, go = axes_of("moveaxis", source, ndim), axes_of("moveaxis", destination, ndim)
    if len(come) != len(go):
        raise user_error(ValueError, f"moveaxis: {len(come)} axes to move, {len(go)} places")
    order = [a for a in range(ndim) if a not in come]
    for place, a in sorted(zip(go, come, strict=True)):
        order.insert(place, a)
    return ops.permute_dims(x, tuple(order))


def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Two axes exchanged."""
    x = tensor(x)
    ndim = aval_of(x).ndim
    a, b = (axis_index("swapaxes", axis, ndim) for axis in (axis1, axis2))
    return ops.permute_dims(x, tuple({a: b, b: a}.get(i, i) for i in range(ndim)))


# ---- one Tensor from several, several from one -------------------------------------------------------

def unstack(x: Any, axis: int = 0) -> tuple[Any, ...]:
    """The Tensors that ``x`` holds along ``axis``, which they lack."""
    x = tensor(x)
    shape = aval_of(x).shape
    a = axis_index("unstack", axis, len(shape))
    rest = shape[:a] + shape[a + 1:]
    return tuple(ops.reshape(ops.slice(x, spans_of(shape, axis=a, span=(k, 1, 1))), rest) for k in range(shape[a]))


def split(x: Any, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Any]:
    """Parts of ``x`` along ``axis``: so many of one length, or those between the given indices, as in NumPy.

    Raises ValueError where the parts would differ in length.

    >>> import jitgrad as jg
    >>> [part.numpy().tolist() for part in jg.split(jg.arange(5), [1, 3])]
    [[0], [1, 2], [3, 4]]
    """
    x = tensor(x)
    shape = aval_of(x).shape
    a = axis_index("split", axis, len(shape))
    n = shape[a]
    if stands_for_int(indices_or_sections):
        parts = operator.index(indices_or_sections)
        if parts <= 0 or n % parts:
            raise user_error(ValueError, f"split: axis {a} of shape {shape} has no {parts} parts of one length")
        bounds = list(range(0, n + 1, n // parts)) if n else [0] * (parts + 1)
    else:
        cuts = [slice(k).indices(n)[1] for k in as_axes("split", indices_or_sections)]
        bounds = [0, *cuts, n]
    spans = [(first, last - first, 1) if last > first else (0, 0, 1) for first, last in itertools.pairwise(bounds)]
    return [ops.slice(x, spans_of(shape, axis=a, span=span)) for span in spans]


def broadcast_arrays(*xs: Any) -> list[Any]:
    """Tensors broadcast to the shape that they share."""
    parts = [tensor(x) for x in xs]
    shape = broadcast_shapes(*(aval_of(x).shape for x in parts))
    if shape is None:
        shapes = " and ".join(str(aval_of(x).shape) for x in parts)
        raise user_error(ValueError, f"broadcast_arrays: shapes {shapes} do not broadcast together")
    return [broadcast_to(x, shape) for x in parts]


def meshgrid(*xs: Any, indexing: str = "xy") -> list[Any]:
    """Coordinate grids of vectors: Tensor k varies along axis k, with ``"xy"`` the first two axes exchanged."""
    if indexing not in ("xy", "ij"):
        raise user_error(ValueError, f"meshgrid: indexing must be 'xy' or 'ij', got {indexing!r}")
    parts = [tensor(x) for x in xs]
    for x in parts:
        if aval_of(x).ndim > 1:
            raise user_error(ValueError, f"meshgrid: takes vectors, got shape {aval_of(x).shape}")
    lines = [ops.reshape(x, tuple(aval_of(x).size if i == k else 1 for i in range(len(parts))))
             for k, x in enumerate(parts)]
    if indexing == "xy" and len(lines) > 1:
        lines = [swapaxes(line, 0, 1) for line in lines]
    return broadcast_arrays(*lines)


# ---- repetition and padding --------------------------------------------------------------------------

def tile(x: Any, repetitions: int | Sequence[int]) -> Any:
    """``x`` side by side, ``repetitions`` times along each axis; ones are put in front of the shorter of the two."""
    x = tensor(x)
    counts = as_shape(repetitions, "tile: repetitions")
    shape = aval_of(x).shape
    ndim = max(len(shape), len(counts))
    shape, counts = (1,) * (ndim - len(shape)) + shape, (1,) * (ndim - len(counts)) + counts
    pairs = ops.reshape(x, tuple(m for n in shape for m in (1, n)))
    wide = ops.broadcast_to(pairs, tuple(m for n, count in zip(shape, counts, strict=True) for m in (count, n)))
    return ops.reshape(wide, tuple(n * count for n, count in zip(shape, counts, strict=True)))


def repeat(x: Any, repeats: Any, axis: int | None = None) -> Any:
    """Each element along ``axis`` (of the flattened Tensor by default) repeated, all ``repeats`` times or each its own.

    >>> import jitgrad as jg
    >>> jg.repeat(jg.constant([1, 2, 3]), [2, 0, 1]).numpy()
    array([1, 1, 3], dtype=int32)
    """
    x = tensor(x)
    if axis is None:
        x, axis = ops.reshape(x, (aval_of(x).size,)), 0
    shape = aval_of(x).shape
    a = axis_index("repeat", axis, len(shape))
    counts = tensor(repeats).numpy()
    counts = counts if counts.size else counts.astype(np.int64)         # an empty list is one of floats
    if counts.dtype.kind not in "bi" or counts.ndim > 1 or (counts < 0).any() or counts.size not in (1, shape[a]):
        raise user_error(ValueError, f"repeat: repeats must be a count or {shape[a]} of them, got {repeats!r}")
    if counts.size == 1:
        count = int(counts.reshape(()))
        wide = ops.broadcast_to(expand_dims(x, a + 1), (*shape[: a + 1], count, *shape[a + 1:]))
        return ops.reshape(wide, (*shape[:a], shape[a] * count, *shape[a + 1:]))
    return ops.gather(x, tensor(np.repeat(np.arange(shape[a]), counts)), a)


_INDEX_MODES = ("edge", "reflect", "symmetric", "wrap")


def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Any:
    """``x`` with elements before and after along each axis.

    ``pad_width`` is a count, a pair (before, after), or a pair for each axis. Modes as NumPy's: ``"constant"`` (with
    ``constant_values``, one number, which may be a Tensor), ``"edge"``, ``"reflect"``, ``"symmetric"``, ``"wrap"``.

    >>> import jitgrad as jg
    >>> jg.pad(jg.constant([1, 2, 3]), (2, 1), mode="reflect").numpy()
    array([3, 2, 1, 2, 3, 2], dtype=int32)
    """
    x = tensor(x)
    shape = aval_of(x).shape
    try:
        widths = np.broadcast_to(tensor(pad_width, what="pad").numpy(), (len(shape), 2))
    except ValueError:
        raise user_error(ValueError, f"pad: pad_width must be a count, a pair, or a pair for each of the {len(shape)} "
                                     f"axes, got {pad_width!r}") from None
    if widths.dtype.kind != "i" or (widths < 0).any():
        raise user_error(ValueError, f"pad: pad_width must be counts that are not negative, got {pad_width!r}")
    pairs = tuple((int(before), int(after)) for before, after in widths)
    if mode == "constant":
        return _framed(x, pairs, constant_values)
    if mode not in _INDEX_MODES:
        raise user_error(ValueError, f"pad: mode must be one of constant, {', '.join(_INDEX_MODES)}, got {mode!r}")
    for axis, pair in enumerate(pairs):
        if pair != (0, 0):
            if shape[axis] == 0:
                raise user_error(ValueError, f"pad: axis {axis} of shape {shape} has nothing to repeat (mode {mode})")
            x = ops.gather(x, tensor(np.pad(np.arange(shape[axis]), pair, mode)), axis)  # type: ignore[call-overload]
    return x


def _framed(x: Any, pairs: tuple[tuple[int, int], ...], value: Any) -> Any:
    """One number around: zeros by a placement, others set in where nothing was placed."""
    shape = aval_of(x).shape
    wide = tuple(before + n + after for n, (before, after) in zip(shape, pairs, strict=True))
    spans = tuple((before if n else 0, n, 1) for n, (before, _) in zip(shape, pairs, strict=True))
    placed = ops.embed(x, wide, spans)
    if isinstance(value, int | float) and value == 0:
        return placed
    value = ops.cast(value, aval_of(x).dtype.name)
    if aval_of(value).ndim:
        raise user_error(ValueError, f"pad: constant_values must be one number, got shape {aval_of(value).shape}")
    return ops.where(ops.embed(beside(loose(np.full(shape, True)), x), wide, spans), placed, value)


# ---- diagonals and triangles -------------------------------------------------------------------------

@functools.lru_cache(maxsize=64)
def _lower(rows: int, columns: int, k: int) -> Any:
    return loose(np.tri(rows, columns, k, bool))


def _triangle(name: str, x: Any, k: int, keep_lower: bool) -> Any:
    x = tensor(x)
    if aval_of(x).ndim < 2:
        raise user_error(ValueError, f"{name}: shape {aval_of(x).shape} has no rows and columns")
    rows, columns = aval_of(x).shape[-2:]
    k = as_int(k, f"{name}: k")
    nothing = False if aval_of(x).dtype.kind == "b" else 0
    if keep_lower:
        return ops.where(_lower(rows, columns, k), x, nothing)
    return ops.where(_lower(rows, columns, k - 1), nothing, x)


def tril(x: Any, k: int = 0) -> Any:
    """The lower triangles of the matrices in the last two axes: 0 above the k-th diagonal."""
    return _triangle("tril", x, k, True)


def triu(x: Any, k: int = 0) -> Any:
    """The upper triangles of the matrices in the last two axes: 0 below the k-th diagonal."""
    return _triangle("triu", x, k, False)


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The diagonals of the matrices in two axes, along a new last axis; ``offset`` counts upwards from the main one."""
    x = tensor(x)
    ndim = aval_of(x).ndim
    if ndim < 2:
        raise user_error(ValueError, f"diagonal: shape {aval_of(x).shape} has no diagonal")
    axes = axes_of("diagonal", (axis1, axis2), ndim)
    x = moveaxis(x, axes, (-2, -1)) if axes != (ndim - 2, ndim - 1) else x
    *lead, rows, columns = aval_of(x).shape
    first, count = _line(rows, columns, as_int(offset, "diagonal: offset"))
    flat = ops.reshape(x, (*lead, rows * columns))
    return ops.slice(flat, (*((0, n, 1) for n in lead), (first, count, columns + 1)))


def _line(rows: int, columns: int, offset: int) -> tuple[int, int]:
    """Where a diagonal begins among the elements in row-major order, and how many it has."""
    count = min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns)
    return ((offset if offset >= 0 else -offset * columns), count) if count > 0 else (0, 0)


def diag(x: Any, k: int = 0) -> Any:
    """The k-th diagonal of a matrix, or the square matrix that has a vector there and 0 elsewhere."""
    x = tensor(x)
    aval = aval_of(x)
    if aval.ndim == 2:
        return diagonal(x, k)
    if aval.ndim != 1:
        raise user_error(ValueError, f"diag: takes a vector or a matrix, got shape {aval.shape}")
    k = as_int(k, "diag: k")
    n = aval.size + abs(k)
    first, count = _line(n, n, k)
    return ops.reshape(ops.embed(x, (n * n,), ((first, count, n + 1),)), (n, n))


def trace(x: Any, offset: int = 0) -> Any:
    """The sum along a diagonal of the matrices in the last two axes, as in the array API."""
    x = tensor(x)
    if aval_of(x).ndim < 2:
        raise user_error(ValueError, f"trace: shape {aval_of(x).shape} has no diagonal")
    return sum_(diagonal(x, offset, -2, -1), -1)


# ---- adding at indices --------------------------------------------------------------------------------

def scatter_add(x: Any, indices: Any, updates: Any, axis: int = 0) -> Any:
    """``x`` with ``updates`` added at integer ``indices`` along ``axis``: repeated indices add up.

    ``updates`` broadcasts to the shape of ``take(x, indices, axis)``. Gradients: that of ``x`` passes, that of
    ``updates`` is gathered.

    >>> import jitgrad as jg
    >>> jg.scatter_add(jg.zeros(3), [0, 2, 2], jg.constant([1., 2., 3.])).numpy()
    array([1., 0., 5.], dtype=float32)
    """
    x, indices, updates = tensor(x), tensor(indices), tensor(updates)
    shape = aval_of(x).shape
    a = axis_index("scatter_add", axis, len(shape))
    wanted = (*shape[:a], *aval_of(indices).shape, *shape[a + 1:])
    if aval_of(updates).shape != wanted:
        updates = ops.broadcast_to(updates, wanted)
    return x + ops.scatter_add(updates, indices, a, shape[a])
