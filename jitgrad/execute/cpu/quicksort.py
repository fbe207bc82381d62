"""Quicksort in registers that packs the lanes of each vector to their side, and the kernel that goes through rows.

Along an axis that is not the last, some columns at a time are turned into rows, and back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from jitgrad.execute.cpu.lanes import Text
from jitgrad.execute.cpu.layout import NO_MEMORY
from jitgrad.execute.cpu.networks import REGISTERS, Function, Keys

AHEAD = 8                # vectors loaded before any is stored
MANY = 4096              # keys from which on a large sample pays
WIDE = 64                # columns turned together, at most,
ROOM = 2**21             # and elements, unless one column has more


class Rows(Keys, ABC):
    """Writes the module: networks, the quicksort, the kernel that goes through rows; what a row is, subclasses say."""

    def text(self) -> str:
        parts = [self.network(1 << k) for k in range(REGISTERS.bit_length())]
        parts += [self.few(), self.part(), self.back(), self.quick(), *self.row()]
        parts += [self.turn("rows", f"i{8 * self.dtype.itemsize}"), self.turn("columns", self.int), self.kernel()]
        return "\n".join([*parts, *self.declarations, ""])

    @abstractmethod
    def row(self) -> list[str]:
        """`row(x, out, n, flip)` sorts one row, with what it calls."""

    # ---- quicksort ----------------------------------------------------------------------------------

    def pack(self, text: Text, value: str, below: str, inside: str, low: str, high: str) -> list[str]:
        """Lanes of the mask `below` to `low` in s and on, the others to what ends at `high`; where these go on.

        Without a mask `inside` all lanes count, and whole vectors are stored: there is room for one at either end.
        """
        others = text.set(f"xor {self.mask} {below}, splat (i1 true)")
        if inside:
            below, others = self.both(text, below, inside), self.both(text, others, inside)
        count = self.count(text, below)
        rest = self.count(text, others) if inside else text.set(f"sub i64 {self.lanes}, {count}")
        beyond = text.set(f"add i64 {low}, {count}")
        before = text.set(f"sub i64 {high}, {rest}")
        if not inside and self.lanes == 8:            # both sides by one permutation, whole vectors at both ends
            value = self.divided(text, value, below)
            for place in (low, text.set(f"sub i64 {high}, {self.lanes}")):
                text.do(f"store {self.vector} {value}, ptr {self.at(text, '%s', place)}, align {self.width}")
            return [beyond, before]
        packed = self.packed(text, value, below)
        if inside:
            self.store_some(text, packed, self.at(text, "%s", low), self.lowest(text, count))
        else:
            text.do(f"store {self.vector} {packed}, ptr {self.at(text, '%s', low)}, align {self.width}")
        self.store_some(text, self.packed(text, value, others), self.at(text, "%s", before), self.lowest(text, rest))
        return [beyond, before]

    def divided(self, text: Text, value: str, below: str) -> str:
        """The eight lanes with those of the mask before the others, by a table of the 256 orders."""
        order = [[k for side in (1, 0) for k in range(8) if bits >> k & 1 == side] for bits in range(256)]
        words = ", ".join(f"i64 {sum(k << 8 * j for j, k in enumerate(row))}" for row in order)
        table = f"@{self.name}.order"
        self.declarations[f"{table} = private unnamed_addr constant [256 x i64] [{words}], align 64"] = None
        bits = text.set(f"zext i8 {text.set(f'bitcast {self.mask} {below} to i8')} to i64")
        place = text.set(f"getelementptr i64, ptr {table}, i64 {bits}")
        lanes = text.set(f"load <8 x i8>, ptr {place}, align 8")
        wide = text.set(f"zext <8 x i8> {lanes} to {self.vector}")
        return self.call(text, self.vector, "llvm.x86.avx512.permvar.di.512", f"{self.vector} {value}",
                         f"{self.vector} {wide}")

    def part(self) -> str:
        """n keys at `s`, more than a network sorts: those below the pivot first; how many they are.

        The vectors at both ends wait in registers, which leaves room; then comes what is next to the end with less
        room, so that each end has as much as could go there.
        """
        text = self.function("i64", "part", f"ptr %s, i64 %n, {self.int} %pivot")
        pivot = self.splat(text, "%pivot")
        step = AHEAD * self.lanes
        last = text.set(f"sub i64 %n, {step}")
        waiting = [self.load(text, self.at(text, "%s", text.set(f"add i64 {side}, {k * self.lanes}")))
                   for side in ("0", last) for k in range(AHEAD)]
        between = text.set(f"sub i64 %n, {2 * step}")

        def packed(value: str, inside: str, state: list[str]) -> list[str]:
            return self.pack(text, value, self.compare(text, "slt", value, pivot), inside, *state)

        def block(count: int) -> Callable[..., list[str]]:
            def some(i: str, next: str, *state: str) -> list[str]:
                end = text.set(f"add i64 {next}, {text.set(f'sub i64 {between}, {i}')}")
                rooms = text.set(f"sub i64 {next}, {state[0]}"), text.set(f"sub i64 {state[1]}, {end}")
                left = text.set(f"icmp sle i64 {rooms[0]}, {rooms[1]}")
                size = count * self.lanes
                start = text.set(f"select i1 {left}, i64 {next}, i64 {text.set(f'sub i64 {end}, {size}')}")
                values = [self.load(text, self.at(text, "%s", text.set(f"add i64 {start}, {k * self.lanes}")))
                          for k in range(count)]
                following = text.set(f"select i1 {left}, i64 {text.set(f'add i64 {next}, {size}')}, i64 {next}")
                sums = [self.count(text, self.compare(text, "slt", value, pivot)) for value in values]
                while len(sums) > 1:              # the next block waits for this sum: no chain of places
                    sums = [text.set(f"add i64 {a}, {b}") for a, b in zip(sums[::2], sums[1::2], strict=True)]
                rest = text.set(f"sub i64 {size}, {sums[0]}")
                after = [text.set(f"add i64 {state[0]}, {sums[0]}"), text.set(f"sub i64 {state[1]}, {rest}")]
                places = list(state)
                for value in values:
                    places = packed(value, "", places)
                return [following, *after]
            return some
        whole = text.set(f"and i64 {between}, {-step}")
        vectors = text.set(f"and i64 {between}, {-self.lanes}")
        state = text.loop("block", "0", whole, step, block(AHEAD), f"i64 = {step}", "i64 = 0", "i64 = %n")
        next, *state = text.loop("vector", whole, vectors, self.lanes, block(1), *(f"i64 = {c}" for c in state))
        inside = self.first(text, text.set(f"sub i64 {between}, {vectors}"))
        state = packed(self.load_some(text, self.at(text, "%s", next), inside, self.constant(1)), inside, state)
        for value in waiting:
            state = packed(value, "", state)
        text.do(f"ret i64 {state[0]}")
        return self.finish(text)

    def back(self) -> str:
        """Keys in order at `s` to elements."""
        text = self.function("void", "back", f"ptr %s, i64 %n, {self.int} %flip")
        flips = self.splat(text, "%flip")
        self.each(text, "%s", "%s", lambda i, key: self.element(text, key, flips))
        text.do("ret void")
        return self.finish(text)

    def quick(self) -> str:
        """Sort n keys at `s` and make them elements.

        Pivots are medians of samples; after `depth` of them, middles between least and greatest, which no order of
        elements can make slow: they leave no more than as many divisions as a key has bits.
        """
        sampled: list[str] = []
        text = self.function("void", "quick", f"ptr %s0, i64 %n0, i64 %depth0, {self.int} %flip")
        text.goto("again")
        text.label("again")
        text.do("%s = phi ptr [%s0, %entry], [%s.next, %onward]")
        text.do("%n = phi i64 [%n0, %entry], [%n.next, %onward]")
        text.do("%depth = phi i64 [%depth0, %entry], [%less, %onward]")
        text.branch(text.set(f"icmp sle i64 %n, {self.most}"), "small", "large")
        text.label("small")
        text.do(f"call void @{self.name}.few(ptr %s, i64 %n, {self.int} %flip)")
        text.do("ret void")
        text.label("large")
        text.branch(text.set("icmp eq i64 %depth, 0"), "middle", "median")
        text.label("median")
        text.branch(text.set(f"icmp sgt i64 %n, {MANY}"), "many", "some")
        for label, registers in (("many", 8), ("some", 1)):
            text.label(label)
            sampled.append(self.sample(text, "%s", registers))
            text.goto("split")
        text.label("middle")
        self.middle(text)
        text.goto("split")
        text.label("split")
        text.do(f"%pivot = phi {self.int} [{sampled[0]}, %many], [{sampled[1]}, %some], [%halfway, %ranged]")
        part = f"call i64 @{self.name}.part(ptr %s, i64 %n, {self.int}"
        text.do("%lesser = sub i64 %depth, 1")
        text.do("%less = call i64 @llvm.smax.i64(i64 %lesser, i64 0)")
        text.declare("i64", "llvm.smax.i64", "i64", "i64")
        text.do(f"%below = {part} %pivot)")
        text.branch(text.set("icmp eq i64 %below, 0"), "least", "two")
        text.label("least")                       # the pivot is the least: its equals come first, and are done
        text.branch(text.set(f"icmp eq {self.int} %pivot, {self.greatest}"), "done", "equals")
        text.label("equals")
        text.do(f"%same = {part} {text.set(f'add {self.int} %pivot, 1')})")
        text.do(f"call void @{self.name}.back(ptr %s, i64 %same, {self.int} %flip)")
        text.goto("onward")
        text.label("two")
        text.do(f"call void @{self.name}.quick(ptr %s, i64 %below, i64 %less, {self.int} %flip)")
        text.goto("onward")
        text.label("onward")
        text.do("%front = phi i64 [%same, %equals], [%below, %two]")
        text.do(f"%s.next = getelementptr {self.int}, ptr %s, i64 %front")
        text.do("%n.next = sub i64 %n, %front")
        text.goto("again")
        text.label("done")                        # all are equal
        text.do(f"call void @{self.name}.back(ptr %s, i64 %n, {self.int} %flip)")
        text.do("ret void")
        return self.finish(text)

    def sample(self, text: Text, source: str, registers: int, flips: str = "") -> str:
        """The median of as many keys as so many vectors have, spread over the stretch; of elements, keyed."""
        total = registers * self.lanes
        stride = text.set(f"udiv i64 %n, {total}")
        values = []
        for r in range(registers):
            value = "poison"
            for k in range(self.lanes):
                place = text.set(f"add i64 {text.set(f'mul i64 {stride}, {r * self.lanes + k}')}, "
                                 f"{text.set(f'lshr i64 {stride}, 1')}")
                one = text.set(f"load {self.int}, ptr {self.at(text, source, place)}, align {self.width}")
                value = text.set(f"insertelement {self.vector} {value}, {self.int} {one}, i64 {k}")
            values.append(self.keyed(text, value, flips)[0] if flips else value)
        values = self.sorted(text, values, self.vector)
        middle = total // 2
        return text.set(f"extractelement {self.vector} {values[middle // self.lanes]}, i64 {middle % self.lanes}")

    def middle(self, text: Text) -> None:
        """%halfway between the least and the greatest, above the least; nothing is left to do if they are equal."""
        kind = self.int

        def step(i: str, low: str, high: str) -> list[str]:
            one = text.set(f"load {kind}, ptr {self.at(text, '%s', i)}, align {self.width}")
            return [self.call(text, kind, f"llvm.smin.{kind}", f"{kind} {low}", f"{kind} {one}"),
                    self.call(text, kind, f"llvm.smax.{kind}", f"{kind} {high}", f"{kind} {one}")]
        ends = (f"{kind} = {self.greatest}", f"{kind} = {-self.greatest - 1}")
        low, high = text.loop("range", "0", "%n", 1, step, *ends)
        text.goto("level")
        text.label("level")
        text.branch(text.set(f"icmp eq {kind} {low}, {high}"), "done", "ranged")
        text.label("ranged")
        half = text.set(f"lshr {kind} {text.set(f'sub {kind} {high}, {low}')}, 1")
        text.set(f"add {kind} {text.set(f'add {kind} {low}, {half}')}, 1", "halfway")

    # ---- the kernel -----------------------------------------------------------------------------------

    def depth(self, text: Text) -> str:
        """How many medians may be bad: twice the binary digits of n."""
        zeros = self.call(text, "i64", "llvm.ctlz.i64", "i64 %n", "i1 false")
        return text.set(f"mul i64 {text.set(f'sub i64 64, {zeros}')}, 2")

    def kernel(self) -> str:
        text = Function(f"define i64 @{self.name}(ptr %params, ptr %slots)")
        for word, i in (("outer", 2), ("n", 3), ("inner", 4), ("falling", 9)):
            text.set(f"load i64, ptr {text.set(f'getelementptr i64, ptr %params, i64 {i}')}, align 8", word)
        for word, i in (("out", 0), ("x", 1)):
            text.set(f"load ptr, ptr {text.set(f'getelementptr ptr, ptr %slots, i64 {i}')}, align 8", word)
        flip = text.set("sub i64 0, %falling")
        flip = f"{self.int} " + (text.set(f"trunc i64 {flip} to {self.int}") if self.width < 8 else flip)

        def row(x: str, out: str, r: str) -> list[str]:
            begin = text.set(f"mul i64 {r}, %n")
            text.do(f"call void @{self.name}.row(ptr {self.element_at(text, x, begin)}, "
                    f"ptr {self.at(text, out, begin)}, i64 %n, {flip})")
            return []
        text.branch(text.set("icmp eq i64 %inner, 1"), "lines", "columns")
        text.label("lines")
        text.loop("line", "0", "%outer", 1, lambda r: row("%x", "%out", r))
        text.do("ret i64 0")
        text.label("columns")
        text.declare("ptr", "PyMem_RawRealloc", "ptr", "i64")
        text.declare("void", "PyMem_RawFree", "ptr")
        long = self.call(text, "i64", "llvm.smax.i64", "i64 %n", "i64 1")
        wide = text.set(f"sdiv i64 {ROOM}, {long}")
        for bound, value in (("min", WIDE), ("max", 1), ("min", "%inner")):
            wide = self.call(text, "i64", f"llvm.s{bound}.i64", f"i64 {wide}", f"i64 {value}")
        room = text.set(f"mul i64 %n, {wide}")
        bytes = text.set(f"mul i64 {room}, {self.width + self.dtype.itemsize}")
        text.set(f"call ptr @PyMem_RawRealloc(ptr null, i64 {bytes})", "to")
        text.branch(text.set("icmp eq ptr %to, null"), "nothing", "sort")
        text.label("nothing")
        text.do(f"ret i64 {NO_MEMORY}")
        text.label("sort")
        source = self.at(text, "%to", room)

        def some(c: str, start: str) -> list[str]:
            begin = text.set(f"add i64 {start}, {c}")
            many = self.call(text, "i64", "llvm.smin.i64", f"i64 {text.set(f'sub i64 %inner, {c}')}", f"i64 {wide}")
            text.do(f"call void @{self.name}.rows(ptr {self.element_at(text, '%x', begin)}, i64 %inner, ptr {source}, "
                    f"i64 %n, i64 %n, i64 {many})")
            text.loop("column", "0", many, 1, lambda r: row(source, "%to", r))
            text.do(f"call void @{self.name}.columns(ptr %to, i64 %n, ptr {self.at(text, '%out', begin)}, i64 %inner, "
                    f"i64 {many}, i64 %n)")
            return []

        def slab(o: str) -> list[str]:
            start = text.set(f"mul i64 {text.set(f'mul i64 {o}, %n')}, %inner")
            text.loop("some", "0", "%inner", wide, lambda c: some(c, start))
            return []
        text.loop("slab", "0", "%outer", 1, slab)
        text.do("call void @PyMem_RawFree(ptr %to)")
        text.do("ret i64 0")
        return self.finish(text)

    def element_at(self, text: Text, pointer: str, index: str) -> str:
        return text.set(f"getelementptr i{8 * self.dtype.itemsize}, ptr {pointer}, i64 {index}")

    def each(self, text: Text, source: str, target: str, change: Callable[[str, str], Any]) -> list[str]:
        """Every vector of n changed; lanes of masks that come along are counted."""
        def step(i: str, *seen: str) -> list[str]:
            inside = self.first(text, text.set(f"sub i64 %n, {i}"))
            changed = change(i, self.fetched(text, source, i, inside))
            value, *masks = changed if isinstance(changed, tuple) else (changed,)
            self.store_some(text, value, self.at(text, target, i), inside)
            return [text.set(f"add i64 {a}, {self.count(text, self.both(text, mask, inside))}")
                    for a, mask in zip(seen, masks, strict=False)] or list(seen)
        return text.loop("each", "0", "%n", self.lanes, step, *["i64 = 0"] * 3)

    def fetched(self, text: Text, source: str, i: str, inside: str) -> str:
        return self.load_some(text, self.at(text, source, i), inside, self.constant(1))
