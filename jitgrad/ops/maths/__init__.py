"""Elementary functions in the scalar language, for float32 and float64.

Polynomials are minimax fits by Remez exchange on the relative error of the function (60 digits), their coefficients
then rounded to the dtype. Every contraction is an explicit fmuladd, so all backends give the same bits; the stated
errors suppose hardware fused multiply-add. Arguments that overflow, underflow, or leave the domain are settled inside
`rarely`, off the fast lane. Errors are the largest found on a million random and structured
arguments against a wider format.
"""

from jitgrad.ops.maths.circular import cos, sin
from jitgrad.ops.maths.exponential import exp, expm1, log, log1p, pow, sigmoid, tanh

__all__ = ["cos", "exp", "expm1", "log", "log1p", "pow", "sigmoid", "sin", "tanh"]
