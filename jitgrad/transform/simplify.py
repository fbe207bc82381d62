"""Smaller Programs with the same bits: dead rows, common subexpressions, exact algebra, constant folding.

For a Program that is about to run: take derivatives before. `stop_gradient` changes no bits, so it is gone after.
Equal bits means all but the payload of a NaN that arithmetic would have quieted, and what products make: those of a
loop's rounds may become one (`control.hoist`), which adds in another order, and a product may take its operands
transposed, or exchanged (`exchanged`), for which BLAS has other blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from jitgrad.core import backend
from jitgrad.core.aval import AVALS, Aval, aval, broadcast_shapes
from jitgrad.core.exact import Check, Row
from jitgrad.core.form import FORMS, Form, form
from jitgrad.core.primitive import BY_NAME, Index, Kind, contiguous_strides
from jitgrad.core.program import Program, programs_in
from jitgrad.transform.control.hoist import hoisted
from jitgrad.transform.control.lean import lean
from jitgrad.transform.exchange import exchanged
from jitgrad.transform.higher import inlined, rewritten
from jitgrad.transform.prune import has_effects, pruned
from jitgrad.transform.rows import Rows

SMALL = 4096                   # bytes up to which a constant is read, and may be made where its operands are smaller

Evaluate = Callable[[Form, Sequence[Any]], Any]


def simplify(program: Program, evaluate: Evaluate | None = None) -> Program:
    """A Program of the same inputs, results and effects, bit for bit but for products in loops, without calls and
    without rows to spare.

    ``evaluate(form, tensors)`` computes a row on constants, as `Backend.run` does; without it none is folded.
    """
    needed = lean(pruned(inlined(program), keep_inputs=True, keep_effects=True))
    found = pruned(rewritten(needed, _Simpler(evaluate)), keep_inputs=True, keep_effects=True)
    merged = exchanged(lean(found))
    if merged is not found:
        found = pruned(rewritten(merged, _Simpler(evaluate)), keep_inputs=True, keep_effects=True)
    return found


class _Simpler(Rows):
    """Rows that are looked at before they are appended: what the rules of core/exact.py call `known`."""

    def __init__(self, evaluate: Evaluate | None) -> None:
        super().__init__()
        self.evaluate = evaluate
        self.made: list[Row | None] = []
        self.bits: dict[int, bytes] = {}
        self.spread: dict[int, int] = {}          # what was broadcast to make a value
        self._seen: dict[Row, int] = {}
        self._equal: dict[tuple[int, bytes], int] = {}
        self._read: list[Any] = []                # constants are known by their ids, so they must live

    def value(self, aval: int) -> int:
        self.made.append(None)
        return super().value(aval)

    def constant(self, t: Any) -> int:
        """Equal small constants are one value, and elements that are all alike known to rules, in the CPU's memory."""
        like = AVALS[t._aval]
        if id(t) in self._known or like.nbytes > SMALL or not like.size or t._data == 0:
            return super().constant(t)
        self._read.append(t)
        content = memoryview(t).tobytes()
        one = content[:like.dtype.itemsize]
        value = self._equal.get((like.id, content))
        if value is None:
            value = self._equal[like.id, content] = super().constant(t)
            if content == one * like.size:
                self.bits[value] = one
                if like.ndim:
                    scalar = backend.current().tensor(np.frombuffer(one, like.dtype).reshape(()), aval(like.code, ()))
                    self.spread[value] = self.constant(scalar)
        self._known[id(t)] = value
        return value

    def row(self, f: int, ids: Sequence[int], line: str = "") -> int:
        """The first output of a row, or what is equal to it."""
        key = (f, tuple(ids))
        found = self._seen.get(key)
        if found is None:
            facts = _FACTS.get(f) or _facts(f)
            found = self._new(facts, key, line)
            if facts.pure:
                self._seen[key] = found
        return found

    def instead(self, f: int, ids: Sequence[int]) -> Program | None:
        """A loop without what need not be in it."""
        facts = _FACTS.get(f) or _facts(f)
        if not facts.holds:
            return None
        zeros = tuple(k for k, v in enumerate(ids) if not any(self.bits.get(v, b"?")))
        return hoisted(_simpler_within(f, self.evaluate), zeros)

    def _new(self, facts: _Facts, key: Row, line: str) -> int:
        f, ids = key
        for check in facts.checks:
            answer = check(self, ids)
            if answer is not None:
                return self._shaped(answer, facts.out, line) if isinstance(answer, int) else self.row(*answer, line)
        known = self.constants
        if facts.foldable and self.evaluate and ids and ids[0] in known and all(v in known for v in ids):
            return self.constant(self.evaluate(FORMS[f], [known[v] for v in ids]))
        first = super().row(_simpler_within(f, self.evaluate) if facts.holds else f, ids, line)
        if not facts.out:
            self.made += [None] * (len(self.avals) - first)
            return first
        self.made.append(key)
        if facts.moves and ids[0] in self.bits:
            self.bits[first] = self.bits[ids[0]]
        if facts.spreads:
            self.spread[first] = ids[0]
        return first

    def _shaped(self, value: int, like: Aval | None, line: str) -> int:
        """A value, broadcast to the shape that is asked for."""
        if like is None or self.avals[value] == like.id:
            return value
        return self.row(_broadcast(self.avals[value], like.shape), (value,), line)


