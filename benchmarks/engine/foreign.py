"""A loop that somebody else compiled, calling a function of four arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


@numba.njit(nogil=True)
def _loop(function: Any, n: int, a: Any, b: Any, c: Any, d: Any) -> float:
    total = 0.0
    for _ in range(n):
        total += function(a, b, c, d)[0]
    return total


def calling(function: Any, given: list[Any]) -> Callable[[int], float]:
    """So many calls without Python between."""
    return lambda n: _loop(function, n, *given)
