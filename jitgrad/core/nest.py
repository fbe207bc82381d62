"""Nests: lists, tuples, dicts and their like of leaves, flattened by optree with None as a leaf."""

from __future__ import annotations

from typing import Any

from jitgrad.core import backend
from jitgrad.core.errors import user_error


def flatten(nest: Any) -> tuple[list[Any], Any]:
    """Leaves and the structure to rebuild the nest with."""
    machine = backend.current()
    if type(nest) is machine.Tensor or type(nest) is machine.Variable:
        return [nest], None
    import optree  # 50 ms; single Tensors and lists of them, the hot path, never get here
    leaves, structure = optree.tree_flatten(nest, none_is_leaf=True)
    return leaves, None if len(leaves) == 1 and leaves[0] is nest else structure     # all that is one leaf is alike


def rebuild(structure: Any, leaves: list[Any]) -> Any:
    """The nest with other leaves."""
    if structure is None:
        return leaves[0]
    import optree
    return optree.tree_unflatten(structure, leaves)


def named(nest: Any, name: str) -> list[tuple[str, Any]]:
    """Leaves with the expressions that lead to them from ``name``, for errors."""
    import optree
    accessors, leaves, _ = optree.tree_flatten_with_accessor(nest, none_is_leaf=True)
    return [(accessor.codify(name), leaf) for accessor, leaf in zip(accessors, leaves, strict=True)]


def spread(prefix: Any, nest: Any, what: str) -> list[Any]:
    """For each leaf of a nest what a nest of its outer levels says there: one value may stand for all."""
    import optree
    try:
        out: list[Any] = optree.broadcast_prefix(prefix, nest, none_is_leaf=True)
    except ValueError as error:
        raise user_error(ValueError, f"{what} {prefix!r} does not fit the structure of what it is for: {error}"
                         ) from None
    return out
