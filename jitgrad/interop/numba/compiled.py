"""Recorded calls as structs that machine code calls; see `layout.Z_*` and native/foreign.py. Imports no numba."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from jitgrad.core.errors import user_error
from jitgrad.execute.cpu import compiling, layout
from jitgrad.execute.cpu.plans import Plan
from jitgrad.execute.cpu.types import later, peek, poke, variable_pin
from jitgrad.frontend.example import Example
from jitgrad.interop.numba.leaves import LAYOUT, OVERLAPS

_LINE = layout.LINE
AT: WeakValueDictionary[int, Compiled] = WeakValueDictionary()      # by the address of the struct


class Compiled:
    """A recorded call, callable inside `numba.njit` functions and from Python; see `jitgrad.function`'s `njit`."""

    def __init__(self, f: Callable[..., Any], name: str, args: Sequence[Any], out: bool = False) -> None:
        _compiler()                                  # Numba looks for what types need before it meets objects of them
        made = Example(f, name, args)
        self.__name__ = name
        self.example = made
        self.out = out
        self.immortal = False
        self._plan = Plan(made.program, range(len(made.program.inputs)), flat=made.program)
        self._kept: list[Any] = [made.variables, made.arrays, made.assigned]
        self._struct = np.zeros(layout.Z_BYTES // 8, np.int64)
        self.address = int(self._struct.ctypes.data)
        count = len(made.inputs)
        if any(v._value._data == 0 for v in made.variables):
            raise user_error(TypeError, f"{name}: it reads a Variable on a GPU, which machine code of the CPU "
                                        "cannot")
        fixed = [*map(variable_pin, made.variables), *(int(a.ctypes.data) for a in made.arrays)]
        plan = self._plan.address
        compiling.compiled(self._plan)               # else the instructions of the sweep, which are there for good
        code, instructions, arena = (peek(plan + at) for at in (layout.P_CODE, layout.P_CODE_COUNT, layout.P_ARENA))
        constants, given = len(self._plan.constants), len(made.outputs)
        own = made.outputs_alone
        room = np.cumsum([-(-arena // _LINE), *(-(-a.nbytes // _LINE) for a in own)]) * _LINE
        assigned = [word for v, k in made.assigned for word in (id(v), k)]
        for at, value in (
                (layout.Z_RUN, later()["foreign_run"]), (layout.Z_OBJECT, id(self)),
                (layout.Z_SHAPES, self._block([n for a in (*made.inputs, *made.outputs) for n in a.shape])),
                (layout.Z_CODE, code), (layout.Z_COUNT, instructions), (layout.Z_ARENA, room[-1]),
                (layout.Z_WORDS, count + len(fixed) + given + len(own) + constants), (layout.Z_GIVEN, count),
                (layout.Z_FIXED_COUNT, len(fixed)), (layout.Z_FIXED, self._block(fixed)),
                (layout.Z_RESULTS, given), (layout.Z_CONSTANT_COUNT, constants),
                (layout.Z_CONSTANTS, peek(plan + layout.P_CONSTANTS)),
                (layout.Z_OWN_COUNT, len(own)), (layout.Z_OWN, self._block(room[:-1].tolist())),
                (layout.Z_ASSIGNED_COUNT, len(made.assigned)), (layout.Z_ASSIGNED, self._block(assigned)),
                (layout.Z_OUTPUTS, peek(plan + layout.P_OUTPUTS))):
            poke(self.address + at, int(value))
        AT[self.address] = self

    def _block(self, words: Sequence[int]) -> int:
        block = np.array([*words, 0], np.int64)
        self._kept.append(block)
        return int(block.ctypes.data)

    def misfit(self, place: int, axis: int, found: int) -> str:
        """What is wrong with an argument or with memory for a result, as a sentence; see `leaves` for the axis."""
        made = self.example
        if place < len(made.inputs):
            path, aval = made.places[place], made.inputs[place]
            which = f"argument {path[0]}{''.join(f'[{key!r}]' for key in path[1:])}"
        else:
            aval = made.outputs[place - len(made.inputs)]
            which = f"the memory given for result {place - len(made.inputs)}"
        which = f"{self.__name__}: {which}"
        if axis == LAYOUT:
            return f"{which} was recorded as {aval!r} and is not C-contiguous or not aligned"
        if axis == OVERLAPS:
            return f"{which} is that of an argument or of another result"
        return f"{which} was recorded with shape {aval.shape}, but axis {axis} has length {found}"

    def guard(self, instruction: int) -> str:
        """Which guard failed, as a sentence."""
        where = dict(zip(self._plan.guards, self.example.guards, strict=True)).get(instruction, "a line of a loop body")
        return f"{self.__name__}: the number that Python read at {where} is not the one that was recorded"

    def __call__(self, *args: Any) -> Any:
        return _compiler().call(self, args)

    def __repr__(self) -> str:
        return f"<jitgrad njit function {self.__name__}>"


def njit(function: Any, args: Sequence[Any], out: bool = False) -> Compiled:
    """What `fn.njit(*args)` returns."""
    return Compiled(function._impl.f, function._impl.name, args, out)


def _compiler() -> Any:
    """The half that imports numba."""
    return importlib.import_module("jitgrad.interop.numba.calls")
