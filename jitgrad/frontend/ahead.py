"""Recording a function without running it: its arguments and Variables are dry Tensors, which have no numbers.

Nothing is computed and no Variable changes, so a plan can be compiled before its first run. Code that goes by a
number cannot be recorded so: `Ahead.refused` tells, and such a call is recorded as it runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jitgrad.core.aval import AVALS, aval
from jitgrad.core.dtypes import code_of
from jitgrad.core.errors import user_error
from jitgrad.core.recorder import Recorder, Recording, is_elsewhere
from jitgrad.execute.cpu import layout
from jitgrad.execute.cpu import types as machine
from jitgrad.execute.cpu.types import Tensor, Variable
from jitgrad.frontend.tracing import Tracing


class DryRows(Recorder):
    """Takes the rows of dry Tensors, and shows all of them to the tape of the recording around it."""

    _tapes = -1                    # all of them

    def __enter__(self) -> Any:
        return Recording.__enter__(self)

    def __exit__(self, *error: object) -> None:
        Recording.__exit__(self, *error)
        self.outer = None              # who holds this one's Tensors, which hold this one


class Ahead(Tracing):
    """See the module."""

    at_once = True

    def __init__(self) -> None:
        super().__init__()
        self._rows: DryRows = DryRows()
        self.input = self._rows.input
        self._held: dict[int, Any] = {}        # id of a Variable -> the Tensor that it would hold by now
        self.refused = False

    def __enter__(self) -> Any:
        super().__enter__()
        self._rows.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._rows.__exit__(*error)
        super().__exit__(*error)

    def read(self, variable: Any) -> Any:
        if id(variable) in self._assigned and variable._flags & (layout.V_TRAINABLE | layout.V_WATCHED):
            self._again[id(variable)] = variable
        return machine.read_note(variable, self.present(variable))

    def assign(self, variable: Any, value: Any) -> None:
        self.present(variable)
        self._assigned[id(variable)] = variable
        self._held[id(variable)] = value

    def _begin(self, variable: Any) -> None:
        dry = self.source(self.twin(variable._value), variable)
        self._first[id(variable)] = (variable, dry)
        self._held[id(variable)] = dry

    def twin(self, own: Any) -> Any:
        """A dry Tensor in the place of one that the code was to get."""
        if is_elsewhere(own):
            self.elsewhere()
        return self.input(AVALS[own._aval])

    def elsewhere(self) -> None:
        self.refused = True            # dry Tensors do not say where their numbers will be
        super().elsewhere()

    def present(self, variable: Any) -> Any:
        if id(variable) not in self._first:
            self._begin(variable)
        return self._held[id(variable)]

    def put_back(self, variable: Any, value: Any) -> None:
        if id(variable) in self._first:
            self._held[id(variable)] = value

    def no_number(self) -> None:
        self.refused = True

    def roll_back(self) -> None:
        """Variables hold what they held."""


def like_tensors(x: Any, made: list[Any]) -> Any:
    """A nest with dry Tensors, which go to ``made`` too, for what has a shape and a dtype and is no array."""
    if type(x) is tuple or type(x) is list:
        return type(x)([like_tensors(v, made) for v in x])
    if type(x) is dict:
        return {key: like_tensors(v, made) for key, v in x.items()}
    if isinstance(x, Tensor | Variable | np.ndarray | np.generic) or not (hasattr(x, "shape") and hasattr(x, "dtype")):
        return x
    if x.shape is None or any(n is None for n in x.shape):
        raise user_error(TypeError, f"warmup: a shape has to be known in full, got {tuple(x.shape or ())}")
    made.append(Recorder().input(aval(code_of(x.dtype), tuple(x.shape))))
    return made[-1]
