"""Counters that machine code compares: while they stand still, what they count has not changed."""

from __future__ import annotations

import numpy as np

STRUCTURE, DEFAULTS = 0, 1
VERSIONS = np.zeros(2, np.int64)         # of what layers and optimizers hold; of process-wide defaults


def changed(which: int) -> None:
    """Something did."""
    VERSIONS[which] += 1
