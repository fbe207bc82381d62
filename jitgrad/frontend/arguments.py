"""What a call of a recorded function is given, as instructions that recognise the like of it, and as what the
function's own code gets: Tensors for arrays, and Tensors of its own.

An instruction is (name, register, a, b); registers hold the positional arguments, the values of keywords, then what
instructions take out of containers. The machine runs them (see `execute.cpu.functions`).
"""

from __future__ import annotations

import enum
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jitgrad.core import nest
from jitgrad.core.aval import Aval, aval
from jitgrad.core.device import LOOSE
from jitgrad.core.dtypes import CODES
from jitgrad.core.number import number
from jitgrad.core.record import tensor
from jitgrad.core.recorder import is_elsewhere
from jitgrad.execute.cpu.types import Tensor, Variable
from jitgrad.ops import composite

Instruction = tuple[Any, ...]
Path = tuple[Any, ...]                     # where an argument stands: position or name, then keys
_BY_VALUE = (str, bytes, frozenset)
_PARTS = {complex: ("real", "imag"), range: ("start", "stop", "step"), slice: ("start", "stop", "step")}
_SETS = (set, bytearray)
_INT64 = range(-(2**63), 2**63)
_SINGLE = (bool, type(None), type(Ellipsis), type(NotImplemented), enum.Enum)


class Exotic(Exception):
    """A container that only optree takes apart."""


def fits(x: np.ndarray) -> bool:
    """Whether the machine reads an array as it is."""
    return x.dtype in CODES and x.dtype.isnative and x.flags.c_contiguous and x.flags.aligned


def normal(x: Any) -> Any:
    """Arguments as the machine takes them: arrays of other layouts, types or byte orders become Tensors.

    The very same object where nothing is to be done.
    """
    kind = type(x)
    if kind is tuple or kind is list:
        items = [normal(v) for v in x]
        return x if all(a is b for a, b in zip(items, x, strict=True)) else kind(items)
    if kind is dict:
        changed = {key: normal(v) for key, v in x.items()}
        return x if all(changed[key] is v for key, v in x.items()) else changed
    if kind is np.ndarray:
        return x if fits(x) else tensor(x, what="function")
    if isinstance(x, np.ndarray | np.generic):
        return tensor(x, what="function")
    return x


def bytes_in(x: Any) -> int:
    """How large the arrays, Tensors and Variables of a nest of tuples, lists and dicts are."""
    if type(x) is tuple or type(x) is list:
        return sum(map(bytes_in, x))
    if type(x) is dict:
        return sum(map(bytes_in, x.values()))
    return x.size * x.dtype.itemsize if isinstance(x, Tensor | Variable | np.ndarray) else 0


