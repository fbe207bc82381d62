"""cbrt and hypot."""

from __future__ import annotations

from jitgrad.ops.maths.parts import in_float64, power_of_two
from jitgrad.ops.maths.polynomials import polynomial
from jitgrad.ops.scalar import (
    FLOAT32,
    FLOAT64,
    INF,
    INT64,
    Scalar,
    bits,
    convert,
    copysign,
    fabs,
    fmuladd,
    from_bits,
    sqrt,
    where,
)

# the cube root on [1, 2], a minimax fit of relative error 2^-16.7
_CBRT = (-0.010603973540422756, 0.08609156446632246, -0.3006114709023452, 0.7181532893095683, 0.506979808032613)


def cbrt(x: Scalar) -> Scalar:
    """Cube root: 2^q times that of m in [1, 8), a polynomial refined by one step of Halley's and one of Newton's.

    Error: 0.6 ulp.
    """
    return in_float64(_cbrt, x)


def _cbrt(x: Scalar, short: bool) -> Scalar:
    a = fabs(x)
    small = a < 2.0**-1022
    pattern = bits(where(small, a * 2.0**54, a))
    e = (pattern >> 52) - where(small, INT64.type(1023 + 54), INT64.type(1023))
    q = (((e + 1200) * 21846) >> 16) - 400  # e / 3 rounded down
    third = e - q * 3
    one, two = third == 1, third == 2
    mantissa = from_bits((pattern & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000)
    m = mantissa * where(one, x.dtype.type(2), where(two, x.dtype.type(4), x.dtype.type(1)))
    t = polynomial(mantissa, _CBRT)
    t = t * where(one, x.dtype.type(2 ** (1 / 3)), where(two, x.dtype.type(4 ** (1 / 3)), x.dtype.type(1)))
    cube = t * t * t
    t = t * ((cube + (m + m)) / ((cube + cube) + m))
    if not short:
        square = t * t
        lost = fmuladd(-square, t, m) - fmuladd(t, t, -square) * t
        t = t + lost / (square * 3.0)
    return where((a > 0) & (a < INF), copysign(t * power_of_two(q), x), x)


def hypot(x: Scalar, y: Scalar) -> Scalar:
    """sqrt(x^2 + y^2) without overflow or underflow on the way; infinite if either is. Error: 1.0 ulp."""
    a, b = fabs(x), fabs(y)
    infinite = (a == INF) | (b == INF)
    if x.dtype == FLOAT32:
        a, b = convert(a, FLOAT64), convert(b, FLOAT64)
        return where(infinite, INF, convert(sqrt(fmuladd(a, a, b * b)), FLOAT32))
    more = a > b
    most, least = where(more, a, b), where(more, b, a)
    one = x.dtype.type(1)
    scale = where(most > 2.0**500, x.dtype.type(2.0**-600), where(most < 2.0**-400, x.dtype.type(2.0**600), one))
    back = where(most > 2.0**500, x.dtype.type(2.0**600), where(most < 2.0**-400, x.dtype.type(2.0**-600), one))
    most, least = most * scale, least * scale
    return where(infinite, INF, sqrt(fmuladd(most, most, least * least)) * back)
