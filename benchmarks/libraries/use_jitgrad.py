"""jitgrad, eager under a tape."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import jitgrad as jg
from benchmarks import kernels
from benchmarks import workloads as w
from benchmarks.reading import readers
from benchmarks.worker import Mode, measured, over, repeated
from jitgrad import ops

VERSION = jg.__version__


def op() -> list[Mode]:
    a, b = (jg.asarray(x) for x in w.op_inputs())

    def plain(n: int) -> None:
        for _ in itertools.repeat(None, n):
            a + b

    def recorded(n: int) -> None:
        for done in range(0, n, w.OPS_A_TAPE):
            with jg.GradientTape() as tape:
                tape.watch(a)
                for _ in itertools.repeat(None, min(w.OPS_A_TAPE, n - done)):
                    a + b
    return [Mode("a + b, recorded", recorded, lambda: [(a + b).numpy()]),
            Mode("a + b, no tape", plain, lambda: [(a + b).numpy()], recorded=False)]


def chain() -> list[Mode]:
    x = jg.asarray(w.chain_input())

    def call() -> Any:
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = x
            for _ in range(w.TURNS):
                y = jg.sin(y) * 1.01 + 0.1
        return tape.gradient(y, x)
    return [Mode("eager tape", repeated(call), lambda: [call().numpy()])]


def tutorial() -> list[Mode]:
    w1, w2 = jg.Variable(5.0), jg.Variable(3.0)

    def call() -> tuple[float, float]:
        with jg.GradientTape() as tape:
            loss = 3 * w1**2 + 2 * w1 * w2
        g1, g2 = tape.gradient(loss, [w1, w2])
        return float(g1), float(g2)
    return [Mode("eager tape", repeated(call), lambda: [call()])]


def _batches() -> list[tuple[Any, Any]]:
    return [(jg.asarray(x), jg.asarray(y)) for x, y in w.mlp_batches()]


def _mode(label: str, step: Any, batches: list[tuple[Any, Any]], parameters: list[Any]) -> Mode:
    def result() -> list[Any]:
        for batch in batches[:w.CHECKED_STEPS]:
            step(*batch)
        return [p.numpy().copy() for p in parameters]
    return Mode(label, over(batches, step), result)


def mlp_loss(parameters: list[Any], x: Any, y: Any) -> Any:
    w1, b1, w2, b2 = parameters
    logits = jg.relu(x @ w1 + b1) @ w2 + b2
    return jg.mean(jg.nn.losses.sparse_categorical_crossentropy(y, logits, from_logits=True))


def mlp() -> list[Mode]:
    parameters = [jg.Variable(p) for p in w.mlp_parameters()]

    def step(x: Any, y: Any) -> Any:
        with jg.GradientTape() as tape:
            loss = mlp_loss(parameters, x, y)
        for p, g in zip(parameters, tape.gradient(loss, parameters), strict=True):
            p.assign_sub(w.RATE * g)
        return loss
    return [_mode("eager tape, assign_sub", step, _batches(), parameters)]


def mlp_layers() -> list[Mode]:
    model = jg.nn.Sequential([jg.nn.layers.Dense(w.HIDDEN, activation="relu"), jg.nn.layers.Dense(w.CLASSES)])
    criterion = jg.nn.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = jg.nn.optimizers.SGD(w.RATE)
    batches = _batches()
    model(batches[0][0])
    parameters = model.trainable_variables
    for p, start in zip(parameters, w.mlp_parameters(), strict=True):
        p.assign(start)

    def step(x: Any, y: Any) -> Any:
        with jg.GradientTape() as tape:
            loss = criterion(y, model(x))
        optimizer.apply_gradients(zip(tape.gradient(loss, parameters), parameters, strict=True))
        return loss
    return [_mode("eager tape, nn and SGD", step, batches, parameters)]


def kernel(name: str) -> list[Mode]:
    given = kernels.inputs(name)
    operands = [jg.asarray(a) for a in given]
    functions = {"copy": jg.negative, "pow": jg.power, "cumsum": jg.cumulative_sum, "gather": jg.take,
                 "scatter-add": lambda g, i: ops.scatter_add(g, i, 0, kernels.MANY)}
    function = functions.get(name) or getattr(jg, name)
    modes = [measured(lambda: function(*operands), f"{name}, new array", lambda t: t.numpy())]
    if name in kernels.READS:
        size = operands[0].size if name == "mean" else 1
        modes = [measured(call, f"{kernels.READING}, {label}", lambda part: part.sum(dtype=float) / size)
                 for label, call in readers(operands[0]._data, kernels.MORE).items()] + modes  # the first warms up
    return modes


WORKLOADS = {"op": op, "chain": chain, "tutorial": tutorial, "mlp": mlp, "mlp-layers": mlp_layers,
             **{name: partial(kernel, name) for name in kernels.NAMES}}
