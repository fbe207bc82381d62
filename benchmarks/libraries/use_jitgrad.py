"""jitgrad, eager under a tape, and replayed by `jg.function`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import jitgrad as jg
from benchmarks import kernels
from benchmarks import workloads as w
from benchmarks.reading import readers
from benchmarks.worker import Mode, measured, over, repeated, with_four, with_pairs
from jitgrad import ops
from jitgrad.execute.cpu import compiling

VERSION = jg.__version__
settle = compiling.wait         # until what ran often is machine code


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
    replay = jg.function(jg.grad(chain_total))
    return [Mode("eager tape", repeated(call), lambda: [call().numpy()]),
            Mode("function(grad)", repeated(lambda: replay(x)), lambda: [replay(x).numpy()], replayed=True)]


def chain_total(y: Any) -> Any:
    for _ in range(w.TURNS):
        y = jg.sin(y) * 1.01 + 0.1
    return jg.sum(y)


def chain_value() -> list[Mode]:
    x = jg.asarray(w.chain_input())

    def eager() -> tuple[Any, Any]:
        with jg.GradientTape() as tape:
            tape.watch(x)
            total = chain_total(x)
        return total, tape.gradient(total, x)
    replay = jg.function(jg.value_and_grad(chain_total))
    return [Mode("eager tape", repeated(eager), lambda: [t.numpy() for t in eager()]),
            Mode("function(value_and_grad)", repeated(lambda: replay(x)), lambda: [t.numpy() for t in replay(x)],
                 replayed=True)]


def entry() -> list[Mode]:
    arrays = w.entry_inputs()
    tensors = [jg.asarray(a) for a in arrays]
    replay = jg.function(w.entry_by_hand)
    return [Mode("function, NumPy arrays", with_four(replay, *arrays), lambda: [replay(*arrays).numpy()],
                 replayed=True),
            Mode("function, Tensors", with_four(replay, *tensors), lambda: [replay(*tensors).numpy()], replayed=True),
            Mode("eager, Tensors", with_four(w.entry_by_hand, *tensors), lambda: [w.entry_by_hand(*tensors).numpy()])]


def partials() -> list[Mode]:
    both = jg.function(jg.value_and_grad(lambda w1, w2: 3 * w1**2 + 2 * w1 * w2, argnums=(0, 1)))

    def reading(w1: float, w2: float) -> tuple[float, float, float]:
        value, (g1, g2) = both(w1, w2)
        return float(value), float(g1), float(g2)

    def result() -> list[Any]:
        return [[reading(*p) for p in w.pairs()]]
    return [Mode("function(value_and_grad)", with_pairs(w.pairs(), both), result, replayed=True),
            Mode("function(value_and_grad), read as floats", with_pairs(w.pairs(), reading), result, replayed=True)]


def tutorial() -> list[Mode]:
    w1, w2 = jg.Variable(5.0), jg.Variable(3.0)

    def call() -> tuple[float, float]:
        with jg.GradientTape() as tape:
            loss = 3 * w1**2 + 2 * w1 * w2
        g1, g2 = tape.gradient(loss, [w1, w2])
        return float(g1), float(g2)
    return [Mode("eager tape", repeated(call), lambda: [call()])]


def batches() -> list[tuple[Any, Any]]:
    return [(jg.asarray(x), jg.asarray(y)) for x, y in w.mlp_batches()]


Training = tuple[Callable[..., Any], list[Any]]         # a step, and the parameters that it updates


def stepped(label: str, training: Training, replayed: bool = False) -> Mode:
    given, (step, parameters) = batches(), training
    if replayed:
        step = jg.function(step)

    def result() -> list[Any]:
        for batch in given[:w.CHECKED_STEPS]:
            step(*batch)
        return [p.numpy().copy() for p in parameters]
    return Mode(label, over(given, step), result, replayed=replayed)


def scanned(training: Training) -> Mode:
    """All batches in one call."""
    step, parameters = training
    data = [jg.asarray(np.stack(parts)) for parts in zip(*w.mlp_batches(), strict=True)]
    epoch = jg.function(lambda x, y: jg.scan(lambda _, batch: ((), step(*batch)), (), (x, y))[1])

    def loop(n: int) -> None:
        for _ in itertools.repeat(None, n // w.BATCHES):
            epoch(*data)

    def result() -> list[Any]:
        epoch(*(d[:w.CHECKED_STEPS] for d in data))
        return [p.numpy().copy() for p in parameters]
    return Mode(f"function(scan over {w.BATCHES} batches), {w.SCANNED}", loop, result, whole=w.BATCHES, replayed=True)


def _modes(make: Callable[[], Training], how: str) -> list[Mode]:
    """Every mode trains parameters of its own."""
    return [stepped(f"eager tape, {how}", make()), stepped(f"function(step), tape, {how}", make(), replayed=True),
            scanned(make())]


def mlp_loss(parameters: list[Any], x: Any, y: Any) -> Any:
    w1, b1, w2, b2 = parameters
    logits = jg.relu(x @ w1 + b1) @ w2 + b2
    return jg.mean(jg.nn.losses.sparse_categorical_crossentropy(y, logits, from_logits=True))


def mlp_training() -> Training:
    parameters = [jg.Variable(p) for p in w.mlp_parameters()]

    def step(x: Any, y: Any) -> Any:
        with jg.GradientTape() as tape:
            loss = mlp_loss(parameters, x, y)
        for p, g in zip(parameters, tape.gradient(loss, parameters), strict=True):
            p.assign_sub(w.RATE * g)
        return loss
    return step, parameters


def layers_training() -> Training:
    model = jg.nn.Sequential([jg.nn.layers.Dense(w.HIDDEN, activation="relu"), jg.nn.layers.Dense(w.CLASSES)])
    criterion = jg.nn.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = jg.nn.optimizers.SGD(w.RATE)
    model(batches()[0][0])
    parameters = model.trainable_variables
    for p, start in zip(parameters, w.mlp_parameters(), strict=True):
        p.assign(start)

    def step(x: Any, y: Any) -> Any:
        with jg.GradientTape() as tape:
            loss = criterion(y, model(x))
        optimizer.apply_gradients(zip(tape.gradient(loss, parameters), parameters, strict=True))
        return loss
    return step, parameters


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


WORKLOADS = {"op": op, "chain": chain, "chain-value": chain_value, "entry": entry, "partials": partials,
             "tutorial": tutorial, "mlp": lambda: _modes(mlp_training, "assign_sub"),
             "mlp-layers": lambda: _modes(layers_training, "nn and SGD"),
             **{name: partial(kernel, name) for name in kernels.NAMES}}
