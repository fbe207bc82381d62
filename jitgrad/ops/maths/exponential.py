"""exp, log and what is made of them: expm1, log1p, tanh, sigmoid."""

from __future__ import annotations

from typing import NamedTuple

from jitgrad.ops.maths.polynomials import polynomial
from jitgrad.ops.scalar import (
    FLOAT32,
    FLOAT64,
    INF,
    NAN,
    Scalar,
    bits,
    convert,
    copysign,
    fabs,
    fmuladd,
    from_bits,
    rarely,
    where,
)

LOG2_E = 1.4426950408889634
LN2 = 0.6931471805599453


class _Format(NamedTuple):
    """Constants of one dtype."""

    mantissa: int  # stored bits of it
    bias: int
    sqrt_half: int  # bits of sqrt(1/2)
    magic: float  # 1.5 * 2^mantissa: adding it rounds to an integer held in the low bits
    least_normal: float
    ln2: tuple[float, float]  # the first part short, so that k * ln2 is exact without fused multiply-add too
    safe: float  # exp of -safe..safe is a normal number
    low: float  # exp below is 0
    high: float  # exp above is inf
    tiny: float  # expm1 below -tiny is -1
    flat: float  # tanh beyond is 1
    exp: tuple[float, ...]  # (e^r - 1 - r) / r^2 on |r| <= ln2/2, highest power first
    expm1: tuple[float, ...]  # the same function, relative to e^r - 1
    half_expm1: tuple[float, ...]  # ((e^2r - 1) / 2 - r) / r^2 on |r| <= ln2/4, relative to (e^2r - 1) / 2

    @property
    def magic_bits(self) -> int:
        """The magic number as an integer."""
        return (self.bias + self.mantissa) << self.mantissa | 1 << (self.mantissa - 1)


FORMAT = {
    FLOAT32: _Format(
        23, 127, 0x3F3504F3, 12582912.0, 2.0**-126, (0.693145751953125, 1.428606765330187e-06),
        87.0, -104.0, 89.0, 30.0, 10.0,
        (0.0013814204139634967, 0.008368921466171741, 0.04166840761899948, 0.1666651964187622, 0.4999999403953552),
        (0.00019845958740916103, 0.0013940926874056458, 0.008333389647305012, 0.04166635870933533, 0.1666666567325592,
         0.5),
        (0.044424038380384445, 0.13386528193950653, 0.33333760499954224, 0.6666617393493652, 0.9999999403953552),
    ),
    FLOAT64: _Format(
        52, 1023, 0x3FE6A09E667F3BCD, 6755399441055744.0, 2.0**-1022, (0.693147180559663, 2.8235290563031577e-13),
        708.0, -746.0, 710.0, 50.0, 20.0,
        (2.4999775863209625e-08, 2.7630668879181997e-07, 2.7557589413294687e-06, 2.480149201157743e-05,
         0.00019841269500826545, 0.0013888888944578353, 0.008333333333498165, 0.041666666666527005,
         0.16666666666666405, 0.5000000000000011),
        (2.087532194966287e-09, 2.5109309553143027e-08, 2.755740360861581e-07, 2.755724350157667e-06,
         2.480158717029546e-05, 0.00019841269886749648, 0.0013888888888964072, 0.00833333333332142,
         0.041666666666666505, 0.16666666666666677, 0.5),
        (2.5655066700666157e-05, 0.00014144594616937142, 0.000705469641348958, 0.0031745926373180577,
         0.012698412619739554, 0.04444444458174353, 0.13333333333423933, 0.3333333333326089, 0.6666666666666635,
         1.000000000000001),
    ),
}  # fmt: skip

# (log(1+f) - f + f^2/2) / f^3 on [sqrt(1/2) - 1, sqrt(2) - 1]
_LOG32 = (-0.07634656876325607, 0.12765587866306305, -0.13161973655223846, 0.14201341569423676, -0.1662314534187317,
          0.20001237094402313, -0.2500082552433014, 0.3333333134651184)  # fmt: skip
