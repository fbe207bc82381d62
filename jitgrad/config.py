"""Settings read from the environment, in one place."""

from __future__ import annotations

import os

SWITCHES = {                   # name: what it does
    "JITGRAD_CACHE_DIR": "folder of the object cache",
    "JITGRAD_DEBUG_NANS": "1: raise at the first NaN; inf: at the first NaN or infinity",
    "JITGRAD_KERNELS": "numba: run every kernel as Numba built it",
}


def numba_kernels() -> bool:
    """JITGRAD_KERNELS=numba runs every kernel as Numba built it, instead of the vector builds."""
    return os.environ.get("JITGRAD_KERNELS", "") == "numba"


def debug_nans() -> str:
    """JITGRAD_DEBUG_NANS: "" (off), "nan" (1, or anything that is not off) or "inf"."""
    value = os.environ.get("JITGRAD_DEBUG_NANS", "").lower()
    return "" if value in ("", "0", "false", "off") else "inf" if value == "inf" else "nan"
