"""Higher orders: nested tapes, persistent tapes inside their own block, stop_gradient."""

import pytest

import jitgrad as jg
from jitgrad.interop.tensorflow.contrib.eager import gradients_function
from tape_omissions import expresses
from tapes import leakless, numbers


@expresses("testGradientTape")
@leakless
def test_inner_gradient_is_part_of_the_outer_value():
    with jg.GradientTape() as outer:
        x = jg.constant(3.0)
        outer.watch(x)
        y = x * x
        with jg.GradientTape() as inner:
            inner.watch(y)
            z = 2 * y
        (g,) = inner.gradient(z, [y])
        y += g
    assert numbers([g, outer.gradient(y, [x])]) == [2.0, [6.0]]


@expresses("testPersistentNestedTape")
@leakless
def test_nested_persistent_tapes():
    with jg.GradientTape(persistent=True) as outer:
        x = jg.constant(3.0)
        outer.watch(x)
        y = x * x
        with jg.GradientTape(persistent=True) as inner:
            inner.watch(y)
            z = 2 * y
        for _ in range(2):
            (g,) = inner.gradient(z, [y])
            assert numbers(g) == 2.0
        y += g
        del inner
    assert numbers([outer.gradient(y, [x]), outer.gradient(z, [x])]) == [[6.0], [12.0]]


@expresses("testHigherOrderGradient")
@leakless
def test_persistent_tape_inside_its_own_block():
    with jg.GradientTape(persistent=True) as tape:
        x = jg.constant(3.0)
        tape.watch(x)
        y = x ** 3
        first = tape.gradient(y, x)
        second = tape.gradient(first, x)
    third = tape.gradient(second, x)
    assert numbers([y, first, second, third]) == [27.0, 27.0, 18.0, 6.0]


