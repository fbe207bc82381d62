"""The scalar language: bodies of elementwise and reducing primitives, and how they become data.

A body is a plain Python function of scalars, written with operators and the functions of this module. Calling it
once on `Scalar` values (`trace`) gives a `Trace`: a flat single-assignment list of typed nodes that every backend
turns into its own code. All rounding is explicit: a product is fused with a sum only where `fmuladd` says so.

Grammar of a Trace. Operands are indices of earlier nodes; dtypes are bool, int32, int64, float32, float64.

    argument                      the i-th argument of the body, i = index of the node
    const                         immediate: the value, already rounded to the dtype
    add sub mul div neg           one dtype; integers wrap; `div` of integers truncates, its divisor is never 0 or -1
    fmuladd a b c                 a * b + c, rounded once where the processor can
    lt le gt ge eq ne             -> bool; ordered, `ne` is true of NaN
    and or xor not                bool or integer, bitwise
    shl shr ushr                  integer; the count is in [0, width); `ushr` shifts zeros in
    select c a b                  c ? a : b
    rint floor ceil trunc sqrt fabs copysign     float
    bits from_bits                float <-> int of the same width
    convert                       value conversion; float -> int truncates and wants a value in range
    table i                       immediate: tuple of constants; the index is in range
    branch c                      opens the slow block of `rarely`: skipped when c is false (for all lanes)
    merge c slow fast             closes it: c ? slow : fast; immediate: (index of branch, ordinal)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

BOOL, INT32, INT64, FLOAT32, FLOAT64 = (np.dtype(t) for t in ("bool", "int32", "int64", "float32", "float64"))
DTYPES = (BOOL, INT32, INT64, FLOAT32, FLOAT64)
COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
_SAME_WIDTH = {FLOAT32: INT32, FLOAT64: INT64, INT32: FLOAT32, INT64: FLOAT64}


class Node(NamedTuple):
    """One value of a Trace."""

    op: str
    operands: tuple[int, ...]
    dtype: np.dtype[Any]
    immediate: Any = None


@dataclass(frozen=True)
class Trace:
    """A body as data, at fixed argument dtypes."""

    body: Callable[..., Any] = field(repr=False, compare=False)
    arguments: tuple[np.dtype[Any], ...]
    nodes: tuple[Node, ...] = field(repr=False)
    results: tuple[int, ...]

    @property
    def dtypes(self) -> tuple[np.dtype[Any], ...]:
        """Dtypes of the results."""
        return tuple(self.nodes[i].dtype for i in self.results)

    def at(self, *dtypes: Any) -> Trace:
        """The same body traced at other argument dtypes."""
        return trace(self.body, dtypes)

    def merges(self, first: int) -> tuple[Node, ...]:
        """The merges of one branch, which follow one another, from the first."""
        branch = self.nodes[first].immediate[0]
        later = itertools.islice(self.nodes, first, None)
        return tuple(itertools.takewhile(lambda n: n.op == "merge" and n.immediate[0] == branch, later))

    def __str__(self) -> str:
        lines = []
        for i, node in enumerate(self.nodes):
            operands = " ".join(f"%{j}" for j in node.operands)
            immediate = "" if node.immediate is None else f" {node.immediate}"
            lines.append(f"%{i}: {node.dtype} = {node.op} {operands}{immediate}".rstrip())
        return "\n".join([*lines, "-> " + " ".join(f"%{i}" for i in self.results)])


class _Tracer:
    """Appends nodes; equal nodes of one scope are one node."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.scopes: list[dict[Any, int]] = [{}]

    def emit(self, op: str, operands: Sequence[Scalar], dtype: np.dtype[Any], immediate: Any = None) -> Scalar:
        node = Node(op, tuple(x.index for x in operands), dtype, immediate)
        key = (op, node.operands, dtype, repr(immediate))  # repr: -0.0 is not 0.0, NaN is itself
        for scope in self.scopes:
            if key in scope:
                return Scalar(self, scope[key], dtype)
        self.nodes.append(node)
        self.scopes[-1][key] = len(self.nodes) - 1
        return Scalar(self, len(self.nodes) - 1, dtype)


class Scalar:
    """A value inside a body. Its operators append nodes; Python numbers adapt to its dtype."""

    __slots__ = ("dtype", "index", "tracer")
    __array_ufunc__ = None  # so that `np.float32(1) + x` comes here
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tracer: _Tracer, index: int, dtype: np.dtype[Any]) -> None:
        self.tracer, self.index, self.dtype = tracer, index, dtype

    def __bool__(self) -> bool:
        raise TypeError("a scalar body cannot branch on a value; use where() or rarely()")

    def __repr__(self) -> str:
        return f"<Scalar %{self.index}: {self.dtype}>"

    def __neg__(self) -> Scalar:
        return _apply("neg", self, kinds="if")

    def __invert__(self) -> Scalar:
        return _apply("not", self, kinds="bi")

    def __floordiv__(self, other: Any) -> Scalar:
        return _divmod(self, other)[0]

    def __rfloordiv__(self, other: Any) -> Scalar:
        return _divmod(other, self)[0]

    def __mod__(self, other: Any) -> Scalar:
        return _divmod(self, other)[1]

    def __rmod__(self, other: Any) -> Scalar:
        return _divmod(other, self)[1]


