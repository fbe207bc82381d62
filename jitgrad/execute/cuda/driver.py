"""What is asked of a GPU, whoever does it.

Memory is (base, offset): a base is an address of the GPU's, or for the simulator an array of bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from jitgrad.execute.cuda import blas
from jitgrad.execute.cuda.kernel import Kernel


class Facts(NamedTuple):
    """What is known of a GPU: its name, ``sm_90`` and the like, bytes of its memory and of what is free."""

    name: str
    arch: str
    total: int
    free: int


class Graph(Protocol):
    """Work that was recorded, to be asked for at once."""

    def launch(self) -> None: ...


class Driver(Protocol):
    """What is asked of a GPU. All of it happens in the order in which it is asked for."""

    handle: int                # of the stream, for others who want to wait for it

    def facts(self) -> Facts: ...

    def allocate(self, nbytes: int) -> tuple[Any, Any]:
        """A base, and the object whose end frees it, once all that was asked before is done."""

    def upload(self, base: Any, offset: int, array: np.ndarray) -> None:
        """Copy a C-contiguous array's elements there; it may change afterwards."""

    def download(self, base: Any, offset: int, array: np.ndarray) -> None:
        """Copy bytes from there into a C-contiguous array, and wait for that."""

    def copy(self, to: Any, to_offset: int, base: Any, offset: int, nbytes: int) -> None: ...

    def fill(self, base: Any, offset: int, nbytes: int) -> None:
        """Write zeros."""

    def launch(self, kernel: Kernel, pointers: Sequence[tuple[Any, int]], words: Sequence[int], blocks: int,
               threads: int) -> None: ...

    def multiply(self, product: blas.Gemm, pointers: Sequence[tuple[Any, int]]) -> None:
        """A matrix product by cuBLAS."""

    def record(self, ask: Callable[[], None]) -> Graph:
        """What is asked for in a call of ``ask`` is not done but kept."""

    def sync(self) -> None:
        """Wait until all that was asked for is done."""

    def sync_all(self) -> None:
        """The same for the streams of others in this process."""

    def let_go(self, keeper: Any) -> None:
        """Wait like `sync_all` before the caller frees what this keeps; where that cannot be now, keep it for a while.
        """

    def wait_for(self, handle: int) -> None:
        """What is asked from here on comes after what another stream was asked until now."""
