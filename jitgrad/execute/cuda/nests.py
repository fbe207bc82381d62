"""Groups of rows of a Plan as kernels: members' bodies in one loop over elements, or over rows that are folded.

Without a fold, threads take elements in turns. With folds, a few threads or a whole block walk a row in passes, one
more for each fold that later members wait for; between passes they meet in trees, and what a pass needs of the wide
values of another it reads again if it is written, or computes again. Few long rows are cut in pieces, whose folds meet
in launches of their own, so that every pass is a launch.

What a step writes must lie elsewhere than what it reads, but for a value that it reads element by element, if no
member folds.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jitgrad.core.aval import Aval
from jitgrad.execute.cpu import library
from jitgrad.execute.cuda import reductions
from jitgrad.execute.cuda.bodies import Body, Memory, Slot
from jitgrad.execute.cuda.kernel import THREADS, Launch, Work, blocks_for
from jitgrad.execute.cuda.trees import RUN, Tree, power, shared, shared_arrays
from jitgrad.execute.source import loaded
from jitgrad.plan.fuse import Member, Nest, Operand, body_of, inner_step
from jitgrad.plan.merge import Together
from jitgrad.plan.rows import outer_of, turns

INDENT = "    "
_UNROLLED = ((48, 4), (160, 2))        # nodes of the bodies up to which a thread loads so many elements at a time
_AHEAD = 4                     # elements of a row for each thread, before more threads take part


def work(nest: Nest, written: set[int]) -> tuple[Work, list[Slot]]:
    """The launches of a nest of whose values some are wanted in memory, and what their first slots are."""
    memory = Memory()
    written = written & nest.values.keys()
    if not written:
        return memory.work([])
    if isinstance(nest, Together):
        return memory.work([_beside(memory, [
            _flat(part, memory, written & part.values.keys()) for part in nest.parts if written & part.values.keys()])])
    folds = [m for m in nest.members if m.fold]
    if not folds:
        return memory.work([_alone(_flat(nest, memory, written))])
    lanes = min(THREADS, power(-(-nest.length // _AHEAD)))
    rows = nest.rows or 1
    pieces = reductions.pieces_of(rows * lanes, nest.length, lanes)
    if pieces == 1:
        return memory.work([_Rows(nest, memory, written, lanes, 1, {}).whole()])
    parts = {v: memory.at(v, 0, m.form.outs[0].dtype) if v in written
             else memory.room(rows * m.form.outs[0].dtype.itemsize) for m in folds for v in m.outs}
    launches: list[Launch] = []
    for turn in range(1 + max(turns(nest).values())):
        launches += _Rows(nest, memory, written, lanes, pieces, parts).turn(turn)
    return memory.work([*launches, *_ends(nest, memory, written, parts)])


class _Writer:
    """Writes members of a nest. ``numbers``: names of what is one number where the lines stand."""

    def __init__(self, nest: Nest, memory: Memory, written: set[int]) -> None:
        self.nest, self.written, self.body = nest, written, Body(memory)
        self.turn_of = turns(nest)
        self.number_of = {v: (k, m) for k, m in enumerate(nest.members) for v in m.outs}
        self.avals: dict[int, Aval] = {v: a for m in nest.members for v, a in zip(m.outs, m.form.outs, strict=True)}
        self.numbers: dict[Any, str] = {}
        self.singles: dict[Any, str] = {}
        self.head: list[str] = []

    def needed(self, wanted: Iterable[int], known: Iterable[int]) -> list[Member]:
        """The members, in order, that make these values of what is known."""
        needed, known, found = {*wanted}, {*known}, []
        for m in reversed(self.nest.members):
            if needed.intersection(m.outs) and not known.issuperset(m.outs):
                found.append(m)
                needed.update(o.value for o in m.operands if o.value not in known)
        return found[::-1]

    def single(self, o: Operand) -> str:
        """A value of one element, read once by each thread."""
        key = o.value, o.offset
        if key not in self.singles:
            name = self.singles[key] = f"c{len(self.singles)}"
            self.head.append(f"{name} = {loaded(self.pointer(o), '0', o.aval.dtype)}")
        return self.singles[key]

    def pointer(self, o: Operand) -> str:
        return self.body.value(o.value, o.offset, o.aval.dtype)

    def narrow(self, m: Member, row: str) -> list[str]:
        """The lines of a narrow member."""
        lines, given = [], []
        for o in m.operands:
            key = o.value if o.value in self.nest.values else ("row", o.value, o.offset)
            if key not in self.numbers and o.aval.size == 1:
                given.append(self.single(o))
                continue
            if key not in self.numbers:
                self.numbers[key] = f"r{len(self.numbers)}"
                lines.append(f"{self.numbers[key]} = {loaded(self.pointer(o), row, o.aval.dtype)}")
            given.append(self.numbers[key])
        computed, results = self.body.compute(body_of(m.form.id), given, f"m{self.number_of[m.outs[0]][0]}_")
        self.numbers.update(zip(m.outs, results, strict=True))
        return [*lines, *computed]

    def element(self, members: Sequence[Member], stores: Iterable[int], index: str, place: Any, suffix: str,
                ) -> tuple[list[str], list[str], list[str], dict[int, str]]:
        """Wide members at an element: lines that load, compute and store, and the names of all values there.

        ``place(o)`` gives the index of an operand that is neither whole nor one number, or the name of its value.
        """
        loads: dict[Any, tuple[str, str]] = {}
        known: dict[int, str] = {}
        lines: list[str] = []

        def operand(o: Operand) -> str:
            if o.value in known:
                return known[o.value]
            if o.value in self.numbers:
                return self.numbers[o.value]
            whole = o.aval.size == self.nest.size
            if not whole and o.aval.size == 1:
                return self.single(o)
            at, name = (index, "") if whole else place(o)
            if name:
                return str(name)
            key = o.value, o.offset, at
            if key not in loads:
                loads[key] = (f"x{len(loads)}{suffix}", loaded(self.pointer(o), at, o.aval.dtype))
            return loads[key][0]

        for m in members:
            given = [operand(o) for o in m.operands]
            if m.fold:
                known[m.outs[0]] = given[0]          # what it is to meet
                continue
            made, results = self.body.compute(body_of(m.form.id), given, f"m{self.number_of[m.outs[0]][0]}{suffix}_")
            lines += made
            known.update(zip(m.outs, results, strict=True))
        writes = [self.body.store(self.body.value(v, 0, self.avals[v].dtype), index, known[v], self.avals[v].dtype)
                  for v in stores]
        return [f"{name} = {value}" for name, value in loads.values()], lines, writes, known

    def indices(self, number: str, dims: Sequence[int], prefix: str, narrow: bool) -> list[str]:
        """The indices k0, k1... of an element or a row of these dims; ``narrow`` numbers fit 32 bits."""
        if len(dims) == 1:
            return [f"{prefix}0 = {number}"]
        word = "i4" if narrow else "i8"
        lines = [f"q = {word}({number})"]
        for j in range(len(dims) - 1, 0, -1):
            d = f"{word}({self.body.word(f'd{j}', dims[j])})"
            lines += [f"w = sdiv(q, {d})", f"{prefix}{j} = i8(q - w * {d})", "q = w"]
        return [*lines, f"{prefix}0 = i8(q)"]

    def strided(self, which: int, steps: Sequence[int], prefix: str) -> str:
        """The index of an operand from indices: strides of 0 are no terms."""
        terms = [f"{prefix}{j} * {self.body.word(f's{which}_{j}', s)}" for j, s in enumerate(steps) if s]
        return " + ".join(terms) or "0"


def _ahead(members: Sequence[Member]) -> int:
    """How many elements a thread has in hand: what it loads of one comes while it waits for another."""
    nodes = sum(len(body_of(m.form.id).nodes) for m in members)
    return next((n for most, n in _UNROLLED if nodes <= most), 1)


# ---- elements --------------------------------------------------------------------------------------------

def _flat(nest: Nest, memory: Memory, written: set[int]) -> _Flat:
    """Threads take elements in turns, a few at a time."""
    writer = _Writer(nest, memory, written)
    members = writer.needed(written, ())
    stores = [v for m in members for v in m.outs if v in written]
    ahead = _ahead(members)
    shapes = list(dict.fromkeys(
        o.aval.shape for m in members for o in m.operands
        if o.value not in nest.values and o.aval.size not in (1, nest.size)))
    dims, steps = library.lines(nest.shape or (), shapes) if shapes else ([nest.size], [[1]])
    body = writer.body
    writer.body.word("n", nest.size)

    def elements(count: int) -> list[str]:
        parts: list[tuple[list[str], ...]] = []
        for u in range(count):
            index, prefix, suffix = (f"i{u}", f"k{u}_", f"_{u}") if count > 1 else ("i", "k", "")
            lines = [f"i{u} = i + {u} * step"] if count > 1 else []
            if shapes:
                lines += writer.indices(index, dims, prefix, nest.size < 1 << 31)
                lines += [f"at{k}{suffix} = {writer.strided(k, steps[1 + k], prefix)}" for k in range(len(shapes))]
            named = {shape: f"at{k}{suffix}" for k, shape in enumerate(shapes)}
            loads, computed, writes, _ = writer.element(
                members, stores, index, lambda o, named=named: (named[o.aval.shape], ""), suffix)
            parts.append((lines, loads, computed, writes))
        return [line for k in range(4) for part in parts for line in part[k]]

    loops = []
    for count in dict.fromkeys((ahead, 1)):
        reach = f"i + {count - 1} * step" if count > 1 else "i"
        loops += [f"while {reach} < n:", *(INDENT + line for line in elements(count)),
                  f"{INDENT}i += {count} * step" if count > 1 else f"{INDENT}i += step"]
    body.lines = [*writer.head, *loops]
    return _Flat(body, nest.size, ahead)


class _Flat(NamedTuple):
    """The lines of a walk over elements from ``i`` on by ``step``, and how many a thread has in hand."""

    body: Body
    size: int
    ahead: int

    def blocks(self, threads: int) -> int:
        return blocks_for(self.size, threads * self.ahead)


def _alone(flat: _Flat) -> Launch:
    flat.body.lines = ["i = cuda.grid(1)", "step = cuda.gridsize(1)", *flat.body.lines]
    threads = min(THREADS, power(flat.size))
    return flat.body.launch("nest", flat.blocks(threads), threads)


def _beside(memory: Memory, parts: Sequence[_Flat]) -> Launch:
    """One launch of the lines that all parts have in common: blocks look up which pointers and words are theirs."""
    body = Body(memory, "g")
    threads = min(THREADS, power(max(part.size for part in parts)))
    first, lines = 0, ["b = i8(cuda.blockIdx.x)"]
    for k, part in enumerate(parts):
        blocks = part.blocks(threads)
        given = {name: body.pointer(slot, dtype) for slot, (name, dtype) in part.body.pointers.items()}
        given |= {name: body.word(f"{name}_{k}", n) for name, n in part.body.words.items()}
        given |= {"first": body.word(f"first_{k}", first), "blocks": body.word(f"blocks_{k}", blocks)}
        lines += [f"if b >= first_{k}:", *(f"{INDENT}{name} = {value}" for name, value in given.items())] if k else [
            f"{name} = {value}" for name, value in given.items()]
        first += blocks
    body.tables = parts[0].body.tables
    body.lines = [*lines, "i = (b - first) * cuda.blockDim.x + cuda.threadIdx.x", "step = blocks * cuda.blockDim.x",
                  *parts[0].body.lines]
    return body.launch("nests", first, threads)


def structure(nest: Nest, written: set[int]) -> Hashable:
    """What nests have in common that can run beside each other."""
    body = _flat(nest, Memory(), written).body
    kinds = [(name, dtype.name) for name, dtype in body.pointers.values()]
    return tuple(body.lines), tuple(kinds), tuple(body.words)


# ---- rows ------------------------------------------------------------------------------------------------

class _Rows(_Writer):
    """Writes the walk over rows, by ``lanes`` threads each, whole or cut in pieces.

    ``parts``: of rows in pieces, the slots that have the folds of turns that are done.
    """

    def __init__(self, nest: Nest, memory: Memory, written: set[int], lanes: int, pieces: int,
                 parts: dict[int, int]) -> None:
        super().__init__(nest, memory, written)
        self.lanes, self.parts = lanes, parts
        self.rows = nest.rows or 1
        self.chunk = -(-nest.length // pieces)
        self.pieces = pieces
        self.units = self.rows * pieces
        self.dims, self.steps = outer_of(nest)
        self.shape = nest.shape or (nest.size,)
        self.shapes: dict[tuple[int, ...], int] = {}             # that broadcast -> which in order of use
        self.lines: list[str] = []                               # for each row
        self.trees: dict[int, Tree] = {}

    def whole(self) -> Launch:
        """All passes over a row in one launch."""
        for turn in range(1 + max(self.turn_of.values())):
            self.span(turn)
        ends = [v for v in self.avals if v in self.written and not self.nest.values[v]]
        for m in self.needed(ends, self.numbers):
            self.lines += self.narrow(m, "row")
        self._store(ends)
        return self._launch()

    def turn(self, turn: int) -> list[Launch]:
        """One pass over the pieces of rows, and launches in which the pieces' folds meet."""
        if not self.span(turn):
            return []
        launches, meetings = [], []
        for m in self.nest.members:
            if m.fold and self.turn_of[m.outs[0]] == turn:
                dtype, v = m.form.outs[0].dtype, m.outs[0]
                part = self.body.memory.room(self.units * dtype.itemsize)
                self._write(self.body.pointer(part, dtype), "u", self.numbers[v], dtype)
                meetings.append(reductions.met(m.form.prim, dtype, self.rows, self.pieces, self.parts[v], part))
        launches.append(self._launch())
        return [*launches, *meetings]

    def _write(self, pointer: str, index: str, value: str, dtype: np.dtype[Any]) -> None:
        """One thread of the row stores."""
        self.lines += ["if here and y == 0:", INDENT + self.body.store(pointer, index, value, dtype)]

    def _store(self, values: Iterable[int]) -> None:
        for v in values:
            dtype = self.avals[v].dtype
            self._write(self.body.value(v, 0, dtype), "row", self.numbers[v], dtype)

    def span(self, turn: int) -> bool:
        """One pass over a row; whether there is anything to do."""
        folds = [m for m in self.nest.members if m.fold and self.turn_of[m.outs[0]] == turn]
        stores = [v for v, wide in self.nest.values.items()
                  if wide and v in self.written and self.turn_of[v] == turn]
        if not folds and not stores:
            return False
        before = {v for v, wide in self.nest.values.items() if wide and v in self.written and self.turn_of[v] < turn}
        self._folds_done(turn)
        wanted = {*stores, *(m.outs[0] for m in folds)}
        members = self.needed(wanted, {*before, *(v for v in self.numbers if v in self.nest.values)})
        for m in members:
            if not m.wide and not m.fold:
                self.lines += self.narrow(m, "row")
        for m in folds:
            v = m.outs[0]
            k = self.number_of[v][0]
            self.trees[v] = Tree(m.form.prim, m.form.outs[0].dtype, self.body.tables, f"f{k}_")
            self.lines.append(f"total{k} = {self.trees[v].init}")
        self._loop([m for m in members if m.wide or m.fold], stores, folds)
        for m in folds:
            v = m.outs[0]
            name = f"total{self.number_of[v][0]}"
            self.lines += self.trees[v].meet(name, shared(m.form.outs[0].dtype), "y", "lanes", "1", "")
            self.numbers[v] = name
        return True

    def _folds_done(self, turn: int) -> None:
        """Of rows in pieces, read the folds of the passes before, of which some may not be wanted."""
        for v, slot in self.parts.items():
            if v not in self.numbers and self.turn_of[v] < turn:
                self.numbers[v] = f"a{self.number_of[v][0]}"
                dtype = self.avals[v].dtype
                self.lines.append(f"{self.numbers[v]} = {loaded(self.body.pointer(slot, dtype), 'row', dtype)}")

    def _loop(self, members: Sequence[Member], stores: Sequence[int], folds: Sequence[Member]) -> None:
        def elements(count: int) -> list[str]:
            parts, meetings = [], []
            for u in range(count):
                suffix = f"_{u}" if count > 1 else ""
                loads, computed, writes, known = self.element(
                    members, stores, f"i{suffix}", lambda o, suffix=suffix: self.place(o, f"j{suffix}"), suffix)
                here = [f"j{suffix} = j + {u} * lanes"] if count > 1 else []
                parts.append(([*here, f"i{suffix} = base + j{suffix}", *loads], computed, writes))
                for m in folds:
                    v = m.outs[0]
                    meetings += self.trees[v].fold(f"a{self.number_of[v][0]}", known[v], "")
            return [*(line for k in range(3) for part in parts for line in part[k]), *meetings, f"j += {count} * lanes"]

        loops = []
        for count in dict.fromkeys((_ahead(members), 1)):
            loops += [f"while j + {count - 1} * lanes < until:", *(INDENT + line for line in elements(count))]
        before, after = [], []
        for m in folds:
            v, k = m.outs[0], self.number_of[m.outs[0]][0]
            before.append(f"a{k} = {self.trees[v].init}")
            after += self.trees[v].fold(f"total{k}", f"a{k}", "")
        self.lines += ["j = begin + y", "while j < stop:", *(INDENT + line for line in (
            f"until = min(j + {RUN} * lanes, stop)", *before, *loops, *after))]

    def place(self, o: Operand, j: str) -> tuple[str, str]:
        """Index of an operand that broadcasts along this row at an element, or its name where it is one number."""
        shape = o.aval.shape
        if shape not in self.shapes:
            k = self.shapes[shape] = len(self.shapes)
            self.lines.append(f"row_at{k} = {self.strided(k, self.steps[shape], 'k')}")
        at = f"row_at{self.shapes[shape]}"
        if inner_step(shape, self.shape, self.nest.axis):
            return f"{at} + {j}", ""
        key = "row", o.value, o.offset, shape
        if key not in self.numbers:
            self.numbers[key] = f"r{len(self.numbers)}"
            self.lines.append(f"{self.numbers[key]} = {loaded(self.pointer(o), at, o.aval.dtype)}")
        return "", self.numbers[key]

    def _launch(self) -> Launch:
        body = self.body
        for name, value in (("units", self.units), ("pieces", self.pieces), ("chunk", self.chunk),
                            ("length", self.nest.length), ("lanes", self.lanes)):
            body.word(name, value)
        row = ["u = first + z", "here = u < units", "u = min(u, units - 1)", "row = sdiv(u, pieces)",
               "begin = (u - row * pieces) * chunk", "stop = min(begin + chunk, length)", "if not here:",
               f"{INDENT}stop = i8(0)", "base = row * length"]
        if self.shapes:
            row += self.indices("row", self.dims, "k", self.rows < 1 << 31)
        body.lines = [*shared_arrays([tree.dtype for tree in self.trees.values()]), *self.head,
                      "t = i8(cuda.threadIdx.x)", "z = sdiv(t, lanes)", "y = t - z * lanes",
                      "per = sdiv(i8(cuda.blockDim.x), lanes)", "first = i8(cuda.blockIdx.x) * per",
                      "while first < units:", *(INDENT + line for line in [*row, *self.lines]),
                      f"{INDENT}first += i8(cuda.gridDim.x) * per"]
        threads = min(THREADS, self.lanes * power(self.units))
        return body.launch("rows", blocks_for(self.units, threads // self.lanes), threads)


def _ends(nest: Nest, memory: Memory, written: set[int], parts: dict[int, int]) -> list[Launch]:
    """Narrow values of rows in pieces that are wanted in memory, a thread for each row."""
    writer = _Writer(nest, memory, written)
    wanted = [v for v in writer.avals if v in written and not nest.values[v] and v not in parts]
    if not wanted:
        return []
    body, lines = writer.body, []
    for v, slot in parts.items():
        writer.numbers[v] = f"a{writer.number_of[v][0]}"
        dtype = writer.avals[v].dtype
        lines.append(f"{writer.numbers[v]} = {loaded(body.pointer(slot, dtype), 'i', dtype)}")
    for m in writer.needed(wanted, parts):
        lines += writer.narrow(m, "i")
    for v in wanted:
        dtype = writer.avals[v].dtype
        lines.append(body.store(body.value(v, 0, dtype), "i", writer.numbers[v], dtype))
    rows = nest.rows or 1
    body.word("n", rows)
    body.lines = [*writer.head, "i = cuda.grid(1)", "step = cuda.gridsize(1)", "while i < n:",
                  *(INDENT + line for line in lines), f"{INDENT}i += step"]
    threads = min(THREADS, power(rows))
    return [body.launch("ends", blocks_for(rows, threads), threads)]
