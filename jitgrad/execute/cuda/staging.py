"""Pinned memory that what goes to the GPU is copied to first: nobody waits for it, and it may change at once.

Of pageable memory the driver does not say when it is read. Two halves are filled by turns; one is filled anew when all
that was asked from it is done.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

HALF = 4 << 20                 # bytes: what is larger is better waited for than copied twice
_APART = 64                    # bytes of which places are multiples


class Staging:
    """``address``: of two halves of pinned memory. ``mark`` records an event behind all that the stream was asked, and
    gives a function that waits for it.
    """

    def __init__(self, address: int, mark: Callable[[], Callable[[], Any]]) -> None:
        self._starts, self._mark = (address, address + HALF), mark
        self._half, self._end = 0, 0
        self._done: list[Callable[[], Any] | None] = [None, None]

    def copied(self, array: np.ndarray) -> int:
        """The address of a copy of a C-contiguous array of at most `HALF` bytes, to be read by the stream at once."""
        if self._end + array.nbytes > HALF:
            self._done[self._half] = self._mark()
            if wait := self._done[1 - self._half]:
                wait()                           # before the turn: an interrupt here leaves the other half as it was
            self._half, self._end = 1 - self._half, 0
        place = self._starts[self._half] + self._end
        ctypes.memmove(place, array.ctypes.data, array.nbytes)
        self._end += -(-array.nbytes // _APART) * _APART
        return place
