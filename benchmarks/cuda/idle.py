"""A driver whose work is nothing: the host's part of a replay, alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jitgrad.execute.cuda import blas, stream
from jitgrad.execute.cuda.driver import Facts, Graph
from jitgrad.frontend import trusted


class _Kept:
    """An address, free again at the end of this object."""

    __slots__ = ("address", "free")

    def __init__(self, address: int, free: list[int]) -> None:
        self.address, self.free = address, free

    def __del__(self) -> None:
        self.free.append(self.address)


class _Nothing:
    """A graph."""

    def launch(self) -> None:
        """Nothing."""


class Idle:
    """A driver for which everything is done at once."""

    handle = 1

    def __init__(self) -> None:
        self._free: dict[int, list[int]] = {}
        self._next = 1 << 40
        self._graph = _Nothing()

    def facts(self) -> Facts:
        return Facts("no GPU", "sm_90", 0, 0)

    def allocate(self, nbytes: int) -> tuple[int, Any]:
        """The address of the size that was let go last: the graphs of a plan go by addresses."""
        free = self._free.setdefault(nbytes, [])
        if not free:
            self._next += nbytes
            free.append(self._next - nbytes)
        kept = _Kept(free.pop(), free)
        return kept.address, kept

    def upload(self, base: Any, offset: int, array: np.ndarray) -> None:
        """Nothing."""

    def download(self, base: Any, offset: int, array: np.ndarray) -> None:
        array.fill(0)

    def copy(self, to: Any, to_offset: int, base: Any, offset: int, nbytes: int) -> None:
        """Nothing."""

    def fill(self, base: Any, offset: int, nbytes: int) -> None:
        """Nothing."""

    def launch(self, kernel: Any, pointers: Sequence[tuple[Any, int]], words: Sequence[int], blocks: int,
               threads: int) -> None:
        """Nothing."""

    def multiply(self, product: Any, pointers: Sequence[tuple[Any, int]]) -> None:
        """Nothing."""

    def record(self, ask: Callable[[], None]) -> Graph:
        ask()
        return self._graph

    def sync(self) -> None:
        """Nothing."""

    sync_all = sync

    def wait_for(self, handle: int) -> None:
        """Nothing."""


def install() -> None:
    """From here on this process has a GPU that does nothing."""
    trusted._of_files[__file__] = False          # as a driver of jitgrad's own: recordings do not watch it
    stream._in_use[:] = [Idle()]
    for module, name, value in ((stream, "problem", lambda: ""), (blas, "available", lambda: True)):
        setattr(module, name, value)
