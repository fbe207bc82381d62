"""Trigonometric functions and their inverses."""

from __future__ import annotations

from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core.primitive import EDGES, elementwise, uniform
from jitgrad.ops import maths
from jitgrad.ops.scalar import INF, NAN

SINE = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, -INF, NAN)


@elementwise(domain="float", ref=np.sin, samples=uniform((3, 4)), ulp=2.0, at=EDGES,
             vjp=lambda g, ans, x: (g * ops.cos(x),))
def sin(x):
    """Sine of an angle in radians, of any size."""
    return maths.sin(x)


@elementwise(domain="float", ref=np.cos, samples=uniform((3, 4)), ulp=2.0, at=EDGES,
             vjp=lambda g, ans, x: (-g * ops.sin(x),))
def cos(x):
    """Cosine of an angle in radians, of any size."""
    return maths.cos(x)


@elementwise(domain="float", ref=np.tan, samples=uniform((3, 4), low=-1.2, high=1.2), ulp=4.0, at=EDGES,
             vjp=lambda g, ans, x: (g * (1 + ans * ans),))
def tan(x):
    """Tangent of an angle in radians, of any size.

    The error is below 1 ulp up to 131072 in float32 and 1e8 in float64; beyond it is that of a quotient of sine and
    cosine, up to 4 ulp.
    """
    return maths.tan(x)


def _arc_slope(g: Any, x: Any) -> Any:
    """g / sqrt(1 - x^2): infinite at 1 and -1, but 0 where g is 0. As (1 - x) (1 + x), which cancels nothing."""
    return ops.xmuly(g, ops.rsqrt(ops.xmuly(1 - x, 1 + x)))


@elementwise(domain="float", ref=np.arcsin, samples=uniform((3, 4), low=-0.9, high=0.9), ulp=2.0, at=SINE,
             vjp=lambda g, ans, x: (_arc_slope(g, x),))
def asin(x):
    """Angle in [-pi/2, pi/2] whose sine is ``x``; NaN outside [-1, 1]. The gradient at 1 and -1 is infinite."""
    return maths.asin(x)


@elementwise(domain="float", ref=np.arccos, samples=uniform((3, 4), low=-0.9, high=0.9), ulp=2.0, at=SINE,
             vjp=lambda g, ans, x: (-_arc_slope(g, x),))
def acos(x):
    """Angle in [0, pi] whose cosine is ``x``; NaN outside [-1, 1]. The gradient at 1 and -1 is infinite."""
    return maths.acos(x)


@elementwise(domain="float", ref=np.arctan, samples=uniform((3, 4)), ulp=2.0, at=EDGES,
             vjp=lambda g, ans, x: (g / (1 + ops.xmuly(x, x)),))
def atan(x):
    """Angle in [-pi/2, pi/2] whose tangent is ``x``."""
    return maths.atan(x)


def _atan2_rule(g: Any, ans: Any, y: Any, x: Any) -> tuple[Any, Any]:
    """x / r^2 and -y / r^2, both 0 at the origin; divided by r twice, since r^2 may overflow."""
    r = ops.hypot(x, y)
    origin = r == 0
    safe = ops.where(origin, 1, r)
    return (ops.where(origin, 0, ops.xmuly(g, x / safe / safe)), ops.where(origin, 0, ops.xmuly(-g, y / safe / safe)))


@elementwise(domain="float", ref=np.arctan2, samples=uniform((3, 4), (3, 4), low=0.2), ulp=2.0, at=EDGES,
             vjp=_atan2_rule)
def atan2(y, x):
    """Angle of the point (``x``, ``y``) in [-pi, pi], with C's values at zeros and infinities; the gradient at the
    origin is 0.
    """
    return maths.atan2(y, x)
