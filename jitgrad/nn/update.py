"""An optimizer's rule as one Program: recorded once, then one machine call a step for all variables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from jitgrad.core.aval import AVALS, Aval
from jitgrad.core.errors import user_error
from jitgrad.core.record import Recorder, tensor
from jitgrad.execute.cpu import layout, types
from jitgrad.execute.cpu.plans import Plan

_recorders = types.STATE[layout.S_RECORDERS // layout.WORD:].data        # [0]: how many threads record now
_avals_of, _data_of = attrgetter("_aval"), attrgetter("_data")


class Update:
    """New values of ``state`` (Variables) from their old values, ``read`` (more Variables) and Tensors given.

    ``rule(state, read, given)`` says how, in ops: lists of Tensors in, a list of new values out, one for each of
    ``state``. Nothing of a step is recorded on a tape.
    """

    __slots__ = ("_address", "_avals", "_plan", "_state", "_variables")

    def __init__(self, rule: Callable[[list[Any], list[Any], list[Any]], Sequence[Any]], state: Sequence[Any],
                 read: Sequence[Any], given: Sequence[Aval]) -> None:
        recorder = Recorder()
        inputs = [[recorder.input(AVALS[v._value._aval]) for v in state],
                  [recorder.input(AVALS[v._value._aval]) for v in read], [recorder.input(a) for a in given]]
        program = recorder.program(rule(*inputs))
        self._plan = Plan(program, range(len(program.inputs)))
        self._address = self._plan.address
        self._state = tuple(state)
        self._variables = (*state, *read)
        self._avals = [a.id for a in given]

    def __call__(self, given: Sequence[Any]) -> None:
        """One step."""
        try:
            fits = list(map(_avals_of, given)) == self._avals and 0 not in map(_data_of, given)
        except AttributeError:
            fits = False
        if not fits:
            given = [_fitted(t, AVALS[i]) for t, i in zip(given, self._avals, strict=True)]
        values = (*[v._value for v in self._variables], *given)
        results = types.plan_run(self._address, values) if not _recorders[0] else _unrecorded(self._address, values)
        for v, value in zip(self._state, results, strict=True):
            v._value = value
            v._epoch = 0


def _unrecorded(address: int, values: tuple[Any, ...]) -> list[Any]:
    """A run of a plan that the open tapes of this thread do not see."""
    tapes = types.open_tapes(types.thread_log())
    for tape in tapes:
        types.tape_stop(tape)
    try:
        results: list[Any] = types.plan_run(address, values)
    finally:
        for tape in reversed(tapes):
            types.tape_start(tape)
    return results


def _fitted(given: Any, want: Aval) -> Any:
    """A gradient as a Tensor of its variable's shape and dtype."""
    made = tensor(given, want.code, "apply_gradients")
    if made.shape != want.shape:
        raise user_error(ValueError, f"apply_gradients: a gradient of shape {made.shape} does not fit its variable of "
                                     f"shape {want.shape}")
    if made._data == 0:
        raise user_error(TypeError, "apply_gradients: a gradient of a dry recording has no numbers to apply")
    return made
