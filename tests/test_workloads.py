"""Whole workloads of the benchmarks, small: machine code, the sweep and the oracle agree, with one thread and with two."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg
from jitgrad import nn
from jitgrad.core import nest
from jitgrad.core.record import tensor
from jitgrad.execute import oracle
from jitgrad.execute.cpu import compiling
from jitgrad.execute.cpu.plans import Plan
from tolerance import assert_close, assert_same_bits

DTYPE = "float64"


def numbers(*shape, seed=0):
    return jg.constant(np.random.default_rng([seed, *shape]).normal(size=shape), DTYPE)


def variables(*shapes):
    return [jg.Variable(numbers(*shape) * 0.3, dtype=DTYPE) for shape in shapes]


def cross_entropy(logits, labels):
    return jg.mean(nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def labels(n, classes):
    return jg.constant(np.arange(n) % classes, "int32")


def mlp():
    ws = variables((6, 5), (5,), (5, 3), (3,))

    def step(x, y):
        with jg.GradientTape() as tape:
            loss = cross_entropy(jg.relu(x @ ws[0] + ws[1]) @ ws[2] + ws[3], y)
        for w, g in zip(ws, tape.gradient(loss, ws), strict=True):
            w.assign_sub(0.1 * g)
        return loss
    return step


def sgd_step():
    return mlp(), (numbers(4, 6), labels(4, 3))


def epoch():
    step = mlp()

    def run(xs, ys):
        return jg.scan(lambda c, batch: (c, step(*batch)), jg.constant(0.0), (xs, ys))[1]
    return run, (numbers(3, 4, 6), jg.stack([labels(4, 3)] * 3))


def adam_step(size=12):
    model = nn.Sequential([nn.layers.Dense(size, activation="relu", dtype=DTYPE), nn.layers.Dense(4, dtype=DTYPE)])
    optimizer, x, y = nn.optimizers.Adam(1e-3), numbers(8, 9), labels(8, 4)
    model(x)

    def step(x, y):
        with jg.GradientTape() as tape:
            loss = cross_entropy(model(x), y)
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss
    step(x, y)                                       # makes the moments
    return step, (x, y)


def expression(n=10_000):
    return jg.value_and_grad(lambda x: jg.sum(jg.tanh(x) * jg.exp(-x * x) + jg.log1p(x * x))), (numbers(n),)


def lstm():
    def loss(weights, xs):
        wx, wh, b = weights

        def cell(carry, x):
            h, c = carry
            i, f, g, o = jg.split(x @ wx + h @ wh + b, 4, axis=1)
            c = jg.sigmoid(f) * c + jg.sigmoid(i) * jg.tanh(g)
            h = jg.sigmoid(o) * jg.tanh(c)
            return (h, c), h
        zero = jg.zeros((2, 5), DTYPE)
        return jg.mean(jg.scan(cell, (zero, zero), xs)[1] ** 2)
    return jg.value_and_grad(loss), ((numbers(3, 20) * 0.3, numbers(5, 20) * 0.3, numbers(20)), numbers(7, 2, 3))


def third_derivative():
    f = jg.grad(jg.grad(jg.grad(lambda x: jg.sin(x) ** 2)))
    return jg.vmap(f), (numbers(100),)


def hessian():
    def rosenbrock(x):
        return jg.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)
    return jg.hessian(rosenbrock), (numbers(10),)


def hvp():
    x, y = numbers(4, 6), labels(4, 3)

    def loss(ws):
        return cross_entropy(jg.relu(x @ ws[0] + ws[1]) @ ws[2] + ws[3], y)
    ws = [numbers(*s) for s in ((6, 5), (5,), (5, 3), (3,))]
    return (lambda *vs: jg.hvp(loss, (list(vs[:4]),), (list(vs[4:]),))[1]), (*ws, *(w * 0.5 for w in ws))


def runge_kutta(vector):
    def slopes(s, p):
        x, y = s
        return p[0] * x - p[1] * x * y, p[3] * x * y - p[2] * y

    def loss(p):
        def rhs(s):
            return jg.stack(slopes((s[0], s[1]), p)) if vector else slopes(s, p)

        def moved(s, k, h):
            return s + h * k if vector else tuple(a + h * b for a, b in zip(s, k, strict=True))

        def step(_, s):
            k1 = rhs(s)
            k2 = rhs(moved(s, k1, 0.005))
            k3 = rhs(moved(s, k2, 0.005))
            k4 = rhs(moved(s, k3, 0.01))
            for k, h in ((k1, 1), (k2, 2), (k3, 2), (k4, 1)):
                s = moved(s, k, h * 0.01 / 6)
            return s
        start = jg.constant([10.0, 5.0], DTYPE) if vector else tuple(map(jg.constant, np.array([10.0, 5.0])))
        s = jg.fori_loop(0, 40, step, start)
        return s[0] + s[1]
    return jg.value_and_grad(loss), (jg.constant([1.1, 0.4, 0.4, 0.1], DTYPE),)


def chain():
    def f(x):
        for _ in range(33):
            x = jg.sin(x) * 1.01 + 0.1
        return jg.sum(x)
    return jg.value_and_grad(f), (numbers(16),)


WORKLOADS = {"sgd": sgd_step, "epoch": epoch, "adam": adam_step, "expression": expression, "lstm": lstm,
             "third-derivative": third_derivative, "hessian": hessian, "hvp": hvp,
             "runge-kutta": lambda: runge_kutta(False), "runge-kutta-vector": lambda: runge_kutta(True), "chain": chain,
             "large-adam": lambda: adam_step(3000), "large-expression": lambda: expression(600_000)}


@pytest.fixture
def threads():
    before = jg.get_num_threads()
    yield jg.set_num_threads
    jg.set_num_threads(before)


@pytest.mark.parametrize("name", WORKLOADS)
def test_workload(name, threads, monkeypatch):
    monkeypatch.setenv("JITGRAD_MACHINE_CODE", "0")
    f, args = WORKLOADS[name]()
    made = jg.function(f)
    made(*args)
    (entry,) = made._impl.entries
    program = entry.flat
    outside = [*entry.traced.variables, *entry.traced.arrays]
    arrays = [np.asarray(x) for x in (*nest.flatten(args)[0], *outside)]
    plan = Plan(program, range(len(program.inputs)))
    threads(1)
    swept = [t.numpy() for t in plan.run([tensor(a) for a in arrays])]
    assert compiling.compiled(plan)
    for count in (1, 2):
        threads(count)
        for got, want in zip(plan.run([tensor(a) for a in arrays]), swept, strict=True):
            assert_same_bits(got.numpy(), want)
    for got, want in zip(swept, oracle.run(program, arrays), strict=True):
        assert_close(got, want)
