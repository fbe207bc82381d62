"""Hyperbolic functions and their inverses.

float64 by way of the two-part exp and log of `parts`, so that the last rounding is the only one that counts; float32 by
the same in float64 with shorter polynomials. Near 0, where sinh is a difference, a polynomial:
(sinh x - x) / x^3 in x^2 on |x| <= 1. Fits as in the package's docstring.
"""

from __future__ import annotations

from jitgrad.ops.maths.parts import (
    add_exponent,
    exp_parts,
    exp_short,
    in_float64,
    log1p_parts,
    log_parts,
    power_of_two,
    split,
)
from jitgrad.ops.maths.polynomials import polynomial
from jitgrad.ops.scalar import FLOAT64, INF, NAN, Scalar, convert, copysign, fabs, fmuladd, rarely, sqrt, where

_SINH = (6.473773469844876e-15, 7.503314818295807e-13, 1.6061338559327367e-10, 2.505208941635381e-08,
         2.7557319310080553e-06, 0.0001984126984106117, 0.008333333333333573, 0.16666666666666666)  # fmt: skip
_SINH_SHORT = (2.7822177344205556e-06, 0.00019842895562760532, 0.00833331048488617, 0.1666666716337204)
_LARGE = 2.0**28  # beyond, the squares in asinh and acosh swallow the 1, and may overflow


def _exp_quarters(a: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """e^a / 4 as high + low, and e^-a / 4, a >= 0; beyond the overflow of sinh the first is large enough."""
    k, high, low = exp_parts(where(a > 710.6, 710.6, a))
    inverse = 1.0 / high
    shrunk = fmuladd(-low * inverse, inverse, inverse)
    scale = power_of_two(k - 2)
    return high * scale, low * scale, shrunk * power_of_two(where(k > 64, -64, -k) - 2)


def sinh(x: Scalar) -> Scalar:
    """(e^x - e^-x) / 2, near 0 a polynomial. Error: 0.75 ulp."""
    return in_float64(_sinh, x)


def _sinh(x: Scalar, short: bool) -> Scalar:
    a = fabs(x)
    z = x * x
    small = fmuladd(x * z, polynomial(z, _SINH_SHORT if short else _SINH), x)
    if short:
        grown = exp_short(where(a > 100.0, 100.0, a))
        return where(a < 1.0, small, copysign((grown - 1.0 / grown) * 0.5, x))
    grown, rest, shrunk = _exp_quarters(a)
    high = grown - shrunk
    large = high + (((grown - high) - shrunk) + rest)
    return where(a < 1.0, small, copysign(large + large, x))


def cosh(x: Scalar) -> Scalar:
    """(e^x + e^-x) / 2. Error: 0.75 ulp."""
    return in_float64(_cosh, x)


def _cosh(x: Scalar, short: bool) -> Scalar:
    a = fabs(x)
    if short:
        grown = exp_short(where(a > 100.0, 100.0, a))
        return (grown + 1.0 / grown) * 0.5
    grown, rest, shrunk = _exp_quarters(a)
    high = grown + shrunk
    total = high + (((grown - high) + shrunk) + rest)
    return total + total


def _log_double(x: Scalar) -> Scalar:
    """log(2 x) for large x."""
    e, m = split(x)
    high, low = add_exponent(convert(e, FLOAT64) + 1.0, *log_parts(m - 1.0))
    return where(x < INF, high + low, x)


def asinh(x: Scalar) -> Scalar:
    """log(x + sqrt(x^2 + 1)) = log1p(x + x^2 / (1 + sqrt(x^2 + 1))). Error: 1.0 ulp."""
    return in_float64(_asinh, x)


def _asinh(x: Scalar, short: bool) -> Scalar:
    a = fabs(x)
    square = a * a
    more = square / (sqrt(square + 1.0) + 1.0)
    u = a + more
    high, low = log1p_parts(u, (a - u) + more, short)
    return copysign(rarely(~(a < _LARGE), lambda: _log_double(a), high + low), x)


def acosh(x: Scalar) -> Scalar:
    """log(x + sqrt(x^2 - 1)) = log1p(t + sqrt(2 t + t^2)), t = x - 1; NaN below 1. Error: 1.4 ulp."""
    return in_float64(_acosh, x)


def _acosh(x: Scalar, short: bool) -> Scalar:
    t = x - 1.0
    root = sqrt(fmuladd(t, t, t + t))
    u = root + t
    high, low = log1p_parts(u, (root - u) + t, short)
    return rarely(~((x >= 1.0) & (x < _LARGE)), lambda: where(x >= 1.0, _log_double(x), NAN), high + low)


def atanh(x: Scalar) -> Scalar:
    """log1p(2 x / (1 - x)) / 2; infinite at 1 and -1, NaN beyond. Error: 0.7 ulp."""
    return in_float64(_atanh, x)


def _atanh(x: Scalar, short: bool) -> Scalar:
    a = fabs(x)
    d = 1.0 - a
    lost = (1.0 - d) - a
    inverse = 1.0 / d
    q = (a + a) * inverse
    high, low = log1p_parts(q, fmuladd(-q, lost, fmuladd(-q, d, a + a)) * inverse, short)
    value = (high + low) * 0.5
    return copysign(rarely(~(a < 1.0), lambda: where(a == 1.0, x.dtype.type(INF), NAN), value), x)
