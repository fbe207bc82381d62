"""tan in the scalar language.

x = k pi/2 + r with |r| <= pi/4, r in two parts; then sin r / cos r, or -cos r / sin r where k is odd, numerator and
denominator in two parts as well, so that the quotient is rounded about once. Polynomials as in `circular`. Beyond
`limit`, and inside `rarely`, the quotient of `sin` and `cos`, which reduce any argument exactly.
"""

from __future__ import annotations

from typing import NamedTuple

from jitgrad.ops.maths.circular import cos, sin
from jitgrad.ops.maths.polynomials import polynomial
from jitgrad.ops.scalar import FLOAT32, FLOAT64, Scalar, bits, fabs, fmuladd, rarely, where

TWO_OVER_PI = 0.6366197723675814


class _Tangent(NamedTuple):
    """Constants of one dtype."""

    magic: float  # 1.5 * 2^mantissa bits: adding it rounds to an integer held in the low bits
    limit: float  # k pi/2 is exact enough in three parts
    half_pi: tuple[float, float, float]
    sin: tuple[float, ...]  # (sin r - r) / r^3 in r^2
    cos: tuple[float, ...]  # (cos r - 1 + r^2/2) / r^4


_TANGENT = {
    FLOAT32: _Tangent(
        12582912.0,
        131072.0,
        (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15),
        (-0.00019507887191139162, 0.008332106284797192, -0.16666653752326965),
        (2.4430084522464313e-05, -0.0013887297827750444, 0.04166664555668831),
    ),
    FLOAT64: _Tangent(
        6755399441055744.0,
        134217728.0,
        (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33),
        (1.589311080761278e-10, -2.5050695444326448e-08, 2.7557313298456567e-06, -0.00019841269828698062,
         0.008333333333321069, -0.16666666666666627),
        (-1.135574678104786e-11, 2.087564752626168e-09, -2.7557313791719716e-07, 2.4801587287528174e-05,
         -0.001388888888887097, 0.04166666666666658),
    ),
}  # fmt: skip


def tan(x: Scalar) -> Scalar:
    """Tangent of an angle in radians. Error: 1.0 ulp; 3.6 beyond 131072 in float32 and 2^27 in float64, where the
    errors of sin, cos and their quotient add up.
    """
    form = _TANGENT[x.dtype]
    shifted = fmuladd(x, TWO_OVER_PI, form.magic)
    k = shifted - form.magic
    first, second, third = form.half_pi
    a = fmuladd(k, -first, x)
    w = k * second
    b = a - w
    back = b - a
    rest = ((a - (b - back)) - (w + back)) - fmuladd(k, third, fmuladd(k, second, -w))
    r = b + rest
    r_rest = (b - r) + rest

    z = r * r
    tail = fmuladd(r * z, polynomial(z, form.sin), r_rest)
    s = r + tail
    s_rest = (r - s) + tail
    half = z * 0.5
    start = 1.0 - half
    tail = fmuladd(z * z, polynomial(z, form.cos), fmuladd(-r, r_rest, (1.0 - start) - half))
    c = start + tail
    c_rest = (start - c) + tail

    odd = (bits(shifted) & 1) != 0
    above, above_rest = where(odd, -c, s), where(odd, -c_rest, s_rest)
    below, below_rest = where(odd, s, c), where(odd, s_rest, c_rest)
    inverse = 1.0 / below
    q = above * inverse
    lost = fmuladd(-q, below, above) + fmuladd(-q, below_rest, above_rest)
    value = where(x == 0, x, fmuladd(lost, inverse, q))
    return rarely(~(fabs(x) < form.limit), lambda: sin(x) / cos(x), value)
