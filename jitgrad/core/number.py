"""Python numbers that a recorded function takes as data.

A `Number` stands in for a float (or int) argument while a function records. What Python computes with it exactly as
IEEE doubles do is computed by rows in float64, and what meets a Tensor is cast like a Python number, by a row. For all
the rest it is read, like any other number that leaves a Tensor, and the recording guards its value.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from jitgrad.core import backend
from jitgrad.core.aval import aval
from jitgrad.core.dtypes import FLOAT64, INT64
from jitgrad.core.primitive import OPS


class Number:
    """A float, held as a float64 Tensor, or an int, held as an int64 one."""

    __slots__ = ("kind", "tensor")

    def __init__(self, kind: type, tensor: Any) -> None:
        self.kind = kind
        self.tensor = tensor

    @property
    def __class__(self) -> type:                   # `isinstance` finds what it finds in plain Python
        return self.kind

    @__class__.setter
    def __class__(self, kind: type) -> None:
        raise TypeError("the class of a number cannot be changed")

    def read(self) -> Any:
        """The Python number; the recording guards it from here on."""
        return self.tensor.item()

    def _double(self) -> Any:
        return self.tensor if self.kind is float else OPS["cast"](self.tensor, "float64")

    def __float__(self) -> float:
        return float(self.tensor)

    def __int__(self) -> int:
        return int(self.read())

    def __index__(self) -> int:
        return operator.index(self.read())

    def __bool__(self) -> bool:
        return bool(self.tensor)

    def __repr__(self) -> str:
        return repr(self.read())

    def __format__(self, spec: str) -> str:
        return format(self.read(), spec)

    def __hash__(self) -> int:
        return hash(self.read())

    def __neg__(self) -> Any:
        return Number(float, OPS["negative"](self.tensor)) if self.kind is float else -self.read()

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return Number(float, OPS["abs"](self.tensor)) if self.kind is float else abs(self.read())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.read(), dtype)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.kind, (self.read(),)           # a copy is a plain number

    def __getattr__(self, name: str) -> Any:
        if name[0] == "_":
            raise AttributeError(name)             # somebody asks what this is, not for the number
        return getattr(self.read(), name)          # is_integer, real, ...


def number(value: float) -> Number:
    """A `Number` of a Python float or int."""
    kind = type(value)
    code = FLOAT64 if kind is float else INT64
    array = np.array(value, np.float64 if kind is float else np.int64)
    return Number(kind, backend.current().tensor(array, aval(code, ())))


def _plain(x: Any) -> Any:
    return x.read() if type(x) is Number else x


def _doubles(x: Any, y: Any) -> tuple[Any, Any] | None:
    """Both sides for arithmetic in float64, if Python would compute in doubles; ints among themselves have no end."""
    kinds = {v.kind if type(v) is Number else type(v) for v in (x, y)}
    if float not in kinds or not kinds <= {float, int}:
        return None
    return tuple(v._double() if type(v) is Number else float(v) for v in (x, y))  # type: ignore[return-value]


def _install(symbol: str, python: Callable[..., Any], entry: str, exact: Callable[[Any, Any], bool],
             result: Callable[[Any], Any]) -> None:
    def forward(x: Any, y: Any, swapped: bool = False) -> Any:
        if type(y) not in (Number, float, int, bool, complex):
            return NotImplemented
        x, y = (y, x) if swapped else (x, y)
        both = _doubles(x, y) if exact(x, y) else None
        return python(_plain(x), _plain(y)) if both is None else result(OPS[entry](*both))

    setattr(Number, f"__{symbol}__", lambda x, y: forward(x, y))
    if symbol not in _COMPARISONS:
        setattr(Number, f"__r{symbol}__", lambda x, y: forward(x, y, True))


def _always(x: Any, y: Any) -> bool:
    return True


def _never(x: Any, y: Any) -> bool:
    return False                   # other roundings, or signs, or exceptions than Python's


def _by_a_number(x: Any, y: Any) -> bool:
    return type(y) is not Number and y != 0        # Python raises where it divides by zero


_COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")


def _float(t: Any) -> Number:
    return Number(float, t)


for _symbol, _entry, _exact in (("add", "add", _always), ("sub", "subtract", _always), ("mul", "multiply", _always),
                                ("truediv", "divide", _by_a_number)):
    _install(_symbol, getattr(operator, _symbol), _entry, _exact, _float)
for _symbol, _python in (("floordiv", operator.floordiv), ("mod", operator.mod), ("pow", pow), ("divmod", divmod),
                         ("and", operator.and_), ("or", operator.or_), ("xor", operator.xor),
                         ("lshift", operator.lshift), ("rshift", operator.rshift)):
    _install(_symbol, _python, "", _never, _float)
for _symbol, _of_one in (("round", round), ("trunc", math.trunc), ("floor", math.floor), ("ceil", math.ceil),
                         ("invert", operator.invert)):
    setattr(Number, f"__{_symbol}__", lambda x, *digits, of=_of_one: of(x.read(), *map(_plain, digits)))
for _symbol, _entry in (("lt", "less"), ("le", "less_equal"), ("gt", "greater"), ("ge", "greater_equal"),
                        ("eq", "equal"), ("ne", "not_equal")):
    _install(_symbol, getattr(operator, _symbol), _entry, _always, bool)