@leakless
def test_third_order_by_tapes_used_once():
    x = jg.constant(2.0)
    with jg.GradientTape() as a:
        a.watch(x)
        with jg.GradientTape() as b:
            b.watch(x)
            with jg.GradientTape() as c:
                c.watch(x)
                y = x ** 4
            first = c.gradient(y, x)
        second = b.gradient(first, x)
    assert numbers([first, second, a.gradient(second, x)]) == [32.0, 48.0, 48.0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@leakless
def test_five_orders_of_sine_times_x(dtype):
    x = jg.Variable(0.5, dtype=dtype)
    tapes = [jg.GradientTape() for _ in range(5)]
    for tape in tapes:
        tape.__enter__()
    found = [jg.sin(x) * x]
    for tape in reversed(tapes):
        found.append(tape.gradient(found[-1], x))
    s, c = 0.479425538604203, 0.8775825618903728
    want = [s / 2, s + c / 2, 2 * c - s / 2, -3 * s - c / 2, -4 * c + s / 2, 5 * s + c / 2]
    assert numbers(found) == pytest.approx(want, rel=1e-6 if dtype == "float32" else 1e-14)


@expresses("testGradGrad")
@leakless
def test_second_derivative_of_a_square():
    def slope(x):
        return gradients_function(lambda x: x * x, [0])(x)[0]

    assert numbers(gradients_function(slope, [0])(jg.constant(3.0))) == [2.0]


@expresses("testGradGradExp")
@leakless
def test_second_derivative_of_exp():
    def slope(x):
        return gradients_function(jg.exp, [0])(x)[0]

    assert numbers(gradients_function(slope, [0])(jg.constant(0.0))) == [1.0]


def cross_entropy(logits, labels):
    return -jg.sum(labels * jg.log_softmax(logits), axis=-1)


@expresses("testGradientNone")
@leakless
def test_gradient_of_cross_entropy():
    logits, labels = jg.constant([[0.0, 0.0]]), jg.constant([[1.0, 0.0]])
    grads = gradients_function(lambda x, labels: jg.mean(cross_entropy(x, labels), axis=0), [0])(logits, labels)
    assert numbers(grads) == [[[-0.5, 0.5]]]


@expresses("testSecondGrad")
@leakless
def test_second_derivative_of_cross_entropy():
    def first(x):
        return jg.sum(cross_entropy(x, jg.constant([[0.0]])), axis=0)

    def second(x):
        return jg.sum(gradients_function(first, [0])(x)[0], axis=0)

    assert numbers(gradients_function(second, [0])(jg.constant([[0.1]]))) == [[[0.0]]]


@leakless
def test_gradient_of_a_gradient_that_is_constant():
    v = jg.Variable(2.0)
    with jg.GradientTape() as outer:
        with jg.GradientTape() as inner:
            y = v * 3.0
        g = inner.gradient(y, v)
    assert numbers([g, outer.gradient(g, v)]) == [3.0, None]


@leakless
def test_inner_gradient_outside_every_block_is_not_recorded():
    v = jg.Variable(2.0)
    with jg.GradientTape() as outer, jg.GradientTape() as inner:
        y = v * v
    g = inner.gradient(y, v)
    assert not g._tracked
    assert outer.gradient(g, v) is None


@leakless
def test_inner_gradient_while_the_outer_tape_is_stopped():
    v = jg.Variable(2.0)
    with jg.GradientTape() as outer:
        with jg.GradientTape() as inner:
            y = v * v * v
        with outer.stop_recording():
            g = inner.gradient(y, v)
        z = g * v
    assert numbers([g, outer.gradient(z, v)]) == [12.0, 12.0]


@leakless
def test_second_order_through_an_assignment():
    v = jg.Variable(2.0)
    with jg.GradientTape() as outer:
        with jg.GradientTape() as inner:
            y = v * v * v
            v.assign(3.0)
            z = v * v * v
        g = inner.gradient([y, z], v)
    assert numbers([g, outer.gradient(g, v)]) == [39.0, 30.0]


@leakless
def test_gradient_of_a_function_of_gradients():
    w, x = jg.Variable([[1.0, 2.0], [3.0, 4.0]]), jg.constant([[1.0, -1.0]])
    with jg.GradientTape() as outer:
        with jg.GradientTape(watch_accessed_variables=False) as inner:
            inner.watch(x)
            y = jg.sum(jg.matmul(x, w) ** 2)
        g = inner.gradient(y, x)                    # 2 x w w'
        size = jg.sum(g * g)
    assert numbers(g) == [[-12.0, -28.0]]
    with jg.GradientTape() as direct:
        again = 2.0 * jg.matmul(jg.matmul(x, w), w, transpose_b=True)
        same = jg.sum(again * again)
    assert numbers(outer.gradient(size, w)) == numbers(direct.gradient(same, w))


@expresses("testStopGradient")
@leakless
def test_stop_gradient_of_an_index():
    assert gradients_function(lambda x: jg.stop_gradient(jg.argmax(x)))([0.0]) == [None]


@expresses("testArgmax")
@leakless
def test_argmax_has_no_gradient():
    x = jg.constant([2.0, 1.0])
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        i, y = jg.argmax(x), x * x
        whole = jg.cast(jg.cast(x, dtype="int32"), dtype="float32")
    assert [tape.gradient(t, x) for t in (i, x > 1.0, whole)] == [None, None, None]
    assert numbers(tape.gradient([i, y, x > 1.0], x)) == [4.0, 2.0]


@leakless
def test_stop_gradient_of_one_factor():
    x = jg.constant(2.0)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        held = jg.stop_gradient({"a": x * x, "b": [x, 3.0]})
        y = held["a"] * x + held["b"][0]
    assert numbers(held) == {"a": 4.0, "b": [2.0, 3.0]}
    assert numbers(tape.gradient(y, x)) == 4.0
    assert tape.gradient(held["a"], x) is None
    assert numbers(tape.gradient(y, held["a"])) is None


@expresses("test_stop_gradient_hides_downstream_ops")
@leakless
def test_stop_gradient_hides_a_custom_gradient():
    ran = []

    @jg.custom_gradient
    def counted(x):
        def backward(upstream):
            ran.append(upstream)
            return upstream
        return x * 2.0, backward

    x = jg.constant(1.0)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = jg.stop_gradient(counted(x) * 3.0)
        z = y + jg.stop_gradient(x)
        through = z + counted(x) * x
    assert tape.gradient([y, z], x) is None
    assert ran == []
    assert numbers(tape.gradient(through, x)) == 3.0
    assert len(ran) == 1
    ran.clear()
