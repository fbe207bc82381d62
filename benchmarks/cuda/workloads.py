"""The rows: what goes in, what comes out, and the answer that every library must come close to."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from benchmarks import workloads as w
from benchmarks.engine import by_hand
from benchmarks.engine import workloads as e
from benchmarks.engine.workloads import Row
from benchmarks.workloads import Arrays

WIDTH = 16                      # of the square that `sums` works on
CHECKED = 32                    # rows of the product, about
COPY = "a copy on the GPU of as many bytes as x has, by the driver"
OWN = "on the GPU, made before"


class Sizes(NamedTuple):
    """Of the rows that have one; ``tiny``: all of them, for Numba's simulator."""

    points: int = 100_000_000   # of the expression
    side: int = 8192            # of the product
    sums: int = 100             # one after the other
    tiny: bool = False

    def settings(self) -> dict[str, str]:
        """The environment that tells a worker."""
        return {f"BENCHMARKS_{name.upper()}": str(int(size)) for name, size in self._asdict().items()}


TINY = Sizes(points=40, side=4, sums=4, tiny=True)


def sizes() -> Sizes:
    """As the environment says."""
    given = {name: int(os.environ.get(f"BENCHMARKS_{name.upper()}", size))
             for name, size in Sizes()._asdict().items()}
    return Sizes(given["points"], given["side"], given["sums"], bool(given["tiny"]))


def shrink() -> None:
    """From here on the rows that are the engine's, too, are as small as a simulator wants them."""
    w.LENGTH, w.TURNS = 4, 3
    w.INPUTS, w.HIDDEN, w.CLASSES, w.BATCH, w.BATCHES, w.CHECKED_STEPS = 4, 3, 2, 2, 2, 3
    e.WIDTHS, e.DEEP_BATCH, e.DEEP_BATCHES, e.DEEP_STEPS = (4, 3, 2), 2, 2, 2


def square() -> np.ndarray:
    """Where the sums start."""
    return np.random.default_rng(18).standard_normal((WIDTH, WIDTH), np.float32)


def summed(x: Any, of: Any, turns: int) -> Any:
    """Means of columns and of rows in turns, each added to what it was of, by a library's functions: none of them can
    begin before the last one has ended.
    """
    for turn in range(turns):
        x = x + 0.1 * of.cos(of.sum(x, turn % 2, keepdims=True) / WIDTH)
    return x


def factors(side: int) -> Arrays:
    """What is multiplied."""
    rng = np.random.default_rng(19)
    return [rng.standard_normal((side, side), np.float32) for _ in range(2)]


def some_rows(product: Any) -> Any:
    """The rows of a product that are checked."""
    return product[::max(1, len(product) // CHECKED)]


def product_answer(side: int) -> Arrays:
    """By the square root of the side, so that one tolerance fits."""
    x, y = factors(side)
    return [some_rows(x).astype(np.float64) @ y.astype(np.float64) / side ** 0.5]


def rows(of: Sizes) -> list[Row]:
    """The tables."""
    named = {row.name: row for row in e.ROWS}
    n, side = of.points, of.side
    products = (("matmul", "", 1e-5), ("matmul-tf32", ", operands rounded to TF32", 5e-3))
    return [
        *(replace(named[name], goes_in=named[name].goes_in.replace(e.OWN, OWN)) for name in ("mlp", "adam", "chain")),
        Row("expression", f"value and gradient of {e.TEXT}, n = {n}", f"x, float32, {OWN}",
            f"the value and the gradient, on the GPU, dropped before the next call. Beside them {COPY}", 2e-5, 2e-6,
            lambda: e.expression_numbers(*by_hand.expression(e.points(n).astype(np.float64)))),
        Row("sums", f"x = x + 0.1 * cos(mean of x along an axis), {of.sums} times, the axes in turns",
            f"x, {WIDTH} x {WIDTH} float32, {OWN}", "x at the end, on the GPU, dropped", 1e-4, 1e-5,
            lambda: [summed(square().astype(np.float64), np, of.sums)]),
        *(Row(name, f"a product of two matrices of {side} x {side} float32{how}", f"both, {OWN}",
              "the product, on the GPU, dropped before the next call", atol, atol, lambda: product_answer(side))
          for name, how, atol in products)]
