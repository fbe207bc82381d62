"""Exponentials, logarithms and what is made of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core.primitive import EDGES, elementwise, uniform
from jitgrad.ops import maths
from jitgrad.ops.scalar import INF, NAN

LN2, LN10 = math.log(2), math.log(10)


@elementwise(domain="float", ref=np.exp, samples=uniform((3, 4)), ulp=2.0, at=EDGES,
             vjp=lambda g, ans, x: (ops.xmuly(g, ans),))
def exp(x):
    """e to the power ``x``. Where the cotangent is 0 the gradient is 0, also on overflow."""
    return maths.exp(x)


@elementwise(domain="float", ref=np.exp2, samples=uniform((3, 4)), ulp=2.0, at=(*EDGES, 3.0, -2.0, -1074.0, 1024.0),
             vjp=lambda g, ans, x: (ops.xmuly(g * LN2, ans),))
def exp2(x):
    """2 to the power ``x``, exact for whole ``x``."""
    return maths.exp2(x)


@elementwise(domain="float", ref=np.expm1, samples=uniform((3, 4)), ulp=2.0, at=EDGES,
             vjp=lambda g, ans, x: (ops.xmuly(g, ans + 1),))
def expm1(x):
    """``exp(x) - 1``, accurate near 0."""
    return maths.expm1(x)


@elementwise(domain="float", ref=np.log, samples=uniform((3, 4), low=0.1), ulp=2.0, at=EDGES,
             vjp=lambda g, ans, x: (ops.xdivy(g, x),))
def log(x):
    """Natural logarithm. Where the cotangent is 0 the gradient is 0, also at 0."""
    return maths.log(x)


@elementwise(domain="float", ref=np.log2, samples=uniform((3, 4), low=0.1), ulp=1.0, at=(*EDGES, 2.0, 0.125, 5e-324),
             vjp=lambda g, ans, x: (ops.xdivy(g / LN2, x),))
def log2(x):
    """Logarithm to the base 2, exact at its powers. Where the cotangent is 0 the gradient is 0, also at 0."""
    return maths.log2(x)


@elementwise(domain="float", ref=np.log10, samples=uniform((3, 4), low=0.1), ulp=1.0, at=(*EDGES, 1e3, 0.1, 5e-324),
             vjp=lambda g, ans, x: (ops.xdivy(g / LN10, x),))
def log10(x):
    """Logarithm to the base 10. Where the cotangent is 0 the gradient is 0, also at 0."""
    return maths.log10(x)


@elementwise(domain="float", ref=np.log1p, samples=uniform((3, 4), low=-0.5), ulp=2.0, at=EDGES,
             vjp=lambda g, ans, x: (ops.xdivy(g, x + 1),))
def log1p(x):
    """``log(1 + x)``, accurate near 0."""
    return maths.log1p(x)


def _sigmoid(x: Any) -> Any:
    with np.errstate(over="ignore"):
        return np.where(x >= 0, 1 / (1 + np.exp(-x)), np.exp(x) / (1 + np.exp(x)))


@elementwise(domain="float", ref=_sigmoid, samples=uniform((3, 4)), ulp=2.0, at=(0.0, -0.0, 100.0, -100.0, NAN),
             vjp=lambda g, ans, x: (g * (ans * (1 - ans)),))
def sigmoid(x):
    """Logistic function ``1 / (1 + exp(-x))``."""
    return maths.sigmoid(x)


@elementwise(domain="float", ref=lambda x: np.logaddexp(x, x.dtype.type(0)), samples=uniform((3, 4)), ulp=2.0,
             at=(*EDGES, 100.0, -100.0, -745.0, 1e30), vjp=lambda g, ans, x: (g * ops.sigmoid(x),))
def softplus(x):
    """``log(1 + exp(x))`` without overflow, accurate where it is small."""
    return maths.softplus(x)


def _logaddexp_rule(g: Any, ans: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """The softmax of both; equal infinities share as a tie does, but -inf has no gradient, as in `logsumexp`."""
    alike = (x == y) & ops.isinf(x)
    difference = ops.where(alike, 0, x - y)
    some = ans != -INF
    return (ops.where(some, g * ops.sigmoid(difference), 0), ops.where(some, g * ops.sigmoid(-difference), 0))


@elementwise(domain="float", ref=np.logaddexp, samples=uniform((3, 4), (4,), low=0.1), ulp=2.0, cancels=True,
             at=(*EDGES, 30.0, 1e30), vjp=_logaddexp_rule)
def logaddexp(x, y):
    """``log(exp(x) + exp(y))`` without overflow. The gradient is finite everywhere: a tie shares it equally, also of
    two infinities; where both are -inf it is 0, as in `logsumexp`.

    The error is in units of the last place of the result or of the greater operand, whichever is larger: a result near
    0 is a small difference of two terms.
    """
    return maths.logaddexp(x, y)
