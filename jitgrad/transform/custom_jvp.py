"""`custom_jvp`: a Program whose derivatives are those of another, which says its tangents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jitgrad.core.aval import AVALS, Aval
from jitgrad.core.dtypes import is_float
from jitgrad.core.errors import user_error
from jitgrad.core.primitive import Kind, define
from jitgrad.core.program import Program
from jitgrad.core.record import bind, replay
from jitgrad.ops.batching import Batch, spread
from jitgrad.transform.higher import no_reference
from jitgrad.transform.residuals import results_of, with_results
from jitgrad.transform.tangent import transposed, zero_like
from jitgrad.transform.vmap import whole


def custom_jvp(program: Program, rule: Program, operands: Sequence[Any]) -> tuple[Any, ...]:
    """Results of ``program`` for Tensors, as one row whose derivatives come from ``rule``.

    ``rule`` is a Program of the inputs of ``program``, then a tangent of each that is a float; its results are the
    tangents of the results, -1 for zero and for integers. It is linear in the tangents, so that gradients are its
    transpose. Raises ValueError where shapes, dtypes or counts do not fit.
    """
    return bind("custom_jvp", operands, program=program, rule=rule)


def _aval(*operands: Aval, program: Program, rule: Program) -> tuple[Aval, ...]:
    outs = results_of(program)
    floats = [a for a in operands if is_float(a.code)]
    _agree("the function takes", [program.aval(v) for v in program.inputs.tolist()], "operands", operands)
    _agree("the rule takes", [rule.aval(v) for v in rule.inputs.tolist()],
           "operands and the tangents of floats", [*operands, *floats])
    returned = rule.results.tolist()
    tangents = [rule.aval(v) if v >= 0 else outs[i] if i < len(outs) else None for i, v in enumerate(returned)]
    _agree("the rule returns", tangents, "results", outs)
    return outs


def _agree(who: str, found: Sequence[Aval | None], what: str, wanted: Sequence[Aval]) -> None:
    if list(found) != list(wanted):
        raise user_error(ValueError, f"custom_jvp: {who} {', '.join(map(repr, found)) or 'nothing'}, but the {what} "
                                     f"are {', '.join(map(repr, wanted)) or 'none'}")


def _floats(operands: Sequence[Any]) -> list[int]:
    return [k for k, t in enumerate(operands) if is_float(AVALS[t._aval].code)]


def _jvp(ts: Sequence[Any], ans: Any, *operands: Any, program: Program, rule: Program) -> Any:
    some = next(t for t in ts if t is not None)
    tangents = [zero_like(AVALS[operands[k]._aval], some) if ts[k] is None else ts[k] for k in _floats(operands)]
    pushed = replay(rule, [*operands, *tangents])
    return tuple(pushed) if isinstance(ans, tuple) else pushed[0]


def _vjp(g: Any, ans: Any, *operands: Any, program: Program, rule: Program) -> list[Any]:
    gs = g if isinstance(g, tuple) else (g,)
    live = [i for i, t in enumerate(gs) if t is not None and rule.results[i] >= 0]
    floats = _floats(operands)
    linear = range(len(operands), len(operands) + len(floats))
    back = transposed(with_results(rule, [int(rule.results[i]) for i in live]), linear, "custom_jvp: the rule")
    pulled = replay(back, [*operands, *[None] * len(floats), *(gs[i] for i in live)])
    found = dict(zip(floats, pulled, strict=True))
    return [found.get(k) for k in range(len(operands))]


def _batch(batched: Sequence[bool], size: int, *operands: Any, program: Program, rule: Program) -> Batch:
    outs = custom_jvp(whole(program, size), whole(rule, size), spread(batched, size, *operands))
    return outs, (True,) * len(outs)


def _body() -> None:
    """Run a Program whose derivatives are those of another."""


define(_body, name="custom_jvp", kind=Kind.HIGHER, vjp=_vjp, jvp=_jvp, batch=_batch, aval=_aval, ref=no_reference,
       samples=None, operands=("*xs",), params=("program", "rule"), domains=("any",))
