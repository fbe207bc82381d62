"""What follows a large matrix product block by block: biases and relus, gates and their sums, updates of weights.

BLAS makes such a product in blocks (native/blas.py). The thread that has just made one goes on with the rows of a nest
on its elements while they are in that processor's cache, and with sums of its columns; the other way round, each thread
would read half of what it needs out of another's cache, and wait for the other three times instead of once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from jitgrad.core.form import Form
from jitgrad.core.primitive import Kind
from jitgrad.execute.cpu.lanes import Text
from jitgrad.execute.cpu.nests import Writer
from jitgrad.execute.cpu.reductions import COLUMNS, columns_text
from jitgrad.execute.cpu.walks import Walk, walk_of
from jitgrad.plan.fuse import Accumulate, Call, Followed, Nest, Step, Straight, body_of, split
from jitgrad.plan.rows import outer_of

VECTOR = 16                    # columns that a block begins and ends at multiples of
LARGEST = 1 << 21              # bytes of a product that is followed: of larger ones blocks do not stay in a cache
NEAR = 64                      # steps behind a product among which what follows it is looked for
Extents = Callable[[Form], tuple[int, int] | None]
Place = Callable[[Text, int], str]


# ---- which -----------------------------------------------------------------------------------------

def followed(steps: Sequence[Step], divided: Extents) -> list[Step]:
    """The steps, with products that are made in blocks and what can follow those as one.

    ``divided`` gives the rows and columns of such a product.
    """
    out = list(steps)
    at = 0
    while at < len(out):
        step = out[at]
        shape = divided(step.form) if isinstance(step, Call) else None
        if isinstance(step, Call) and shape and shape[1] % VECTOR == 0 and step.form.outs[0].nbytes <= LARGEST:
            at = _followed(out, at, *shape)
        at += 1
    return out


def _followed(steps: list[Step], at: int, m: int, n: int) -> int:
    """Let the first nest that reads a product follow it, if it can; where the product is then."""
    product = steps[at]
    assert isinstance(product, Call)
    last = min(at + 1 + NEAR, len(steps))
    k = next((k for k in range(at + 1, last) if product.outs[0] in _reads(steps[k])), last)
    if k == last or any(may_fail(step) for step in steps[at + 1: k]):
        return at
    nest = _on_blocks(steps[k], product.outs[0], m, n)
    before = _needed(steps, at, k)
    if nest is None or before is None:
        return at
    end = next((j for j in range(k + 1, last) if _writes(steps[j]) & {*nest.values}), last)
    sums = [j for j in range(k + 1, end) if _sums_columns(steps[j], nest, m, n)]
    step = Followed(product, nest, tuple(s for j in sums if isinstance(s := steps[j], Call)))
    gone = {at, k, *sums, *before}
    steps[at:] = [*(steps[j] for j in before), step, *(steps[j] for j in range(at, len(steps)) if j not in gone)]
    return at + len(before)


def _reads(step: Step) -> set[int]:
    return {o.value for m in step.members for o in m.operands}


def _writes(step: Step) -> set[int]:
    if isinstance(step, Accumulate):
        return {step.operands[-1].value}
    return {v for m in step.members for v in m.outs}


def _needed(steps: Sequence[Step], at: int, k: int) -> list[int] | None:
    """The steps between two that the later one waits for; None if one of them cannot go before the first."""
    made = _writes(steps[at])
    wanted, found = _reads(steps[k]) - made, list[int]()
    for j in range(k - 1, at, -1):
        if _writes(steps[j]) & wanted:
            if not isinstance(steps[j], Straight | Nest) or _reads(steps[j]) & made:
                return None
            wanted |= _reads(steps[j])
            found.insert(0, j)
    return found


def may_fail(step: Step) -> bool:
    """Whether a step could end the run, or hold it up while others do something."""
    return isinstance(step, Call) and step.form.prim.kind is not Kind.CONTRACT


def _on_blocks(step: Step, product: int, m: int, n: int) -> Nest | None:
    """A nest as rows of a product, whose elements it reads one for one."""
    if not isinstance(step, Nest) or step.size != m * n or not all(member.wide for member in step.members):
        return None
    read = [o for member in step.members for o in member.operands if o.value == product]
    if any(o.offset or o.aval.size != step.size for o in read):
        return None
    if step.shape is not None and split(step.shape, step.partial, m) is None:
        return None
    nest = replace(step, rows=m)
    return nest if outer_of(nest)[0] == [m] else None


def _sums_columns(step: Step, nest: Nest, m: int, n: int) -> bool:
    """Whether a step reduces the columns of something that a nest makes."""
    if not isinstance(step, Call) or step.form.prim.kind is not Kind.REDUCE:
        return False
    (o,), (x,), axes = step.operands, step.form.avals, step.form.params["axes"]
    return o.value in nest.values and o.offset == 0 and x.size == m * n and axes == tuple(range(len(axes))) and (
        step.form.outs[0].size == n > 1)


def outs_of(step: Followed, others: set[int], kept: set[int]) -> tuple[list[int], int | None]:
    """The values that need memory, of which ``others`` read some and ``kept`` are results; and one of them in whose
    memory the product lies until it is written over, element by element."""
    summed = {o.value for s in step.sums for o in s.operands} | {v for s in step.sums for v in s.outs}
    outs = [v for m in step.members for v in m.outs if v in others | kept | summed]
    (product,), (aval,) = step.product.outs, step.product.form.outs
    if product in outs:
        return outs, None
    alike = {v for m in step.nest.members for v, a in zip(m.outs, m.form.outs, strict=True) if a.dtype == aval.dtype}
    read = {o.aval for m in step.nest.members for o in m.operands if o.value == product}
    over = next((v for v in outs if v in alike - kept), None) if len(read) == 1 else None
    return ([product, *outs], None) if over is None else (outs, over)


def walk_on_blocks(nest: Nest) -> Walk:
    """The walk of a nest along rows of blocks."""
    walk = walk_of(nest, set())
    return Walk(nest, walk.lanes, False, walk.turn)


# ---- text ------------------------------------------------------------------------------------------

class Blocks:
    """Writes what follows a block of a product, as a task of its own and what is left to do behind all blocks."""

    def __init__(self, step: Followed, walk: Walk, place: Place, written: Sequence[int],
                 functions: dict[str, str]) -> None:
        self.step, self.walk, self.place, self.written, self.functions = step, walk, place, written, functions
        self.m, self.n = step.nest.rows or 1, step.nest.length

    def task(self, text: Text) -> Text:
        """The task, for slot 3 of the product."""
        task = text.aside(text.fresh(f"{text.name}.block"), "i64 %words, i64 %index")
        words = task.set("inttoptr i64 %words to ptr")
        context = task.set(f"load ptr, ptr {words}, align 8")
        for k, name in enumerate(("table", "arena")):
            task.set(f"load ptr, ptr {task.set(f'getelementptr ptr, ptr {context}, i64 {k}')}, align 8", name)
        row, last, column, end = (task.set(
            f"load i64, ptr {task.set(f'getelementptr i64, ptr {words}, i64 {k}')}, align 8") for k in range(1, 5))
        writer = Writer(task, self.walk, lambda v: self.place(task, v), self.written)
        writer.block(row, last, column, end)
        if self.step.sums:
            self._sums_of_block(task, context, task.set(f"sub i64 {last}, {row}"), column, end)
        task.do("ret i64 0")
        return task

    def _sums_of_block(self, task: Text, context: str, rows: str, column: str, end: str) -> None:
        """Sums of the block's columns; of less than whole columns none, and a word of the context says so."""
        task.branch(task.set(f"icmp eq i64 {rows}, {self.m}"), "whole", "part")
        task.label("part")
        task.do(f"store atomic i64 1, ptr {task.set(f'getelementptr ptr, ptr {context}, i64 2')} monotonic, align 8")
        task.do("ret i64 0")
        task.label("whole")
        self._sums(task, column, task.set(f"sub i64 {end}, {column}"))

    def _sums(self, text: Text, column: str, columns: str) -> None:
        for step in self.step.sums:
            (o,), dtype = step.operands, step.form.outs[0].dtype
            x, out = (text.at(self.place(text, v), column, dtype) for v in (o.value, step.outs[0]))
            text.do(f"call i64 @{self._function(step.form)}(ptr {x}, ptr {out}, i64 {self.m}, i64 {self.n}, "
                    f"i64 {columns})")

    def _function(self, f: Form) -> str:
        name = f"columns.{f.prim.name}.{f.avals[0].dtype.name}"
        if name not in self.functions:
            text = Text(name, COLUMNS)
            columns_text(text, body_of(f.id), f.prim.init, f.avals[0].dtype)
            self.functions[name] = text.finish().replace("define ", "define internal ", 1)
        return name

    def rest(self, text: Text, context: str) -> None:
        """Behind all blocks: sums of columns that were cut."""
        word = text.set(f"load i64, ptr {text.set(f'getelementptr ptr, ptr {context}, i64 2')}, align 8")
        cut, after = text.fresh("cut"), text.fresh("summed")
        text.branch(text.set(f"icmp eq i64 {word}, 0"), after, cut)
        text.label(cut)
        self._sums(text, "0", str(self.n))
        text.goto(after)
        text.label(after)
