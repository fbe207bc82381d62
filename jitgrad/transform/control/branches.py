"""`cond`: one of two Programs runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jitgrad.core.aval import Aval
from jitgrad.core.errors import user_error
from jitgrad.core.primitive import Kind, define
from jitgrad.core.program import Program
from jitgrad.core.recorder import Recorder
from jitgrad.transform.control.steps import bind, emit, is_float, results_of, zeros
from jitgrad.transform.vjp import vjp


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
    want = tuple(k for k in want if is_float(yes.aval(int(yes.inputs[k]))))
    backs = [_backward(program, want, live) for program in (yes, no)]
    both = [max(pair) >= 0 for pair in zip(*(back.results.tolist() for back in backs), strict=True)]
    kept = [i for i, any_ in enumerate(both) if any_]
    made = [_filled(back, kept, [yes.aval(int(yes.inputs[want[i]])) for i in kept]) for back in backs]
    return [want[i] for i in kept], made[0], made[1]


def _backward(program: Program, want: Sequence[int], live: Sequence[int]) -> Program:
    seeded = Program(attr=program.attr, first_out=program.first_out, first_operand=program.first_operand,
                     operands=program.operands, avals=program.avals, inputs=program.inputs,
                     constants=program.constants, results=program.results[list(live)])
    return vjp(seeded, want)


def _filled(program: Program, kept: Sequence[int], like: Sequence[Aval]) -> Program:
    """Only these results, zeros where the Program has none."""
    recorder = Recorder()
    given = [recorder.input(program.aval(v)) for v in program.inputs.tolist()]
    found = emit(recorder, program, given)
    return recorder.program([zeros(recorder, a) if found[i] is None else found[i]
                             for i, a in zip(kept, like, strict=True)])


def _cond() -> None:
    """Run one of two Programs, as a bool says."""


define(_cond, name="cond", kind=Kind.HIGHER, vjp=_vjp, aval=_aval, ref=_ref, samples=None,
       operands=("*xs",), params=("yes", "no"), domains=("any",), partial=True, runner="control")
