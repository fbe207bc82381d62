"""TensorFlow 2, eager under a tape."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import tensorflow as tf

from benchmarks import kernels
from benchmarks import workloads as w
from benchmarks.worker import Mode, measured, over, repeated, with_four, with_pairs

VERSION = tf.__version__
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)


def op() -> list[Mode]:
    a, b = (tf.constant(x) for x in w.op_inputs())

    def plain(n: int) -> None:
        for _ in itertools.repeat(None, n):
            a + b

    def recorded(n: int) -> None:
        for done in range(0, n, w.OPS_A_TAPE):
            with tf.GradientTape() as tape:
                tape.watch(a)
                for _ in itertools.repeat(None, min(w.OPS_A_TAPE, n - done)):
                    a + b
    return [Mode("a + b, recorded", recorded, lambda: [a + b]),
            Mode("a + b, no tape", plain, lambda: [a + b], recorded=False)]


def chain() -> list[Mode]:
    x = tf.constant(w.chain_input())

    def call() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for _ in range(w.TURNS):
                y = tf.sin(y) * 1.01 + 0.1
        return tape.gradient(y, x)
    return [Mode("eager tape", repeated(call), lambda: [call()])]


def chain_value() -> list[Mode]:
    x = tf.constant(w.chain_input())

    @tf.function
    def both(x: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for _ in range(w.TURNS):
                y = tf.sin(y) * 1.01 + 0.1
            total = tf.reduce_sum(y)
        return total, tape.gradient(total, x)
    return [Mode("tf.function", repeated(lambda: both(x)), lambda: both(x), recorded=False)]


def entry() -> list[Mode]:
    arrays, function = [tf.constant(a) for a in w.entry_inputs()], tf.function(w.entry_by_hand)
    return [Mode("tf.function, own arrays", with_four(function, *arrays), lambda: [function(*arrays)],
                 recorded=False),
            Mode("eager, own arrays", with_four(w.entry_by_hand, *arrays), lambda: [w.entry_by_hand(*arrays)],
                 recorded=False)]


def partials() -> list[Mode]:
    @tf.function
    def both(w1: Any, w2: Any) -> tuple[Any, Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch([w1, w2])
            value = 3 * w1**2 + 2 * w1 * w2
        return value, *tape.gradient(value, [w1, w2])

    def call(w1: float, w2: float) -> tuple[Any, Any, Any]:
        return both(tf.constant(w1), tf.constant(w2))        # a function of Python floats is traced for each float
    return [Mode("tf.function, tf.constant of each", with_pairs(w.pairs(), call),
                 lambda: [[[float(t) for t in call(*p)] for p in w.pairs()]], recorded=False)]


def tutorial() -> list[Mode]:
    w1, w2 = tf.Variable(5.0), tf.Variable(3.0)

    def call() -> tuple[float, float]:
        with tf.GradientTape() as tape:
            loss = 3 * w1**2 + 2 * w1 * w2
        g1, g2 = tape.gradient(loss, [w1, w2])
        return float(g1), float(g2)
    return [Mode("eager tape", repeated(call), lambda: [call()])]


def mlp() -> list[Mode]:
    parameters = [tf.Variable(p) for p in w.mlp_parameters()]
    batches = [(tf.constant(x), tf.constant(y)) for x, y in w.mlp_batches()]
    w1, b1, w2, b2 = parameters

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = tf.nn.relu(x @ w1 + b1) @ w2 + b2
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
        for p, g in zip(parameters, tape.gradient(loss, parameters), strict=True):
            p.assign_sub(w.RATE * g)
        return loss

    def result() -> list[Any]:
        for batch in batches[:w.CHECKED_STEPS]:
            step(*batch)
        return [p.numpy().copy() for p in parameters]
    return [Mode("eager tape, assign_sub", over(batches, step), result)]


def kernel(name: str) -> list[Mode]:
    operands = [tf.constant(a) for a in kernels.inputs(name)]
    functions = {"copy": tf.negative, "log": tf.math.log, "erf": tf.math.erf, "sum": tf.reduce_sum,
                 "mean": tf.reduce_mean, "scatter-add": lambda u, i: tf.math.unsorted_segment_sum(u, i, kernels.MANY)}
    function = functions.get(name) or getattr(tf, name)
    return [measured(lambda: function(*operands), f"{name}, new tensor")]


WORKLOADS = {"op": op, "chain": chain, "chain-value": chain_value, "entry": entry, "partials": partials,
             "tutorial": tutorial, "mlp": mlp,
             **{name: partial(kernel, name) for name in kernels.NAMES}}
