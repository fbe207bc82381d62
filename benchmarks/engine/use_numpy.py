"""NumPy, derivatives worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks import workloads as w
from benchmarks.engine import by_hand
from benchmarks.engine import workloads as e
from benchmarks.libraries import use_numpy as here
from benchmarks.libraries.use_numpy import VERSION
from benchmarks.worker import Mode, over, repeated

__all__ = ["VERSION", "WORKLOADS"]


def once(f: Callable[..., Any], *args: Any, numbers: Callable[[Any], list[Any]] = list) -> Iterator[Mode]:
    """A call with the same arguments."""
    yield Mode("by hand", repeated(lambda: f(*args)), lambda: numbers(f(*args)), recorded=False)


def adam() -> Iterator[Mode]:
    parameters = e.deep_parameters()
    batches, optimizer = e.deep_batches(), by_hand.Adam(parameters, **e.ADAM)

    def step(x: np.ndarray, y: np.ndarray) -> Any:
        loss, grads = by_hand.deep_gradient(parameters, x, y)
        optimizer.apply(grads)
        return loss
    yield Mode("by hand, in place", over(batches, step), lambda: [[step(*b) for b in batches[:e.DEEP_STEPS]]],
               recorded=False)
    yield Mode(e.GEMMS, over(batches, products()), lambda: [], recorded=False)


def products() -> Callable[..., Any]:
    """The matrix products of a step of the large network on a batch, into arrays that are there."""
    layers = e.deep_layers()
    outs = [[np.empty_like(a) for a in layer] for layer in layers]

    def turn(first: np.ndarray, _: np.ndarray) -> None:
        layers[0][0] = first
        for (x, kernel, _), (_, _, out) in zip(layers, outs, strict=True):
            np.matmul(x, kernel, out=out)
        for k in range(len(layers) - 1, -1, -1):
            (x, kernel, g), (gx, gkernel, _) = layers[k], outs[k]
            np.matmul(x.T, g, out=gkernel)
            if k:
                np.matmul(g, kernel.T, out=gx)
    return turn


def hvp() -> Iterator[Mode]:
    return once(by_hand.hessian_vector, w.mlp_parameters(), e.direction(), *w.mlp_batches()[0])


def lstm() -> Iterator[Mode]:
    return once(by_hand.lstm, *e.lstm_inputs(), numbers=lambda found: [found[0], *found[1]])


WORKLOADS: dict[str, Callable[[], Iterator[Mode]]] = {
    "mlp": lambda: iter(here.mlp()), "adam": adam, "lstm": lstm, "hvp": hvp,
    "third-derivative": lambda: once(by_hand.third_derivative, e.angles(), numbers=lambda found: [found]),
    "hessian": lambda: once(by_hand.rosenbrock_hessian, e.unknowns(), numbers=lambda found: [found]),
    "chain": lambda: iter(here.chain_value()),
    **{f"expression-{size}": partial(lambda n: once(by_hand.expression, e.points(n),
                                                    numbers=lambda found: e.expression_numbers(*found)), n)
       for size, n in e.SIZES.items()}}
