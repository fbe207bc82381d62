"""Looking inside a tape: its rows as a Program, the bytes it keeps, and why a gradient is None."""

from __future__ import annotations

from typing import Any

from jitgrad.core.aval import AVALS, Aval
from jitgrad.core.form import FORMS, Form
from jitgrad.core.program import Program
from jitgrad.execute.cpu import types as machine
from jitgrad.execute.cpu.layout import K_USED
from jitgrad.execute.cpu.types import Tensor, Variable
from jitgrad.frontend import lines


def _rows(core: Any) -> list[tuple[Form, list[Any], list[Any]]]:
    out = []
    for form_id, *refs in machine.log_rows(core):
        made = FORMS[form_id]
        n = len(made.avals)
        out.append((made, refs[:n], refs[n: n + len(made.outs)]))
    return out


def program_of(core: Any) -> Program:
    """A tape's rows as a Program; what no row made is an input."""
    number: dict[int, int] = {}
    avals: list[Aval] = []
    inputs: list[int] = []
    rows = []

    def new(t: Any) -> int:
        number[id(t)] = len(avals)
        avals.append(AVALS[t._aval])
        return number[id(t)]

    keep = _rows(core)
    for made, operands, outs in keep:
        ids = []
        for t in operands:
            if id(t) not in number:
                inputs.append(new(t))
            ids.append(number[id(t)])
        rows.append((made, tuple(ids), len(avals)))
        for t in outs:
            new(t)
    used = {i for _, ids, _ in rows for i in ids}
    results = [number[id(t)] for _, _, outs in keep for t in outs if number[id(t)] not in used]
    made_at = [lines.made_at(outs[0]) if outs else "" for _, _, outs in keep]
    return Program.build(rows, avals, inputs, {}, results, made_at)


def nbytes(core: Any) -> int:
    """Bytes of rows and of the distinct Tensors that they hold."""
    rows = _rows(core)
    held = {id(t): t for _, operands, outs in rows for t in (*operands, *outs)}
    columns = sum(16 + 8 * (len(operands) + len(outs)) for _, operands, outs in rows)
    return columns + sum(t.nbytes for t in held.values())


def tracked(tape: Any) -> set[int]:
    """Ids of the Tensors that depend on something this tape watches."""
    found = {id(t) for t in machine.tape_watches(tape)}
    for v in machine.tape_variables(tape):
        found.update(id(t) for t in machine.tape_reads(tape, v))
    for _, operands, outs in _rows(tape):
        if any(id(t) in found for t in operands):
            found.update(id(t) for t in outs)
    return found


def explain(tape: Any, target: Any, source: Any) -> str:
    """See `GradientTape.explain`."""
    if tape._flags & K_USED:
        return "The tape was used for its one set of gradients and let go of its rows; make it persistent to ask again."
    wrong = _wrong_kind("target", target) or _wrong_kind("source", source)
    if wrong:
        return wrong
    if target is source:
        return "The target is the source, so its gradient is its output gradient: ones, if none is given."
    rows = _rows(tape)
    starts = _starts(tape, source)
    if isinstance(starts, str):
        return starts
    reached = set(starts)
    forward = []
    for made, operands, outs in rows:
        if any(id(t) in reached for t in operands):
            reached.update(id(t) for t in outs)
            forward.append((made, operands, outs))
    if type(target) is Variable:
        return ("The target is a Variable. Assigning to a Variable stores a number and breaks the chain: take the "
                "gradient of the Tensor that was computed, not of the Variable it was assigned to.")
    if id(target) in reached:
        needed, path = {id(target)}, []
        for made, operands, outs in reversed(forward):
            if any(id(t) in needed for t in outs):
                needed.update(id(t) for t in operands)
                path.append(made.prim.name)
        several = "one recorded row" if len(path) == 1 else f"{len(path)} recorded rows"
        names = ", ".join(path[::-1][:12]) + (", ..." if len(path) > 12 else "")
        return f"The target depends on the source, through {several}: {names}."
    left = _left(rows, reached)
    if any(id(target) == id(t) for _, _, outs in rows for t in outs):
        return ("The target was recorded, but no recorded operation leads to it from the source. On the way a value "
                "left the tape (through numpy() or float(), through stop_gradient, as an integer, or by assignment to "
                "a Variable), or it was made before the tape started or while recording was stopped." + left)
    return ("The target was not recorded: it was made before the tape started, while recording was stopped, from "
            "operands that no tape watches, behind stop_gradient, or outside jitgrad (NumPy)." + left)


def _left(rows: list[tuple[Form, list[Any], list[Any]]], reached: set[int]) -> str:
    """The lines at which numbers that depend on the source were read, if lines are noted."""
    if not lines.noting():
        return " Call jg.debug_lines() before recording and this will name the lines where numbers left the tape."
    met = {id(t): t for _, operands, outs in rows for t in (*operands, *outs) if id(t) in reached}
    places = sorted({lines.read_at(t) for t in met.values()} - {""})
    return f" Numbers left the tape at {', '.join(places)}." if places else ""


def _wrong_kind(role: str, value: Any) -> str:
    if type(value) is not Tensor and type(value) is not Variable:
        return f"The {role} is a {type(value).__name__}, not a Tensor or Variable; its gradient is always None."
    if value.dtype.kind != "f":
        return f"The {role} has dtype {value.dtype}; only floats have gradients, so the gradient is None."
    return ""


def _starts(tape: Any, source: Any) -> set[int] | str:
    """Ids of the Tensors at which a source enters the tape, or why it does not."""
    rows = _rows(tape)
    if type(source) is Variable:
        reads = machine.tape_reads(tape, source)
        if reads and any(v is source for v in tape.watched_variables()):
            return {id(t) for t in reads}
        if not source.trainable:
            return "The source is a Variable that is not trainable, so tapes do not watch it by themselves: watch it."
        if not reads:
            return "The source is a Variable that was not read while the tape recorded."
        return "The source is a Variable, and the tape was made with watch_accessed_variables=False: watch it."
    watched = {id(t) for t in machine.tape_watches(tape)}
    made = {id(t) for _, _, outs in rows for t in outs}
    if id(source) in watched | made:
        return {id(source)}
    return ("The source is a Tensor that the tape does not watch: call tape.watch(source) before it is used. "
            "(Assign to a Variable by its methods: x = x + 1 replaces the Variable by a Tensor.)")