# (2 artanh(s) - 2 s) / s^3 in s^2 on the same interval, s = f / (2 + f)
_LOG64 = (0.14799066596751145, 0.15313755817823235, 0.18183575158688656, 0.22222198378700816, 0.2857142874413823,
          0.3999999999940751, 0.6666666666666735)  # fmt: skip


def _power_of_two(n: Scalar, form: _Format) -> Scalar:
    """2^n for an exponent n of a normal number."""
    return from_bits((n + form.bias) << form.mantissa)


def _reduce(x: Scalar, form: _Format) -> tuple[Scalar, Scalar]:
    """The integer k nearest x / ln2, as the low bits of an integer, and r = x - k ln2."""
    shifted = fmuladd(x, LOG2_E, form.magic)
    k = shifted - form.magic
    return bits(shifted), fmuladd(k, -form.ln2[1], fmuladd(k, -form.ln2[0], x))


def _clamp(x: Scalar, low: float, high: float) -> Scalar:
    """x within [low, high]; NaN stays."""
    x = where(x < low, low, x)
    return where(x > high, high, x)


def exp(x: Scalar) -> Scalar:
    """e^x = 2^k e^r, x = k ln2 + r. Error: 0.99 ulp float32, 1.0 float64."""
    form = FORMAT[x.dtype]

    def parts(x: Scalar) -> tuple[Scalar, Scalar]:
        k, r = _reduce(x, form)
        return k, fmuladd(r * r, polynomial(r, form.exp), r) + 1.0

    def by_halves() -> Scalar:
        k, p = parts(_clamp(x, form.low, form.high))
        n = k - form.magic_bits
        half = n >> 1
        return p * _power_of_two(half, form) * _power_of_two(n - half, form)

    k, p = parts(x)
    # the magic number's bits end in zeros, so that shifting them out leaves k in the exponent field
    return rarely(~(fabs(x) <= form.safe), by_halves, from_bits(bits(p) + (k << form.mantissa)))


def _expm1_parts(x: Scalar, form: _Format) -> tuple[Scalar, Scalar]:
    """k and e^r - 1."""
    k, r = _reduce(x, form)
    return k, fmuladd(r * r, polynomial(r, form.expm1), r)


def expm1(x: Scalar) -> Scalar:
    """e^x - 1 = 2^k (e^r - 1) + (2^k - 1). Error: 1.4 ulp float32, 1.8 float64."""
    form = FORMAT[x.dtype]
    k, q = _expm1_parts(_clamp(x, -form.tiny, form.high), form)
    n = k - form.magic_bits
    scale = _power_of_two(n, form)

    def in_two() -> Scalar:
        half = _power_of_two(n - 1, form)
        return fmuladd(q, half, half) * 2.0

    large = rarely(~(x <= form.safe), in_two, fmuladd(q, scale, scale - 1.0))
    return copysign(large, x)  # the sign of -0, lost in r^2


def tanh(x: Scalar) -> Scalar:
    """t / (t + 1) with t = (e^2|x| - 1) / 2 = 2^k q + (2^k - 1) / 2, |x| = k ln2/2 + r, q = (e^2r - 1) / 2.

    Error: 2.52 ulp float32, 2.58 float64: three roundings, and a quotient near the top of its binade. One constant does
    for ln2/2, since the larger k is, the less e^2|x| counts.
    """
    form = FORMAT[x.dtype]
    a = fabs(x)
    a = where(a > form.flat, form.flat, a)
    shifted = fmuladd(a, 2 * LOG2_E, form.magic)
    r = fmuladd(shifted - form.magic, -0.5 * LN2, a)
    q = fmuladd(r * r, polynomial(r, form.half_expm1), r)
    # the magic number's bits end in zeros, so that shifting them out leaves k in the exponent field
    scale = from_bits((bits(shifted) << form.mantissa) + (form.bias << form.mantissa))
    t = fmuladd(q, scale, fmuladd(scale, 0.5, -0.5))
    return copysign(t / (t + 1.0), x)


