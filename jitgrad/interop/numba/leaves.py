"""Arguments and results of recorded calls, as their types in Numba name them."""

from __future__ import annotations

from typing import Any, NamedTuple

LAYOUT, OVERLAPS = -1, -2       # what is wrong with an array, where no axis of it is


class Leaf(NamedTuple):
    """An argument or a result: which one, its dtype and its number of axes."""

    place: int
    dtype: str
    ndim: int

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(':' * self.ndim)}]" if self.ndim else self.dtype


def shown(nest: Any) -> str:
    """Nested tuples of leaves in words."""
    if isinstance(nest, tuple) and not isinstance(nest, Leaf):
        return f"({', '.join(map(shown, nest))})"
    return str(nest)


def flat(nest: Any) -> list[Leaf]:
    """The leaves."""
    if isinstance(nest, Leaf):
        return [nest]
    return [leaf for item in nest or () for leaf in flat(item)]
