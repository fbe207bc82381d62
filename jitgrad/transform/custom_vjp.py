"""`custom_vjp`: values whose gradient is another Program's, which a user's gradient function was recorded as."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jitgrad.core.aval import AVALS, Aval
from jitgrad.core.form import form
from jitgrad.core.primitive import BY_NAME, Kind, define
from jitgrad.core.program import Program
from jitgrad.core.record import dispatch, replay
from jitgrad.ops.batching import Batch, spread
from jitgrad.transform.higher import no_reference
from jitgrad.transform.residuals import results_of, with_results
from jitgrad.transform.tangent import transposed, zero_like
from jitgrad.transform.vmap import whole


def custom_vjp(values: Sequence[Any], operands: Sequence[Any], others: Sequence[Any], rule: Program) -> tuple[Any, ...]:
    """``values`` again, with a gradient in ``operands`` that ``rule`` says.

    ``rule`` is a Program of a cotangent of each value, then ``others``; its results are cotangents of the operands, -1
    for none. It is linear in the cotangents, so that tangents are its transpose.
    """
    given = [*values, *operands, *others]
    outs = dispatch(custom_form([AVALS[t._aval] for t in given], len(values), len(operands), rule), given)
    return outs if isinstance(outs, tuple) else (outs,)


def custom_form(avals: Sequence[Aval], values: int, operands: int, rule: Program) -> Any:
    """The form of such a row, of so many values and operands."""
    same = Program.build([], avals, range(len(avals)), {}, range(values))
    return form(BY_NAME["custom_vjp"], avals, {"program": _the(same), "rule": rule, "count": operands})


_sames: dict[tuple[bytes, bytes], Program] = {}


def _the(program: Program) -> Program:
    """The one Program that gives back some of its inputs."""
    return _sames.setdefault((program.avals.tobytes(), program.results.tobytes()), program)


def _split(program: Program, count: int, operands: Sequence[Any]) -> tuple[int, Sequence[Any]]:
    """How many values there are, and what the rule reads."""
    values = len(program.results)
    return values, operands[values + count:]


def _aval(*operands: Aval, program: Program, rule: Program, count: int) -> tuple[Aval, ...]:
    return results_of(program)


def _vjp(g: Any, ans: Any, *operands: Any, program: Program, rule: Program, count: int) -> list[Any]:
    values, others = _split(program, count, operands)
    gs, answers = (g, ans) if isinstance(g, tuple) else ((g,), (ans,))
    some = next(t for t in gs if t is not None)
    full = [zero_like(AVALS[a._aval], some) if t is None else t for t, a in zip(gs, answers, strict=True)]
    return [None] * values + list(replay(rule, [*full, *others])) + [None] * len(others)


def _jvp(ts: Sequence[Any], ans: Any, *operands: Any, program: Program, rule: Program, count: int) -> Any:
    values, others = _split(program, count, operands)
    given = [k for k in range(count) if ts[values + k] is not None and rule.results[k] >= 0]
    if not given:
        return (None,) * values if isinstance(ans, tuple) else None
    back = transposed(with_results(rule, [int(rule.results[k]) for k in given]), range(values), "custom_gradient")
    pushed = replay(back, [*[None] * values, *others, *(ts[values + k] for k in given)])
    return tuple(pushed) if isinstance(ans, tuple) else pushed[0]


def _batch(batched: Sequence[bool], size: int, *operands: Any, program: Program, rule: Program, count: int) -> Batch:
    values = len(program.results)
    wide = spread(batched, size, *operands)
    outs = custom_vjp(wide[:values], wide[values: values + count], wide[values + count:], whole(rule, size))
    return outs, (True,) * values


def _body() -> None:
    """Values whose gradient in other values is a Program of its own."""


define(_body, name="custom_vjp", kind=Kind.HIGHER, vjp=_vjp, jvp=_jvp, batch=_batch, aval=_aval, ref=no_reference,
       samples=None, operands=("*xs",), params=("program", "rule", "count"), domains=("any",))
