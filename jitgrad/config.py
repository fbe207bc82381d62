"""Settings read from the environment, in one place."""

from __future__ import annotations

import os


def numba_kernels() -> bool:
    """JITGRAD_KERNELS=numba runs every kernel as Numba built it, instead of the vector builds."""
    return os.environ.get("JITGRAD_KERNELS", "") == "numba"
