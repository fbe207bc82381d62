"""Transforms inside recorded functions, and what changes around a recorded step, against plain Python."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg
from replays import close, told

# ---- transforms in recorded functions --------------------------------------------------------------------

W = jg.Variable([0.5, -1.5, 2.0], dtype="float64")


@jg.custom_jvp
def rooted(x):
    return jg.sqrt(1.0 + x * x)


@rooted.defjvp
def _rooted(primals, tangents):
    y = rooted(*primals)
    return y, 3.0 * primals[0] / y * tangents[0]


def wave(x):
    """Of the argument, a Variable and a loop."""
    return jg.scan(lambda c, w: (jg.tanh(c * w) + x[0], c * x), x, W.read_value())[1] * rooted(x)


def pushed_thrice(x, v):
    y, push = jg.linearize(wave, x)
    return y, push(v), push(2.0 * v), push(x)


def chosen(x, v):
    """Another way where the derivative is negative."""
    y, t = jg.jvp(wave, (x,), (v,))
    return t * 2.0 if jg.sum(t) > 0 else y


def along_itself(x, v):
    """The direction is computed, the function closes over what is differentiated outside."""
    def inner(a):
        return jg.jvp(lambda b: wave(a * b), (x,), (a * v,))[1]
    return jg.jvp(inner, (v,), (x,))


def in_a_tape(x, v):
    with jg.GradientTape() as tape:
        y = jg.sum(jg.jvp(wave, (x,), (v,))[1] ** 2)
    g = tape.gradient(y, W)
    W.assign_sub(0.01 * g)
    return g


TRANSFORMED = {
    "jvp": lambda x, v: jg.jvp(wave, (x,), (v,)),
    "jvp_aux": lambda x, v: jg.jvp(lambda x: (wave(x), W * x), (x,), (v,), has_aux=True),
    "jacfwd": lambda x, v: jg.jacfwd(wave)(x),
    "jacrev": lambda x, v: jg.jacrev(wave)(x),
    "jacobian": lambda x, v: jg.jacobian(lambda x, v: wave(x) * v, argnums=(0, 1))(x, v),
    "hessian": lambda x, v: jg.hessian(lambda x: jg.sum(wave(x) ** 2))(x),
    "hvp": lambda x, v: jg.hvp(lambda x: jg.sum(wave(x) ** 2), (x,), (v,)),
    "vmap": lambda x, v: jg.vmap(jg.grad(lambda a: jg.sum(wave(a * x))))(jg.stack([x, v])),
    "vjp": lambda x, v: jg.vjp(wave, x)[1](jg.stack([v, x, W])),
    "custom_jvp": lambda x, v: (jg.grad(lambda x: jg.sum(rooted(x) * v))(x), jg.jvp(rooted, (x,), (v,))),
    "linearize": pushed_thrice, "chosen": chosen, "along_itself": along_itself, "in_a_tape": in_a_tape,
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transforms_replay_with_new_numbers(name):
    """Of arguments and of the Variable, with a tape around or without; functions in functions, too."""
    f = TRANSFORMED[name]
    recorded, outer = jg.function(f), jg.function(lambda x, v: jg.function(f)(x, 0.5 * v))
    rng = np.random.default_rng(2)
    for k in range(6):
        x, v, w = (jg.asarray(a) for a in rng.normal(size=(3, 3)))
        said = []
        for replayed, nested in ((recorded, outer), (f, lambda x, v: f(x, 0.5 * v))):
            W.assign(w)
            with jg.GradientTape(watch_accessed_variables=k % 2 == 0) as tape:
                if k % 2:
                    tape.watch((x, v))
                y = replayed(x, v)
            first = y[0] if isinstance(y, tuple) else y
            first = first[0] if isinstance(first, tuple) else first
            said.append([y, tape.gradient(first, (x, v, W), unconnected_gradients="zero"), nested(x, v), W.numpy()])
        close(list(said[0]), said[1], 1e-11)
    assert recorded.cache_info().hits > 2 and outer.cache_info().hits > 2


# ---- what changes around a recorded step -----------------------------------------------------------------

def assigned_outside(optimizer, step, k):
    optimizer.learning_rate = 0.1 / (1 + k)
    return step()


def assigned_inside(optimizer, step, k):
    rate = optimizer.learning_rate
    y = step()
    rate.assign(rate * 0.9)
    return y


def halved_by_count(optimizer, step, k):
    """Python reads the count of steps."""
    if int(optimizer.iterations) % 3 == 2:
        optimizer.learning_rate = float(optimizer.learning_rate) * 0.5
    return step()


def by_formula(optimizer, step, k):
    optimizer.learning_rate.assign(0.1 * jg.exp(-0.2 * jg.cast(optimizer.iterations, "float32")))
    return step()


def given(optimizer, step, k):
    optimizer.learning_rate.assign(k)
    return step()


@pytest.mark.parametrize(("schedule", "inside"), [
    (assigned_outside, False), (assigned_inside, False), (assigned_inside, True), (halved_by_count, False),
    (halved_by_count, True), (by_formula, True), (given, True)])
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_learning_rates_that_change(kind, schedule, inside):
    def trained(wrap):
        w, optimizer = jg.Variable([1.0, -2.0]), getattr(jg.nn.optimizers, kind)(0.1)

        def step():
            with jg.GradientTape() as tape:
                loss = jg.sum((w * w - 3.0) ** 2)
            optimizer.apply_gradients([(tape.gradient(loss, w), w)])
            return loss
        if inside:
            f = wrap(lambda k: schedule(optimizer, step, k))
        else:
            replayed = wrap(step)

            def f(k):
                return schedule(optimizer, replayed, k)
        return [told([f(0.01 * k), w, optimizer.learning_rate, optimizer.iterations]) for k in range(12)]
    assert trained(jg.function) == trained(lambda f: f)


def test_layers_added_to_and_taken_from_a_model():
    def trained(wrap):
        jg.random.set_seed(1)
        layers = jg.nn.layers
        model, optimizer = jg.nn.Sequential([layers.Dense(3, activation="tanh")]), jg.nn.optimizers.SGD(0.1)

        def train(x):
            with jg.GradientTape() as tape:
                loss = jg.mean(model(x) ** 2)
            optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables,
                                          strict=True))
            return loss, model(x)
        f = wrap(train)
        for k in range(12):
            if k in (3, 6):
                model.add(layers.Dense(2, activation="sigmoid"))
                model.build((4, 2))
            if k == 9:
                model.pop()
            y = f(jg.constant(np.random.default_rng(k).normal(size=(4, 2)), dtype="float32"))
            yield told([y, [np.asarray(v) for v in model.variables]])
    assert list(trained(jg.function)) == list(trained(lambda f: f))


@pytest.mark.parametrize("inf", [False, True])
def test_nans_are_looked_for_once_the_switch_is_on(inf):
    """A function that was recorded runs as plain Python then: the error is of the right operation and line."""
    w = jg.Variable(1.0)

    @jg.function
    def f(x):
        w.assign_add(1.0)
        y = jg.sqrt(x) * w
        return jg.exp(jg.log(y)) + jg.scan(lambda c, a: (c + a, None), 0.0, x)[0]
    good, bad = jg.constant([1.0, 4.0]), jg.constant([1.0, 0.0 if inf else -4.0])
    want = [told(f(good) - w) for _ in range(3)]
    f(bad)
    assert (f.cache_info()[:2], float(w)) == ((3, 1), 5.0)
    with jg.debug_nans(inf=inf):
        for _ in range(2):
            f(good)
            with pytest.raises(FloatingPointError, match="^log: " if inf else "^sqrt: ") as said:
                f(bad)
            line = f.__wrapped__.__code__.co_firstlineno + (4 if inf else 3)
            assert f"test_function_programs.py:{line}" in str(said.value)
    assert (f.cache_info()[:2], float(w)) == ((3, 1), 9.0)
    w.assign(1.0)
    assert [told(f(good) - w) for _ in range(3)] == want and f.cache_info()[:2] == (6, 1)


@pytest.mark.parametrize("ahead", [False, True], ids=["recorded", "ahead"])
def test_a_program_holds_nothing_of_the_rules_that_were_applied_on_the_way(ahead):
    """Deriving a loop runs rules on dry Tensors, of which the recording of the function sees nothing."""
    def loss(p):
        c, _ = jg.scan(lambda c, _: (c * p[0] + p[1] * jg.sin(c), None), jg.ones(3), None, length=5)
        return jg.sum(c)
    f = jg.function(jg.value_and_grad(loss), eager_compile=ahead)
    f(jg.constant([0.5, 0.25]))
    (entry,) = f._impl.entries
    assert all(t._data for t in entry.program.constants.values())
    assert "scan" in f.show()
