"""Derivative fragments: an entry's rule, run dry once per form and wanted operands, as words to paste."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core.aval import AVALS, Aval
from jitgrad.core.dtypes import is_float
from jitgrad.core.errors import user_error
from jitgrad.core.form import FORMS, Form, form, grown
from jitgrad.core.primitive import BY_NAME, Missing
from jitgrad.core.program import Program
from jitgrad.core.recorder import Recorder
from jitgrad.transform.prune import pruned
from jitgrad.transform.walk import MASK_BITS


class Pool:
    """Fragments as words for `paste`, and the constants that they read."""

    def __init__(self) -> None:
        self.of = np.zeros(0, np.int64)          # form << MASK_BITS | mask -> fragment + 1
        self.at = np.zeros(0, np.int64)
        self.words = np.zeros(0, np.int64)
        self.constants: list[Any] = []
        self.count = 0
        self.local = 64                          # the most local values that a fragment has
        self._used = 0
        self._wide: dict[tuple[int, int, int], int] = {}
        self._scalars: dict[tuple[int, bytes], int] = {}

    def narrow(self, form_id: int, mask: int) -> None:
        """Make the fragment of a form with one output and few operands."""
        index = form_id << MASK_BITS | mask
        if index >= len(self.of):
            self.of = grown(self.of, index + 64)
        self.of[index] = self._add(FORMS[form_id], mask, 1)

    def wide(self, form_id: int, mask: int, cotangents: int) -> int:
        """Number of the fragment of any form; ``cotangents`` says which outputs have one."""
        key = (form_id, mask, cotangents)
        found = self._wide.get(key)
        if found is None:
            found = self._wide[key] = self._add(FORMS[form_id], mask, cotangents)
        return found

    def _add(self, made: Form, mask: int, cotangents: int) -> int:
        program, results = fragment(made, mask, cotangents)
        words = self._encode(made, program, results)
        if self._used + len(words) > len(self.words):
            self.words = grown(self.words, self._used + len(words))
        if self.count >= len(self.at):
            self.at = grown(self.at, self.count + 1)
        self.words[self._used: self._used + len(words)] = words
        self.at[self.count] = self._used
        self._used += len(words)
        self.count += 1
        return self.count

    def _encode(self, made: Form, program: Program, results: Sequence[int]) -> list[int]:
        """constants, rows, results; pool numbers; (form, operands) per row; (operand, value, add form) per result."""
        local = {int(v): i for i, v in enumerate(program.inputs)}
        pool = []
        for value, t in program.constants.items():
            local[value] = len(local)
            pool.append(self.constant(t))
        rows: list[int] = []
        for made_row, operands, outs in program.rows():
            rows += [made_row.id, *(local[v] for v in operands)]
            for v in outs:
                local[v] = len(local)
        tail = []
        for k, value in zip(results, program.results.tolist(), strict=True):
            add = form(BY_NAME["add"], [made.avals[k]] * 2, {})
            tail += [k, local[value], add.id]
        self.local = max(self.local, len(local) + 1)
        return [len(pool), len(program), len(results), *pool, *rows, *tail]

    def aval(self, number: int) -> Aval:
        """Dtype and shape of a constant."""
        return AVALS[self.constants[number]._aval]

    def constant(self, t: Any) -> int:
        """Number of a constant; equal scalars are one."""
        aval = AVALS[t._aval]
        key = (aval.id, t.numpy().tobytes()) if aval.ndim == 0 else None
        if key is not None and key in self._scalars:
            return self._scalars[key]
        self.constants.append(t)
        if key is not None:
            self._scalars[key] = len(self.constants) - 1
        return len(self.constants) - 1


POOL = Pool()


def wanted(mask: int, count: int) -> list[int]:
    """Operand positions that a mask names; its top bit stands for all from there on."""
    return [k for k in range(count) if mask >> min(k, 62) & 1]


def fragment(made: Form, mask: int, cotangents: int) -> tuple[Program, list[int]]:
    """The rule of a form run dry: a Program of (g..., operands..., ans...) and which operand each result is for."""
    with Recorder() as recorder:
        gs = [recorder.input(a) for a in made.outs]
        args = [recorder.input(a) for a in made.avals]
        ans = [recorder.input(a) for a in made.outs]
        many = len(made.outs) > 1
        g = tuple(t if cotangents >> o & 1 else None for o, t in enumerate(gs)) if many else gs[0]
        pulled = cotangents_of(made, g, tuple(ans) if many else ans[0], args, wanted(mask, len(args)))
        kept = [k for k in wanted(mask, len(args)) if pulled[k] is not None]
        program = recorder.program([pulled[k] for k in kept])
    return pruned(program, keep_inputs=True), kept


def no_rule(made: Form) -> LookupError:
    """What an entry declared `missing` says."""
    return user_error(LookupError, f"{made.prim.name}: has no derivative rule (operands "
                                   f"{' and '.join(map(repr, made.avals))})")


def ruled(made: Form, g: Any, ans: Any, args: Sequence[Any], want: Sequence[int]) -> list[Any]:
    """What an entry's rule returns: per operand None, or a cotangent of the shape that broadcasting gave it."""
    rule = made.prim.vjp
    if isinstance(rule, Missing):
        raise no_rule(made)
    if rule is None:            # a row of a Program that no tape would have recorded: sign, stop_gradient...
        return [None] * len(args)
    extra = {"want": tuple(want)} if made.prim.partial else {}
    given = list(rule(g, ans, *args, **made.params, **extra))
    if len(given) != len(args):
        raise user_error(ValueError, f"{made.prim.name}: its derivative rule returned {len(given)} gradients for "
                                     f"{len(args)} operands")
    return given


def cotangents_of(made: Form, g: Any, ans: Any, args: Sequence[Any], want: Sequence[int]) -> list[Any]:
    """Apply an entry's rule: one cotangent per operand, of the operand's shape; broadcasting is undone here, only."""
    given = ruled(made, g, ans, args, want)
    out: list[Any] = []
    for k, (ct, a) in enumerate(zip(given, made.avals, strict=True)):
        if k not in want or ct is None or not is_float(a.code):
            out.append(None)
            continue
        have = AVALS[ct._aval]
        if have.code != a.code:
            ct = ops.cast(ct, dtype=a.dtype.name)
        out.append(ops.sum_to(ct, a.shape))
    return out
