"""Memory of the GPU that its last holder lets go; the owner of Tensors that are there.

What is let go is kept and given to the next who asks for as much: all work is in the order of one stream, so whoever
writes there comes after all who read. It costs nothing, and addresses recur, which is what graphs are made for.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from jitgrad.core.form import Form
from jitgrad.execute.cuda.stream import ALIGNED, driver

MOST_KEPT = 256 << 20          # bytes that nobody uses, after an allocation
LARGE = 16 << 20               # bytes of blocks that are not kept
MOST_READ = 1 << 20            # integers of an array that are looked at on their way to the GPU
Span = tuple[int, int]         # the least integer, and one more than the greatest
Spare = tuple[Any, int, Any, "list[Any] | None"]         # base, address, what keeps it, where it is once it is free
_kept: dict[int, list[Spare]] = {}       # by bytes of a block


class Buffer:
    """Bytes on the GPU, from ``base`` on. They are let go with the last reference, in the order of the stream."""

    __slots__ = ("__weakref__", "_others", "_spare", "address", "base", "nbytes", "span")
    device = "cuda"
    base: Any
    address: int
    nbytes: int
    span: Span | None              # of the bytes as integers, if it is known
    _others: bool
    _spare: Spare

    def share(self) -> None:
        """Others get to know the address: the memory is kept until their work is done as well. That it is to be read
        only is a wish: most libraries can write there, so nothing is known of the integers any more.
        """
        self._others, self.span = True, None

    def append(self, made: Form, operands: Sequence[Any]) -> Any:
        """Run a row at once, as a recording that owns a Tensor would append it."""
        return importlib.import_module("jitgrad.execute.cuda.eager").run(made, operands)     # it makes Tensors of these

    def __del__(self) -> None:
        if self._others:
            if not sys.is_finalizing():
                driver().let_go(self._spare[2])
        elif self._spare[3] is not None:
            self._spare[3].append(self._spare)


def _buffer(spare: Spare, nbytes: int, others: bool = False) -> Buffer:
    """Of some block; this is the shortest way to make one."""
    made = Buffer.__new__(Buffer)
    made._others, made._spare, made.nbytes, made.base, made.address = others, spare, nbytes, spare[0], spare[1]
    made.span = None
    return made


def foreign(base: Any, keeper: Any, nbytes: int) -> Buffer:
    """Of others: ``keeper`` keeps it, and libraries that have streams of their own use it, too."""
    return _buffer((base, _address(base), keeper, None), nbytes, True)


def _address(base: Any) -> int:
    return int(base.ctypes.data if isinstance(base, np.ndarray) else base)


class _Use:
    """What is held now, for whoever looks for leaks."""

    @property
    def buffers(self) -> int:
        """How many there are."""
        return sum(type(o) is Buffer for o in gc.get_objects())

    @property
    def nbytes(self) -> int:
        """Their bytes."""
        return sum(o.nbytes for o in gc.get_objects() if type(o) is Buffer)


Use = _Use()


def room_of(nbytes: int) -> int:
    """Bytes of a block for so many."""
    return max(ALIGNED, -(-nbytes // ALIGNED) * ALIGNED)


def empty(nbytes: int) -> Buffer:
    """So many bytes, whatever is in them."""
    return blocks([(room_of(nbytes), nbytes)])[0]


def blocks(sizes: Sequence[tuple[int, int]]) -> list[Buffer]:
    """Several, each as the bytes of its block, which `room_of` gives, and of what will be in it."""
    made = []
    for room, nbytes in sizes:
        try:
            spare = _kept[room].pop()
        except LookupError:                      # there is none, or never was
            spare = _allocated(room)
        made.append(_buffer(spare, nbytes))
    return made


def _allocated(room: int) -> Spare:
    """A new block; if there is none, after all that is kept was given back."""
    if sum(size * len(spares) for size, spares in _kept.copy().items()) > MOST_KEPT:
        _give_back()
    try:
        base, keeper = driver().allocate(room)
    except MemoryError:
        _give_back()
        base, keeper = driver().allocate(room)
    return base, _address(base), keeper, _kept.setdefault(room, []) if room <= LARGE else None


def _give_back() -> None:
    for spares in _kept.copy().values():
        spares.clear()


def uploaded(array: np.ndarray) -> Buffer:
    """A copy of a C-contiguous array's elements."""
    made = empty(array.nbytes)
    if array.nbytes:
        driver().upload(made.base, 0, array)
        made.span = span_of(array)
    return made


def span_of(array: np.ndarray) -> Span | None:
    """Of an array's integers; None if they are not looked at."""
    if array.dtype.kind != "i" or not 0 < array.size <= MOST_READ:
        return None
    return int(array.min()), int(array.max()) + 1


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
