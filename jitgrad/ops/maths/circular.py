"""sin and cos in the scalar language.

|x| = k pi + r for sin and (k + 1/2) pi - r for cos, |r| <= pi/2; then both are sin r, one minimax polynomial in r^2
(Remez exchange on the relative error, coefficients rounded to the dtype), negated where k is odd. Up to `limit` the
multiple is taken off with pi in three parts; beyond, and inside `rarely`, k and r come from the product of the mantissa
of x with the bits of 2/pi that matter (Payne and Hanek), exact modulo 2 pi. The first step of the fast reduction is
exact only with hardware fused multiply-add; without it the absolute error near multiples of pi is that of x.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from jitgrad.ops.maths.polynomials import polynomial
from jitgrad.ops.scalar import (
    FLOAT32,
    FLOAT64,
    INF,
    INT64,
    NAN,
    Scalar,
    bits,
    convert,
    fabs,
    fmuladd,
    from_bits,
    mulhi64,
    rarely,
    table,
    ult,
    ushr,
    where,
)

ONE_OVER_PI = 0.3183098861837907


class _Circle(NamedTuple):
    """Constants of one dtype."""

    magic: float  # 1.5 * 2^mantissa bits: adding it rounds to an integer held in the low bits
    limit: float  # k stays far below the magic number's range, and x / pi within 0.002 of true
    pi: tuple[float, float, float]
    sin: tuple[float, ...]  # (sin r - r) / r^3, highest power of r^2 first


_CIRCLE = {
    FLOAT32: _Circle(
        12582912.0,
        131072.0,
        (3.1415927410125732, -8.742277657347586e-08, -3.4302490200117637e-15),
        (2.6051820896100253e-06, -0.00019809346122201532, 0.008333062753081322, -0.16666659712791443),
    ),
    FLOAT64: _Circle(
        6755399441055744.0,
        134217728.0,
        (3.141592653589793, 1.2246467991473532e-16, -2.9947698097183397e-33),
        (2.720814291944557e-15, -7.64295788386032e-13, 1.605893844077352e-10, -2.5052106848184034e-08,
         2.7557319210874754e-06, -0.00019841269841207727, 0.008333333333333191, -0.16666666666666666),
    ),
}  # fmt: skip

# 2/pi = 0.a2f9836e4e44... in base 16, after one word of zeros.
_TWO_OVER_PI = """
    00000000 00000000 a2f9836e 4e441529 fc2757d1 f534ddc0 db629599 3c439041 fe5163ab debbc561 b7246e3a 424dd2e0
    06492eea 09d1921c fe1deb1c b129a73e e88235f5 2ebb4484 e99c7026 b45f7e41 3991d639 835339f4 9c845f8b bdf9283b
    1ff897ff de05980f ef2f118b 5a0a6d1f 6d367ecf 27cb09b7 4f463f66 9e5fea2d 7527bac7 ebe5f17b 3d0739f7 8a5292ea
    6bfb5fb1 1f8d5d08 56033046 fc7b6bab
