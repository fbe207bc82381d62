"""TensorFlow's forwardprop_test.py: every test waits for forward mode, but for TensorFlow's own plumbing.

Each test fails today because `jg.ForwardAccumulator` does not exist, and for nothing else.
"""

import numpy as np
import pytest

import jitgrad as jg
from tape_omissions import awaiting

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
ControlFlowTests.testOfFunctionWhile ControlFlowTests.testOfFunctionCond ControlFlowTests.testInFunctionWhile
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
    """Tests that wait for forward mode."""
    COVERED.update(names)
    return awaiting("jg.ForwardAccumulator")


def test_every_name_has_one_place():
    assert not COVERED & set(NEVER)
    assert COVERED | set(NEVER) == NAMES


def jvp(f, x, t):
    x = jg.constant(x)
    with jg.ForwardAccumulator(x, jg.constant(t)) as acc:
        y = f(x)
    return acc.jvp(y)


@forward("testMultipleWatchesAdd")
def test_one_primal_twice_is_refused():
    x = jg.constant(-2.)
    with pytest.raises(ValueError, match="multiple times"):
        jg.ForwardAccumulator([x, x], [jg.constant(1.), jg.constant(2.)])


@forward("testReenter")
def test_an_accumulator_is_entered_again_after_its_exit_only():
    x = jg.constant(-2.)
    with jg.ForwardAccumulator(x, jg.constant(1.5)) as acc:
        assert float(acc.jvp(x * 4.)) == 6
        with pytest.raises(ValueError, match="already recording"):
            acc.__enter__()
    with acc:
        assert float(acc.jvp(x * 5.)) == 7.5


@forward("testDeadTensorsJVPCleared", "testHVPMemory", "testForwardOverBackwardMemoryEfficiency")
def test_tangents_die_with_their_tensors():
    import weakref
    x = jg.constant(1.)
    with jg.ForwardAccumulator(x, jg.constant(1.)) as acc:
        y = x * 2.
        seen = weakref.ref(acc.jvp(y))
        del y
        assert seen() is None


@forward("testJVPManual", "testNumericHigherOrder")
def test_a_jvp_of_sine():
    np.testing.assert_allclose(float(jvp(jg.sin, 0.1, 0.2)), np.cos(0.1) * 0.2, rtol=1e-6)


@forward("testCustomGradient")
def test_a_custom_gradient_gives_the_jvp():
    @jg.custom_gradient
    def f(x):
        return x * 2., lambda dy: dy * 3.
    assert float(jvp(f, 1., 2.)) == 6


@forward("testCustomGradientRecomputeGrad")
def test_recomputation_has_a_jvp():
    assert float(jvp(lambda x: jg.recompute_grad(jg.square)(x), 3., 1.)) == 6


@forward("testExceptionInCustomGradientNotSwallowed")
def test_an_exception_of_a_rule_arrives():
    @jg.custom_gradient
    def f(x):
        def grad(dy):
            raise ValueError("from the rule")
        return x * 1., grad
    with pytest.raises(ValueError, match="from the rule"):
        jvp(f, 1., 1.)


@forward("testElementwiseNNOps")
@pytest.mark.parametrize("f", [jg.relu, jg.tanh, jg.sigmoid, jg.softmax], ids=["relu", "tanh", "sigmoid", "softmax"])
def test_jvps_of_activations_match_differences(f):
    x, t = np.array([0.3, -0.4, 1.2]), np.array([1., 2., -1.])
    want = (f(jg.constant(x + 1e-6 * t)).numpy() - f(jg.constant(x - 1e-6 * t)).numpy()) / 2e-6
    np.testing.assert_allclose(jvp(f, x, t).numpy(), want, rtol=1e-6)


@forward("testKerasLayers")
def test_a_layer_has_a_jvp_in_its_kernel():
    layer = jg.nn.layers.Dense(2)
    x = jg.ones((1, 3))
    layer(x)
    with jg.ForwardAccumulator(layer.kernel, jg.ones((3, 2))) as acc:
        y = layer(x)
    np.testing.assert_allclose(acc.jvp(y).numpy(), [[3., 3.]])


