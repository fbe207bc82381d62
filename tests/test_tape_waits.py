"""Tests of TensorFlow's that wait for a later step. Each fails today because one name does not exist."""

import functools

import numpy as np

import jitgrad as jg
from tape_omissions import waits


def diagonal(pfor, persistent):
    x, y = jg.constant([1.0, 2.0]), jg.constant([3.0, 4.0])
    with jg.GradientTape(persistent=persistent) as tape:
        tape.watch([x, y])
        z = x * x * y
    return tape.jacobian(z, [x, y], experimental_use_pfor=pfor)


def check_diagonal(found):
    np.testing.assert_array_equal(found[0].numpy(), np.diag([6.0, 16.0]))
    np.testing.assert_array_equal(found[1].numpy(), np.diag([1.0, 4.0]))


@waits("JacobianTest.testPforDefun")
def test_jacobian_in_a_function():
    check_diagonal(jg.function(diagonal)(True, False))


@waits("JacobianTest.testWhileLoopDefun")
def test_looped_jacobian_in_a_function():
    check_diagonal(jg.function(diagonal)(False, True))


def batch_diagonal(pfor, persistent):
    x, y = jg.constant([[1.0, 2.0], [3.0, 4.0]]), jg.constant([[3.0, 4.0], [5.0, 6.0]])
    with jg.GradientTape(persistent=persistent) as tape:
        tape.watch(x)
        z = x * x * y
    return tape.batch_jacobian(z, x, experimental_use_pfor=pfor)


@waits("BatchJacobianTest.testPforDefun")
def test_batch_jacobian_in_a_function():
    found = jg.function(batch_diagonal)(True, False)
    np.testing.assert_array_equal(found.numpy(), [np.diag([6.0, 16.0]), np.diag([30.0, 48.0])])


@waits("BatchJacobianTest.testWhileLoopDefun")
def test_looped_batch_jacobian_in_a_function():
    found = jg.function(batch_diagonal)(False, True)
    np.testing.assert_array_equal(found.numpy(), [np.diag([6.0, 16.0]), np.diag([30.0, 48.0])])


@waits("testBatchJacobianParallelIterations")
def test_parallel_iterations_in_a_function_need_a_persistent_tape():
    @jg.function
    def f(persistent):
        with jg.GradientTape(persistent=persistent) as tape:
            x = jg.constant([[3.0]])
            tape.watch(x)
            y = x * x
        return tape.batch_jacobian(y, x, parallel_iterations=2)

    assert f(True).numpy().tolist() == [[[6.0]]]
    try:
        f(False)
    except RuntimeError as error:
        assert "persistent=True" in str(error) and "parallel_iterations" in str(error)
    else:
        raise AssertionError("no RuntimeError")


@waits("testFunctionIndexedSlicesGradient")
def test_lookup_in_what_a_function_returned():
    f = jg.function(lambda x: x + 1)
    x = jg.constant([1.0])
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = jg.take(f(x), [0], 0)
    assert tape.gradient(y, x).numpy().tolist() == [1.0]


@waits("testUnconnectedGradientsNestedDefunZeros")
def test_zeros_through_nested_functions_that_stop():
    f = jg.function(lambda x: x * x)
    h = jg.function(lambda y: jg.stop_gradient(f(y)))
    x = jg.constant(1.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = h(x + 2.0)
    assert float(tape.gradient(y, x, unconnected_gradients="zero")) == 0.0


@waits("testUnknownShapes")
def test_gradient_in_a_function_of_any_shape():
    @jg.function
    def f(a):
        with jg.GradientTape() as tape:
            tape.watch(a)
            b = a ** 3
        return b, tape.gradient(b, a)

    assert [float(t) for t in f(jg.constant(2.0))] == [8.0, 12.0]
    assert [t.numpy().tolist() for t in f(jg.constant([2.0]))] == [[8.0], [12.0]]


@waits("testGradientInsideLoop")
def test_gradient_inside_a_loop():
    v = jg.Variable(1.0)

    def body(x):
        v + 1.0
        with jg.GradientTape() as tape:
            result = v * 2
        return x + tape.gradient(result, v)

    assert float(jg.while_loop(lambda x: x < 4.0, body, jg.constant(1.0))) == 5.0


@waits("testGradientTapeWithWhileLoop")
def test_gradient_of_a_loop():
    x = jg.constant(2.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        _, y = jg.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, x * 2), (jg.constant(1), x))
    assert float(tape.gradient(y, x)) == 4.0


