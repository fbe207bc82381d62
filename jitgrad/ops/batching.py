"""What rules of batching share. A rule gets operands whose batch axis stands in front, and gives outputs like that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jitgrad import ops

Batch = tuple[tuple[Any, ...], tuple[bool, ...]]         # outputs, and which of them have a batch axis


def spread(batched: Sequence[bool], size: int, *operands: Any) -> list[Any]:
    """The operands, those without a batch axis repeated along one."""
    return [x if has else ops.broadcast_to(x, (size, *x.shape)) for x, has in zip(operands, batched, strict=True)]


def behind(x: Any, ndim: int) -> Any:
    """A batched operand with as many axes behind the batch axis as it takes to broadcast: a view."""
    size, *own = x.shape
    return x if len(own) == ndim else ops.reshape(x, (size, *(1,) * (ndim - len(own)), *own))


def moved(x: Any, source: int, destination: int) -> Any:
    """One axis at another place."""
    if source == destination:
        return x
    order = [a for a in range(len(x.shape)) if a != source]
    order.insert(destination, source)
    return ops.permute_dims(x, tuple(order))
