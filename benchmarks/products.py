"""Small matrix products: the library's own kernel beside BLAS, over a grid of shapes.

`python -m benchmarks.products` calls both kernels of a product from compiled code, interleaved, on operands that stay
in the cache, and prints how many times faster (above 1) or slower the own one is: by rows of x and columns of y, for
each length of the inner axis, transposition and dtype. A star is a shape that jitgrad gives to its own kernel.
`--shapes` is the products of a small network, its gradient and an LSTM instead, with the text of `emit_product`, whose
shapes are known when it is compiled, and the milliseconds that LLVM takes for that.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jitgrad.core.aval import aval
from jitgrad.core.dtypes import CODES
from jitgrad.core.form import Form, form
from jitgrad.core.primitive import BY_NAME
from jitgrad.execute.cpu import blas, llvm, products
from jitgrad.execute.cpu.lanes import Text
from jitgrad.execute.cpu.products import Spec

SIZES = (1, 2, 3, 8, 10, 16, 32, 33, 64, 100, 128)
#        m, n, k, x transposed, y transposed
SHAPES = ((32, 32, 64, False, False), (32, 10, 32, False, False), (64, 32, 32, True, False),
          (32, 10, 32, True, False), (32, 32, 10, False, True), (16, 256, 64, False, False),
          (16, 64, 256, False, True), (64, 256, 16, True, False), (8, 8, 8, False, False), (64, 64, 64, False, False))
ROUND = 1e-4                     # seconds that a round of one kernel takes, about
Kernel = tuple[int, np.ndarray]  # address, params

_REPEATED = """define i64 @repeated(ptr %kernel, ptr %params, ptr %slots, i64 %times) {
entry:
  br label %call
call:
  %i = phi i64 [0, %entry], [%next, %call]
  %status = call i64 %kernel(ptr %params, ptr %slots)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %times
  br i1 %more, label %call, label %end
end:
  ret i64 0
}
"""
_CHAINS = 12
_PEAK = "\n".join([
    "define i64 @peak(ptr %params, ptr %slots) {", "entry:", "  %out = load ptr, ptr %slots, align 8",
    "  br label %again", "again:",
    "  %i = phi i64 [0, %entry], [%next, %again]",
    *(f"  %a{c} = phi KIND [zeroinitializer, %entry], [%b{c}, %again]" for c in range(_CHAINS)),
    *(f"  %b{c} = call KIND @llvm.fmuladd.SUFFIX(KIND %a{c}, KIND %a{c}, KIND %a{c})" for c in range(_CHAINS)),
    "  %next = add i64 %i, 1", "  %more = icmp slt i64 %next, 1000", "  br i1 %more, label %again, label %end", "end:",
    *(f"  store volatile KIND %b{c}, ptr %out, align 4" for c in range(_CHAINS)), "  ret i64 0", "}",
    "declare KIND @llvm.fmuladd.SUFFIX(KIND, KIND, KIND)", ""])


def linked(text: str, name: str) -> int:
    """The address of a function."""
    return llvm.link(llvm.emit(text), [name])[name]


def product(m: int, n: int, k: int, ta: bool, tb: bool, dtype: np.dtype[Any]) -> Form:
    """A row of the table."""
    shapes = ((k, m) if ta else (m, k)), ((n, k) if tb else (k, n))
    return form(BY_NAME["matmul"], [aval(CODES[dtype], shape) for shape in shapes], {"ta": ta, "tb": tb})


def by_blas(made: Form) -> Kernel:
    found = blas.gemm(made)
    if found is None:
        raise SystemExit("benchmarks.products: NumPy brought no BLAS along")
    return found[0], np.array(found[1], np.int64)


def own(made: Form, address: int) -> Kernel:
    """The kernel that reads shapes when it runs."""
    assert made.prim.words is not None
    return address, np.array([0, 0, 0, *made.prim.words(*made.avals, **made.params)], np.int64)


def inlined(spec: Spec) -> Kernel:
    """A kernel with the text that a plan has for a product of this shape."""
    name = "_".join(["product", *map(str, spec)])
    text = Text(name)
    for i, pointer in enumerate(("out", "x", "y")):
        text.set(f"load ptr, ptr {text.set(f'getelementptr ptr, ptr %slots, i64 {i}')}, align 8", pointer)
    products.emit_product(text, spec, "%x", "%y", products.storing(text, "%out", spec))
    text.do("ret i64 0")
    return linked(text.finish(), name), np.zeros(1, np.int64)


def aligned(size: int, dtype: np.dtype[Any], rng: np.random.Generator) -> np.ndarray:
    """Random numbers where a vector begins, as the arena has its values."""
    room = np.empty(size * dtype.itemsize + 64, np.uint8)
    start = -room.ctypes.data % 64
    found = room[start: start + size * dtype.itemsize].view(dtype)
    found[:] = rng.standard_normal(size)
    return found


class Clock:
    """Times kernels against each other."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.repeated = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 4)(linked(_REPEATED, "repeated"))

    def seconds(self, kernels: Sequence[Kernel], sizes: Iterable[int], dtype: np.dtype[Any]) -> list[float]:
        """The least time of a call of each, on arrays of so many elements."""
        arrays = [aligned(size, dtype, np.random.default_rng(0)) for size in sizes]
        slots = np.array([a.ctypes.data for a in arrays], np.int64)

        def once(kernel: Kernel, times: int) -> float:
            start = time.perf_counter()
            self.repeated(kernel[0], kernel[1].ctypes.data, slots.ctypes.data, times)
            return time.perf_counter() - start
        counts = []
        for kernel in kernels:
            count = 4
            while (taken := min(once(kernel, count) for _ in range(3))) < ROUND / 4:
                count *= 4
            counts.append(max(1, round(count * ROUND / taken)))
        rounds = [[once(kernel, count) / count for kernel, count in zip(kernels, counts, strict=True)]
                  for _ in range(self.rounds)]
        return [min(column) for column in zip(*rounds, strict=True)]

    def peak(self, dtype: np.dtype[Any]) -> float:
        """Operations a second of multiply-adds in registers."""
        lanes = products.tiles.host().width // dtype.itemsize
        kind = f"<{lanes} x {'float' if dtype.itemsize == 4 else 'double'}>"
        name = f"peak_{dtype}"
        text = _PEAK.replace("@peak", f"@{name}").replace("KIND", kind)
        address = linked(text.replace("SUFFIX", f"v{lanes}f{8 * dtype.itemsize}"), name)
        took, = self.seconds([(address, np.zeros(1, np.int64))], [64], dtype)
        return 1000 * _CHAINS * lanes * 2 / took


