"""Comparison, choice and logic."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core.exact import chosen, commutes, neutral, same, undone
from jitgrad.core.primitive import EDGES, elementwise
from jitgrad.ops import scalar


def _pairs(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    x = rng.integers(-2, 3, (3, 4)).astype(float)
    return [((x, rng.integers(-2, 3, (4,)).astype(float)), {})]


def _bools(count: int) -> Any:
    return lambda rng: [(tuple(rng.integers(0, 2, (3, 4)).astype(bool) for _ in range(count)), {})]


@elementwise(symbol="==", domain="any", result="bool", vjp=None, ref=np.equal, samples=_pairs, at=EDGES,
             exact=(commutes,))
def equal(x, y):
    """True where ``x`` equals ``y`` (NaN equals nothing)."""
    return x == y


@elementwise(symbol="!=", domain="any", result="bool", vjp=None, ref=np.not_equal, samples=_pairs, at=EDGES,
             exact=(commutes,))
def not_equal(x, y):
    """True where ``x`` differs from ``y``."""
    return x != y


@elementwise(symbol="<", domain="any", result="bool", vjp=None, ref=np.less, samples=_pairs, at=EDGES)
def less(x, y):
    """True where ``x`` is below ``y``."""
    return x < y


@elementwise(symbol="<=", domain="any", result="bool", vjp=None, ref=np.less_equal, samples=_pairs, at=EDGES)
def less_equal(x, y):
    """True where ``x`` is at most ``y``."""
    return x <= y


@elementwise(symbol=">", domain="any", result="bool", vjp=None, ref=np.greater, samples=_pairs, at=EDGES)
def greater(x, y):
    """True where ``x`` is above ``y``."""
    return x > y


@elementwise(symbol=">=", domain="any", result="bool", vjp=None, ref=np.greater_equal, samples=_pairs, at=EDGES)
def greater_equal(x, y):
    """True where ``x`` is at least ``y``."""
    return x >= y


def _choices(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [((rng.integers(0, 2, (3, 1)).astype(bool), rng.normal(size=(3, 4)), rng.normal(size=(4,))), {})]


@elementwise(domain=("bool", "any", "any"), ref=np.where, samples=_choices,
             vjp=lambda g, ans, c, x, y: (None, ops.where(c, g, 0), ops.where(c, 0, g)),
             jvp=lambda ts, ans, c, x, y: ops.where(c, *(0 if t is None else t for t in ts[1:])),
             exact=(chosen,), indexes=lambda c, x, y: (0, (1, 2)))
def where(condition, x, y):
    """``x`` where the condition holds, else ``y``. The gradient of what was not chosen is 0, never NaN."""
    return scalar.where(condition, x, y)


@elementwise(symbol="&", domain="logical", vjp=None, ref=operator.and_, samples=_bools(2),
             exact=(same, neutral(-1, -1), commutes))
def bitwise_and(x, y):
    """Bitwise and of integers, logical and of booleans."""
    return x & y


@elementwise(symbol="|", domain="logical", vjp=None, ref=operator.or_, samples=_bools(2),
             exact=(same, neutral(0, 0), commutes))
def bitwise_or(x, y):
    """Bitwise or of integers, logical or of booleans."""
    return x | y


@elementwise(symbol="^", domain="logical", vjp=None, ref=operator.xor, samples=_bools(2),
             exact=(neutral(0, 0), commutes))
def bitwise_xor(x, y):
    """Bitwise exclusive or of integers, logical of booleans."""
    return x ^ y


@elementwise(symbol="~", domain="logical", vjp=None, ref=operator.invert, samples=_bools(1),
             exact=(undone,))
def bitwise_invert(x):
    """Bitwise complement of integers, logical not of booleans."""
    return ~x


@elementwise(domain="bool", vjp=None, ref=np.logical_and, samples=_bools(2), exact=(same, neutral(1, 1), commutes))
def logical_and(x, y):
    """True where both are; numbers count as True unless 0."""
    return x & y


@elementwise(domain="bool", vjp=None, ref=np.logical_or, samples=_bools(2), exact=(same, neutral(0, 0), commutes))
def logical_or(x, y):
    """True where one of them is or both are; numbers count as True unless 0."""
    return x | y


@elementwise(domain="bool", vjp=None, ref=np.logical_xor, samples=_bools(2), exact=(neutral(0, 0), commutes))
def logical_xor(x, y):
    """True where exactly one of them is; numbers count as True unless 0."""
    return x ^ y


@elementwise(domain="bool", vjp=None, ref=np.logical_not, samples=_bools(1), exact=(undone,))
def logical_not(x):
    """True where ``x`` is False; numbers count as True unless 0."""
    return ~x


def _shifts(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [((rng.integers(-100, 100, (3, 4)), rng.integers(0, 70, (4,))), {})]


def _width(x: Any) -> int:
    return int(8 * x.dtype.itemsize)


def _left(x: Any, y: Any) -> Any:
    return np.where(y < _width(x), x << np.minimum(y, _width(x) - 1), 0)


@elementwise(domain="integer", vjp=None, ref=_left, samples=_shifts, exact=(neutral(0),))
def bitwise_left_shift(x, y):
    """``x`` with its bits ``y`` places up, zeros below; 0 where ``y`` is negative or the dtype's width or more."""
    return scalar.where(scalar.ult(y, _width(x)), x << (y & (_width(x) - 1)), 0)


@elementwise(domain="integer", vjp=None, ref=lambda x, y: x >> np.minimum(y, _width(x) - 1), samples=_shifts,
             exact=(neutral(0),))
def bitwise_right_shift(x, y):
    """``x / 2**y`` rounded down; where ``y`` is negative or the dtype's width or more, only the sign is left."""
    last = _width(x) - 1
    return x >> scalar.where(scalar.ult(y, last), y, last)
