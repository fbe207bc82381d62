"""Steps in memory: what each writes, and where values lie. See `memory` for what a slot is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jitgrad.core import backend
from jitgrad.core.program import Program
from jitgrad.plan import memory
from jitgrad.plan.fuse import Copy, Operand, Step

_COPY = -1
_int = np.int64


class Steps(NamedTuple):
    """The steps of a Program, the value that each of its results is, and the bytes of every value."""

    steps: list[Step]
    results: list[int]
    sizes: dict[int, int]


class Laid(NamedTuple):
    """Where each step finds what it writes and reads; copies (to, from, bytes) behind the last; bytes of the arena."""

    places: list[dict[int, int]]
    copies: list[tuple[int, int, int]]
    arena: int


def with_results(program: Program, steps: Sequence[Step], lies: Mapping[int, tuple[int, int]]) -> Steps:
    """The steps, and one more for each result that ``lies`` within another value."""
    steps = list(steps)
    results, free = [], len(program.avals)
    sizes = {v: program.aval(v).nbytes for v in range(free)}
    for v in program.results.tolist():
        value, offset = lies.get(v, (v, 0))
        if v >= 0 and (offset or sizes[value] != sizes[v]):
            steps.append(Copy((Operand(value, offset, program.aval(v)),), (free,)))
            sizes[free], value = sizes[v], free
            free += 1
        results.append(value)
    return Steps(steps, results, sizes)


def reads_of(step: Step) -> list[int]:
    """The values from elsewhere that a step reads."""
    inside = {v for m in step.members for v in m.outs}
    return list(dict.fromkeys(o.value for m in step.members for o in m.operands if o.value not in inside))


def lay_out(program: Program, written: Sequence[Sequence[int]], reads: Sequence[Sequence[int]],
            results: Sequence[int], sizes: Mapping[int, int], first_result: int, first_const: int) -> Laid:
    """Places for what steps write and read. The table of pointers begins with the inputs; results and constants stand
    where told."""
    inputs, constants = program.inputs.tolist(), list(program.constants)
    order = [*inputs, *constants, *(v for outs in written for v in outs)]
    at = {v: i for i, v in enumerate(order)}
    n = len(written)
    slot = np.full(len(order) + 1, memory.NOWHERE, _int)
    slot[: len(inputs)] = -1 - np.arange(len(inputs))
    slot[len(inputs): len(inputs) + len(constants)] = -1 - (first_const + np.arange(len(constants)))
    pairs = np.array([word for i, v in enumerate(results) for word in (
        at[v] if v >= 0 else -1, -1 - (first_result + i))] + [0], _int)
    nbytes = np.array([*(sizes[v] for v in order), 0], _int)
    counts, made_counts = ([len(x) for x in lists] for lists in (reads, written))
    operands = np.array([at[v] for ids in reads for v in ids] + [0], _int)
    code = np.zeros(3 * n + sum(counts) + sum(made_counts) + 5 * len(results) + 1, _int)
    ordinals, made, numbers = np.zeros(n + 1, _int), np.zeros(3, _int), np.arange(n + 1, dtype=_int)
    room = (np.zeros(len(order) + 2, _int) for _ in range(5))
    status = backend.current().compiled(memory.lay_out)(
        np.array([n, len(order), len(results)], _int), numbers, np.array([0, *np.cumsum(counts)], _int), operands,
        len(inputs) + len(constants) + np.array([0, *np.cumsum(made_counts)], _int), pairs, slot, nbytes, numbers,
        np.zeros(n + 1, _int), np.zeros(n + 1, _int), np.array([*counts, 0], _int), np.array([*made_counts, 0], _int),
        np.array([_COPY], _int), nbytes, *room, code, ordinals, made)
    assert status == memory.DONE
    places: list[dict[int, int]] = [{} for _ in range(n)]
    copies, k = [], 0
    for _ in range(int(made[memory.M_COUNT])):
        step, params, count = code[k: k + 3].tolist()
        where = code[k + 3: k + 3 + count].tolist()
        if step == _COPY:
            copies.append((where[0], where[1], params))
        else:
            places[step] = dict(zip([*written[step], *reads[step]], where, strict=True))
        k += 3 + count
    return Laid(places, copies, int(made[memory.M_ARENA]))
