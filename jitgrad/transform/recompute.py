"""`recompute`: a `call` whose gradient keeps its operands and results alone, and computes all else again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jitgrad import ops
from jitgrad.core.aval import AVALS
from jitgrad.core.form import Form, form
from jitgrad.core.primitive import BY_NAME, Kind, define
from jitgrad.core.program import Program
from jitgrad.core.record import bind
from jitgrad.ops.batching import Batch
from jitgrad.transform.higher import CALL, no_reference, shapes
from jitgrad.transform.vmap import vmap


def recompute_form(program: Program, operands: Sequence[Any]) -> Form:
    """The form of such a row."""
    return form(BY_NAME["recompute"], [AVALS[t._aval] for t in operands], {"program": program})


def _vjp(g: Any, ans: Any, *operands: Any, program: Program, want: Sequence[int]) -> list[Any]:
    again = [ops.barrier(x) for x in operands]       # or what is computed again would be found to be known
    rule: Any = CALL.vjp
    return list(rule(g, ans, *again, program=program, want=want))


def _batch(batched: Sequence[bool], size: int, *operands: Any, program: Program) -> Batch:
    inner, flags = vmap(program, batched, size)
    return bind("recompute", operands, program=inner), flags


def _body() -> None:
    """Run a Program whose intermediate values are not kept for gradients."""


define(_body, name="recompute", kind=Kind.HIGHER, vjp=_vjp, jvp=CALL.jvp, batch=_batch, draws=CALL.draws,
       aval=shapes, ref=no_reference, samples=None, operands=("*xs",), params=("program",), domains=("any",),
       partial=True)
