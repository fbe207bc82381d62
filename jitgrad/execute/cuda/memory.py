"""Memory of the GPU that its last holder lets go; the owner of Tensors that are there.

What is let go is kept and given to the next who asks for as much: all work is in the order of one stream, so whoever
writes there comes after all who read. It costs nothing, and addresses recur, which is what graphs are made for.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from jitgrad.core.form import Form
from jitgrad.execute.cuda.stream import ALIGNED, driver

MOST_KEPT = 256 << 20          # bytes that nobody uses


class Use:
    """What is held now, for whoever looks for leaks; and the bytes that are kept."""

    buffers = 0
    nbytes = 0
    kept = 0


_kept: dict[int, list[tuple[Any, Any]]] = {}     # bytes of a block -> base and keeper of those that are free


class Buffer:
    """Bytes on the GPU, from ``base`` on. They are let go with the last reference, in the order of the stream."""

    __slots__ = ("__weakref__", "_keeper", "_others", "_room", "address", "base", "nbytes")
    device = "cuda"

    def __init__(self, base: Any, keeper: Any, nbytes: int, others: bool = False, room: int = 0) -> None:
        """``keeper``: what keeps the memory; ``others``: libraries that have streams of their own use it too;
        ``room``: bytes of the block, if it can be used again.
        """
        self.base, self._keeper, self.nbytes, self._others, self._room = base, keeper, nbytes, others, room
        self.address: int = base if base.__class__ is int else base.ctypes.data
        Use.buffers += 1
        Use.nbytes += nbytes

    def share(self) -> None:
        """Others get to know the address: the memory is kept until their work is done as well."""
        self._others = True

    def append(self, made: Form, operands: Sequence[Any]) -> Any:
        """Run a row at once, as a recording that owns a Tensor would append it."""
        return importlib.import_module("jitgrad.execute.cuda.eager").run(made, operands)     # it makes Tensors of these

    def __del__(self) -> None:
        Use.buffers -= 1
        Use.nbytes -= self.nbytes
        room = self._room
        if self._others:
            if not sys.is_finalizing():
                driver().sync_all()
        elif room and Use.kept + room <= MOST_KEPT:
            Use.kept += room
            _kept[room].append((self.base, self._keeper))


def room_of(nbytes: int) -> int:
    """Bytes of a block for so many."""
    return max(ALIGNED, -(-nbytes // ALIGNED) * ALIGNED)


def empty(nbytes: int) -> Buffer:
    """So many bytes, whatever is in them."""
    return block(room_of(nbytes), nbytes)


def block(room: int, nbytes: int) -> Buffer:
    """The same, of a block of a size that `room_of` gives."""
    try:
        base, keeper = _kept[room].pop()
    except LookupError:                          # there is none, or never was
        _kept.setdefault(room, [])
        base, keeper = _allocated(room)
    else:
        Use.kept -= room
    return Buffer(base, keeper, nbytes, False, room)


def _allocated(room: int) -> tuple[Any, Any]:
    """New memory; if there is none, after all that is kept was given back."""
    try:
        return driver().allocate(room)
    except MemoryError:
        if not Use.kept:
            raise
    for free in _kept.values():
        free.clear()
    Use.kept = 0
    return driver().allocate(room)


def uploaded(array: np.ndarray) -> Buffer:
    """A copy of a C-contiguous array's elements."""
    made = empty(array.nbytes)
    if array.nbytes:
        driver().upload(made.base, 0, array)
    return made


def downloaded(buffer: Buffer, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Elements at an offset, as an array of its own."""
    out = np.empty(shape, dtype)
    if out.nbytes:
        driver().download(buffer.base, offset, out)
    return out


def copied(buffer: Buffer, offset: int, nbytes: int) -> Buffer:
    """A copy of some of the bytes."""
    made = empty(nbytes)
    if nbytes:
        driver().copy(made.base, 0, buffer.base, offset, nbytes)
    return made
