"""Small matrix products: where they are ours rather than BLAS's, their kernel, and their text with known shapes.

The order of additions is that of `tiles`, in every tier and in Numba's build of the entry's body.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from jitgrad.core.form import Form
from jitgrad.execute.cpu import tiles
from jitgrad.execute.cpu.lanes import Text, module
from jitgrad.execute.cpu.networks import Function
from jitgrad.execute.cpu.tiles import LATENCY, Machine, Number, Store, Tiles, Turn

DEPTH = 256                      # elements of the inner axis that the kernel's transposed copy has room for
LARGEST = 64 ** 3                # multiply-adds; beyond, BLAS's copies of its operands pay
HEIGHTS = 8, 4                   # of the kernel's tiles
FULL = 0.7                       # of the multiply-adds that could start


class Spec(NamedTuple):
    """A product of matrices, x given as (k, m) where ta, y as (n, k) where tb; `batch` of them, contiguous."""

    batch: int
    m: int
    n: int
    k: int
    ta: bool
    tb: bool
    dtype: np.dtype[Any]


def spec_of(form: Form) -> Spec:
    """Of a row of the table."""
    assert form.prim.words is not None
    batch, m, n, k, ta, tb = form.prim.words(*form.avals, **form.params)
    return Spec(batch, m, n, k, bool(ta), bool(tb), form.outs[0].dtype)


def small(form: Form) -> bool:
    """Whether a product is computed here, in one chain of additions for each element; all tiers ask this."""
    spec, _ = turned(spec_of(form))
    if spec.dtype.kind != "f" or spec.m * spec.n * spec.k > LARGEST or (spec.tb and spec.k > DEPTH):
        return False
    return _worthwhile(spec, tiles.host())


applies = small                  # to the library


def _worthwhile(spec: Spec, machine: Machine) -> bool:
    """Where the kernel is not slower than OpenBLAS, as `python -m benchmarks.products` found with vectors of 64 bytes.

    Short inner axes leave BLAS no time to make up for its call. Longer ones want tiles that are full, and enough rows
    to pay for a transposed copy of y.
    """
    _, m, n, k, ta, tb, dtype = spec
    if m == n == 1:
        return k <= 4                            # longer dot products are one chain, where BLAS has many
    if m == 1:
        return not tb or k <= 10
    if tb:
        return k <= 4 if ta else k <= 10 or (min(m, n) >= 8 and k <= (4 * m if n >= 16 else min(2 * m, 32)))
    lanes = machine.width // dtype.itemsize
    if k <= 8:
        ragged = 4 * n < 3 * lanes * -(-n // lanes)
        return not ta or m < 4 or (n >= 8 and not (ragged and n > lanes and m > 8))
    if m < 4 or n < 8:
        return False
    if n < lanes:
        return k <= 64 and m * k <= ((1024 if 2 * n > lanes else 256) if ta else 4096)
    return m * n / (2 * lanes) >= FULL * cost(m, -(-n // lanes), Cut(8, 2))


def turned(spec: Spec) -> tuple[Spec, bool]:
    """What is computed: a product with one column as its transpose, a row, from exchanged operands, since vectors lie
    along rows. Its result has the same elements in the same order. The flag of an operand with one row or column is
    dropped.
    """
    batch, m, n, k, ta, tb, dtype = spec
    exchanged = n == 1 and m > 1
    if exchanged:
        m, n, ta, tb = n, m, not tb, not ta
    return Spec(batch, m, n, k, ta and m > 1 and k > 1, tb and n > 1 and k > 1, dtype), exchanged


# ---- shapes known when the text is written ----------------------------------------------------------

class Cut(NamedTuple):
    """A tile: so many rows, so many vectors of columns."""

    height: int
    vectors: int


def parts(count: int, most: int) -> list[tuple[int, int]]:
    """A count as (how many, of which size) of nearly equal sizes up to `most`."""
    pieces = -(-count // most)
    size = -(-count // pieces)
    full = count - pieces * (size - 1)
    return [(full, size), (pieces - full, size - 1)] if pieces > full else [(full, size)]


def cost(m: int, vectors: int, cut: Cut) -> float:
    """Cycles for each step along k: two multiply-adds in one, chains that wait for themselves, and, as measured, one
    for the loop and some for the loads."""
    def tile(height: int, width: int) -> float:
        return max(height * width / 2, LATENCY) + 1 + (height + width) / 16
    return sum(a * b * tile(height, width) for a, height in parts(m, cut.height)
               for b, width in parts(vectors, cut.vectors))


def best(m: int, vectors: int, registers: int) -> Cut:
    """The tile of a product with so many rows and vectors of columns."""
    cuts = [Cut(height, width) for width in range(1, min(vectors, registers // 2) + 1)
            for height in range(1, min(m, 16) + 1) if height * width + width + 1 <= registers]

    def weighed(cut: Cut) -> float:
        written = sum(height for _, height in parts(m, cut.height)) * sum(w for _, w in parts(vectors, cut.vectors))
        return cost(m, vectors, cut) * (1 + written / 500)      # a bit of speed is worth less than time to compile
    return min(cuts, key=weighed)


class _Known(Tiles):
    """All shapes are numbers."""

    def __init__(self, text: Text, spec: Spec, machine: Machine, store: Store, cut: Cut | None, scratch: str) -> None:
        super().__init__(text, spec.dtype, machine, store)
        self.turn = Turn(text, spec.dtype, machine, spec.k)
        self.m, self.n, self.k, self.tb, self.scratch = spec.m, spec.n, spec.k, spec.tb, scratch
        self.xi, self.xp = (1, spec.m) if spec.ta else (spec.k, 1)
        self.vectors = -(-spec.n // self.lanes)
        self.cut = cut or best(spec.m, self.vectors, machine.registers)

    def write(self, x: str, y: str) -> None:
        """One matrix."""
        self.x, self.y = x, y
        assert isinstance(self.n, int)
        start, rest = 0, self.n % self.lanes
        for count, width in parts(self.vectors, self.cut.vectors):
            stop = start + count * width * self.lanes
            ragged = rest > 0 and stop > self.n
            whole = stop - width * self.lanes if ragged else stop
            self.each("column", start, whole, width * self.lanes, partial(self.block, vectors=width, mask=None))
            if ragged:
                lanes = ", ".join(f"i1 {'true' if lane < rest else 'false'}" for lane in range(self.lanes))
                self.block(whole, width, f"<{lanes}>")
            start = stop

    def rows(self, vectors: int, tile: Callable[[int, Number], None]) -> None:
        assert isinstance(self.m, int)
        start = 0
        for count, height in parts(self.m, self.cut.height):
            self.each("row", start, start + count * height, height, partial(tile, height))
            start += count * height

    def source(self, j: Number, vectors: int, mask: str | None) -> tuple[str, Number]:
        if not self.tb:
            return self.at(self.y, j), self.n
        pitch = vectors * self.lanes
        for first in range(0, pitch, self.lanes):
            rows = self.n - j - first if isinstance(self.n, int) and isinstance(j, int) else self.lanes
            row = self.at(self.y, self.mul(self.add(j, first), self.k))
            self.turn.rows(row, rows, self.at(self.scratch, first), pitch)
        return self.scratch, pitch


def room(spec: Spec, machine: Machine | None = None, cut: Cut | None = None) -> int:
    """Bytes of working memory that `emit_product` wants."""
    spec, machine = turned(spec)[0], machine or tiles.host()
    if not spec.tb or 0 in spec[:4]:
        return 0
    vectors = -(-spec.n // (machine.width // spec.dtype.itemsize))
    cut = cut or best(spec.m, vectors, machine.registers)
    return parts(vectors, cut.vectors)[0][1] * machine.width * spec.k


def emit_product(text: Text, spec: Spec, x: str, y: str, store: Store, *, scratch: str = "",
                 machine: Machine | None = None, cut: Cut | None = None) -> None:
    """Append a product with known shapes; nothing if it has no elements.

    ``store(i, j, value, mask)`` gets each vector of the (batch * m, n) elements once: row and first column (numbers or
    registers), all lanes or those of the mask, `text.lanes` of them while it runs. Of a product that `turned` exchanges
    i is the batch and j the row. ``scratch`` has `room(spec)` bytes; without it they are taken from the stack.
    """
    spec, exchanged = turned(spec)
    if exchanged:
        x, y = y, x
    if spec.batch * spec.m * spec.n == 0:
        return
    machine, lanes = machine or tiles.host(), text.lanes
    above: list[Number] = [0]
    if not scratch and spec.tb and spec.k:
        scratch = text.stack("i8", room(spec, machine, cut))
    made = _Known(text, spec, machine, lambda i, j, *value: store(made.add(above[0], i), j, *value), cut, scratch)

    def matrix(b: Number) -> None:
        above[:] = [made.mul(b, spec.m)]
        made.write(made.at(x, made.mul(b, spec.m * spec.k)), made.at(y, made.mul(b, spec.k * spec.n)))
    made.each("matrix", 0, spec.batch, 1, matrix)
    text.lanes = lanes


# ---- the kernel: shapes from the params -------------------------------------------------------------

class _Kernel(Tiles):
    """Shapes are read when it runs. Rows by tall tiles and low ones, which overlap at the end; of few rows, one by one,
    more columns at a time.
    """

    def __init__(self, text: Text, dtype: np.dtype[Any], machine: Machine) -> None:
        super().__init__(text, dtype, machine, self.put)
        self.fits = machine.registers // 2
        self.few = False
        self.scratch = text.stack("i8", 2 * machine.width * DEPTH)
        self.steps = text.stack("i64", HEIGHTS[0])
        self.out = "%out"

    def write(self) -> None:
        """The whole function's body."""
        text = self.text
        batch = self.given()

        def matrix(b: str, x: str, y: str, out: str) -> list[str]:
            self.x, self.y, self.out = x, y, out
            many, few, done = text.fresh("many"), text.fresh("few"), text.fresh("done")
            text.branch(text.set(f"icmp sge i64 {self.m}, {HEIGHTS[-1]}"), many, few)
            text.label(many)
            self.few = False
            self.columns("0")
            text.goto(done)
            text.label(few)
            self.few = True
            stop = text.set(f"and i64 {self.n}, {-4 * self.lanes}")
            stop = text.set(f"select i1 %turned, i64 0, i64 {stop}")      # the scratch buffer has room for two vectors
            self.each("column", "0", stop, 4 * self.lanes, lambda j: self.block(j, 4, None))
            self.columns(stop)
            text.goto(done)
            text.label(done)
            return [self.at(x, "%x.size"), self.at(y, "%y.size"), self.at(out, "%out.size")]
        text.loop("matrix", "0", batch, 1, matrix, "ptr = %x", "ptr = %y", "ptr = %out")
        text.do("ret i64 0")

    def given(self) -> str:
        """Read params and slots, exchanged and simplified as `turned` has it; the batch."""
        text = self.text
        for place, name in enumerate(("batch", "rows", "columns", "k", "ta", "tb")):
            word = text.set(f"getelementptr i64, ptr %params, i64 {3 + place}")     # after the sizes
            text.set(f"load i64, ptr {word}, align 8", name)
        for place, name in enumerate(("out", "left", "right")):
            slot = text.set(f"getelementptr ptr, ptr %slots, i64 {place}")
            text.set(f"load ptr, ptr {slot}, align 8", name)
        swap = text.set("icmp eq i64 %columns, 1")
        text.set(f"select i1 {swap}, i64 1, i64 %rows", "m")
        text.set(f"select i1 {swap}, i64 %rows, i64 %columns", "n")
        text.set(f"select i1 {swap}, ptr %right, ptr %left", "x")
        text.set(f"select i1 {swap}, ptr %left, ptr %right", "y")
        self.m, self.n, self.k = "%m", "%n", "%k"
        flags = [text.set(f"icmp ne i64 %{name}, 0") for name in ("ta", "tb")]
        upright = text.set(f"xor i1 {flags[0]}, true")
        one = text.set("icmp eq i64 %m, 1")
        over = text.set(f"select i1 {one}, i1 false, i1 {flags[0]}")     # m is 1 wherever operands are exchanged
        self.xi = text.set(f"select i1 {over}, i64 1, i64 %k")
        self.xp = text.set(f"select i1 {over}, i64 %m, i64 1")
        other = text.set(f"select i1 {swap}, i1 {upright}, i1 {flags[1]}")
        text.set(f"and i1 {other}, {text.set('icmp ne i64 %k, 1')}", "turned")
        text.set("mul i64 %m, %k", "x.size")
        text.set("mul i64 %k, %n", "y.size")
        text.set("mul i64 %m, %n", "out.size")
        for r in range(1, HEIGHTS[0]):
            step = text.set(f"getelementptr i64, ptr {self.steps}, i64 {r}")
            text.do(f"store i64 {self.mul(r, self.xi)}, ptr {step}, align 8")
        return "%batch"

    def down(self, height: int) -> list[Number]:
        """Through memory, so that each is a register of its own: LLVM would add them up, one waiting for the other."""
        text = self.text
        places = [text.set(f"getelementptr i64, ptr {self.steps}, i64 {r}") for r in range(1, height)]
        return [0, *(text.set(f"load i64, ptr {place}, align 8") for place in places)]

    def columns(self, start: str) -> None:
        """Blocks of two vectors, the second masked, while more than one vector remains; then one, masked."""
        text = self.text
        stop = text.set(f"sub i64 {self.n}, {self.lanes}")

        def pair(j: Number) -> None:
            left = text.set(f"sub i64 {self.n}, {j}")
            self.block(j, 2, text.first_lanes(left, self.lanes))
        rest = text.declare("i64", "llvm.smax.i64", "i64", "i64")
        more = text.set(f"call i64 @{rest}(i64 {text.set(f'sub i64 {stop}, {start}')}, i64 0)")
        pairs = text.set(f"and i64 {self.add(more, 2 * self.lanes - 1)}, {-2 * self.lanes}")
        self.each("pair", start, stop, 2 * self.lanes, pair)
        self.each("column", self.add(start, pairs), self.n, self.lanes,
                  lambda j: self.block(j, 1, text.first_lanes(text.set(f"sub i64 {self.n}, {j}"))))

    def rows(self, vectors: int, tile: Callable[[int, Number], None]) -> None:
        if self.few:
            self.each("row", 0, self.m, 1, partial(tile, 1))
        else:
            self.walk([height for height in HEIGHTS if height * vectors <= self.fits], tile)

    def walk(self, heights: Sequence[int], tile: Callable[[int, Number], None]) -> None:
        """Each height while more rows remain than the next lower one has; its last tile may overlap others."""
        text, start = self.text, "0"
        largest = text.declare("i64", "llvm.smax.i64", "i64", "i64")
        for height, lower in zip(heights, (*heights[1:], 0), strict=True):
            stop = self.add(self.m, -lower)
            if height > heights[-1]:
                enough = text.set(f"icmp sge i64 {self.m}, {height}")
                stop = text.set(f"select i1 {enough}, i64 {stop}, i64 0")
            self.each("row", start, stop, height, partial(self.overlapping, tile, height, self.add(self.m, -height)))
            if lower:
                left = text.set(f"call i64 @{largest}(i64 {text.set(f'sub i64 {stop}, {start}')}, i64 0)")
                walked = text.set(f"and i64 {self.add(left, height - 1)}, {-height}")
                start = text.set(f"add i64 {start}, {walked}")

    def overlapping(self, tile: Callable[[int, Number], None], height: int, last: Number, i: Number) -> None:
        tile(height, self.least(i, last))

    def source(self, j: Number, vectors: int, mask: str | None) -> tuple[str, Number]:
        text = self.text
        direct = self.at(self.y, j)
        if vectors > 2:
            return direct, self.n
        over, ready, before = text.fresh("over"), text.fresh("ready"), text.block
        text.branch("%turned", over, ready)
        text.label(over)
        for first in range(0, vectors * self.lanes, self.lanes):
            row = self.add(j, first)
            given = [f"ptr {self.at(self.y, self.mul(row, self.k))}", f"i64 {text.set(f'sub i64 {self.n}, {row}')}",
                     f"i64 {self.k}", f"ptr {self.at(self.scratch, first)}", f"i64 {vectors * self.lanes}"]
            text.do(f"call void @{text.name}.turn({', '.join(given)})")
        text.goto(ready)
        text.label(ready)
        return (text.set(f"phi ptr [{direct}, %{before}], [{self.scratch}, %{over}]"),
                text.set(f"phi i64 [{self.n}, %{before}], [{vectors * self.lanes}, %{over}]"))

    def put(self, i: Number, j: Number, value: str, mask: str | None) -> None:
        place = self.at(self.at(self.out, self.mul(i, self.n)), j)
        put(self.text, place, value, mask, self.dtype)


