"""Tapes inside and outside of recorded functions, as TensorFlow tests them."""

import numpy as np
import pytest

import jitgrad as jg
from tape_omissions import expresses
from tapes import leakless


def diagonal(pfor, persistent):
    x, y = jg.constant([1.0, 2.0]), jg.constant([3.0, 4.0])
    with jg.GradientTape(persistent=persistent) as tape:
        tape.watch([x, y])
        z = x * x * y
    return tape.jacobian(z, [x, y], experimental_use_pfor=pfor)


def check_diagonal(found):
    np.testing.assert_array_equal(found[0].numpy(), np.diag([6.0, 16.0]))
    np.testing.assert_array_equal(found[1].numpy(), np.diag([1.0, 4.0]))


@expresses("JacobianTest.testPforDefun")
@leakless
def test_jacobian_in_a_function():
    check_diagonal(jg.function(diagonal)(True, False))


@expresses("JacobianTest.testWhileLoopDefun")
@leakless
def test_looped_jacobian_in_a_function():
    check_diagonal(jg.function(diagonal)(False, True))


def batch_diagonal(pfor, persistent):
    x, y = jg.constant([[1.0, 2.0], [3.0, 4.0]]), jg.constant([[3.0, 4.0], [5.0, 6.0]])
    with jg.GradientTape(persistent=persistent) as tape:
        tape.watch(x)
        z = x * x * y
    return tape.batch_jacobian(z, x, experimental_use_pfor=pfor)


@expresses("BatchJacobianTest.testPforDefun")
@leakless
def test_batch_jacobian_in_a_function():
    found = jg.function(batch_diagonal)(True, False)
    np.testing.assert_array_equal(found.numpy(), [np.diag([6.0, 16.0]), np.diag([30.0, 48.0])])


@expresses("BatchJacobianTest.testWhileLoopDefun")
@leakless
def test_looped_batch_jacobian_in_a_function():
    found = jg.function(batch_diagonal)(False, True)
    np.testing.assert_array_equal(found.numpy(), [np.diag([6.0, 16.0]), np.diag([30.0, 48.0])])


@expresses("testBatchJacobianParallelIterations")
@leakless
def test_parallel_iterations_in_a_function_need_a_persistent_tape():
    @jg.function
    def f(persistent):
        with jg.GradientTape(persistent=persistent) as tape:
            x = jg.constant([[3.0]])
            tape.watch(x)
            y = jg.tile(x * x, (1, 16))
        return tape.batch_jacobian(y, x, parallel_iterations=8)

    assert f(True).numpy().tolist() == [[[6.0]] * 16]
    with pytest.raises(RuntimeError, match="persistent=True.*parallel_iterations"):
        f(False)


@expresses("testFunctionIndexedSlicesGradient")
@leakless
def test_lookup_in_what_a_function_returned():
    f = jg.function(lambda x: x + 1)
    x = jg.constant([1.0])
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = jg.take(f(x), [0], 0)
    assert tape.gradient(y, x).numpy().tolist() == [1.0]


@expresses("testUnconnectedGradientsNestedDefunZeros")
@leakless
def test_zeros_through_nested_functions_that_stop():
    f = jg.function(lambda x: x * x)
    h = jg.function(lambda y: jg.stop_gradient(f(y)))
    x = jg.constant(1.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = h(x + 2.0)
    assert float(tape.gradient(y, x, unconnected_gradients="zero")) == 0.0


@expresses("testUnknownShapes")
@leakless
def test_gradient_in_a_function_of_any_shape():
    @jg.function
    def f(a):
        with jg.GradientTape() as tape:
            tape.watch(a)
            b = a ** 3
        return b, tape.gradient(b, a)

    assert [float(t) for t in f(jg.constant(2.0))] == [8.0, 12.0]
    assert [t.numpy().tolist() for t in f(jg.constant([2.0]))] == [[8.0], [12.0]]


@jg.custom_gradient
def sine(x):
    return jg.sin(x), lambda dy: dy * jg.cos(x)


def test_rules_of_custom_gradients_are_replayed_on_new_numbers():
    f = jg.function(sine)

    @jg.function
    def slope(x):
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = sine(x)
        return tape.gradient(y, x)

    for x in map(jg.constant, (0.5, 1.0, 2.0, -3.0)):
        with jg.GradientTape() as outer:
            outer.watch(x)
            with jg.GradientTape() as inner:
                inner.watch(x)
                y = f(x)
            g = inner.gradient(y, x)
        np.testing.assert_allclose([float(g), float(slope(x))], np.cos(float(x)), rtol=1e-6)
        np.testing.assert_allclose(float(outer.gradient(g, x)), -np.sin(float(x)), rtol=1e-6)
