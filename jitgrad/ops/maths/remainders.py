"""Remainders of floats, exact for quotients of any size, and the quotients that go with them.

Exact with hardware fused multiply-add, by which one step of the division leaves no rounding: its result is a multiple
of the divisor's last place, and smaller than the divisor. Longer quotients take several steps, inside `rarely`.
"""

from __future__ import annotations

from jitgrad.ops.scalar import (
    FLOAT32,
    FLOAT64,
    INF,
    NAN,
    Scalar,
    convert,
    copysign,
    fabs,
    floor,
    fmuladd,
    rarely,
    trunc,
    where,
)

_STEP = 2.0**52


def _step(a: Scalar, b: Scalar) -> Scalar:
    """a - b trunc(a / b) for 0 <= a < 2^53 b: exact, since the quotient is at most 1 too large."""
    r = fmuladd(-trunc(a / b), b, a)
    r = where(r < 0, r + b, r)
    return where(a < b, a, r)  # where b is infinite too


def _long_division(a: Scalar, b: Scalar) -> Scalar:
    """a modulo b in steps of 52 bits of the quotient."""
    kind = a.dtype
    steps = 5 if kind == FLOAT32 else 40  # the range of exponents, over 52
    a, b = convert(a, FLOAT64), convert(b, FLOAT64)
    divisors = [b]
    for _ in range(steps):
        divisors.append(divisors[-1] * _STEP)
    r = a
    for d in reversed(divisors):
        r = where(r < d, r, _step(r, d))  # also where d has overflowed
    return convert(where((a < INF) & (b > 0), r, NAN), kind)


def fmod(x: Scalar, y: Scalar) -> Scalar:
    """x - y trunc(x / y), exact, with the sign of x; NaN where x is infinite or y is 0."""
    a, b = fabs(x), fabs(y)
    limit = 2.0**24 if x.dtype == FLOAT32 else 2.0**53
    return copysign(rarely(~(a / b < limit), lambda: _long_division(a, b), _step(a, b)), x)


def remainder(x: Scalar, y: Scalar) -> Scalar:
    """fmod moved by y to the sign of y, as in Python and NumPy."""
    r = fmod(x, y)
    return where(r == 0, copysign(0.0, y), where((y < 0) ^ (r < 0), r + y, r))


def floor_divide(x: Scalar, y: Scalar) -> Scalar:
    """The whole number (x - remainder) / y, as in Python and NumPy; x / y where y is 0."""
    r = fmod(x, y)
    q = (x - r) / y
    q = where((r != 0) & ((y < 0) ^ (r < 0)), q - 1.0, q)
    whole = floor(q)
    whole = where(q - whole > 0.5, whole + 1.0, whole)
    plain = x / y
    return where(y == 0, plain, where(q == 0, copysign(0.0, plain), whole))
