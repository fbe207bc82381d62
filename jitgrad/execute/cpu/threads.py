"""How many threads share large work, and the team's block, which a forked child makes anew (see native/threads.py)."""

from __future__ import annotations

import ctypes as C
import operator
import os
import signal
import time
from typing import SupportsIndex

import numpy as np

from jitgrad import config
from jitgrad.core.errors import user_error
from jitgrad.execute.cpu import layout, types
from jitgrad.execute.cpu.lifetime import immortal
from jitgrad.execute.cpu.types import NATIVE, peek, poke

# Nanoseconds. A sleeper's awakening takes 60 us of its own and up to 55 of who wakes it
SPIN, WORTH = 100_000, 150_000
_FUNCTIONS = {layout.TEAM_CREATE: "pthread_create", layout.TEAM_DETACH: "pthread_detach",
              layout.TEAM_SIGMASK: "pthread_sigmask", layout.TEAM_LOCK: "pthread_mutex_lock",
              layout.TEAM_UNLOCK: "pthread_mutex_unlock", layout.TEAM_WAIT: "pthread_cond_wait",
              layout.TEAM_SIGNAL: "pthread_cond_signal", layout.TEAM_TIME: "clock_gettime",
              layout.TEAM_YIELD: "sched_yield"}
_FAULTS = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGABRT", "SIGSYS")     # of the thread's own making

_block = immortal(np.zeros(layout.TEAM_BYTES + layout.LINE, np.uint8))
_team = (_block.ctypes.data + layout.LINE - 1) & -layout.LINE


def _library() -> C.CDLL | None:
    """The C library, where it has all that a team needs."""
    try:
        found = C.CDLL(None)
    except (OSError, TypeError):       # Windows
        return None
    names = (*_FUNCTIONS.values(), "pthread_mutex_init", "pthread_cond_init")
    return immortal(found) if all(hasattr(found, name) for name in names) else None


_c = _library()


def _fill() -> None:
    """What the block holds when no worker is there."""
    assert _c is not None
    C.memset(_team, 0, layout.TEAM_LIMIT)
    poke(_team + layout.TEAM_INSIDE, layout.TEAM_CLOSED)
    poke(_team + layout.TEAM_MADE, 0)
    for at in (layout.TEAM_MUTEX, layout.TEAM_WAKE, layout.TEAM_DONE):
        C.memset(_team + at, 0, 128)
        init = _c.pthread_mutex_init if at == layout.TEAM_MUTEX else _c.pthread_cond_init
        init(C.c_void_p(_team + at), None)


def _begin() -> None:
    poke(_team + layout.TEAM_LIMIT, 1)
    types.set_state(layout.S_TEAM, _team)
    if _c is None:
        return
    faults = sum(1 << getattr(signal, name) - 1 for name in _FAULTS if hasattr(signal, name))
    C.memset(_team + layout.TEAM_MASK, 0xFF, 128)
    poke(_team + layout.TEAM_MASK, ~faults)
    for at, name in _FUNCTIONS.items():
        poke(_team + at, C.cast(getattr(_c, name), C.c_void_p).value or 0)
    for at, value in ((layout.TEAM_WORKER, NATIVE["worker"]), (layout.TEAM_BLOCK, NATIVE["block"]),
                      (layout.TEAM_CLOCK, time.CLOCK_MONOTONIC), (layout.TEAM_SETMASK, int(signal.SIG_SETMASK)),
                      (layout.TEAM_SPIN, SPIN), (layout.TEAM_WORTH, WORTH)):
        poke(_team + at, value)
    _fill()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_anew)
    _set(config.num_threads() or usable())


def _anew() -> None:
    """In a forked child: nobody works, and nobody who limited BLAS is here to end that."""
    _fill()
    if peek(_team + layout.TEAM_BLAS_USERS):
        poke(_team + layout.TEAM_BLAS_USERS, 0)
        C.CFUNCTYPE(None, C.c_int)(peek(_team + layout.TEAM_BLAS_SET))(peek(_team + layout.TEAM_BLAS_BEFORE))


def limited_by(get: int, set_: int) -> None:
    """The functions by which the number of BLAS's own threads is asked and set."""
    if _c is not None:
        poke(_team + layout.TEAM_BLAS_GET, get)
        poke(_team + layout.TEAM_BLAS_SET, set_)


def usable() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _set(count: int) -> None:
    poke(_team + layout.TEAM_MOST, config.MOST_THREADS - 1)
    poke(_team + layout.TEAM_LIMIT, count)


def get_num_threads() -> int:
    """How many threads share a large operation, the calling one among them; see `set_num_threads`.

    >>> import jitgrad as jg
    >>> jg.get_num_threads() >= 1
    True
    """
    return peek(_team + layout.TEAM_LIMIT)


def set_num_threads(n: SupportsIndex) -> None:
    """Let ``n`` threads share each large operation, the calling one among them, from the next operation on.

    At first it is the environment variable JITGRAD_NUM_THREADS, else the number of CPUs that the process may use.
    Results have the same bits for any ``n``, but for large matrix products, which BLAS rounds differently where ``n``
    is above 2. While one runs, BLAS has one thread for everybody in the process, NumPy too. Where the platform has no
    POSIX threads the calling thread works alone and the number stays 1. TypeError for what is not a whole number,
    ValueError for one below 1 or above 1024.

    >>> import jitgrad as jg
    >>> before = jg.get_num_threads()
    >>> jg.set_num_threads(1)
    >>> jg.get_num_threads()
    1
    >>> jg.set_num_threads(before)
    """
    try:
        count = operator.index(n)
    except TypeError:
        count = None
    if count is None or isinstance(n, bool):
        raise user_error(TypeError, f"set_num_threads: n must be a whole number, got {n!r}")
    if not 1 <= count <= config.MOST_THREADS:
        raise user_error(ValueError, f"set_num_threads: n must be from 1 to {config.MOST_THREADS}, got {count}")
    if _c is not None:
        _set(count)


_begin()
