"""Functions whose Programs fuse in the ways that training does: small, in float32."""

from __future__ import annotations

import numpy as np

import jitgrad as jg
from jitgrad import nn

DTYPE = "float32"
SHAPES = [(), (1,), (5,), (16,), (3, 10), (7, 5), (2, 3, 5), (4, 1, 6), (2, 32), (1, 9), (9, 1), (33,), (2, 70)]      # of random programs


def numbers(*shape, seed=0):
    return jg.constant(np.random.default_rng([seed, *shape]).normal(size=shape), DTYPE)


def softmax_cross_entropy(rows=6, classes=11):
    def loss(logits, labels):
        return jg.mean(nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    return jg.value_and_grad(loss), (numbers(rows, classes), jg.constant(np.arange(rows) % classes, "int32"))


def layer_norm(rows=5, length=13):
    def loss(x, scale, shift):
        mean = jg.mean(x, axis=-1, keepdims=True)
        spread = jg.mean((x - mean) ** 2, axis=-1, keepdims=True)
        y = (x - mean) / jg.sqrt(spread + 1e-5) * scale + shift
        return jg.sum(jg.tanh(y)), y
    return jg.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True), (
        numbers(rows, length), numbers(length, seed=1), numbers(length, seed=2))


def adam(size=37):
    def update(w, g, m, v, step):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        rate = 1e-3 * jg.sqrt(1.0 - 0.999 ** step) / (1.0 - 0.9 ** step)
        return w - rate * m / (jg.sqrt(v) + 1e-7), m, v
    return update, (*(numbers(size, seed=k) for k in range(3)), numbers(size, seed=3) ** 2, jg.constant(3.0, DTYPE))


def gates(batch=5, width=7):
    def loss(x, b, y):
        h = jg.relu(x + b) * jg.sigmoid(y)
        return jg.sum(h * jg.tanh(h)), jg.sum(h, axis=0)
    return jg.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True), (
        numbers(batch, width), numbers(width), numbers(batch, 1))


def expression(size=70):
    return jg.value_and_grad(lambda x: jg.sum(jg.tanh(x) * jg.exp(-x * x) + jg.log1p(x * x))), (numbers(size),)


def lstm_cell(batch=3, width=5):
    def loss(z, c):
        i, f, g, o = jg.split(z, 4, axis=1)
        c = jg.sigmoid(f) * c + jg.sigmoid(i) * jg.tanh(g)
        h = jg.sigmoid(o) * jg.tanh(c)
        return jg.mean(h * h), (h, c)
    return jg.value_and_grad(loss, argnums=(0, 1), has_aux=True), (numbers(batch, 4 * width), numbers(batch, width))


def optimizer(size=4):
    """A whole step of training: many small updates beside each other."""
    model = nn.Sequential([nn.layers.Dense(size, activation="relu"), nn.layers.Dense(3)])
    rule, x, y = nn.optimizers.Adam(1e-3), numbers(6, 5), jg.constant(np.arange(6) % 3, "int32")

    def step(x, y):
        with jg.GradientTape() as tape:
            loss = jg.mean(nn.sparse_softmax_cross_entropy_with_logits(y, model(x)))
        weights = model.trainable_variables
        rule.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss
    step(x, y)                                       # makes the weights and moments
    return step, (x, y)


PLANS = {f.__name__: f for f in (softmax_cross_entropy, layer_norm, adam, gates, expression, lstm_cell, optimizer)}


def program_of(name, *sizes):
    """The simplified Program of a call, and arrays for its inputs."""
    f, args = PLANS[name](*sizes)
    made = jg.function(f)
    made(*args)
    (entry,) = made._impl.entries
    arrays = [np.asarray(x) for x in (*jg.core.nest.flatten(args)[0], *entry.traced.variables, *entry.traced.arrays)]
    return entry.flat, arrays
