"""The one stream of a process on which all work of the GPU is ordered, and launches on it.

Two drivers have the same methods: `Gpu` calls NVIDIA's packages, `Simulator` runs kernels by Numba's simulator.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from jitgrad.core.errors import user_error
from jitgrad.execute.cuda import toolkit
from jitgrad.execute.cuda.driver import Driver
from jitgrad.execute.cuda.gpu import Gpu
from jitgrad.execute.cuda.kernel import STATUS, Launch
from jitgrad.execute.cuda.simulator import Simulator

ALIGNED = 256                  # bytes of which allocations are multiples


@functools.cache
def problem() -> str:
    """Why there is no GPU to use here, in words, or ''."""
    if toolkit.simulated():
        return ""
    if toolkit.missing():
        return toolkit.missing()
    try:
        count = len(toolkit.core().Device.get_all_devices())
    except Exception as error:               # whatever a broken installation raises
        words = " ".join(str(error).split())
        return f"NVIDIA's driver cannot be used: {words or type(error).__name__}"
    return "" if count else "NVIDIA's driver finds no GPU"


_made = threading.Lock()
_in_use: list[Driver] = []     # the one, once it is made


def driver() -> Driver:
    """The GPU's driver; RuntimeError where there is none, saying what is missing."""
    return _in_use[0] if _in_use else _first()


def _first() -> Driver:
    if problem():
        raise user_error(RuntimeError, f"there is no device cuda here: {problem()}")
    with _made:
        if not _in_use:
            _in_use.append(Simulator() if toolkit.simulated() else Gpu())
    return _in_use[0]


# ---- launches --------------------------------------------------------------------------------------------

_checking = threading.Lock()


def run(launches: Sequence[Launch], slots: Sequence[tuple[Any, int]], wait: bool = True) -> int:
    """Launch kernels on (base, offset) of outputs, operands and scratch; the error code that they leave, or 0.

    Where one may be left, it waits for that, unless told that none will be.
    """
    gpu, wait = driver(), wait and any(STATUS in launch.slots for launch in launches)
    with _checking if wait else nullcontext():
        flag, _ = _status()
        if wait:
            gpu.fill(flag, 0, 4)
        for launch in launches:
            pointers = [(flag, 0) if s == STATUS else slots[s] for s in launch.slots]
            gpu.launch(launch.kernel, pointers, launch.words, launch.blocks, launch.threads)
        if not wait:
            return 0
        code = np.zeros(1, np.int32)
        gpu.download(flag, 0, code)
    return int(code[0])


@functools.cache
def _status() -> tuple[Any, Any]:
    """Four bytes for the error codes of kernels, and what keeps them."""
    return driver().allocate(ALIGNED)
