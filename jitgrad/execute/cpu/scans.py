"""Scans as vector text: a body folded along one axis, every partial result kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jitgrad.core.primitive import Primitive
from jitgrad.execute.cpu.lanes import LANES, Text, emit, register, splat, stored
from jitgrad.execute.cpu.reductions import reduction_init
from jitgrad.ops import scalar
from jitgrad.ops.scalar import FLOAT32, FLOAT64, Trace

WIDE = 8  # vectors of a block of columns
ROWS = 4  # rows that go along together, so that one's latency hides behind the others'


def widened(prim: Primitive, dtype: np.dtype[Any]) -> Trace:
    """The body in the dtype of the accumulator: float64 for float32."""
    wide = FLOAT64 if dtype == FLOAT32 else dtype
    return scalar.trace(prim.body, (wide,) * (1 + len(prim.operands)))


def scan_ir(name: str, trace: Trace, init: float | Callable[[np.dtype[Any]], float], dtype: Any) -> str:
    """Text of the kernel `name` that folds the body f(acc, x, ...) along the middle axis of C-contiguous arrays.

    params = [outer, n, inner, first, step, exclusive], slots = [output, operands], all of shape (outer, n, inner).
    The order is fixed: acc = init, then for k < n at place first + k step: acc = f(acc, x, ...); out = acc, or what
    it was before if exclusive. acc has the dtype of the trace, `out` rounds it to dtype.
    """
    return _Scan(name, trace, init, np.dtype(dtype)).text.finish()


class _Scan:
    """Writes the kernel: columns in vectors where inner > 1, else rows with every lane the same."""

    def __init__(self, name: str, trace: Trace, init: Any, dtype: np.dtype[Any]) -> None:
        self.text = text = Text(name)
        self.trace, self.dtype, self.wide = trace, dtype, trace.arguments[0]
        self.start = f"{text.vector(register(self.wide))} = {splat(reduction_init(init, self.wide), self.wide)}"
        self.narrow_kind, self.wide_kind = text.vector(register(dtype)), text.vector(register(self.wide))
        for i, word in enumerate(("outer", "n", "inner", "first", "step", "kept")):
            text.set(f"load i64, ptr {text.set(f'getelementptr i64, ptr %params, i64 {i}')}, align 8", word)
        self.pointers = []
        for i in range(len(trace.arguments)):
            slot = text.set(f"getelementptr ptr, ptr %slots, i64 {i}")
            self.pointers.append(text.set(f"load ptr, ptr {slot}, align 8"))
        text.set("icmp ne i64 %kept, 0", "exclusive")
        text.set("mul i64 %n, %inner", "plane")
        text.branch(text.set("icmp eq i64 %inner, 1"), "rows", "columns")
        text.label("rows")
        text.set(f"and i64 %outer, {-ROWS}", "whole")
        text.loop("some", "0", "%whole", ROWS, lambda row: self.rows(row, ROWS))
        text.loop("row", "%whole", "%outer", 1, lambda row: self.rows(row, 1))
        text.do("ret i64 0")
        text.label("columns")
        text.set(f"and i64 %inner, {-WIDE * LANES}", "wide")
        text.set(f"and i64 %inner, {-LANES}", "full")
        text.set("sub i64 %inner, %full", "rest")
        text.set("icmp ne i64 %rest, 0", "ragged")
        text.loop("slab", "0", "%outer", 1, self.slab)
        text.do("ret i64 0")

    def slab(self, slab: str) -> list[str]:
        """All columns of one index of the outer axes."""
        text = self.text
        base = text.set(f"mul i64 {slab}, %plane")

        def block(width: int, mask: str = "") -> Callable[[str], list[str]]:
            return lambda column: self.columns(text.set(f"add i64 {base}, {column}"), width, mask)
        text.loop("block", "0", "%wide", WIDE * LANES, block(WIDE))
        text.loop("few", "%wide", "%full", LANES, block(1))
        tail, done = text.fresh("tail"), text.fresh("done")
        text.branch("%ragged", tail, done)
        text.label(tail)
        block(1, text.first_lanes("%rest"))("%full")
        text.goto(done)
        text.label(done)
        return []

    def columns(self, begin: str, width: int, mask: str) -> list[str]:
        """`width` vectors of columns, or the lanes of a mask."""
        text, dtype = self.text, self.dtype
        buffer = text.stack(stored(dtype), LANES) if mask else ""

        def load(pointer: str) -> str:
            return text.load_some(pointer, mask, "zeroinitializer", dtype) if mask else text.load(pointer, dtype)

        def store(value: str, pointer: str) -> None:
            text.store(value, buffer if mask else pointer, dtype)
            if mask:
                text.store_some(pointer, mask, buffer, dtype)
        places = [str(LANES * j) for j in range(width)]
        return self.fold(begin, "%inner", places, load, store)

    def rows(self, row: str, width: int) -> list[str]:
        """`width` rows of inner = 1, each in all lanes of a vector of its own."""
        text, dtype = self.text, self.dtype
        lane = stored(dtype)

        def load(pointer: str) -> str:
            return text.broadcast(text.set(f"load {lane}, ptr {pointer}, align {dtype.itemsize}"), lane)

        def store(value: str, pointer: str) -> None:
            one = text.set(f"extractelement {self.narrow_kind} {value}, i64 0")
            text.do(f"store {lane} {one}, ptr {pointer}, align {dtype.itemsize}")
        places = ["0", *(text.set(f"mul i64 %n, {j}") for j in range(1, width))]
        return self.fold(text.set(f"mul i64 {row}, %n"), "1", places, load, store)

    def fold(self, begin: str, stride: str, places: list[str], load: Callable[[str], str],
             store: Callable[[str, str], None]) -> list[str]:
        """Independent chains at places beyond `begin`, an element every `stride`."""
        text, dtype = self.text, self.dtype
        widens = self.wide != dtype

        def step(k: str, *accs: str) -> list[str]:
            index = text.set(f"add i64 %first, {text.set(f'mul i64 {k}, %step')}")
            at = text.set(f"add i64 {begin}, {text.set(f'mul i64 {index}, {stride}')}")
            news = []
            for acc, place in zip(accs, places, strict=True):
                offset = text.set(f"add i64 {at}, {place}")
                xs = [load(text.at(pointer, offset, dtype)) for pointer in self.pointers[1:]]
                if widens:
                    xs = [text.set(f"fpext {self.narrow_kind} {x} to {self.wide_kind}") for x in xs]
                new = emit(text, self.trace, [acc, *xs])[0]
                kept = text.set(f"select i1 %exclusive, {self.wide_kind} {acc}, {self.wide_kind} {new}")
                if widens:
                    kept = text.set(f"fptrunc {self.wide_kind} {kept} to {self.narrow_kind}")
                store(kept, text.at(self.pointers[0], offset, dtype))
                news.append(new)
            return news

        text.loop("fold", "0", "%n", 1, step, *[self.start] * len(places))
        return []
