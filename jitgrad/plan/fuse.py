"""Rows in groups: what one pass over memory computes.

The steps of a Program in an order in which they can run: a `Call` is a row with a kernel of its own, a `Nest` a group
of elementwise rows and of reductions over last axes. A nest walks ``size`` elements as ``rows`` rows of ``length``.
Its members have a value for every element (wide ones) or for every row (narrow ones). Movements that leave elements
in their order, whole or a part, are no steps: they say where in another value theirs lies.
"""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jitgrad.core.aval import Aval
from jitgrad.core.form import FORMS, Form
from jitgrad.core.primitive import BY_NAME, Index, Kind, contiguous_strides
from jitgrad.core.program import Program
from jitgrad.ops import scalar

MOST_NODES = 4000              # of the bodies of one nest: code for the registers of one loop
SMALL = 64                     # elements up to which nests without a value in common are one
TINY = 4                       # elements of operands and results up to which a row is straight code
LATEST = 8                     # nests of a size that a row is tried with
ADD = BY_NAME["add"]
CHUNK = 4096                   # elements of a row that are reduced before partial results meet


class Operand(NamedTuple):
    """What a row reads: a value that a step makes or that is given, from a byte on, as an aval."""

    value: int
    offset: int
    aval: Aval


class Member(NamedTuple):
    """A row of a nest. A ``fold`` is a reduction: it reads a wide operand and makes a narrow value."""

    form: Form
    operands: tuple[Operand, ...]
    outs: tuple[int, ...]
    wide: bool
    fold: bool


class Call(NamedTuple):
    """A row with a kernel of its own: number ``row`` of the Program."""

    row: int
    form: Form
    operands: tuple[Operand, ...]
    outs: tuple[int, ...]

    @property
    def members(self) -> tuple[Call, ...]:
        """Itself, as a nest has members."""
        return (self,)


@dataclass(eq=False)
class Nest:
    """A group of rows; see the module. ``shape`` is the one that operands broadcast to; None if none does."""

    at: int
    size: int
    rows: int | None = None
    shape: tuple[int, ...] | None = None
    partial: list[tuple[int, ...]] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    values: dict[int, bool] = field(default_factory=dict)       # that it makes -> whether wide
    reads: set[int] = field(default_factory=set)
    nodes: int = 0

    @property
    def axis(self) -> int:
        """The axis of `shape` with which a row begins."""
        axis = split(self.shape, self.partial, self.rows) if self.shape is not None else 0
        assert axis is not None
        return axis

    @property
    def length(self) -> int:
        """Elements of a row."""
        return self.size // (self.rows or 1)


class Copy(NamedTuple):
    """A result that lies in another value: its bytes move to where results are wanted."""

    operands: tuple[Operand, ...]
    outs: tuple[int, ...]

    @property
    def members(self) -> tuple[Copy, ...]:
        return (self,)


@dataclass(eq=False)
class Straight:
    """Rows on at most `TINY` elements each."""

    at: int
    members: list[Member] = field(default_factory=list)
    nodes: int = 0


class Accumulate(NamedTuple):
    """A product that is added to its last operand, in the memory of that."""

    form: Form
    operands: tuple[Operand, ...]
    outs: tuple[int, ...] = ()

    @property
    def members(self) -> tuple[Accumulate, ...]:
        return (self,)


@dataclass(eq=False)
class Followed:
    """A product and what is done with each block of it at once: a nest that reads it, and sums of columns."""

    product: Call
    nest: Nest
    sums: tuple[Call, ...]

    @property
    def members(self) -> tuple[Call | Member, ...]:
        """In the order in which they are done."""
        return (self.product, *self.nest.members, *self.sums)


Step = Call | Nest | Straight | Accumulate | Copy | Followed


@functools.lru_cache(maxsize=4096)
def body_of(form: int) -> scalar.Trace:
    """The body of an elementwise or reducing form, as data."""
    made = FORMS[form]
    body = functools.partial(made.prim.body, **made.params) if made.params and made.prim.kind is Kind.ELEMENTWISE else (
        made.prim.body)
    dtypes = [a.dtype for a in made.avals] * (2 if made.prim.kind is Kind.REDUCE else 1)
    return scalar.trace(body, dtypes)


