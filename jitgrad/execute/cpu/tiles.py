"""Products of small matrices as vector text: register tiles, one chain of fused multiply-adds for each element.

The order is fixed, whatever the tiles, the vectors and the tier: out[i, j] is acc after ``acc = fmuladd(x[i, p],
y[p, j], acc)`` for p = 0 .. k - 1 from acc = 0. Tiles may overlap: elements computed twice are the same twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from jitgrad.execute.cpu import llvm
from jitgrad.execute.cpu.lanes import Text, register

Number = int | str               # known when the text is written, or an i64 register
Store = Callable[[Number, Number, str, str | None], None]

LATENCY = 4                      # of a fused multiply-add, in cycles; two start in each


class Machine(NamedTuple):
    """What tiles are cut for."""

    width: int                   # bytes of a vector
    registers: int               # that hold one


@cache
def host() -> Machine:
    """This processor's vectors; NEON and SSE2 have 16 bytes."""
    if llvm.has_feature("avx512f"):
        return Machine(64, 32)
    return Machine(32, 16) if llvm.has_feature("avx") else Machine(16, 32 if llvm.has_feature("neon") else 16)


class Numbers:
    """Writes numbers, addresses and loops; what is known already is worked out here."""

    def __init__(self, text: Text, dtype: np.dtype[Any], machine: Machine) -> None:
        self.text, self.dtype = text, dtype
        self.lanes = text.lanes = machine.width // dtype.itemsize
        self.lane, self.kind = register(dtype), text.vector(register(dtype))

    def add(self, a: Number, b: Number) -> Number:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        return b if a == 0 else a if b == 0 else self.text.set(f"add i64 {a}, {b}")

    def mul(self, a: Number, b: Number) -> Number:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 0 or b == 0:
            return 0
        return b if a == 1 else a if b == 1 else self.text.set(f"mul i64 {a}, {b}")

    def least(self, a: Number, b: Number) -> Number:
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        name = self.text.declare("i64", "llvm.smin.i64", "i64", "i64")
        return self.text.set(f"call i64 @{name}(i64 {a}, i64 {b})")

    def at(self, pointer: str, index: Number) -> str:
        return pointer if index == 0 else self.text.at(pointer, str(index), self.dtype)

    def each(self, stem: str, start: Number, stop: Number, step: int, body: Callable[[Number], None]) -> None:
        """for i in range(start, stop, step): body(i)"""
        if isinstance(start, int) and isinstance(stop, int) and stop - start <= step:
            if start < stop:
                body(start)
            return

        def looped(i: str) -> list[str]:
            body(i)
            return []
        self.text.loop(stem, str(start), str(stop), step, looped)


class Tiles(Numbers, ABC):
    """Writes a product of x, read by strides (a step down its rows `xi`, along the inner axis `xp`), and y.

    y is (k, n), contiguous; of one given as (n, k) a transposed copy of a block of columns is the `source`. Subclasses
    know how to walk rows and columns.
    """

    x: str
    y: str
    m: Number
    n: Number
    k: Number
    xi: Number
    xp: Number

    def __init__(self, text: Text, dtype: np.dtype[Any], machine: Machine, store: Store) -> None:
        super().__init__(text, dtype, machine)
        self.store = store

    def block(self, j: Number, vectors: int, mask: str | None) -> None:
        """So many vectors of columns from j on, the last one masked, of all rows."""
        source, stride = self.source(j, vectors, mask)
        self.rows(vectors, lambda height, i: self.tile(i, height, j, vectors, mask, source, stride))

    @abstractmethod
    def rows(self, vectors: int, tile: Callable[[int, Number], None]) -> None:
        """Call `tile` with the height and the first row of each tile of so many vectors."""

    @abstractmethod
    def source(self, j: Number, vectors: int, mask: str | None) -> tuple[str, Number]:
        """Where columns from j on of y's first row are, and the step to the next row."""

    def tile(self, i: Number, height: int, j: Number, vectors: int, mask: str | None, source: str,
             stride: Number) -> None:
        """`height` rows from i on, all of k."""
        text, kind = self.text, self.kind
        fmuladd = text.declare(kind, f"llvm.fmuladd.v{self.lanes}f{8 * self.dtype.itemsize}", kind, kind, kind)
        down = self.down(height)
        whole = vectors - 1 if mask else vectors

        def step(p: str, x: str, y: str, *accs: str) -> list[str]:
            columns = [text.load(self.at(y, v * self.lanes), self.dtype) for v in range(whole)]
            if mask:
                columns.append(text.load_some(self.at(y, whole * self.lanes), mask, "zeroinitializer", self.dtype))
            new = []
            for r in range(height):
                one = text.set(f"load {self.lane}, ptr {self.at(x, down[r])}, align {self.dtype.itemsize}")
                left = text.broadcast(one, self.lane)
                for v, right in enumerate(columns):
                    given = f"{kind} {left}, {kind} {right}, {kind} {accs[r * vectors + v]}"
                    new.append(text.set(f"call {kind} @{fmuladd}({given})"))
            return [self.at(x, self.xp), self.at(y, stride), *new]

        first = self.at(self.x, self.mul(i, self.xi))
        _, _, *done = text.loop("inner", "0", str(self.k), 1, step, f"ptr = {first}", f"ptr = {source}",
                                *[f"{kind} = zeroinitializer"] * (height * vectors))
        for r in range(height):
            for v in range(vectors):
                self.store(self.add(i, r), self.add(j, v * self.lanes), done[r * vectors + v],
                           mask if v == whole else None)

    def down(self, height: int) -> list[Number]:
        """From the first row of a tile to each."""
        return [self.mul(r, self.xi) for r in range(height)]


