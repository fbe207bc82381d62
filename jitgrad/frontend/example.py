"""A call recorded for callers that are not Python: example arguments in, a Program and the shapes of nests out.

Nothing is checked when it runs but the numbers that Python read from Tensors: what else the recording went by is as it
was then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jitgrad.core.aval import Aval
from jitgrad.core.errors import user_error
from jitgrad.core.number import Number
from jitgrad.core.program import Program
from jitgrad.core.record import tensor
from jitgrad.execute.cpu.types import Tensor
from jitgrad.frontend.arguments import Arguments, Exotic, Path, normal
from jitgrad.frontend.traces import Call, NotReplayable, guards_of, simplified, with_singles
from jitgrad.frontend.tracing import Traced, Tracing
from jitgrad.ops import composite

Nest = Any                     # tuples of such, positions among arguments or results, None
_NUMBERS = (bool, int, float, np.ndarray, np.generic)


class Example:
    """A recorded call. The Program's inputs: arguments, then what Variables hold, then arrays that it met."""

    def __init__(self, f: Callable[..., Any], name: str, args: Sequence[Any]) -> None:
        """Raises TypeError for what cannot be recorded so, and what ``f`` raises."""
        self.name = name
        traced = self._traced(f, args) or self._traced(f, args)      # the first call may make Variables that stay
        if traced is None:
            raise user_error(RuntimeError, f"njit: {name} makes Variables in every call")
        wrong = next((a for a in traced.arrays if not a.flags.c_contiguous), None)
        if wrong is not None:
            raise user_error(TypeError, f"njit: {name} reads an array of shape {wrong.shape} that is not contiguous")
        self.variables, self.arrays, self.assigned = traced.variables, traced.arrays, traced.assigned
        self.program: Program = with_singles(simplified(traced.program), self._floats)
        self.guards = [line for line, _ in guards_of(self.program)]

    @property
    def inputs(self) -> list[Aval]:
        """What the arguments are, one after the other."""
        return [self.program.aval(v) for v in self.program.inputs.tolist()[: len(self.places)]]

    @property
    def outputs(self) -> list[Aval]:
        """What the results are."""
        return [self.program.aval(v) for v in self.program.results.tolist()[: self._returned]]

    @property
    def outputs_alone(self) -> list[Aval]:
        """What further results of the Program are, which Variables are to hold."""
        return [self.program.aval(v) for v in self.program.results.tolist()[self._returned:]]

    def _traced(self, f: Callable[..., Any], args: Sequence[Any]) -> Traced | None:
        """One call, after which Variables hold what they held before; None where it made such."""
        call = self._call(f, [_fresh(normal(x)) for x in args])
        try:
            arguments, leaves = call.arguments, list[Any]()
            places: Mapping[Path, int] = {path: i for i, path in enumerate(arguments.paths)}
            self.places = [*arguments.paths]
            self.arguments: list[Nest] = [
                n for i, x in enumerate(args) if (n := _structure(x, (i,), places)) is not _FIXED]
            self.results: Nest = self._answer(call.answer, leaves)
            self._returned = len(leaves)
            self._floats = [row[2] for row in arguments.instructions if row[0] == "float"]
            traced = call.tracing.traced(arguments.inputs, leaves, call._arrays)
            arguments.hand_back()
            return traced
        finally:
            call.tracing.roll_back()

    def _call(self, f: Callable[..., Any], args: Sequence[Any]) -> Call:
        tracing = Tracing()
        try:
            return Call(f, Arguments(args, {}, lambda path, kind: True), tracing)
        except Exotic:
            raise user_error(TypeError, f"njit: {self.name} was given a container that is no tuple, list or dict; pass "
                                        "what is in it") from None
        except NotReplayable as error:
            error.call.tracing.roll_back()
            error.call.tracing.release()
            raise user_error(TypeError, f"njit: {self.name} cannot run without Python: {error}") from None
        except BaseException:
            tracing.roll_back()
            raise

    def _answer(self, x: Any, leaves: list[Any]) -> Nest:
        """Tuples of the numbers of results, which go to ``leaves``."""
        if isinstance(x, tuple | list | dict):
            return tuple(self._answer(v, leaves) for v in (x.values() if isinstance(x, dict) else x))
        if x is None:
            return None
        if type(x) is Number:
            x = x.tensor
        elif isinstance(x, _NUMBERS):
            x = tensor(np.asarray(x))
        if type(x) is not Tensor:
            raise user_error(TypeError, f"njit: {self.name} returns a {type(x).__name__}; return Tensors and numbers, "
                                        "in tuples, lists and dicts")
        leaves.append(x)
        return len(leaves) - 1


_FIXED = object()


def _structure(x: Any, path: Path, places: Mapping[Path, int]) -> Nest:
    """Tuples of the numbers of arguments; _FIXED for what is no number and no array."""
    if path in places:
        return places[path]
    if type(x) is dict:
        items = [_structure(v, (*path, key), places) for key, v in x.items()]
    elif isinstance(x, tuple | list):
        items = [_structure(v, (*path, i), places) for i, v in enumerate(x)]
    else:
        return _FIXED
    return tuple(n for n in items if n is not _FIXED)


def _fresh(x: Any) -> Any:
    """The same with Tensors and arrays of their own: one that is given twice is two arguments."""
    if type(x) is tuple or type(x) is list:
        return type(x)([_fresh(v) for v in x])
    if type(x) is dict:
        return {key: _fresh(v) for key, v in x.items()}
    if type(x) is np.ndarray:
        return x.view()
    return composite.identity(x) if type(x) is Tensor else x
