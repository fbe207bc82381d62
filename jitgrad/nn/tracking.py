"""What a layer holds: its Variables and layers, found in attributes, lists, tuples and dicts.

Layers answer `trainable_variables` from a memo. It is good while ``Structure.version`` stands still, and everything
that can change what a layer holds moves it: setting an attribute, and the lists and dicts among the attributes, which
are kept as the subclasses below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from jitgrad.core import versions
from jitgrad.execute.cpu.types import Variable
from jitgrad.frontend.watching import versioned


@versioned
class Versioned:
    """What counts its own changes, so that recorded functions see them: each attribute that is set is one."""

    _version = 0

    def moved(self) -> None:
        """Something of this object has changed."""
        self.__dict__["_version"] = self._version + 1
        versions.changed(versions.STRUCTURE)

    def versions(self) -> list[int]:
        """Numbers that are others when this object, or one that it holds, has changed."""
        found: dict[int, Any] = {}
        _meet(self, found)
        return [n for x in found.values() for n in (id(x), getattr(x, "_version", 0))]

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        self.moved()


def _meet(x: Versioned, found: dict[int, Any]) -> None:
    """An object, and what its attributes hold: Variables and other objects that count their changes."""
    if id(x) not in found:
        found[id(x)] = x
        for key, value in vars(x).items():
            if key not in ("_memo", "_kept", "_updates"):
                for other in inside(value):
                    if isinstance(other, Versioned):
                        _meet(other, found)
                    else:
                        found[id(other)] = other


def inside(value: Any) -> Iterator[Any]:
    """The Variables and counting objects in a value: itself, or what lists, tuples and dicts of it hold."""
    if type(value) is Variable or isinstance(value, Versioned):
        yield value
    elif isinstance(value, list | tuple | dict):
        for v in value.values() if isinstance(value, dict) else value:
            yield from inside(v)


class Structure:
    """The version of everything that layers hold."""

    version = 0


def _moving(method: Callable[..., Any]) -> Callable[..., Any]:
    def changed(self: Any, *args: Any, **kwargs: Any) -> Any:
        Structure.version += 1
        versions.changed(versions.STRUCTURE)
        out = method(self, *args, **kwargs)
        return self if out is self else out
    changed.__name__ = method.__name__
    return changed


class TrackedList(list[Any]):
    """A list that tells when it changes."""


class TrackedDict(dict[Any, Any]):
    """A dict that tells when it changes."""


_KINDS: tuple[tuple[type, type], ...] = ((TrackedList, list), (TrackedDict, dict))
_CHANGING = ("append", "extend", "insert", "remove", "reverse", "sort", "__iadd__", "__imul__", "pop", "clear",
             "__setitem__", "__delitem__", "popitem", "setdefault", "update", "__ior__")
for _kind, _plain in _KINDS:
    for _name in _CHANGING:
        if _name in vars(_plain):
            setattr(_kind, _name, _moving(vars(_plain)[_name]))


def tracked(value: Any) -> Any:
    """The value to keep for an attribute: lists and dicts become ones that tell when they change."""
    kind = type(value)
    if kind is list:
        return TrackedList(map(tracked, value))
    if kind is dict:
        return TrackedDict({key: tracked(v) for key, v in value.items()})
    if kind is tuple:
        return tuple(map(tracked, value))
    return value


def members(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """(path, object) of every Variable and layer in a value: itself, or what a list, tuple or dict holds."""
    if type(value) is Variable or hasattr(type(value), "held"):
        yield path, value
    elif isinstance(value, list | tuple | dict):
        if type(value) in (list, dict):
            Structure.version += 1          # it came in through a tracked one and changes unseen: remember nothing
        for key, v in value.items() if isinstance(value, dict) else enumerate(value):
            yield from members(f"{path}/{key}", v)