@functools.lru_cache(maxsize=4096)
def lies(form: int) -> int:
    """At which byte of the operand the result of a movement lies, all in order, or -1."""
    made = FORMS[form]
    if made.prim.kind is not Kind.MOVE or made.prim.opaque:
        return -1
    index: Index = made.prim.body(*made.avals, **made.params)
    in_order = math.prod(index.shape) > 0 and all(
        n == 1 or s == c for n, s, c in zip(index.shape, index.strides, contiguous_strides(index.shape), strict=True))
    return index.offset * made.outs[0].dtype.itemsize if in_order else -1


def aligned(operand: Sequence[int], shape: Sequence[int]) -> list[int]:
    """Strides in elements of an operand along the axes of what it broadcasts to; 0 where it has one element."""
    lead = len(shape) - len(operand)
    return [0] * lead + [s if n != 1 else 0 for n, s in zip(operand, contiguous_strides(tuple(operand)), strict=True)]


def inner_step(operand: Sequence[int], shape: Sequence[int], axis: int) -> int | None:
    """How an operand walks along all axes from one on: 1 element by element, 0 not at all, None otherwise."""
    strides = aligned(operand, shape)[axis:]
    inner = shape[axis:]
    moved = [(n, s) for n, s in zip(inner, strides, strict=True) if n != 1]
    if all(s == 0 for _, s in moved):
        return 0
    own = contiguous_strides(tuple(inner))
    return 1 if all(n == 1 or s == c for n, s, c in zip(inner, strides, own, strict=True)) else None


def split(shape: Sequence[int], partial: Sequence[Sequence[int]], rows: int | None) -> int | None:
    """The first axis of a row: where so many rows end, or the first that suits all operands; None if none does."""
    for axis in range(len(shape) + 1):
        if rows is not None and math.prod(shape[:axis]) != rows:
            continue
        if all(inner_step(p, shape, axis) is not None for p in partial):
            return axis
    return None


