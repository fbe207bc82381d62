"""A plan in words: its steps, what code runs each, what they read and write, and the memory that it works in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized

from jitgrad.core.primitive import Kind
from jitgrad.core.program import Program
from jitgrad.core.sizes import bytes_in_words
from jitgrad.execute.cpu import blas, engine, library, products
from jitgrad.execute.cpu.plans import Plan
from jitgrad.execute.cpu.walks import Walk
from jitgrad.plan.fuse import Accumulate, Call, Copy, Followed, Nest, Step, Straight, bytes_read, bytes_written

_HEAD = ("step", "what it runs", "rows x length", "how", "reads", "writes")


def shown(plan: Plan) -> str:
    """The steps as a table, then totals."""
    flat = plan.flat
    laid = engine.lay_out(flat, *_ends(flat))
    lines, moved = [_HEAD], 0
    for k, step in enumerate(laid.steps):
        walk, written = laid.walks.get(k), laid.written[k]
        reads, writes = bytes_read(step), bytes_written(step, written)
        moved += reads + writes
        lines.append((str(k), _what(step), *_how(step, walk), bytes_in_words(reads), bytes_in_words(writes)))
    widths = [max(len(line[c]) for line in lines) for c in range(len(_HEAD))]
    text = ["  ".join([a.rjust(widths[0]), b.ljust(widths[1]), c.rjust(widths[2]), d.ljust(widths[3]),
                       e.rjust(widths[4]), f.rjust(widths[5])]).rstrip() for a, b, c, d, e, f in lines]
    made = sum(flat.aval(v).nbytes for v in {*flat.results.tolist()} if v >= 0)
    state = "as machine code" if plan.machine is not None else "on the sweep, until it is machine code"
    size = bytes_in_words
    text.append(f"{_many(laid.steps, 'step')} of {_many(flat, 'row')}, {state}; {size(moved)} read and written, "
                f"{size(laid.arena)} of working memory, {size(made)} of results")
    return "\n".join(text)


def ir(plan: Plan) -> str:
    """The LLVM text of a plan's machine code."""
    flat = plan.flat
    text, _, _ = engine.write(engine.lay_out(flat, *_ends(flat)), plan.guards)
    return text


def _many(things: Sized, name: str) -> str:
    return f"{len(things)} {name}" + "s" * (len(things) != 1)


def _ends(flat: Program) -> tuple[int, int]:
    return len(flat.inputs), len(flat.inputs) + len(flat.results)


def _what(step: Step) -> str:
    if isinstance(step, Copy):
        return "copy"
    names = [m.form.prim.name for m in step.members]
    if isinstance(step, Nest | Straight):
        return ", ".join(_counted(names))
    if isinstance(step, Followed):
        return f"{_what(step.product)}; {', '.join(_counted(names[1:]))}"
    f = step.form
    if isinstance(step, Accumulate):
        names[0] += " added to"
    return f"{names[0]} {' '.join(str(a.shape).replace(' ', '') for a in f.avals)}" if f.avals else names[0]


def _counted(names: Iterable[str]) -> Iterator[str]:
    """Equal neighbours as one, with their number."""
    before, count = "", 0
    for name in [*names, ""]:
        if name == before:
            count += 1
            continue
        if before:
            yield before if count == 1 else f"{before} x{count}"
        before, count = name, 1


def _how(step: Step, walk: Walk | None) -> tuple[str, str]:
    """Rows and their length, and the code."""
    if isinstance(step, Nest):
        assert walk is not None
        tasks = f", {walk.share.tasks} tasks" if walk.share else ""
        passes = 1 + max(walk.turn.values())
        turns = "unrolled" if walk.short else f"{passes} pass{'es' if passes > 1 else ''}"
        return f"{step.rows} x {step.length}", f"{walk.lanes} lanes, {turns}{tasks}"
    if isinstance(step, Followed):
        assert walk is not None
        return f"{step.nest.rows} x {step.nest.length}", f"BLAS, each block followed in {walk.lanes} lanes"
    if isinstance(step, Straight):
        return "", "straight code"
    if isinstance(step, Copy):
        return "", "copies bytes"
    return "", "BLAS" if isinstance(step, Accumulate) else _kernel(step)


def _kernel(step: Call) -> str:
    f = step.form
    if f.prim.runner:
        return "runs bodies of its own"
    if library.vectors(f) is products:
        return "register tiles"
    if f.prim.kind is Kind.CONTRACT and blas.gemm(f) is not None:
        return "BLAS"
    return "a kernel of its own"
