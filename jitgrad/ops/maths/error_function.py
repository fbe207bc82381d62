"""erf and erfc.

Near 0 erf(x) = x + x P(x^2). Further out erf is 1 less something whose relative error counts for little: in float32 the
eighth power of 1 / P(x), in float64 exp(-x^2) P(t), t = (x - 2) / (x + 2). erfc needs that something to the last bit:
exp(-x^2) P(t) / (1 + 2 x), t = (x - c) / (x + c), the square in two parts. Fits as in the package's docstring.
"""

from __future__ import annotations

from jitgrad.ops.maths.exponential import exp
from jitgrad.ops.maths.polynomials import polynomial
from jitgrad.ops.scalar import FLOAT32, FLOAT64, Scalar, copysign, fabs, fmuladd, where

_SMALL32 = (6.524777563754469e-05, -0.0007561054662801325, 0.005131084006279707, -0.026820017024874687,
            0.11282679438591003, -0.37612536549568176, 0.12837915122509003)  # fmt: skip
_EIGHTH = (0.000705994083546102, -0.0060493252240121365, 0.028636259958148003, -0.06468300521373749,
           0.1281203180551529, -0.005831570830196142, 0.18995749950408936, 0.9892510771751404)  # fmt: skip
_SMALL64 = (-7.604630369333642e-10, 1.3615177289892667e-08, -1.6183682633919937e-07, 1.644411603174108e-06,
            -1.4924463308694137e-05, 0.00012055280399402391, -0.0008548325482537867, 0.005223977596700208,
            -0.026866170641956545, 0.11283791670936943, -0.37612638903183343, 0.12837916709551256)  # fmt: skip
_LARGE64 = (-1.2850616726394177e-05, -2.6878883513339145e-05, 2.7505234573629538e-05, 0.0001742772749256892,
            4.35427221279479e-05, -0.000981974555941038, -0.0008471425293960874, 0.006997461747776176,
            0.0037328923942854943, -0.07897858101634536, 0.2416581942424936, -0.42718584741395627,
            0.25539567631050575)  # fmt: skip
# by dtype: c, where erfc is 0, P for |x| < 1/2 and for the rest
_COMPLEMENT = {
    FLOAT32: (2.0, 10.5, (0.004719264805316925, -0.02675829641520977, 0.11282850801944733, -0.37612611055374146,
                          0.12837916612625122),
              (-0.0013187510194256902, 0.0009488504147157073, 0.008694401942193508, -0.007947406731545925,
               -0.05421829596161842, 0.16404232382774353, -0.1660303920507431, -0.09276357293128967,
               1.2769783735275269)),
    FLOAT64: (4.0, 27.5, (1.4431997522308895e-06, -1.4816915486865774e-05, 0.00012052180115007812,
                          -0.0008548273802704107, 0.0052239770986795, -0.02686617061588455, 0.11283791670873833,
                          -0.3761263890318288, 0.12837916709551256),
              (-1.0176245553724428e-08, -1.2218430281057182e-08, 1.0472905323482524e-07, 6.700542187482599e-08,
               -8.212722234856701e-07, 2.995835591160392e-07, 5.707669772877429e-06, -1.1224750280547263e-05,
               -2.4398533722238364e-05, 0.00015062250241233775, -0.00019925684469791234, -0.0007577734504083239,
               0.005031969999568076, -0.016197734038030626, 0.03716751553556428, -0.06633036581362389,
               0.09373283499844538, -0.10103906603625323, 0.06809705425469045, 0.015379652102619022,
               -0.1396211168405625, 1.2329951186255526)),
}  # fmt: skip


def erf(x: Scalar) -> Scalar:
    """2/sqrt(pi) times the integral of exp(-t^2) from 0 to x. Error: 1.4 ulp float32, 1.0 float64."""
    a = fabs(x)
    z = x * x
    if x.dtype == FLOAT32:
        p = polynomial(where(a > 4.0, 4.0, a), _EIGHTH)
        p = p * p
        p = p * p
        large = 1.0 - 1.0 / (p * p)
        return where(a < 1.2, fmuladd(x, polynomial(z, _SMALL32), x), copysign(large, x))
    b = where(a > 6.0, 6.0, a)
    large = fmuladd(-exp(-(b * b)), polynomial((b - 2.0) / (b + 2.0), _LARGE64), 1.0)
    return where(a < 1.0, fmuladd(x, polynomial(z, _SMALL64), x), copysign(large, x))


def erfc(x: Scalar) -> Scalar:
    """1 - erf(x), accurate where that is small. Error: 2.5 ulp: an exponential, a polynomial and their product."""
    center, last, small, large = _COMPLEMENT[x.dtype]
    a = fabs(x)
    a = where(a > last, last, a)
    square = a * a
    lost = fmuladd(a, a, -square)
    p = polynomial((a - center) / (a + center), large)
    double = a + a
    d = double + 1.0
    inverse = 1.0 / d
    q = p * inverse
    missing = fmuladd(fmuladd(-q, d, p) - q * (1.0 - (d - double)), inverse, -q * lost)
    power = exp(-square)
    tail = fmuladd(power, q, power * missing)
    near = (1.0 - x) - x * polynomial(square, small)
    return where(a < 0.5, near, where(x > 0, tail, 2.0 - tail))
