"""TensorFlow's forwardprop_test.py: every test but those of TensorFlow's own plumbing."""

import gc
import weakref

import numpy as np
import pytest

import jitgrad as jg
import jitgrad.interop.tensorflow as tf
from tapes import leakless, numbers

NAMES = set("""
testJVPFunction testJVPFunctionUsedByAccumulatorForOps testFunctionCacheLimited testMultipleWatchesAdd testReenter
testDeadTensorsJVPCleared testJVPManual testNumericHigherOrder testCustomGradient testCustomGradientRecomputeGrad
testExceptionInCustomGradientNotSwallowed testElementwiseNNOps testKerasLayers testVariablesHVP
testPushPopAccumulatorState testHigherOrderPureForward testGradPureForward testJVPPacking
testFunctionGradInFunctionPureForward testFunctionGrad testReusingJVP testHVPMemory testHVPCorrectness
testShouldRecordAndStopRecord testRecordingSelectively testOpWithNoTrainableOutputs testVariableReadInFunction
testForwardOverBackwardMemoryEfficiency testBackwardOverForward testRecordingWithJVPIndices
testSpecialForwardFunctionUsed testVariableWatched testUnconnectedGradients testVariableWatchedFunction
testMirroredVariableWatched testArgumentUnused
ControlFlowTests.testOfFunctionWhile ControlFlowTests.testOfFunctionCond ControlFlowTests.testInFunctionWhile ControlFlowTests.testInFunctionCond
HessianTests.testHessian1D HessianTests.testHessianOfVariables
""".split())

NEVER = {
    "testJVPFunction": "TF plumbing: the dispatch of one op's jvp",
    "testJVPFunctionUsedByAccumulatorForOps": "TF plumbing: that dispatch, replaced",
    "testFunctionCacheLimited": "TF plumbing: the cache of that dispatch",
    "testPushPopAccumulatorState": "TF plumbing: the stack of accumulators",
    "testJVPPacking": "TF plumbing: how tangents are packed",
    "testShouldRecordAndStopRecord": "TF plumbing: a query of the recorder",
    "testRecordingWithJVPIndices": "TF plumbing: indices of packed tangents",
    "testSpecialForwardFunctionUsed": "TF plumbing: the name of a graph function",
    "testMirroredVariableWatched": "distribution",
}
COVERED = set()


def forward(*names):
    """Say which of TensorFlow's tests a test expresses."""
    COVERED.update(names)
    return lambda test: test


def test_every_name_has_one_place():
    assert not COVERED & set(NEVER)
    assert COVERED | set(NEVER) == NAMES


def jvp(f, x, t):
    x = jg.constant(x)
    with jg.ForwardAccumulator(x, jg.constant(t)) as acc:
        y = f(x)
    return acc.jvp(y)


@forward("testMultipleWatchesAdd")
@leakless
def test_one_primal_twice_is_refused():
    x = jg.constant(-2.0)
    with pytest.raises(ValueError, match="multiple times"):
        jg.ForwardAccumulator([x, x], [1.0, 2.0])
    with jg.ForwardAccumulator([x], [3.0]) as acc:
        assert float(acc.jvp(x)) == 3.0
        y = 4.0 * x
    assert float(acc.jvp(y)) == 12.0


@forward("testReenter")
@leakless
def test_an_accumulator_is_entered_again_after_its_exit_only():
    x = jg.constant(-2.0)
    with jg.ForwardAccumulator(x, 1.5) as acc:
        y = 4.0 * x
        assert [float(acc.jvp(x)), float(acc.jvp(y))] == [1.5, 6.0]
        with pytest.raises(ValueError, match="already recording"):
            acc.__enter__()
    assert acc.jvp(4.0 * x) is None
    with acc:
        yy = y * y
    assert float(acc.jvp(yy)) == 6.0 * -8.0 * 2.0


