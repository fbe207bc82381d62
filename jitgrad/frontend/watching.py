"""Which Facts a recording relies on: watches the Python functions that run on this thread while it is made.

Each path of a function's bytecode becomes a Fact when the function first runs, or runs on a new object, with the value
found *before* its body: what the body changes must make the next call record again. A value whose path cannot be seen
(an element of a loop, the result of a call) is still caught: attributes that code reads from such values are followed
in every object that the recording met.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from functools import partial
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any, TypeVar

import numpy as np

from jitgrad.core.errors import PACKAGE
from jitgrad.frontend import facts as f
from jitgrad.frontend.paths import ARGUMENT, ATTRIBUTE, FREE, GLOBAL, Step, paths_of
from jitgrad.frontend.trusted import generated, trusted, user_file

MOST_FACTS = 10_000
Steps = tuple[Step, ...]
T = TypeVar("T", bound=type)


class TooManyFacts(Exception):
    """A recording relies on more names and attributes than a replay could look at."""


_versioned: tuple[type, ...] = ()


def versioned(kind: T) -> T:
    """Class decorator: objects of the class tell by a version of their own when they change; `Watch.versioned`."""
    global _versioned
    _versioned = (*_versioned, kind)
    return kind


class _Reads:
    """The paths of one code object, by where they start, and on what it ran so far."""

    def __init__(self, code: CodeType, paths: bool = True) -> None:
        self.code = code
        self.arguments: dict[str, list[Steps]] = {}
        self.free: dict[str, list[Steps]] = {}
        self.globals: list[tuple[str, Steps]] = []
        self.loose: list[Steps] = []
        self.first = code.co_varnames[0] if code.co_argcount else None
        if self.first is not None:
            self.arguments[self.first] = []
        for root, name, steps in paths_of(code) if paths else ():
            if root == GLOBAL:
                self.globals.append((name, steps))
            elif root in (ARGUMENT, FREE):
                (self.arguments if root == ARGUMENT else self.free).setdefault(name, []).append(steps)
            else:
                self.loose.append(steps)
        self.seen: dict[int, Any] = {}                   # id of an argument -> reference
        self.closures: dict[tuple[int, ...], Any] = {}   # ids of the free variables' values -> the values


_UNTOLD = frozenset((*f.CONSTANTS, *f.ARRAYS))       # arguments that are nobody's root: the caller's key has them
_NESTS = (list, tuple, dict)
_PLAIN = (FunctionType, BuiltinFunctionType)
_FUNCTION = Step(ATTRIBUTE, "__func__")


class Watch:
    """Context manager: what runs on this thread inside it is watched; `facts` and `versioned` tell afterwards.

    ``function`` is what is being recorded. A profile function that was set (`sys.setprofile`) is called as before and
    stands again afterwards.
    """

    def __init__(self, function: Any) -> None:
        self.versioned: list[Any] = []
        self.held: dict[int, tuple[Any, Any]] = {}       # Tensors, arrays with copies
        self._facts: dict[tuple[Any, ...], f.Fact] = {}
        self._full = False
        self._chained: set[tuple[Any, ...]] = set()
        self._reads: dict[int, _Reads | None] = {}       # by id of the code; None: nothing to look at
        self._codes: list[CodeType] = []                 # keeps those ids
        self._nested: set[int] = set()
        self._known: dict[int, list[FunctionType]] = {}  # functions that were met, by id of their code
        self._objects: dict[int, tuple[f.Object, int]] = {}
        self._made: set[int] = set()                     # serial numbers of objects made by the recording
        self._loose: dict[Steps, None] = {}
        self._classes: dict[int, dict[int, list[tuple[type, str, Any]]]] = {}
        self._serial = 0
        self._meet(function)

    def __enter__(self) -> Watch:
        self._before = sys.getprofile()
        self._profile = self._watcher(self._before if callable(self._before) else None)
        self._floor: FrameType | None = sys._getframe(1)
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *raised: Any) -> None:
        if sys.getprofile() is self._profile:          # else the user set another one meanwhile
            if self._before is None or callable(self._before):
                sys.setprofile(self._before)
            else:
                sys.setprofile(None)
                self._before.enable()                    # cProfile's, which is no Python function
        del self._profile
        self._floor = None

    def facts(self) -> list[f.Fact]:
        """The Facts in the order in which they were met. Raises TooManyFacts above 10,000."""
        for code in self._codes:
            for function in self._known.get(id(code), ()) if self._reads[id(code)] is not None else ():
                self._function(function)
        if self._full:
            raise TooManyFacts(f"more than {MOST_FACTS} names and attributes")
        return [fact for key, fact in self._facts.items() if not self._gone(key, fact)]

    def _gone(self, key: tuple[Any, ...], fact: f.Fact) -> bool:
        """Whether a Fact is about an object that came and went with the recording."""
        root = fact.root
        if not isinstance(root, f.Object):
            return False
        if isinstance(root.ref, f.Strong):
            return key[1] in self._made or sys.getrefcount(root.ref.held) <= 2
        return key[1] in self._made or root.ref() is None

    # ---- what runs ----

    def _watcher(self, before: Any) -> Any:
        """The profile function."""
        table, first, call = self._reads, self._first, self._call

        def watch(frame: FrameType, event: str, arg: Any) -> None:
            if event == "call":
                reads = table.get(id(frame.f_code), table)
                if reads is table:
                    reads = first(frame)
                if reads is not None:
                    call(reads, frame)          # type: ignore[arg-type]

        def chained(frame: FrameType, event: str, arg: Any) -> None:
            watch(frame, event, arg)
            before(frame, event, arg)

        return watch if before is None else chained

    def _first(self, frame: FrameType) -> _Reads | None:
        """A code object runs for the first time; what an import runs is done once, and is not noted."""
        code = frame.f_code
        if self._importing(frame):
            return None
        self._codes.append(code)
        user = user_file(code.co_filename) and not generated(frame)
        self._reads[id(code)] = None
        if not user:
            if not _own(code, frame):
                return None
            self._reads[id(code)] = reads = _Reads(code, paths=False)
            return reads
        self._nested.update(id(const) for const in code.co_consts if isinstance(const, CodeType))
        self._reads[id(code)] = reads = _Reads(code)
        for steps in reads.loose:
            self._loosen(steps)
        for name, steps in reads.globals:
            root = f.Global(frame.f_globals, name)
            self._chain(root, (id(frame.f_globals), name), steps)
        return reads

    def _importing(self, frame: FrameType | None) -> bool:
        """Whether a frame runs inside an import that the recording started."""
        while frame is not None and frame is not self._floor:
            if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
                return True
            frame = frame.f_back
        return False

    def _call(self, reads: _Reads, frame: FrameType) -> None:
        """A function runs: note the arguments and free variables that it did not run on before."""
        if not reads.arguments and not reads.free:
            return
        local, seen = frame.f_locals, reads.seen
        for name, chains in reads.arguments.items():
            value = local.get(name)
            if type(value) not in _UNTOLD:
                ref = seen.get(id(value))
                if ref is None or ref() is not value:
                    self._argument(reads, name, value, chains)
        if reads.free and (id(reads.code) in self._known or id(reads.code) not in self._nested):
            values = [local.get(name, f.MISSING) for name in reads.code.co_freevars]
            key = tuple(map(id, values))
            if key not in reads.closures:
                self._closure(reads, key, values)

    def _argument(self, reads: _Reads, name: str, value: Any, chains: list[Steps]) -> None:
        """A new value of an argument: paths start from it, or from the objects inside a list, tuple or dict."""
        if issubclass(type(value), _NESTS):
            if name == reads.first:
                self._method(reads.code, value)
            for steps in chains:
                self._through(value, steps)
            return
        reads.seen[id(value)] = f.reference(value)
        made = name == reads.first and reads.code.co_name == "__init__" and not self._has_met(value)
        self._meet(value)
        if not self._has_met(value):
            return
        root, serial = self._objects[id(value)]
        if root.name.startswith("<"):
            root.name = name
        if made:
            self._made.add(serial)
        if name == reads.first:
            self._method(reads.code, value)
        for steps in chains:
            self._chain(root, (0, serial), steps)

    def _through(self, value: Any, steps: Steps) -> None:
        """A path from an argument that is a list, tuple or dict, made for the call perhaps: what holds it is followed
        elsewhere, and the path starts at the first object inside."""
        self._loosen(steps)
        for n, step in enumerate(steps):
            value, _ = f.read(value, step)
            if not issubclass(type(value), _NESTS):
                if value is not f.MISSING and value is not f.LIVE and type(value) not in _UNTOLD:
                    self._meet(value)
                    self._loosen(steps[n + 1:])
                return

    def _closure(self, reads: _Reads, key: tuple[int, ...], values: list[Any]) -> None:
        """A function with free variables runs: which one is it? (One that the recording made is not asked about.)"""
        code = reads.code
        functions = self._known.get(id(code))
        if functions is None:
            functions = self._known[id(code)] = [
                found for found in gc.get_referrers(code) if type(found) is FunctionType and found.__code__ is code]
        reads.closures[key] = values
        for function in functions:
            cells = [f.Cell(*pair) for pair in zip(function.__closure__ or (), code.co_freevars, strict=False)]
            if all(cell.value() is value for cell, value in zip(cells, values, strict=True)):
                for cell in cells:
                    for steps in reads.free.get(cell.name, ()):
                        self._chain(cell, (1, id(cell.cell)), steps)

    def _method(self, code: CodeType, value: Any) -> None:
        """The class of a first argument may hold the function that runs: by any name, and by way of a property."""
        kinds = (type(value), value) if issubclass(type(value), type) else (type(value),)
        for kind in kinds:
            for base, name, held in self._functions(kind).get(id(code), ()):
                at = kind if f.in_class(kind, name) is held else base
                root, serial = self._object(at, at.__qualname__)
                self._chain(root, (0, serial), (Step(ATTRIBUTE, name),))
                if kind is type(value):
                    root, serial = self._object(value, "self")
                    self._chain(root, (0, serial), (Step(ATTRIBUTE, "__class__"),))

    def _functions(self, kind: type) -> dict[int, list[tuple[type, str, Any]]]:
        """Where a user's class holds which code, by the code's id."""
        found = self._classes.get(id(kind))
        if found is None:
            found = self._classes[id(kind)] = {}
            self._object(kind, kind.__qualname__)
            for base in type.__dict__["__mro__"].__get__(kind):
                for name, held in () if trusted(base) else tuple(vars(base).items()):
                    for function in f.functions_in(held):
                        self._follow(function)
                        found.setdefault(id(function.__code__), []).append((base, name, held))
        return found

    # ---- what is met ----

    def _object(self, value: Any, name: str) -> tuple[f.Object, int]:
        """The one root for an object, and its serial number, which unlike its address is not used again."""
        found = self._objects.get(id(value))
        if found is None or found[0].value() is not value:
            self._serial += 1
            found = self._objects[id(value)] = f.Object(value, name), self._serial
        return found

    def _has_met(self, value: Any) -> bool:
        known = self._objects.get(id(value))
        return known is not None and known[0].value() is value

    def _meet(self, value: Any) -> None:
        """An object is reached: it may be called, and attributes may be read from it in ways that cannot be seen."""
        kind = type(value)
        if kind is FunctionType:
            self._follow(value)
        if kind in f.ARRAYS and id(value) not in self.held:
            self.held[id(value)] = value, value.copy() if kind is np.ndarray else None
        if kind in _UNTOLD or kind in _PLAIN or self._has_met(value):
            return
        if issubclass(kind, (type, ModuleType)) and trusted(value):
            return
        if issubclass(kind, _versioned):
            self.versioned.append(value)
        root, serial = self._object(value, f"<{kind.__qualname__}>")
        for inner in _callables(value):
            self._meet(inner)
        if kind is partial:
            self._chain(root, (0, serial), (Step(ATTRIBUTE, "keywords"),))
        for steps in tuple(self._loose):
            self._loosely(value, root, serial, steps)

    def _follow(self, function: FunctionType) -> None:
        known = self._known.setdefault(id(function.__code__), [])
        if not any(function is other for other in known):
            known.append(function)
            for value in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
                f.expectation(value, self._meet)

    def _function(self, function: FunctionType) -> None:
        """A function that ran is told by more than its identity."""
        root, serial = self._object(function, function.__qualname__)
        for name in ("__code__", "__defaults__", "__kwdefaults__"):
            value = getattr(function, name)
            if value is not None:
                self._fact(root, (0, serial), (Step(ATTRIBUTE, name),), value)

    def _loosen(self, steps: Steps) -> None:
        """Steps that start at a value that cannot be seen: they are taken from every object met. So are the later ones,
        for the value may be one that the recording made around an older object."""
        while steps and steps not in self._loose:
            self._loose[steps] = None
            for root, serial in tuple(self._objects.values()):
                value = root.value()
                if value is not f.MISSING:
                    self._loosely(value, root, serial, steps)
            steps = steps[1:]

    def _loosely(self, value: Any, root: f.Object, serial: int, steps: Steps) -> None:
        found, _ = f.read(value, steps[0])
        if found is not f.MISSING and found is not f.LIVE:
            self._chain(root, (0, serial), steps)

    # ---- Facts ----

    def _chain(self, root: f.Root, key: tuple[Any, ...], steps: Steps) -> None:
        """The Facts of one path: where it ends, and the object to which a function on the way is bound."""
        if (key, steps) in self._chained:
            return
        self._chained.add((key, steps))
        if type(root) is f.Object and key[1] in self._made:
            self._loosen(steps[1:])
            return None
        value, taken = root.value(), 0
        if value is f.MISSING:
            return None
        for step in steps:
            if _closed(value):
                break
            then, whole = f.read(value, step)
            if then is f.MISSING:
                return self._fact(root, key, steps[:taken + 1], then)
            if then is f.LIVE:
                self._loosen(steps[taken + 1:])
                break
            if not whole:
                self._fact(root, key, steps[:taken], value)
                self._fact(root, key, (*steps[:taken + 1], _FUNCTION), then)
                return None
            value, taken = then, taken + 1
        return self._fact(root, key, steps[:taken], value)

    def _fact(self, root: f.Root, key: tuple[Any, ...], steps: Steps, value: Any) -> None:
        if (*key, steps) in self._facts or not steps and isinstance(root, f.Object):
            return
        if steps and steps[-1] is _FUNCTION and type(value) is not FunctionType:
            return                           # of a built-in type, which does not change
        if len(self._facts) >= MOST_FACTS:
            self._full = True
            return
        expected = f.Absent() if value is f.MISSING else f.expectation(value, self._meet)
        self._facts[(*key, steps)] = f.Fact(root, steps, expected)


def _own(code: CodeType, frame: FrameType) -> bool:
    """Whether code of the package runs as a method of an object with a version."""
    return bool(_versioned and code.co_argcount and code.co_filename.startswith(PACKAGE)
                and issubclass(type(frame.f_locals.get(code.co_varnames[0])), _versioned))


def _callables(value: Any) -> Iterator[Any]:
    """What runs, or is handed on, when a wrapper of the language is called."""
    yield from f.functions_in(value)
    if type(value) is MethodType:
        yield value.__self__
    while type(value) is partial:
        yield from (*value.args, *value.keywords.values())
        value = value.func
        yield value


def _closed(value: Any) -> bool:
    """Whether steps from a value need no Facts: numbers, arrays, and what is taken never to change."""
    return type(value) in _UNTOLD or issubclass(type(value), (type, ModuleType)) and trusted(value)
