"""HIPS autograd, eager over NumPy."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import grad, value_and_grad

from benchmarks import workloads as w
from benchmarks.worker import Mode, over, repeated

VERSION = version("autograd")


def chain() -> list[Mode]:
    x = w.chain_input()

    def total(y: Any) -> Any:
        for _ in range(w.TURNS):
            y = anp.sin(y) * np.float32(1.01) + np.float32(0.1)
        return anp.sum(y)
    gradient = grad(total)
    return [Mode("eager grad", repeated(lambda: gradient(x)), lambda: [gradient(x)])]


def tutorial() -> list[Mode]:
    gradient = grad(lambda v: 3 * v[0]**2 + 2 * v[0] * v[1])
    at = np.array([5.0, 3.0])

    def call() -> tuple[float, float]:
        g = gradient(at)
        return float(g[0]), float(g[1])
    return [Mode("eager grad of a pair", repeated(call), lambda: [call()])]


def mlp() -> list[Mode]:
    parameters, rows = w.mlp_parameters(), np.arange(w.BATCH)

    def loss(ps: list[Any], x: Any, y: Any) -> Any:
        w1, b1, w2, b2 = ps
        logits = anp.dot(anp.maximum(anp.dot(x, w1) + b1, 0), w2) + b2
        logits = logits - anp.max(logits, axis=1, keepdims=True)
        return anp.mean(anp.log(anp.sum(anp.exp(logits), axis=1)) - logits[rows, y])
    gradient = value_and_grad(loss)
    batches = w.mlp_batches()

    def step(x: Any, y: Any) -> Any:
        value, grads = gradient(parameters, x, y)
        for p, g in zip(parameters, grads, strict=True):
            p -= np.float32(w.RATE) * g
        return value

    def result() -> list[Any]:
        for batch in batches[:w.CHECKED_STEPS]:
            step(*batch)
        return [p.copy() for p in parameters]
    return [Mode("eager value_and_grad", over(batches, step), result)]


WORKLOADS = {"chain": chain, "tutorial": tutorial, "mlp": mlp}
