"""exp and log in float64 as sums of two numbers, which the functions made of them round once.

Each takes `short`, which shortens the polynomials to the needs of float32: a float32 function computed in float64 by
way of these is right to 0.51 ulp. Fits as in the package's docstring.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jitgrad.ops.maths.polynomials import polynomial
from jitgrad.ops.scalar import FLOAT32, FLOAT64, Scalar, bits, convert, fmuladd, from_bits, where

LOG2_E = 1.4426950408889634
LN2_SHORT, LN2_REST = 0.693147180559663, 2.8235290563031577e-13  # 41 bits, so that a product with an exponent is exact
_MAGIC = 6755399441055744.0  # 1.5 * 2^52: adding it rounds to an integer held in the low bits
_MAGIC_BITS = 0x4338000000000000
_SQRT_HALF = 0x3FE6A09E667F3BCD

# (e^r - 1 - r) / r^2 on |r| <= ln2/2
_EXP = (2.1017204018405953e-09, 2.511632675458493e-08, 2.755696658594888e-07, 2.7557222192536503e-06,
        2.4801587646320282e-05, 0.00019841269909424684, 0.001388888888874866, 0.008333333333311628,
        0.04166666666666686, 0.1666666666666669, 0.5)  # fmt: skip
_EXP_SHORT = (0.0001979000331345141, 0.0013944978415926675, 0.008333499072360733, 0.04166629071544444,
              0.16666665854480298, 0.5000000068825345)  # fmt: skip
# (2 artanh(s) - 2 s) / s^3 in s^2, s = f / (2 + f), f on [sqrt(1/2) - 1, sqrt(2) - 1]
_LOG = (0.13237525393135366, 0.13251858870447347, 0.15387000947176624, 0.1818177810060827, 0.22222222609780196,
        0.28571428569396, 0.40000000000004954, 0.6666666666666666)  # fmt: skip
_LOG_SHORT = (0.19586990248244074, 0.22176004635446359, 0.2857211322624859, 0.39999995586891984, 0.6666666667589263)


def in_float64(function: Callable[..., Any], *arguments: Scalar) -> Any:
    """A float64 function of `short` at the arguments; of float32 ones by the short polynomials, rounded."""
    short = arguments[0].dtype == FLOAT32
    return convert(function(*(convert(x, FLOAT64) for x in arguments), short=short), arguments[0].dtype)


def exp_short(x: Scalar) -> Scalar:
    """e^x to float32's needs, -700 <= x <= 700."""
    shifted = fmuladd(x, LOG2_E, _MAGIC)
    r = fmuladd(shifted - _MAGIC, -0.6931471805599453, x)
    p = fmuladd(r * r, polynomial(r, _EXP_SHORT), r) + 1.0
    return from_bits(bits(p) + (bits(shifted) << 52))  # the magic number's bits end in zeros


def power_of_two(n: Scalar) -> Scalar:
    """2^n as a double, n the exponent of a normal number."""
    return from_bits((n + 1023) << 52)


def exp_parts(x: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """k, high, low with e^x = 2^k (high + low), |x| <= 1e4. Error: 0.1 ulp."""
    shifted = fmuladd(x, LOG2_E, _MAGIC)
    k = shifted - _MAGIC
    first = fmuladd(k, -LN2_SHORT, x)
    r = fmuladd(k, -LN2_REST, first)
    rest = fmuladd(k, -LN2_REST, first - r)
    tail = fmuladd(rest, r, fmuladd(r * r, polynomial(r, _EXP), rest))
    t = r + tail
    high = t + 1.0
    return bits(shifted) - _MAGIC_BITS, high, ((1.0 - high) + t) + ((r - t) + tail)


def split(x: Scalar) -> tuple[Scalar, Scalar]:
    """x = 2^e m with m in [sqrt(1/2), sqrt(2)), x positive and normal: e as an integer, and m."""
    e = (bits(x) - _SQRT_HALF) >> 52
    return e, from_bits(bits(x) - (e << 52))


def log_parts(f: Scalar, low: Any = 0.0, short: bool = False) -> tuple[Scalar, Scalar]:
    """log(1 + f + low) as high + low, 1 + f in [sqrt(1/2), sqrt(2)] and low far below f. Error: 0.2 ulp."""
    s = f / (f + 2.0)
    z = s * s
    half = f * f * 0.5
    high = f - half
    rest = (f - high) - half
    tail = fmuladd(s, fmuladd(z, polynomial(z, _LOG_SHORT if short else _LOG), half), rest)
    return high, tail if short else fmuladd(low, fmuladd(f, f - 1.0, 1.0), tail)


def log1p_parts(x: Scalar, low: Any = 0.0, short: bool = False) -> tuple[Scalar, Scalar]:
    """log(1 + x + low) as high + low for -1/4 <= x < 2^1000. Error: 0.2 ulp."""
    u = x + 1.0
    back = u - 1.0
    lost = (1.0 - (u - back)) + (x - back)
    e, m = split(u)
    scale = power_of_two(-e)
    first = m - 1.0
    f = fmuladd(lost, scale, first)
    rest = fmuladd(lost, scale, first - f)
    high, tail = log_parts(f, fmuladd(low, scale, rest), short)
    return add_exponent(convert(e, FLOAT64), high, tail)


def add_exponent(e: Scalar, high: Scalar, low: Scalar) -> tuple[Scalar, Scalar]:
    """e ln2 + high + low as high + low."""
    base = e * LN2_SHORT
    total = base + high
    return total, fmuladd(e, LN2_REST, ((base - total) + high) + low)


def normal(x: Scalar) -> tuple[Scalar, Scalar]:
    """x scaled out of the subnormal range, and the exponent to add for it."""
    small = x < 2.0**-1022
    return where(small, x * 2.0**54, x), where(small, x.dtype.type(-54), 0.0)
