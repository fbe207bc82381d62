"""Functions of traces made by hand, for tests of the machine's way in."""

from __future__ import annotations

import numpy as np

import jitgrad as jg
from jitgrad.core.aval import aval
from jitgrad.core.dtypes import FLOAT32, FLOAT64, INT64
from jitgrad.core.primitive import OPS
from jitgrad.core.recorder import Recorder
from jitgrad.execute.cpu import functions, layout, types
from jitgrad.execute.cpu.function_type import Function
from jitgrad.execute.cpu.plans import Plan

F32, F64, I64 = FLOAT32, FLOAT64, INT64
UP, DOWN = np.array([1.0, 2.0, 3.0]), np.array([-1.0, 2.0, -3.0])


def program(avals, body):
    """The Program of a function of dry Tensors; avals as (dtype code, shape)."""
    recorder = Recorder()
    made = body(*(recorder.input(aval(*a)) for a in avals))
    return recorder.program(made if isinstance(made, list) else [made])


def plan(avals, body):
    return Plan(program(avals, body), range(len(avals)))


def trace(avals, body, recipe, **fields):
    """By default as many positional arguments as inputs, and the one result as the answer."""
    fields = {"positional": len(avals), "answer": [("result", 0)], **fields}
    return functions.Trace(plan(avals, body), recipe, **fields)


def branch(sign, scale, recipe, **fields):
    """x * scale, if the sign of its sum is this."""
    def body(x):
        OPS["guard"](jg.sum(x) > 0.0, jg.constant(sign))
        return x * scale
    return trace([(F64, (3,))], body, recipe, **fields)


def recorded(avals, body, recipe, residuals=None, **fields):
    """A trace that tapes record; with ``residuals`` the tape's plan has results more."""
    made = trace(avals, body, recipe, **fields)
    wider = body if residuals is None else lambda *xs: [*_listed(body(*xs)), *residuals(*xs)]
    made.record_with(Plan(program(avals, wider), range(len(avals))))
    return made


def _listed(x):
    return x if isinstance(x, list) else [x]


def function(*traces):
    """A Function of these traces that says when Python had to act."""
    f = Function()
    f._slow = lambda *args, **kwargs: ("slow", args, kwargs)
    f._failed = lambda address, guard, *args, **kwargs: ("failed", address, guard, args, kwargs)
    functions.install(f, traces)
    return f


def is_slow(answer):
    return type(answer) is tuple and len(answer) == 3 and answer[0] == "slow"


def installed(f):
    """Addresses of the traces that the machine tries, the one that matched last in front."""
    at = id(f)
    return [types.peek(at + layout.N_TRACES + layout.WORD * i) for i in range(types.peek(at + layout.N_COUNT))]
