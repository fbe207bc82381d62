"""Arithmetic, one element at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core import dtypes
from jitgrad.core.aval import Aval, aval
from jitgrad.core.errors import user_error
from jitgrad.core.exact import another, assembled, commutes, idempotent, itself, joined, neutral, same, undone
from jitgrad.core.primitive import EDGES, Linear, elementwise, uniform
from jitgrad.ops import maths, scalar
from jitgrad.ops.scalar import INF, NAN

MULTIPLIED = 8                 # integer powers of floats beyond this are not made of products


@elementwise(symbol="+", ref=np.add, samples=uniform((3, 4), (4,)), at=EDGES, linear=Linear.EACH,
             vjp=lambda g, ans, x, y: (g, g), exact=(neutral(-0.0, -0.0), commutes, assembled))
def add(x, y):
    """Sum ``x + y``."""
    return x + y


@elementwise(symbol="-", ref=np.subtract, samples=uniform((3, 4), (4,)), at=EDGES, linear=Linear.EACH,
             vjp=lambda g, ans, x, y: (g, -g), exact=(neutral(0.0),))
def subtract(x, y):
    """Difference ``x - y``."""
    return x - y


@elementwise(symbol="*", ref=np.multiply, samples=uniform((3, 1), (3, 4)), at=EDGES, linear=Linear.MULTI,
             vjp=lambda g, ans, x, y: (g * y, g * x),
             exact=(neutral(1, 1), another("square", lambda x, y: x is y), commutes))
def multiply(x, y):
    """Product ``x * y``."""
    return x * y


def _quotient_rule(g: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """g / y and -g x / y^2; 0 where g is 0, also at y = 0."""
    by_x = ops.xdivy(g, y)
    return by_x, -ops.xdivy(ops.xmuly(by_x, x), y)


@elementwise(symbol="/", domain="float", ref=np.divide, samples=uniform((3, 4), (3, 4), low=0.5), at=EDGES,
             vjp=lambda g, ans, x, y: _quotient_rule(g, x, y), exact=(neutral(1),))
def divide(x, y):
    """Quotient ``x / y``; integers become the default float."""
    return x / y


def _power_vjp(g: Any, ans: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """d/dx is y x^(y-1), 0 for y = 0 whatever x; d/dy is x^y log x where x > 0, else 0. Both are 0 where g is."""
    positive = x > 0
    by_y = ops.where(positive, ops.xmuly(ans, ops.log(ops.where(positive, x, 1))), 0)
    return ops.xmuly(g, ops.xmuly(y, ops.power(x, y - 1))), ops.xmuly(g, by_y)


@elementwise(symbol="**", ref=np.power, domain="float", samples=uniform((3, 4), (3, 4), low=0.5), ulp=4.0,
             at=(0.0, 1.0, 2.0, INF, NAN), vjp=_power_vjp, literal="integer_power")
def power(x, y):
    """``x`` to the power ``y``, with IEEE 754's special values. A literal integer exponent multiplies instead.

    Up to 4 ulp: float32 keeps ``y log2(x)``, up to 128, to about 2^-23 near the ends of the range (3.1 were found).
    """
    return maths.pow(x, y)


def _integer_powers(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [((rng.uniform(0.5, 1.5, (3, 4)),), {"n": n}) for n in (3, 0, 1, 2, 8, 20)]


def _power_aval(x: Aval, *, n: int) -> Aval:
    if type(n) is not int or not -2**63 <= n < 2**63:
        raise user_error(ValueError, "integer_power: n must be an int of 64 bits")
    if n < 0 and x.code < dtypes.FLOAT32:
        raise user_error(ValueError, f"integer_power: {n} is negative, and {x.dtype.name} has no fractions")
    return x


@elementwise(ref=lambda x, *, n: np.power(x, float(n) if n < 0 else n), samples=_integer_powers, ulp=2.0,
             aval=_power_aval, at=EDGES, vjp=lambda g, ans, x, *, n: (_power_rule(g, x, n),),
             exact=(itself(lambda x, n: n == 1), another("square", lambda x, n: n == 2)))
def integer_power(x, *, n):
    """``x`` to a fixed integer power: by repeated multiplication up to 8 (and of integers), else as `power`."""
    if x.dtype.kind == "f" and not -MULTIPLIED <= n <= MULTIPLIED:
        return maths.pow(x, scalar.where(x == x, x.dtype.type(n), x.dtype.type(n)))
    multiplied = _multiplied if x.dtype.kind == "i" or -4 < n < 4 else _multiplied_in_two
    return 1 / multiplied(x, -n) if n < 0 else multiplied(x, n)


def _multiplied(x: Any, n: int) -> Any:
    """x to the power n >= 0 by squaring."""
    out = None
    while n:
        if n & 1:
            out = x if out is None else out * x
        n >>= 1
        x = x * x if n else x
    return scalar.where(x == x, x.dtype.type(1), x.dtype.type(1)) if out is None else out


def _multiplied_in_two(x: Any, n: int) -> Any:
    """The same for floats, with what each product loses carried along, so that the last rounding alone counts."""
    low = x.dtype.type(0)
    out: Any = None
    while n:
        if n & 1:
            out = (x, low) if out is None else _product(out, (x, low))
        n >>= 1
        x, low = _product((x, low), (x, low)) if n else (x, low)
    high, rest = out
    magnitude: Any = scalar.fabs(high)
    return scalar.where(magnitude < INF, high + rest, high)


def _product(a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Any, Any]:
    """The product of two sums of two, as another."""
    high = a[0] * b[0]
    return high, scalar.fmuladd(a[0], b[1], scalar.fmuladd(a[1], b[0], scalar.fmuladd(a[0], b[0], -high)))


def _power_rule(g: Any, x: Any, n: int) -> Any:
    """n x^(n-1), 0 where g is 0, also where the power is infinite; up to n = 2 it is finite where x is."""
    if n == 0:
        return None
    slope = n * ops.integer_power(x, n=n - 1)
    return g if n == 1 else g * slope if n == 2 else ops.xmuly(g, slope)


@elementwise(symbol="neg", ref=np.negative, samples=uniform((5,)), at=EDGES, linear=Linear.EACH,
             vjp=lambda g, ans, x: (-g,), exact=(undone,))
def negative(x):
    """``-x``"""
    return -x


@elementwise(ref=np.positive, samples=uniform((5,)), at=EDGES, linear=Linear.EACH, vjp=lambda g, ans, x: (g,),
             exact=(itself(),))
def positive(x):
    """``x`` itself."""
    return x


@elementwise(symbol="abs", ref=np.abs, samples=uniform((3, 4)), at=EDGES, vjp=lambda g, ans, x: (g * ops.sign(x),),
             exact=(idempotent,))
def abs(x):
    """Absolute value; its derivative at 0 is 0."""
    if x.dtype.kind == "f":
        return scalar.fabs(x)
    return scalar.where(x < 0, -x, x)


@elementwise(ref=np.sign, samples=uniform((3, 4)), at=EDGES, vjp=None, exact=(idempotent,))
def sign(x):
    """-1, 0 or 1; NaN stays."""
    return scalar.where(x > 0, 1, scalar.where(x < 0, -1, scalar.where(x == 0, 0, x)))


@elementwise(ref=np.square, samples=uniform((3, 4)), at=EDGES, vjp=lambda g, ans, x: (g * (2 * x),))
def square(x):
    """``x * x``"""
    return x * x


@elementwise(domain="float", ref=np.sqrt, samples=uniform((3, 4), low=0.1), at=EDGES,
             vjp=lambda g, ans, x: (ops.where(ans == 0, 0, ops.xdivy(0.5 * g, ans)),))
def sqrt(x):
    """Square root, correctly rounded. The gradient at 0 is 0, so that norms have one there; 0 too where
    the cotangent is, also below 0.
    """
    return scalar.sqrt(x)


def _xdivy(x: Any, y: Any) -> Any:
    with np.errstate(all="ignore"):
        return np.where(x == 0, np.zeros((), x.dtype), np.divide(x, y))


@elementwise(domain="float", ref=_xdivy, samples=uniform((3, 4), (3, 4), low=0.5), at=EDGES,
             vjp=lambda g, ans, x, y: _quotient_rule(g, x, y))
def xdivy(x, y):
    """``x / y``, but 0 where ``x`` is 0 whatever ``y``: a zero cotangent never meets an infinity."""
    return scalar.where(x == 0, 0, x / y)


@elementwise(ref=np.maximum, samples=uniform((3, 4), (4,)), at=EDGES,
             vjp=lambda g, ans, x, y: (ops.where(x >= y, g, 0), ops.where(x >= y, 0, g)), exact=(same,),
             indexes=lambda x, y: (0, (0, 1)))
def maximum(x, y):
    """The greater of two; NaN if either is. A tie's gradient goes wholly to the first."""
    return scalar.where((x >= y) | (x != x), x, y) if x.dtype.kind == "f" else scalar.where(x >= y, x, y)


