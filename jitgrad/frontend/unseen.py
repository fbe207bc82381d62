"""What no replay can see, so that a function which relies on it runs as plain Python."""

from __future__ import annotations

import os
from array import array
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Iterator, Sequence
from types import WrapperDescriptorType
from typing import Any

from jitgrad.frontend.facts import Fact, Identical, Members, in_class

_CONTAINERS = (list, dict, set, bytearray, deque, array, ChainMap, UserDict, UserList, type(os.environ))


def unseen(value: Any) -> bool:
    """Whether a value has a state that neither paths nor comparisons see: iterators in C, deques, arrays of `array`;
    and containers that could not be compared, which are long ones, subclasses, and sets and keys of objects.

    Files, which have one too, are what functions print to.
    """
    kind = type(value)
    if issubclass(kind, _CONTAINERS):
        return True
    return isinstance(in_class(kind, "__next__"), WrapperDescriptorType) and kind.__module__ != "_io"


def objects_of(facts: Sequence[Fact]) -> Iterator[Any]:
    """The objects that Facts expect."""
    waiting: list[Any] = [fact.expected for fact in facts]
    while waiting:
        expected = waiting.pop()
        if isinstance(expected, Identical):
            yield expected.ref()
        elif isinstance(expected, Members):
            waiting += expected.members
