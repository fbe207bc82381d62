"""Scans whose products leave the body: one large product before or after the loop in the place of many small ones.

For a Program that is about to run, as `simplify` makes it: products and sums over all rounds add in another order, so
results are equal to rounding (integers exactly). What leaves a body, and when, is said in `outside`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from jitgrad import ops
from jitgrad.core import backend
from jitgrad.core.aval import AVALS
from jitgrad.core.form import FORMS, form
from jitgrad.core.primitive import BY_NAME
from jitgrad.core.program import Program
from jitgrad.core.recorder import Recorder
from jitgrad.transform.control.outside import FIXED, Loop, Plan, Total, planned, still_added
from jitgrad.transform.control.scans import scan
from jitgrad.transform.prune import has_effects
from jitgrad.transform.vmap import batched_row


@lru_cache(maxsize=1024)
def hoisted(f: int, zeros: tuple[int, ...] = ()) -> Program | None:
    """A Program in the place of a row of form ``f``, with fewer rows in its loop; None where there is none.

    ``zeros``: positions of operands that are known to be 0 (not -0.0) in all elements.
    """
    made = FORMS[f]
    if made.prim is not BY_NAME["scan"] or made.params["length"] < 2 or has_effects(made):
        return None
    loop = Loop(made)
    plan = planned(loop)
    if not plan and not loop.kept:
        return None
    with Recorder() as recorder:
        return recorder.program(_Around(loop, plan, recorder).results(zeros))


class _Around:
    """The rows around a loop, and the loop with what is left of its body."""

    def __init__(self, loop: Loop, plan: Plan, recorder: Recorder) -> None:
        self.loop, self.plan, self.recorder = loop, plan, recorder
        step = loop.step
        self.operands = [recorder.input(a) for a in loop.form.avals]
        self.same: dict[int, Any] = {}            # values that all rounds share
        self.stacked: dict[int, Any] = {}         # those of all rounds along a first axis
        for k, v in enumerate(loop.inputs[: step.first_x]):
            if loop.level[v] == FIXED:
                self.same[v] = self.operands[k]
        self.stacked.update(zip(loop.inputs[step.first_x:], self.operands[step.first_x:], strict=True))

    def results(self, zeros: Sequence[int]) -> list[Any]:
        loop, plan, step = self.loop, self.plan, self.loop.step
        self._compute(plan.before)
        last = self._run()
        self._compute(plan.after)
        for c in loop.kept:
            last[c] = self.operands[step.consts + c]
        for c, totals in plan.totals.items():
            start = last.get(c)
            if start is None and step.consts + c not in zeros:
                start = self.operands[step.consts + c]
            last[c] = self._sum(start, [self._total(t) for t in totals], step.input(step.consts + c).shape)
        return [*(last[c] for c in range(step.carry)), *(self.stacked[v] for v in loop.results[step.carry:])]

    def _compute(self, rows: Iterable[int]) -> None:
        """Rows of the body for all rounds at once."""
        for r in sorted(rows):
            made, operands, (out,) = self.loop.rows[r]
            flags = tuple(v in self.stacked for v in operands)
            given = [self.stacked[v] if has else self._shared(v) for v, has in zip(operands, flags, strict=True)]
            if any(flags):
                (self.stacked[out],), _ = batched_row(made, flags, self.loop.length, given)
            else:
                self.same[out] = self.recorder.append(made, given)

    def _shared(self, v: int) -> Any:
        found = self.same.get(v)
        if found is None:                         # dry, so that rules compute nothing with it
            t = self.loop.step.body.constants[v]
            found = self.same[v] = backend.current().dry(AVALS[t._aval], self.recorder.number(t), self.recorder)
        return found

    # ---- the loop ----

    def _run(self) -> dict[int, Any]:
        """The last carry, by entry; the streams that the loop leaves behind are known from then on."""
        loop, plan, step = self.loop, self.plan, self.loop.step
        going = [c for c in range(step.carry) if c not in loop.kept and (
            c not in plan.totals or still_added(loop, plan, c))]
        after = {loop.rows[r][2][0] for r in plan.after}
        ys = [*dict.fromkeys(v for v in (*loop.results[step.carry:], *plan.left)
                             if v not in self.stacked and (v not in after or v in plan.left))]
        if not going and not ys:
            return {}
        body, consts, xs = self._body(going, ys)
        given = [*(self.same[v] for v in consts), *(self.operands[step.consts + c] for c in going),
                 *(self.stacked[v] for v in xs)]
        out = scan(given, body, len(consts), len(going), loop.length, loop.reverse)
        out = out if isinstance(out, tuple) else (out,)
        self.stacked.update(zip(ys, out[len(going):], strict=True))
        return dict(zip(going, out, strict=False))

    def _body(self, going: Sequence[int], ys: Sequence[int]) -> tuple[Program, list[int], list[int]]:
        """What is left of the body, and what it reads: shared values and streams."""
        loop, plan, step = self.loop, self.plan, self.loop.step
        sums = {c: still_added(loop, plan, c) for c in going if c in plan.totals}
        results = [v for c in going for v in sums.get(c, [loop.results[c]])] + list(ys)
        rows = sorted(loop.needed(results, plan.before))
        read = {*results}.union(*(loop.rows[r][1] for r in rows)) - {*step.body.constants}
        consts, xs = ([v for v in known if v in read] for known in (self.same, self.stacked))
        inner = Recorder()
        known: dict[int, Any] = dict(step.body.constants)
        known.update((v, inner.input(loop.aval(v))) for v in consts)
        carry = {c: inner.input(step.input(step.consts + c)) for c in going}
        known.update((loop.inputs[step.consts + c], t) for c, t in carry.items())
        known.update((v, inner.input(loop.aval(v))) for v in xs)
        for r in rows:
            made, operands, outs = loop.rows[r]
            answer = inner.append(made, [known[v] for v in operands])
            known.update(zip(outs, answer if isinstance(answer, tuple) else (answer,), strict=True))
        made_of = {c: _chain(inner, carry[c], [known[v] for v in sums[c]]) if c in sums else known[loop.results[c]]
                   for c in going}
        return inner.program([*made_of.values(), *(known[v] for v in ys)]), consts, xs

    # ---- sums ----

    def _sum(self, start: Any, parts: Sequence[Any], shape: tuple[int, ...]) -> Any:
        first, *rest = parts if start is None else (start, *parts)
        out = _chain(self.recorder, first, rest)
        return out if out.shape == shape else ops.broadcast_to(out, shape)

    def _total(self, total: Total) -> Any:
        """The sum of a value over all rounds."""
        if total.row < 0:
            x = self.stacked[total.value]
            return ops.reshape(ops.reduce_sum(x, axes=(0,)), x.shape[1:])
        made, operands, _ = self.loop.rows[total.row]
        if total.parts:
            return self.recorder.append(made, [self._total(part) for part in total.parts])
        x, y = (self.stacked[v] for v in operands)
        return ops.matmul(_tall(x, made.params["ta"]), _tall(y, not made.params["tb"]), ta=True, tb=False)


def _chain(recorder: Recorder, first: Any, rest: Iterable[Any]) -> Any:
    for x in rest:
        first = recorder.append(form(BY_NAME["add"], [AVALS[first._aval], AVALS[x._aval]], {}), [first, x])
    return first


def _tall(x: Any, upright: bool) -> Any:
    """Stacked matrices one below the other; those that are not ``upright`` are transposed first."""
    n, rows, columns = x.shape
    if not upright:
        x = ops.reshape(x, (n, columns, rows)) if 1 in (rows, columns) else ops.permute_dims(x, (0, 2, 1))
        rows, columns = columns, rows
    return ops.reshape(x, (n * rows, columns))
