"""What is known of integers on the GPU: between which numbers they lie. Where that makes indices valid nobody waits for
the error codes of gathers, and the steps of a training loop are asked for without a pause.

It is known of what came from the CPU, and of rows whose integers are positions, or elements of others (``indexes=`` of
an entry).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from jitgrad.core.form import Form
from jitgrad.core.primitive import Kind
from jitgrad.core.program import Program
from jitgrad.execute.cuda import memory
from jitgrad.execute.cuda.kernel import STATUS, Launch
from jitgrad.execute.cuda.memory import Span


class Known(NamedTuple):
    """Each element lies in ``span`` or is one of the ``inputs``, by position."""

    span: Span | None
    inputs: frozenset[int] = frozenset()


def span_of(t: Any) -> Span | None:
    """In which the integers of a Tensor lie, here or there; None if that is not known."""
    found: Span | None = memory.span_of(t.numpy()) if t._data else t._owner.span
    return found


def of_tensor(t: Any) -> Known | None:
    """Of a Tensor."""
    return Known(span) if (span := span_of(t)) else None


def of_result(f: Form, operands: Sequence[Known | None]) -> Known | None:
    """Of the result of a row."""
    if len(f.outs) != 1 or f.outs[0].dtype.kind != "i":
        return None
    if f.prim.indexes is not None:
        n, positions = f.prim.indexes(*f.avals, **f.params)
        return _joined([operands[k] for k in positions], (0, n) if n else None)
    if f.prim.kind in (Kind.MOVE, Kind.PLACE):
        return _joined(operands, (0, 1) if f.prim.kind is Kind.PLACE else None)      # zeros between what is placed
    return None


def _joined(known: Sequence[Known | None], span: Span | None) -> Known | None:
    """Of elements that are in one of several values, or in a span."""
    inputs: frozenset[int] = frozenset()
    for one in known:
        if one is None:
            return None
        inputs |= one.inputs
        if one.span:
            span = (min(span[0], one.span[0]), max(span[1], one.span[1])) if span else one.span
    return Known(span, inputs) if span or inputs else None


def of_program(program: Program) -> dict[int, Known]:
    """Of the values of a Program."""
    found = {v: known for v, t in program.constants.items() if (known := of_tensor(t))}
    found.update((v, Known(None, frozenset([i]))) for i, v in enumerate(program.inputs.tolist()))
    for f, operands, outs in program.rows():
        if known := of_result(f, [found.get(v) for v in operands]):
            found[outs[0]] = known
    return found


def needs(pairs: Iterable[tuple[Known | None, Span]]) -> dict[int, Span] | None:
    """Values and in which spans they have to be: what that asks of inputs, by position. None if they may be elsewhere
    whatever those are.
    """
    asked: dict[int, Span] = {}
    for known, (low, high) in pairs:
        if known is None or known.span and not inside(known.span, (low, high)):
            return None
        for i in known.inputs:
            before = asked.get(i, (low, high))
            asked[i] = max(low, before[0]), min(high, before[1])
    return asked


def at(known: Known, inputs: Sequence[Any]) -> Span | None:
    """The span, now that inputs are there."""
    found = _joined([of_tensor(inputs[i]) for i in known.inputs], known.span)
    return found.span if found else None


def inside(span: Span | None, of: Span) -> bool:
    """Whether one span is known to be a part of another."""
    return span is not None and of[0] <= span[0] and span[1] <= of[1]


def indices(launches: Iterable[Launch], slots: Sequence[Known | None]) -> Iterator[tuple[Known | None, Span]]:
    """The pairs of kernels that may leave error codes, by what is known of the values in their slots."""
    for launch in launches:
        if launch.indices is not None:
            slot, span = launch.indices
            yield slots[slot], span
        elif STATUS in launch.slots:
            yield None, (0, 0)