def sizes(m: int, n: int, k: int) -> tuple[int, int, int]:
    return m * n, m * k, k * n


def grid(dtype: np.dtype[Any], clock: Clock) -> None:
    """A table for each length of the inner axis and each transposition."""
    name = f"product_{dtype}"
    address = linked(products.ir(name, "matmul", dtype), name)
    kept: list[float] = []
    for ta, tb, k in itertools.product((False, True), (False, True), SIZES):
        print(f"\n{dtype}, x {'(k, m)' if ta else '(m, k)'}, y {'(n, k)' if tb else '(k, n)'}, k = {k}: BLAS / own")
        print("    m\\n" + "".join(f"{n:>8}" for n in SIZES))
        for m in SIZES:
            line = []
            for n in SIZES:
                made = product(m, n, k, ta, tb, dtype)
                theirs, ours = clock.seconds([by_blas(made), own(made, address)], sizes(m, n, k), dtype)
                taken = products.small(made)
                kept += [theirs / ours] * taken
                line.append(f"{theirs / ours:7.2f}{'*' if taken else ' '}")
            print(f"{m:>7}" + "".join(line), flush=True)
    print(f"\n{dtype}: own kernel for {len(kept)} shapes: {min(kept):.2f} to {max(kept):.1f} times as fast, "
          f"median {statistics.median(kept):.2f}; below 0.9: {sum(ratio < 0.9 for ratio in kept)}")


def shapes(dtype: np.dtype[Any], clock: Clock) -> None:
    """One line a product: nanoseconds, and the share of the peak."""
    name = f"product_{dtype}"
    address, peak = linked(products.ir(name, "matmul", dtype), name), clock.peak(dtype)
    print(f"\n{dtype}, one core, peak {peak / 1e9:.0f} Gflop/s: ns (Gflop/s)")
    print(f"{'m x k x n':>14} {'given':>6} {'BLAS':>14} {'own kernel':>14} {'inlined':>14} {'of peak':>8} {'ms':>5}")
    for m, n, k, ta, tb in SHAPES:
        made = product(m, n, k, ta, tb, dtype)
        start = time.perf_counter()
        known = inlined(products.spec_of(made))
        took = time.perf_counter() - start
        found = clock.seconds([by_blas(made), own(made, address), known], sizes(m, n, k), dtype)
        flops = 2 * m * n * k
        columns = " ".join(f"{1e9 * t:7.0f} ({flops / t / 1e9:4.0f})" for t in found)
        given = "".join(" x'" * ta + " y'" * tb)
        print(f"{f'{m}x{k}x{n}':>14} {given:>6} {columns} {flops / found[-1] / peak:8.0%} {1e3 * took:5.1f}",
              flush=True)


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", action="store_true", help="some products instead of the grid")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtype", choices=("float32", "float64"), action="append")
    given = parser.parse_args()
    clock = Clock(given.rounds)
    for name in given.dtype or ("float32", "float64"):
        (shapes if given.shapes else grid)(np.dtype(name), clock)


if __name__ == "__main__":
    main()
