"""Normal and exponential numbers from random bits, by their quantile functions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jitgrad.ops.maths.exponential import log, log1p
from jitgrad.ops.maths.polynomials import polynomial
from jitgrad.ops.scalar import (
    FLOAT32,
    FLOAT64,
    INT32,
    Scalar,
    convert,
    copysign,
    fmuladd,
    from_bits,
    rarely,
    sqrt,
    ushr,
    where,
)

# With w = -log(1 - v^2), the quantile of v in (-1, 1) is v f(w) (Giles, "Approximating the erfinv function", 2011);
# f itself is fitted up to the first bound, then in sqrt(w): (centre, coefficients), highest power first.
Fit = tuple[float, tuple[float, ...]]


class _Format(NamedTuple):
    """Constants of one float dtype."""

    top: int                    # the greatest integer of its width
    unit: float                 # 1 over (top + 1)
    middle: Fit
    edge: float                 # w from which the tail's fit holds
    tail: Fit
    far: tuple[float, Fit] | None


_FORMAT = {
    FLOAT32: _Format(
        2**31 - 1, 2.0**-31,
        (2.5, (-1.2631651280514689e-08, 3.3002041988083874e-08, 6.620376780119841e-07, -4.8988149501383305e-06,
               -7.0320634222298395e-06, 0.0003087926597800106, -0.0017716226866468787, -0.005907725542783737,
               0.34880203008651733, 2.1233134269714355)), 5.0,
        (3.468033988749895,
         (8.20734931039624e-06, -2.867960029107053e-05, 1.207182231155457e-05, 0.00011351698049111292,
          -0.00035765007487498224, 0.0006850397912785411, -0.0010814231354743242, 0.0017088080057874322,
          -0.003126245690509677, 0.004923953674733639, 1.4243292808532715, 4.671554088592529)), None),
    FLOAT64: _Format(
        2**63 - 1, 2.0**-63,
        (3.125, (4.583048198098026e-21, -1.5747038487797289e-21, -4.949188055590375e-19, 1.626377065902945e-18,
                 2.2025414916964945e-17, -1.8408716141787847e-16, -5.69675689717853e-17, 9.328729249848027e-15,
                 -5.6586046712459645e-14, -1.148115059715793e-13, 3.720065404608353e-12, -1.8352087508984784e-11,
                 -7.65695838611443e-11, 1.4866469703719082e-09, -5.816180709117321e-09, -4.111172885960201e-08,
                 5.988894869140176e-07, -1.931065040514895e-06, -1.9632852864329775e-05, 0.0002640820495474566,
                 -0.001047511569485382, -0.008532899177268757, 0.3396349587011389, 2.338620710026593)), 6.25,
        (3.25, (1.086144367925511e-08, -2.1645101378422093e-08, -2.9577616711065917e-08, 1.8609160643477796e-07,
                -3.4718686931759373e-07, -3.905656539146738e-08, 2.095295684926237e-06, -5.636639403966729e-06,
                4.147292224329104e-06, 1.7628211970051742e-05, -6.69215483778014e-05, 9.657256755186482e-05,
                3.398569141909899e-05, -0.0005020992914103871, 0.001348154715727325, -0.0023875821592544704,
                0.0035234312047980106, -0.005305009947620765, 0.0075956202039845645, 1.4216508658102658,
                4.36127285516533)),
        (4.0, (5.325,
               (-6.391819367560508e-13, 1.9357158114926662e-12, 2.1706406972445722e-12, -1.7406465780733807e-11,
                4.537758286910999e-11, -1.2569078961785252e-10, 3.3830475430129806e-10, -7.329313275148452e-10,
                1.4039062120934267e-09, -2.8868520719304503e-09, 8.047392960525625e-09, -3.2739021723459314e-08,
                1.6078850146781253e-07, -8.119457522397419e-07, 3.957834576168635e-06, -1.7950833663110735e-05,
                7.091421700517897e-05, -0.0001898787762201923, -0.000433144594535665, 1.4285700754327078,
                7.323127055094251)))),
}  # fmt: skip


def _float(i: Scalar) -> Scalar:
    """An integer that is not negative in the float of its width, rounded once."""
    if i.dtype == INT32:
        return convert(i, FLOAT32)
    # by parts in the low bits of 2^84 and 2^52: few processors convert 64-bit integers in vectors
    high = from_bits(ushr(i, 32) | 0x4530000000000000) - (2.0**84 + 2.0**52)
    return high + from_bits((i & 0xFFFFFFFF) | 0x4330000000000000)


def _ends(i: Scalar) -> tuple[Any, Any, _Format]:
    """|v| and 1 - |v| for v = (2 i + 1) / 2^32 (2^64): both taken in integers, so that neither loses digits."""
    dtype = _dtype(i)
    form = _FORMAT[dtype]
    size = i ^ (i >> (8 * dtype.itemsize - 1))          # ~i where it is negative
    return (_float(size) + 0.5) * form.unit, (_float(form.top - size) + 0.5) * form.unit, form


def _dtype(i: Scalar) -> np.dtype[Any]:
    return FLOAT32 if i.dtype == INT32 else FLOAT64


def normal(i: Scalar, share: float) -> Any:
    """The quantile at (1 + v share) / 2: the middle ``share`` of the normal distribution; exactly symmetric.

    Error: 2.9 ulp float32, 3.6 float64.
    """
    v, d, form = _ends(i)
    if share != 1.0:
        v, d = v * share, fmuladd(d, share, 1.0 - share)
    w = -log(d * (2.0 - d))
    centre, coefficients = form.middle
    value = v * polynomial(w - centre, coefficients)

    def tail() -> Any:
        s = sqrt(w)
        centre, coefficients = form.tail
        out = polynomial(s - centre, coefficients)
        if form.far is not None:
            bound, (centre, coefficients) = form.far
            out = where(s > bound, polynomial(s - centre, coefficients), out)
        return v * out

    positive = v.dtype.type(1)
    return copysign(rarely(w > form.edge, tail, value), where(i < 0, -positive, positive))


def exponential(i: Scalar) -> Scalar:
    """-log(p) at p = (1 + v) / 2, near 1 by log1p: exact towards 0 as well. Error: 1.5 ulp."""
    _, d, _ = _ends(i)
    half = d * 0.5                     # p or 1 - p, whichever is less
    return where(i < 0, -log(half), -log1p(-half))
