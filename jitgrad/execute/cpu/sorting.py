"""Rows sorted, and rows of indices that sort: what their keys are, and how keys become elements and indices.

For processors that pack lanes in one instruction (AVX-512); others keep the entries' own kernels. Both give the same
bits: elements become integers in the order that `ops.sort` says, which leaves one way to sort them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jitgrad.core.form import Form
from jitgrad.execute.cpu import llvm
from jitgrad.execute.cpu.lanes import Text
from jitgrad.execute.cpu.quicksort import AHEAD, MANY, Rows


def applies(form: Form) -> bool:
    """Elements of four or eight bytes."""
    return form.avals[0].dtype.itemsize >= 4 and llvm.has_feature("avx512f")


def ir(name: str, entry: str, dtype: np.dtype[Any]) -> str:
    """Text of the kernel `name` in the place of an entry's own, with the same params: sizes, then outer, n, inner, ...,
    the ninth of them descending."""
    return {"sort": _Sort, "argsort": _Argsort}[entry](name, dtype).text()


class _Sort(Rows):
    """Rows of elements."""

    def __init__(self, name: str, dtype: np.dtype[Any]) -> None:
        super().__init__(name, dtype, dtype.itemsize)
        self.real = f"<{self.lanes} x double>" if dtype == np.float64 else ""

    def row(self) -> list[str]:
        text = self.function("void", "row", f"ptr %x, ptr %s, i64 %n, {self.int} %flip")
        flips = self.splat(text, "%flip")
        quick = f"call void @{self.name}.quick(ptr"
        depth = self.depth(text)
        text.branch(text.set(f"icmp sle i64 %n, {MANY}"), "short", "long")
        text.label("short")
        seen = self.each(text, "%x", "%s", lambda i, value: self.keyed(text, value, flips))
        text.do(f"{quick} %s, i64 %n, i64 {depth}, {self.int} %flip)")
        self.mend(text, seen)
        text.do("ret void")
        text.label("long")
        below, seen = self.deal(text, self.sample(text, "%x", 8, flips), flips)
        text.do(f"{quick} %s, i64 {below}, i64 {depth}, {self.int} %flip)")
        rest = text.set(f"sub i64 %n, {below}")
        text.do(f"{quick} {self.at(text, '%s', below)}, i64 {rest}, i64 {depth}, {self.int} %flip)")
        self.mend(text, seen)
        text.do("ret void")
        return [self.finish(text)]

    def deal(self, text: Text, pivot: str, flips: str) -> tuple[str, list[str]]:
        """The elements as keys, those below the pivot first: how many, and how many -0, 0, and NaN."""
        pivot = self.splat(text, pivot)
        step = AHEAD * self.lanes

        def key(value: str, inside: str, state: list[str]) -> list[str]:
            value, *more = self.keyed(text, value, flips)
            seen = [text.set(f"add i64 {a}, {self.count(text, self.both(text, b, inside) if inside else b)}")
                    for a, b in zip(state[2:], more, strict=True)]
            return [*self.pack(text, value, self.compare(text, "slt", value, pivot), inside, *state[:2]), *seen]

        def block(i: str, *state: str) -> list[str]:
            values = [self.load(text, self.at(text, "%x", text.set(f"add i64 {i}, {k * self.lanes}")))
                      for k in range(AHEAD)]
            now = list(state)
            for value in values:
                now = key(value, "", now)
            return now

        def tail(i: str, *state: str) -> list[str]:
            inside = self.first(text, text.set(f"sub i64 %n, {i}"))
            return key(self.fetched(text, "%x", i, inside), inside, list(state))
        whole = text.set(f"and i64 {text.set(f'sub i64 %n, {self.lanes}')}, {-step}")
        state = text.loop("block", "0", whole, step, block, "i64 = 0", "i64 = %n", *["i64 = 0"] * 3)
        below, _, *seen = text.loop("tail", whole, "%n", self.lanes, tail, *(f"i64 = {c}" for c in state))
        return below, seen

    def mend(self, text: Text, seen: list[str]) -> None:
        """NaN goes last; zeros, where they are of both signs, go in the order in which x has them."""
        if self.dtype.kind != "f":
            return
        minus, plus, nan = seen
        kind = self.int

        def last(j: str) -> list[str]:
            text.do(f"store {kind} {self.magnitude}, ptr {self.at(text, '%s', j)}, align {self.width}")
            return []
        text.loop("nan", text.set(f"sub i64 %n, {nan}"), "%n", 1, last)
        mixed = text.set(f"and i1 {text.set(f'icmp ne i64 {minus}, 0')}, {text.set(f'icmp ne i64 {plus}, 0')}")
        both, done = text.fresh("both"), text.fresh("done")
        text.branch(mixed, both, done)
        text.label(both)

        def zero_at(pointer: str, j: str) -> tuple[str, str]:
            bits = text.set(f"load {kind}, ptr {self.at(text, pointer, j)}, align {self.width}")
            return bits, text.set(f"icmp eq {kind} {text.set(f'shl {kind} {bits}, 1')}, 0")

        def first(j: str, least: str) -> list[str]:
            place = text.set(f"select i1 {zero_at('%s', j)[1]}, i64 {j}, i64 %n")
            return [self.call(text, "i64", "llvm.smin.i64", f"i64 {least}", f"i64 {place}")]

        def zero(j: str, place: str) -> list[str]:
            bits, found = zero_at("%x", j)
            inside = self.call(text, "i64", "llvm.smin.i64", f"i64 {place}", f"i64 {text.set('sub i64 %n, 1')}")
            target = self.at(text, "%s", inside)
            old = text.set(f"load {kind}, ptr {target}, align {self.width}")
            text.do(f"store {kind} {text.set(f'select i1 {found}, {kind} {bits}, {kind} {old}')}, ptr {target}, "
                    f"align {self.width}")
            return [text.set(f"add i64 {place}, {text.set(f'zext i1 {found} to i64')}")]
        begin, = text.loop("first", "0", "%n", 1, first, "i64 = %n")
        text.loop("zero", "0", "%n", 1, zero, f"i64 = {begin}")
        text.goto(done)
        text.label(done)


class _Argsort(Rows):
    """Rows of words: the key of an element, its low bits replaced by the index, which gives one order.

    Keys of eight bytes may differ in the replaced bits alone: then each run of such words is sorted by these bits.
    """

    def __init__(self, name: str, dtype: np.dtype[Any]) -> None:
        super().__init__(name, dtype, 8)
        self.whole = dtype.itemsize < 8

    def element(self, text: Text, key: str, flips: str) -> str:
        """The index; while runs are to be found, the word."""
        return text.set(f"and {self.vector} {key}, {flips}")

    def fetched(self, text: Text, source: str, i: str, inside: str) -> str:
        if source != "%x" or not self.whole:
            return super().fetched(text, source, i, inside)
        half = f"<{self.lanes} x i32>"
        value = self.call(text, half, f"llvm.masked.load.v{self.lanes}i32.p0",
                          f"ptr {self.element_at(text, source, i)}", "i32 4", f"{self.mask} {inside}",
                          f"{half} zeroinitializer")
        return text.set(f"sext {half} {value} to {self.vector}")

    def ordered(self, text: Text, value: str, flips: str) -> str:
        """The key: both zeros 0, NaN greatest."""
        if self.dtype.kind != "f":
            return text.set(f"xor {self.vector} {value}, {flips}")
        nonzero = self.compare(text, "ne", value, self.constant(-self.magnitude - 1))
        key = self.select(text, nonzero, self.folded(text, value), "zeroinitializer")
        key = text.set(f"xor {self.vector} {key}, {flips}")
        return self.select(text, self.nan(text, value), self.constant(self.magnitude), key)

    def indices(self, text: Text, i: str) -> str:
        lanes = ", ".join(f"i64 {k}" for k in range(self.lanes))
        return text.set(f"add {self.vector} {self.splat(text, i)}, <{lanes}>")

    def row(self) -> list[str]:
        text = self.function("void", "row", "ptr %x, ptr %s, i64 %n, i64 %flip")
        flips = self.splat(text, "%flip")
        last = text.set("sub i64 %n, 1")
        taken = text.set(f"sub i64 64, {self.call(text, 'i64', 'llvm.ctlz.i64', f'i64 {last}', 'i1 false')}", "taken")
        index = text.set(f"sub i64 {text.set(f'shl i64 1, {taken}')}, 1")
        kept = self.splat(text, text.set(f"xor i64 {index}, -1"))

        def word(i: str, value: str) -> str:
            key = self.ordered(text, value, flips)
            if self.whole:
                key = text.set(f"shl {self.vector} {key}, {self.constant(32)}")
            return text.set(f"or {self.vector} {text.set(f'and {self.vector} {key}, {kept}')}, {self.indices(text, i)}")
        self.each(text, "%x", "%s", word)
        quick = f"call void @{self.name}.quick(ptr %s, i64 %n, i64 {self.depth(text)}, i64"
        if self.whole:
            text.do(f"{quick} {index})")
            text.do("ret void")
            return [self.finish(text)]
        text.do(f"{quick} -1)")
        text.do(f"call void @{self.name}.runs(ptr %x, ptr %s, i64 %n, i64 %flip, i64 {taken}, i64 {index})")
        text.do("ret void")
        return [self.lower(), self.runs(), self.finish(text)]

    def lower(self) -> str:
        """Words whose keys differ in the replaced bits alone: these bits, as signed ones, above the index."""
        text = self.function("void", "lower", "ptr %x, ptr %s, i64 %n, i64 %flip, i64 %taken, i64 %index")
        flips, index, least = (self.splat(text, a) for a in ("%flip", "%index", str(-self.greatest - 1)))
        shift = self.splat(text, text.set("sub i64 64, %taken"))
        gather = f"llvm.masked.gather.{self.suffix}.v{self.lanes}p0"

        def word(i: str, value: str) -> str:
            at = text.set(f"and {self.vector} {value}, {index}")
            places = text.set(f"getelementptr {self.int}, ptr %x, {self.vector} {at}")
            left = text.set(f"sub i64 %n, {i}")
            found = self.call(text, self.vector, gather, f"<{self.lanes} x ptr> {places}", "i32 8",
                              f"{self.mask} {self.first(text, left)}", f"{self.vector} zeroinitializer")
            low = text.set(f"shl {self.vector} {self.ordered(text, found, flips)}, {shift}")
            return text.set(f"or {self.vector} {text.set(f'xor {self.vector} {low}, {least}')}, {at}")
        self.each(text, "%s", "%s", word)
        text.do("ret void")
        return self.finish(text)

    def runs(self) -> str:
        """Sort each run of words that differ in their indices alone; then leave the indices."""
        text = self.function("void", "runs", "ptr %x, ptr %s, i64 %n, i64 %flip, i64 %taken, i64 %index")
        index = self.splat(text, "%index")
        last = text.set("sub i64 %n, 1")
        depth = self.depth(text)

        def same(i: str, found: str) -> list[str]:
            inside = self.first(text, text.set(f"sub i64 {last}, {i}"))
            a, b = (self.load_some(text, self.at(text, "%s", j), inside, self.constant(0))
                    for j in (i, text.set(f"add i64 {i}, 1")))
            near = self.compare(text, "ule", text.set(f"xor {self.vector} {a}, {b}"), index)
            return [text.set(f"add i64 {found}, {self.count(text, self.both(text, near, inside))}")]
        found, = text.loop("same", "0", last, self.lanes, same, "i64 = 0")
        text.branch(text.set(f"icmp eq i64 {found}, 0"), "distinct", "equal")
        text.label("equal")

        def word(i: str) -> str:
            return text.set(f"load i64, ptr {self.at(text, '%s', i)}, align 8")

        def end(i: str, first: str, before: str) -> list[str]:
            """A run ends before i, where the word is of another run or n is reached."""
            inside = text.set(f"icmp slt i64 {i}, %n")
            now = word(self.call(text, "i64", "llvm.smin.i64", f"i64 {i}", f"i64 {last}"))
            near = text.set(f"icmp ule i64 {text.set(f'xor i64 {now}, {before}')}, %index")
            begun = text.block
            run, sort, ended, on = (text.fresh(s) for s in ("run", "sort", "ended", "on"))
            text.branch(text.set(f"and i1 {inside}, {near}"), on, run)
            text.label(run)
            many = text.set(f"sub i64 {i}, {first}")
            text.branch(text.set(f"icmp sgt i64 {many}, 1"), sort, ended)
            text.label(sort)
            s = self.at(text, "%s", first)
            text.do(f"call void @{self.name}.lower(ptr %x, ptr {s}, i64 {many}, i64 %flip, i64 %taken, i64 %index)")
            text.do(f"call void @{self.name}.quick(ptr {s}, i64 {many}, i64 {depth}, i64 -1)")
            text.goto(ended)
            text.label(ended)
            text.goto(on)
            text.label(on)
            return [text.set(f"phi i64 [{first}, %{begun}], [{i}, %{ended}]"), now]
        text.loop("end", "1", text.set("add i64 %n, 1"), 1, end, "i64 = 0", f"i64 = {word('0')}")
        text.goto("distinct")
        text.label("distinct")
        self.each(text, "%s", "%s", lambda i, value: text.set(f"and {self.vector} {value}, {index}"))
        text.do("ret void")
        return self.finish(text)
