"""Hyperbolic functions and their inverses."""

from __future__ import annotations

from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core.primitive import EDGES, elementwise, uniform
from jitgrad.ops import maths


@elementwise(domain="float", ref=np.sinh, samples=uniform((3, 4)), ulp=2.0, at=EDGES,
             vjp=lambda g, ans, x: (ops.xmuly(g, ops.cosh(x)),))
def sinh(x):
    """Hyperbolic sine. Where the cotangent is 0 the gradient is 0, also on overflow."""
    return maths.sinh(x)


@elementwise(domain="float", ref=np.cosh, samples=uniform((3, 4)), ulp=2.0, at=EDGES,
             vjp=lambda g, ans, x: (ops.xmuly(g, ops.sinh(x)),))
def cosh(x):
    """Hyperbolic cosine. Where the cotangent is 0 the gradient is 0, also on overflow."""
    return maths.cosh(x)


@elementwise(domain="float", ref=np.tanh, samples=uniform((3, 4)), ulp=3.0, at=EDGES,
             vjp=lambda g, ans, x: (g * (1 - ans * ans),))
def tanh(x):
    """Hyperbolic tangent.

    The error is up to 3 ulp: three roundings, and a quotient that may lie near the top of its binade.
    """
    return maths.tanh(x)


@elementwise(domain="float", ref=np.arcsinh, samples=uniform((3, 4)), ulp=2.0, at=EDGES,
             vjp=lambda g, ans, x: (g / ops.hypot(x, 1),))
def asinh(x):
    """The number whose hyperbolic sine is ``x``."""
    return maths.asinh(x)


def _acosh_rule(g: Any, ans: Any, x: Any) -> tuple[Any]:
    """g / sqrt(x^2 - 1), in two factors since the square may overflow."""
    return (ops.xmuly(ops.xmuly(g, ops.rsqrt(x + 1)), ops.rsqrt(x - 1)),)


@elementwise(domain="float", ref=np.arccosh, samples=uniform((3, 4), low=1.2, high=3.0), ulp=2.0,
             at=(*EDGES, 1.5, 1e300), vjp=_acosh_rule)
def acosh(x):
    """The number >= 0 whose hyperbolic cosine is ``x``; NaN below 1. The gradient at 1 is infinite."""
    return maths.acosh(x)


@elementwise(domain="float", ref=np.arctanh, samples=uniform((3, 4), low=-0.9, high=0.9), ulp=2.0,
             at=(*EDGES, 0.5, -2.0), vjp=lambda g, ans, x: (ops.xdivy(g, ops.xmuly(1 - x, 1 + x)),))
def atanh(x):
    """The number whose hyperbolic tangent is ``x``; infinite at 1 and -1, as is the gradient there, NaN beyond."""
    return maths.atanh(x)
