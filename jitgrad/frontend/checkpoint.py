"""`checkpoint`: what a function computes inside is not kept, but computed again where a gradient asks for it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jitgrad.core import nest
from jitgrad.core.aval import AVALS
from jitgrad.core.number import Number
from jitgrad.core.program import Program
from jitgrad.core.record import bind, tensor
from jitgrad.core.recorder import Recorder, active, has_numbers
from jitgrad.execute.cpu import layout, library
from jitgrad.execute.cpu import types as machine
from jitgrad.frontend.bodies import Recorded, avals_of, hold
from jitgrad.frontend.log import aside
from jitgrad.frontend.tracing import Tracing
from jitgrad.ops import composite
from jitgrad.transform.control import shared
from jitgrad.transform.recompute import recompute_form


def checkpoint(f: Callable[..., Any]) -> Callable[..., Any]:
    """``f``, of whose intermediate values none is kept for gradients: they are computed again when those are asked for.

    Arguments are nests; Tensors, Variables and arrays among them become operands of one row, and so does what ``f``
    takes from around it. It may use Python control flow, which the second computation does not take anew: it computes
    the same rows. Variables may be read and assigned, and are watched by tapes as usual. Results are Tensors in a nest.

    >>> import jitgrad as jg
    >>> x = jg.constant(2.0)
    >>> with jg.GradientTape() as tape:
    ...     tape.watch(x)
    ...     y = jg.checkpoint(lambda v: jg.exp(jg.sin(v)))(x)
    >>> round(float(tape.gradient(y, x)), 4)
    -1.0331
    """
    @functools.wraps(f)
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        recording = active()
        if recording is None and not machine.get_state(layout.S_RECORDERS):
            return f(*args, **kwargs)
        leaves, structure = nest.flatten((args, kwargs))
        places = [i for i, x in enumerate(leaves) if _is_array(x)]
        operands = [tensor(leaves[i]) for i in places]

        def flat(*given: Any) -> Any:
            filled = list(leaves)
            for i, t in zip(places, given, strict=True):
                filled[i] = t
            inner_args, inner_kwargs = nest.rebuild(structure, filled)
            return f(*inner_args, **inner_kwargs)
        if isinstance(recording, Recorder) or not all(map(has_numbers, operands)):
            return _dry(flat, operands)
        return _concrete(flat, operands)
    return checkpointed


def _is_array(x: Any) -> bool:
    return type(x) is not Number and (hasattr(x, "_aval") or hasattr(x, "_value") or hasattr(x, "__array__"))


def _dry(f: Callable[..., Any], operands: Sequence[Any]) -> Any:
    _, structure = nest.flatten(tuple(range(len(operands))))
    body = Recorded(f, structure, avals_of(operands))
    variables = list(body.assigned.values())
    body.close([*body.results, *map(body.value, variables)])
    program = body.program([*body.inputs, *body.captured])
    given = [*operands, *body.captured]
    outs = bind("recompute", given, program=program) if body.results else ()
    count = len(outs) - len(variables)
    hold(variables, outs[count:])
    return body.rebuilt(outs[:count])


def _concrete(f: Callable[..., Any], operands: Sequence[Any]) -> Any:
    """Runs ``f`` aside from the tapes, and gives them one row for it."""
    with aside():
        own = [composite.identity(t) for t in operands]
        with Tracing() as tracing:
            for t in own:
                tracing.source(t, None)
            answer = f(*own)
            leaves, structure = nest.flatten(answer)
            results = [tensor(x) if _is_array(x) else x for x in leaves]
            tensors = [composite.identity(t) for t in results if _is_array(t)]
        traced = None if tracing.not_replayable else tracing.traced(own, tensors, for_once=True)
    if traced is None or traced.reads_assigned:      # what was assigned is a source of its own to a tape
        tracing.roll_back()
        return f(*operands)
    given, first = dict(zip(traced.arguments, operands, strict=True)), {id(v): t for v, t in tracing.first()}
    inputs = [*(given[i] for i in range(len(given))),
              *(machine.read_note(v, first[id(v)]) for v in traced.variables),      # it may have assigned them since
              *(tensor(a) for a in traced.arrays)]
    program, around = _lifted(traced.program, len(tensors))
    made = recompute_form(program, [*inputs, *around])
    machine.row_note(made.address or library.realise(made), (*inputs, *around), tuple(tensors))
    given_out = iter(tensors)
    return nest.rebuild(structure, [next(given_out) if _is_array(x) else x for x in leaves])


def _lifted(program: Program, count: int) -> tuple[Program, list[Any]]:
    """The Program of its first results with all constants but scalars as further inputs, and those constants."""
    lifted = {v: t for v, t in program.constants.items() if AVALS[t._aval].ndim or t._tracked}
    out = Program(attr=program.attr, first_out=program.first_out, first_operand=program.first_operand,
                  operands=program.operands, avals=program.avals, inputs=np.append(program.inputs, list(lifted)),
                  constants={v: t for v, t in program.constants.items() if v not in lifted},
                  results=program.results[:count])
    return shared(out), list(lifted.values())


recompute_grad = checkpoint