def _install_operators() -> None:
    """Binary operators: Python's name, the node, the kinds of dtype it takes."""
    for names, op, kinds in (
        ("add radd", "add", "if"), ("sub rsub", "sub", "if"), ("mul rmul", "mul", "if"),
        ("truediv rtruediv", "div", "f"), ("and rand", "and", "bi"), ("or ror", "or", "bi"),
        ("xor rxor", "xor", "bi"), ("lshift rlshift", "shl", "i"), ("rshift rrshift", "shr", "i"),
        ("lt", "lt", "bif"), ("le", "le", "bif"), ("gt", "gt", "bif"),
        ("ge", "ge", "bif"), ("eq", "eq", "bif"), ("ne", "ne", "bif"),
    ):  # fmt: skip
        direct, *reflected = names.split()
        setattr(Scalar, f"__{direct}__", lambda a, b, op=op, kinds=kinds: _apply(op, a, b, kinds=kinds))
        for name in reflected:
            setattr(Scalar, f"__{name}__", lambda a, b, op=op, kinds=kinds: _apply(op, b, a, kinds=kinds))


_install_operators()


def _number(value: Any, dtype: np.dtype[Any]) -> bool | int | float:
    """A Python number rounded to dtype; integers up to the unsigned range wrap, so that masks can be written."""
    if dtype.kind == "b":
        return bool(value)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return float(dtype.type(value))
    if value != int(value):
        raise TypeError(f"the constant {value!r} is not an integer, where {dtype} is wanted")
    width = 8 * dtype.itemsize
    if not -(1 << (width - 1)) <= value < 1 << width:
        raise OverflowError(f"the constant {value!r} does not fit {dtype}")
    return (int(value) + (1 << (width - 1))) % (1 << width) - (1 << (width - 1))


def _adapt(op: str, *values: Any, tracer: _Tracer | None = None) -> list[Scalar]:
    """Operands as Scalars of one dtype, which a Scalar or a NumPy scalar among them gives."""
    tracer = tracer or next((v.tracer for v in values if isinstance(v, Scalar)), None)
    dtypes = {v.dtype for v in values if isinstance(v, Scalar | np.generic)}
    if tracer is None or len(dtypes) != 1:
        named = ", ".join(str(v.dtype) if hasattr(v, "dtype") else repr(v) for v in values)
        raise TypeError(f"{op}: operands of one dtype are wanted (use convert), not ({named})")
    (dtype,) = dtypes
    return [v if isinstance(v, Scalar) else _const(tracer, v, dtype) for v in values]


def _const(tracer: _Tracer, value: Any, dtype: np.dtype[Any]) -> Scalar:
    return tracer.emit("const", (), dtype, _number(value, dtype))


def _apply(op: str, *values: Any, kinds: str) -> Scalar:
    operands = _adapt(op, *values)
    dtype = operands[0].dtype
    if dtype.kind not in kinds:
        raise TypeError(f"{op} is not defined for {dtype}")
    return operands[0].tracer.emit(op, operands, BOOL if op in COMPARISONS else dtype)


def _divmod(a: Any, b: Any) -> tuple[Scalar, Scalar]:
    """Integer quotient towards -inf and its remainder; a divisor of 0 gives 0, 0 as in NumPy."""
    a, b = _adapt("floordiv", a, b)
    zero, one = b == 0, b == -1  # sdiv by -1 overflows at the least integer
    divisor = where(zero | one, 1, b)
    quotient = _apply("div", a, divisor, kinds="i")
    remainder = a - quotient * divisor
    wrong = (remainder != 0) & ((remainder ^ divisor) < 0)
    quotient = where(wrong, quotient - 1, quotient)
    remainder = where(wrong, remainder + divisor, remainder)
    return where(zero, 0, where(one, -a, quotient)), remainder


def fmuladd(a: Any, b: Any, c: Any) -> Scalar:
    """a * b + c, rounded once on every processor with fused multiply-add."""
    return _apply("fmuladd", a, b, c, kinds="f")


def where(condition: Scalar, a: Any, b: Any) -> Scalar:
    """a where the condition holds, else b; both are computed. A NumPy scalar gives the dtype where both are numbers."""
    a, b = _adapt("where", a, b, tracer=condition.tracer)
    return condition.tracer.emit("select", (condition, a, b), a.dtype)


def rint(x: Scalar) -> Scalar:
    """Nearest integer, ties to even."""
    return _apply("rint", x, kinds="f")


def floor(x: Scalar) -> Scalar:
    """Greatest integer not above x."""
    return _apply("floor", x, kinds="f")


