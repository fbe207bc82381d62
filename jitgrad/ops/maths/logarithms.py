"""exp2, log2 and log10, which are exact at powers of their base, and the logarithms of sums: softplus and logaddexp.

By way of the two-part exp and log of `parts`, float32 in float64 with shorter polynomials; but exp2 is a polynomial of
its own, (2^r - 1) / r on |r| <= 1/2. Fits as in the package's docstring.
"""

from __future__ import annotations

from typing import Any

from jitgrad.ops.maths.parts import (
    exp_parts,
    exp_short,
    in_float64,
    log1p_parts,
    log_parts,
    normal,
    power_of_two,
    split,
)
from jitgrad.ops.maths.polynomials import polynomial
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
    where,
)

# highest power first; mantissa bits, bias, magic number; 2^x overflows or is subnormal beyond the limits
_EXP2 = {
    FLOAT32: ((0.00013331373338587582, 0.0013387921499088407, 0.009625446982681751, 0.055503662675619125,
               0.24022594094276428, 0.6931471824645996), 23, 127, 12582912.0, -126.0, 127.0, -160.0, 130.0),
    FLOAT64: ((4.5193332145739185e-10, 7.075616831657468e-09, 1.017765599936355e-07, 1.3215424479381833e-06,
               1.525273473810646e-05, 0.00015403530478856267, 0.0013333558145567428, 0.009618129107577074,
               0.055504108664824574, 0.24022650695910172, 0.6931471805599453), 52, 1023, 6755399441055744.0,
              -1022.0, 1023.0, -1080.0, 1030.0),
}  # fmt: skip
_LOG2_E = (1.4426950408889634, 2.0355273740931033e-17)
_LOG10_E = (0.4342944819032518, 1.098319650216765e-17)
# log(1 + w) / w on [0, 1], to float32's needs
_LOG1P_SHORT = (-0.003244041203479987, 0.019851489121542353, -0.05695949029965802, 0.10603639469370524,
                -0.15305575545019315, 0.1967592965424154, -0.2495413068608759, 0.3332996193470454,
                -0.49999902388240897, 0.9999999952816695)  # fmt: skip
_LOG10_2 = (0.30102999566395283, 2.8363394551044964e-14)  # the first of 42 bits: exact products with exponents


def exp2(x: Scalar) -> Scalar:
    """2^x = 2^k 2^r, k the nearest integer. Error: 0.9 ulp; exact where x is whole."""
    coefficients, mantissa, bias, magic, least, most, low, high = _EXP2[x.dtype]
    y = where(x < low, low, x)
    y = where(y > high, high, y)
    shifted = y + magic
    r = y - (shifted - magic)
    p = fmuladd(r, polynomial(r, coefficients), 1.0)
    k = bits(shifted)

    def by_halves() -> Scalar:
        n = k - ((bias + mantissa) << mantissa | 1 << (mantissa - 1))
        half = n >> 1
        return p * from_bits((half + bias) << mantissa) * from_bits((n - half + bias) << mantissa)

    # the magic number's bits end in zeros, so that shifting them out leaves k in the exponent field
    return rarely(~((x >= least) & (x <= most)), by_halves, from_bits(bits(p) + (k << mantissa)))


def log2(x: Scalar) -> Scalar:
    """The exponent of x plus log m / ln2. Error: 0.7 ulp; exact at powers of two."""
    return in_float64(lambda x, short: _in_base(x, _LOG2_E, (1.0, 0.0), short), x)


def log10(x: Scalar) -> Scalar:
    """(e ln2 + log m) / ln10. Error: 0.7 ulp."""
    return in_float64(lambda x, short: _in_base(x, _LOG10_E, _LOG10_2, short), x)


def _in_base(x: Scalar, factor: tuple[float, float], of_two: tuple[float, float], short: bool) -> Scalar:
    """e log_b(2) + log(m) log_b(e), x = 2^e m."""
    y, shift = (x, 0.0) if short else normal(x)  # a subnormal float32 is a normal double
    e, m = split(y)
    high, low = log_parts(m - 1.0, short=short)
    exponent = convert(e, FLOAT64) + shift
    product = high * factor[0]
    rest = fmuladd(high, factor[0], -product) + fmuladd(high, factor[1], low * factor[0])
    base = exponent * of_two[0]
    total = base + product
    value = total + (((base - total) + product) + fmuladd(exponent, of_two[1], rest))
    edge = lambda: where(x > 0, where(x < INF, value, INF), where(x == 0, x.dtype.type(-INF), NAN))  # noqa: E731
    return rarely(~((x > 0) & (x < INF)), edge, value)


def softplus(x: Scalar) -> Scalar:
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|). Error: 1.1 ulp."""
    return in_float64(_softplus, x)


def _softplus(x: Scalar, short: bool) -> Scalar:
    high, low = _log1p_exp(-fabs(x), short)
    top = where(x > 0, x, 0.0)
    total = top + high
    return total if short else where(x > 64.0, x, total + (((top - total) + high) + low))


def logaddexp(x: Scalar, y: Scalar) -> Scalar:
    """log(e^x + e^y) = max(x, y) + log(1 + e^-|x - y|). Error: 1.5 ulp of the result or of the greater operand,
    whichever is larger: the result may be a small difference of the two terms.
    """
    return in_float64(_logaddexp, x, y)


def _logaddexp(x: Scalar, y: Scalar, short: bool) -> Scalar:
    top = where(x >= y, x, y)
    difference = where(x == y, 0.0, -fabs(x - y))  # of equal infinities too
    high, low = _log1p_exp(difference, short)
    total = top + high
    value = total if short else total + (((top - total) + high) + low)
    numbers = (x == x) & (y == y)
    return where(numbers, where(fabs(top) < INF, value, top), x + y)


def _log1p_exp(a: Scalar, short: bool) -> tuple[Scalar, Any]:
    """log(1 + e^a) as high + low, a <= 0."""
    if short:
        w = exp_short(where(a < -150.0, -150.0, a))
        return w * polynomial(w, _LOG1P_SHORT), 0.0
    bounded = where(a < -800.0, -800.0, a)
    k, high, low = exp_parts(bounded)
    half = k >> 1
    first, second = power_of_two(half), power_of_two(k - half)  # the power may be subnormal
    rest: Any = low * first * second
    return log1p_parts(high * first * second, rest, short)