class Turn(Numbers):
    """Writes a transposed copy: as many rows of y as there are lanes, the columns of a vector."""

    def __init__(self, text: Text, dtype: np.dtype[Any], machine: Machine, k: Number) -> None:
        super().__init__(text, dtype, machine)
        self.k, self.group = k, 16 // dtype.itemsize       # elements of the squares that 128 bits hold a row of

    def rows(self, y: str, count: Number, place: str, pitch: Number) -> None:
        """Row r of y, its element p, goes to lane r of the vector at place + p * pitch; after row `count - 1` comes
        that one again."""
        last = self.add(count, -1)
        starts = [self.at(y, self.mul(self.least(r, last), self.k)) for r in range(self.lanes)]
        if isinstance(self.k, int):
            (self.squares if self.k >= self.group else self.singly)(starts, place, pitch)
            return
        text = self.text
        squares, singly, done = text.fresh("squares"), text.fresh("singly"), text.fresh("turned")
        text.branch(text.set(f"icmp sge i64 {self.k}, {self.group}"), squares, singly)
        text.label(squares)
        self.squares(starts, place, pitch)
        text.goto(done)
        text.label(singly)
        self.singly(starts, place, pitch)
        text.goto(done)
        text.label(done)

    def singly(self, starts: list[str], place: str, pitch: Number) -> None:
        """Element by element, of a k below that of a square."""
        text = self.text

        def one(p: Number) -> None:
            vector = "poison"
            for lane, start in enumerate(starts):
                element = text.set(f"load {self.lane}, ptr {self.at(start, p)}, align {self.dtype.itemsize}")
                vector = text.set(f"insertelement {self.kind} {vector}, {self.lane} {element}, i64 {lane}")
            text.store(vector, self.at(place, self.mul(p, pitch)), self.dtype)
        self.each("turn", 0, self.k, 1, one)

    def squares(self, starts: list[str], place: str, pitch: Number) -> None:
        """Squares of 128 bits a side, as many side by side as a vector has; the last ones may overlap others."""
        last = self.add(self.k, -self.group)

        def step(p: Number) -> None:
            if not isinstance(self.k, int) or self.k % self.group:
                p = self.least(p, last)
            wide = [self.beside([self.at(start, p) for start in starts[r::self.group]]) for r in range(self.group)]
            for q, column in enumerate(self.transposed(wide)):
                self.text.store(column, self.at(place, self.mul(self.add(p, q), pitch)), self.dtype)
        self.each("turn", 0, self.k, self.group, step)

    def beside(self, pointers: list[str]) -> str:
        """A row of a square from each pointer in one vector."""
        text, size = self.text, self.group
        parts = [text.set(f"load <{size} x {self.lane}>, ptr {p}, align {self.dtype.itemsize}") for p in pointers]
        while len(parts) > 1:
            lanes = ", ".join(f"i32 {i}" for i in range(2 * size))
            kind = f"<{size} x {self.lane}>"
            parts = [text.set(f"shufflevector {kind} {a}, {kind} {b}, <{2 * size} x i32> <{lanes}>")
                     for a, b in zip(parts[::2], parts[1::2], strict=True)]
            size *= 2
        return parts[0]

    def transposed(self, rows: list[str]) -> list[str]:
        """Vectors of rows of squares to vectors of their columns."""
        group = self.group

        def shuffled(picks: list[int], a: str, b: str) -> str:
            lanes = ", ".join(f"i32 {base + (i if i < group else i - group + self.lanes)}"
                              for base in range(0, self.lanes, group) for i in picks)
            return self.text.set(f"shufflevector {self.kind} {a}, {self.kind} {b}, <{self.lanes} x i32> <{lanes}>")
        if group == 2:
            return [shuffled([0, 2], *rows), shuffled([1, 3], *rows)]
        a, b, c, d = rows
        low, high = [0, 4, 1, 5], [2, 6, 3, 7]
        left, right = [0, 1, 4, 5], [2, 3, 6, 7]
        pairs = [(shuffled(half, a, b), shuffled(half, c, d)) for half in (low, high)]
        return [shuffled(side, *pair) for pair in pairs for side in (left, right)]
