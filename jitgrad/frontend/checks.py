"""Facts that a recording relied on as instructions of a recipe, which the machine checks at entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any

from jitgrad.execute.cpu import layout
from jitgrad.execute.cpu.types import peek
from jitgrad.frontend.facts import (
    MISSING,
    Absent,
    Cell,
    Constant,
    Expected,
    Fact,
    Global,
    Identical,
    Members,
    Object,
    instance_dict,
    read,
    value_at,
)
from jitgrad.frontend.paths import ATTRIBUTE, Step

Row = tuple[Any, ...]
_CODE = (Step(ATTRIBUTE, "__code__"),)
_INT64 = range(-(2**63), 2**63)


class Checks:
    """Instructions for Facts; registers from ``first`` on are free. Paths with a common start are read once."""

    def __init__(self, first: int, arguments: Mapping[int, int]) -> None:
        """``arguments``: id of an object -> register of the argument that it is."""
        self.rows: list[Row] = []
        self.registers = first
        self._arguments = arguments
        self._read: dict[Any, int] = {}

    def add(self, facts: Sequence[Fact]) -> None:
        """Check these, too."""
        for fact in facts:
            if self._code(fact):
                continue
            expected, at = fact.expected, self._root(fact.root)
            steps = fact.steps[:-1] if isinstance(expected, Absent) else fact.steps
            if at is None:
                continue
            for step in steps:
                at = self._once((at, step.kind, step.key), "attr" if step.kind == ATTRIBUTE else "item", at, step.key)
            if isinstance(expected, Absent):
                self._absent(at, value_at(fact.root, steps), fact.steps[-1])
            else:
                self._expected(at, expected)

    def _code(self, fact: Fact) -> bool:
        """The commonest of all: a known function still has its code, which is to be seen without asking it."""
        if type(fact.root) is not Object or type(fact.expected) is not Identical or fact.steps != _CODE:
            return False
        function, code = fact.root.value(), fact.expected.ref()
        if (type(function) is not FunctionType or code is None
                or peek(id(function) + layout.FUNCTION_CODE) != id(code)):      # a CPython that keeps it elsewhere
            return False
        self.rows.append(("field", function, layout.FUNCTION_CODE, code))
        return True

    def _absent(self, at: int, held: Any, step: Step) -> None:
        """What held nothing under a name, a key or an index is the same object, and still holds nothing."""
        if held is MISSING or read(held, step)[0] is not MISSING:
            self.rows.append(("is", at, MISSING))        # the recording itself has changed that: it is for once
        elif type(held) in (list, tuple):
            self.rows.append((type(held).__name__, at, len(held), self._more(len(held))))
        else:
            self.rows.append(("is", at, held))
            self.rows.append(("absent", instance_dict(held) if step.kind == ATTRIBUTE else held, step.key))

    def _once(self, key: Any, *row: Any) -> int:
        found = self._read.get(key)
        if found is None:
            found = self._read[key] = self._more(1)
            self.rows.append((*row, found))
        return found

    def _more(self, count: int) -> int:
        self.registers += count
        return self.registers - count

    def _root(self, root: Any) -> int | None:
        if isinstance(root, Cell):
            return self._once((id(root.cell),), "cell", root.cell)
        if isinstance(root, Global):
            namespace = root.namespace
            if root.name not in namespace:
                self._once((id(namespace), root.name, None), "absent", namespace, root.name)
                builtins = namespace["__builtins__"]
                namespace = builtins if type(builtins) is dict else vars(builtins)
            return self._once((id(namespace), root.name), "global", namespace, root.name)
        value = root.value()
        if value is MISSING:
            return None                        # gone: nothing reads from it any more
        return self._arguments[id(value)] if id(value) in self._arguments else self._object(value)

    def _object(self, value: Any) -> int:
        """A register with an object: out of a dictionary of one's own."""
        return self._once((id(value), ""), "global", {"": value}, "")

    def _expected(self, at: int, expected: Expected) -> None:
        if isinstance(expected, Constant):
            self._constant(at, expected.value)
        elif not isinstance(expected, Members):
            value = expected.ref()
            if value is not None:
                self.rows.append(("is", at, value))
        elif expected.kind in (list, tuple):
            first = self._more(len(expected.members))
            self.rows.append((expected.kind.__name__, at, len(expected.members), first))
            self._members(first, expected)
        elif expected.kind is dict:
            first = self._more(len(expected.members))
            self.rows.append(("dict", at, expected.keys, first))
            self._members(first, expected)
        else:                                  # a subclass: it may say otherwise what its items are
            items = enumerate(expected.members) if expected.keys is None else zip(
                expected.keys, expected.members, strict=True)
            for key, member in items:
                self._expected(self._once((at, "item", key), "item", at, key), member)

    def _members(self, first: int, expected: Any) -> None:
        for i, member in enumerate(expected.members):
            self._expected(first + i, member)

    def _constant(self, at: int, value: Any) -> None:
        if type(value) is float:
            self.rows.append(("float_key", at, value))
        elif type(value) is int and value in _INT64:
            self.rows.append(("int_key", at, value))
        elif type(value) is bool or value is None:
            self.rows.append(("is", at, value))
        elif type(value) is complex:           # -0.0 equals 0.0
            self.rows.append(("is", self._once((at, "__class__"), "attr", at, "__class__"), complex))
            for name in ("real", "imag"):
                self._constant(self._once((at, name), "attr", at, name), getattr(value, name))
        else:
            self.rows.append(("equal", at, value))