def ceil(x: Scalar) -> Scalar:
    """Least integer not below x."""
    return _apply("ceil", x, kinds="f")


def trunc(x: Scalar) -> Scalar:
    """Integer part, towards zero."""
    return _apply("trunc", x, kinds="f")


def sqrt(x: Scalar) -> Scalar:
    """Square root, correctly rounded."""
    return _apply("sqrt", x, kinds="f")


def fabs(x: Scalar) -> Scalar:
    """x with the sign bit cleared."""
    return _apply("fabs", x, kinds="f")


def copysign(x: Any, sign: Any) -> Scalar:
    """The magnitude of x with the sign bit of `sign`."""
    return _apply("copysign", x, sign, kinds="f")


def bits(x: Scalar) -> Scalar:
    """The bits of a float as an integer of the same width."""
    return x.tracer.emit("bits", (x,), _SAME_WIDTH[_kind("bits", x, "f")])


def from_bits(i: Scalar) -> Scalar:
    """The float with the given bits."""
    return i.tracer.emit("from_bits", (i,), _SAME_WIDTH[_kind("from_bits", i, "i")])


def _kind(op: str, x: Scalar, kinds: str) -> np.dtype[Any]:
    if x.dtype.kind not in kinds:
        raise TypeError(f"{op} is not defined for {x.dtype}")
    return x.dtype


def ushr(i: Any, count: Any) -> Scalar:
    """i shifted right with zeros shifted in."""
    return _apply("ushr", i, count, kinds="i")


def convert(x: Any, dtype: Any) -> Any:
    """The value of x in another dtype; float -> integer truncates and is defined for values in range only."""
    dtype = np.dtype(dtype)
    if not isinstance(x, Scalar):
        return dtype.type(x)
    return x if x.dtype == dtype else x.tracer.emit("convert", (x,), dtype)


def ult(a: Any, b: Any) -> Scalar:
    """a < b of integers read as unsigned."""
    a, b = _adapt("ult", a, b)
    least = -(1 << (8 * a.dtype.itemsize - 1))
    return (a ^ least) < (b ^ least)


def mulhi64(a: Any, b: Any) -> Scalar:
    """High 64 bits of the 128-bit product of two int64 read as unsigned, from four 32-bit products."""
    a, b = _adapt("mulhi64", a, b)
    mask = 0xFFFFFFFF
    a0, a1, b0, b1 = a & mask, ushr(a, 32), b & mask, ushr(b, 32)
    middle = a1 * b0 + ushr(a0 * b0, 32)
    low = a0 * b1 + (middle & mask)
    return a1 * b1 + ushr(middle, 32) + ushr(low, 32)


def table(constants: Sequence[float], index: Scalar, dtype: Any) -> Scalar:
    """constants[index] in the given dtype; an index out of range takes the nearest end."""
    dtype = np.dtype(dtype)
    last = len(constants) - 1
    index = where(index < 0, 0, where(index > last, last, index))
    return index.tracer.emit("table", (index,), dtype, tuple(_number(c, dtype) for c in constants))


def rarely(condition: Scalar, slow: Callable[[], Any], fast: Any) -> Any:
    """slow() where the condition holds, else fast (a value, or a tuple of values).

    fast is computed for every lane; slow() is one branch, entered when any lane wants it. It may be evaluated at
    lanes that do not, so it must be total; its inner values must not leave it.
    """
    tracer = condition.tracer
    branch = tracer.emit("branch", (condition,), BOOL, len(tracer.nodes))
    tracer.scopes.append({})
    values = slow()
    tracer.scopes.pop()
    pairs = zip(values, fast, strict=True) if isinstance(fast, tuple) else [(values, fast)]
    merged = []
    for ordinal, (a, b) in enumerate([_adapt("rarely", *pair, tracer=tracer) for pair in pairs]):
        merged.append(tracer.emit("merge", (condition, a, b), a.dtype, (branch.index, ordinal)))
    return tuple(merged) if isinstance(fast, tuple) else merged[0]


def trace(body: Callable[..., Any], dtypes: Sequence[Any]) -> Trace:
    """Run a body once on Scalars of the given dtypes."""
    arguments = tuple(np.dtype(d) for d in dtypes)
    if unknown := [d for d in arguments if d not in DTYPES]:
        raise TypeError(f"scalar bodies know {', '.join(map(str, DTYPES))}, not {unknown[0]}")
    tracer = _Tracer()
    scalars = [tracer.emit("argument", (), dtype, i) for i, dtype in enumerate(arguments)]
    results = body(*scalars)
    results = results if isinstance(results, tuple) else (results,)
    fitted = []
    for result in results:
        if isinstance(result, np.generic):
            result = _const(tracer, result, result.dtype)
        if not isinstance(result, Scalar):
            raise TypeError(f"{body.__name__} returned {result!r}; a body returns values of its arguments' computation")
        fitted.append(result.index)
    return Trace(body, arguments, tuple(tracer.nodes), tuple(fitted))


INF, NAN = math.inf, math.nan
