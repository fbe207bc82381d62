"""What a recording relied on outside its arguments: a Fact says which value a path must still lead to.

A Fact is read without running anybody's Python code (so by `type`, not by `isinstance`, which asks `__class__`):
instance dicts, slots, class and module dicts, lists, tuples and dicts are looked into; a property, or a `__getattr__`,
is a function that ran, whose own reads are Facts.
"""

from __future__ import annotations

import struct
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache, partial
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    FunctionType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    SimpleNamespace,
    WrapperDescriptorType,
)
from typing import Any, NamedTuple

import numpy as np

from jitgrad.execute.cpu.types import Tensor, Variable
from jitgrad.frontend.paths import ATTRIBUTE, Step

MOST_LEAVES = 256            # of a list or dict that is compared whole: an entry to a function reads them all
MISSING: Any = type("Missing", (), {"__repr__": lambda self: "MISSING"})()
LIVE: Any = type("Live", (), {"__repr__": lambda self: "LIVE"})()      # what Python code would have to tell
ARRAYS = (Tensor, Variable, np.ndarray)
CONSTANTS = frozenset((int, bool, str, bytes, type(None), float, complex))
SETS = (set, frozenset, bytearray)
FIRST_ITEMS = type(NamedTuple("_Pair", [("first", Any)]).first)       # type: ignore[attr-defined]  # of named tuples
PLAIN_DESCRIPTORS = (FunctionType, BuiltinFunctionType, ClassMethodDescriptorType, MethodDescriptorType, MethodType,
                     MethodWrapperType, WrapperDescriptorType)
ITSELF = (property, cached_property, type(lru_cache(id)))     # what a class attribute is when read from the class
_OF_FUNCTIONS = ("__code__", "__defaults__", "__kwdefaults__")


# ---- roots ---------------------------------------------------------------------------------------

class Global:
    """A name of a module's namespace, or of the builtins where the module has none."""

    __slots__ = ("name", "namespace")

    def __init__(self, namespace: dict[str, Any], name: str) -> None:
        self.namespace, self.name = namespace, name

    def value(self) -> Any:
        found = self.namespace.get(self.name, MISSING)
        if found is MISSING:
            builtins = self.namespace.get("__builtins__", MISSING)
            found = (builtins if type(builtins) is dict else vars(builtins)).get(self.name, MISSING) \
                if builtins is not MISSING else MISSING
        return found


class Cell:
    """A free variable."""

    __slots__ = ("cell", "name")

    def __init__(self, cell: Any, name: str) -> None:
        self.cell, self.name = cell, name

    def value(self) -> Any:
        try:
            return self.cell.cell_contents
        except ValueError:
            return MISSING


class Object:
    """An object that the recording met, held weakly if it allows that; ``name`` is what errors call it."""

    __slots__ = ("name", "ref")

    def __init__(self, value: Any, name: str) -> None:
        self.ref, self.name = reference(value), name

    def value(self) -> Any:
        found = self.ref()
        return MISSING if found is None else found


Root = Global | Cell | Object


class Strong:
    """Stands in for a weak reference to what cannot be referred to weakly."""

    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held

    def __call__(self) -> Any:
        return self.held


def reference(value: Any) -> Callable[[], Any]:
    """A weak reference, or a strong one of the same look; None comes back from a dead one."""
    try:
        return weakref.ref(value)
    except TypeError:
        return Strong(value)


# ---- what must hold ------------------------------------------------------------------------------

class Constant(NamedTuple):
    """An equal value of the same type; floats by their bits. A set or bytearray is a copy."""

    value: Any


class Identical(NamedTuple):
    """The same object; a dead reference holds for nothing."""

    ref: Callable[[], Any]


class Members(NamedTuple):
    """A list, tuple or dict, of exactly this type, with these keys in this order (None: no dict) and these members."""

    kind: type
    keys: tuple[Any, ...] | None
    members: tuple[Expected, ...]


class Absent(NamedTuple):
    """Nothing: the last step leads nowhere, as when a layer makes its weights in its first call."""


Expected = Constant | Identical | Members


class Fact(NamedTuple):
    """From ``root``, the ``steps`` lead to what is ``expected``."""

    root: Root
    steps: tuple[Step, ...]
    expected: Expected | Absent


