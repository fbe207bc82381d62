"""Kernels as vector text: elementwise maps and reductions.

Every kernel is `define i64 @NAME(ptr %params, ptr %slots)`: `params` are int64 words, `slots` pointers, outputs
first; it returns 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from jitgrad.execute.cpu import llvm
from jitgrad.execute.cpu.lanes import LANES, Text, emit, module, register, splat, stored
from jitgrad.ops.scalar import FLOAT32, FLOAT64, Trace

__all__ = ["CHUNK", "elementwise_ir", "module", "reduction_ir", "width"]

CHUNK = 4096  # elements summed in the dtype itself before partial results meet: part of the documented order
SHORT = 2  # vectors that hold a short row whole
FOLD = 4  # vectors of a full row of accumulators: 32 lanes
WIDE = 16  # lanes of a long float32 body where registers have 512 bits
LONG_BODY = 12  # nodes; a shorter body waits for memory anyway
MANY = 256  # elements from which on wide vectors are used: one 512-bit operation slows its neighbours in small calls


def width(trace: Trace) -> int:
    """The lanes to build an elementwise body with; any number gives the same bits."""
    always, branches = [], 0
    for node in trace.nodes:
        branches += (node.op == "branch") - (node.op == "merge" and node.immediate[1] == 0)
        if not branches:
            always.append(node)
    long = sum(node.op not in ("const", "argument") for node in always) >= LONG_BODY
    narrow = all(node.dtype.itemsize <= 4 for node in always)
    return WIDE if long and narrow and llvm.has_feature("avx512f") else LANES


def elementwise_ir(name: str, trace: Trace, lanes: int | None = None) -> str:
    """Text of the kernel `name` that maps the body over n elements: one loop, entered once more for the last few, and
    before it one of wider vectors where there are many elements and that is faster.

    params = [n, step_0, ..., step_k-1]: step 1 walks the operand, step 0 holds its one value. slots = outputs,
    operands. An output may be exactly the memory of an operand, since a vector is loaded whole before one is stored.
    """
    text = Text(name)
    wide = lanes or width(trace)
    outputs = [f"%o{j}" for j in range(len(trace.results))]
    operands = [f"%a{k}" for k in range(len(trace.arguments))]
    _given(text, trace, outputs, operands, ".all" if wide > LANES else "")
    if wide > LANES:
        _wide_loop(text, trace, outputs, operands, wide)
    buffers = [text.stack(stored(dtype), LANES) for dtype in (*trace.dtypes, *trace.arguments)]
    targets, sources = buffers[: len(outputs)], buffers[len(outputs) :]

    text.branch(text.set("icmp sgt i64 %n, 0"), "start", "exit")
    text.label("start")
    for k, dtype in enumerate(trace.arguments):
        _source(text, k, operands[k], dtype, sources[k])
    text.set(f"and i64 %n, {-LANES}", "whole")
    text.set("sub i64 %n, %whole", "rest")
    text.set(f"sdiv exact i64 %whole, {LANES}", "rounds")
    text.branch(text.set("icmp ne i64 %whole, 0"), "loop", "short")
    text.label("short")  # n < 8; the buffers hold the first element already, all there is when n = 1
    text.branch(text.set("icmp eq i64 %n, 1"), "ready", "tail")
    text.label("tail")
    mask = text.first_lanes("%rest")
    for k, dtype in enumerate(trace.arguments):
        walks = text.set(f"select i1 %fixed{k}, {text.vector('i1')} zeroinitializer, {text.vector('i1')} {mask}")
        place = text.at(operands[k], text.set(f"mul i64 %whole, %step{k}"), dtype)
        last = text.load_some(place, walks, f"%first{k}", dtype)
        text.do(f"store {text.vector(stored(dtype))} {last}, ptr {sources[k]}, align 8")
    text.goto("ready")
    text.label("ready")
    text.goto("loop")

    text.label("loop")
    walk = [(f"%po{j}", o, targets[j]) for j, o in enumerate(outputs)]
    walk += [(f"%pa{k}", f"%from{k}", sources[k]) for k in range(len(operands))]
    at = len(text.lines)  # the phis need the last block of the body, known after it
    results = emit(text, trace, [text.load(f"%pa{k}", dtype) for k, dtype in enumerate(trace.arguments)])
    for j, dtype in enumerate(trace.dtypes):
        text.store(results[j], f"%po{j}", dtype)
    for j, dtype in enumerate(trace.dtypes):
        text.set(f"getelementptr i8, ptr %po{j}, i64 {LANES * dtype.itemsize}", f"po{j}.next")
    for k in range(len(operands)):
        text.set(f"getelementptr i8, ptr %pa{k}, i64 %stride{k}", f"pa{k}.next")
    text.set("sub i64 %left, 1", "left.next")
    last = text.block
    text.branch(text.set("icmp ne i64 %left.next, 0"), "loop", "done")
    phis = [f"  %left = phi i64 [%rounds, %start], [%left.next, %{last}], [1, %ready]"]
    phis += [f"  %ending = phi i1 [false, %start], [%ending, %{last}], [true, %ready]"]
    phis += [f"  {p} = phi ptr [{first}, %start], [{p}.next, %{last}], [{buffer}, %ready]" for p, first, buffer in walk]
    text.lines[at:at] = phis

    text.label("done")
    text.branch("%ending", "flush", "more")
    text.label("more")
    text.branch(text.set("icmp eq i64 %rest, 0"), "exit", "tail")
    text.label("flush")
    text.branch(text.set("icmp eq i64 %rest, 1"), "single", "several")
    text.label("single")  # a masked store would not forward to the load of the next kernel
    for j, dtype in enumerate(trace.dtypes):
        text.copy_one(text.at(outputs[j], "%whole", dtype), targets[j], dtype)
    text.goto("exit")
    text.label("several")
    mask = text.first_lanes("%rest")
    for j, dtype in enumerate(trace.dtypes):
        text.store_some(text.at(outputs[j], "%whole", dtype), mask, targets[j], dtype)
    text.goto("exit")
    text.label("exit")
    text.do("ret i64 0")
    return text.finish()


def _given(text: Text, trace: Trace, outputs: list[str], operands: list[str], suffix: str) -> None:
    """Read the params and slots; the suffix is of the names of what a wide loop would advance."""
    text.set("load i64, ptr %params, align 8", "n" + suffix)
    for j, pointer in enumerate([*outputs, *operands]):
        slot = text.set(f"getelementptr ptr, ptr %slots, i64 {j}")
        text.set(f"load ptr, ptr {slot}, align 8", pointer[1:] + suffix)
    for k in range(len(trace.arguments)):
        word = text.set(f"getelementptr i64, ptr %params, i64 {1 + k}")
        text.set(f"load i64, ptr {word}, align 8", f"step{k}")


def _source(text: Text, k: int, operand: str, dtype: np.dtype[Any], buffer: str, stem: str = "") -> None:
    """Where operand k is read, %from (step 0: a buffer full of its first value), and the %stride between vectors."""
    lane = stored(dtype)
    first = text.set(f"load {lane}, ptr {operand}, align {dtype.itemsize}")
    text.broadcast(first, lane, f"{stem}first{k}")
    text.do(f"store {text.vector(lane)} %{stem}first{k}, ptr {buffer}, align 8")
    text.set(f"icmp eq i64 %step{k}, 0", f"{stem}fixed{k}")
    text.set(f"select i1 %{stem}fixed{k}, ptr {buffer}, ptr {operand}", f"{stem}from{k}")
    text.set(f"mul i64 %step{k}, {text.lanes * dtype.itemsize}", f"{stem}stride{k}")


def _wide_loop(text: Text, trace: Trace, outputs: list[str], operands: list[str], lanes: int) -> None:
    """Whole vectors of so many lanes; names %n and the pointers of what they leave."""
    before, text.lanes = text.block, lanes
    text.branch(text.set(f"icmp sge i64 %n.all, {MANY}"), "wide", "narrow")
    text.label("wide")
    text.set(f"and i64 %n.all, {-lanes}", "wide.whole")
    for k, dtype in enumerate(trace.arguments):
        _source(text, k, f"{operands[k]}.all", dtype, text.stack(stored(dtype), lanes), "wide.")
    walk = [(o, f"{o}.all", str(lanes * dtype.itemsize)) for o, dtype in zip(outputs, trace.dtypes, strict=True)]
    walk += [(a, f"%wide.from{k}", f"%wide.stride{k}") for k, a in enumerate(operands)]
    text.goto("wide.loop")
    text.label("wide.loop")
    at = len(text.lines)
    loaded = [text.load(f"{a}.at", dtype) for a, dtype in zip(operands, trace.arguments, strict=True)]
    for result, o, dtype in zip(emit(text, trace, loaded), outputs, trace.dtypes, strict=True):
        text.store(result, f"{o}.at", dtype)
    for pointer, _, stride in walk:
        text.set(f"getelementptr i8, ptr {pointer}.at, i64 {stride}", f"{pointer[1:]}.on")
    text.set(f"sub i64 %wide.left, {lanes}", "wide.rest")
    last = text.block
    phis = [f"  {p}.at = phi ptr [{first}, %wide], [{p}.on, %{last}]" for p, first, _ in walk]
    text.lines[at:at] = [f"  %wide.left = phi i64 [%wide.whole, %wide], [%wide.rest, %{last}]", *phis]
    text.branch(text.set("icmp ne i64 %wide.rest, 0"), "wide.loop", "wide.end")
    text.label("wide.end")
    for k, a in enumerate(operands):
        text.set(f"select i1 %wide.fixed{k}, ptr {a}.all, ptr {a}.on", f"{a[1:]}.end")
    text.set("sub i64 %n.all, %wide.whole", "n.end")
    text.goto("narrow")
    text.label("narrow")
    text.lanes = LANES
    text.set(f"phi i64 [%n.all, %{before}], [%n.end, %wide.end]", "n")
    for pointers, end in ((outputs, "on"), (operands, "end")):
        for p in pointers:
            text.set(f"phi ptr [{p}.all, %{before}], [{p}.{end}, %wide.end]", p[1:])


def reduction_ir(name: str, trace: Trace, init: float | Callable[[np.dtype[Any]], float], dtype: Any) -> str:
    """Text of the kernel `name` that folds the body f(acc, x) over the middle axis of a C-contiguous array.

    params = [outer, red, inner], slots = [output (outer, inner), operand (outer, red, inner)]. The order is fixed:
    chunks of 4096 along `red`; for inner = 1 element i of a chunk goes to accumulator i % 32, and accumulators meet by
    halves (j with j + 16, then 8, 4, 2, 1); for inner > 1 a chunk is folded in sequence. Accumulators start from init.
    Chunks meet in sequence, float32 ones in float64. red = 0 gives init, which must be neutral: the body leaves an
    accumulator that met an element as it is when it meets init.
    """
    return _Reduction(name, trace, init, np.dtype(dtype)).text.finish()


def reduction_init(init: float | Callable[[np.dtype[Any]], float], dtype: np.dtype[Any]) -> float:
    """The starting value in a dtype."""
    return init(dtype) if callable(init) else init


class _Reduction:
    """Writes the kernel: rows of inner = 1, and blocks of columns of inner > 1."""

    def __init__(self, name: str, trace: Trace, init: Any, dtype: np.dtype[Any]) -> None:
        self.text = text = Text(name)
        self.loop = text.loop
        self.trace, self.dtype = trace, dtype
        self.wide = FLOAT64 if dtype == FLOAT32 else dtype
        self.across = trace.at(self.wide, self.wide) if dtype == FLOAT32 else trace
        self.init = splat(reduction_init(init, dtype), dtype)
        self.wide_init = splat(reduction_init(init, self.wide), self.wide)
        self.kind, self.wide_kind = text.vector(register(dtype)), text.vector(register(self.wide))
        for i, word in enumerate(("outer", "red", "inner")):
            text.set(f"load i64, ptr {text.set(f'getelementptr i64, ptr %params, i64 {i}')}, align 8", word)
        text.set("load ptr, ptr %slots, align 8", "out")
        text.set(f"load ptr, ptr {text.set('getelementptr ptr, ptr %slots, i64 1')}, align 8", "x")
        text.set("mul i64 %red, %inner", "plane")
        text.branch(text.set("icmp eq i64 %inner, 1"), "rows", "columns")
        text.label("rows")
        text.branch(text.set(f"icmp sle i64 %red, {SHORT * LANES}"), "short", "long")
        text.label("short")
        self.loop("line", "0", "%outer", 1, self.short_row)
        text.do("ret i64 0")
        text.label("long")
        self.loop("row", "0", "%outer", 1, self.row)
        text.do("ret i64 0")
        text.label("columns")
        self.loop("slab", "0", "%outer", 1, self.slab)
        text.do("ret i64 0")

    def fold(self, acc: str, x: str) -> str:
        return emit(self.text, self.trace, [acc, x])[0]

    def meet(self, start: str, totals: Iterable[str], parts: Iterable[str]) -> list[str]:
        """Fold the partial results of the chunk at `start` into the totals, in the wide dtype."""
        text = self.text
        first = text.set(f"icmp eq i64 {start}, 0")
        results = []
        for total, part in zip(totals, parts, strict=True):
            if self.wide != self.dtype:
                part = text.set(f"fpext {self.kind} {part} to {self.wide_kind}")
            met = emit(text, self.across, [total, part])[0]
            results.append(text.set(f"select i1 {first}, {self.wide_kind} {part}, {self.wide_kind} {met}"))
        return results

    def chunks(self, start: str, totals: Iterable[str], partial: Callable[[str, str], list[str]]) -> list[str]:
        """Meet the totals with the partial results of all chunks from `start` on; narrow them."""
        text = self.text

        def chunk(start: str, *totals: str) -> list[str]:
            left = text.set(f"sub i64 %red, {start}")
            count = text.set(f"select i1 {text.set(f'icmp slt i64 {left}, {CHUNK}')}, i64 {left}, i64 {CHUNK}")
            return self.meet(start, totals, partial(start, count))

        totals = self.loop("chunk", start, "%red", CHUNK, chunk, *[f"{self.wide_kind} = {t}" for t in totals])
        if self.wide == self.dtype:
            return totals
        return [text.set(f"fptrunc {self.wide_kind} {total} to {self.kind}") for total in totals]

    def row(self, row: str) -> list[str]:
        """inner = 1: one result of a contiguous row. Whole chunks are read two at a time, which a memory of small pages
        needs to give all it can; their order is that of one at a time."""
        text, dtype = self.text, self.dtype
        begin = text.set(f"mul i64 {row}, %red")
        base = text.at("%x", begin, dtype)
        reach = text.set(f"sub i64 {text.set('mul i64 %outer, %red')}, {begin}")
        buffer = text.stack(stored(dtype), FOLD * LANES)

        def vectors(pointer: str) -> list[str]:
            return [text.load(text.at(pointer, str(LANES * j), dtype), dtype) for j in range(FOLD)]

        def whole_blocks(chunks: list[str], stop: str) -> list[str]:
            def step(i: str, *accs: str) -> list[str]:
                xs = [x for chunk in chunks for x in vectors(text.at(chunk, i, dtype))]
                return [self.fold(acc, x) for acc, x in zip(accs, xs, strict=True)]

            start = [f"{self.kind} = {self.init}"] * FOLD * len(chunks)
            return self.loop("fold", "0", stop, FOLD * LANES, step, *start)

        def pair(start: str, total: str) -> list[str]:
            second = text.set(f"add i64 {start}, {CHUNK}")
            accs = whole_blocks([text.at(base, start, dtype), text.at(base, second, dtype)], str(CHUNK))
            totals = self.meet(start, [total], [self.halves(accs[:FOLD])])
            return self.meet(second, totals, [self.halves(accs[FOLD:])])

        def partial(start: str, count: str) -> list[str]:
            chunk = text.at(base, start, dtype)
            whole = text.set(f"and i64 {count}, {-FOLD * LANES}")
            rest = text.set(f"sub i64 {count}, {whole}")
            accs = whole_blocks([chunk], whole)

            def remaining() -> list[str]:
                offset = text.set(f"add i64 {start}, {whole}")
                last = text.at(base, offset, dtype)
                return vectors(self.inside(last, offset, FOLD * LANES, reach, rest, buffer))

            return [self.halves(self.masked(accs, rest, remaining))]

        pairs = text.set(f"and i64 %red, {-2 * CHUNK}")
        totals = self.loop("pair", "0", pairs, 2 * CHUNK, pair, f"{self.wide_kind} = {self.wide_init}")
        (result,) = self.chunks(pairs, totals, partial)
        self.put(result, row)
        return []

    def short_row(self, row: str) -> list[str]:
        """A row that fills no more than the first accumulators: the others keep the neutral start, so meeting them
        changes no bit and is left out."""
        text, dtype = self.text, self.dtype
        begin = text.set(f"mul i64 {row}, %red")
        reach = text.set(f"sub i64 {text.set('mul i64 %outer, %red')}, {begin}")
        buffer = text.stack(stored(dtype), SHORT * LANES)
        place = self.inside(text.at("%x", begin, dtype), "0", SHORT * LANES, reach, "%red", buffer)
        accs = []
        for j in range(SHORT):
            new = self.fold(self.init, text.load(text.at(place, str(LANES * j), dtype), dtype))
            mask = text.first_lanes("%red", LANES * j)
            accs.append(text.set(f"select {text.vector('i1')} {mask}, {self.kind} {new}, {self.kind} {self.init}"))
        self.put(self.halves(accs), row)
        return []

    def put(self, result: str, row: str) -> None:
        """Store lane 0 as the result of a row."""
        text, dtype = self.text, self.dtype
        lane = text.set(f"extractelement {self.kind} {result}, i64 0")
        if dtype.kind == "b":
            lane = text.set(f"zext i1 {lane} to i8")
        text.do(f"store {stored(dtype)} {lane}, ptr {text.at('%out', row, dtype)}, align {dtype.itemsize}")

    def masked(self, accs: list[str], rest: str, load: Callable[[], list[str]]) -> list[str]:
        """The last rest < 32 elements: only their own accumulators change."""
        text = self.text
        before, some, join = text.block, text.fresh("some"), text.fresh("join")
        text.branch(text.set(f"icmp eq i64 {rest}, 0"), join, some)
        text.label(some)
        updated = []
        for j, (acc, x) in enumerate(zip(accs, load(), strict=True)):
            mask = text.first_lanes(rest, LANES * j)
            new = self.fold(acc, x)
            updated.append(text.set(f"select {text.vector('i1')} {mask}, {self.kind} {new}, {self.kind} {acc}"))
        last = text.block
        text.goto(join)
        text.label(join)
        pairs = zip(accs, updated, strict=True)
        return [text.set(f"phi {self.kind} [{a}, %{before}], [{b}, %{last}]") for a, b in pairs]

    def halves(self, accs: list[str]) -> str:
        """Lane j with j + 16, 8, 4, 2, 1; the result is in lane 0."""
        while len(accs) > 1:
            half = len(accs) // 2
            accs = [self.fold(a, b) for a, b in zip(accs[:half], accs[half:], strict=True)]
        (acc,) = accs
        for distance in (4, 2, 1):
            lanes = ", ".join(f"i32 {(k + distance) % LANES}" for k in range(LANES))
            moved = self.text.set(f"shufflevector {self.kind} {acc}, {self.kind} {acc}, <{LANES} x i32> <{lanes}>")
            acc = self.fold(acc, moved)
        return acc

    def slab(self, slab: str) -> list[str]:
        """inner > 1: columns in blocks of 32, then of 8, the last of them partly filled."""
        text, dtype = self.text, self.dtype
        source = text.at("%x", text.set(f"mul i64 {slab}, %plane"), dtype)
        target = text.at("%out", text.set(f"mul i64 {slab}, %inner"), dtype)
        whole = text.set(f"and i64 %inner, {-FOLD * LANES}")
        buffer = text.stack(stored(dtype), LANES)
        results = text.stack(stored(dtype), LANES)

        def wide(column: str) -> list[str]:
            totals = self.column_block(text.at(source, column, dtype), FOLD, lambda pointer, _: pointer)
            for j, total in enumerate(totals):
                text.store(total, text.at(text.at(target, column, dtype), str(LANES * j), dtype), dtype)
            return []

        def narrow(column: str) -> list[str]:
            left = text.set(f"sub i64 %inner, {column}")
            count = text.set(f"select i1 {text.set(f'icmp slt i64 {left}, {LANES}')}, i64 {left}, i64 {LANES}")
            reach = text.set(f"sub i64 %plane, {column}")

            def place(pointer: str, offset: str) -> str:
                return self.inside(pointer, offset, LANES, reach, count, buffer)

            (total,) = self.column_block(text.at(source, column, dtype), 1, place)
            text.store(total, results, dtype)
            text.copy(text.at(target, column, dtype), results, count, dtype)
            return []

        self.loop("wide", "0", whole, FOLD * LANES, wide)
        self.loop("narrow", whole, "%inner", LANES, narrow)
        return []

    def column_block(self, source: str, width: int, place: Callable[[str, str], str]) -> list[str]:
        text, dtype = self.text, self.dtype

        def partial(start: str, count: str) -> list[str]:
            stop = text.set(f"add i64 {start}, {count}")

            def step(i: str, *accs: str) -> list[str]:
                offset = text.set(f"mul i64 {i}, %inner")
                pointer = place(text.at(source, offset, dtype), offset)
                xs = [text.load(text.at(pointer, str(LANES * j), dtype), dtype) for j in range(width)]
                return [self.fold(acc, x) for acc, x in zip(accs, xs, strict=True)]

            return self.loop("fold", start, stop, 1, step, *[f"{self.kind} = {self.init}"] * width)

        return self.chunks("0", [self.wide_init] * width, partial)

    def inside(self, pointer: str, offset: str, span: int, reach: str, count: str, buffer: str) -> str:
        """Where `span` elements from `pointer` can be read: there, if they end within reach, else in a copy."""
        text = self.text
        before, near, join = text.block, text.fresh("near"), text.fresh("join")
        end = text.set(f"add i64 {offset}, {span}")
        text.branch(text.set(f"icmp sle i64 {end}, {reach}"), join, near)
        text.label(near)
        text.copy(buffer, pointer, count, self.dtype)
        last = text.block
        text.goto(join)
        text.label(join)
        return text.set(f"phi ptr [{pointer}, %{before}], [{buffer}, %{last}]")
