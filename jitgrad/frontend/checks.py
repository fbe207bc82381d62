"""Facts that a recording relied on as instructions of a recipe, which the machine checks at entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jitgrad.frontend.facts import MISSING, Cell, Constant, Expected, Fact, Global, Identical
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
        self._expect: dict[type, Callable[[int, Any], None]] = {Constant: self._constant, Identical: self._identical}

    def add(self, facts: Sequence[Fact]) -> None:
        """Check these, too."""
        for fact in facts:
            at = self._root(fact.root)
            if at is None:
                continue
            for step in fact.steps:
                at = self._once((at, step.kind, step.key), "attr" if step.kind == ATTRIBUTE else "item", at, step.key)
            self._expected(at, fact.expected)

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
        if id(value) in self._arguments:
            return self._arguments[id(value)]
        held = {"it": value}
        return self._once((id(value),), "global", held, "it")

    def _expected(self, at: int, expected: Expected) -> None:
        check = self._expect.get(type(expected))
        if check is not None:
            check(at, expected)
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

    def _constant(self, at: int, expected: Any) -> None:
        value = expected.value
        if type(value) is float:
            self.rows.append(("float_key", at, value))
        elif type(value) is int and value in _INT64:
            self.rows.append(("int_key", at, value))
        elif type(value) is bool or value is None:
            self.rows.append(("is", at, value))
        else:
            self.rows.append(("equal", at, value))

    def _identical(self, at: int, expected: Any) -> None:
        value = expected.ref()
        if value is not None:
            self.rows.append(("is", at, value))
