"""What a scan's body computes that need not be computed round by round: a plan of what leaves it.

A value of the body is the same in all rounds (it reads nothing but consts and constants), or goes by (it reads xs
too), or varies: it depends on what rounds hand on. Only rows whose kind has a batching rule, that raise nothing, draw
nothing and hold no Program leave a body; what any other row makes counts as varying.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from jitgrad.core.aval import MAX_DIMENSIONS, Aval
from jitgrad.core.dtypes import is_float
from jitgrad.core.form import Form
from jitgrad.core.primitive import BY_NAME, Kind, Linear, Primitive
from jitgrad.transform.control.steps import Step
from jitgrad.transform.vmap import batchable

FIXED, PASSING, VARYING = range(3)     # see the module
ROOM = 1 << 26                         # bytes that new streams may take, or as much as the loop's own if these are more
CACHED = 1 << 17                       # bytes of a stream that is still in a core's cache when the loop reads it
LARGE = 1 << 18                        # bytes of a matrix that is not, beside the rest, from one round to the next
ROWS = 64                              # a product of more rows is as fast alone
SMALL = 4096                           # bytes of a value that is not worth computing twice
DEEP = 64                              # sums of sums are followed so far

_MOVING = (Kind.ELEMENTWISE, Kind.MOVE, Kind.PLACE, Kind.REDUCE, Kind.SCAN, Kind.CONTRACT, Kind.INDEX)
_SUMS = (Kind.ELEMENTWISE, Kind.MOVE, Kind.PLACE, Kind.REDUCE)


class Total(NamedTuple):
    """The sum over all rounds of a value: of a stream (no row), a product of streams, or a linear row of sums."""

    value: int
    row: int
    parts: tuple[Total, ...]


class Plan:
    """Row numbers and value ids of the body."""

    def __init__(self) -> None:
        self.before: set[int] = set()            # rows computed before the loop, for all rounds at once
        self.after: set[int] = set()             # rows computed after it
        self.left: list[int] = []                # values that the loop leaves behind for those
        self.totals: dict[int, list[Total]] = {}     # of what is added to a carry entry

    def __bool__(self) -> bool:
        return bool(self.before or self.after or self.totals)


class Loop:
    """A scan's form, and what is known of its body."""

    def __init__(self, made: Form) -> None:
        self.form, given = made, made.params
        self.length: int = given["length"]
        self.reverse: bool = given["reverse"]
        self.step = step = Step(given["body"], given["consts"], given["carry"])
        self.rows = step.body.rows()
        self.inputs, self.results = step.body.inputs.tolist(), step.body.results.tolist()
        self.maker = {v: r for r, (_, _, outs) in enumerate(self.rows) for v in outs}
        self.uses = Counter(v for _, operands, _ in self.rows for v in operands)
        self.uses.update(self.results)
        self.kept = [r for r in range(step.carry) if self.results[r] == self.inputs[step.consts + r]]
        self.level = self._levels()
        self.room = max(ROOM, sum(a.nbytes for a in (*made.avals, *made.outs)))

    def _levels(self) -> dict[int, int]:
        step, level = self.step, dict.fromkeys(self.step.body.constants, FIXED)
        for k, v in enumerate(self.inputs):
            fixed = k < step.consts or k - step.consts in self.kept
            level[v] = FIXED if fixed else VARYING if k < step.first_x else PASSING
        for made, operands, outs in self.rows:
            found = max((level[v] for v in operands), default=FIXED) if moves(made) else VARYING
            level.update((v, found) for v in outs)
        return level

    def aval(self, value: int) -> Aval:
        return self.step.body.aval(value)

    def needed(self, values: Iterable[int], without: Iterable[int] = ()) -> set[int]:
        """The rows that make these values, without some rows and what only those need."""
        stop, found, stack = set(without), set[int](), list(values)
        while stack:
            r = self.maker.get(stack.pop())
            if r is not None and r not in found and r not in stop:
                found.add(r)
                stack += self.rows[r][1]
        return found


@functools.cache
def moves(made: Form) -> bool:
    """Whether rows of a form may leave a body."""
    prim = made.prim
    return (prim.kind in _MOVING and not prim.errors and not prim.opaque and len(made.outs) == 1 and batchable(prim)
            and not (prim.draws and prim.draws(**made.params))
            and max(a.ndim for a in (*made.avals, *made.outs)) + 2 <= MAX_DIMENSIONS)


def is_product(made: Form) -> bool:
    """Whether a row is a product of two matrices."""
    return made.prim is _matmul() and made.outs[0].ndim == 2


@functools.cache
def _matmul() -> Primitive:
    return BY_NAME["matmul"]


@functools.cache
def _add() -> Primitive:
    return BY_NAME["add"]