""".split()
_WORDS32 = tuple(int(w, 16) for w in _TWO_OVER_PI[1:10])
_WORDS64 = tuple(int(a + b, 16) for a, b in zip(_TWO_OVER_PI[::2], _TWO_OVER_PI[1::2], strict=True))


def _reduce(a: Scalar, quarter: bool) -> tuple[Scalar, Scalar]:
    """An integer k (its lowest bit counts) and r with a = k pi + r, or with a = (k + 1/2) pi - r; a >= 0."""
    circle = _CIRCLE[a.dtype]
    shifted: Any
    k: Any
    r: Any
    if quarter:
        shifted = fmuladd(a, ONE_OVER_PI, -0.5) + circle.magic
        k, r = (shifted - circle.magic) + 0.5, -a
    else:
        shifted = fmuladd(a, ONE_OVER_PI, circle.magic)
        k, r = -(shifted - circle.magic), a
    for part in circle.pi:
        r = fmuladd(k, part, r)
    slow = _reduce_large32 if a.dtype == FLOAT32 else _reduce_large64
    return rarely(~(a < circle.limit), lambda: slow(a, quarter), (bits(shifted), r))


def _half_turns(product: Any, quarter: bool) -> tuple[Scalar, Scalar]:
    """k, and the signed rest, of an angle in units of 2^-62 right angles modulo 4 right angles."""
    if quarter:
        product = product - (1 << 62)
    k = ushr(product + (1 << 62), 63)
    return k, product - (k << 63)


def _reduce_large32(a: Scalar, quarter: bool) -> tuple[Scalar, Scalar]:
    """a = m 2^e; m times the 96 bits of 2/pi after the first e - 2, whose product counts modulo 4."""
    pattern = convert(bits(a), INT64)
    m = (pattern & 0x7FFFFF) | 0x800000
    start = (ushr(pattern, 23) - 150) - 2 + 32
    first, shift = start >> 5, start & 31
    words = [table(_WORDS32, first + j, INT64) for j in range(4)]
    w0, w1, w2 = (ushr(((a << 32) | b) << shift, 32) for a, b in pairwise(words))
    k, fraction = _half_turns(((m * w0) << 32) + m * w1 + ushr(m * w2, 32), quarter)
    r = convert(convert(fraction, FLOAT64) * (np.pi / 2 * 2.0**-62), FLOAT32)
    return convert(k, np.int32), where(a < INF, -r if quarter else r, NAN)


def _reduce_large64(a: Scalar, quarter: bool) -> tuple[Scalar, Scalar]:
    """As for float32, with 192 bits of 2/pi and the fraction in two doubles."""
    pattern = bits(a)
    m = (pattern & 0xFFFFFFFFFFFFF) | (1 << 52)
    start = (ushr(pattern, 52) - 1075) - 2 + 64
    first, shift = start >> 6, start & 63
    words = [table(_WORDS64, first + j, INT64) for j in range(4)]
    # two shifts, since a shift by 64 is not defined
    w0, w1, w2 = ((a << shift) | ushr(ushr(b, 1), 63 - shift) for a, b in pairwise(words))
    low = m * w1
    below = low + mulhi64(m, w2)
    product = m * w0 + mulhi64(m, w1) + where(ult(below, low), np.int64(1), 0)
    k, fraction = _half_turns(product, quarter)
    parts = (fraction >> 32, fraction & 0xFFFFFFFF, ushr(below, 32), below & 0xFFFFFFFF)
    a0, a1, a2, a3 = (convert(p, FLOAT64) * 2.0**s for p, s in zip(parts, (-30, -62, -94, -126), strict=True))
    high = a0 + a1
    rest = (a1 - (high - a0)) + (a2 + a3)
    half_pi, half_pi_rest = (0.5 * part for part in _CIRCLE[FLOAT64].pi[:2])
    r = high * half_pi
    r = r + fmuladd(high, half_pi_rest, fmuladd(rest, half_pi, fmuladd(high, half_pi, -r)))
    return k, where(a < INF, -r if quarter else r, NAN)


def _sin_pi(r: Scalar, k: Scalar) -> Scalar:
    """sin r, negated where k is odd."""
    z = r * r
    s = fmuladd(r * z, polynomial(z, _CIRCLE[r.dtype].sin), r)
    return from_bits(bits(s) ^ (k << (8 * r.dtype.itemsize - 1)))


def sin(x: Scalar) -> Scalar:
    """sin x. Error: 1.97 ulp float32, 1.65 float64."""
    a = fabs(x)
    k, r = _reduce(a, quarter=False)
    return from_bits(bits(_sin_pi(r, k)) ^ (bits(x) ^ bits(a)))  # the sign of x, -0 included


def cos(x: Scalar) -> Scalar:
    """cos x. Error: 1.97 ulp float32, 1.65 float64."""
    k, r = _reduce(fabs(x), quarter=True)
    return _sin_pi(r, k)
