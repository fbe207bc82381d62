"""Whole parts and remainders, signs, neighbours, and what kind of number one is."""

from __future__ import annotations

from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core.exact import idempotent
from jitgrad.core.primitive import EDGES, elementwise, uniform
from jitgrad.ops import maths, scalar
from jitgrad.ops.scalar import INF, NAN

HALVES = (*EDGES, 0.5, -0.5, 1.5, 2.5, -2.5, 4503599627370497.5, 1e300)
DIVIDED = (*EDGES, 3.0, -3.0, 0.1, 1e30, -7e-12)


@elementwise(vjp=None, ref=np.floor, samples=uniform((3, 4), low=-9.0, high=9.0), at=HALVES,
             exact=(idempotent,))
def floor(x):
    """Greatest whole number not above ``x``; integers stay."""
    return scalar.floor(x) if x.dtype.kind == "f" else x


@elementwise(vjp=None, ref=np.ceil, samples=uniform((3, 4), low=-9.0, high=9.0), at=HALVES,
             exact=(idempotent,))
def ceil(x):
    """Least whole number not below ``x``; integers stay."""
    return scalar.ceil(x) if x.dtype.kind == "f" else x


@elementwise(vjp=None, ref=np.trunc, samples=uniform((3, 4), low=-9.0, high=9.0), at=HALVES,
             exact=(idempotent,))
def trunc(x):
    """``x`` without its fraction; integers stay."""
    return scalar.trunc(x) if x.dtype.kind == "f" else x


@elementwise(vjp=None, ref=np.rint, samples=uniform((3, 4), low=-9.0, high=9.0), at=HALVES,
             exact=(idempotent,))
def round(x):
    """Nearest whole number, halves to the even one; integers stay."""
    return scalar.rint(x) if x.dtype.kind == "f" else x


def _quiet(function: Any) -> Any:
    def reference(x: Any, y: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(x, y)
    return reference


@elementwise(symbol="//", ref=_quiet(np.floor_divide), vjp=None, samples=uniform((3, 4), (3, 4), low=0.5), ulp=2.0,
             at=DIVIDED)
def floor_divide(x, y):
    """Quotient rounded towards minus infinity: ``(x - remainder(x, y)) / y``, a whole number also where it is large.
    Integer division by zero gives 0.
    """
    return x // y if x.dtype.kind == "i" else maths.floor_divide(x, y)


@elementwise(symbol="%", ref=np.remainder, samples=uniform((3, 4), (3, 4), low=0.5), at=DIVIDED,
             vjp=lambda g, ans, x, y: (g, ops.xmuly(-g, ops.floor_divide(x, y))))
def remainder(x, y):
    """What whole multiples of ``y`` leave of ``x``, with the sign of ``y``: `fmod`, which is exact, moved by ``y``
    where the signs differ. Integer division by zero gives 0.
    """
    return x % y if x.dtype.kind == "i" else maths.remainder(x, y)


def _integer_fmod(x: Any, y: Any) -> Any:
    rest = x % y
    return scalar.where((rest != 0) & ((x ^ y) < 0), rest - y, rest)


@elementwise(ref=np.fmod, samples=uniform((3, 4), (3, 4), low=0.5), at=DIVIDED,
             vjp=lambda g, ans, x, y: (g, ops.xmuly(-g, ops.round((x - ans) / y))))
def fmod(x, y):
    """C's remainder: exact, with the sign of ``x``, also for large quotients. Integer division by zero gives 0."""
    return _integer_fmod(x, y) if x.dtype.kind == "i" else maths.fmod(x, y)


# ---- signs and neighbours ------------------------------------------------------------------------

@elementwise(domain="float", ref=np.copysign, samples=uniform((3, 4), (3, 4)), at=EDGES,
             vjp=lambda g, ans, x, y: (g * (ops.sign(x) * ops.copysign(1, y)), None))
def copysign(x, y):
    """The magnitude of ``x`` with the sign bit of ``y``; its derivative at 0 is 0, as that of `abs`."""
    return scalar.copysign(x, y)


@elementwise(domain="float", result="bool", vjp=None, ref=np.signbit, samples=uniform((3, 4)), at=EDGES)
def signbit(x):
    """True where the sign bit is set: negative numbers and -0."""
    return scalar.bits(x) < 0


def _neighbours(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [((rng.integers(-2, 3, (3, 4)).astype(float), rng.integers(-2, 3, (4,)).astype(float)), {})]


@elementwise(domain="float", vjp=None, ref=np.nextafter, samples=_neighbours, ulp=1.0,
             at=(1.0, -1.0, 2.0, 0.1, NAN))
def nextafter(x, y):
    """The number next to ``x`` on the way to ``y``; ``y`` where they are equal."""
    pattern = scalar.bits(x)
    step = scalar.where((y > x) ^ (x < 0), pattern * 0 + 1, -1)
    least = scalar.copysign(scalar.from_bits(pattern * 0 + 1), y)
    found = scalar.where(x == 0, least, scalar.from_bits(pattern + step))
    return scalar.where(x == y, y, scalar.where((x != x) | (y != y), NAN, found))


@elementwise(vjp=None, result="bool", ref=np.isnan, samples=uniform((3, 4)), at=EDGES)
def isnan(x):
    """True where ``x`` is not a number."""
    return x != x


@elementwise(vjp=None, result="bool", ref=np.isinf, samples=uniform((3, 4)), at=EDGES)
def isinf(x):
    """True where ``x`` is an infinity of either sign."""
    return scalar.fabs(x) == INF if x.dtype.kind == "f" else x != x


@elementwise(vjp=None, result="bool", ref=np.isfinite, samples=uniform((3, 4)), at=EDGES)
def isfinite(x):
    """True where ``x`` is a number and no infinity."""
    return scalar.fabs(x) < INF if x.dtype.kind == "f" else x == x
