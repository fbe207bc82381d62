"""Facts that a recording relied on as instructions of a recipe, which the machine checks at entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jitgrad.frontend.facts import MISSING, Cell, Constant, Expected, Fact, Global, Members, read, trusted
from jitgrad.frontend.paths import ATTRIBUTE

Row = tuple[Any, ...]
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
            at = self._end(fact)
            if at is not None:
                self._expected(at, fact.expected)

    def _end(self, fact: Fact) -> int | None:
        """The register that a path leads to; None where nothing needs to be looked at."""
        at, value = self._root(fact.root), fact.root.value()
        for step in fact.steps:
            if at is None:
                return None
            found, whole = read(value, step)
            if not whole:              # a method: the class has it, what the instance would give is new each time
                if trusted(found) or isinstance(found, classmethod):
                    return None
                at = self._object(type(value))
            at = self._once((at, step.kind, step.key), "attr" if step.kind == ATTRIBUTE else "item", at, step.key)
            value = found
        return at

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
        else:
            self.rows.append(("equal", at, value))
