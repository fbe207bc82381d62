"""The log of each thread: where all its tapes keep their rows."""

from __future__ import annotations

import os
import threading

import numpy as np

from jitgrad.execute.cpu import layout, types

_free: list[np.ndarray] = []         # logs of threads that ended, for threads to come


class _Local(threading.local):
    """``address`` of this thread's log struct."""

    def __init__(self) -> None:
        try:
            self._struct = _free.pop()
        except IndexError:
            self._struct = np.zeros(layout.L_BYTES // 8, np.int64)
        self.address = int(self._struct.ctypes.data)
        self._end = _End(self._struct)


class _End:
    """Returns a log when its thread ends, if no tape of the thread is still alive."""

    def __init__(self, struct: np.ndarray) -> None:
        self._struct = struct

    def __del__(self) -> None:
        (_free if self._struct[layout.L_TAPES // 8] == 0 else _lost).append(self._struct)


_lost: list[np.ndarray] = []         # logs that outlive their thread because a tape does
LOCAL = _Local()


def _after_fork() -> None:
    """In a child only the forking thread goes on: the others record no more."""
    table = types.get_state(layout.S_RECORDER_TABLE)
    for i in range(types.get_state(layout.S_RECORDERS)):
        if types.peek(table + 16 * i + 8) == LOCAL.address:
            types.poke(table, types.peek(table + 16 * i))
            types.poke(table + 8, LOCAL.address)
            types.set_state(layout.S_RECORDERS, 1)
            return
    types.set_state(layout.S_RECORDERS, 0)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