@elementwise(ref=np.minimum, samples=uniform((3, 4), (4,)), at=EDGES,
             vjp=lambda g, ans, x, y: (ops.where(x <= y, g, 0), ops.where(x <= y, 0, g)), exact=(same,),
             indexes=lambda x, y: (0, (0, 1)))
def minimum(x, y):
    """The lesser of two; NaN if either is. A tie's gradient goes wholly to the first."""
    return scalar.where((x <= y) | (x != x), x, y) if x.dtype.kind == "f" else scalar.where(x <= y, x, y)


@elementwise(ref=lambda x: np.where(x <= 0, np.zeros((), x.dtype), x), samples=uniform((3, 4)), at=EDGES,
             vjp=lambda g, ans, x: (ops.gate(g, ans),), exact=(idempotent,))      # of the same sign, and kept anyway
def relu(x):
    """``x`` where it is positive, else 0; gradient 0 at 0, NaN stays NaN."""
    return scalar.where(x <= 0, 0, x)


@elementwise(ref=lambda g, x: np.where(x <= 0, np.zeros((), g.dtype), g), samples=uniform((3, 4), (3, 4)), at=EDGES,
             vjp=lambda h, ans, g, x: (ops.gate(h, x), None))
def gate(g, x):
    """``g`` where ``x`` is positive (or NaN), else 0: the derivative of `relu` times ``g``."""
    return scalar.where(x <= 0, 0, g)


