"""The log of each thread: where all its tapes keep their rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from jitgrad.core import backend
from jitgrad.core.lock import TABLES
from jitgrad.core.recorder import depth
from jitgrad.execute.cpu import layout, types
from jitgrad.execute.cpu.lifetime import immortal

_logs: list[np.ndarray] = immortal([])         # a thread state that comes again finds its log again


def _new_log(thread: int) -> int:
    """A log for a thread state; called by the machine when a thread first records."""
    with TABLES:
        count = types.get_state(layout.S_THREAD_COUNT)
        if count >= types.MAX_THREADS:
            return _idle_log(thread)
        struct = np.zeros(layout.L_BYTES // 8, np.int64)
        _logs.append(struct)
        address = int(struct.ctypes.data)
        at = types.get_state(layout.S_THREADS) + 16 * count
        types.poke(at, thread)
        types.poke(at + 8, address)
        types.set_state(layout.S_THREAD_COUNT, count + 1)
        return address


def _idle_log(thread: int) -> int:
    """The log of another thread state, which has no tape: that one gets a log again if it ever comes back."""
    start = types.get_state(layout.S_THREADS)
    for at in range(start, start + 16 * types.MAX_THREADS, 16):
        log = types.peek(at + 8)
        if not types.peek(log + layout.L_TAPES):
            types.poke(at, thread)
            return log
    raise RuntimeError(f"more than {types.MAX_THREADS} threads hold tapes at one time")


def _after_fork() -> None:
    """In a child only the forking thread goes on: no other thread state or log means anything there."""
    mine = types.thread_log()
    for table, count in ((layout.S_THREADS, layout.S_THREAD_COUNT),
                         (layout.S_RECORDER_TABLE, layout.S_RECORDERS)):
        start, n = types.get_state(table), types.get_state(count)
        own = [(types.peek(start + 16 * i), mine) for i in range(n) if types.peek(start + 16 * i + 8) == mine]
        for i, (thread, log) in enumerate(own[:1]):
            types.poke(start + 16 * i, thread)
            types.poke(start + 16 * i + 8, log)
        types.set_state(count, len(own[:1]))
    types.set_state(layout.S_RECORDINGS, 0)
    for _ in range(depth()):
        types.recording_enter()


@contextmanager
def aside() -> Iterator[list[Any]]:
    """Run a block that the open tapes of this thread do not record; yields those tapes."""
    machine = backend.current()
    tapes = machine.suspend()
    try:
        yield list(tapes)
    finally:
        machine.resume(tapes)


types.callback(layout.S_NEW_LOG, _new_log)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