def storing(text: Text, out: str, spec: Spec) -> Store:
    """What puts the elements of a product where its row of the table has them, at a pointer."""
    columns = turned(spec)[0].n

    def store(i: Number, j: Number, value: str, mask: str | None) -> None:
        first = text.set(f"add i64 {text.set(f'mul i64 {i}, {columns}')}, {j}")
        put(text, text.at(out, first, spec.dtype), value, mask, spec.dtype)
    return store


def function(name: str, spec: Spec, machine: Machine | None = None, cut: Cut | None = None) -> str:
    """Text of `void name(ptr out, ptr x, ptr y)`, for the module that calls it: a product with known shapes."""
    text = Function(f"define internal void @{name}(ptr %out, ptr %x, ptr %y)")
    emit_product(text, spec, "%x", "%y", storing(text, "%out", spec), machine=machine, cut=cut)
    text.do("ret void")
    return "\n".join([text.finish(), *text.declarations, ""])


def put(text: Text, place: str, value: str, mask: str | None, dtype: np.dtype[Any]) -> None:
    """Store a vector, or the lanes of it that a mask names."""
    if mask is None:
        text.store(value, place, dtype)
        return
    kind, masks = text.vector("double" if dtype.itemsize == 8 else "float"), text.vector("i1")
    name = text.declare("void", f"llvm.masked.store.v{text.lanes}f{8 * dtype.itemsize}.p0", kind, "ptr", "i32", masks)
    text.do(f"call void @{name}({kind} {value}, ptr {place}, i32 {dtype.itemsize}, {masks} {mask})")


def ir(name: str, entry: str, dtype: np.dtype[Any], machine: Machine | None = None) -> str:
    """Text of the kernel `name` in the place of the entry's own, with the same params: sizes of out, x and y, then
    batch, m, n, k, ta, tb."""
    machine, text = machine or tiles.host(), Text(name)
    _Kernel(text, dtype, machine).write()
    turn = Function(f"define internal void @{name}.turn(ptr %y, i64 %rows, i64 %k, ptr %to, i64 %pitch)")
    Turn(turn, dtype, machine, "%k").rows("%y", "%rows", "%to", "%pitch")
    turn.do("ret void")
    text.declarations.update(turn.declarations)
    return module([text.finish(), turn.finish()])
