"""sin and cos in the scalar language.

x = k pi/2 + r with |r| <= pi/4, then sin r and cos r as minimax polynomials in r^2 (Remez exchange on the relative
error, coefficients rounded to the dtype), chosen and signed by k mod 4. Up to `limit` k pi/2 is taken off with pi/2 in
three parts; beyond, and inside `rarely`, k and r come from the product of the mantissa of x with the bits of 2/pi that
matter (Payne and Hanek), exact modulo 4. The first step of the fast reduction is exact only with hardware fused
multiply-add; without it the absolute error near multiples of pi is that of x.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

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

TWO_OVER_PI = 0.6366197723675814


class _Circle(NamedTuple):
    """Constants of one dtype."""

    magic: float  # 1.5 * 2^mantissa bits: adding it rounds to an integer held in the low bits
    limit: float  # k stays far below the magic number's range, and x * 2/pi within 0.02 of true
    half_pi: tuple[float, float, float]
    sin: tuple[float, ...]  # (sin r - r) / r^3, highest power of r^2 first
    cos: tuple[float, ...]  # (cos r - 1 + r^2/2) / r^4


_CIRCLE = {
    FLOAT32: _Circle(
        12582912.0,
        131072.0,
        (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15),
        (-0.0001950874284375459, 0.008332112804055214, -0.16666653752326965),
        (2.4425684387097135e-05, -0.0013887251261621714, 0.04166664555668831),
    ),
    FLOAT64: _Circle(
        6755399441055744.0,
        134217728.0,
        (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33),
        (1.5892961187647158e-10, -2.50506924679591e-08, 2.7557313275989696e-06, -0.00019841269828618763,
         0.00833333333332094, -0.16666666666666627),
        (-1.1356266379656548e-11, 2.0875657571891098e-09, -2.7557313865577966e-07, 2.4801587287783192e-05,
         -0.0013888888888871375, 0.04166666666666658),
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


def _reduce(x: Scalar) -> tuple[Scalar, Scalar]:
    """An integer k (its low two bits count) and r = x - k pi/2."""
    circle = _CIRCLE[x.dtype]
    shifted = fmuladd(x, TWO_OVER_PI, circle.magic)
    k = shifted - circle.magic
    r = x
    for part in circle.half_pi:
        r = fmuladd(k, -part, r)
    slow = _reduce_large32 if x.dtype == FLOAT32 else _reduce_large64
    return rarely(~(fabs(x) < circle.limit), lambda: slow(x), (bits(shifted), r))


def _reduce_large32(x: Scalar) -> tuple[Scalar, Scalar]:
    """|x| = m 2^e; m times the 96 bits of 2/pi after the first e - 2, whose product counts modulo 4."""
    pattern = convert(bits(x), INT64)
    m = (pattern & 0x7FFFFF) | 0x800000
    start = (ushr(pattern & 0x7FFFFFFF, 23) - 150) - 2 + 32
    first, shift = start >> 5, start & 31
    words = [table(_WORDS32, first + j, INT64) for j in range(4)]
    w0, w1, w2 = (ushr(((a << 32) | b) << shift, 32) for a, b in pairwise(words))
    product = ((m * w0) << 32) + m * w1 + ushr(m * w2, 32)
    k = ushr(product + (1 << 61), 62)
    fraction = convert(product - (k << 62), FLOAT64)
    r = convert(fraction * (np.pi / 2 * 2.0**-62), FLOAT32)
    k = convert(k, np.int32)
    negative = x < 0
    return where(negative, -k, k), where(fabs(x) < INF, where(negative, -r, r), NAN)


def _reduce_large64(x: Scalar) -> tuple[Scalar, Scalar]:
    """As for float32, with 192 bits of 2/pi and the fraction in two doubles."""
    pattern = bits(x)
    m = (pattern & 0xFFFFFFFFFFFFF) | (1 << 52)
    start = ((ushr(pattern, 52) & 0x7FF) - 1075) - 2 + 64
    first, shift = start >> 6, start & 63
    words = [table(_WORDS64, first + j, INT64) for j in range(4)]
    # two shifts, since a shift by 64 is not defined
    w0, w1, w2 = ((a << shift) | ushr(ushr(b, 1), 63 - shift) for a, b in pairwise(words))
    low = m * w1
    below = low + mulhi64(m, w2)
    product = m * w0 + mulhi64(m, w1) + where(ult(below, low), np.int64(1), 0)
    k = ushr(product + (1 << 61), 62)
    fraction = product - (k << 62)
    a, b = convert(fraction >> 32, FLOAT64) * 2.0**-30, convert(fraction & 0xFFFFFFFF, FLOAT64) * 2.0**-62
    c, d = convert(ushr(below, 32), FLOAT64) * 2.0**-94, convert(below & 0xFFFFFFFF, FLOAT64) * 2.0**-126
    high = a + b
    rest = (b - (high - a)) + (c + d)
    half_pi, half_pi_rest, _ = _CIRCLE[FLOAT64].half_pi
    r = high * half_pi
    r = r + fmuladd(high, half_pi_rest, fmuladd(rest, half_pi, fmuladd(high, half_pi, -r)))
    negative = x < 0
    return where(negative, -k, k), where(fabs(x) < INF, where(negative, -r, r), NAN)


def _sin_cos(x: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """k, sin r, cos r."""
    circle = _CIRCLE[x.dtype]
    k, r = _reduce(x)
    z = r * r
    s = fmuladd(r * z, polynomial(z, circle.sin), r)
    c = fmuladd(z * z, polynomial(z, circle.cos), fmuladd(z, -0.5, 1.0))
    return k, s, c


def _signed(value: Scalar, k: Scalar) -> Scalar:
    """-value where bit 1 of k is set."""
    return from_bits(bits(value) ^ ((k & 2) << (8 * value.dtype.itemsize - 2)))


def sin(x: Scalar) -> Scalar:
    """sin x. Error: 1.54 ulp."""
    k, s, c = _sin_cos(x)
    return where(x == 0, x, _signed(where((k & 1) != 0, c, s), k))  # the polynomial loses the sign of -0


def cos(x: Scalar) -> Scalar:
    """cos x. Error: 1.54 ulp."""
    k, s, c = _sin_cos(x)
    return _signed(where((k & 1) != 0, s, c), k + 1)
