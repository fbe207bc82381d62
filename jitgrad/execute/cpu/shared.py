"""Large nests by several threads: some rows, or some chunks of the only row, are a task of the team.

Tasks are cut by the size of the work alone, and partial results of chunks meet in the order of the chunks, as one
thread has it: the bits are the same for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jitgrad.execute.cpu.lanes import Text
from jitgrad.execute.cpu.nests import Writer
from jitgrad.execute.cpu.reductions import CHUNK
from jitgrad.execute.cpu.walks import Walk

Place = Callable[[Text, int], str]


def write_shared(text: Text, walk: Walk, place: Place, written: Sequence[int], context: str, parallel: str) -> str:
    """Write a nest as a call of the team; the function that is its task.

    ``context`` points to the pointers to the table and the arena, ``parallel`` names the team's function.
    """
    task = text.aside(text.fresh(f"{text.name}.task"), "i64 %context, i64 %index")
    both = task.set("inttoptr i64 %context to ptr")
    task.set(f"load ptr, ptr {both}, align 8", "table")
    task.set(f"load ptr, ptr {task.set(f'getelementptr ptr, ptr {both}, i64 1')}, align 8", "arena")
    first, last = _bounds(task, walk)
    writer = Writer(task, walk, lambda v: _own(task, walk, v, place(task, v)), written)
    share = walk.share
    assert share is not None
    if share.chunks:
        _chunks_of_task(writer, walk, place, first, last)
    else:
        writer.some_rows(first, last)
    task.do("ret i64 0")
    text.do(f"call i64 @{parallel}(i64 ptrtoint (ptr @{task.name} to i64), "
            f"i64 {text.set(f'ptrtoint ptr {context} to i64')}, i64 {share.tasks})")
    if share.chunks:
        _after(Writer(text, walk, lambda v: place(text, v), written), walk, place)
    return task.function("internal")


def _bounds(task: Text, walk: Walk) -> tuple[str, str]:
    """The first row or chunk of a task, and the one behind its last."""
    share = walk.share
    assert share is not None
    first = task.set(f"mul i64 %index, {share.size}")
    end = task.set(f"add i64 {first}, {share.size}")
    inside = task.set(f"icmp slt i64 {end}, {share.extent}")
    return first, task.set(f"select i1 {inside}, i64 {end}, i64 {share.extent}")


def _own(task: Text, walk: Walk, v: int, pointer: str) -> str:
    """Memory of a value; of what a row keeps for itself, each task has its own."""
    for kept, a in walk.kept:
        if kept == v:
            size = a.dtype.itemsize * walk.nest.length
            return task.set(f"getelementptr i8, ptr {pointer}, i64 {task.set(f'mul i64 %index, {size}')}")
    return pointer


def _chunks_of_task(writer: Writer, walk: Walk, place: Place, first: str, last: str) -> None:
    task = writer.text
    members = writer.begin_pass()
    start, stop = (task.set(f"mul i64 {x}, {CHUNK}") for x in (first, last))
    folds = [m.outs[0] for m in members if m.fold]
    if not folds:
        writer.span(members, start, stop, CHUNK, 0)
        return
    pointers = [place(task, walk.partial[v]) for v in folds]

    def chunk(i: str) -> list[str]:
        parts = writer.chunk(members, i)
        k = task.set(f"sdiv exact i64 {i}, {CHUNK}")
        for v, part, pointer in zip(folds, parts, pointers, strict=True):
            task.lanes = 1
            dtype = writer.folds[v].dtype
            task.store(part, task.at(pointer, k, dtype), dtype)
        return []
    task.loop("chunk", start, stop, CHUNK, chunk)


def _after(writer: Writer, walk: Walk, place: Place) -> None:
    """Partial results meet, with what whole chunks leave of the row."""
    text = writer.text
    members = writer.begin_pass()
    folds = [writer.folds[m.outs[0]] for m in members if m.fold]
    pointers = [place(text, walk.partial[f.value]) for f in folds]

    def met(k: str, *totals: str) -> list[str]:
        text.lanes = 1
        parts = [text.load(text.at(pointer, k, f.dtype), f.dtype) for f, pointer in zip(folds, pointers, strict=True)]
        return writer.meet(folds, totals, parts, k)
    share = walk.share
    assert share is not None
    totals = text.loop("meet", "0", str(share.extent), 1, met, *[f.first_total for f in folds]) if folds else []
    for f, part in zip(folds, writer.rest(members, folds, totals), strict=True):
        writer.set_narrow(f.value, part, f.dtype)
    writer.narrow(1)