class _Grouping:
    """Steps in the making. A row joins a nest that stands behind all that the row reads, so no circle can arise."""

    def __init__(self, program: Program, adds: Callable[[Form], bool]) -> None:
        self.program, self.adds = program, adds
        self.steps: list[Step] = []
        self.gone: set[int] = set()                  # numbers of products that are made where they are added up
        self.sums: set[int] = set()                  # values that lie where products were added to others
        self.uses = Counter([*program.operands.tolist(), *program.results.tolist()])
        self.home: dict[int, int] = {}               # value -> number of the step that makes it
        self.lies: dict[int, tuple[int, int]] = {}
        self.straight: Straight | None = None
        self.of_size: defaultdict[int, list[Nest]] = defaultdict(list)

    def operand(self, v: int) -> Operand:
        value, offset = self.lies.get(v, (v, 0))
        return Operand(value, offset, self.program.aval(v))

    def run(self) -> list[Step]:
        for r in range(len(self.program)):
            made, ids, outs = self.program.row(r)
            offset = lies(made.id) if made.prim.kind is Kind.MOVE else -1
            if offset >= 0:
                value, before = self.lies.get(ids[0], (ids[0], 0))
                self.lies[outs[0]] = value, before + offset
                continue
            operands = tuple(map(self.operand, ids))
            if not (self._accumulated(made, ids, outs) or self._went_straight(made, operands, outs)
                    or self._joined(made, operands, outs)):
                self._append(Call(r, made, operands, outs))
        return [step for k, step in enumerate(self.steps) if k not in self.gone]

    def _accumulated(self, made: Form, ids: Sequence[int], outs: tuple[int, ...]) -> bool:
        """Whether a sum is a product that can be added to the other addend, which nobody else reads."""
        if made.prim is not ADD or made.avals[0] != made.avals[1] or ids[0] == ids[1]:
            return False
        own = [v for v in ids if self.uses[v] == 1 and v in self.home and (v in self.sums or v not in self.lies)]
        products = [v for v in own if isinstance(step := self.steps[self.home[v]], Call) and self.adds(step.form)]
        if len(own) < 2 or not products:
            return False
        product = max(products, key=lambda v: self.home[v])
        (other,) = (v for v in ids if v != product)
        at, onto = self.home[product], self.operand(other)
        call = self.steps[at]
        assert isinstance(call, Call)
        self.gone.add(at)
        self.lies[outs[0]] = onto.value, onto.offset
        self.sums.add(outs[0])
        self.home[outs[0]] = self.home[onto.value] = len(self.steps)
        self.steps.append(Accumulate(call.form, (*call.operands, onto)))
        return True

    def _ready(self, operands: Iterable[Operand]) -> int:
        """The last step that makes one of these."""
        return max((self.home.get(o.value, -1) for o in operands), default=-1)

    def _went_straight(self, made: Form, operands: tuple[Operand, ...], outs: tuple[int, ...]) -> bool:
        if not _is_tiny(made):
            return False
        ready, kind = self._ready(operands), made.prim.kind
        if kind is Kind.ELEMENTWISE and self._narrow_home(made, operands, ready) is not None:
            return False
        step, nodes = self.straight, _nodes_of(made)
        if step is None or step.at < ready or step.nodes + nodes > MOST_NODES:
            step = self.straight = Straight(len(self.steps))
            self.steps.append(step)
        step.nodes += nodes
        step.members.append(Member(made, operands, outs, False, False))
        self.home.update(dict.fromkeys(outs, step.at))
        return True

    def _append(self, step: Step) -> None:
        for member in step.members:
            for v in member.outs:
                self.home[v] = len(self.steps)
        self.steps.append(step)

    def _joined(self, made: Form, operands: tuple[Operand, ...], outs: tuple[int, ...]) -> bool:
        kind = made.prim.kind
        if kind is Kind.ELEMENTWISE and made.outs[0].size and not made.prim.opaque:
            size, fold = made.outs[0].size, False
        elif kind is Kind.REDUCE and _folds_rows(made):
            size, fold = made.avals[0].size, True
        else:
            return False
        ready = self._ready(operands)
        nest = self._narrow_home(made, operands, ready) if not fold else None
        wide = nest is None
        nest = nest or self._wide_home(made, operands, size, ready, fold)
        if nest is None:
            nest = Nest(len(self.steps), size)
            self.steps.append(nest)
            self.of_size[size].append(nest)
            assert self._fits(nest, made, operands, fold)
        self._join(nest, Member(made, operands, outs, wide and not fold, fold))
        return True

    def _wide_home(self, made: Form, operands: tuple[Operand, ...], size: int, ready: int, fold: bool) -> Nest | None:
        for nest in reversed(self.of_size[size][-LATEST:]):
            related = size <= SMALL or any(o.value in nest.reads or o.value in nest.values for o in operands)
            if nest.at >= ready and related and self._fits(nest, made, operands, fold):
                return nest
        return None

    def _narrow_home(self, made: Form, operands: tuple[Operand, ...], ready: int) -> Nest | None:
        """A nest with a narrow value that the row goes on from."""
        size = made.outs[0].size
        for o in operands:
            step = self.steps[self.home[o.value]] if o.value in self.home else None
            if isinstance(step, Nest) and step.at >= ready and step.values.get(o.value) is False and (
                    step.rows == size and all(self._is_narrow(step, p, size) for p in operands)):
                return step
        return None

    @staticmethod
    def _is_narrow(nest: Nest, o: Operand, rows: int) -> bool:
        if o.value in nest.values:                   # of what is being made, this row's number alone is at hand
            return not nest.values[o.value] and o.aval.size == rows
        return o.aval.size in (1, rows)

    def _fits(self, nest: Nest, made: Form, operands: tuple[Operand, ...], fold: bool) -> bool:
        """Whether the nest can walk the row's operands; then it is set to."""
        if nest.nodes + len(body_of(made.id).nodes) > MOST_NODES and nest.members:
            return False
        rows = nest.rows
        if fold:
            wanted = made.outs[0].size
            if rows not in (None, wanted) or nest.size % wanted:
                return False
            rows = wanted
        shape, partial = nest.shape, list(nest.partial)
        for o in operands:
            narrow = nest.values.get(o.value) is False
            if narrow and nest.rows == 1 and nest.size > CHUNK:
                return False                         # long rows are walked by threads: a pass of its own
            if o.value in nest.values and o.aval.size != (nest.rows if narrow else nest.size):
                return False                         # a part of what is being made
            if o.aval.size != nest.size and o.aval.size != 1:
                if shape not in (None, made.outs[0].shape):
                    return False
                shape = made.outs[0].shape
                partial.append(o.aval.shape)
        axis = split(shape, partial, rows) if shape is not None else 0
        if axis is None:
            return False
        for o in operands:                           # what a row holds is one number along it
            if nest.values.get(o.value) is False and shape is not None and o.aval.size != 1 and (
                    inner_step(o.aval.shape, shape, axis) != 0):
                return False
        nest.shape, nest.partial, nest.rows = shape, partial, rows
        return True

    def _join(self, nest: Nest, member: Member) -> None:
        nest.members.append(member)
        nest.nodes += len(body_of(member.form.id).nodes)
        nest.reads.update(o.value for o in member.operands if o.value not in nest.values)
        for v in member.outs:
            nest.values[v] = member.wide
            self.home[v] = nest.at