class Arguments:
    """Reads the arguments of one call. ``data(path, kind)`` says of a Python number whether it is data."""

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any], data: Callable[[Path, type], bool],
                 dry: Callable[[Aval], Any] | None = None, twin: Callable[[Any], Any] | None = None) -> None:
        """The function's code gets what ``dry`` makes of avals, or ``twin`` of the Tensors that it would get."""
        self.count = len(args)
        self.names = tuple(kwargs)
        self.instructions: list[Instruction] = []
        self.numbers: dict[Path, Any] = {}           # every Python number met
        self.inputs: list[Any] = []                  # Tensors that the function's code gets
        self.paths: list[Path] = []                  # and where those stand
        self.registers: dict[int, int] = {}          # id of such a Tensor -> register of what it was made of
        self.objects: list[Any] = []                 # known by identity alone,
        self.places: dict[int, int] = {}             # and the registers of those, by id
        self.shapes: dict[Path, int] = {}            # avals of Tensors and arrays
        self._nests: list[tuple[Any, Any, Any]] = []       # lists and dicts, what the function gets, and a copy of that
        self.is_data = data
        self._dry, self._twin = dry, twin
        self._inputs_of: dict[int, int] = {}
        self._arrays: set[int] = set()               # inputs that are of arrays
        self.used = len(args) + len(kwargs)
        self.args = [self._take(i, x, (i,)) for i, x in enumerate(args)]
        self.kwargs = {name: self._take(len(args) + i, x, (name,)) for i, (name, x) in enumerate(kwargs.items())}

    def _more(self, count: int) -> int:
        self.used += count
        return self.used - count

    def _take(self, at: int, x: Any, path: Path) -> Any:
        kind, say = type(x), self.instructions.append
        if kind is Tensor:
            return self._input("placed" if is_elsewhere(x) else "tensor", at, x, composite.identity, path)
        if kind is np.ndarray:
            return self._input("array", at, x, tensor, path)
        if kind is float or kind is int:
            return self._number(at, x, path)
        if kind is tuple or kind is list:
            first = self._more(len(x))
            say((kind.__name__, at, len(x), first))
            return self._nest(x, kind([self._take(first + i, v, (*path, i)) for i, v in enumerate(x)]))
        if kind is dict:
            first = self._more(len(x))
            say(("dict", at, tuple(x), first))
            return self._nest(x, {key: self._take(first + i, v, (*path, key)) for i, (key, v) in enumerate(x.items())})
        if kind in _SETS:
            say(("equal", at, kind(x)))
        elif kind in _PARTS:
            self._parts(at, x, _PARTS[kind])
        elif kind is frozenset and not all(isinstance(item, str | bytes) for item in x):
            say(("is", at, x))                         # equal ones may hold 1, 1.0 and True
        elif kind in _BY_VALUE or isinstance(x, np.dtype):
            say(("equal", at, x))
        elif isinstance(x, _SINGLE) or kind is Variable or isinstance(x, type):
            say(("is", at, x))
        elif (hasattr(kind, "tree_flatten") or isinstance(x, tuple | list | dict)) and nest.flatten(x)[1] is not None:
            raise Exotic
        else:
            held = held_weakly(x)
            say(("is" if held is None else "same", at, x))
            self.objects.append(x)
            self.places[id(x)] = at
        return x

    def _parts(self, at: int, x: Any, names: Sequence[str]) -> None:
        """What looks equal may differ: in the sign of a zero, in types, in the end of a range."""
        for name in ("__class__", *names):
            to, part = self._more(1), getattr(x, name)
            self.instructions.append(("attr", at, name, to))
            if type(part) is float or type(part) is int and part in _INT64:
                self.instructions.append((f"{type(part).__name__}_key", to, part))
            else:
                self.instructions.append(("is", to, part))

    def _nest(self, x: Any, given: Any) -> Any:
        if type(x) is not tuple:
            self._nests.append((x, given, given.copy()))
        return given

    def place(self, moved: Callable[[Any], Any]) -> None:
        """The code gets of arrays what this makes of their Tensors."""
        made = {id(t): moved(t) for k, t in enumerate(self.inputs) if k in self._arrays}
        if made:
            self.args = [_swapped(x, made) for x in self.args]
            self.kwargs = {name: _swapped(x, made) for name, x in self.kwargs.items()}
            self._nests = [(x, given, given.copy()) for x, given, _ in self._nests]

    def changed(self) -> list[tuple[Any, Any]]:
        """The lists and dicts that the function changed, and what it made of them."""
        return [(x, given) for x, given, copy in self._nests if len(given) != len(copy) or any(
            a is not b for a, b in zip(_items(given), _items(copy), strict=True))]

    def hand_back(self) -> None:
        """Let the caller's lists and dicts hold what the function put into them."""
        given = {id(made): x for x, made, _ in self._nests}
        for x, made in self.changed():
            if type(x) is list:
                x[:] = [given.get(id(v), v) for v in made]
            else:
                x.clear()
                x.update((key, given.get(id(v), v)) for key, v in made.items())

    def _input(self, name: str, at: int, x: Any, own: Callable[[Any], Any], path: Path) -> Any:
        known = self._inputs_of.get(id(x))
        if known is None:
            known = self._inputs_of[id(x)] = len(self.inputs)
            if name == "array" or name == "tensor" and x._tracked & LOOSE:
                self._arrays.add(known)
            made = self._dry(aval(CODES[np.dtype(x.dtype)], x.shape)) if self._dry else own(x)
            self._more_inputs(self._twin(made) if self._twin else made, path)
            if name != "array":
                self.registers[id(self.inputs[known])] = at
        self.instructions.append((name, at, known))
        self.shapes[path] = self.inputs[known]._aval
        return self.inputs[known]

    def _more_inputs(self, t: Any, path: Path) -> None:
        self.inputs.append(t)
        self.paths.append(path)

    def _number(self, at: int, x: Any, path: Path) -> Any:
        self.numbers[path] = x
        name = type(x).__name__
        if type(x) is int and x not in _INT64:
            self.instructions.append(("equal", at, x))
        elif not self.is_data(path, type(x)):
            self.instructions.append((f"{name}_key", at, x))
        else:
            made = number(x)
            self.instructions.append((name, at, len(self.inputs)))
            self._more_inputs(made.tensor, path)
            return made
        return x

    def forget(self) -> None:
        """Keeps nothing of the call alive, but for what has no weak references."""
        self.args, self.kwargs, self.objects, self._nests = [], {}, [], []
        self.instructions = [(row[0], row[1], held_weakly(row[2])) if row[0] == "same" else row
                             for row in self.instructions]

    def recipe(self) -> list[Instruction]:
        """The instructions, with the objects themselves."""
        return [(name, at, rest[0]()) if name == "same" else (name, at, *rest) for name, at, *rest in self.instructions]


def held_weakly(x: Any) -> Any:
    """A reference that does not keep an object alive; None where it does not allow that."""
    try:
        return weakref.ref(x)
    except TypeError:
        return None


def _items(x: Any) -> list[Any]:
    return [item for pair in x.items() for item in pair] if type(x) is dict else x


def _swapped(x: Any, made: Mapping[int, Any]) -> Any:
    """An argument with other Tensors; lists and dicts are changed where they are."""
    kind = type(x)
    if kind is list:
        x[:] = [_swapped(v, made) for v in x]
    elif kind is dict:
        x.update({key: _swapped(v, made) for key, v in x.items()})
    elif kind is tuple:
        return tuple(_swapped(v, made) for v in x)
    return made.get(id(x), x)
