"""The lock of a function's traces, and the traces that are to go when it is free.

An object that a trace refers to dies at any point of any thread, in a collection of garbage perhaps. That thread may
hold what the holder of the lock waits for, so it does not wait itself: who has the lock drops such traces too.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any


class Lock:
    """See the module. ``owner``: a weak reference to what has a method ``lost(trace)``."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._lock = threading.RLock()
        self._gone: deque[Any] = deque()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        self._drop()

    def lost(self, trace: Any) -> None:
        """Drop a trace, now or when the lock is free."""
        self._gone.append(trace)
        self._drop()

    def _drop(self) -> None:
        owner = self._owner()
        while owner is not None and self._gone and self._lock.acquire(blocking=False):
            try:
                while self._gone:
                    owner.lost(self._gone.popleft())
            finally:
                self._lock.release()