def _is_tiny(made: Form) -> bool:
    kind = made.prim.kind
    if not all(0 < a.size <= TINY for a in (*made.avals, *made.outs)) or made.prim.opaque:
        return False
    return kind in (Kind.ELEMENTWISE, Kind.MOVE, Kind.PLACE) or made.prim is BY_NAME["concat"] or (
        kind is Kind.REDUCE and _folds_rows(made))


def _nodes_of(made: Form) -> int:
    """Nodes of the straight code of a row."""
    kind = made.prim.kind
    return len(body_of(made.id).nodes) * made.avals[0].size if kind in (Kind.ELEMENTWISE, Kind.REDUCE) else 1


def _folds_rows(made: Form) -> bool:
    """A reduction over last axes of more than one element each."""
    (x,), axes = made.avals, made.params["axes"]
    return bool(axes) and x.size > made.outs[0].size > 0 and math.prod(x.shape[axes[-1] + 1:]) == 1


def steps_of(program: Program, adds: Callable[[Form], bool]) -> tuple[list[Step], dict[int, tuple[int, int]]]:
    """The steps of a Program, and for values that lie in another: that one, and from which byte on.

    ``adds`` says whether a row's kernel can add to what is there.
    """
    grouping = _Grouping(program, adds)
    found = grouping.run()
    for step in found:
        if isinstance(step, Nest) and step.rows is None:
            axis = split(step.shape, step.partial, None) if step.shape is not None else 0
            step.rows = math.prod(step.shape[:axis]) if step.shape is not None and axis is not None else 1
    return found, grouping.lies


def read_later(steps: Sequence[Step]) -> Iterator[set[int]]:
    """For each step, the values that other steps read."""
    readers: dict[int, set[int]] = defaultdict(set)
    for k, step in enumerate(steps):
        for member in step.members:
            for o in member.operands:
                readers[o.value].add(k)
    for k, step in enumerate(steps):
        yield {v for member in step.members for v in member.outs if readers.get(v, set()) - {k}}


def usual(nest: Nest) -> int:
    """Operations at each element of a nest without its rare paths, those on 8-byte numbers counted twice."""
    total = 0
    for m in nest.members:
        if m.wide or m.fold:
            nodes, rare = body_of(m.form.id).nodes, False
            for node in nodes:
                rare = node.op == "branch" or rare and node.op != "merge"
                if not rare and node.op not in ("argument", "const"):
                    total += max(1, node.dtype.itemsize // 4)
    return total


def bytes_read(step: Step) -> int:
    """What a step reads from memory."""
    inside = {v for m in step.members for v in m.outs}
    return sum({(o.value, o.offset): o.aval.nbytes for m in step.members for o in m.operands
                if o.value not in inside}.values())


def bytes_written(step: Step, written: Iterable[int]) -> int:
    """What a step writes to memory, of its values that are ``written`` there."""
    if isinstance(step, Copy | Accumulate):
        return step.operands[-1].aval.nbytes
    sizes = {v: a.nbytes for m in step.members for v, a in zip(m.outs, m.form.outs, strict=True)}
    return sum(sizes.get(v, 0) for v in written)
