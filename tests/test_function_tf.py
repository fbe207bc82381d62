"""What TensorFlow's def_function_test.py asserts of tf.function, of `jg.function`."""

import functools
import gc
import weakref

import numpy as np
import pytest

import jitgrad as jg
import jitgrad.interop.tensorflow as tf
from still import still
from tapes import leakless, numbers


def test_variables_made_once():                     # testCorrectVariableCreation, testVariableInitializerNotConstant
    for start in (lambda x: 2.0, lambda x: 2.0 * x):
        state = []

        @jg.function
        def f(x, state=state, start=start):
            if not state:
                state.append(jg.Variable(start(x)))
            return state[0] * x
        assert [float(f(jg.constant(x))) for x in (1.0, 3.0, 5.0)] == [2.0, 6.0, 10.0]
        assert len(state) == 1


def test_variables_made_in_a_nested_call():         # testInitializationInNestedCall
    held = []

    @jg.function
    def add(x):
        if not held:
            held.extend([jg.Variable([1.0, 2.0]), jg.Variable(10.0)])
        return held[0] + held[1] + x
    wrapper = jg.function(lambda x: add(x))
    assert numbers(wrapper(jg.constant(2.0))) == [13.0, 14.0]
    held[1].assign(11.0)
    assert [numbers(wrapper(jg.constant(2.0))) for _ in range(2)] == [[14.0, 15.0]] * 2


def test_methods_keep_their_instances_apart():      # testMethod
    class Model:
        var = None

        @jg.function
        def apply(self, x):
            if self.var is None:
                self.var = jg.Variable(2.0)
            return self.var * x

    first, second = Model(), Model()
    assert float(first.apply(3.0)) == 6.0
    first.var.assign(3.0)
    assert [float(m.apply(3.0)) for m in (first, second, first, second)] == [9.0, 6.0, 9.0, 6.0]
    assert first.var is not second.var


def test_partials():                                # test_functools_partial and its kin
    def f(x=3, y=7):
        return x + y
    assert float(jg.function(functools.partial(lambda x, y: x + y, 1.0))(jg.constant(2.0))) == 3.0
    some = jg.function(functools.partial(f, y=6))
    for _ in range(2):
        assert [int(some()), int(some(y=8)), int(some(x=jg.constant(1)))] == [9, 11, 7]
    assert numbers(jg.function(functools.partial(f, x=jg.zeros(1), y=jg.zeros(1)))()) == [0.0]
    assert int(jg.function(functools.partial(f, jg.constant(1)))(5)) == 6


def test_unspecified_default_argument():
    wrapped = tf.function(lambda x, y=2: x + y, input_signature=[tf.TensorSpec((), tf.int32)])
    assert [int(wrapped(jg.constant(k))) for k in (1, 5, 1)] == [3, 7, 3]


def test_optimizer_inside():                        # test_optimizer
    class Model(jg.nn.Model):
        def __init__(self):
            super().__init__()
            self.dense = jg.nn.layers.Dense(1)
            self.optimizer = jg.nn.optimizers.Adam(0.1)

        @tf.function(input_signature=(tf.TensorSpec([None, 2]), tf.TensorSpec([None])))
        def step(self, x, y):
            with jg.GradientTape() as tape:
                loss = jg.mean((self.dense(x)[:, 0] - y) ** 2.0)
            variables = self.dense.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            return {"loss": loss}

    model = Model()
    losses = [float(model.step([[3.0, 4.0]], [2.0])["loss"]) for _ in range(60)]
    assert losses[-1] < 1e-2 * max(losses)
    assert [float(model.step(jg.ones((n, 2)), jg.ones(n))["loss"]) >= 0 for n in (1, 2, 3)] == [True] * 3


def test_an_exception_is_not_sticky():              # testRuntimeErrorNotSticky
    @jg.function
    def fail(i):
        if int(i) != 0:
            raise ValueError("ick")
        return i * 2
    for _ in range(3):
        assert int(fail(jg.constant(0))) == 0
        with pytest.raises(ValueError, match="ick"):
            fail(jg.constant(1))


def test_names_and_ranges():                        # testUnderscoreName, testRange, test_concrete_function_keyword_arguments
    underscore = jg.function(lambda _: _ + _)
    assert [float(underscore(jg.constant(x))) for x in (1.0, 2.0)] == [2.0, 4.0]
    assert [float(jg.function(lambda x: jg.constant(1.0))(range(5)))] == [1.0]
    f = jg.function(lambda x, y: x - y)
    one, two = jg.constant(1.0), jg.constant(2.0)
    for _ in range(2):
        assert [float(v) for v in (f(one, two), f(one, y=two), f(y=one, x=two), f(x=one, y=two))] == [-1.0, -1.0, 1.0, -1.0]


def test_one_variable_twice():                      # testSameVariableTwice
    v, w = jg.Variable(1.0), jg.Variable(5.0)
    add = jg.function(lambda a, b: a + b)
    assert [float(add(*pair)) for pair in ((v, v), (v, w), (v, v), (w, w))] == [2.0, 6.0, 2.0, 10.0]


def test_decorated_twice():                         # testDecorate: over and under another decorator
    once = jg.function(lambda: jg.constant(1))
    assert jg.function(once) is once
    over = jg.function(lambda: 1 + once())
    assert [int(over()), int(over()), int(once())] == [2, 2, 1]


def test_shapes_have_recordings_of_their_own():     # testShapeCache, test_serialization_signature_cache
    f = jg.function(lambda x: 2 * x)
    for _ in range(3):
        for x in (np.ones(2, "f4"), np.ones(3, "f4"), np.ones((1, 2), "i4")):
            np.testing.assert_array_equal(f(x).numpy(), 2 * x)
    assert f.cache_info()[:3] == (6, 3, 3)


@leakless
def test_functions_die_without_cycles():            # testFunctionReferenceCycles
    f = jg.function(lambda x: 2.0 * x)
    f(jg.constant(4.0)), f(jg.constant(4.0))
    gone = weakref.ref(f)
    del f
    assert gone() is None


class Decorated:
    @jg.function
    def f(self, x):
        return x * 3.0


@still()
def test_methods_leave_no_garbage():                # testMethodReferenceCycles
    Decorated().f(jg.constant(5.0))
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        instance = Decorated()
        instance.f(jg.constant(5.0)), instance.f(jg.constant(5.0))
        gone = weakref.ref(instance)
        del instance
        assert gone() is None
        gc.collect()
        assert gc.garbage == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
