"""Rows that a Program has for what they check, not for what they compute: they have no outputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from jitgrad.core.aval import Aval
from jitgrad.core.errors import user_error
from jitgrad.core.primitive import GUARD_FAILED, Kind, kernel, shape_error


def _guard_aval(x: Aval, expected: Aval) -> tuple[Aval, ...]:
    if x is not expected:
        raise shape_error("guard", (x, expected), "differ, or the dtypes do")
    return ()


def _guard_ref(x: Any, expected: Any) -> tuple[Any, ...]:
    if np.asarray(x).tobytes() != np.asarray(expected).tobytes():
        raise user_error(ValueError, f"guard: {x} is not {expected}, bit for bit")
    return ()


def _guard_samples(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    arrays = (rng.normal(size=(3, 2)), np.array([np.nan, -0.0, np.inf]), np.array(2.0), np.zeros((0, 3)))
    return [((x, x.copy()), {}) for x in arrays]


@kernel(Kind.EFFECT, vjp=None, ref=_guard_ref, samples=_guard_samples, operands=("x", "expected"), domain="any",
        aval=_guard_aval, words=lambda x, expected: (), bits=True, ulp=0.0, cuda="effects",
        errors={GUARD_FAILED: "a value is not the one that was expected"})
def guard(x, expected):
    """Stop unless ``x`` has the bits of ``expected``: a NaN equals itself, 0 is not -0."""
    for i in range(x.size):
        if x[i] != expected[i]:
            return GUARD_FAILED
    return 0