def planned(loop: Loop) -> Plan:
    """What is to leave a body."""
    plan = Plan()
    _fixed(loop, plan)
    spent = _products_before(loop, plan)
    spent = _accumulations(loop, plan, spent)
    _products_after(loop, plan, spent)
    return plan


# ---- before the loop ---------------------------------------------------------------------------------

def _fixed(loop: Loop, plan: Plan) -> None:
    """Rows that are the same in all rounds, unless they make more than they read."""
    worth = [outs[0] for made, operands, outs in loop.rows if moves(made) and loop.level[outs[0]] == FIXED
             and made.outs[0].nbytes <= max(SMALL, sum(a.nbytes for a in made.avals)) and operands]
    plan.before |= loop.needed(worth)


def _products_before(loop: Loop, plan: Plan) -> int:
    """Rows of what goes by times a matrix that stays, and what they are made of; the bytes of the new streams.

    Measured on one core, one large product saves up to half of the time where a round's is of one row or its matrix
    comes from afar; else it saves little, and a stream that leaves the cache costs a third.
    """
    spent = 0
    for made, operands, outs in loop.rows:
        if not (is_product(made) and moves(made) and loop.level[outs[0]] == PASSING and _joins(loop, made, operands)):
            continue
        rows = loop.needed([outs[0]], plan.before)
        cost = _stream_bytes(loop, rows)
        if (cost <= CACHED or _pays(loop, made, operands)) and spent + cost <= loop.room:
            plan.before |= rows
            spent += cost
    ys = loop.results[loop.step.carry:]
    for v in ys:                                 # what follows from these products alone has no reason to wait
        if loop.level[v] == PASSING and v in loop.maker:
            rows = loop.needed([v])
            cost = _stream_bytes(loop, rows - plan.before)
            if rows & plan.before and spent + cost <= loop.room:
                plan.before |= rows
                spent += cost
    return spent


def _joins(loop: Loop, made: Form, operands: tuple[int, ...]) -> bool:
    """Whether one operand is the same in all rounds, and the products of all rounds are one with more rows."""
    levels = [loop.level[v] for v in operands]
    if min(levels) != FIXED or max(levels) == FIXED:
        return False
    m, n = made.outs[0].shape
    return m <= ROWS if levels[1] == FIXED else n == 1


def _pays(loop: Loop, made: Form, operands: tuple[int, ...]) -> bool:
    """Whether a product is that much slower in a loop that its operands or results may go by outside the cache."""
    fixed = next(a for a, v in zip(made.avals, operands, strict=True) if loop.level[v] == FIXED)
    return 1 in made.outs[0].shape or fixed.nbytes >= LARGE


def _stream_bytes(loop: Loop, rows: Iterable[int]) -> int:
    return loop.length * sum(a.nbytes for r in rows for v, a in zip(loop.rows[r][2], loop.rows[r][0].outs, strict=True)
                             if loop.level[v] == PASSING)


# ---- sums over all rounds ----------------------------------------------------------------------------

def total_of(loop: Loop, value: int, at_hand: set[int], depth: int = 0) -> Total | None:
    """How to sum a value over all rounds; None for one that is the same in all, for that would not be their sum."""
    if depth > DEEP or loop.level[value] == FIXED:
        return None
    r = loop.maker.get(value, -1)
    if r >= 0 and value not in at_hand:
        made, operands, _ = loop.rows[r]
        if is_product(made) and moves(made) and FIXED not in (loop.level[v] for v in operands):
            return Total(value, r, ())
        if _sums(made):
            found = [total_of(loop, v, at_hand, depth + 1) for v in operands]
            parts = tuple(part for part in found if part)
            if len(parts) == len(found) and (any(map(products_in, parts)) or at_hand.issuperset(
                    v for part in parts for v in streams_in(loop, part))):
                return Total(value, r, parts)
    return Total(value, -1, ())


def _sums(made: Form) -> bool:
    """Whether a row of sums is the sum of rows. A cast to more digits would come too late."""
    if made.prim.linear is not Linear.EACH or made.prim.kind not in _SUMS or not moves(made):
        return False
    x, out = made.avals[0], made.outs[0]
    return x.code == out.code or is_float(x.code) and is_float(out.code) and out.dtype.itemsize < x.dtype.itemsize


def products_in(total: Total) -> set[int]:
    """Rows of the products in a sum."""
    return {r for part in total.parts for r in products_in(part)} if total.parts else {total.row} - {-1}


def streams_in(loop: Loop, total: Total) -> list[int]:
    """The values of which a sum reads those of all rounds."""
    if total.parts:
        return [v for part in total.parts for v in streams_in(loop, part)]
    return list(loop.rows[total.row][1]) if total.row >= 0 else [total.value]


