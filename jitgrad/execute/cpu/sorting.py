"""Sorting rows in registers: quicksort that packs the lanes of each vector to their side, networks for what is short.

For processors that pack lanes in one instruction (AVX-512); others keep the entry's own kernel. Both give the same
bits: elements become integers in the order that `ops.sort` says, which leaves one way to sort them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from jitgrad.core.form import Form
from jitgrad.execute.cpu import llvm
from jitgrad.execute.cpu.lanes import Text
from jitgrad.execute.cpu.networks import MOST, Function, Keys

AHEAD = 4                # vectors loaded before any is stored
MANY = 4096              # keys from which on a large sample pays
NO_MEMORY = -1


def applies(form: Form) -> bool:
    """Rows that lie in memory one after the other, of elements of four or eight bytes."""
    axis = form.params["axis"]
    last = math.prod(form.avals[0].shape[axis + 1:]) == 1
    return last and form.avals[0].dtype.itemsize >= 4 and llvm.has_feature("avx512f")


def ir(name: str, dtype: np.dtype[Any]) -> str:
    """Text of the kernel `name` in the place of the entry's own, with the same params: sizes, then outer, n, ...,
    the ninth of them descending."""
    return _Sort(name, dtype).text()


class _Sort(Keys):
    """Writes the module: networks, the quicksort, the kernel that turns elements into keys and back."""

    def text(self) -> str:
        parts = [self.network(1 << k) for k in range(self.registers.bit_length())]
        parts += [self.few(), self.part("part", fresh=False), self.part("deal", fresh=True), self.back(), self.quick(),
                  self.kernel()]
        return "\n".join([*parts, *self.declarations, ""])

    # ---- quicksort ----------------------------------------------------------------------------------

    def part(self, name: str, *, fresh: bool) -> str:
        """Keys at `s` below the pivot to `d`, the others to `h`, either of which may be `s`; how many go to `d`.

        `fresh` ones are elements to be keyed first; `counts` gets how many are -0, 0, and before both. Whole vectors
        are stored where as many have been loaded, so that none reaches beyond what was loaded or beyond n.
        """
        arguments = f"ptr %s, ptr %d, ptr %h, i64 %n, {self.int} %pivot"
        text = self.function("i64", name, arguments + (f", {self.int} %flip, ptr %counts" if fresh else ""))
        pivot = self.splat(text, "%pivot")
        flips = self.splat(text, "%flip") if fresh else ""
        step = AHEAD * self.lanes
        text.set(f"and i64 %n, {-step}", "whole")

        def pack(value: str, inside: str, low: str, high: str, *seen: str) -> list[str]:
            if fresh:
                value, *more = self.keyed(text, value, flips)
                seen = tuple(text.set(f"add i64 {a}, {self.count(text, self.both(text, b, inside) if inside else b)}")
                             for a, b in zip(seen, more, strict=True))
            below = self.compare(text, "slt", value, pivot)
            others = text.set(f"xor {self.mask} {below}, splat (i1 true)")
            if inside:
                below, others = self.both(text, below, inside), self.both(text, others, inside)
            count = self.count(text, below)
            rest = self.count(text, others) if inside else text.set(f"sub i64 {self.lanes}, {count}")
            for side, mask, place, many in (("%d", below, low, count), ("%h", others, high, rest)):
                packed, pointer = self.packed(text, value, mask), self.at(text, side, place)
                if inside:
                    self.store_some(text, packed, pointer, self.first(text, many))
                else:
                    text.do(f"store {self.vector} {packed}, ptr {pointer}, align {self.width}")
            return [text.set(f"add i64 {low}, {count}"), text.set(f"add i64 {high}, {rest}"), *seen]

        def block(i: str, *state: str) -> list[str]:
            values = [self.load(text, self.at(text, "%s", text.set(f"add i64 {i}, {k * self.lanes}")))
                      for k in range(AHEAD)]
            for value in values:
                state = tuple(pack(value, "", *state))
            return list(state)

        def tail(i: str, *state: str) -> list[str]:
            inside = self.first(text, text.set(f"sub i64 %n, {i}"))
            value = self.load_some(text, self.at(text, "%s", i), inside, self.constant(1))
            return pack(value, inside, *state)

        state = text.loop("block", "0", "%whole", step, block, *["i64 = 0"] * (5 if fresh else 2))
        low, _, *seen = text.loop("tail", "%whole", "%n", self.lanes, tail, *(f"i64 = {c}" for c in state))
        for k, count in enumerate(seen):
            text.do(f"store i64 {count}, ptr {text.set(f'getelementptr i64, ptr %counts, i64 {k}')}, align 8")
        text.do(f"ret i64 {low}")
        return self.finish(text)

    def back(self) -> str:
        """Keys in order at `s` to elements at `d`, which may be `s`."""
        text = self.function("void", "back", f"ptr %s, ptr %d, i64 %n, {self.int} %flip")
        flips = self.splat(text, "%flip")
        self.each(text, "%s", "%d", lambda key: self.element(text, key, flips))
        text.do("ret void")
        return self.finish(text)

    def quick(self) -> str:
        """Sort n keys from `s` into `d` as elements; where `d` is `s`, `f` is free room for as many.

        Each pass moves a key once: what is below the pivot goes to `d`, the rest to the other of two places, from
        where it is sorted into its own stretch of `d`. Pivots are medians of samples; after `depth` of them, middles
        between least and greatest, which no order of elements can make slow.
        """
        most = self.registers * self.lanes
        sampled: list[str] = []
        text = self.function("void", "quick", f"ptr %s0, ptr %d0, ptr %f, i64 %n0, i64 %depth0, {self.int} %flip")
        text.goto("again")
        text.label("again")
        text.do("%s = phi ptr [%s0, %entry], [%h, %onward]")
        text.do("%d = phi ptr [%d0, %entry], [%d.next, %onward]")
        text.do("%n = phi i64 [%n0, %entry], [%n.next, %onward]")
        text.do("%depth = phi i64 [%depth0, %entry], [%depth.next, %onward]")
        text.branch(text.set(f"icmp sle i64 %n, {most}"), "small", "large")
        text.label("small")
        text.do(f"call void @{self.name}.few(ptr %s, ptr %d, i64 %n, {self.int} %flip)")
        text.do("ret void")
        text.label("large")
        text.set(f"select i1 {text.set('icmp eq ptr %s, %d')}, ptr %f, ptr %s", "h")
        text.branch(text.set("icmp eq i64 %depth, 0"), "middle", "median")
        text.label("median")
        text.branch(text.set(f"icmp sgt i64 %n, {MANY}"), "many", "some")
        for label, registers in (("many", self.registers // 2), ("some", 1)):
            text.label(label)
            sampled.append(self.sample(text, "%s", registers))
            text.goto("split")
        text.label("middle")
        self.middle(text)
        text.goto("split")
        text.label("split")
        text.do(f"%pivot = phi {self.int} [{sampled[0]}, %many], [{sampled[1]}, %some], [%halfway, %ranged]")
        part = f"call i64 @{self.name}.part(ptr %s, ptr %d, ptr %h, i64 %n, {self.int}"
        text.do(f"%below = {part} %pivot)")
        text.branch(text.set("icmp eq i64 %below, 0"), "least", "two")
        text.label("least")                       # the pivot is the least: its equals come first, and are done
        text.branch(text.set(f"icmp eq {self.int} %pivot, {self.greatest}"), "done", "equals")
        text.label("equals")
        text.do(f"%same = {part.replace('ptr %s', 'ptr %h')} {text.set(f'add {self.int} %pivot, 1')})")
        text.do(f"call void @{self.name}.back(ptr %d, ptr %d, i64 %same, {self.int} %flip)")
        text.goto("onward")
        text.label("two")
        text.do("%lesser = sub i64 %depth, 1")
        text.do("%less = call i64 @llvm.smax.i64(i64 %lesser, i64 0)")
        text.declare("i64", "llvm.smax.i64", "i64", "i64")
        room = self.at(text, "%h", text.set("sub i64 %n, %below"))
        text.do(f"call void @{self.name}.quick(ptr %d, ptr %d, ptr {room}, i64 %below, i64 %less, {self.int} %flip)")
        text.goto("onward")
        text.label("onward")
        text.do("%front = phi i64 [%same, %equals], [%below, %two]")
        text.do("%depth.next = phi i64 [%depth, %equals], [%less, %two]")
        text.do(f"%d.next = getelementptr {self.int}, ptr %d, i64 %front")
        text.do("%n.next = sub i64 %n, %front")
        text.goto("again")
        text.label("done")                        # all are equal
        text.do("%where = phi ptr [%h, %least], [%s, %level]")
        text.do(f"call void @{self.name}.back(ptr %where, ptr %d, i64 %n, {self.int} %flip)")
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

    def kernel(self) -> str:
        text = Function(f"define i64 @{self.name}(ptr %params, ptr %slots)")
        for word, i in (("outer", 2), ("n", 3), ("falling", 9)):
            text.set(f"load i64, ptr {text.set(f'getelementptr i64, ptr %params, i64 {i}')}, align 8", word)
        for word, i in (("out", 0), ("x", 1)):
            text.set(f"load ptr, ptr {text.set(f'getelementptr ptr, ptr %slots, i64 {i}')}, align 8", word)
        flip = text.set("sub i64 0, %falling")
        flip = f"{self.int} " + (text.set(f"trunc i64 {flip} to {self.int}") if self.width < 8 else flip)
        flips = self.splat(text, flip.split(" ")[1])
        zeros = self.call(text, "i64", "llvm.ctlz.i64", "i64 %n", "i1 false")
        depth = text.set(f"mul i64 {text.set(f'sub i64 64, {zeros}')}, 2")
        counts = text.stack("i64", 3)
        text.branch(text.set(f"icmp sle i64 %n, {MOST}"), "short", "long")
        text.label("short")

        def small(r: str) -> list[str]:
            begin = text.set(f"mul i64 {r}, %n")
            x, out = self.at(text, "%x", begin), self.at(text, "%out", begin)
            seen = self.each(text, x, out, lambda value: self.keyed(text, value, flips))
            text.do(f"call void @{self.name}.few(ptr {out}, ptr {out}, i64 %n, {flip})")
            self.zeros(text, x, out, seen)
            return []
        text.loop("line", "0", "%outer", 1, small)
        text.do("ret i64 0")
        text.label("long")
        text.declare("ptr", "PyMem_RawRealloc", "ptr", "i64")
        text.declare("void", "PyMem_RawFree", "ptr")
        text.set(f"call ptr @PyMem_RawRealloc(ptr null, i64 {text.set(f'mul i64 %n, {self.width}')})", "t")
        text.branch(text.set("icmp eq ptr %t, null"), "nothing", "sort")
        text.label("nothing")
        text.do(f"ret i64 {NO_MEMORY}")
        text.label("sort")

        def large(r: str) -> list[str]:
            begin = text.set(f"mul i64 {r}, %n")
            x, out = self.at(text, "%x", begin), self.at(text, "%out", begin)
            pivot = self.sample(text, x, self.registers // 2, flips)
            below = text.set(f"call i64 @{self.name}.deal(ptr {x}, ptr {out}, ptr %t, i64 %n, {self.int} {pivot}, "
                             f"{flip}, ptr {counts})")
            rest = text.set(f"sub i64 %n, {below}")
            quick = f"call void @{self.name}.quick(ptr"
            text.do(f"{quick} {out}, ptr {out}, ptr {self.at(text, '%t', rest)}, i64 {below}, i64 {depth}, {flip})")
            text.do(f"{quick} %t, ptr {self.at(text, out, below)}, ptr null, i64 {rest}, i64 {depth}, {flip})")
            places = [text.set(f"getelementptr i64, ptr {counts}, i64 {k}") for k in range(3)]
            self.zeros(text, x, out, [text.set(f"load i64, ptr {place}, align 8") for place in places])
            return []
        text.loop("row", "0", "%outer", 1, large)
        text.do("call void @PyMem_RawFree(ptr %t)")
        text.do("ret i64 0")
        return self.finish(text)

    def each(self, text: Text, source: str, target: str, change: Callable[[str], Any]) -> list[str]:
        """Every vector of n changed; lanes of masks that come along are counted."""
        def step(i: str, *seen: str) -> list[str]:
            inside = self.first(text, text.set(f"sub i64 %n, {i}"))
            changed = change(self.load_some(text, self.at(text, source, i), inside, self.constant(1)))
            value, *masks = changed if isinstance(changed, tuple) else (changed,)
            self.store_some(text, value, self.at(text, target, i), inside)
            return [text.set(f"add i64 {a}, {self.count(text, self.both(text, mask, inside))}")
                    for a, mask in zip(seen, masks, strict=False)] or list(seen)
        return text.loop("each", "0", "%n", self.lanes, step, *["i64 = 0"] * 3)

    def zeros(self, text: Text, x: str, out: str, seen: list[str]) -> None:
        """Where zeros of both signs were seen, they go in the order in which x has them."""
        if self.dtype.kind != "f":
            return
        minus, plus, before = seen
        mixed = text.set(f"and i1 {text.set(f'icmp ne i64 {minus}, 0')}, {text.set(f'icmp ne i64 {plus}, 0')}")
        both, done = text.fresh("both"), text.fresh("done")
        text.branch(mixed, both, done)
        text.label(both)
        last = text.set("sub i64 %n, 1")
        kind = self.int

        def zero(j: str, place: str) -> list[str]:
            bits = text.set(f"load {kind}, ptr {self.at(text, x, j)}, align {self.width}")
            found = text.set(f"icmp eq {kind} {text.set(f'shl {kind} {bits}, 1')}, 0")
            inside = self.call(text, "i64", "llvm.smin.i64", f"i64 {place}", f"i64 {last}")
            target = self.at(text, out, inside)
            old = text.set(f"load {kind}, ptr {target}, align {self.width}")
            text.do(f"store {kind} {text.set(f'select i1 {found}, {kind} {bits}, {kind} {old}')}, ptr {target}, "
                    f"align {self.width}")
            return [text.set(f"add i64 {place}, {text.set(f'zext i1 {found} to i64')}")]
        text.loop("zero", "0", "%n", 1, zero, f"i64 = {before}")
        text.goto(done)
        text.label(done)
