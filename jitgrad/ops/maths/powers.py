"""pow: log2 of the base in two numbers, times the exponent, and 2 to that; everything unusual in one rare branch.

Fits as in the package's docstring. Written for a short chain of dependent steps, which bounds the speed of so long a
body: the errors of quotient, products and sums are gathered beside it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from jitgrad.ops.maths.exponential import FORMAT, LN2, outside, split, split_all
from jitgrad.ops.maths.parts import exp_short, log_parts
from jitgrad.ops.maths.parts import split as split64
from jitgrad.ops.maths.polynomials import estrin
from jitgrad.ops.scalar import (
    FLOAT32,
    FLOAT64,
    INF,
    NAN,
    Scalar,
    bits,
    convert,
    fabs,
    fmuladd,
    from_bits,
    rarely,
    rint,
    where,
)


class _Base2(NamedTuple):
    """Constants of one dtype."""

    first: tuple[float, float]  # 2 / ln2 in two numbers
    rest: tuple[float, ...]  # float32: (log2((1+s) / (1-s)) - 2 s / ln2) / s^3 in s^2; float64: what is left after s^3
    third: tuple[float, float]  # 2 / (3 ln2); float64 only
    exp2: tuple[float, ...]  # (2^r - 1) / r on |r| <= 1/2
    far: float  # of the product with the first number of log2; beyond, the result may not be a normal number
    most: float  # beyond, it is 0 or inf


_BASE2 = {
    FLOAT32: _Base2(
        (2.885390043258667, 3.851926067000022e-08),
        (0.3402128219604492, 0.41170668601989746, 0.5770828723907471, 0.9617967009544373),
        (0.0, 0.0),
        (0.00015353257185779512, 0.0013399003073573112, 0.00961843878030777, 0.05550331994891167, 0.24022647738456726,
         0.6931471824645996),
        124.0, 160.0,
    ),
    FLOAT64: _Base2(
        (2.8853900817779268, 4.0710547481862066e-17),
        (0.19037972831337793, 0.1912558077498914, 0.2219839684862317, 0.26230770179541185, 0.3205989022654914,
         0.41219858309198765, 0.5770780163556178),
        (0.9617966939259756, 5.0577616648125907e-17),
        (4.434751781233103e-10, 7.073820901056162e-09, 1.0178200013095944e-07, 1.321543507673501e-06,
         1.5252733491291238e-05, 0.00015403530457493747, 0.0013333558146777361, 0.009618129107593845,
         0.05550410866482007, 0.24022650695910133, 0.6931471805599453),
        1020.0, 1100.0,
    ),
}  # fmt: skip


def pow(x: Scalar, y: Scalar) -> Scalar:
    """x^y with the special cases of IEEE 754: 2^(y log2|x|), the sign and the edges apart.

    Error: 1.7 ulp float64; 3.1 float32, near the ends of the range: log2 in two floats is right to about 2^-30, and
    results up to 2^127 make 0.5 to 1 ulp of that; the second part of the product, up to 1, is rounded to 2^-24.
    """
    form, base = FORMAT[x.dtype], _BASE2[x.dtype]
    magnitude = fabs(x)
    high, low = _log2_32(magnitude) if x.dtype == FLOAT32 else _log2_64(magnitude)
    product = y * high
    rest = fmuladd(y, low, fmuladd(y, high, -product))
    k, p = _exp2(product, rest)
    value = from_bits(bits(p) + (k << form.mantissa))  # the magic number's bits end in zeros
    far = ~(fabs(product) < base.far)

    def unusual() -> Scalar:
        if x.dtype == FLOAT32:
            inside = rarely(far | outside(magnitude), lambda: _pow32_wide(magnitude, y), value)
        else:
            inside = _by_halves(product, rest)
        return _edges(x, y, inside)

    return rarely(far | outside(x), unusual, value)


def _exp2(product: Scalar, rest: Scalar) -> tuple[Scalar, Scalar]:
    """k, as the low bits of an integer, and p with 2^(product + rest) = 2^k p."""
    form, base = FORMAT[product.dtype], _BASE2[product.dtype]
    shifted = (product + rest) + form.magic
    r = (product - (shifted - form.magic)) + rest
    return bits(shifted), fmuladd(r, estrin(r, base.exp2), 1.0)


def _quotient(m: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """s = (m - 1)/(m + 1) rounded, what the division left, and (2 / ln2) / (m + 1)."""
    f, d = m - 1.0, m + 1.0
    s = f / d
    slope = fmuladd(s, -0.5 * _BASE2[m.dtype].first[0], 0.5 * _BASE2[m.dtype].first[0])  # 1 / d = (1 - s) / 2
    return s, fmuladd(-s, m - (d - 1.0), fmuladd(-s, d, f)), slope


def _log2_32(x: Scalar) -> tuple[Scalar, Scalar]:
    """log2 x = e + 2 s / ln2 + s^3 R(s^2) to about 2^-30, as a float and a hundredth of it, for normal x > 0."""
    base, unit = _BASE2[FLOAT32], 2.0**-23
    e, m = split(x)
    exponent = convert(e, FLOAT32)
    s, left, slope = _quotient(m)
    a = s * base.first[0]
    total = fmuladd(exponent, unit, a)
    rest: Any = fmuladd(s, base.first[0], -a) + (a - fmuladd(exponent, -unit, total))
    z = s * s
    rest = fmuladd(left, fmuladd(slope, z, slope), rest)
    return total, fmuladd(s, fmuladd(z, estrin(z, base.rest), base.first[1]), rest)


def _log2_64(x: Scalar) -> tuple[Scalar, Scalar]:
    """log2 x = e + 2 s / ln2 + 2 s^3 / (3 ln2) + s^5 R(s^2) to about 2^-65, as a double and a thousandth of it."""
    base, unit = _BASE2[FLOAT64], 2.0**-52
    exponent, m = split_all(x)
    s, left, slope = _quotient(m)
    a = s * base.first[0]
    first = fmuladd(exponent, unit, a)
    rest: Any = fmuladd(s, base.first[0], -a) + (a - fmuladd(exponent, -unit, first))
    z = s * s
    u = s * base.third[0]
    c = u * z
    u_rest = fmuladd(s, base.third[1], fmuladd(s, base.third[0], -u))
    c_rest = fmuladd(u_rest, z, fmuladd(u, fmuladd(s, s, -z), fmuladd(u, z, -c)))
    total = first + c
    rest = (rest + (c - (total - first))) + fmuladd(s, base.first[1], c_rest)
    rest = fmuladd(left, fmuladd(fmuladd(slope, z, slope), z, slope), rest)
    return total, fmuladd(s * z * z, estrin(z, base.rest), rest)


def _by_halves(product: Scalar, rest: Scalar) -> Scalar:
    """2^(product + rest) where it may overflow or be subnormal."""
    form, most = FORMAT[product.dtype], _BASE2[product.dtype].most
    bounded = where(product < -most, -most, product)
    bounded = where(bounded > most, most, bounded)
    k, p = _exp2(bounded, where(bounded == product, rest, 0.0))
    n = k - form.magic_bits
    half = n >> 1
    one = form.bias << form.mantissa
    return p * from_bits((half << form.mantissa) + one) * from_bits(((n - half) << form.mantissa) + one)


def _pow32_wide(x: Scalar, y: Scalar) -> Scalar:
    """In float64, for any x > 0."""
    e, m = split64(convert(x, FLOAT64))
    high, low = log_parts(m - 1.0, short=True)
    product = convert(y, FLOAT64) * fmuladd(convert(e, FLOAT64), LN2, high + low)
    product = where(product < -200.0, -200.0, product)
    return convert(exp_short(where(product > 200.0, 200.0, product)), FLOAT32)


def _edges(x: Scalar, y: Scalar, value: Scalar) -> Scalar:
    """x <= 0, infinite or NaN, or y infinite or NaN; value = |x|^y where both are finite and x is not 0."""
    magnitude = fabs(x)
    whole = y == rint(y)
    odd = whole & (y * 0.5 != rint(y * 0.5))
    zero, infinite = x.dtype.type(0), x.dtype.type(INF)
    value = where((magnitude == 0) | (magnitude == INF), where((magnitude == 0) ^ (y > 0), infinite, zero), value)
    steep = where(magnitude == 1, x.dtype.type(1), where((magnitude > 1) ^ (y < 0), infinite, zero))
    value = where(fabs(y) == INF, steep, value)
    negative = bits(x) < 0
    value = where(negative & odd, -value, value)
    value = where((x < 0) & (x > -INF) & ~whole, NAN, value)
    value = where((x != x) | (y != y), NAN, value)
    return where((x == 1) | (y == 0), 1.0, value)
