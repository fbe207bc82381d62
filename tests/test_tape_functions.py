"""The functions of TensorFlow's backprop.py, by its names: gradients_function, implicit_grad, make_vjp."""

import functools

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.interop.tensorflow.contrib.eager import (
    gradients_function,
    implicit_grad,
    implicit_val_and_grad,
    make_vjp,
    val_and_grad_function,
)
from tape_omissions import expresses
from tapes import leakless, numbers


@expresses("testAggregateGradients")
@leakless
def test_product_of_three_lookups():
    x = np.arange(1.0, 9.0, dtype=np.float32).reshape(4, 2)

    def f(x):
        return jg.take(x, [0, 1], 0) * jg.take(x, [2, 3], 0) * jg.take(x, [1, 3], 0)

    (grad,) = gradients_function(f, [0])(x)
    want = np.zeros_like(x)
    parts = [[0, 1], [2, 3], [1, 3]]
    for i, rows in enumerate(parts):
        others = np.prod([x[p] for j, p in enumerate(parts) if j != i], axis=0)
        np.add.at(want, rows, others)
    np.testing.assert_array_equal(grad.numpy(), want)


@expresses("testAggregateGradientsWithTensor")
@leakless
def test_lookup_times_a_sum_over_everything():
    x = np.arange(1.0, 9.0, dtype=np.float32).reshape(4, 2)

    def f(x):
        return jg.take(x, [0, 1], 0) * jg.sum(x * 2.0)

    (grad,) = gradients_function(f, [0])(x)
    want = np.full_like(x, 2 * x[:2].sum())
    want[:2] += 2 * x.sum()
    np.testing.assert_array_equal(grad.numpy(), want)


@expresses("testImplicitGradWithResourceVariable")
@leakless
def test_implicit_grad_returns_the_variable():
    x = jg.Variable(1.0, name="x")
    ((grad, variable),) = implicit_grad(lambda: x.value() + 2.0 + 3.0)()
    assert numbers(grad) == 1.0
    assert variable is x


@expresses("testImplicitGradOrdering")
@leakless
def test_implicit_grad_in_order_of_construction():
    a, b = jg.Variable(1.0), jg.Variable(2.0)

    def f():
        second = b * b
        return second + a * a

    assert [v is w for (_, v), w in zip(implicit_grad(f)(), (a, b), strict=True)] == [True, True]


@expresses("testImplicitGradOverEmbeddingLookup")
@leakless
def test_step_of_gradient_descent_on_an_embedding():
    start = np.random.default_rng(0).random((20, 5), dtype=np.float32)
    embedding, rows = jg.Variable(start), jg.ones((8,), dtype="int64")
    ((grad, variable),) = implicit_grad(lambda: 1.0 - jg.take(embedding, rows, 0))()
    assert variable is embedding
    want = np.zeros_like(start)
    want[1] = -8.0
    np.testing.assert_array_equal(grad.numpy(), want)
    embedding.assign_sub(0.125 * grad)
    np.testing.assert_array_equal(embedding.numpy(), start - np.float32(0.125) * want)


@expresses("testDy")
@leakless
def test_seed_of_an_identity():
    assert numbers(gradients_function(lambda x: x)(1.0, dy=2.0)) == [2.0]


@expresses("testErrors")
@leakless
def test_exception_in_a_gradient_function():
    @jg.custom_gradient
    def f(x):
        def backward(_):
            raise RuntimeError("mine")
        return x, backward

    with pytest.raises(RuntimeError, match="^mine$"):
        gradients_function(f)(jg.constant(1.0))


