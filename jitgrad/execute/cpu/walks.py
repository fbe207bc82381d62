"""How a nest of a Plan is walked: with how many lanes, in which passes over a row, by how many tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from jitgrad.core.aval import Aval
from jitgrad.execute.cpu import llvm, pieces
from jitgrad.execute.cpu.reductions import CHUNK
from jitgrad.plan.fuse import Nest, bytes_read, bytes_written, usual
from jitgrad.plan.rows import outer_of, turns

SHORT = 4                      # vectors of a row that is unrolled
MOST_UNROLLED = 6000           # nodes of all its vectors


class Share(NamedTuple):
    """A nest as tasks of so many out of ``extent`` rows, or chunks of the only row."""

    extent: int
    size: int
    chunks: bool

    @property
    def tasks(self) -> int:
        """Of tasks."""
        return -(-self.extent // self.size)


@dataclass(eq=False)
class Walk:
    """How a nest is walked: lanes, whether rows are unrolled, the pass of each value, and what passes keep."""

    nest: Nest
    lanes: int
    short: bool
    turn: dict[int, int]
    kept: list[tuple[int, Aval]] = field(default_factory=list)
    share: Share | None = None
    partial: dict[int, int] = field(default_factory=dict)      # of a shared reduction: the value that chunks write

    @property
    def tail(self) -> int:
        """Elements of a row behind its whole vectors."""
        return self.nest.length % self.lanes


def walk_of(nest: Nest, written: set[int]) -> Walk:
    """The walk of a nest, of whose values some are read elsewhere too."""
    length = nest.length
    wide = [a for m in nest.members if m.wide or m.fold for a in (*m.form.avals, *m.form.outs)]
    narrow_types = all(a.dtype.itemsize <= 4 for a in wide)
    lanes = 1 if length == 1 else 8
    if narrow_types and (8 < length <= 16 or length > 64 and llvm.has_feature("avx512f")):
        lanes = 16
    vectors = -(-length // lanes)
    short = vectors == 1 or vectors <= SHORT and nest.nodes * vectors <= MOST_UNROLLED
    turn = turns(nest)
    walk = Walk(nest, lanes, short, turn)
    if not short:
        later = {o.value for m in nest.members for o in m.operands
                 if (m.wide or m.fold) and nest.values.get(o.value) and turn[m.outs[0]] > turn[o.value]}
        avals = {v: a for m in nest.members for v, a in zip(m.outs, m.form.outs, strict=True)}
        walk.kept = [(v, avals[v]) for v in sorted(later - written)]
    walk.share = _share_of(walk, written)
    return walk


def _share_of(walk: Walk, written: set[int]) -> Share | None:
    """How a nest is divided into tasks, if it is large enough."""
    nest = walk.nest
    rows = outer_of(nest)[0][0]
    chunks = rows == 1 and max(walk.turn[m.outs[0]] for m in nest.members if m.wide or m.fold) == 0
    extent = nest.length // CHUNK if chunks else rows
    each = nest.size / max(extent, 1)
    moved = (bytes_read(nest) + bytes_written(nest, written)) / max(extent, 1)
    size = pieces.task_of(extent, usual(nest) * each, moved)
    return Share(extent, size, chunks) if size else None