class _Facts:
    """What is to be known of the rows of a form."""

    __slots__ = ("checks", "foldable", "holds", "moves", "out", "pure", "spreads")

    def __init__(self, made: Form) -> None:
        kind = made.prim.kind
        self.out = made.outs[0] if len(made.outs) == 1 else None
        self.holds = any(True for _ in programs_in(made.params))
        ruled = kind is Kind.HIGHER and not self.holds and not made.prim.runner       # it has a Python rule
        self.pure = not has_effects(made) and not ruled
        room = max(SMALL, sum(a.nbytes for a in made.avals))
        self.foldable = (self.pure and kind is not Kind.HIGHER and self.out is not None and not made.prim.errors
                         and self.out.nbytes <= room)
        self.moves = kind is Kind.MOVE
        self.spreads = made.prim.name == _SPREAD
        rules = made.prim.exact + _OF_KIND.get(kind, ())
        self.checks: list[Check] = [check for rule in rules if (check := rule(made)) is not None]


_FACTS: dict[int, _Facts] = {}
_SPREAD = "broadcast_to"


def _facts(f: int) -> _Facts:
    found = _FACTS[f] = _Facts(FORMS[f])
    return found


@lru_cache(maxsize=1024)
def _simpler_within(f: int, evaluate: Evaluate | None) -> int:
    """The form with simpler Programs in its params."""
    def simpler(param: Any) -> Any:
        if isinstance(param, Program):
            return simplify(param, evaluate)
        if isinstance(param, tuple):
            items = map(simpler, param)
            return param._make(items) if hasattr(param, "_make") else tuple(items)
        return param
    made = FORMS[f]
    return form(made.prim, made.avals, {name: simpler(param) for name, param in made.params.items()}).id


# ---- rules that go with a kind -------------------------------------------------------------------

@lru_cache(maxsize=4096)
def _broadcast(a: int, shape: tuple[int, ...]) -> int:
    return form(BY_NAME[_SPREAD], [AVALS[a]], {"shape": shape}).id


@lru_cache(maxsize=4096)
def _with_operand(f: int, k: int, a: int) -> int:
    """The form with another aval of operand k, if its rows still have the same shape; else -1."""
    made = FORMS[f]
    avals = [*made.avals[:k], AVALS[a], *made.avals[k + 1:]]
    if broadcast_shapes(*(x.shape for x in avals)) != made.outs[0].shape:
        return -1
    return form(made.prim, avals, made.params).id


def _unspread(made: Form) -> Check:
    """An elementwise row broadcasts by itself."""
    def check(known: Any, ids: tuple[int, ...]) -> Row | None:
        for k, v in enumerate(ids):
            if v in known.spread:
                f = _with_operand(made.id, k, known.avals[known.spread[v]])
                if f >= 0:
                    return f, (*ids[:k], known.spread[v], *ids[k + 1:])
        return None
    return check


def _moved(made: Form) -> Check | None:
    """In the same order it is the operand, or a reshape; a scalar moved, or broadcast and moved, is broadcast."""
    if made.prim.opaque:
        return None
    x, out, name = made.avals[0], made.outs[0], made.prim.name
    in_order = _in_order(made.prim.body(x, **made.params)) and x.size == out.size
    if in_order and x is out:
        return lambda known, ids: ids[0]
    if not x.ndim and name != _SPREAD:
        return lambda known, ids: (_broadcast(x.id, out.shape), ids)
    if in_order and name not in (_SPREAD, "reshape"):
        return lambda known, ids: (form(BY_NAME["reshape"], [x], {"shape": out.shape}).id, ids)

    def check(known: Any, ids: tuple[int, ...]) -> Row | None:
        base = known.spread.get(ids[0])
        return None if base is None or AVALS[known.avals[base]].ndim else (
            _broadcast(known.avals[base], out.shape), (base,))
    return check


def _in_order(index: Index) -> bool:
    return index.offset == 0 and all(n == 1 or s == c for n, s, c in zip(
        index.shape, index.strides, contiguous_strides(index.shape), strict=True))


_OF_KIND = {Kind.ELEMENTWISE: (_unspread,), Kind.MOVE: (_moved,)}
