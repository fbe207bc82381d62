"""Rows on a few elements each as straight code: every element is a value of its own, movements cost nothing.

Reductions have the order of `reductions`, so the bits are those of a kernel for each row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from jitgrad.core.form import Form
from jitgrad.core.primitive import Index, Kind
from jitgrad.execute.cpu.folds import ACCUMULATORS
from jitgrad.execute.cpu.lanes import Text, emit, splat
from jitgrad.execute.cpu.reductions import reduction_init
from jitgrad.plan.fuse import Member, Operand, Straight, body_of

Elements = np.ndarray                      # names of single values, in the shape of the array that they are


class StraightWriter:
    """Writes the rows into the text of a function; ``place`` gives the address of a value's memory."""

    def __init__(self, text: Text, step: Straight, place: Callable[[int], str], written: Iterable[int]) -> None:
        self.text, self.step, self.place = text, step, place
        self.written = {*written}
        self.known: dict[int, Elements] = {}
        self.pointers: dict[int, str] = {}
        self.read: dict[tuple[int, int, int], list[str]] = {}

    def all_rows(self) -> None:
        self.text.lanes = 1
        for m in self.step.members:
            given = [self.operand(o) for o in m.operands]
            outs = _MADE[m.form.prim.kind](self.text, m.form, given)
            for v, out, a in zip(m.outs, outs, m.form.outs, strict=True):
                self.known[v] = out.reshape(a.shape)
            self._store(m)

    def operand(self, o: Operand) -> Elements:
        """The elements of an operand: of what is known, or from memory."""
        item, n = o.aval.dtype.itemsize, o.aval.size
        if o.value in self.known:
            first = o.offset // item
            return self.known[o.value].ravel()[first: first + n].reshape(o.aval.shape)
        key = o.value, o.offset, n
        if key not in self.read:
            pointer = self._pointer(o.value)
            self.read[key] = [self.text.load(self._at(pointer, o.offset + k * item), o.aval.dtype) for k in range(n)]
        return _array(self.read[key]).reshape(o.aval.shape)

    def _store(self, m: Member) -> None:
        for v, a in zip(m.outs, m.form.outs, strict=True):
            if v in self.written:
                pointer = self._pointer(v)
                for k, x in enumerate(self.known[v].ravel()):
                    self.text.store(x, self._at(pointer, k * a.dtype.itemsize), a.dtype)

    def _pointer(self, v: int) -> str:
        if v not in self.pointers:
            self.pointers[v] = self.place(v)
        return self.pointers[v]

    def _at(self, pointer: str, offset: int) -> str:
        return self.text.set(f"getelementptr i8, ptr {pointer}, i64 {offset}") if offset else pointer


def _array(names: Sequence[str]) -> Elements:
    out = np.empty(len(names), object)
    out[:] = names
    return out


# ---- kinds ---------------------------------------------------------------------------------------

def _elementwise(text: Text, f: Form, given: Sequence[Elements]) -> list[Elements]:
    shape = f.outs[0].shape
    spread = [np.broadcast_to(x, shape).ravel() for x in given]
    made = [emit(text, body_of(f.id), [x[k] for x in spread]) for k in range(f.outs[0].size)]
    return [_array([results[r] for results in made]) for r in range(len(f.outs))]


def _reduce(text: Text, f: Form, given: Sequence[Elements]) -> list[Elements]:
    dtype, trace = f.outs[0].dtype, body_of(f.id)
    init = splat(reduction_init(f.prim.init, dtype), dtype)
    rows = given[0].reshape(f.outs[0].size, -1)
    return [_array([_folded(lambda a, b: emit(text, trace, [a, b])[0], init, row) for row in rows])]


def _folded(fold: Callable[[str, str], str], init: str, row: Iterable[str]) -> str:
    """Each element meets an accumulator of its own; those meet by halves."""
    accs = [fold(init, x) for x in row]
    distance = ACCUMULATORS // 2
    while distance:
        for k in range(min(distance, len(accs) - distance)):
            accs[k] = fold(accs[k], accs[k + distance])
        del accs[distance:]
        distance //= 2
    return accs[0]


def _at_index(index: Index) -> list[int]:
    return [index.offset + sum(i * s for i, s in zip(at, index.strides, strict=True))
            for at in itertools.product(*map(range, index.shape))]


def _move(text: Text, f: Form, given: Sequence[Elements]) -> list[Elements]:
    return [given[0].ravel()[_at_index(f.prim.body(*f.avals, **f.params))]]


def _place(text: Text, f: Form, given: Sequence[Elements]) -> list[Elements]:
    out = _array([splat(0, f.outs[0].dtype)] * f.outs[0].size)
    out[_at_index(f.prim.body(*f.avals, **f.params))] = given[0].ravel()
    return [out]


def _concat(text: Text, f: Form, given: Sequence[Elements]) -> list[Elements]:
    return [np.concatenate(given, f.params["axis"]).ravel()]


_MADE: dict[Kind, Any] = {Kind.ELEMENTWISE: _elementwise, Kind.REDUCE: _reduce, Kind.MOVE: _move, Kind.PLACE: _place,
                          Kind.INDEX: _concat}
