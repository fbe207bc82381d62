"""Counters that machine code compares: while they stand still, what they count has not changed."""

from __future__ import annotations

import threading

import numpy as np

STRUCTURE, DEFAULTS, ANY = 0, 1, 2
VERSIONS = np.zeros(3, np.int64)         # of what layers and optimizers hold; of process-wide defaults; of either
_lock = threading.Lock()


def changed(which: int) -> None:
    """Something did."""
    with _lock:
        VERSIONS[which] += 1
        VERSIONS[ANY] += 1
