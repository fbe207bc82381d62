"""Nests of a Plan as vector text: elementwise rows and reductions over last axes, in one walk over memory.

A row of up to `SHORT` vectors is unrolled: its values stay in registers. A longer one is walked in passes, one more
for each reduction that later members wait for; values that a later pass reads are kept in memory. Reductions have the
order of `reductions`, so the bits are those of a kernel for each row, whatever the lanes and the threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from jitgrad.execute.cpu.folds import Fold
from jitgrad.execute.cpu.lanes import Text, emit, load_first, register, store_first
from jitgrad.execute.cpu.reductions import CHUNK
from jitgrad.execute.cpu.walks import Walk
from jitgrad.plan.fuse import Member, Operand, body_of, inner_step
from jitgrad.plan.rows import outer_of

PART, STRIP = 256, 32          # columns of a short part of a matrix, and those of it that are walked at a time
AHEAD = 2048                   # bytes: Adam's update behind a gradient of 200,000 elements takes 99 us instead of 107

Place = Callable[[int], str]


class Writer:
    """Writes the walk of a nest into the text of a function; ``place`` gives the address of a value's memory."""

    def __init__(self, text: Text, walk: Walk, place: Place, written: Iterable[int]) -> None:
        self.text, self.walk, self.nest = text, walk, walk.nest
        self.written = {*written} - {v for v, _ in walk.kept}
        self.length = self.nest.length
        self.folds = {m.outs[0]: Fold(text, m, walk.lanes) for m in self.nest.members if m.fold}
        self.pointers = {v: place(v) for v in dict.fromkeys(self._touched())}
        self.shape = self.nest.shape or (self.nest.size,)
        self.axis = self.nest.axis
        self.dims, self.steps = outer_of(self.nest)
        self.single: dict[tuple[int, int], str] = {}             # numbers that are read once
        self.spread: dict[tuple[int, int], str] = {}             # the same in all lanes
        self.ahead = 0                                           # how many bytes ahead operands are fetched
        self._read_numbers()

    def _touched(self) -> Iterable[int]:
        for m in self.nest.members:
            yield from (o.value for o in m.operands if o.value not in self.nest.values)
        yield from sorted(self.written | {v for v, _ in self.walk.kept})

    # ---- operands ----

    def address(self, o: Operand) -> str:
        pointer = self.pointers[o.value]
        return self.text.set(f"getelementptr i8, ptr {pointer}, i64 {o.offset}") if o.offset else pointer

    def _read_numbers(self) -> None:
        text = self.text
        for m in self.nest.members:
            for o in m.operands:
                key = o.value, o.offset
                if o.value in self.nest.values or o.aval.size != 1:
                    continue
                if key not in self.single:
                    text.lanes = 1
                    self.single[key] = text.load(self.address(o), o.aval.dtype)
                if (m.wide or m.fold) and key not in self.spread:
                    self.spread[key] = self._everywhere(self.single[key], o.aval.dtype)

    def _everywhere(self, one: str, dtype: np.dtype[Any]) -> str:
        """A number in all lanes."""
        if self.walk.lanes == 1:
            return one
        lane = register(dtype)
        return self.text.set(f"shufflevector <1 x {lane}> {one}, <1 x {lane}> poison, "
                             f"<{self.walk.lanes} x i32> zeroinitializer")

    # ---- rows ----

    def all_rows(self) -> None:
        """Every row, in the function that is being written."""
        self.some_rows("0", str(self.dims[0]))

    def some_rows(self, first: str, last: str) -> None:
        """Rows whose first index is in a range."""
        def along(k: int, indices: list[str]) -> None:
            if k == len(self.dims):
                self.row(indices)
                return
            if self.dims[k] == 1:
                along(k + 1, [*indices, "0"])
                return

            def step(i: str) -> list[str]:
                along(k + 1, [*indices, i])
                return []
            bounds = (first, last) if k == 0 else ("0", str(self.dims[k]))
            self.text.loop("row", *bounds, 1, step)
        along(0, [])

    def block(self, first: str, last: str, left: str, right: str) -> None:
        """Some columns, in whole vectors, of some rows of a nest of wide members alone.

        Short parts of rows are walked in strips: behind the end of a part the processor fetches what is another
        thread's, which has to get it back, but of two cache lines it does not conclude that more will be read.
        """
        text, self.ahead = self.text, AHEAD
        width = text.set(f"sub i64 {right}, {left}")
        whole = text.set(f"icmp eq i64 {width}, {self.length}")
        long = text.set(f"or i1 {whole}, {text.set(f'icmp sgt i64 {width}, {PART}')}")
        width = text.set(f"select i1 {long}, i64 {width}, i64 {STRIP}")

        def strip(column: str) -> list[str]:
            end = text.set(f"add i64 {column}, {width}")
            inside = text.set(f"icmp slt i64 {end}, {right}")
            end = text.set(f"select i1 {inside}, i64 {end}, i64 {right}")

            def row(i: str) -> list[str]:
                self.begin([i])
                self.prepare(self.nest.members)
                self.span(self.nest.members, column, end, self.length, 0)
                return []
            text.loop("row", first, last, 1, row)
            return []
        text.loop("strip", left, right, width, strip)

    def row(self, indices: list[str]) -> None:
        """All passes over one row."""
        self.begin(indices)
        for turn in range(1 + max(self.walk.turn.values())):
            self.narrow(turn)
            self.wide(turn)
        self.narrow(1 + max(self.walk.turn.values()))

    def begin(self, indices: list[str]) -> None:
        """Nothing is known of the row yet."""
        text = self.text
        self.indices = indices
        number = indices[0]
        for n, i in zip(self.dims[1:], indices[1:], strict=True):
            number = text.set(f"add i64 {text.set(f'mul i64 {number}, {n}')}, {i}")
        self.number = number
        self.narrow_values: dict[int, str] = {}
        self.everywhere: dict[Any, str] = {}
        self.bases: dict[Any, str] = {}
        self.points: dict[int, dict[Any, str]] = {}      # of an unrolled row: what is known at each vector

    def base(self, o: Operand) -> str:
        """Where an operand's part of this row begins."""
        key = o.value, o.offset, o.aval.shape if o.aval.size != self.nest.size else None
        if key not in self.bases:
            self.bases[key] = self._begins(self.address(o), o)
        return self.bases[key]

    def _begins(self, pointer: str, o: Operand) -> str:
        text = self.text
        if o.value in (v for v, _ in self.walk.kept):
            return pointer
        if o.aval.size == self.nest.size:
            return pointer if self.number == "0" else text.at(
                pointer, text.set(f"mul i64 {self.number}, {self.length}"), o.aval.dtype)
        for i, step in zip(self.indices, self.steps[o.aval.shape], strict=True):
            if step and i != "0":
                pointer = text.at(pointer, text.set(f"mul i64 {i}, {step}"), o.aval.dtype)
        return pointer

    # ---- one value for a row ----

    def narrow(self, turn: int) -> None:
        """The narrow members before a pass."""
        for m in self.nest.members:
            if m.wide or m.fold or self.walk.turn[m.outs[0]] != turn:
                continue
            given = [self._narrow_operand(o) for o in m.operands]
            self.text.lanes = 1
            for v, result, a in zip(m.outs, emit(self.text, body_of(m.form.id), given), m.form.outs, strict=True):
                self.set_narrow(v, result, a.dtype)

    def set_narrow(self, v: int, value: str, dtype: np.dtype[Any]) -> None:
        """A narrow value of this row is known; it is stored if others read it."""
        self.narrow_values[v] = value
        if v in self.written:
            self.text.lanes = 1
            self.text.store(value, self._of_row(self.pointers[v], dtype), dtype)

    def _of_row(self, pointer: str, dtype: np.dtype[Any]) -> str:
        return pointer if self.number == "0" else self.text.at(pointer, self.number, dtype)

    def _narrow_operand(self, o: Operand) -> str:
        if o.value in self.narrow_values:
            return self.narrow_values[o.value]
        if o.aval.size == 1:
            return self.single[o.value, o.offset]
        key = "narrow", o.value, o.offset
        if key not in self.everywhere:
            self.text.lanes = 1
            self.everywhere[key] = self.text.load(self._of_row(self.address(o), o.aval.dtype), o.aval.dtype)
        return self.everywhere[key]

    # ---- a value for every element ----

    def wide(self, turn: int) -> None:
        """The wide members and reductions of a pass."""
        members = [m for m in self.nest.members if (m.wide or m.fold) and self.walk.turn[m.outs[0]] == turn]
        if not members:
            return
        self.prepare(members)
        folds = [self.folds[m.outs[0]] for m in members if m.fold]
        if self.walk.short:
            self._unrolled(members)
            parts = [f.part for f in folds]
        elif self.length <= CHUNK or not folds:
            parts = [f.joined(accs) for f, accs in zip(
                folds, self.span(members, "0", str(self.length - self.walk.tail), self.length, self.walk.tail),
                strict=True)]
        else:
            parts = self._chunks(members, folds)
        for f, part in zip(folds, parts, strict=True):
            self.set_narrow(f.value, part, f.dtype)

    def prepare(self, members: Sequence[Member]) -> None:
        """What a pass reads once: where its operands begin, and numbers of the row in all lanes."""
        for m in members:
            for o in m.operands:
                if o.value in self.narrow_values:
                    self._once(("row", o.value), self.narrow_values[o.value], o)
                elif o.value in self.nest.values and (self.walk.short or not self._in_memory(o.value)):
                    continue
                elif o.aval.size != 1:
                    if self._stands(o):
                        key = "stands", o.value, o.offset, o.aval.shape
                        if key not in self.everywhere:
                            self.text.lanes = 1
                            self._once(key, self.text.load(self.base(o), o.aval.dtype), o)
                    else:
                        self.base(o)
            for v, a in zip(m.outs, m.form.outs, strict=True):
                if m.wide and self._in_memory(v):
                    self.base(Operand(v, 0, a))

    def _once(self, key: Any, one: str, o: Operand) -> None:
        if key not in self.everywhere:
            self.everywhere[key] = self._everywhere(one, o.aval.dtype)

    def _in_memory(self, v: int) -> bool:
        return v in self.pointers

    def _stands(self, o: Operand) -> bool:
        """Whether an operand is one number along the row."""
        return o.aval.size != self.nest.size and inner_step(o.aval.shape, self.shape, self.axis) == 0

    def operand(self, o: Operand, known: dict[Any, str], i: str, count: int) -> str:
        """A vector of an operand: of what is known at this place, of the row, or from memory."""
        self.text.lanes = self.walk.lanes
        if o.value in known:
            return known[o.value]
        if o.value in self.narrow_values:
            return self.everywhere["row", o.value]
        if o.aval.size == 1:
            return self.spread[o.value, o.offset]
        if self._stands(o):
            return self.everywhere["stands", o.value, o.offset, o.aval.shape]
        key = o.value, o.offset, o.aval.shape
        if key not in known:
            pointer = self._at(self.base(o), i, o.aval.dtype)
            known[key] = load_first(self.text, pointer, o.aval.dtype, count)
            if self.ahead and o.aval.size == self.nest.size:
                self.text.fetch(self.text.set(f"getelementptr i8, ptr {pointer}, i64 {self.ahead}"))
        return known[key]

    def _at(self, pointer: str, i: str, dtype: np.dtype[Any]) -> str:
        return pointer if i == "0" else self.text.at(pointer, i, dtype)

    def elements(self, m: Member, known: dict[Any, str], i: str, count: int) -> None:
        """A wide member at one place of the row."""
        text = self.text
        given = [self.operand(o, known, i, count) for o in m.operands]
        text.lanes = self.walk.lanes
        for v, result, a in zip(m.outs, emit(text, body_of(m.form.id), given), m.form.outs, strict=True):
            known[v] = result
            if self._in_memory(v):
                store_first(text, result, self._at(self.base(Operand(v, 0, a)), i, a.dtype), a.dtype, count)

    def _unrolled(self, members: Sequence[Member]) -> None:
        lanes = self.walk.lanes
        for p, start in enumerate(range(0, self.length, lanes)):
            count = min(lanes, self.length - start)
            known = self.points.setdefault(p, {})
            for m in members:
                if m.fold:
                    fold = self.folds[m.outs[0]]
                    if p == 0:
                        fold.clear()
                    fold.add(self.operand(m.operands[0], known, str(start), count), p, count)
                else:
                    self.elements(m, known, str(start), count)
        for m in members:
            if m.fold:
                self.folds[m.outs[0]].close(self.length)

    def span(self, members: Sequence[Member], start: str, stop: str, length: int, tail: int) -> list[list[str]]:
        """Whole vectors from an element to another, then a tail: the accumulators of each reduction, in order.

        ``length`` elements in all. The accumulators take turns, so that the body stands in the loop once.
        """
        text, lanes = self.text, self.walk.lanes
        folds = [self.folds[m.outs[0]] for m in members if m.fold]

        def step(i: str, count: int, accs: Sequence[str]) -> list[str]:
            known: dict[Any, str] = {}
            after, at = [], 0
            for m in members:
                if m.fold:
                    fold = self.folds[m.outs[0]]
                    first, *others = accs[at: at + fold.count]
                    at += fold.count
                    after += [*others, fold.folded(first, self.operand(m.operands[0], known, i, count), count)]
                else:
                    self.elements(m, known, i, count)
            return after

        accs = [fold.init for fold in folds for _ in range(fold.count)]
        vectors = (length - tail) // lanes
        if vectors:
            text.lanes = lanes
            carried = [f"{fold.kind} = {fold.init}" for fold in folds for _ in range(fold.count)]
            accs = text.loop("walk", start, stop, lanes, lambda i, *given: step(i, lanes, given), *carried)
        if tail:
            accs = step(stop, tail, accs)
            vectors += 1
        out, at = [], 0
        for fold in folds:
            own, turned = accs[at: at + fold.count], vectors % fold.count
            out.append([*own[fold.count - turned:], *own[: fold.count - turned]])
            at += fold.count
        return out

    def begin_pass(self) -> list[Member]:
        """Begin the only row and its first pass, whose members these are."""
        self.begin(["0"])
        self.narrow(0)
        members = [m for m in self.nest.members if m.wide or m.fold]
        self.prepare(members)
        return members

    def _chunks(self, members: Sequence[Member], folds: Sequence[Fold]) -> list[str]:
        """A row of several chunks, whose partial results meet in sequence."""
        text = self.text

        def chunk(start: str, *totals: str) -> list[str]:
            return self.meet(folds, totals, self.chunk(members, start), start)

        totals = text.loop("chunk", "0", str(self.whole), CHUNK, chunk, *[f.first_total for f in folds])
        return self.rest(members, folds, totals)

    @property
    def whole(self) -> int:
        """Elements of a row in whole chunks."""
        return self.length // CHUNK * CHUNK

    def chunk(self, members: Sequence[Member], start: str) -> list[str]:
        """The partial results of the chunk that begins at an element."""
        accs = self.span(members, start, self.text.set(f"add i64 {start}, {CHUNK}"), CHUNK, 0)
        return [self.folds[m.outs[0]].joined(a) for m, a in zip([m for m in members if m.fold], accs, strict=True)]

    def meet(self, folds: Sequence[Fold], totals: Sequence[str], parts: Sequence[str], start: str) -> list[str]:
        """Totals with the partial results of the chunk that begins at an element; those of the first begin them."""
        first = self.text.set(f"icmp eq i64 {start}, 0")
        return [f.met(total, part, first) for f, total, part in zip(folds, totals, parts, strict=True)]

    def rest(self, members: Sequence[Member], folds: Sequence[Fold], totals: Sequence[str]) -> list[str]:
        """What whole chunks leave of a row, and the results."""
        if self.whole < self.length:
            stop = self.length - self.walk.tail
            accs = self.span(members, str(self.whole), str(stop), self.length - self.whole, self.walk.tail)
            totals = [f.met(total, f.joined(a), None) for f, total, a in zip(folds, totals, accs, strict=True)]
        return [f.narrowed(total) for f, total in zip(folds, totals, strict=True)]
