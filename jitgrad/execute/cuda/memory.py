"""Memory of the GPU that its last holder frees; the owner of Tensors that are there."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from jitgrad.core.form import Form
from jitgrad.execute.cuda.stream import ALIGNED, driver


class Use:
    """What is held now, for whoever looks for leaks."""

    buffers = 0
    nbytes = 0


class Buffer:
    """Bytes on the GPU, from ``base`` on. They are freed with the last reference, in the order of the stream."""

    __slots__ = ("__weakref__", "_keeper", "_others", "base", "nbytes")
    device = "cuda"

    def __init__(self, base: Any, keeper: Any, nbytes: int, others: bool = False) -> None:
        """``keeper``: what keeps the memory; ``others``: libraries that have streams of their own use it too."""
        self.base, self._keeper, self.nbytes, self._others = base, keeper, nbytes, others
        Use.buffers += 1
        Use.nbytes += nbytes

    def share(self) -> None:
        """Others get to know the address: the memory is kept until their work is done as well."""
        self._others = True

    def append(self, made: Form, operands: Sequence[Any]) -> Any:
        """Run a row at once, as a recording that owns a Tensor would append it."""
        return importlib.import_module("jitgrad.execute.cuda.eager").run(made, operands)     # it makes Tensors of these

    def __del__(self) -> None:
        if not hasattr(self, "_others"):
            return                               # its allocation failed
        Use.buffers -= 1
        Use.nbytes -= self.nbytes
        if self._others and not sys.is_finalizing():
            driver().sync_all()


def empty(nbytes: int) -> Buffer:
    """So many bytes, whatever is in them."""
    room = max(ALIGNED, -(-nbytes // ALIGNED) * ALIGNED)
    return Buffer(*driver().allocate(room), nbytes)


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
