"""Abstract values: shape and dtype, interned, so that an aval is an integer to compiled code."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np

from jitgrad.core.dtypes import DTYPES
from jitgrad.core.errors import user_error
from jitgrad.core.lock import TABLES

MAX_DIMENSIONS = 16
MAX_BYTES = 1 << 46            # beyond any machine's memory; keeps sizes far from overflow


class Aval:
    """Shape and dtype of a value. Equal avals are one object; ``id`` is its number."""

    __slots__ = ("code", "dtype", "id", "nbytes", "ndim", "shape", "size")

    def __init__(self, number: int, code: int, shape: tuple[int, ...]) -> None:
        self.id = number
        self.code = code
        self.shape = shape
        self.dtype: np.dtype[Any] = DTYPES[code]
        self.ndim = len(shape)
        self.size = math.prod(shape)
        self.nbytes = self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"{self.dtype.name}[{','.join(map(str, self.shape))}]"


AVALS: list[Aval] = []
_nbytes = np.zeros(256, np.int64)


def nbytes_of(ids: np.ndarray) -> np.ndarray:
    """Bytes of avals given by number."""
    sizes: np.ndarray = _nbytes[ids]
    return sizes


_interned: dict[tuple[int, tuple[int, ...]], Aval] = {}


def aval(code: int, shape: tuple[int, ...]) -> Aval:
    """The aval of a dtype code and a shape (a tuple of Python ints)."""
    global _nbytes
    found = _interned.get((code, shape))
    if found is None:
        if len(shape) > MAX_DIMENSIONS:
            raise user_error(ValueError, f"a Tensor has at most {MAX_DIMENSIONS} dimensions, got {len(shape)}")
        with TABLES:
            found = _interned.get((code, shape))
            if found is None:
                found = Aval(len(AVALS), code, shape)
                if found.nbytes > MAX_BYTES:
                    raise user_error(
                        MemoryError, f"a Tensor of shape {shape} and dtype {found.dtype} cannot fit in memory")
                if found.id >= len(_nbytes):
                    _nbytes = np.concatenate([_nbytes, np.zeros_like(_nbytes)])
                _nbytes[found.id] = found.nbytes
                AVALS.append(found)
                _interned[code, shape] = found
    return found


for _code in range(len(DTYPES)):         # compiled code relies on it: the scalar of dtype c is aval c
    aval(_code, ())


def stands_for_int(value: Any) -> TypeGuard[int]:
    """One integer of any type, and not an array of some: those of NumPy have `__index__` whatever their shape."""
    return hasattr(value, "__index__") and not getattr(value, "ndim", 0)


def as_shape(shape: Any, what: str = "shape") -> tuple[int, ...]:
    """A shape given by a user: an int or a sequence of ints (an array, too), none negative."""
    try:
        items: Sequence[Any] = (shape,) if stands_for_int(shape) else tuple(shape)
        out = tuple(operator.index(n) for n in items)
    except TypeError:
        raise user_error(TypeError, f"{what} must be an int or a tuple of ints, got {shape!r}") from None
    if any(n < 0 for n in out):
        raise user_error(ValueError, f"{what} must not be negative, got {out}")
    return out


def as_int(value: Any, what: str) -> int:
    """An int given by a user, of any type that stands for one."""
    try:
        return operator.index(value)
    except TypeError:
        raise user_error(TypeError, f"{what} must be an int, got {value!r}") from None


def as_length(value: Any, what: str) -> int:
    """An int given by a user that is not negative."""
    n = as_int(value, what)
    if n < 0:
        raise user_error(ValueError, f"{what} must not be negative, got {n}")
    return n


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape that operands broadcast to, or None if they do not fit."""
    out: list[int] = []
    for i in range(1, max(map(len, shapes), default=0) + 1):
        n = 1
        for shape in shapes:
            m = shape[-i] if i <= len(shape) else 1
            if m != 1:
                if n not in (1, m):
                    return None
                n = m
        out.append(n)
    return tuple(reversed(out))