def sigmoid(x: Scalar) -> Scalar:
    """1 / (1 + e^-x) with e^-|x| = s (1 + t), s = 2^k: d = 1 + s + s t is rounded once, then 1/d or s (1/d + t/d).

    Error: 1.75 ulp float32, 1.6 float64.
    """
    form = FORMAT[x.dtype]
    a = -fabs(x)
    k, r = _reduce(where(a < -form.safe, -form.safe, a), form)
    t = fmuladd(r * r, polynomial(r, form.expm1), r)
    scale = _power_of_two(k - form.magic_bits, form)
    total = fmuladd(scale, t, scale + 1.0)
    d = 1.0 / total
    lost = fmuladd(-total, d, 1.0)  # by the division; only the second case needs it
    return rarely(x < -form.safe, lambda: exp(x), where(x >= 0, d, scale * fmuladd(t + lost, d, d)))


def split(x: Scalar) -> tuple[Scalar, Scalar]:
    """x = 2^e m with m in [sqrt(1/2), sqrt(2)): e as an integer in the place of the exponent, and m."""
    form = FORMAT[x.dtype]
    e = (bits(x) - form.sqrt_half) & (-1 << form.mantissa)
    return e, from_bits(bits(x) - e)


def outside(x: Scalar) -> Scalar:
    """Whether x is anything but a positive normal number."""
    form = FORMAT[x.dtype]
    half = 1 << (8 * x.dtype.itemsize - 1)
    first, last = 1 << form.mantissa, (2 * form.bias + 1) << form.mantissa
    return bits(x) + (half - first) >= last - first - half  # bits - first >= last - first, as unsigned integers


def split_all(x: Scalar) -> tuple[Scalar, Scalar]:
    """2^mantissa e in the dtype of x, and m, for subnormal x too."""
    form = FORMAT[x.dtype]
    shift = form.mantissa + 1

    def scaled() -> tuple[Scalar, Scalar]:
        small = x < form.least_normal
        e, m = split(where(small, x * 2.0**shift, x))
        return convert(where(small, e - (shift << form.mantissa), e), x.dtype), m

    e, m = split(x)
    return rarely(outside(x), scaled, (convert(e, x.dtype), m))


def _log(f: Scalar, e: Scalar) -> Scalar:
    """log(1 + f) + e ln2, e given as 2^mantissa e."""
    form = FORMAT[f.dtype]
    high, low = (part * 2.0**-form.mantissa for part in form.ln2)
    z = f * f
    if f.dtype == FLOAT32:
        return fmuladd(e, LN2 * 2.0**-form.mantissa, fmuladd(z, fmuladd(f, polynomial(f, _LOG32), -0.5), f))
    s = f / (f + 2.0)
    half = z * 0.5
    z = s * s
    tail = fmuladd(s, fmuladd(z, polynomial(z, _LOG64), half), e * low)
    return fmuladd(e, high, f - (half - tail))


def log(x: Scalar) -> Scalar:
    """log x = e ln2 + log m, x = 2^e m. Error: 0.93 ulp float32, 0.82 float64."""
    e, m = split_all(x)
    value = _log(m - 1.0, e)
    edge = lambda: where(x > 0, where(x < INF, value, INF), where(x == 0, x.dtype.type(-INF), NAN))  # noqa: E731
    return rarely(outside(x), edge, value)


def log1p(x: Scalar) -> Scalar:
    """log(1 + x) = e ln2 + log(m + c), c what 1 + x lost to rounding, scaled. Error: 1.4 ulp."""
    form = FORMAT[x.dtype]
    u = x + 1.0
    e, m = split(u)
    lost = x - (u - 1.0)
    one, most = form.bias << form.mantissa, (form.bias - 1) << form.mantissa
    bounded = where(e > most, most, e)  # 2^-e must be normal
    f = fmuladd(lost, from_bits(one - bounded), m - 1.0)  # e = 0 gives x itself
    value = copysign(_log(f, convert(e, x.dtype)), x)
    edge = lambda: where(x == INF, INF, where(x == -1, x.dtype.type(-INF), NAN))  # noqa: E731
    return rarely(~((x > -1) & (x < INF)), edge, value)
