"""NumPy, derivatives worked out by hand."""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np

from benchmarks import kernels
from benchmarks import workloads as w
from benchmarks.worker import Mode, measured, over, repeated, with_four, with_pairs

VERSION = np.__version__


def op() -> list[Mode]:
    a, b = w.op_inputs()

    def operator(n: int) -> None:
        for _ in itertools.repeat(None, n):
            a + b

    def function(n: int) -> None:
        add = np.add
        for _ in itertools.repeat(None, n):
            add(a, b)
    return [Mode("a + b", operator, lambda: [a + b], recorded=False),
            Mode("np.add(a, b)", function, lambda: [np.add(a, b)], recorded=False)]


def chain() -> list[Mode]:
    x = w.chain_input()
    return [Mode("by hand", repeated(lambda: w.chain_by_hand(x)), lambda: [w.chain_by_hand(x)], recorded=False)]


def chain_value() -> list[Mode]:
    x = w.chain_input()

    def call() -> list[np.ndarray]:
        return [np.asarray(w.chain_sum(x)), w.chain_by_hand(x)]
    return [Mode("by hand", repeated(call), call, recorded=False)]


def entry() -> list[Mode]:
    arrays = w.entry_inputs()
    return [Mode("a function, eager", with_four(w.entry_by_hand, *arrays), lambda: [w.entry_by_hand(*arrays)],
                 recorded=False)]


def partials() -> list[Mode]:
    return [Mode("by hand, Python floats", with_pairs(w.pairs(), w.partials_by_hand),
                 lambda: [np.array([w.partials_by_hand(*p) for p in w.pairs()])], recorded=False)]


def tutorial() -> list[Mode]:
    def call() -> tuple[float, float]:
        return w.tutorial_by_hand(5.0, 3.0)
    return [Mode("by hand, Python floats", repeated(call), lambda: [call()], recorded=False)]


def mlp() -> list[Mode]:
    parameters, batches = w.mlp_parameters(), w.mlp_batches()

    def step(x: np.ndarray, y: np.ndarray) -> np.floating:
        return w.mlp_by_hand(parameters, x, y)

    def result() -> list[np.ndarray]:
        for batch in batches[:w.CHECKED_STEPS]:
            step(*batch)
        return [p.copy() for p in parameters]
    return [Mode("by hand, in place", over(batches, step), result, recorded=False)]


def kernel(name: str) -> list[Mode]:
    operands = kernels.inputs(name)
    if name == "scatter-add":
        u, i = operands

        def added() -> np.ndarray:
            out = np.zeros(kernels.MANY, np.float32)
            np.add.at(out, i, u)
            return out
        return [measured(added, "np.add.at"), measured(lambda: np.bincount(i, u, kernels.MANY), "np.bincount, float64")]
    if name == "gather":
        x, i = operands
        return [measured(lambda: x[i], "x[i]"), measured(lambda: np.take(x, i), "np.take")]
    if name == "erf":
        from scipy.special import erf as function
    else:
        function = {"copy": np.negative, "pow": np.power}.get(name) or getattr(np, name)
    modes = [measured(lambda: function(*operands), f"{name}, new array")]
    if name not in (*kernels.READS, "sort"):
        out = np.empty_like(operands[0])
        modes.append(measured(lambda: function(*operands, out=out), f"{name} into an array"))
    return modes


WORKLOADS = {"op": op, "chain": chain, "chain-value": chain_value, "entry": entry, "partials": partials,
             "tutorial": tutorial, "mlp": mlp,
             **{name: partial(kernel, name) for name in kernels.NAMES}}
