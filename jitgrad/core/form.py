"""Forms: a primitive at given operand avals and params, interned.

Shape inference, kernels and derivative fragments are worked out once per form; a row of a tape holds a form
and its operands, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jitgrad.core.aval import Aval
from jitgrad.core.errors import user_error
from jitgrad.core.lock import TABLES
from jitgrad.core.primitive import Missing, Primitive


class Form:
    """See the module. ``id`` is its number; ``address`` belongs to the backend."""

    __slots__ = ("address", "avals", "differentiable", "id", "outs", "params", "prim")

    def __init__(self, number: int, prim: Primitive, avals: tuple[Aval, ...], params: dict[str, Any]) -> None:
        self.id = number
        self.prim = prim
        self.avals = avals
        self.params = params
        outs = prim.aval(*avals, **params)
        self.outs: tuple[Aval, ...] = outs if isinstance(outs, tuple) else (outs,)
        floats = any(a.code >= 3 for a in self.outs)
        self.differentiable = prim.vjp is not None and floats
        self.address = 0

    @property
    def missing(self) -> bool:
        return isinstance(self.prim.vjp, Missing)

    def __repr__(self) -> str:
        given = ", ".join([*map(repr, self.avals), *(f"{k}={v!r}" for k, v in self.params.items())])
        return f"{self.prim.name}({given}) -> {', '.join(map(repr, self.outs))}"


class Columns:
    """What compiled code wants to know of every form, by form number, in arrays that grow."""

    def __init__(self) -> None:
        self.op = np.zeros(0, np.int64)
        self.inputs = np.zeros(0, np.int64)
        self.outputs = np.zeros(0, np.int64)
        self.first_out = np.zeros(0, np.int64)     # into out_avals
        self.out_avals = np.zeros(0, np.int64)
        self._outs = 0

    def add(self, made: Form) -> None:
        n = made.id
        if n >= len(self.op):
            for name in ("op", "inputs", "outputs", "first_out"):
                setattr(self, name, grown(getattr(self, name), n + 1))
        if self._outs + len(made.outs) > len(self.out_avals):
            self.out_avals = grown(self.out_avals, self._outs + len(made.outs))
        self.op[n], self.inputs[n], self.outputs[n] = made.prim.code, len(made.avals), len(made.outs)
        self.first_out[n] = self._outs
        self.out_avals[self._outs: self._outs + len(made.outs)] = [a.id for a in made.outs]
        self._outs += len(made.outs)


def grown(column: np.ndarray, size: int) -> np.ndarray:
    """The column with room for ``size`` items, doubling."""
    out = np.zeros(max(size, 2 * len(column), 64), column.dtype)
    out[: len(column)] = column
    return out


FORMS: list[Form] = []
COLUMNS = Columns()
_interned: dict[tuple[int, tuple[int, ...], tuple[Any, ...]], Form] = {}


def form(prim: Primitive, avals: Sequence[Aval], params: dict[str, Any]) -> Form:
    """The form of a primitive; raises the shape rule's sentence if the operands do not fit.

    Params are keyed by type as well as value: ``1``, ``1.0`` and ``True`` are equal to Python.
    """
    key = (prim.code, tuple(a.id for a in avals), tuple((type(v), v) for v in params.values()))
    try:
        found = _interned.get(key)
    except TypeError:
        raise user_error(TypeError, f"{prim.name}: parameters must be hashable, got {params}") from None
    if found is None:
        with TABLES:
            found = _interned.get(key)
            if found is None:
                found = Form(len(FORMS), prim, tuple(avals), dict(params))
                COLUMNS.add(found)
                FORMS.append(found)
                _interned[key] = found
    return found
