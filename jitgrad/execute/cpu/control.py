"""Kernels of rows that hold Programs: their instructions, and how their working memory is divided.

See native/loops.py for what reads these words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from jitgrad.core.form import Form
from jitgrad.core.program import Program
from jitgrad.execute.cpu import library, plans
from jitgrad.execute.cpu.lifetime import immortal
from jitgrad.execute.cpu.types import later
from jitgrad.plan.memory import ALIGN
from jitgrad.transform.control.steps import Step, needed_for
from jitgrad.transform.control.whiles import Stage, firsts, steps_of
from jitgrad.transform.higher import inlined

MOST_WORK = 1 << 40
ROW_WORK = 16                  # a row costs as much as so many elements
KEPT: list[Any] = immortal([])        # instructions and constants of forms, which live as long as the process


Parts = Callable[[Program, int, int], "Part"]


def kernel(f: Form, part: Parts | None = None) -> library.Kernel:
    """Address and params of the kernel of a choice or loop; ``part`` makes what runs the Programs that it holds."""
    made = part or _swept
    return _branch(f, made) if "yes" in f.params else _loop(f, made)


def work(f: Form) -> int:
    """A rough count of elements touched. Nobody knows how long a loop with a condition runs: it counts as long."""
    if "yes" in f.params:
        return max(_work(f.params["yes"]), _work(f.params["no"]))
    if "condition" in f.params:
        return library.LONG_ELEMENTS
    return min(_work(f.params["body"]) * f.params["length"], MOST_WORK)


@lru_cache(maxsize=1024)
def _work(program: Program) -> int:
    rows = inlined(program).rows()
    return min(ROW_WORK + sum(ROW_WORK + library.work(made) for made, _, _ in rows), MOST_WORK)


def _room(nbytes: int) -> int:
    return (nbytes + ALIGN - 1) // ALIGN * ALIGN


class Part(NamedTuple):
    """Instructions as the sweep takes them, and pointers to the constants that they find in the table."""

    code: int
    rows: int
    arena: int
    pointers: list[int]


def _swept(flat: Program, first_result: int, first_const: int) -> Part:
    code, count, arena, *_ = plans.instructions(flat, first_result, first_const)
    tensors = list(flat.constants.values())
    KEPT.append((code, tensors))
    return Part(int(code.ctypes.data), count, arena, [t._data for t in tensors])


# ---- a choice --------------------------------------------------------------------------------------

def _branch(f: Form, part: Parts) -> library.Kernel:
    operands, results = len(f.avals) - 1, len(f.outs)
    first = operands + results
    yes = part(inlined(f.params["yes"]), operands, first)
    no = part(inlined(f.params["no"]), operands, first + len(yes.pointers))
    pointers = yes.pointers + no.pointers
    table = _room(8 * (first + len(pointers)))
    return later()["branch"], [results, operands, table + max(yes.arena, no.arena), table, len(pointers),
                              library.keep(pointers), yes.code, yes.rows, no.code, no.rows]


# ---- loops -----------------------------------------------------------------------------------------

class _Stream(NamedTuple):
    """An x or y: whose it is (-1: a slot's), the byte offset there or of the slot, bytes from one to the next."""

    stage: int
    where: int
    stride: int


def _loop(f: Form, part: Parts) -> library.Kernel:
    consts = f.params["consts"]
    if "stages" in f.params:
        stages, condition, length = f.params["stages"], f.params["condition"], -1
    else:
        body, carry = f.params["body"], f.params["carry"]
        stages = (Stage(body, carry, reverse=f.params["reverse"]),)
        condition, length = None, f.params["length"]
    steps, first = steps_of(stages, consts), firsts(stages)
    records = [_record(step) for step in steps] if condition else []
    laid = []
    for s, (stage, step) in enumerate(zip(stages, steps, strict=True)):
        streams = [_Stream(t, records[t][0][y], records[t][1]) for t, y in stage.reads]
        if condition:
            streams += [_Stream(s, at, records[s][1]) for at in records[s][0]]
        else:
            streams += [_Stream(-1, 8 * (len(f.outs) + k), step.input(k).nbytes)
                        for k in range(step.first_x, step.first_x + step.xs)]
            streams += [_Stream(-1, 8 * r, step.result(r).nbytes) for r in range(step.carry, step.carry + step.ys)]
        laid.append(_Laid(step, stage.reverse, streams, records[s][1] if condition else 0, first[s], len(f.outs),
                          condition if s == 0 else None, part))
    return later()["loop"], _words(f, laid, length, consts, first[-1] if condition else -1)


def _record(step: Step) -> tuple[list[int], int]:
    """Byte offsets of a step's ys among all that an iteration leaves behind, and how much that is."""
    offsets, at = [], 0
    for y in range(step.ys):
        offsets.append(at)
        at += _room(step.result(step.carry + y).nbytes)
    return offsets, at


class _Laid:
    """One stage: its instructions, and what its table holds: inputs, results, the condition's, constants."""

    def __init__(self, step: Step, reverse: bool, streams: Sequence[_Stream], record: int, first: int, outs: int,
                 condition: Program | None, part: Parts) -> None:
        self.reverse, self.record = reverse, record
        inputs, results = step.body.inputs.tolist(), step.body.results.tolist()
        # what the body hands on as it is stays where it is
        moving = [r for r in range(step.carry) if results[r] != inputs[step.consts + r]]
        results = [results[r] for r in moving] + results[step.carry:]
        self.flag = len(inputs) + len(results)
        self.first_const = self.flag + (condition is not None)
        self.part = part(inlined(needed_for(step.body, results)), len(inputs), self.first_const)
        self.pointers, self.condition = list(self.part.pointers), None
        if condition is not None:
            self.condition = part(inlined(condition), self.flag, self.first_const + len(self.pointers))
            self.pointers += self.condition.pointers
        places = {r: len(inputs) + i for i, r in enumerate(moving)}
        self.moving = len(moving)
        self.carry = [(8 * (step.consts + r), 8 * places[r] if r in places else -1, 8 * (first + r),
                       8 * (outs + step.consts + first + r), step.result(r).nbytes) for r in range(step.carry)]
        words = [*range(step.first_x, len(inputs)), *range(len(inputs) + len(moving), self.flag)]
        self.streams = [(8 * word, *stream) for word, stream in zip(words, streams, strict=True)]
        self.arena = max(self.part.arena, self.condition.arena if self.condition else 0)


def _words(f: Form, stages: Sequence[_Laid], length: int, consts: int, count: int) -> list[int]:
    """The kernel's params; all stages use the same working memory, one after the other."""
    table = ALIGN * (1 + len(stages) // (ALIGN // 8))
    pointers = []
    top = table
    for stage in stages:
        at = table + 8 * (stage.first_const + len(stage.pointers))
        moves, swaps = at, at + 8 * (2 * len(stage.streams) + 1)
        room = _room(swaps + 8 * (3 * stage.moving + 1))
        carry = []
        for word_in, word_out, slot, given, nbytes in stage.carry:
            carry += [word_in, word_out, slot, given, nbytes, room]
            room += _room(nbytes) if word_out >= 0 else 0
        top = max(top, room)
        pointers.append(library.keep([
            stage.part.code, stage.part.rows, len(stage.carry), library.keep(carry), len(stage.streams),
            library.keep([word for stream in stage.streams for word in stream]), stage.record, int(stage.reverse),
            len(stage.pointers), library.keep(stage.pointers), 8 * stage.first_const, moves, swaps, table]))
    condition = stages[0].condition
    arena = top + ALIGN
    rows = sum(_work(body) for body in _bodies(f))
    polled = rows if library.work(f) >= library.LONG_ELEMENTS else 0
    return [len(stages), arena + max(stage.arena for stage in stages), arena, consts, length, polled, len(f.outs),
            condition.code if condition else 0, condition.rows if condition else 0, 8 * stages[0].flag, top,
            count, *pointers]


def _bodies(f: Form) -> list[Program]:
    return [stage.body for stage in f.params["stages"]] if "stages" in f.params else [f.params["body"]]