@waits("testGradientTapeWithCond")
def test_gradient_of_a_choice():
    x = jg.constant(3.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = jg.cond(x < x, lambda: x, lambda: x * x)
    assert float(tape.gradient(y, x)) == 6.0


@waits("JacobianTest.test_cond_func_grad_jacobian")
def test_jacobian_of_the_gradient_of_a_choice():
    def f(x):
        return jg.cond(x > 0.0, lambda: x ** 3, lambda: x ** 2)

    with jg.GradientTape(persistent=True) as outer:
        x = jg.constant(1.0)
        outer.watch(x)
        with jg.GradientTape() as inner:
            inner.watch(x)
            y = f(x)
        g = inner.gradient(y, x)
        assert float(g) == 3.0
    assert float(outer.jacobian(g, x)) == 6.0


def fold(f, start, xs):
    """The last carry of a scan."""
    return jg.scan(lambda carry, x: (f(carry, x), None), start, xs)[0]


@waits("JacobianTest.test_foldl_partial_function")
def test_jacobian_of_a_fold_of_a_partial_function():
    x = jg.constant([2.0, 3.0, 4.0])
    add = functools.partial(lambda scale, a, b: a + scale * b, 1.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = fold(add, jg.constant(0.0), x)
    assert tape.jacobian(y, x).numpy().tolist() == [1.0, 1.0, 1.0]


@waits("JacobianTest.test_foldl_pure_function")
def test_jacobian_of_a_fold():
    x = jg.constant([2.0, 3.0, 4.0])
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = fold(jg.add, jg.constant(0.0), x)
    assert tape.jacobian(y, x).numpy().tolist() == [1.0, 1.0, 1.0]


@waits("JacobianTest.test_nested_batch_jacobian_foldl")
def test_batch_jacobian_of_the_batch_jacobian_of_a_fold():
    def f(x):                                  # per example: x0^2 x1 + x2, as a fold over the columns of functions
        return fold(lambda a, k: a * x + k, x, jg.constant([1.0, 2.0]))

    x = jg.constant([[1.0, 2.0], [0.5, 3.0]])
    with jg.GradientTape() as outer:
        outer.watch(x)
        with jg.GradientTape() as inner:
            inner.watch(x)
            y = f(x)
        first = inner.batch_jacobian(y, x)
    second = outer.batch_jacobian(first, x).numpy()
    for b in range(2):                         # y = x^3 + x + 2 elementwise
        for i in range(2):
            np.testing.assert_allclose(first.numpy()[b, i, i], 3 * float(x[b, i]) ** 2 + 1, rtol=1e-6)
            np.testing.assert_allclose(second[b, i, i, i], 6 * float(x[b, i]), rtol=1e-6)


@waits("testRecomputeGradWithDifferentShape")
def test_recomputing_of_lists_and_dicts():
    @jg.recompute_grad
    def of_list(xs):
        return [xs[0] * xs[1], xs[1] * 2.0]

    @jg.recompute_grad
    def of_dict(xs):
        return {"a": xs["x"] * xs["y"], "b": jg.stack([xs["x"]] * 3)}

    x, y = jg.constant(3.0), jg.constant(5.0)
    for f, arguments in ((of_list, [x, y]), (of_dict, {"x": x, "y": y})):
        with jg.GradientTape() as tape:
            tape.watch([x, y])
            out = f(arguments)
        assert [float(g) for g in tape.gradient(out, [x, y])] == ([5.0, 5.0] if f is of_list else [8.0, 3.0])


@waits("testRecomputeGradWithNestedFunctionAndWhileLoop")
def test_recomputing_of_nested_functions_with_a_loop():
    @jg.recompute_grad
    def outer(x):
        inner = jg.function(lambda z: z + 1)
        return jg.while_loop(lambda y, i: i < 10.0, lambda y, i: (inner(y), i + 1.0), (x, jg.constant(0.0)))[0]

    v = jg.Variable(1.0)
    with jg.GradientTape() as tape:
        y = outer(v)
    assert [float(y), float(tape.gradient(y, v))] == [11.0, 1.0]


@waits("testMultiValuePreservesIfNotDiffedAgainst")
def test_convolution_differentiated_in_the_image():
    image, kernel = jg.constant([[[[1.0]]]]), jg.constant([[[[2.0]]]])
    with jg.GradientTape() as tape:
        tape.watch(image)
        y = jg.nn.conv2d(image, kernel, [1, 1, 1, 1], "SAME")
    assert tape.gradient(y, image).numpy().tolist() == [[[[2.0]]]]


@waits("JacobianTest.test_grad_jacobian_conv")
def test_jacobian_of_the_gradient_of_a_convolution():
    x, kernel = jg.ones((1, 3, 3, 1)), jg.ones((2, 2, 1, 1))
    with jg.GradientTape() as outer:
        outer.watch(x)
        with jg.GradientTape() as inner:
            inner.watch(x)
            y = jg.sum(jg.nn.conv2d(x, kernel, 1, "VALID") ** 2)
        g = inner.gradient(y, x)
    h = outer.jacobian(g, x).numpy().reshape(9, 9)
    np.testing.assert_array_equal(h, h.T)
    assert h[0, 0] == 2.0 and h[4, 4] == 8.0


@waits("testGPU")
def test_sum_on_a_gpu():
    x = jg.constant(1.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = (x.to_device("gpu") + 2.0 + 3.0).to_device("cpu")
    assert float(tape.gradient(y, x)) == 1.0


@waits("testGPUImplicitGrad")
def test_variable_read_on_a_gpu():
    v = jg.Variable(jg.constant(1.0).to_device("gpu"))
    with jg.GradientTape() as tape:
        y = v.read_value()
    assert float(tape.gradient(y, v).to_device("cpu")) == 1.0


@waits("testTensorCopyGPU2CPU2GPU")
def test_copies_from_a_gpu_and_back():
    a, b = jg.constant(1.0).to_device("gpu"), jg.constant(2.0).to_device("gpu")
    with jg.GradientTape() as tape:
        tape.watch(a)
        y = a.to_device("cpu") + b.to_device("cpu")
    assert float(tape.gradient(y, a).to_device("cpu")) == 1.0


@waits("testTensorCopyCPU2GPU2CPU")
def test_copies_to_a_gpu_and_back():
    a, b = jg.constant(1.0), jg.constant(2.0)
    with jg.GradientTape() as tape:
        tape.watch(a)
        y = (a.to_device("gpu") + b.to_device("gpu")).to_device("cpu") + 3.0
    assert float(tape.gradient(y, a)) == 1.0
