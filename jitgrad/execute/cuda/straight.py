"""Rows on a few elements each as straight code of one thread: every element is a value of its own, movements are free.

What would have too many pointers for one kernel is several launches; what a later one reads of an earlier one then
lies in scratch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jitgrad.core.form import Form
from jitgrad.core.primitive import Index, Kind
from jitgrad.execute.cpu.reductions import reduction_init
from jitgrad.execute.cuda.bodies import Body, Memory, Slot
from jitgrad.execute.cuda.kernel import Launch, Work
from jitgrad.execute.source import literal, loaded
from jitgrad.plan.fuse import Member, Operand, Straight, body_of

MOST_POINTERS = 200            # of operands and results of one kernel
Elements = np.ndarray          # names of single values, in the shape of the array that they are


def work(step: Straight, written: set[int]) -> tuple[Work, list[Slot]]:
    """The launches of straight code of whose values some are wanted in memory, and what their slots are."""
    memory = Memory()
    groups = _groups(step.members)
    rooms: dict[int, int] = {}
    launches: list[Launch] = []
    for k, members in enumerate(groups):
        later = {o.value for group in groups[k + 1:] for m in group for o in m.operands}
        for m in members:
            rooms.update((v, memory.room(a.nbytes)) for v, a in zip(m.outs, m.form.outs, strict=True)
                         if v in later and v not in written)
        launches += _Writer(memory, written, rooms).launch(members)
    return memory.work(launches)


def _groups(members: Sequence[Member]) -> list[list[Member]]:
    """Members one after the other, of few enough pointers."""
    groups: list[list[Member]] = [[]]
    known: set[tuple[int, int]] = set()
    for m in members:
        more = {(o.value, o.offset) for o in m.operands} | {(v, 0) for v in m.outs}
        if groups[-1] and len(known | more) > MOST_POINTERS:
            groups.append([])
            known = set()
        known |= more
        groups[-1].append(m)
    return groups


class _Writer:
    """Writes the code of some members. ``rooms``: slots of values that have no memory of their own."""

    def __init__(self, memory: Memory, written: set[int], rooms: dict[int, int]) -> None:
        self.body, self.written, self.rooms = Body(memory), written, rooms
        self.known: dict[int, Elements] = {}
        self.read: dict[tuple[int, int, int], Elements] = {}
        self.lines: list[str] = []
        self.count = 0

    def launch(self, members: Sequence[Member]) -> list[Launch]:
        """The launch of these members; none if nobody reads what they make."""
        stores = []
        for m in members:
            given = [self.operand(o) for o in m.operands]
            outs = _MADE[m.form.prim.kind](self, m.form, given)
            for v, out, a in zip(m.outs, outs, m.form.outs, strict=True):
                self.known[v] = out.reshape(a.shape)
                if v in self.written or v in self.rooms:
                    pointer = self._pointer(v, 0, a.dtype)
                    stores += [self.body.store(pointer, str(k), x, a.dtype) for k, x in enumerate(out.ravel())]
        if not stores:
            return []
        self.body.lines = [*self.lines, *stores]
        return [self.body.launch("straight", 1, 1)]

    def _pointer(self, v: int, offset: int, dtype: np.dtype[Any]) -> str:
        if v in self.rooms:
            assert not offset
            return self.body.pointer(self.rooms[v], dtype)
        return self.body.value(v, offset, dtype)

    def operand(self, o: Operand) -> Elements:
        """The elements of an operand: of what is known, or from memory."""
        first = o.offset // o.aval.dtype.itemsize
        if o.value in self.known:
            return self.known[o.value].ravel()[first: first + o.aval.size].reshape(o.aval.shape)
        key = o.value, o.offset, o.aval.size
        if key not in self.read:
            apart = o.value in self.rooms
            pointer = self._pointer(o.value, 0 if apart else o.offset, o.aval.dtype)
            names = [f"x{len(self.read)}_{k}" for k in range(o.aval.size)]
            self.lines += [f"{name} = {loaded(pointer, str(k + first * apart), o.aval.dtype)}"
                           for k, name in enumerate(names)]
            self.read[key] = _array(names)
        return self.read[key].reshape(o.aval.shape)

    def compute(self, f: Form, given: list[str]) -> list[str]:
        """The names of what a body makes of single values."""
        self.count += 1
        lines, results = self.body.compute(body_of(f.id), given, f"m{self.count}_")
        self.lines += lines
        return results


def _array(names: Sequence[str]) -> Elements:
    out = np.empty(len(names), object)
    out[:] = names
    return out


# ---- kinds ---------------------------------------------------------------------------------------

def _elementwise(writer: _Writer, f: Form, given: Sequence[Elements]) -> list[Elements]:
    spread = [np.broadcast_to(x, f.outs[0].shape).ravel() for x in given]
    made = [writer.compute(f, [x[k] for x in spread]) for k in range(f.outs[0].size)]
    return [_array([results[r] for results in made]) for r in range(len(f.outs))]


def _reduce(writer: _Writer, f: Form, given: Sequence[Elements]) -> list[Elements]:
    dtype = f.outs[0].dtype
    init = literal(dtype.type(reduction_init(f.prim.init, dtype)).item(), dtype)
    made = []
    for row in given[0].reshape(f.outs[0].size, -1):
        accs = [init, *row]
        while len(accs) > 1:
            accs = [*(writer.compute(f, [a, b])[0] for a, b in zip(accs[::2], accs[1::2], strict=False)),
                    *accs[len(accs) // 2 * 2:]]
        made.append(accs[0])
    return [_array(made)]


def _at_index(index: Index) -> list[int]:
    return [index.offset + sum(i * s for i, s in zip(at, index.strides, strict=True))
            for at in itertools.product(*map(range, index.shape))]


def _move(writer: _Writer, f: Form, given: Sequence[Elements]) -> list[Elements]:
    return [given[0].ravel()[_at_index(f.prim.body(*f.avals, **f.params))]]


def _place(writer: _Writer, f: Form, given: Sequence[Elements]) -> list[Elements]:
    out = _array([literal(f.outs[0].dtype.type(0).item(), f.outs[0].dtype)] * f.outs[0].size)
    out[_at_index(f.prim.body(*f.avals, **f.params))] = given[0].ravel()
    return [out]


def _concat(writer: _Writer, f: Form, given: Sequence[Elements]) -> list[Elements]:
    return [np.concatenate(given, f.params["axis"]).ravel()]


_MADE: dict[Kind, Callable[[_Writer, Form, Sequence[Elements]], list[Elements]]] = {
    Kind.ELEMENTWISE: _elementwise, Kind.REDUCE: _reduce, Kind.MOVE: _move, Kind.PLACE: _place, Kind.INDEX: _concat}