@forward("testVariablesHVP", "testHVPCorrectness", "HessianTests.testHessianOfVariables")
def test_forward_over_backward_is_a_hessian_vector_product():
    v = jg.Variable([2., 3.])
    with jg.ForwardAccumulator(v, jg.constant([1., 0.])) as acc:
        with jg.GradientTape() as tape:
            y = jg.sum(v * v * v)
        g = tape.gradient(y, v)
    np.testing.assert_allclose(acc.jvp(g).numpy(), [12., 0.])


@forward("testHigherOrderPureForward")
def test_forward_mode_nests():
    x, t = jg.constant(2.), jg.constant(1.)
    with jg.ForwardAccumulator(x, t) as outer:
        with jg.ForwardAccumulator(x, t) as inner:
            y = x ** 3
        first = inner.jvp(y)
    assert (float(first), float(outer.jvp(first))) == (12., 12.)


@forward("testGradPureForward", "testFunctionGradInFunctionPureForward", "testFunctionGrad")
def test_a_jvp_inside_a_function():
    assert float(jvp(lambda x: jg.function(jg.square)(x), 3., 1.)) == 6


@forward("testReusingJVP")
def test_a_jvp_can_be_asked_for_twice():
    x = jg.constant(3.)
    with jg.ForwardAccumulator(x, jg.constant(1.)) as acc:
        y = x * x
    assert float(acc.jvp(y)) == float(acc.jvp(y)) == 6


@forward("testRecordingSelectively", "testUnconnectedGradients", "testArgumentUnused")
def test_what_does_not_depend_has_no_tangent():
    x, c = jg.constant(3.), jg.constant(4.)
    with jg.ForwardAccumulator(x, jg.constant(1.)) as acc:
        y = c * 2.
    assert acc.jvp(y) is None
    assert float(acc.jvp(y, unconnected_gradients=jg.UnconnectedGradients.ZERO)) == 0


@forward("testOpWithNoTrainableOutputs")
def test_integers_have_no_tangent():
    assert jvp(jg.argmax, [1., 2.], [1., 1.]) is None


@forward("testVariableReadInFunction", "testVariableWatched", "testVariableWatchedFunction")
def test_a_variable_is_a_primal():
    v = jg.Variable(3.)
    with jg.ForwardAccumulator(v, jg.constant(1.)) as acc:
        y = v * v
    assert float(acc.jvp(y)) == 6


@forward("testBackwardOverForward")
def test_backward_over_forward():
    x = jg.constant(2.)
    with jg.GradientTape() as tape:
        tape.watch(x)
        with jg.ForwardAccumulator(x, jg.constant(1.)) as acc:
            y = x ** 3
        t = acc.jvp(y)
    assert float(tape.gradient(t, x)) == 12


@forward("ControlFlowTests.testOfFunctionWhile", "ControlFlowTests.testInFunctionWhile")
def test_a_jvp_through_a_loop():
    def f(x):
        return jg.fori_loop(0, 3, lambda i, y: y * x, x)
    assert float(jvp(f, 2., 1.)) == 32


@forward("ControlFlowTests.testOfFunctionCond")
def test_a_jvp_through_a_choice():
    assert float(jvp(lambda x: jg.cond(x > 0, jg.square, jg.negative, x), 2., 1.)) == 4


@forward("HessianTests.testHessian1D")
def test_a_hessian_by_columns():
    x = jg.constant([1., 2.])
    columns = []
    for t in np.eye(2, dtype="float32"):
        with jg.ForwardAccumulator(x, jg.constant(t)) as acc:
            with jg.GradientTape() as tape:
                tape.watch(x)
                y = jg.sum(x * x * x)
            g = tape.gradient(y, x)
        columns.append(acc.jvp(g).numpy())
    np.testing.assert_allclose(columns, np.diag([6., 12.]))