@forward("testDeadTensorsJVPCleared")
def test_tangents_die_with_whoever_asked_for_them():
    x = jg.ones(100)
    with jg.ForwardAccumulator(x, jg.zeros(100)) as acc:
        y = x * 2.0
        seen = weakref.ref(acc.jvp(y))
        assert seen() is None
    refs = [weakref.ref(t) for t in (x, y)]
    del x, y, acc
    assert [r() for r in refs] == [None, None]


@forward("testJVPManual")
@leakless
def test_a_jvp_of_sine():
    np.testing.assert_allclose(float(jvp(jg.sin, 0.1, 0.2)), np.cos(0.1) * 0.2, rtol=1e-6)


def higher_orders(f, x, order=3):
    """Jacobians of a function and of its gradients of several orders: forward, backward and by differences agree."""
    x = np.asarray(x, np.float64)
    for _ in range(order):
        columns = []
        for k in range(x.size):
            t = np.zeros(x.size)
            t[k] = 1.0
            t = t.reshape(x.shape)
            columns.append(np.ravel(jvp(f, x, t).numpy()))
            ends = [np.asarray(f(jg.constant(x + e * t)).numpy()) for e in (1e-6, -1e-6)]
            np.testing.assert_allclose(columns[-1], np.ravel((ends[0] - ends[1]) / 2e-6), rtol=1e-5, atol=1e-5)
        with jg.GradientTape() as tape:
            given = jg.constant(x)
            tape.watch(given)
            y = f(given)
        back = tape.jacobian(y, given).numpy().reshape(-1, x.size)
        np.testing.assert_allclose(np.stack(columns, 1), back, rtol=1e-12, atol=1e-12)
        f = gradient_of(f)


def gradient_of(f):
    def gradient(x):
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = f(x)
        return tape.gradient(y, x, unconnected_gradients="zero")
    return gradient


@jg.custom_gradient
def sine(x):
    return jg.sin(x), lambda dy: dy * jg.cos(x)


def summed(x):
    p = jg.sin(x) * jg.tan(x)
    return jg.prod(p + jg.sum(p), axis=1)


def squared(x):
    return jg.prod(jg.tanh(x) ** 2)


@forward("testNumericHigherOrder", "testCustomGradient", "testCustomGradientRecomputeGrad", "testElementwiseNNOps",
         "testFunctionGrad")
@pytest.mark.parametrize(("f", "x"), [
    (summed, [[2.0, 3.0], [1.0, 4.0]]), (sine, [1.0, 2.0]), (jg.recompute_grad(squared), [1.0]),
    (jg.function(squared), [1.0, 2.0]), (jg.function(sine), [1.0]), (jg.nn.elu, -0.5), (jg.nn.elu, [0.5]), (jg.nn.silu, 0.5),
    (jg.nn.silu, [-0.5]), (jg.softmax, [0.3, -0.4, 1.2])])
def test_all_orders_agree(f, x):
    higher_orders(f, x)


@forward("testExceptionInCustomGradientNotSwallowed")
def test_an_exception_of_a_rule_arrives():
    @jg.custom_gradient
    def f(x):
        def grad(dy):
            raise ValueError("from the rule")
        return x * 1., grad
    with pytest.raises(ValueError, match="from the rule"):
        jvp(f, 1., 1.)


@forward("testKerasLayers")
@pytest.mark.parametrize("layer", [lambda: jg.nn.layers.Dense(5), lambda: jg.nn.layers.Dense(3, activation="tanh")])
def test_layers_have_jvps(layer):
    made = layer()
    x = jg.constant([[0.1, -0.3]])
    made(x)
    with jg.ForwardAccumulator(made.kernel, jg.ones_like(made.kernel)) as acc:
        y = made(x)
    with jg.GradientTape() as tape:
        y = made(x)
    want = jg.sum(tape.jacobian(y, made.kernel), axis=(2, 3))
    np.testing.assert_allclose(acc.jvp(made(x), unconnected_gradients="zero").numpy(), np.zeros((1, made.kernel.shape[1])))
    with acc:
        y = made(x)
    np.testing.assert_allclose(acc.jvp(y).numpy(), want.numpy(), rtol=1e-6)


