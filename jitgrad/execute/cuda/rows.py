"""Rows that hold Programs, led by the host: it runs the rows of those one by one, and reads what it has to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jitgrad.core import backend
from jitgrad.core.aval import AVALS, aval
from jitgrad.core.dtypes import INT32
from jitgrad.core.form import Form, form
from jitgrad.core.primitive import BY_NAME
from jitgrad.core.program import Program
from jitgrad.core.record import dispatch, replay_on
from jitgrad.execute.cuda import memory, stream
from jitgrad.execute.cuda.tensors import place, tensor
from jitgrad.transform.higher import runs_program


def run(made: Form, operands: Sequence[Any], device: str) -> tuple[Any, ...]:
    """The outputs of a row, each a Tensor of its own."""
    if runs_program(made.prim):
        outs = replay_on(device, made.params["program"], operands)
    else:
        outs = _LED[made.prim.name](device, operands, **made.params)
    own: list[Any] = []
    for t in outs:
        known = any(t is x for x in (*operands, *own))
        own.append(dispatch(form(BY_NAME["stop_gradient"], [AVALS[t._aval]], {}), [t]) if known else t)
    return tuple(own)


def _read(t: Any) -> Any:
    """The only element, for the host."""
    return backend.current().moved(t, "cpu").numpy()[()]


def _cond(device: str, operands: Sequence[Any], yes: Program, no: Program) -> list[Any]:
    return replay_on(device, yes if _read(operands[0]) else no, operands[1:])


def _scan(device: str, operands: Sequence[Any], body: Program, consts: int, carry: int, length: int,
          reverse: bool) -> list[Any]:
    common, state, xs = operands[:consts], list(operands[consts: consts + carry]), operands[consts + carry:]
    made = [body.aval(v) for v in body.results.tolist()[carry:]]
    ys = [tensor(aval(a.code, (length, *a.shape)), memory.empty(length * a.nbytes)) for a in made]
    for i in reversed(range(length)) if reverse else range(length):
        out = replay_on(device, body, [*common, *state, *(_slice(x, i) for x in xs)])
        state = out[:carry]
        for y, a, t in zip(ys, made, out[carry:], strict=True):
            if a.nbytes:
                stream.driver().copy(y._owner.base, i * a.nbytes, *place(backend.current().moved(t, device)), a.nbytes)
    return [*state, *ys]


def _slice(x: Any, i: int) -> Any:
    """One of the slices along the first axis."""
    have = AVALS[x._aval]
    made = aval(have.code, have.shape[1:])
    if x._data == 0:
        return tensor(made, x._owner, x._number + i * made.nbytes)
    return backend.current().tensor(np.ascontiguousarray(x.numpy()[i]).reshape(made.shape), made)


def _while_loop(device: str, operands: Sequence[Any], condition: Program, stages: Sequence[Any],
                consts: int) -> list[Any]:
    """The first stage runs as long as the condition holds, each later one as often; see `transform.control.whiles`."""
    common, at, rounds = operands[:consts], consts, 0
    left: list[list[Any]] = []
    results: list[Any] = []
    for stage in stages:
        state, ys = list(operands[at: at + stage.carry]), list[Any]()
        at += stage.carry
        if not left:
            while _read(replay_on(device, condition, [*common, *state])[0]):
                out = replay_on(device, stage.body, [*common, *state])
                state = out[: stage.carry]
                ys.append(out[stage.carry:])
            rounds = len(ys)
        else:
            ys = [None] * rounds
            for i in reversed(range(rounds)) if stage.reverse else range(rounds):
                out = replay_on(device, stage.body, [*common, *state, *(left[s][i][y] for s, y in stage.reads)])
                state, ys[i] = out[: stage.carry], out[stage.carry:]
        left.append(ys)
        results += state
    count = aval(INT32, ())
    return [*results, backend.current().tensor(np.array(rounds, np.int32), count)]


_LED: dict[str, Callable[..., list[Any]]] = {"cond": _cond, "scan": _scan, "while_loop": _while_loop}
