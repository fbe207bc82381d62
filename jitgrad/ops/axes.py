"""Axes as users name them, counted from the front."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from jitgrad.core.aval import AVALS, stands_for_int
from jitgrad.core.errors import user_error

Axis = int | Sequence[int] | None


def axis_index(name: str, axis: Any, ndim: int) -> int:
    """An axis counted from the front."""
    try:
        at = operator.index(axis)
    except TypeError:
        raise user_error(TypeError, f"{name}: an axis must be an int, got {axis!r}") from None
    if not -ndim <= at < ndim:
        raise user_error(ValueError, f"{name}: axis {at} is out of range for {ndim} dimensions")
    return at % ndim


def axis_of(name: str, x: Any, axis: Any) -> int:
    """An axis of a Tensor counted from the front; it may be left out (None) for one dimension."""
    have = AVALS[x._aval]
    if axis is not None:
        return axis_index(name, axis, have.ndim)
    if have.ndim != 1:
        raise user_error(ValueError, f"{name}: shape {have.shape} needs an axis")
    return 0


def as_axes(name: str, axis: Any) -> tuple[int, ...]:
    """One axis or several as a tuple of ints, as they were given."""
    try:
        return (operator.index(axis),) if stands_for_int(axis) else tuple(map(operator.index, axis))
    except TypeError:
        raise user_error(TypeError, f"{name}: axis must be an int, a tuple of ints or None, got {axis!r}") from None


def axes_of(name: str, axis: Any, ndim: int) -> tuple[int, ...]:
    """Axes counted from the front, all of them for None; none twice."""
    axes = tuple(range(ndim)) if axis is None else tuple(axis_index(name, a, ndim) for a in as_axes(name, axis))
    if len(set(axes)) != len(axes):
        raise user_error(ValueError, f"{name}: axis {axis} names an axis twice")
    return axes