def expectation(value: Any, met: Callable[[Any], None]) -> Expected:
    """What to expect of a value; ``met`` is called with every object in it that is held by identity."""
    expected = _expected(value, met, [MOST_LEAVES], ())
    if expected is None:
        for member in _contents(value)[1]:
            met(member)
        return _identical(value, met)
    return expected


def _expected(value: Any, met: Callable[[Any], None], room: list[int], outer: tuple[int, ...]) -> Expected | None:
    """The same, or None when there is more to compare than there is room for."""
    kind = type(value)
    room[0] -= 1
    if kind in CONSTANTS:
        return Constant(value)
    if kind in SETS and all(type(item) in CONSTANTS for item in value):
        return Constant(kind(value))
    if not issubclass(kind, (list, tuple, dict)) or id(value) in outer:
        return _identical(value, met)
    if kind not in (list, tuple, dict):
        if not issubclass(kind, tuple):
            return _identical(value, met)
        met(value)                       # it may have attributes too
    keys, members = _contents(value)
    if len(members) > room[0] or keys is not None and not all(map(constant, keys)):
        return None
    inner, expected = (*outer, id(value)), []
    for member in members:
        one = _expected(member, met, room, inner)
        if one is None or room[0] < 0:
            return None
        expected.append(one)
    return Members(kind, keys, tuple(expected))


def _identical(value: Any, met: Callable[[Any], None]) -> Identical:
    met(value)
    return Identical(reference(value))


def _contents(value: Any) -> tuple[tuple[Any, ...] | None, tuple[Any, ...]]:
    """Keys and members, read past whatever a subclass overrides."""
    if isinstance(value, dict):
        return tuple(dict.keys(value)), tuple(dict.values(value))
    return None, tuple((list if isinstance(value, list) else tuple).__iter__(value))


def constant(key: Any) -> bool:
    """Whether a key of a dict is compared by value: a constant, or a tuple of them."""
    return type(key) in CONSTANTS or type(key) is tuple and all(map(constant, key))


def meets(expected: Expected | Absent, value: Any) -> bool:
    """Whether a value is what was expected."""
    if isinstance(expected, Constant):
        return _same(expected.value, value)
    if isinstance(expected, Absent):
        return False
    if isinstance(expected, Identical):
        return value is not None and expected.ref() is value
    if type(value) is not expected.kind:
        return False
    keys, members = _contents(value)
    return len(members) == len(expected.members) and (keys is None or _same(expected.keys, keys)) and \
        all(map(meets, expected.members, members))


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if type(a) is float:
        return struct.pack("d", a) == struct.pack("d", b)
    if type(a) is complex:
        return struct.pack("dd", a.real, a.imag) == struct.pack("dd", b.real, b.imag)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b


# ---- reading -------------------------------------------------------------------------------------

def read(value: Any, step: Step) -> tuple[Any, bool]:
    """Where a step leads without running Python code, and whether that is all there is to know.

    The second is False for a function that gets bound, for which what it is bound to counts too: the step leads to a
    new method, and one more, `__func__`, to the function. MISSING where the step leads nowhere, LIVE where it leads
    through code.
    """
    if step.kind == ATTRIBUTE:
        return read_attribute(value, step.key)
    kind, key = type(value), step.key
    base: Any = next((base for base in (dict, list, tuple) if issubclass(kind, base)), None)
    if base is None or in_class(kind, "__getitem__") is not base.__dict__["__getitem__"]:
        return LIVE, True
    if base is dict:
        found = dict.get(value, key, MISSING)
        return (LIVE if found is MISSING and in_class(kind, "__missing__") is not MISSING else found), True
    size = base.__len__(value)
    inside = isinstance(key, int) and -size <= key < size
    return (base.__getitem__(value, key) if inside else MISSING), True


def in_class(kind: type, name: str) -> Any:
    """What a class holds under a name, itself or by inheritance."""
    for base in type.__dict__["__mro__"].__get__(kind):
        found = type.__dict__["__dict__"].__get__(base).get(name, MISSING)
        if found is not MISSING:
            return found
    return MISSING


