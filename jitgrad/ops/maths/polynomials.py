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


def estrin(x: Scalar, coefficients: tuple[float, ...]) -> Any:
    """Estrin's scheme: pairs, pairs of pairs in x^2, and so on. A shorter chain of steps than Horner's, a few more."""
    terms: list[Any] = list(coefficients[::-1])
    while len(terms) > 1:
        pairs = [fmuladd(b, x, a) for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[2 * len(pairs) :]
        x = x * x
    return terms[0]
