"""Functions and derivatives written by hand, as an expert would for Numba: products by np.dot, the rest in loops."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks import workloads as w
from benchmarks.engine import foreign, loops
from benchmarks.engine import workloads as e
from benchmarks.libraries import use_numba as here
from benchmarks.libraries.use_numba import VERSION
from benchmarks.worker import Mode, over

__all__ = ["VERSION", "WORKLOADS"]


def compiled(label: str, f: Callable[..., Any], *args: Any, numbers: Callable[[Any], list[Any]]) -> Mode:
    """A call with the same arguments, its results dropped."""
    def loop(n: int) -> None:
        for _ in itertools.repeat(None, n):
            f(*args)
    return Mode(f"njit by hand, {label}", loop, lambda: numbers(f(*args)), recorded=False)


# ---- training ------------------------------------------------------------------------------------

def mlp() -> Iterator[Mode]:
    parameters, batches = w.mlp_parameters(), w.mlp_batches()
    work = loops.small_work(w.BATCH, w.HIDDEN, w.CLASSES)

    def step(x: np.ndarray, y: np.ndarray) -> float:
        return loops.mlp_step(*parameters, x, y, *work, w.RATE)

    def result() -> list[np.ndarray]:
        for batch in batches[:w.CHECKED_STEPS]:
            step(*batch)
        return [p.copy() for p in parameters]
    yield Mode("njit by hand, np.dot, in place", over(batches, step), result, recorded=False)


def mlp_epoch() -> Iterator[Mode]:
    parameters = w.mlp_parameters()
    data = [np.stack(parts) for parts in zip(*w.mlp_batches(), strict=True)]
    work = loops.small_work(w.BATCH, w.HIDDEN, w.CLASSES)

    def loop(n: int) -> None:
        for _ in itertools.repeat(None, n // w.BATCHES):
            loops.mlp_epoch(*parameters, *data, *work, w.RATE)

    def result() -> list[np.ndarray]:
        loops.mlp_epoch(*parameters, *(d[:w.CHECKED_STEPS] for d in data), *work, w.RATE)
        return [p.copy() for p in parameters]
    yield Mode(f"njit by hand, np.dot, in place, {w.SCANNED}", loop, result, recorded=False, whole=w.BATCHES)


def deep_training(parallel: bool) -> Callable[[np.ndarray, np.ndarray], float]:
    """A step of the large network. (Threads of Numba and those of OpenBLAS, which spin, may be in each other's way.)"""
    parameters = tuple(e.deep_parameters())
    grads = tuple(np.empty_like(p) for p in parameters)
    flat, flat_grads = (tuple(a.reshape(-1) for a in kind) for kind in (parameters, grads))
    ms, vs = (tuple(np.zeros_like(p) for p in flat) for _ in range(2))
    work = tuple(np.empty((e.DEEP_BATCH, n), np.float32) for n in (*e.WIDTHS[1:], *e.WIDTHS[1:]))
    turn = itertools.count(1)
    settings = tuple(e.ADAM.values())

    def step(x: np.ndarray, y: np.ndarray) -> float:
        return loops.adam_step(loops.adam_updates[parallel], parameters, grads, flat, flat_grads, ms, vs, work, x, y,
                               next(turn), *settings)
    return step


def adam() -> Iterator[Mode]:
    batches = e.deep_batches()
    for parallel in (False, True):
        step = deep_training(parallel)
        yield Mode(f"njit by hand, np.dot, fused Adam{' in parallel' if parallel else ''}", over(batches, step),
                   lambda step=step: [[step(*b) for b in batches[:e.DEEP_STEPS]]], recorded=False)


# ---- values and gradients ------------------------------------------------------------------------

def expression(n: int) -> Iterator[Mode]:
    x = e.points(n)
    for label, f in (("libm", loops.expression), ("SIMD polynomials", loops.expression_quick),
                     ("SIMD polynomials, parallel", loops.expression_parallel)):
        yield compiled(label, f, x, numbers=lambda found: e.expression_numbers(*found))


def lstm() -> Iterator[Mode]:
    weights, xs = e.lstm_inputs()
    yield compiled("np.dot and loops", loops.lstm, *weights, xs, numbers=list)


def hvp() -> Iterator[Mode]:
    yield compiled("np.dot and loops", loops.hvp, *w.mlp_parameters(), *e.direction(), *w.mlp_batches()[0],
                   numbers=list)


def third_derivative() -> Iterator[Mode]:
    yield compiled("closed form", loops.third_derivative, e.angles(), numbers=lambda found: [found])


def hessian() -> Iterator[Mode]:
    yield compiled("closed form", loops.hessian, e.unknowns(), numbers=lambda found: [found])


def rk4() -> Iterator[Mode]:
    yield compiled("adjoint", loops.rk4, e.rates(), *e.RK4["start"], e.RK4["h"], e.RK4["steps"], numbers=list)


def njit_call() -> Iterator[Mode]:
    given = w.entry_inputs()
    yield Mode("njit by hand, a loop, called under @njit", foreign.calling(here.entry_loop, given),
               lambda: [here.entry_loop(*given)], recorded=False)


WORKLOADS: dict[str, Callable[[], Iterator[Mode]]] = {
    "mlp": mlp, "mlp-epoch": mlp_epoch, "adam": adam, "lstm": lstm, "hvp": hvp, "hessian": hessian, "rk4": rk4,
    "third-derivative": third_derivative, "chain": lambda: iter(here.chain_value()), "njit-call": njit_call,
    **{f"expression-{size}": partial(expression, n) for size, n in e.SIZES.items()}}