def read_attribute(value: Any, name: str) -> tuple[Any, bool]:
    """`read` for an attribute."""
    kind = type(value)
    if name == "__class__":
        return kind, True
    if kind is FunctionType and name == "__func__":
        return value, True               # of the method that the function was bound to
    if issubclass(kind, ModuleType):
        found = instance_dict(value).get(name, MISSING)
        return (LIVE if found is MISSING and "__getattr__" in instance_dict(value) else found), True
    if issubclass(kind, type):
        found = in_class(value, name)
        return (found, True) if isinstance(found, ITSELF) else _found(found, kind is not type, bound=False)
    if kind is FunctionType and name in _OF_FUNCTIONS:
        return getattr(value, name), True
    held = in_class(kind, name)
    if kind not in (FunctionType, partial) and in_class(kind, "__getattribute__") not in _LOOKING:
        return LIVE, True
    if isinstance(held, (MemberDescriptorType, FIRST_ITEMS)):
        try:
            return held.__get__(value, kind), True
        except AttributeError:
            return MISSING, True
    if held is not MISSING and hasattr(type(held), "__set__"):
        return LIVE, True
    found = instance_dict(value).get(name, MISSING)
    if found is not MISSING:
        return found, True
    return _found(held, in_class(kind, "__getattr__") is not MISSING)


_LOOKING = (object.__dict__["__getattribute__"], SimpleNamespace.__getattribute__)


def _found(found: Any, asks: bool, bound: bool = True) -> tuple[Any, bool]:
    """What a class or module holds: as it is, as the function that is bound, or LIVE behind a descriptor that runs
    something; ``asks``: whether code is asked for what it does not hold."""
    if found is MISSING:
        return (LIVE if asks else MISSING), True
    if isinstance(found, staticmethod):
        return found.__func__, True
    if isinstance(found, classmethod):
        return found.__func__, False
    if isinstance(found, PLAIN_DESCRIPTORS):
        return found, not bound
    return (LIVE if hasattr(type(found), "__get__") else found), True


def instance_dict(value: Any) -> dict[str, Any]:
    """The attributes that an object itself holds."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found if isinstance(found, dict) else {}


def functions_in(value: Any) -> Iterator[FunctionType]:
    """The Python functions that a callable, a descriptor or a wrapper made by the standard library runs."""
    for _ in range(64):                   # a chain of wrappers may close on itself
        kind = type(value)
        if kind is FunctionType:
            yield value
            return
        if issubclass(kind, property):
            for part in (value.fget, value.fset, value.fdel):
                yield from functions_in(part)
            return
        if issubclass(kind, (staticmethod, classmethod, MethodType)):
            value = value.__func__
        elif issubclass(kind, (partial, cached_property)):
            value = value.func
        else:                             # functools.lru_cache, singledispatch and their like
            value = instance_dict(value).get("__wrapped__")


# ---- at entry and for errors ---------------------------------------------------------------------

def holds(fact: Fact) -> bool:
    """Whether a Fact is still true. One about an object that is gone is: nothing can read from it any more."""
    value = value_at(fact.root, fact.steps)
    if value is MISSING and type(fact.expected) is Absent:
        return value_at(fact.root, fact.steps[:-1]) is not MISSING
    if value is MISSING:
        return type(fact.root) is Object and fact.root.value() is MISSING
    return value is not LIVE and meets(fact.expected, value)


def value_at(root: Root, steps: Sequence[Step]) -> Any:
    """Where a path leads now: MISSING where it ends before."""
    value = root.value()
    for step in steps:
        if value is MISSING or value is LIVE:
            return value
        value, _ = read(value, step)
    return value


def describe(fact: Fact) -> str:
    """The name that a Fact is about, as a user would say it: "the global `rate` of mymodule"."""
    root, steps = fact.root, fact.steps
    if isinstance(root, Object) and len(steps) == 1 and steps[0].key == "__code__":
        return f"the code of `{root.name}`"
    steps = steps[:-1] if steps and steps[-1].key == "__func__" else steps
    path = "".join(f".{step.key}" if step.kind == ATTRIBUTE else f"[{step.key!r}]" for step in steps)
    if isinstance(root, Global):
        return f"the global `{root.name}{path}` of {root.namespace.get('__name__', 'an unnamed module')}"
    return f"the free variable `{root.name}{path}`" if isinstance(root, Cell) else f"`{root.name}{path}`"
