"""The error function, roots and reciprocals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core.primitive import EDGES, elementwise, uniform
from jitgrad.ops import maths, scalar

TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)       # in rules times exp(-xmuly(x, x)), which has a slope of 0 at inf


def _each(function: Any) -> Any:
    return lambda x: np.vectorize(function, otypes=[np.float64])(x)


@elementwise(domain="float", ref=_each(math.erf), samples=uniform((3, 4)), ulp=2.0, at=EDGES,
             vjp=lambda g, ans, x: (g * (TWO_OVER_ROOT_PI * ops.exp(-ops.xmuly(x, x))),))
def erf(x):
    """Error function: 2/sqrt(pi) times the integral of ``exp(-t * t)`` from 0 to ``x``."""
    return maths.erf(x)


@elementwise(domain="float", ref=_each(math.erfc), samples=uniform((3, 4)), ulp=3.0, at=(*EDGES, 5.0, 10.0),
             vjp=lambda g, ans, x: (-g * (TWO_OVER_ROOT_PI * ops.exp(-ops.xmuly(x, x))),))
def erfc(x):
    """``1 - erf(x)``, accurate where it is small.

    The error is up to 3 ulp: that of an exponential, of a polynomial and of their product add up.
    """
    return maths.erfc(x)


@elementwise(domain="float", ref=np.cbrt, samples=uniform((3, 4), low=0.2), ulp=1.0, at=EDGES,
             vjp=lambda g, ans, x: (ops.xdivy(g, 3 * ops.xmuly(ans, ans)),))
def cbrt(x):
    """Cube root, negative of negative ``x``. The gradient at 0 is infinite."""
    return maths.cbrt(x)


def _hypot_rule(g: Any, ans: Any, x: Any, y: Any) -> tuple[Any, Any]:
    origin = ans == 0
    safe = ops.where(origin, 1, ans)
    return ops.where(origin, 0, ops.xmuly(g, x / safe)), ops.where(origin, 0, ops.xmuly(g, y / safe))


@elementwise(domain="float", ref=np.hypot, samples=uniform((3, 4), (3, 4)), ulp=1.0, at=EDGES, vjp=_hypot_rule)
def hypot(x, y):
    """``sqrt(x * x + y * y)`` without overflow or underflow on the way; gradient 0 at the origin."""
    return maths.hypot(x, y)


@elementwise(domain="float", ref=np.reciprocal, samples=uniform((3, 4), low=0.5), at=EDGES,
             vjp=lambda g, ans, x: (-ops.xdivy(ops.xdivy(g, x), x),))
def reciprocal(x):
    """``1 / x``"""
    return 1 / x


def _rsqrt(x: Any) -> Any:
    return 1 / np.sqrt(x)


@elementwise(domain="float", ref=_rsqrt, samples=uniform((3, 4), low=0.2), ulp=2.0, at=EDGES,
             vjp=lambda g, ans, x: (-0.5 * ops.xdivy(ops.xdivy(g, x), ops.sqrt(x)),))
def rsqrt(x):
    """``1 / sqrt(x)``; its gradient at 0 is infinite."""
    return 1 / scalar.sqrt(x)
