"""Functions written by hand, derivatives and all, and compiled by Numba."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from benchmarks import workloads as w
from benchmarks.worker import Mode, repeated, with_four, with_pairs

VERSION = numba.__version__
_TURNS = w.TURNS


@numba.njit
def _chain(x: Any) -> Any:
    kept = np.empty((_TURNS, x.size), np.float32)
    g = np.empty_like(x)
    total = np.float32(0)
    for i in range(x.size):
        y = x[i]
        for k in range(_TURNS):
            kept[k, i] = y
            y = np.float32(math.sin(y)) * np.float32(1.01) + np.float32(0.1)
        total += y
    for i in range(x.size):
        d = np.float32(1)
        for k in range(_TURNS):
            d *= np.float32(1.01) * np.float32(math.cos(kept[_TURNS - 1 - k, i]))
        g[i] = d
    return total, g


@numba.njit
def entry_loop(a: Any, b: Any, c: Any, d: Any) -> Any:
    out = np.empty_like(a)
    for i in range(a.size):
        out[i] = a[i] * b[i] + c[i] - d[i]
    return out


@numba.njit
def _partials(w1: float, w2: float) -> tuple[float, float, float]:
    return 3 * w1 * w1 + 2 * w1 * w2, 6 * w1 + 2 * w2, 2 * w1


def chain_value() -> list[Mode]:
    x = w.chain_input()
    return [Mode("njit by hand", repeated(lambda: _chain(x)), lambda: _chain(x), recorded=False)]


def entry() -> list[Mode]:
    arrays = w.entry_inputs()
    return [Mode("njit by hand, a loop", with_four(entry_loop, *arrays), lambda: [entry_loop(*arrays)], recorded=False)]


def partials() -> list[Mode]:
    return [Mode("njit by hand, Python floats", with_pairs(w.pairs(), _partials),
                 lambda: [np.array([_partials(*p) for p in w.pairs()])], recorded=False)]


WORKLOADS = {"chain-value": chain_value, "entry": entry, "partials": partials}
