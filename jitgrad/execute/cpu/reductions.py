"""Reducing kernels as vector text, in one documented order whatever the shape's strides and the vectors' width."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from jitgrad.execute.cpu.lanes import LANES, Text, emit, register, splat, stored
from jitgrad.ops.scalar import FLOAT32, FLOAT64, Trace

# Parts of the documented order
CHUNK = 4096  # elements of a row folded in the dtype itself before partial results meet
BLOCK = 64  # the same of a column
GROUP = 8  # elements of a column folded as a tree

SHORT = 2  # vectors that hold a short row whole
FOLD = 4  # vectors of a full row of accumulators: 32 lanes
SEGMENT = 1024  # columns whose accumulators stay in the first cache


def reduction_ir(name: str, trace: Trace, init: float | Callable[[np.dtype[Any]], float], dtype: Any) -> str:
    """Text of the kernel `name` that folds the body f(acc, x) over the middle axis of a C-contiguous array.

    params = [outer, red, inner], slots = [output (outer, inner), operand (outer, red, inner)]. The order is fixed. For
    inner = 1, chunks of 4096: element i of a chunk goes to accumulator i % 32, and accumulators meet by halves (j with
    j + 16, then 8, 4, 2, 1). For inner > 1, blocks of 64 along `red`: eight elements meet by halves and go to the
    accumulator, the last red % 8 one by one. Accumulators start from init. Chunks and blocks meet in sequence, float32
    ones in float64. red = 0 gives init, which must be neutral: the body leaves an accumulator that met an element as it
    is when it meets init.
    """
    made = _Reduction(Text(name), trace, init, np.dtype(dtype))
    made.kernel()
    return made.text.finish()


COLUMNS = "ptr %x, ptr %out, i64 %red, i64 %inner, i64 %columns"


def columns_text(text: Text, trace: Trace, init: float | Callable[[np.dtype[Any]], float], dtype: Any) -> None:
    """Write a function of `COLUMNS`: the same fold of some columns of a matrix of ``red`` rows of ``inner``, in the
    same order."""
    text.lanes = LANES
    _Reduction(text, trace, init, np.dtype(dtype)).columns("%x", "%out", "%columns")
    text.do("ret i64 0")


def reduction_init(init: float | Callable[[np.dtype[Any]], float], dtype: np.dtype[Any]) -> float:
    """The starting value in a dtype."""
    return init(dtype) if callable(init) else init


class _Reduction:
    """Writes the kernel: rows of inner = 1, and blocks of columns of inner > 1."""

    def __init__(self, text: Text, trace: Trace, init: Any, dtype: np.dtype[Any]) -> None:
        self.text, self.loop = text, text.loop
        self.trace, self.dtype = trace, dtype
        self.wide = FLOAT64 if dtype == FLOAT32 else dtype
        self.across = trace.at(self.wide, self.wide) if dtype == FLOAT32 else trace
        self.init = splat(reduction_init(init, dtype), dtype)
        self.wide_init = splat(reduction_init(init, self.wide), self.wide)
        self.kind, self.wide_kind = text.vector(register(dtype)), text.vector(register(self.wide))

    def kernel(self) -> None:
        """The whole kernel."""
        text = self.text
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

    def chunks(
        self, start: str, size: int, totals: Iterable[str], partial: Callable[[str, str], list[str]]
    ) -> list[str]:
        """Meet the totals with the partial results of all chunks of a size from `start` on; narrow them."""

        def chunk(start: str, *totals: str) -> list[str]:
            return self.meet(start, totals, partial(start, self.least(self.text.set(f"sub i64 %red, {start}"), size)))

        totals = self.loop("chunk", start, "%red", size, chunk, *[f"{self.wide_kind} = {t}" for t in totals])
        return [self.narrowed(total) for total in totals]

    def least(self, value: str, bound: int) -> str:
        """The smaller of both."""
        text = self.text
        return text.set(f"select i1 {text.set(f'icmp slt i64 {value}, {bound}')}, i64 {value}, i64 {bound}")

    def narrowed(self, total: str) -> str:
        """A total in the dtype."""
        if self.wide == self.dtype:
            return total
        return self.text.set(f"fptrunc {self.wide_kind} {total} to {self.kind}")

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
        (result,) = self.chunks(pairs, CHUNK, totals, partial)
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

    def met(self, values: list[str]) -> str:
        """A power of two of values, by halves."""
        while len(values) > 1:
            half = len(values) // 2
            values = [self.fold(a, b) for a, b in zip(values[:half], values[half:], strict=True)]
        return values[0]

    def halves(self, accs: list[str]) -> str:
        """Lane j with j + 16, 8, 4, 2, 1; the result is in lane 0."""
        acc = self.met(accs)
        for distance in (4, 2, 1):
            lanes = ", ".join(f"i32 {(k + distance) % LANES}" for k in range(LANES))
            moved = self.text.set(f"shufflevector {self.kind} {acc}, {self.kind} {acc}, <{LANES} x i32> <{lanes}>")
            acc = self.fold(acc, moved)
        return acc

    def slab(self, slab: str) -> list[str]:
        """inner > 1."""
        text, dtype = self.text, self.dtype
        source = text.at("%x", text.set(f"mul i64 {slab}, %plane"), dtype)
        target = text.at("%out", text.set(f"mul i64 {slab}, %inner"), dtype)
        self.columns(source, target, "%inner")
        return []

    def columns(self, source: str, target: str, columns: str) -> None:
        """Columns in blocks of 32, or many at once where they are long; then the others, masked."""
        text, dtype = self.text, self.dtype
        whole = text.set(f"and i64 {columns}, {-FOLD * LANES}")
        results = text.stack(stored(dtype), LANES)

        def wide(column: str) -> list[str]:
            for j, total in enumerate(self.column_block(text.at(source, column, dtype), FOLD, None)):
                text.store(total, text.at(text.at(target, column, dtype), str(LANES * j), dtype), dtype)
            return []

        def many(column: str) -> list[str]:
            count = self.least(text.set(f"sub i64 {whole}, {column}"), SEGMENT)
            self.segment(text.at(source, column, dtype), text.at(target, column, dtype), count)
            return []

        def narrow(column: str) -> list[str]:
            count = self.least(text.set(f"sub i64 {columns}, {column}"), LANES)
            (total,) = self.column_block(text.at(source, column, dtype), 1, text.first_lanes(count))
            text.store(total, results, dtype)
            text.copy(text.at(target, column, dtype), results, count, dtype)
            return []

        long = text.set(f"icmp sgt i64 %red, {BLOCK}")
        self.loop("many", "0", text.set(f"select i1 {long}, i64 {whole}, i64 0"), SEGMENT, many)
        self.loop("wide", "0", text.set(f"select i1 {long}, i64 0, i64 {whole}"), FOLD * LANES, wide)
        self.loop("narrow", whole, columns, LANES, narrow)

    def rows_of(self, start: str, count: str) -> tuple[str, str]:
        """Where the groups of a block end, and where the block does."""
        grouped = self.text.set(f"and i64 {count}, {-GROUP}")
        return self.text.set(f"add i64 {start}, {grouped}"), self.text.set(f"add i64 {start}, {count}")

    def row_at(self, source: str, i: str) -> str:
        """Where row i begins."""
        return self.text.at(source, self.text.set(f"mul i64 {i}, %inner"), self.dtype)

    def some(self, pointer: str, mask: str | None) -> str:
        """A vector, or the lanes of it that a mask names."""
        text, dtype = self.text, self.dtype
        if mask is None:
            return text.load(pointer, dtype)
        raw = text.load_some(pointer, mask, "zeroinitializer", dtype)
        return raw if dtype.kind != "b" else text.set(f"icmp ne {text.vector('i8')} {raw}, zeroinitializer")

    def column_block(self, source: str, width: int, mask: str | None) -> list[str]:
        """A few vectors of columns, their accumulators in registers."""
        text, dtype = self.text, self.dtype

        def row(i: str) -> list[str]:
            pointer = self.row_at(source, i)
            return [self.some(text.at(pointer, str(LANES * j), dtype), mask) for j in range(width)]

        def partial(start: str, count: str) -> list[str]:
            grouped, stop = self.rows_of(start, count)

            def group(i: str, *accs: str) -> list[str]:
                rows = [row(text.set(f"add i64 {i}, {k}")) for k in range(GROUP)]
                columns = zip(*rows, strict=True)
                return [self.fold(acc, self.met(list(xs))) for acc, xs in zip(accs, columns, strict=True)]

            def single(i: str, *accs: str) -> list[str]:
                return [self.fold(acc, x) for acc, x in zip(accs, row(i), strict=True)]

            accs = self.loop("group", start, grouped, GROUP, group, *[f"{self.kind} = {self.init}"] * width)
            return self.loop("fold", grouped, stop, 1, single, *[f"{self.kind} = {acc}" for acc in accs])

        return self.chunks("0", BLOCK, [self.wide_init] * width, partial)

    def segment(self, source: str, target: str, columns: str) -> None:
        """Up to 1024 columns, their accumulators in memory, so that rows are read along."""
        text, dtype, wide = self.text, self.dtype, self.wide
        accs, totals = text.stack(stored(dtype), SEGMENT), text.stack(stored(wide), SEGMENT)

        def across(stem: str, body: Callable[[str], None]) -> list[str]:
            def step(c: str) -> list[str]:
                body(c)
                return []
            return self.loop(stem, "0", columns, LANES, step)

        def add(rows: list[str], c: str) -> None:
            x = self.met([text.load(text.at(row, c, dtype), dtype) for row in rows])
            place = text.at(accs, c, dtype)
            text.store(self.fold(text.load(place, dtype), x), place, dtype)

        def group(i: str) -> list[str]:
            rows = [self.row_at(source, text.set(f"add i64 {i}, {k}")) for k in range(GROUP)]
            return across("grouped", lambda c: add(rows, c))

        def single(i: str) -> list[str]:
            row = self.row_at(source, i)
            return across("along", lambda c: add([row], c))

        def block(start: str) -> list[str]:
            grouped, stop = self.rows_of(start, self.least(text.set(f"sub i64 %red, {start}"), BLOCK))

            def close(c: str) -> None:
                place = text.at(totals, c, wide)
                met = self.meet(start, [text.load(place, wide)], [text.load(text.at(accs, c, dtype), dtype)])
                text.store(met[0], place, wide)

            across("clear", lambda c: text.store(self.init, text.at(accs, c, dtype), dtype))
            self.loop("group", start, grouped, GROUP, group)
            self.loop("single", grouped, stop, 1, single)
            return across("close", close)

        def result(c: str) -> None:
            text.store(self.narrowed(text.load(text.at(totals, c, wide), wide)), text.at(target, c, dtype), dtype)

        self.loop("block", "0", "%red", BLOCK, block)
        across("result", result)

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