def hvp(f, primals, tangents):
    with jg.ForwardAccumulator(primals, tangents) as acc:
        with jg.GradientTape() as tape:
            tape.watch(primals)
            y = f(*primals)
        return acc.jvp(tape.gradient(y, primals))


@forward("testVariablesHVP")
@pytest.mark.parametrize("decorator", [jg.function, lambda f: f], ids=["function", "plain"])
def test_hessian_vector_products_of_variables(decorator):
    model = jg.nn.Sequential([jg.nn.layers.Dense(4, activation="tanh"), jg.nn.layers.Dense(1)])
    x, target = jg.constant([[-0.5, 1.0], [0.5, -1.0]]), jg.constant([[-1.0], [2.0]])
    model(x)

    def loss(*_):
        return jg.sum((model(x) - target) ** 2.0)

    @decorator
    def products():
        variables = model.trainable_variables
        with jg.GradientTape() as tape:
            y = loss()
        vector = tape.gradient(y, variables)
        forward = hvp(loss, variables, vector)
        with jg.GradientTape(persistent=True) as tape:
            first = gradient_in(loss, variables)
        return forward, tape.gradient(first, variables, output_gradients=vector)

    for _ in range(3):
        for a, b in zip(*products(), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-4)


def gradient_in(f, variables):
    with jg.GradientTape() as tape:
        y = f()
    return tape.gradient(y, variables)


@forward("testHigherOrderPureForward")
@pytest.mark.parametrize("order", range(4))
@leakless
def test_forward_mode_nests(order):
    def derivative(f):
        return lambda x: jvp(f, x, 1.0)

    f = lambda x: x ** 3.5  # noqa: E731
    want = 1.1 ** (3.5 - order) * np.prod(3.5 - np.arange(order))
    for _ in range(order):
        f = derivative(f)
    np.testing.assert_allclose(float(f(jg.constant(1.1))), want, rtol=1e-5)


def jvps_of_both(f):
    x = jg.constant(1.1)
    with jg.ForwardAccumulator(x, 1.0) as outer, jg.ForwardAccumulator(x, 1.0) as inner:
        y = f(x)
    first = inner.jvp(y)
    assert inner.jvp(outer.jvp(y)) is None
    return y, first, outer.jvp(first)


@forward("testGradPureForward", "testFunctionGradInFunctionPureForward")
@pytest.mark.parametrize("how", ["plain", "function", "in a function"])
def test_jvps_of_jvps_after_all_is_closed(how):
    f = (lambda x: x ** 3.5) if how == "plain" else jg.function(lambda x: x ** 3.5)
    both = jg.function(lambda: jvps_of_both(f)) if how == "in a function" else lambda: jvps_of_both(f)
    for _ in range(3):
        np.testing.assert_allclose(numbers(list(both())), [1.1 ** 3.5, 3.5 * 1.1 ** 2.5, 3.5 * 2.5 * 1.1 ** 1.5], rtol=1e-5)


@forward("testReusingJVP")
def test_a_function_is_called_twice_on_equal_numbers():
    rng = np.random.default_rng(0)
    a, s, t = (rng.normal(size=(3, 5)) for _ in range(3))
    m1, m2 = jg.constant(a), jg.constant(a)
    product = jg.function(lambda m: m @ m.T)
    with jg.ForwardAccumulator([m1, m2], [s, t]) as acc:
        found = product(m1), product(m2)
    for y, d in zip(found, (s, t), strict=True):
        np.testing.assert_allclose(acc.jvp(y).numpy(), d @ a.T + a @ d.T, rtol=1e-12)


@forward("testHVPMemory", "testHVPCorrectness")
@leakless
def test_hessian_vector_products():
    x, t = jg.constant([1.0, 2.0, 3.0]), jg.constant([3.0, 4.0, 5.0])
    want = jg.hessian(squared)(x) @ t
    (plain,), (recorded,) = hvp(squared, (x,), (t,)), jg.function(lambda x, t: hvp(squared, (x,), (t,)))(x, t)
    np.testing.assert_allclose(plain.numpy(), want.numpy(), rtol=1e-5)
    np.testing.assert_allclose(recorded.numpy(), want.numpy(), rtol=1e-5)