def _xmuly(x: Any, y: Any) -> Any:
    return np.where((x == 0) | (y == 0), np.zeros((), x.dtype), np.multiply(x, y))


@elementwise(domain="float", ref=_xmuly, samples=uniform((3, 4), (3, 4)), at=EDGES, linear=Linear.MULTI,
             vjp=lambda g, ans, x, y: (ops.xmuly(g, y), ops.xmuly(g, x)))
def xmuly(x, y):
    """``x * y``, but 0 where either is 0 whatever the other: a zero cotangent never meets an infinity."""
    return scalar.where((x == 0) | (y == 0), 0, x * y)


def _cast_aval(x: Aval, *, dtype: str) -> Aval:
    return aval(dtypes.code_of(dtype), x.shape)


def _holds(wide: np.dtype[Any], x: np.dtype[Any]) -> bool:
    """Every number of a dtype is one of another; NumPy calls int64 to float64 safe, too."""
    return np.can_cast(x, wide, "safe") and not (x == dtypes.int64 and wide == dtypes.float64)


def _cast_ref(x: Any, *, dtype: str) -> Any:
    with np.errstate(invalid="ignore"):
        return np.asarray(x).astype(dtype)


@elementwise(domain="any", aval=_cast_aval, ref=_cast_ref, samples=uniform((3, 4), dtype="float64"),
             linear=Linear.EACH, indexes=lambda x, dtype: (2, ()) if x.dtype.kind == "b" else (0, (0,)),
             vjp=lambda g, ans, x, *, dtype: (
                 ops.cast(g, dtype=x.dtype.name) if x.dtype.kind == "f" and ans.dtype.kind == "f" else None,),
             exact=(itself(lambda x, dtype: x.dtype == dtype),
                    joined(lambda x, inner, outer: outer if _holds(np.dtype(inner["dtype"]), x.dtype) else None)))
def cast(x, *, dtype):
    """The same values in another dtype. Floats are cut towards zero; out of an integer's range they saturate, NaN is 0.
    """
    target = np.dtype(dtype)
    if target.kind == "b":
        return x != 0 if x.dtype.kind != "b" else x
    if x.dtype.kind == "f" and target.kind == "i":
        return _to_integer(x, target)
    return scalar.convert(x, target)


def _to_integer(x: Any, target: np.dtype[Any]) -> Any:
    edge = 2.0 ** (8 * target.itemsize - 1)
    bound = np.iinfo(target)
    inside = (x >= -edge) & (x < edge)
    whole = scalar.convert(scalar.where(inside, x, 0), target)
    return scalar.where(inside, whole, scalar.where(x >= edge, target.type(bound.max),
                                                    scalar.where(x < -edge, target.type(bound.min), target.type(0))))
