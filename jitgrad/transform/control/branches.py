"""`cond`: one of two Programs runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jitgrad.core.aval import Aval
from jitgrad.core.dtypes import is_float
from jitgrad.core.errors import user_error
from jitgrad.core.primitive import Kind, define
from jitgrad.core.program import Program
from jitgrad.core.record import bind
from jitgrad.core.recorder import Recorder, recorder_for
from jitgrad.ops.batching import Batch
from jitgrad.transform.control.steps import any_draws, chosen, emit, widened
from jitgrad.transform.jvp import jvp
from jitgrad.transform.residuals import results_of, with_results
from jitgrad.transform.tangent import zeros
from jitgrad.transform.vjp import vjp
from jitgrad.transform.vmap import vmap


def cond(pred: Any, operands: Sequence[Any], yes: Program, no: Program) -> tuple[Any, ...]:
    """Results of ``yes`` on the operands where ``pred`` (a bool) holds, else of ``no``."""
    return bind("cond", [pred, *operands], yes=yes, no=no)


def _aval(pred: Aval, *operands: Aval, yes: Program, no: Program) -> tuple[Aval, ...]:
    if pred.code or pred.shape:
        raise user_error(TypeError, f"cond: the condition must be a bool, got {pred!r}")
    for program in (yes, no):
        if [program.aval(v) for v in program.inputs.tolist()] != list(operands):
            raise user_error(TypeError, f"cond: a branch takes other operands than {', '.join(map(repr, operands))}")
    outs = results_of(yes)
    if outs != results_of(no):
        raise user_error(TypeError, f"cond: the branches differ: one gives {', '.join(map(repr, outs))}, the other "
                                    f"{', '.join(map(repr, results_of(no)))}")
    return outs


def _ref(run: Callable[..., Any], pred: np.ndarray, *arrays: np.ndarray, yes: Program, no: Program) -> Any:
    return tuple(run(yes if pred else no, arrays))


def _vjp(g: Any, ans: Any, pred: Any, *operands: Any, yes: Program, no: Program, want: Sequence[int]) -> list[Any]:
    gs = g if isinstance(g, tuple) else (g,)
    live = tuple(i for i, t in enumerate(gs) if t is not None)
    kept, back_yes, back_no = _pulled(yes, no, tuple(k - 1 for k in want if k), live)
    out: list[Any] = [None] * (1 + len(operands))
    if kept:
        given = [*operands, *(gs[i] for i in live)]
        for k, ct in zip(kept, cond(pred, given, back_yes, back_no), strict=True):
            out[1 + k] = ct
    return out


@functools.lru_cache(maxsize=512)
def _pulled(yes: Program, no: Program, want: tuple[int, ...],
            live: tuple[int, ...]) -> tuple[list[int], Program, Program]:
    """Which operands have cotangents, and the branches (operands, cotangents of results) -> those cotangents."""
    want = tuple(k for k in want if is_float(yes.aval(int(yes.inputs[k])).code))
    backs = [vjp(with_results(program, [int(program.results[i]) for i in live]), want) for program in (yes, no)]
    both = [max(pair) >= 0 for pair in zip(*(back.results.tolist() for back in backs), strict=True)]
    kept = [i for i, any_ in enumerate(both) if any_]
    made = [_filled(back, kept, [yes.aval(int(yes.inputs[want[i]])) for i in kept]) for back in backs]
    return [want[i] for i in kept], made[0], made[1]


def _filled(program: Program, kept: Sequence[int], like: Sequence[Aval]) -> Program:
    """Only these results, zeros where the Program has none."""
    recorder = Recorder()
    given = [recorder.input(program.aval(v)) for v in program.inputs.tolist()]
    found = emit(recorder, program, given)
    return recorder.program([zeros(recorder, a) if found[i] is None else found[i]
                             for i, a in zip(kept, like, strict=True)])


def _jvp(ts: Sequence[Any], ans: Any, pred: Any, *operands: Any, yes: Program, no: Program) -> Any:
    given = tuple(k for k, t in enumerate(ts[1:]) if t is not None)
    kept, push_yes, push_no = _pushed(yes, no, given)
    out: list[Any] = [None] * len(yes.results)
    if kept:
        known = [*operands, *(ts[1 + k] for k in given)]
        for r, t in zip(kept, cond(pred, known, push_yes, push_no), strict=True):
            out[r] = t
    return tuple(out) if isinstance(ans, tuple) else out[0]


@functools.lru_cache(maxsize=512)
def _pushed(yes: Program, no: Program, given: tuple[int, ...]) -> tuple[list[int], Program, Program]:
    """Which results have tangents, and the branches (operands, their tangents) -> those tangents."""
    n = len(yes.results)
    both = [with_results(made, made.results[n:].tolist()) for made in (jvp(yes, given), jvp(no, given))]
    kept = [r for r in range(n) if max(made.results[r] for made in both) >= 0]
    like = [yes.aval(int(yes.results[r])) for r in kept]
    return kept, _filled(both[0], kept, like), _filled(both[1], kept, like)


def _batch(batched: Sequence[bool], size: int, pred: Any, *operands: Any, yes: Program, no: Program) -> Batch:
    made = [vmap(program, batched[1:], size) for program in (yes, no)]
    if batched[0]:
        recorder = recorder_for(pred)
        every = (True,) * len(yes.results)
        both = [emit(recorder, _spread(program, flags, every, size), operands) for program, flags in made]
        return tuple(chosen(pred, x, y) for x, y in zip(*both, strict=True)), every
    flags = tuple(map(max, *(flags for _, flags in made)))
    return cond(pred, operands, *(_spread(program, has, flags, size) for program, has in made)), flags


def _spread(program: Program, batched: Sequence[bool], wanted: Sequence[bool], size: int) -> Program:
    """The Program with a batch axis on all results that are to have one."""
    with Recorder() as recorder:
        given = [recorder.input(program.aval(v)) for v in program.inputs.tolist()]
        out = emit(recorder, program, given)
        return recorder.program([widened(t, size) if want and not has else t
                                 for t, has, want in zip(out, batched, wanted, strict=True)])


def _draws(yes: Program, no: Program) -> bool:
    return any_draws(yes, no)


def _cond() -> None:
    """Run one of two Programs, as a bool says."""


define(_cond, name="cond", kind=Kind.HIGHER, vjp=_vjp, aval=_aval, ref=_ref, samples=None,
       operands=("*xs",), params=("yes", "no"), domains=("any",), partial=True, jvp=_jvp, batch=_batch, draws=_draws,
       runner="control")