@forward("testRecordingSelectively", "testUnconnectedGradients", "testArgumentUnused")
@leakless
def test_what_does_not_depend_has_no_tangent():
    x = jg.constant(3.0)
    unused = jg.function(lambda x: jg.constant(1.0))
    with jg.ForwardAccumulator(x, 0.5) as acc:
        y, z = jg.constant(4.0) * 2.0, unused(x)
    for target in (y, z):
        assert acc.jvp(target) is None and acc.jvp(target, unconnected_gradients="none") is None
        assert float(acc.jvp(target, unconnected_gradients=jg.UnconnectedGradients.ZERO)) == 0.0
    assert float(acc.jvp(x, unconnected_gradients="zero")) == 0.5
    with pytest.raises(ValueError, match="Unknown value for unconnected_gradients: 'nonsense'"):
        acc.jvp(x, unconnected_gradients="nonsense")


@forward("testOpWithNoTrainableOutputs")
@leakless
def test_integers_and_assignments_have_no_tangent():
    assert jvp(jg.argmax, [1.0, 2.0], [1.0, 1.0]) is None
    v = jg.Variable(1.0)
    with jg.ForwardAccumulator(v, 11.0):
        v.assign_sub(0.5)
        assert float(v) == 0.5


@forward("testVariableReadInFunction", "testVariableWatched")
def test_a_variable_is_a_primal():
    v = jg.Variable([1.0, 2.0, 3.0])
    read = jg.function(lambda: (v.read_value(), 2.0 * v.read_value()))
    with jg.ForwardAccumulator(v, jg.constant([0.5, -0.25, 4.0])) as acc:
        x, y = v * 2.0, v + 0.5
        for _ in range(2):
            assert numbers(acc.jvp(read())) == ([0.5, -0.25, 4.0], [1.0, -0.5, 8.0])
    assert numbers(acc.jvp((v, x, y))) == ([0.5, -0.25, 4.0], [1.0, -0.5, 8.0], [0.5, -0.25, 4.0])


@forward("testVariableWatchedFunction")
def test_an_accumulator_in_a_method_that_makes_its_variable():
    class Model:
        v = None

        @jg.function
        def jvps(self):
            if self.v is None:
                self.v = jg.Variable([1.0, 2.0])
            with jg.ForwardAccumulator(self.v, jg.constant([0.5, -0.25])) as acc:
                x = self.v * 2.0
                y = self.v + 0.5
            return acc.jvp((self.v, x, y))

    model = Model()
    for _ in range(3):
        assert numbers(model.jvps()) == ([0.5, -0.25], [1.0, -0.5], [0.5, -0.25])


@forward("testForwardOverBackwardMemoryEfficiency")
@pytest.mark.parametrize("first", [True, False])
def test_a_tape_within_does_not_see_tangents(first):
    c = jg.constant(1.0)
    made = [lambda: jg.ForwardAccumulator(c, 0.1), jg.GradientTape]
    acc, tape = (m() for m in made) if first else reversed([m() for m in reversed(made)])
    with tape:
        pass
    gc.disable()
    try:
        with acc, tape:
            tape.watch(c)
            d = jg.cos(c)
            e = jg.cos(acc.jvp(d))
            jg.cos(e)
            seen = weakref.ref(e)
            del e
            assert seen() is None
        assert tape.gradient(acc.jvp(d), c) is None
    finally:
        gc.enable()


