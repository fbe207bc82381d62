"""Elementary functions in the scalar language, for float32 and float64.

Polynomials are minimax fits by Remez exchange on the relative error of the function (50 to 60 digits), their
coefficients then rounded to the dtype. Every contraction is an explicit fmuladd, so all backends give the same bits;
the stated errors suppose hardware fused multiply-add. Arguments that overflow, underflow, or leave the domain are
settled inside `rarely`, off the fast lane. Errors are the largest found on a million random and structured arguments
against a wider format (`python -m benchmarks.accuracy` measures them).
"""

from jitgrad.ops.maths.arcs import acos, asin, atan, atan2
from jitgrad.ops.maths.circular import cos, sin
from jitgrad.ops.maths.error_function import erf, erfc
from jitgrad.ops.maths.exponential import exp, expm1, log, log1p, sigmoid, tanh
from jitgrad.ops.maths.hyperbolic import acosh, asinh, atanh, cosh, sinh
from jitgrad.ops.maths.logarithms import exp2, log2, log10, logaddexp, softplus
from jitgrad.ops.maths.powers import pow
from jitgrad.ops.maths.remainders import floor_divide, fmod, remainder
from jitgrad.ops.maths.roots import cbrt, hypot
from jitgrad.ops.maths.tangent import tan

__all__ = ["acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh", "erf", "erfc", "exp",
           "exp2", "expm1", "floor_divide", "fmod", "hypot", "log", "log1p", "log2", "log10", "logaddexp", "pow",
           "remainder", "sigmoid", "sin", "sinh", "softplus", "tan", "tanh"]  # fmt: skip
