"""Inverse trigonometric functions.

(asin x - x) / x^3 in x^2 on |x| <= 1/2, the rest by asin x = pi/2 - 2 asin(sqrt((1 - x) / 2)).
(atan t - t) / t^3 in t^2 on |t| <= tan(pi/8), the rest by atan x = atan((x - 1) / (x + 1)) + pi/4 and
atan x = pi/2 - atan(1 / x). Fits as in the package's docstring.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from jitgrad.ops.maths.polynomials import polynomial
from jitgrad.ops.scalar import FLOAT32, FLOAT64, INF, NAN, Scalar, bits, copysign, fabs, fmuladd, sqrt, where

TAN_EIGHTH = 0.4142135623730951  # of pi


class _Arcs(NamedTuple):
    """Constants of one dtype."""

    half_pi: tuple[float, float]  # in two parts
    three: tuple[float, float]  # 3 pi/4
    asin: tuple[float, ...]
    atan: tuple[float, ...]
    great: float  # of larger numbers sums may overflow and reciprocals be subnormal
    small: float  # products of smaller numbers may be subnormal
    grow: float  # takes them out of that range


_ARCS = {
    FLOAT32: _Arcs(
        (1.5707963705062866, -4.371138828673793e-08),
        (2.356194496154785, -5.962440319251527e-09),
        (0.042156755924224854, 0.024185609072446823, 0.0454690083861351, 0.0749531015753746, 0.16666752099990845),
        (-0.06090065464377403, 0.10599171370267868, -0.14244391024112701, 0.19998528063297272, -0.33333316445350647),
        2.0**100,
        2.0**-100,
        2.0**64,
    ),
    FLOAT64: _Arcs(
        (1.5707963267948966, 6.123233995736766e-17),
        (2.356194490192345, 9.184850993605148e-17),
        (0.03262605201682663, -0.020994787206911232, 0.021704293852995125, 0.0037077675378193076,
         0.010779873645539065, 0.011398983957599272, 0.013980811178648148, 0.017351612857651234,
         0.022372214936118875, 0.030381942709836546, 0.04464285717456202, 0.07499999999970865, 0.1666666666666676),
        (-0.017907419403532406, 0.038064601351446695, -0.05039300593206512, 0.05847887236612047,
         -0.06663103634639667, 0.07692060171902779, -0.09090897755511046, 0.11111110783429648, -0.14285714280198494,
         0.19999999999953666, -0.333333333333332),
        2.0**900,
        2.0**-900,
        2.0**128,
    ),
}  # fmt: skip


def _plus(base: Any, base_rest: Any, t: Scalar, rest: Scalar) -> Scalar:
    """base + base_rest + t + rest, base 0 or greater than t."""
    total = t + base
    return total + (((base - total) + t) + (rest + base_rest))


def _asin_parts(x: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """|x| > 1/2; s = |x| or sqrt((1 - |x|) / 2); asin s - s."""
    a = fabs(x)
    far = a > 0.5
    z = where(far, (1.0 - a) * 0.5, a * a)
    s = where(far, sqrt(z), a)
    return far, s, s * z * polynomial(z, _ARCS[x.dtype].asin)


def asin(x: Scalar) -> Scalar:
    """Angle in [-pi/2, pi/2] of the sine x; NaN outside [-1, 1]. Error: 1.2 ulp."""
    far, s, rest = _asin_parts(x)
    high, low = _ARCS[x.dtype].half_pi
    return copysign(where(far, _plus(high, low, s * -2.0, rest * -2.0), s + rest), x)


def acos(x: Scalar) -> Scalar:
    """Angle in [0, pi] of the cosine x; NaN outside [-1, 1]. Error: 1.2 ulp."""
    far, s, rest = _asin_parts(x)
    high, low = _ARCS[x.dtype].half_pi
    middle = _plus(high, low, copysign(s, -x), copysign(rest, -x))
    double = (s + rest) * 2.0
    return where(far, where(x > 0, double, _plus(2 * high, 2 * low, s * -2.0, rest * -2.0)), middle)


def atan(x: Scalar) -> Scalar:
    """Angle in [-pi/2, pi/2] of the tangent x. Error: 1.9 ulp, most where t is a rounded quotient of rounded sums."""
    arcs = _ARCS[x.dtype]
    high, low = arcs.half_pi
    a = fabs(x)
    middle, far = a > TAN_EIGHTH, a > 1 / TAN_EIGHTH
    t = where(far, -1.0, where(middle, a - 1.0, a)) / where(far, a, where(middle, a + 1.0, 1.0))
    z = t * t
    zero = x.dtype.type(0)
    base = where(far, x.dtype.type(high), where(middle, x.dtype.type(high / 2), zero))
    rest = where(far, x.dtype.type(low), where(middle, x.dtype.type(low / 2), zero))
    return copysign(_plus(base, rest, t, t * z * polynomial(z, arcs.atan)), x)


def _quotient(a: Scalar, b: Scalar, plain: Scalar) -> tuple[Scalar, Scalar]:
    """a / b where `plain`, else (a - b) / (a + b), as a sum of two, 0 <= a <= b."""
    difference, total = a - b, a + b
    n, d = where(plain, a, difference), where(plain, b, total)
    lost, more = a - (difference + b), a - (total - b)
    inverse = 1.0 / d
    t = n * inverse
    left = fmuladd(-t, d, n)
    return t, where(plain, left, left + fmuladd(-t, more, lost)) * inverse


def atan2(y: Scalar, x: Scalar) -> Scalar:
    """Angle of the point (x, y) in [-pi, pi], by C's rules at zeros and infinities. Error: 1.4 ulp."""
    arcs = _ARCS[x.dtype]
    kind = x.dtype.type
    high, low = arcs.half_pi
    up, across = fabs(y), fabs(x)
    steep = up > across
    least, most = where(steep, across, up), where(steep, up, across)
    infinite = most == INF
    scale = where(most > arcs.great, kind(1 / arcs.grow), where(most < arcs.small, kind(arcs.grow), kind(1)))
    corner = where(least == INF, kind(1), kind(0))
    least, most = where(infinite, corner, least * scale), where(infinite | (most == 0), 1.0, most * scale)
    middle = least > most * TAN_EIGHTH
    t, t_rest = _quotient(least, most, ~middle)
    z = t * t
    rest = fmuladd(t * z, polynomial(z, arcs.atan), t_rest)
    # the angle is j pi/4 + or - atan t
    left = bits(x) < 0
    j = where(middle, kind(1), kind(0))
    j = where(steep, 2.0 - j, j)
    j = where(left, 4.0 - j, j)
    flip = steep ^ left
    base = where(j == 3.0, kind(arcs.three[0]), j * (high * 0.5))
    base_rest = where(j == 3.0, kind(arcs.three[1]), j * (low * 0.5))
    angle = _plus(base, base_rest, where(flip, -t, t), where(flip, -rest, rest))
    return where((x != x) | (y != y), NAN, copysign(angle, y))

