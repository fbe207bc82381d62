"""Keys in vectors: packing the lanes of a mask, sorting networks, elements to keys and back, columns to rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from jitgrad.execute.cpu.lanes import Text

ENDS = ("min", "max")
REGISTERS = 16           # vectors of keys that a network sorts


class Function(Text):
    """A function of any signature."""

    def __init__(self, head: str) -> None:
        super().__init__("")
        self.head = head

    def finish(self) -> str:
        return "\n".join([f"{self.head} {{", "entry:", *self.entry, *self.lines, "}", ""])


class Keys:
    """Writes text on vectors of 64 bytes of keys: integers in the order of the elements of a dtype, or wider ones."""

    def __init__(self, name: str, dtype: np.dtype[Any], width: int) -> None:
        self.name, self.dtype, self.width = name, dtype, width
        self.lanes = 64 // self.width
        self.most = REGISTERS * self.lanes
        self.int = f"i{8 * self.width}"
        self.vector = f"<{self.lanes} x {self.int}>"
        self.mask = f"<{self.lanes} x i1>"
        self.real = ""       # the type to compare keys as, where not as integers
        self.suffix = f"v{self.lanes}{self.int}"
        self.greatest = 2 ** (8 * self.width - 1) - 1
        self.magnitude = 2 ** (8 * dtype.itemsize - 1) - 1
        self.infinity = ""
        if dtype.kind == "f":
            self.infinity = self.constant(int(np.array(np.inf, dtype).view(f"i{dtype.itemsize}")))
        self.declarations: dict[str, None] = {}

    # ---- elements and keys ----------------------------------------------------------------------------

    def folded(self, text: Text, bits: str) -> str:
        """The bits of a float but the sign turned where the sign is set: its own inverse."""
        sign = text.set(f"ashr {self.vector} {bits}, {self.constant(8 * self.width - 1)}")
        return text.set(f"xor {self.vector} {bits}, "
                        f"{text.set(f'and {self.vector} {sign}, {self.constant(self.magnitude)}')}")

    def keyed(self, text: Text, value: str, flips: str) -> tuple[str, ...]:
        """The key, where NaN is inf; of a float also masks of -0, whose key is -1, of 0, and of NaN."""
        if self.dtype.kind != "f":
            nothing = "zeroinitializer"
            return text.set(f"xor {self.vector} {value}, {flips}"), nothing, nothing, nothing
        key = text.set(f"xor {self.vector} {self.folded(text, value)}, {flips}")
        nan = self.nan(text, value)
        return (self.select(text, nan, self.infinity, key),
                self.compare(text, "eq", value, self.constant(-self.magnitude - 1)),
                self.compare(text, "eq", value, "zeroinitializer"), nan)

    def nan(self, text: Text, value: str) -> str:
        size = text.set(f"and {self.vector} {value}, {self.constant(self.magnitude)}")
        return self.compare(text, "sgt", size, self.infinity)

    def element(self, text: Text, key: str, flips: str) -> str:
        """The element that has a key."""
        bits = text.set(f"xor {self.vector} {key}, {flips}")
        return self.folded(text, bits) if self.dtype.kind == "f" else bits

    # ---- pieces -----------------------------------------------------------------------------------

    def function(self, result: str, name: str, arguments: str) -> Function:
        return Function(f"define internal {result} @{self.name}.{name}({arguments})")

    def finish(self, text: Function) -> str:
        self.declarations.update(text.declarations)
        return text.finish()

    def call(self, text: Text, result: str, name: str, *arguments: str) -> str:
        """An intrinsic, by its arguments "type value"."""
        kinds = [a[: a.index(">") + 1] if a.startswith("<") else a.split(" ")[0] for a in arguments]
        text.declare(result, name, *kinds)
        return text.set(f"call {result} @{name}({', '.join(arguments)})")

    def splat(self, text: Text, value: str) -> str:
        one = text.set(f"insertelement {self.vector} poison, {self.int} {value}, i64 0")
        zeros = f"<{self.lanes} x i32> zeroinitializer"
        return text.set(f"shufflevector {self.vector} {one}, {self.vector} poison, {zeros}")

    def constant(self, value: int) -> str:
        return f"splat ({self.int} {value})"

    def compare(self, text: Text, how: str, a: str, b: str) -> str:
        return text.set(f"icmp {how} {self.vector} {a}, {b}")

    def select(self, text: Text, mask: str, a: str, b: str) -> str:
        return text.set(f"select {self.mask} {mask}, {self.vector} {a}, {self.vector} {b}")

    def at(self, text: Text, pointer: str, index: str) -> str:
        return text.set(f"getelementptr {self.int}, ptr {pointer}, i64 {index}")

    def load(self, text: Text, pointer: str) -> str:
        return text.set(f"load {self.vector}, ptr {pointer}, align {self.width}")

    def load_some(self, text: Text, pointer: str, mask: str, other: str) -> str:
        return self.call(text, self.vector, f"llvm.masked.load.{self.suffix}.p0", f"ptr {pointer}", f"i32 {self.width}",
                         f"{self.mask} {mask}", f"{self.vector} {other}")

    def store_some(self, text: Text, value: str, pointer: str, mask: str) -> None:
        name = f"llvm.masked.store.{self.suffix}.p0"
        text.declare("void", name, self.vector, "ptr", "i32", self.mask)
        text.do(f"call void @{name}({self.vector} {value}, ptr {pointer}, i32 {self.width}, {self.mask} {mask})")

    def first(self, text: Text, count: str) -> str:
        """The mask of the first lanes, `count` of them or all."""
        lanes = ", ".join(f"i64 {k}" for k in range(self.lanes))
        one = text.set(f"insertelement <{self.lanes} x i64> poison, i64 {count}, i64 0")
        wide = text.set(f"shufflevector <{self.lanes} x i64> {one}, <{self.lanes} x i64> poison, "
                        f"<{self.lanes} x i32> zeroinitializer")
        return text.set(f"icmp slt <{self.lanes} x i64> <{lanes}>, {wide}")

    def lowest(self, text: Text, count: str) -> str:
        """The mask of as many first lanes, no more than there are."""
        bits = text.set(f"sub i64 {text.set(f'shl i64 1, {count}')}, 1")
        return text.set(f"bitcast i{self.lanes} {text.set(f'trunc i64 {bits} to i{self.lanes}')} to {self.mask}")

    def both(self, text: Text, a: str, b: str) -> str:
        return text.set(f"and {self.mask} {a}, {b}")

    def count(self, text: Text, mask: str) -> str:
        """How many lanes a mask has."""
        bits = text.set(f"bitcast {self.mask} {mask} to i{self.lanes}")
        found = self.call(text, f"i{self.lanes}", f"llvm.ctpop.i{self.lanes}", f"i{self.lanes} {bits}")
        return text.set(f"zext i{self.lanes} {found} to i64")

    def packed(self, text: Text, value: str, mask: str) -> str:
        """The lanes of a mask moved to the front."""
        name = f"llvm.experimental.vector.compress.{self.suffix}"
        text.declare(self.vector, name, self.vector, self.mask, self.vector)
        return text.set(f"call {self.vector} @{name}({self.vector} {value}, {self.mask} {mask}, {self.vector} poison)")

    def extreme(self, text: Text, which: str, a: str, b: str, kind: str) -> str:
        """The lesser or the greater lanes; of equal ones those of b."""
        if kind == self.vector:
            return self.call(text, kind, f"llvm.s{which}.{self.suffix}", f"{kind} {a}", f"{kind} {b}")
        mask = text.set(f"fcmp {'olt' if which == 'min' else 'ogt'} {kind} {a}, {b}")
        return text.set(f"select {self.mask} {mask}, {kind} {a}, {kind} {b}")

    # ---- networks -----------------------------------------------------------------------------------

    def sorted(self, text: Text, registers: list[str], kind: str) -> list[str]:
        """Batcher's bitonic network over all lanes of the registers, the first register least.

        Within registers two go together: lanes that get the lesser and those that get the greater are picked from
        both, which halves the comparisons; `where` keeps track of the place that a lane stands for.
        """
        lanes, n = self.lanes, self.lanes * len(registers)
        values = list(registers)
        before = where = natural = [[r * lanes + k for k in range(lanes)] for r in range(len(values))]
        size = 2
        while size <= n:
            distance = size // 2
            while distance:
                if distance >= lanes:
                    values, where = self.arranged(text, values, where, natural, kind), natural
                    for r in range(len(values)):
                        other = r ^ distance // lanes
                        if other > r:
                            low, high = (self.extreme(text, w, values[r], values[other], kind) for w in ENDS)
                            rising = r * lanes & size == 0
                            values[r], values[other] = (low, high) if rising else (high, low)
                elif len(values) == 1:
                    values = [self.exchanged(text, values[0], size, distance, kind)]
                else:
                    where = [[p for p in row if (p & distance == 0) == (p & size == 0)] for row in where]
                    where = [row for a, b in zip(where[::2], where[1::2], strict=True)
                             for row in (a + b, [p ^ distance for p in a + b])]
                    values = self.arranged(text, values, before, where, kind)
                    values = [self.extreme(text, w, a, b, kind) for a, b in zip(values[::2], values[1::2], strict=True)
                              for w in ENDS]
                before = where
                distance //= 2
            size *= 2
        return self.arranged(text, values, where, natural, kind)

    def arranged(self, text: Text, values: list[str], have: list[list[int]], want: list[list[int]],
                 kind: str) -> list[str]:
        """Pairs of registers with their lanes at other places."""
        if have == want:
            return values
        out = []
        for r, row in enumerate(want):
            first = r & -2
            both = have[first] + have[first + 1]
            out.append(self.shuffle(text, values[first], values[first + 1], [both.index(p) for p in row], kind))
        return out

    def exchanged(self, text: Text, value: str, size: int, distance: int, kind: str) -> str:
        """Each lane with the lane at a distance: the lesser goes down where the run of `size` rises, else up."""
        lanes = range(self.lanes)
        moved = self.shuffle(text, value, value, [k ^ distance for k in lanes], kind)
        low, high = (self.extreme(text, which, value, moved, kind) for which in ENDS)
        return self.shuffle(text, low, high, [
            k if (k & distance == 0) == (k & size == 0) else self.lanes + k for k in lanes], kind)

    def shuffle(self, text: Text, a: str, b: str, order: list[int], kind: str) -> str:
        lanes = ", ".join(f"i32 {k}" for k in order)
        return text.set(f"shufflevector {kind} {a}, {kind} {b}, <{self.lanes} x i32> <{lanes}>")

    def network(self, registers: int) -> str:
        """Sort n keys at `s` and make them elements, no more than the registers hold.

        A float64 is compared as such, which twice as many units do as compare integers of 64 bits (of zeros of two
        signs one may come out twice; `mend` puts it right).
        """
        text = self.function("void", f"network{registers}", f"ptr %s, i64 %n, {self.int} %flip")
        flips = self.splat(text, "%flip")
        masks, values = [], []
        for r in range(registers):
            masks.append(self.first(text, text.set(f"sub i64 %n, {r * self.lanes}")))
            key = self.load_some(text, self.at(text, "%s", str(r * self.lanes)), masks[r],
                                 self.infinity if self.real else self.constant(self.greatest))
            if self.real:
                key = text.set(f"bitcast {self.vector} {self.folded(text, key)} to {self.real}")
            values.append(key)
        sign = text.set(f"and {self.vector} {flips}, {self.constant(-self.greatest - 1)}") if self.real else ""
        for r, value in enumerate(self.sorted(text, values, self.real or self.vector)):
            if self.real:
                bits = text.set(f"bitcast {self.real} {value} to {self.vector}")
                value = text.set(f"xor {self.vector} {bits}, {sign}")
            else:
                value = self.element(text, value, flips)
            self.store_some(text, value, self.at(text, "%s", str(r * self.lanes)), masks[r])
        text.do("ret void")
        return self.finish(text)

    def few(self) -> str:
        """Sort as many as the largest network takes, by the smallest that takes them."""
        text = self.function("void", "few", f"ptr %s, i64 %n, {self.int} %flip")
        registers = 1
        while registers <= REGISTERS:
            last = registers == REGISTERS
            if not last:
                fits = text.set(f"icmp sle i64 %n, {registers * self.lanes}")
                text.branch(fits, f"by{registers}", f"more{registers}")
                text.label(f"by{registers}")
            text.do(f"call void @{self.name}.network{registers}(ptr %s, i64 %n, {self.int} %flip)")
            text.do("ret void")
            if not last:
                text.label(f"more{registers}")
            registers *= 2
        return self.finish(text)

    # ---- columns and rows ---------------------------------------------------------------------------

    def turn(self, name: str, kind: str) -> str:
        """d[c * far + r] = s[r * stride + c] for all r < rows and c < columns: squares of vectors turned in registers.

        `name` is what there are more of and goes slowest: neighbours in memory are touched one after the other.
        What no square takes is copied one by one.
        """
        lanes, vector = self.lanes, f"<{self.lanes} x {kind}>"
        align = int(kind[1:]) // 8
        text = self.function("void", name, "ptr %s, i64 %stride, ptr %d, i64 %far, i64 %rows, i64 %columns")

        def at(base: str, stride: str, row: str, column: str) -> str:
            place = text.set(f"add i64 {text.set(f'mul i64 {row}, {stride}')}, {column}")
            return text.set(f"getelementptr {kind}, ptr {base}, i64 {place}")

        def rows(base: str, stride: str, first: str, other: str) -> list[str]:
            found = [at(base, stride, first, other)]
            for _ in range(lanes - 1):
                found.append(text.set(f"getelementptr {kind}, ptr {found[-1]}, i64 {stride}"))
            return found

        def one(c: str, r: str) -> list[str]:
            element = text.set(f"load {kind}, ptr {at('%s', '%stride', r, c)}, align {align}")
            text.do(f"store {kind} {element}, ptr {at('%d', '%far', c, r)}, align {align}")
            return []

        def either(c: str, r: str) -> list[str]:
            ends = [self.call(text, "i64", "llvm.smin.i64", f"i64 {text.set(f'add i64 {i}, {lanes}')}", f"i64 {end}")
                    for i, end in ((c, "%columns"), (r, "%rows"))]
            sizes = [text.set(f"sub i64 {end}, {i}") for end, i in zip(ends, (c, r), strict=True)]
            area = text.set(f"mul i64 {sizes[0]}, {sizes[1]}")
            text.branch(text.set(f"icmp eq i64 {area}, {lanes * lanes}"), "whole", "edge")
            text.label("whole")
            values = [text.set(f"load {vector}, ptr {place}, align {align}")
                      for place in rows("%s", "%stride", r, c)]
            for value, place in zip(self.turned(text, values, vector), rows("%d", "%far", c, r), strict=True):
                text.do(f"store {vector} {value}, ptr {place}, align {align}")
            text.goto("turned")
            text.label("edge")

            def column(j: str) -> list[str]:
                text.loop("row", r, ends[1], 1, lambda i: one(j, i))
                return []
            text.loop("column", c, ends[0], 1, column)
            text.goto("turned")
            text.label("turned")
            return []

        def band(i: str) -> list[str]:
            if name == "rows":
                text.loop("across", "0", "%columns", lanes, lambda c: either(c, i))
            else:
                text.loop("down", "0", "%rows", lanes, lambda r: either(i, r))
            return []
        text.loop("band", "0", f"%{name}", lanes, band)
        text.do("ret void")
        return self.finish(text)

    def turned(self, text: Text, values: list[str], kind: str) -> list[str]:
        """Columns of as many registers as they have lanes."""
        lanes = range(self.lanes)
        distance = 1
        while distance < self.lanes:
            for k in lanes:
                if not k & distance:
                    a, b = values[k], values[k + distance]
                    near = [self.lanes + j - distance if j & distance else j for j in lanes]
                    values[k] = self.shuffle(text, a, b, near, kind)
                    values[k + distance] = self.shuffle(text, a, b, [j + distance for j in near], kind)
            distance *= 2
        return values
