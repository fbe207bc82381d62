"""Tangent rules: what an entry's kind says of forward mode, run dry once per form and given tangents."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jitgrad import ops
from jitgrad.core import backend
from jitgrad.core.aval import AVALS, Aval, aval
from jitgrad.core.dtypes import is_float
from jitgrad.core.errors import user_error
from jitgrad.core.form import Form, form
from jitgrad.core.primitive import BY_NAME, Kind, Linear, Missing
from jitgrad.core.program import Program
from jitgrad.core.record import dispatch, replay
from jitgrad.core.recorder import Recorder, recorder_for
from jitgrad.transform.fragment import POOL, cotangents_of, no_rule, ruled
from jitgrad.transform.prune import pruned
from jitgrad.transform.vjp import vjp

Tangents = Sequence[Any]       # one per operand or output, None for zero


class Piece(NamedTuple):
    """A rule's rows to paste. Local values: given tangents, operands, outputs, constants, then what the rows make."""

    constants: tuple[int, ...]                            # numbers in the pool of fragments
    rows: tuple[tuple[Form, tuple[int, ...]], ...]
    results: tuple[int, ...]                              # the tangent of each output, -1 for zero


_pieces: dict[tuple[int, int], Piece] = {}


def piece_of(made: Form, mask: int) -> Piece:
    """The rows of a form whose operands have the tangents that a mask names."""
    found = _pieces.get((made.id, mask))
    if found is None:
        found = _pieces[made.id, mask] = _encoded(fragment(made, mask))
    return found


def fragment(made: Form, mask: int) -> Program:
    """A form's tangent rule as a Program of (tangents that the mask names..., operands..., outputs...)."""
    with Recorder() as recorder:
        ts = [recorder.input(a) if mask >> k & 1 else None for k, a in enumerate(made.avals)]
        args = [recorder.input(a) for a in made.avals]
        ans = [recorder.input(a) for a in made.outs]
        program = recorder.program(tangents_of(made, ts, ans, args))
    return pruned(program, keep_inputs=True)


def _encoded(program: Program) -> Piece:
    order = [*program.inputs.tolist(), *program.constants]
    order += [v for _, _, outs in program.rows() for v in outs]
    local = {v: i for i, v in enumerate(order)}
    return Piece(tuple(POOL.constant(t) for t in program.constants.values()),
                 tuple((made, tuple(local[v] for v in operands)) for made, operands, _ in program.rows()),
                 tuple(local[v] if v >= 0 else -1 for v in program.results.tolist()))


def tangents_of(made: Form, ts: Tangents, ans: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """Apply an entry's tangent rule: one tangent per output, of its shape and dtype."""
    prim = made.prim
    if prim.jvp is not None:
        found = prim.jvp(ts, tuple(ans) if len(ans) > 1 else ans[0], *args, **made.params)
        pushed = list(found) if len(ans) > 1 else [found]
    elif isinstance(prim.vjp, Missing):
        raise no_rule(made)
    elif not made.differentiable:
        return [None] * len(made.outs)
    else:
        pushed = _by_kind(made, ts, ans, args)
    return [_fitted(t, a) for t, a in zip(pushed, made.outs, strict=True)]


def _by_kind(made: Form, ts: Tangents, ans: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    given = [k for k, t in enumerate(ts) if t is not None]
    floats = [k for k, a in enumerate(made.avals) if is_float(a.code)]
    if made.prim.linear is Linear.EACH and given == floats:
        return [dispatch(made, [a if t is None else t for t, a in zip(ts, args, strict=True)])]
    if made.prim.kind is Kind.ELEMENTWISE:      # a diagonal Jacobian is its own transpose; operands still broadcast
        return [_sum([ruled(made, ts[k], ans[0], args, [k])[k] for k in given])]
    if made.prim.linear is Linear.EACH:
        return [dispatch(made, [zero_like(a, ts[given[0]]) if k in floats and k not in given else
                                args[k] if k not in given else ts[k] for k, a in enumerate(made.avals)])]
    if made.prim.linear is Linear.MULTI:
        return [_sum([dispatch(made, [*args[:k], ts[k], *args[k + 1:]]) for k in given])]
    return _transposed_twice(made, ts, ans, args)


def _transposed_twice(made: Form, ts: Tangents, ans: Sequence[Any], args: Sequence[Any]) -> list[Any]:
    """The entry's rule is linear in the cotangents; pulled back in turn, with tangents for seeds, it pushes these."""
    floats = [o for o, a in enumerate(made.outs) if is_float(a.code)]
    given = [k for k, t in enumerate(ts) if t is not None]
    with Recorder() as rule:
        gs = [rule.input(a) if is_float(a.code) else None for a in made.outs]
        inner, answers = [rule.input(a) for a in made.avals], [rule.input(a) for a in made.outs]
        many = len(made.outs) > 1
        pulled = cotangents_of(made, tuple(gs) if many else gs[0], tuple(answers) if many else answers[0], inner, given)
        kept = [k for k in given if pulled[k] is not None]
        program = rule.program([pulled[k] for k in kept])
    back = transposed(program, range(len(floats)), f"{made.prim.name}: its vjp rule")
    pushed = dict(zip(floats, replay(back, [*[None] * len(floats), *args, *ans, *(ts[k] for k in kept)]), strict=True))
    return [pushed.get(o) for o in range(len(made.outs))]


def transposed(program: Program, linear: Sequence[int], what: str) -> Program:
    """The vjp of a Program in inputs that it is linear in: these stay its inputs, but nothing reads them.

    Raises ValueError, about ``what``, for a Program whose derivative depends on them.
    """
    back = vjp(program, linear)
    unread = {int(back.inputs[k]) for k in linear}
    if unread.intersection([*back.operands.tolist(), *back.results.tolist()]):
        raise user_error(ValueError, f"{what} must be linear in the derivatives that it is given, but what it makes of "
                                     "them depends on their values")
    return back


def _sum(parts: Sequence[Any]) -> Any:
    known = [t for t in parts if t is not None]
    return functools.reduce(ops.add, known) if known else None


def zero_like(value: Aval, dry: Any) -> Any:
    """Zeros of an aval beside ``dry``."""
    return zeros(recorder_for(dry), value)


def zeros(recorder: Recorder, like: Aval) -> Any:
    """Zeros in a recording; many as a row, for operations on numbers would run at once, and be kept whole."""
    scalar = _zero(like.code)
    if not like.shape:
        return scalar
    return recorder.append(form(BY_NAME["broadcast_to"], [AVALS[scalar._aval]], {"shape": like.shape}), [scalar])


@functools.cache
def _zero(code: int) -> Any:
    scalar = aval(code, ())
    return backend.current().tensor(np.zeros((), scalar.dtype), scalar)


def _fitted(t: Any, value: Aval) -> Any:
    """A rule's result as the tangent of an output: integers have none."""
    if t is None or not is_float(value.code):
        return None
    if AVALS[t._aval].code != value.code:
        t = ops.cast(t, dtype=value.dtype.name)
    return t if AVALS[t._aval] is value else ops.broadcast_to(t, shape=value.shape)
