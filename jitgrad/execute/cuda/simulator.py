"""Numba's simulator in the place of a GPU: slow Python on NumPy arrays, for tests."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jitgrad.execute.cuda import blas, toolkit
from jitgrad.execute.cuda.driver import Facts, Graph
from jitgrad.execute.cuda.kernel import STATUS, Kernel, Work


class Simulator:
    """NumPy arrays for memory, and kernels run by Numba's simulator, one thread after the other."""

    handle = 0
    _threads = threading.local()
    _turn = threading.Lock()   # the simulator knows one kernel at a time

    def facts(self) -> Facts:
        return Facts("Numba's simulator", "simulator", 0, 0)

    def allocate(self, nbytes: int) -> tuple[np.ndarray, Any]:
        made = np.full(nbytes, 77, np.uint8)         # kernels write all that is read
        return made, made

    def upload(self, base: np.ndarray, offset: int, array: np.ndarray) -> None:
        base[offset: offset + array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)

    def download(self, base: np.ndarray, offset: int, array: np.ndarray) -> None:
        array.reshape(-1).view(np.uint8)[:] = base[offset: offset + array.nbytes]

    def copy(self, to: np.ndarray, to_offset: int, base: np.ndarray, offset: int, nbytes: int) -> None:
        if not self._kept(functools.partial(self.copy, to, to_offset, base, offset, nbytes)):
            to[to_offset: to_offset + nbytes] = base[offset: offset + nbytes]

    def fill(self, base: np.ndarray, offset: int, nbytes: int) -> None:
        if not self._kept(functools.partial(self.fill, base, offset, nbytes)):
            base[offset: offset + nbytes] = 0

    def launch(self, kernel: Kernel, pointers: Sequence[tuple[np.ndarray, int]], words: Sequence[int], blocks: int,
               threads: int) -> None:
        if self._kept(functools.partial(self.launch, kernel, pointers, words, blocks, threads)):
            return
        arrays = [toolkit.simulated_array(base[offset:].view(np.uint8 if dtype.kind == "b" else dtype))
                  for (base, offset), dtype in zip(pointers, kernel.pointers, strict=True)]
        with self._turn:
            _function(kernel)[blocks, threads](*arrays, *words)

    def multiply(self, product: blas.Gemm, pointers: Sequence[tuple[np.ndarray, int]]) -> None:
        raise AssertionError("there is no cuBLAS in the simulator")

    def record(self, ask: Callable[[], None]) -> Graph:
        work: list[Callable[[], None]] = []
        self._threads.work = work
        try:
            ask()
        finally:
            self._threads.work = None
        return _Listed(work)

    def _kept(self, work: Callable[[], None]) -> bool:
        """Whether this thread records; then the work is kept."""
        kept = getattr(self._threads, "work", None)
        if kept is not None:
            kept.append(work)
        return kept is not None

    def sync(self) -> None:
        """All is done at once."""

    sync_all = sync

    def let_go(self, keeper: Any) -> None:
        """Nobody else works here."""

    def wait_for(self, handle: int) -> None:
        """Nobody else has a stream here."""


class _Listed(NamedTuple):
    """Calls, one after the other."""

    work: list[Callable[[], None]]

    def launch(self) -> None:
        for call in self.work:
            call()


# ---- launches on arrays ----------------------------------------------------------------------------------

def play(work: Work, slots: Sequence[np.ndarray]) -> int:
    """Run launches on the arrays of their slots but scratch; the error code."""
    slots = [*slots, *(np.full(n, 77, np.uint8) for n in work.scratch)]
    status = np.zeros(1, np.int32)
    for launch in work.launches:
        given = [status if s == STATUS else _flat(slots[s], d)
                 for s, d in zip(launch.slots, launch.kernel.pointers, strict=True)]
        _function(launch.kernel)[launch.blocks, launch.threads](*given, *launch.words)
    return int(status[0])


def _flat(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """The elements in the place where they are, as a kernel's pointer sees them."""
    return array.reshape(-1).view(np.uint8 if dtype.kind == "b" else dtype)


@functools.lru_cache(maxsize=4096)
def _function(kernel: Kernel) -> Any:
    return toolkit.cuda().jit(kernel.function())
