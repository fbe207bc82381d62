"""jitgrad inside Numba: recorded functions for `@numba.njit` code, and `@njit` kernels as operations.

Importing this imports no numba.
"""

from __future__ import annotations

import importlib


def init() -> None:
    """Make the types of recorded calls known to Numba, which asks for this through its entry point."""
    importlib.import_module("jitgrad.interop.numba.calls")
