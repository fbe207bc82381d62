"""Functions that users wrote as Programs of their operands, recorded dry: branches, loop bodies, vmapped functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jitgrad.core import backend, nest
from jitgrad.core.aval import AVALS, Aval
from jitgrad.core.dtypes import BOOL, is_float
from jitgrad.core.program import Program
from jitgrad.core.record import tensor
from jitgrad.core.recorder import Body, active
from jitgrad.transform.control import shared


class Recorded:
    """``f(*args)`` recorded dry, for ``args`` a nest of Tensors of some avals.

    ``results`` are the Tensors among the leaves of what it returned (numbers became Tensors; None stays None and has
    no result). ``inputs`` are the arguments, ``captured`` what the function took from around it.
    """

    def __init__(self, f: Callable[..., Any], structure: Any, avals: Sequence[Aval],
                 like: Sequence[Aval] | None = None) -> None:
        """``like``: avals whose dtypes Python numbers get that are returned first, in these places."""
        with Body() as body:
            self.inputs = [body.input(a) for a in avals]
            self.answer = f(*nest.rebuild(structure, list(self.inputs)))
            self.leaves, self.structure = nest.flatten(self.answer)
            self.results = tensors(self.leaves, like)
            self._held = body.variables
        self.body = body

    @property
    def assigned(self) -> dict[int, Any]:
        """The Variables that it assigned, by id."""
        return self.body.assigned

    def value(self, variable: Any) -> Any:
        """What a Variable holds in the end."""
        held = self._held.get(id(variable))
        return present(variable) if held is None else held[1]

    @property
    def captured(self) -> list[Any]:
        """Complete once `close` has said what the results are."""
        return self.body.captured

    @property
    def avals(self) -> list[Aval]:
        """Of the results."""
        return avals_of(self.results)

    def close(self, results: Sequence[Any]) -> None:
        """These are the results, None for none, which may take more from around."""
        self.results = list(results)
        for t in self.results:
            if t is not None:
                self.body.number(t)

    def program(self, inputs: Sequence[Any]) -> Program:
        """The Program of the results from these inputs: own ones and captured ones, all in any order, maybe others."""
        return shared(self.body.program(self.results, inputs))

    def rebuilt(self, values: Sequence[Any]) -> Any:
        """The nest that the function returned, with these Tensors."""
        given = iter(values)
        return nest.rebuild(self.structure, [None if x is None else next(given) for x in self.leaves])


def present(variable: Any) -> Any:
    """What a Variable holds for the innermost recording; no tape takes note."""
    recording = active()
    return recording.read(variable) if recording else variable._value


def hold(variables: Sequence[Any], values: Sequence[Any]) -> None:
    """Assign what a row said the Variables hold after it."""
    for variable, value in zip(variables, values, strict=True):
        recording = active()
        if recording:
            recording.assign(variable, value)
        else:
            backend.current().assign_now(variable, value)


def union(*lists: Sequence[Any]) -> list[Any]:
    """Tensors (or Variables) of all lists, each once."""
    return list({id(t): t for items in lists for t in items}.values())


_KINDS = (bool, int, float)    # of Python numbers, each of which fits dtypes of its own kind and later ones


def tensors(leaves: Sequence[Any], like: Sequence[Aval] | None) -> list[Any]:
    """Those that are not None, as Tensors; Python numbers among the first get these dtypes if they fit."""
    given, wanted = [x for x in leaves if x is not None], [a.code for a in like or ()]
    codes = [*wanted, *[None] * len(given)][: len(given)]
    return [tensor(x, code if _fits(x, code) else None) for x, code in zip(given, codes, strict=True)]


def _fits(x: Any, code: int | None) -> bool:
    if code is None or type(x) not in _KINDS:
        return False
    return _KINDS.index(type(x)) <= (2 if is_float(code) else int(code != BOOL))


def avals_of(tensors: Sequence[Any]) -> list[Aval]:
    """Their avals."""
    return [AVALS[t._aval] for t in tensors]
