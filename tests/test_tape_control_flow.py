"""Gradients of choices, loops, folds and recomputed functions by TensorFlow's names, as TensorFlow tests them."""

import functools

import numpy as np

import jitgrad as jg
import jitgrad.interop.tensorflow as tf
from tape_omissions import expresses
from tapes import leakless


@expresses("testGradientInsideLoop")
@leakless
def test_gradient_inside_a_loop():
    v = jg.Variable(1.0)

    def body(x):
        v + 1.0
        with jg.GradientTape() as tape:
            result = v * 2
        return [x + tape.gradient(result, v)]

    assert float(tf.while_loop(lambda x: x < 4.0, body, [tf.constant(1.0)])[0]) == 5.0


@expresses("testGradientTapeWithWhileLoop")
@leakless
def test_gradient_of_a_loop():
    x = jg.constant(2.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        _, y = tf.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, x * 2), [tf.constant(1), x])
    assert float(tape.gradient(y, x)) == 4.0


@expresses("testGradientTapeWithCond")
@leakless
def test_gradient_of_a_choice():
    x = jg.constant(3.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = tf.cond(x < x, lambda: x, lambda: x * x)
    assert float(tape.gradient(y, x)) == 6.0


@expresses("JacobianTest.test_cond_func_grad_jacobian")
@leakless
def test_jacobian_of_the_gradient_of_a_choice():
    def f(x):
        return tf.cond(x > 0.0, lambda: x ** 3, lambda: x ** 2)

    with jg.GradientTape(persistent=True) as outer:
        x = jg.constant(1.0)
        outer.watch(x)
        with jg.GradientTape() as inner:
            inner.watch(x)
            y = f(x)
        g = inner.gradient(y, x)
        assert float(g) == 3.0
    assert float(outer.jacobian(g, x)) == 6.0


@expresses("JacobianTest.test_foldl_partial_function")
@leakless
def test_jacobian_of_a_fold_of_a_partial_function():
    x = jg.constant([2.0, 3.0, 4.0])
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = tf.foldl(functools.partial(lambda scale, a, b: a + scale * b, 1.0), x)
    assert tape.jacobian(y, x).numpy().tolist() == [1.0, 1.0, 1.0]


@expresses("JacobianTest.test_foldl_pure_function")
@leakless
def test_jacobian_of_a_fold():
    x = jg.constant([2.0, 3.0, 4.0])
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = tf.foldl(lambda a, b: a + b, x)
    assert tape.jacobian(y, x).numpy().tolist() == [1.0, 1.0, 1.0]


@expresses("JacobianTest.test_nested_batch_jacobian_foldl")
@leakless
def test_batch_jacobian_of_the_batch_jacobian_of_a_fold():
    def f(x):                                  # x^3 + x + 2 elementwise, by Horner's rule
        return tf.foldl(lambda a, k: a * x + k, jg.constant([1.0, 2.0]), initializer=x)

    x = jg.constant([[1.0, 2.0], [0.5, 3.0]])
    with jg.GradientTape() as outer:
        outer.watch(x)
        with jg.GradientTape() as inner:
            inner.watch(x)
            y = f(x)
        first = inner.batch_jacobian(y, x)
    second = outer.batch_jacobian(first, x).numpy()
    for b in range(2):
        for i in range(2):
            np.testing.assert_allclose(first.numpy()[b, i, i], 3 * float(x[b, i]) ** 2 + 1, rtol=1e-6)
            np.testing.assert_allclose(second[b, i, i, i], 6 * float(x[b, i]), rtol=1e-6)


@expresses("testRecomputeGradWithDifferentShape")
@leakless
def test_recomputing_of_lists_and_dicts():
    @tf.recompute_grad
    def of_list(xs):
        return [xs[0] * xs[1], xs[1] * 2.0]

    @tf.recompute_grad
    def of_dict(xs):
        return {"a": xs["x"] * xs["y"], "b": jg.stack([xs["x"]] * 3)}

    x, y = jg.constant(3.0), jg.constant(5.0)
    for f, arguments in ((of_list, [x, y]), (of_dict, {"x": x, "y": y})):
        with jg.GradientTape() as tape:
            tape.watch([x, y])
            out = f(arguments)
        assert [float(g) for g in tape.gradient(out, [x, y])] == ([5.0, 5.0] if f is of_list else [8.0, 3.0])


@expresses("testRecomputeGradWithNestedFunctionAndWhileLoop")
@leakless
def test_recomputing_of_nested_functions_with_a_loop():
    @tf.recompute_grad
    def outer(x):
        inner = jg.function(lambda z: z + 1)
        return tf.while_loop(lambda y, i: i < 10.0, lambda y, i: (inner(y), i + 1.0), (x, jg.constant(0.0)))[0]

    v = jg.Variable(1.0)
    with jg.GradientTape() as tape:
        y = outer(v)
    assert [float(y), float(tape.gradient(y, v))] == [11.0, 1.0]