def _accumulations(loop: Loop, plan: Plan, spent: int) -> int:
    """Carry entries to which rounds add products: the streams of these are left behind instead, if that is less than
    the products, or little. What else is added of streams goes along. Without products, sums stay as they are, to
    the bit."""
    ys = {*loop.results[loop.step.carry:]}
    at_hand = ys | {*loop.inputs[loop.step.first_x:]}

    def sums() -> list[tuple[int, Total]]:
        return [(c, total) for c in range(loop.step.carry) for v in added_to(loop, c)
                if (total := total_of(loop, v, at_hand))]

    def missing(some: Iterable[tuple[int, Total]]) -> list[int]:
        read = dict.fromkeys(v for _, total in some for v in streams_in(loop, total))
        return [v for v in read if loop.level[v] == VARYING and v not in ys]

    chosen = [entry for entry in sums() if products_in(entry[1])]
    extra = missing(chosen)
    gain = sum(loop.rows[r][0].outs[0].nbytes for r in set[int]().union(*(products_in(t) for _, t in chosen)))
    cost = sum(loop.aval(v).nbytes for v in extra)
    worth = 2 * cost <= gain or cost <= 2 * gain and loop.length * cost <= 4 * CACHED       # measured
    if not worth or spent + loop.length * cost > loop.room:
        chosen, extra = [entry for entry in chosen if not missing([entry])], []
    if not chosen:
        return spent
    at_hand.update(extra)
    at_hand.update(v for _, total in chosen for v in streams_in(loop, total))
    spent += loop.length * sum(loop.aval(v).nbytes for v in extra)
    for c, total in sums():
        read = streams_in(loop, total)
        if at_hand.issuperset(read):
            rows = loop.needed([u for u in read if loop.level[u] != VARYING], plan.before)
            cost = _stream_bytes(loop, rows)
            if spent + cost <= loop.room:
                spent += cost
                plan.before |= rows
                plan.totals.setdefault(c, []).append(total)
    summed = {v for totals in plan.totals.values() for total in totals for v in streams_in(loop, total)}
    plan.left = [v for v in extra if v in summed]
    return spent


def added_to(loop: Loop, c: int) -> list[int]:
    """What a round adds to an entry of the carry, which it uses for nothing else; empty where it does anything else."""
    out, v, start = [], loop.results[c], loop.inputs[loop.step.consts + c]
    if loop.uses[start] != 1:
        return []
    reach = {start}
    for made, operands, outs in loop.rows:       # values that contain the entry
        if not reach.isdisjoint(operands):
            if made.prim is not _add() or reach.issuperset(operands) or loop.uses[outs[0]] != 1:
                return []
            reach.add(outs[0])
            out.append(operands[0] if operands[1] in reach else operands[1])
    return out if v in reach and v != start and loop.aval(v) == loop.aval(start) else []


def still_added(loop: Loop, plan: Plan, c: int) -> list[int]:
    """What rounds go on to add to an entry of the carry."""
    summed = {total.value for total in plan.totals[c]}
    return [v for v in added_to(loop, c) if v not in summed]


# ---- after the loop ----------------------------------------------------------------------------------

def _products_after(loop: Loop, plan: Plan, spent: int) -> None:
    """Products with a matrix that stays, of which nothing but ys is made."""
    carry = loop.step.carry
    stays = [v for c, v in enumerate(loop.results[:carry]) if c not in plan.totals]
    stays += [v for c in plan.totals for v in still_added(loop, plan, c)]
    core = loop.needed([*stays, *plan.left], plan.before) | plan.before
    products = {r for r, (made, operands, outs) in enumerate(loop.rows) if r not in core and is_product(made)
                and loop.level[outs[0]] == VARYING and moves(made) and _joins(loop, made, operands)}
    ys = dict.fromkeys(loop.results[carry:])
    for v in ys:
        rows = _following(loop, v, core, products)
        if not rows:
            continue
        made_here = {u for r in rows | plan.after for u in loop.rows[r][2]}
        read = {u for r in rows for u in loop.rows[r][1]} - made_here
        outer = loop.needed([u for u in read if loop.level[u] != VARYING], plan.before)
        extra = [u for u in sorted(read) if loop.level[u] == VARYING and u not in plan.left]
        cost = _stream_bytes(loop, outer) + loop.length * sum(loop.aval(u).nbytes for u in extra if u not in ys)
        pays = any(_pays(loop, *loop.rows[r][:2]) for r in rows & products)
        if (cost <= 4 * CACHED or pays) and spent + cost <= loop.room:
            spent += cost
            plan.after |= rows
            plan.before |= outer
            plan.left += extra


def _following(loop: Loop, v: int, core: set[int], products: set[int]) -> set[int]:
    """The rows from products on that make a y and nothing of the carry; empty where there are none, or some of them
    must stay."""
    found: set[int] = set()
    reached: set[int] = set()
    for r in sorted(loop.needed([v], core)):
        made, operands, outs = loop.rows[r]
        if r in products or not reached.isdisjoint(operands):
            found.add(r)
            reached.update(outs)
            if not moves(made):
                return set()
    return found
