"""Gradients through recorded functions: what tapes see of a replay is what they see of plain Python."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg
from replays import told

X = jg.constant([1.0, -2.0, 3.0])
Y = jg.constant([4.0, 5.0, -6.0])


def alike(make, calls=4):
    """``make(wrap)`` builds a step; what its calls say is the same for the replayed and the plain function."""
    replayed, plain = make(jg.function), make(lambda f: f)
    for n in range(calls):
        assert told(replayed()) == told(plain()), f"call {n}"


@pytest.mark.parametrize("body", [
    lambda w, v, x: (w.assign(w * x * v), w * x)[1],
    lambda w, v, x: (w * x, w.assign(x * v), w * v)[2],
    lambda w, v, x: (w.assign(x), w * x)[1],
    lambda w, v, x: (w.assign_add(v), w.assign_add(1.0), v * x)[2],
    lambda w, v, x: (w.assign(v), v.assign(w), w * v * x)[2],
    lambda w, v, x: w.assign_add(x) * v,
    lambda w, v, x: (v.assign(w * x), w.value())[1],
])
def test_assigning_cuts_where_it_does_in_plain_python(body):
    def make(wrap):
        w, v = jg.Variable(2.0, name="w"), jg.Variable(3.0, name="v")
        f = wrap(lambda x: body(w, v, x))

        def step():
            w.assign(2.0)
            with jg.GradientTape() as tape:
                y = f(jg.constant(1.5)) * 2.0 + w
            return y, tape.gradient(y, [w, v]), sorted(a.name for a in tape.watched_variables()), w, v
        return step
    alike(make)


def test_reading_what_was_assigned_is_replayed_without_a_tape():
    w = jg.Variable(1.0)
    f = jg.function(lambda x: (w.assign_add(x), w * x)[1])
    for _ in range(5):
        f(jg.constant(1.0))
    assert (f.cache_info().hits, float(w)) == (4, 6.0)


@pytest.mark.parametrize("persistent", [False, True])
def test_tapes_around_and_inside(persistent):
    def make(wrap):
        w = jg.Variable(2.0)

        def inner(x):
            with jg.GradientTape(persistent=persistent) as tape:
                tape.watch(x)
                y = jg.sum(jg.sin(x) * w * x)
            return tape.gradient(y, x), y
        f = wrap(inner)

        def step():
            with jg.GradientTape(persistent=True) as tape:
                tape.watch(X)
                g, y = f(X)
                z = jg.sum(g * g) + y
            return g, y, tape.gradient(z, w), tape.gradient(z, X), tape.gradient(y, [w, X])
        return step
    alike(make)


def test_third_derivatives():
    def make(wrap):
        f = wrap(lambda a: jg.sin(a) * a ** 3)

        def step():
            with jg.GradientTape() as t1:
                t1.watch(X)
                with jg.GradientTape() as t2:
                    t2.watch(X)
                    with jg.GradientTape() as t3:
                        t3.watch(X)
                        y = jg.sum(f(X))
                    g = jg.sum(t3.gradient(y, X))
                h = jg.sum(t2.gradient(g, X))
            return t1.gradient(h, X)
        return step
    replayed, plain = make(jg.function), make(lambda f: f)
    for _ in range(3):
        np.testing.assert_allclose(replayed().numpy(), plain().numpy(), rtol=2e-5)


def test_one_tensor_for_two_arguments():
    def make(wrap):
        f, pairs = wrap(lambda a, b: a * b + a), iter([(X, X), (X, Y), (Y, Y), (X, X), (X, Y), (Y, X)])

        def step():
            a, b = next(pairs)
            with jg.GradientTape(persistent=True) as tape:
                tape.watch([a, b])
                y = f(a, b)
            return tape.gradient(y, a), tape.gradient(y, b), tape.gradient(y, [a, b])
        return step
    alike(make, 6)


def test_custom_gradients_and_stops():
    def make(wrap):
        @jg.custom_gradient
        def doubled(x):
            return jg.exp(x), lambda g: g * 2.0 * x
        f = wrap(lambda x: doubled(x) * x + jg.stop_gradient(x) * x)

        def step():
            with jg.GradientTape() as tape:
                tape.watch(X)
                y = f(X)
            return y, tape.gradient(y, X)
        return step
    alike(make)


def test_rules_that_have_to_see_numbers_run_as_plain_python(caplog):
    @jg.custom_gradient
    def f(x):
        return jg.sin(x), lambda dy: dy * float(dy)
    x = jg.constant(1.0)
    for wrapped in (jg.function(lambda x: f(x) * 2.0), jg.function(lambda x: jg.checkpoint(f)(x) * 2.0)):
        for _ in range(2):
            assert told(wrapped(x)) == told(f(x) * 2.0) and float(jg.grad(wrapped)(x)) == 4.0
        assert wrapped.cache_info().python_bound
    assert all("custom_gradient" in r.message for r in caplog.records) and len(caplog.records) == 2


def test_arguments_and_constants_that_come_back():
    def make(wrap):
        f = wrap(lambda a, b: (a, [b, a], jg.constant(2.0), a * 1.0, None, "s"))

        def step():
            with jg.GradientTape(persistent=True) as tape:
                tape.watch(X)
                a, (b, c), d, e, *_ = f(X, Y)
                y = jg.sum(a * b * c * d * e)
            return y, tape.gradient(y, X), a is X, c is X, b is Y
        return step
    replayed, plain = make(jg.function), make(lambda f: f)
    replayed()                                   # a recording returns Tensors of its own for its arguments
    for _ in range(2):
        assert told(replayed()) == told(plain())


def test_a_tape_that_stops_and_goes_on():
    def make(wrap):
        w = jg.Variable([1.0, 2.0, 3.0])
        f = wrap(lambda x: w * x)

        def step():
            with jg.GradientTape() as tape:
                y = f(X)
                with tape.stop_recording():
                    z = f(Y)
                y = y * f(y) + z
            return tape.gradient(y, w)
        return step
    alike(make)


def test_variables_that_a_tape_watches_by_hand():
    def make(wrap):
        w, v = jg.Variable(2.0), jg.Variable(3.0, trainable=False)
        f, flags = wrap(lambda x: w * v * x), iter([False, True, False, True, True])

        def step():
            with jg.GradientTape() as tape:
                if next(flags):
                    tape.watch(v)
                y = jg.sum(f(X))
            return tape.gradient(y, [w, v])
        return step
    alike(make, 5)


def test_forward_accumulators_through_a_replay():
    def make(wrap):
        f = wrap(lambda a: jg.sin(a) * a)

        def step():
            with jg.ForwardAccumulator(X, Y) as forward:
                y = f(X)
            return y, forward.jvp(y)
        return step
    alike(make)


def test_training_with_layers_that_change_and_random_draws():
    def make(wrap):
        jg.random.set_seed(3)
        layers = jg.nn.layers
        model = jg.nn.Sequential([layers.Dense(4, activation="tanh"), layers.Dropout(0.5), layers.Dense(1)])
        optimizer = jg.nn.optimizers.Adam(0.1)

        def train(x, training):
            with jg.GradientTape() as tape:
                loss = jg.mean(model(x, training=training) ** 2) + jg.sum(jg.random.normal((2,)))
            optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables,
                                          strict=True))
            return loss
        f = wrap(train)

        def step(k):
            if k == 4:
                optimizer.learning_rate = 0.01
            if k in (6, 8):
                model.layers[0].trainable = k == 8
            x = jg.constant(np.random.default_rng(k).normal(size=(5, 3)))
            return f(x, k % 3 != 2), [np.asarray(v) for v in model.variables], jg.random.normal((2,))
        return [told(step(k)) for k in range(14)]
    assert make(jg.function) == make(lambda f: f)
