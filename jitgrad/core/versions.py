"""Counters that machine code compares: while they stand still, what they count has not changed."""

from __future__ import annotations

import numpy as np

from jitgrad.core.lock import TABLES

STRUCTURE, DEFAULTS, ANY = 0, 1, 2
VERSIONS = np.zeros(3, np.int64)         # of what layers and optimizers hold; of process-wide defaults; of either



def changed(which: int) -> None:
    """Something did."""
    with TABLES:
        VERSIONS[which] += 1
        VERSIONS[ANY] += 1