@expresses("testGradientsFunctionInCustomGradient")
@leakless
def test_gradient_inside_a_custom_gradient():
    @jg.custom_gradient
    def f(x):
        (y,) = gradients_function(lambda x: x * x)(x)
        return y, lambda dy: [2 * dy]

    assert numbers(f(1.0)) == 2.0
    x = jg.constant(1.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = f(x) * x
    assert numbers(tape.gradient(y, x)) == 4.0


@expresses("testMakeVJP")
@leakless
def test_make_vjp():
    result, vjp = make_vjp(lambda x: x * x, persistent=False)(jg.constant(3.0))
    assert numbers([result, vjp(2.0)]) == [9.0, [12.0]]
    with pytest.raises(RuntimeError, match="one set of gradients"):
        vjp(2.0)


@expresses("testPersistentMakeVJP")
@leakless
def test_make_vjp_to_be_used_twice():
    _, vjp = make_vjp(lambda x: x * x, persistent=True)(jg.constant(3.0))
    assert numbers([vjp(2.0), vjp(2.0), vjp()]) == [[12.0], [12.0], [6.0]]


@expresses("testCPU")
@leakless
def test_sum_with_constants():
    assert numbers(gradients_function(lambda x: x + jg.constant(2.0) + jg.constant(3.0), [0])(jg.constant(1.0))) == [1.0]


@expresses("testEmptyParams")
@leakless
def test_all_arguments_by_default():
    x, y = jg.constant(1.0), jg.constant(2.0)
    assert numbers(gradients_function(lambda a, b: a * b)(x, y)) == [2.0, 1.0]


@expresses("testEmptyParamsForValueAndGradFunction", "testNonEmptyParamsForValueAndGradFunction")
@leakless
def test_value_and_gradient():
    def f(a, b):
        return a * b

    assert numbers(val_and_grad_function(f)(2.0, 3.0)) == (6.0, [3.0, 2.0])
    assert numbers(val_and_grad_function(f, params=[1])(2.0, 3.0)) == (6.0, [2.0])


@expresses("testMulType")
@leakless
def test_product_with_itself():
    assert numbers(gradients_function(lambda x: jg.multiply(x, x))(3.0)) == [6.0]


@expresses("testArgsGradientFunction")
@leakless
def test_function_of_any_number_of_arguments():
    assert numbers(gradients_function(lambda *args: args[0] * args[0])(1.0)) == [2.0]


@expresses("testPartial")
@leakless
def test_partial_function():
    part = functools.partial(lambda x, y: x * y, jg.constant(2.0))
    assert numbers(gradients_function(part)(jg.constant(1.0))) == [2.0]


@expresses("testReturnSameThing")
@leakless
def test_function_that_returns_its_argument_too():
    assert numbers(gradients_function(lambda x: (x, 2 * x))(1.0)) == [3.0]


@expresses("testMultiValueConvertToTensor")
@leakless
def test_mean_of_a_stack_of_the_same():
    x = jg.Variable([1.0], name="x")

    def f():
        a = x.value() + 1.0
        return jg.mean(jg.stack([a, a], axis=0))

    ((grad, _),) = implicit_grad(f)()
    assert numbers(grad) == [1.0]


@expresses("testOutput")
@leakless
def test_several_outputs():
    assert numbers(gradients_function(lambda x: (x + 2, x * x))(jg.constant([0.0, 1.0, 2.0]))) == [[1.0, 3.0, 5.0]]


@expresses("testSameObjectForMultipleArguments")
@pytest.mark.parametrize(("make", "want"), [
    (lambda: jg.constant(1.0), 1.0), (lambda: 1.0, 1.0), (lambda: jg.constant([[1.0]]), [[1.0]]),
    (lambda: [[1.0]], [[1.0]]), (lambda: jg.Variable(1.0), 1.0),
])
@leakless
def test_same_object_for_two_arguments(make, want):
    x = make()
    assert numbers(gradients_function(jg.multiply)(x, x)) == [want, want]


@expresses("testImplicitGradientsCustomGradientAndCachedVariableValue")
@leakless
def test_custom_gradient_of_a_variable():
    @jg.custom_gradient
    def square(x):
        return jg.square(x), lambda upstream: 2 * upstream * x + 1

    v = jg.Variable(3.0)
    ((grad, variable),) = implicit_grad(lambda: square(v))()
    assert numbers(grad) == 7.0
    assert variable is v


@expresses("testCustomGradient")
@leakless
def test_descent_with_a_custom_gradient():
    @jg.custom_gradient
    def mul(x, y):
        return x * y, lambda upstream: [upstream * y, upstream * x]

    x = jg.Variable(2.0, name="x")
    step = implicit_val_and_grad(lambda x: mul(2.0, x.read_value()))
    losses = []
    for _ in range(5):
        loss, pairs = step(x)
        losses.append(float(loss))
        for grad, variable in pairs:
            variable.assign_sub(0.25 * grad)
    assert losses == [4.0, 3.0, 2.0, 1.0, 0.0]


@expresses("testCustomGradientIdentity")
@leakless
def test_custom_gradient_of_an_identity():
    @jg.custom_gradient
    def same(x):
        return x, lambda upstream: [2 * upstream]

    assert numbers(gradients_function(same)(1.0)) == [2.0]


@expresses("testDifferentiatingFunctionThatReturnsNone")
@leakless
def test_function_that_returns_nothing():
    def f(x, y):
        x * y

    for make in (implicit_val_and_grad, val_and_grad_function):
        with pytest.raises(ValueError, match="Cannot differentiate a function that returns None; did you forget"):
            make(f)(jg.constant(1), jg.constant(2))
    with pytest.raises(ValueError, match="No trainable variables were accessed"):
        implicit_grad(lambda: jg.constant(1.0))()
