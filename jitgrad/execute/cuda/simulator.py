"""Launches run by Numba's simulator on NumPy arrays: slow Python, for tests where there is no GPU."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jitgrad.core.form import Form
from jitgrad.execute.cuda import toolkit
from jitgrad.execute.cuda.kernel import STATUS, Kernel, Work
from jitgrad.execute.cuda.library import work_of


def run(f: Form, operands: Sequence[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """The outputs of a form, and the error code that its kernels leave."""
    outs = [np.full(a.shape, 77, a.dtype) for a in f.outs]       # kernels write every element
    return outs, play(work_of(f), [*outs, *operands])


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
