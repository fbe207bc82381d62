"""An optimizer's rule as one Program: recorded once, then one machine call a step for all variables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from jitgrad.core.aval import AVALS, Aval
from jitgrad.core.recorder import Recorder
from jitgrad.execute.cpu import layout, types
from jitgrad.execute.cpu.plans import Plan, run_rows
from jitgrad.frontend.log import aside

_recorders = types.STATE[layout.S_RECORDERS // layout.WORD:].data        # [0]: how many threads record on tapes now
_recordings = types.STATE[layout.S_RECORDINGS // layout.WORD:].data      # [0]: how many record functions
_data_of = attrgetter("_data")


class Update:
    """New values of ``state`` (Variables) from their old values, ``read`` (more Variables) and Tensors given.

    ``rule(state, read, given)`` says how, in ops: lists of Tensors in, a list of new values out, one for each of
    ``state``. Nothing of a step is recorded on a tape.
    """

    __slots__ = ("_address", "_avals", "_plan", "_program", "_state", "_variables")

    def __init__(self, rule: Callable[[list[Any], list[Any], list[Any]], Sequence[Any]], state: Sequence[Any],
                 read: Sequence[Any], given: Sequence[Aval]) -> None:
        with Recorder() as recorder:
            inputs = [[recorder.input(AVALS[v._value._aval]) for v in state],
                      [recorder.input(AVALS[v._value._aval]) for v in read], [recorder.input(a) for a in given]]
            program = recorder.program(rule(*inputs))
        self._program = program
        self._plan: Plan | None = None               # made for a step on the CPU
        self._address = 0
        self._state = tuple(state)
        self._variables = (*state, *read)
        self._avals = [a.id for a in given]

    def fits(self, given: Sequence[Any]) -> bool:
        """Whether these are Tensors with numbers, of the avals that the rule was recorded for."""
        try:
            return [t._aval for t in given] == self._avals and all(map(_data_of, given))
        except AttributeError:
            return False

    def step(self, given: Sequence[Any]) -> None:
        """One step, with Tensors of those avals on any device."""
        if any(v._value._data == 0 for v in self._variables) or not all(map(_data_of, given)):
            with aside():
                self._hold(run_rows(self._program, [*(v._held() for v in self._variables), *given]))
            return
        if self._plan is None:
            self._plan = Plan(self._program, range(len(self._program.inputs)))
            self._address = self._plan.address
        self(given)

    def __call__(self, given: Sequence[Any]) -> None:
        """One step, with Tensors that fit, after one by `step` that was the like of it."""
        if _recorders[0] or _recordings[0] or self._plan is None:
            self._watched(given)
            return
        results = types.plan_run(self._address, (*[v._value for v in self._variables], *given))
        for v, value in zip(self._state, results, strict=True):
            types.variable_hold(v, value)

    def _watched(self, given: Sequence[Any]) -> None:
        """A step that the open tapes of this thread do not see, though a function that is recorded does."""
        if self._plan is None:
            self.step(given)
            return
        with aside():
            self._hold(self._plan.run((*[v._held() for v in self._variables], *given)))

    def _hold(self, results: Sequence[Any]) -> None:
        for v, value in zip(self._state, results, strict=True):
            v._hold(value)
