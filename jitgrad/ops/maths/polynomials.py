"""Evaluating polynomials."""

from __future__ import annotations

from typing import Any

from jitgrad.ops.scalar import Scalar, fmuladd


def polynomial(x: Scalar, coefficients: tuple[float, ...]) -> Any:
    """Horner's scheme in fmuladd, highest power first."""
    value: Any = coefficients[0]
    for c in coefficients[1:]:
        value = fmuladd(value, x, c)
    return value
