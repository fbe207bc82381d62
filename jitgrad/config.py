"""Settings read from the environment, in one place."""

from __future__ import annotations

import os

SWITCHES = {                   # name: what it does
    "JITGRAD_CACHE_DIR": "folder of the object cache",
    "JITGRAD_DEBUG_NANS": "1: raise at the first NaN; inf: at the first NaN or infinity",
    "JITGRAD_KERNELS": "numba: run every kernel as Numba built it",
    "JITGRAD_MACHINE_CODE": "0: recorded programs stay on the sweep; 1: become machine code before they first run",
    "JITGRAD_NUM_THREADS": "threads that share a large operation (as many as the CPUs this process may use)",
    "JITGRAD_POOL_MB": "megabytes of freed large arrays kept for reuse (256; 0: none)",
    "JITGRAD_TF32": "1: float32 products on a GPU may round operands to 11 bits, which is several times as fast",
}


def numba_kernels() -> bool:
    """JITGRAD_KERNELS=numba runs every kernel as Numba built it, instead of the vector builds."""
    return os.environ.get("JITGRAD_KERNELS", "") == "numba"


def machine_code() -> str:
    """JITGRAD_MACHINE_CODE: "hot" (programs that run often become machine code, in the background), "0" or "1"."""
    value = os.environ.get("JITGRAD_MACHINE_CODE", "hot")
    return "0" if numba_kernels() else value if value in ("0", "1") else "hot"


MOST_THREADS = 1024


def num_threads() -> int:
    """JITGRAD_NUM_THREADS: how many threads share a large operation, or 0 where nothing is said."""
    said = os.environ.get("JITGRAD_NUM_THREADS", "").strip()
    if not said:
        return 0
    if not (said.isascii() and said.isdigit() and 1 <= int(said[:9]) <= MOST_THREADS):
        raise ValueError(f"JITGRAD_NUM_THREADS must be a whole number from 1 to {MOST_THREADS}; it is {said!r}")
    return int(said)


def pool_bytes() -> int:
    """JITGRAD_POOL_MB: how many bytes of freed large arrays are kept for the next ones, 256 MB unless told."""
    try:
        return max(0, int(os.environ.get("JITGRAD_POOL_MB", "256"))) << 20
    except ValueError:
        return 256 << 20


def debug_nans() -> str:
    """JITGRAD_DEBUG_NANS: "" (off), "nan" (1, or anything that is not off) or "inf"."""
    value = os.environ.get("JITGRAD_DEBUG_NANS", "").lower()
    return "" if value in ("", "0", "false", "off") else "inf" if value == "inf" else "nan"


def tf32() -> bool:
    """JITGRAD_TF32: whether products of float32 on a GPU may use the format TF32."""
    return os.environ.get("JITGRAD_TF32", "") == "1"