@forward("testBackwardOverForward")
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("first", [True, False])
@leakless
def test_a_tape_around_sees_tangents(first, inside):
    c = jg.constant(1.0)
    made = [lambda: jg.ForwardAccumulator(c, 0.1), jg.GradientTape]
    acc, tape = (m() for m in made) if first else reversed([m() for m in reversed(made)])
    with tape:
        with acc:
            tape.watch(c)
            d = jg.cos(c)
        if inside:
            found = tape.gradient(acc.jvp(d), c)
    if not inside:
        found = tape.gradient(acc.jvp(d), c)
        assert float(acc.jvp(d)) == pytest.approx(-0.1 * np.sin(1.0))       # the tape is used up and records no more
    assert float(found) == pytest.approx(-0.1 * np.cos(1.0))


def has_loop(n, y):
    return tf.while_loop(lambda i, s: i < n, lambda i, s: (i + 1, s + y * tf.cast(i, tf.float32)), (0, 0.0))[1]


def has_choice(k, y):
    return tf.cond(k > 1, lambda: 3.0 * y, lambda: 0.0 * y)


def python_choice(k, y):
    return 3.0 * y if k > 1 else 0.0 * y


@forward("ControlFlowTests.testOfFunctionWhile", "ControlFlowTests.testOfFunctionCond",
         "ControlFlowTests.testInFunctionWhile", "ControlFlowTests.testInFunctionCond")
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(("f", "wants"), [(has_loop, (10.0, 0.0)), (has_choice, (3.0, 0.0)), (python_choice, (3.0, 0.0))])
def test_jvps_through_control_flow(f, wants, inside):
    called = f if inside else jg.function(f)

    def found(k, y):
        with jg.ForwardAccumulator(y, 1.0) as acc:
            z = called(k, y)
        return acc.jvp(z)
    ask = jg.function(found) if inside else found
    for _ in range(3):
        assert [float(ask(jg.constant(k), jg.constant(1.0))) for k in (5, 0)] == list(wants)


def forward_over_back_hessian(f, params, mapped):
    """Columns of the Hessian by one-hot tangents, as TensorFlow's test does it."""
    sizes = [p.size for p in params]

    def product(k):
        whole, parts, first = tf.one_hot(k, sum(sizes)), [], 0
        for p, n in zip(params, sizes, strict=True):
            parts.append(tf.reshape(whole[first: first + n], p.shape))
            first += n
        return hvp(f, params, parts)
    return mapped(product, tf.range(sum(sizes)))


MAPS = [tf.vectorized_map, tf.map_fn]


@forward("HessianTests.testHessian1D")
@pytest.mark.parametrize("decorator", [jg.function, lambda f: f], ids=["function", "plain"])
@pytest.mark.parametrize("mapped", MAPS, ids=["vectorized_map", "map_fn"])
def test_a_hessian_by_columns(mapped, decorator):
    rng = np.random.default_rng(1)
    m, x = rng.normal(size=(4, 4)).astype("f4"), jg.constant(rng.normal(size=4).astype("f4"))
    mat = jg.Variable(m)

    def f(x):
        return jg.sum(x[:, None] * mat * x[None, :])
    hessian = decorator(lambda x: forward_over_back_hessian(f, [x], mapped))
    for _ in range(2):
        np.testing.assert_allclose(hessian(x)[0].numpy(), m + m.T, rtol=1e-5, atol=1e-5)


@forward("HessianTests.testHessianOfVariables")
@pytest.mark.parametrize("mapped", MAPS, ids=["vectorized_map", "map_fn"])
def test_a_hessian_of_variables(mapped):
    model = jg.nn.layers.Dense(1)
    x, target = jg.constant([[-0.5, 1.0], [0.5, -1.0]]), jg.constant([[-1.0], [2.0]])
    model(x)
    kernel, bias = forward_over_back_hessian(lambda *_: jg.sum((model(x) - target) ** 2.0), [model.kernel, model.bias],
                                             mapped)
    assert kernel.shape == (3, 2, 1) and bias.shape == (3, 1)
    np.testing.assert_allclose(np.concatenate([kernel.numpy().reshape(3, 2), bias.numpy()], 1),
                               [[1.0, -2.0, 0.0], [-2.0, 4.0, 0.0], [0.0, 0.0, 4.0]], atol=1e-6)
