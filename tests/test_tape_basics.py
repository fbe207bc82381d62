"""gradient(): targets that are sources, several targets, output gradients, repeated use, kinds of source."""

import numpy as np
import pytest

import jitgrad as jg
from tape_omissions import expresses
from tapes import leakless, numbers


@expresses("testTapeNoOpGradient")
@leakless
def test_target_that_is_the_source():
    x = jg.constant(3.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
    assert numbers(tape.gradient(x, x)) == 1.0


@leakless
def test_target_that_is_the_source_needs_no_watch():
    x = jg.constant([2.0, 3.0])
    with jg.GradientTape(persistent=True) as tape:
        y = x * x
    assert numbers(tape.gradient(x, x)) == [1.0, 1.0]
    assert numbers(tape.gradient(y, x)) is None
    assert numbers(tape.gradient([x, y], [x, y])) == [[1.0, 1.0], [1.0, 1.0]]
    assert numbers(tape.gradient([x, y], x, [jg.constant([5.0, 7.0]), None])) == [5.0, 7.0]


@leakless
def test_unwatched_operand_that_is_target_and_source_gets_only_its_identity():
    x, w = jg.constant(2.0), jg.constant(3.0)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(w)
        y = x * w
    assert numbers(tape.gradient([y, x], [x, w])) == [1.0, 2.0]
    assert numbers(tape.gradient([y, x, x], [x, w], [jg.constant(2.0), jg.constant(5.0), None])) == [6.0, 4.0]


@leakless
def test_variable_as_target():
    a, b = jg.Variable(2.0), jg.Variable(7.0)
    with jg.GradientTape(persistent=True) as tape:
        pass
    assert numbers(tape.gradient(a, [a, b])) == [1.0, None]
    with jg.GradientTape(persistent=True) as tape:
        y = a * a
        a.assign(5.0)
        z = a * a
        a.assign(1.0)
    assert numbers(tape.gradient(a, a)) == 1.0
    assert numbers([tape.gradient(y, a), tape.gradient(z, a)]) == [4.0, 10.0]
    assert numbers(tape.gradient([a, z], a)) == 11.0
    assert numbers(tape.gradient({"a": a, "y": y}, [a], {"a": jg.constant(3.0), "y": jg.constant(2.0)})) == [11.0]
    assert numbers(tape.gradient(a, b)) is None


@expresses("testTapeIdentityGradientIsIdentity")
@leakless
def test_identity():
    x = jg.constant(3.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = jg.identity(x)
    assert y is not x
    assert numbers(tape.gradient(y, x)) == 1.0


@expresses("testTapeGradientMultiTargetOneIsSource")
@leakless
def test_one_of_several_targets_is_the_source():
    x = jg.constant(2.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = x * x
    assert numbers(tape.gradient([x, y], x)) == 5.0


@expresses("testTapeNoOpGradientWithMultiTargetAllSource")
@leakless
def test_target_given_twice_counts_twice():
    x = jg.constant(3.0)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = x * x
    assert numbers(tape.gradient([x, x], x)) == 2.0
    assert numbers(tape.gradient([y, y, y], x)) == 18.0


@expresses("testTapeNoOpGradientWithMultiTargetMultiSource")
@leakless
def test_several_targets_and_sources():
    x, y = jg.constant(3.0), jg.constant(5.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        tape.watch(y)
        z = y * y
    assert numbers(tape.gradient([x, y, z], [x, y])) == [1.0, 11.0]


@expresses("testTapeNoOpOnVariableIsIdentity")
@leakless
def test_read_of_a_variable():
    v = jg.Variable(1.0)
    with jg.GradientTape() as tape:
        y = v.read_value()
    assert numbers(tape.gradient(y, v)) == 1.0


@expresses("testTapeNoOpGradient2By2", "testTapeNoOpGradientMultiTarget2By2")
@leakless
def test_matrix_that_is_target_and_source():
    a = jg.constant(2.0, shape=(2, 2))
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(a)
    assert numbers(tape.gradient(a, [a])) == [[[1.0, 1.0], [1.0, 1.0]]]
    assert numbers(tape.gradient([a, a], [a])) == [[[2.0, 2.0], [2.0, 2.0]]]


@expresses("testTwoTargets")
@leakless
def test_each_target_has_its_own_source():
    with jg.GradientTape() as tape:
        x, y = jg.constant(3.0), jg.constant(2.0)
        tape.watch([x, y])
        twice, thrice = 2 * x, 3 * y
    assert numbers(tape.gradient([twice, thrice], [x, y])) == [2.0, 3.0]


@expresses("testOutputGradUsedInComputation")
@leakless
def test_output_gradients_of_a_target_and_of_a_source():
    with jg.GradientTape() as tape:
        x, y = jg.constant(3.0), jg.constant(2.0)
        tape.watch([x, y])
        loss = x * y
    assert numbers(tape.gradient([loss, x], [x], output_gradients=[1.0, 2.0])) == [4.0]


@leakless
def test_output_gradients_go_by_the_nest_of_targets():
    x = jg.Variable([1.0, 2.0])
    with jg.GradientTape(persistent=True) as tape:
        y, z = x * x, x * 3.0
    targets = {"y": y, "more": (z, [y])}
    seeds = {"y": None, "more": (jg.constant([10.0, 1.0]), [np.array([1, 2], np.int32)])}
    assert numbers(tape.gradient(targets, x, seeds)) == [2 + 30 + 2, 4 + 3 + 8]
    assert numbers(tape.gradient(targets, x, {"y": None, "more": (None, [None])})) == [2 + 3 + 2, 4 + 3 + 4]
    assert numbers(tape.gradient(y, x, np.array([0.5, 2.0]))) == [1.0, 8.0]
    assert numbers(tape.gradient(y, [x], output_gradients=jg.constant([0.0, 0.0]))) == [[0.0, 0.0]]


@leakless
def test_output_gradients_that_do_not_fit():
    x = jg.Variable([1.0, 2.0])
    with jg.GradientTape(persistent=True) as tape:
        y = x * x
    with pytest.raises(ValueError, match=r"shape \(3,\).*shape \(2,\)"):
        tape.gradient(y, x, jg.ones((3,)))
    with pytest.raises(ValueError, match="1 output_gradients for 2 targets"):
        tape.gradient([y, y], x, [jg.ones((2,))])
    assert numbers(tape.gradient(y, x)) == [2.0, 4.0]


@leakless
def test_output_gradient_that_depends_on_the_source():
    x = jg.constant(3.0)
    with jg.GradientTape() as outer:
        outer.watch(x)
        with jg.GradientTape() as inner:
            inner.watch(x)
            y = x * x
        g = inner.gradient(y, x, output_gradients=x * x)        # 2 x^3
    assert numbers([g, outer.gradient(g, x)]) == [54.0, 54.0]


@expresses("testGradientTapeGradientCalledMultipleTimes", "testGradientTapeJacobianCalledMultipleTimes",
           "testGradientTapeBatchJacobianCalledMultipleTimes")
@pytest.mark.parametrize("first", ["gradient", "jacobian", "batch_jacobian"])
@pytest.mark.parametrize("second", ["gradient", "jacobian", "batch_jacobian"])
@leakless
def test_second_use_of_a_tape_that_is_not_persistent(first, second):
    with jg.GradientTape() as tape:
        x = jg.constant([[3.0]])
        tape.watch(x)
        y = x * x
        z = y * y
    assert numbers(jg.sum(getattr(tape, first)(z, x))) == 108.0
    with pytest.raises(RuntimeError, match="A non-persistent GradientTape can only be used to compute one set of "
                                           r"gradients \(or jacobians\)"):
        getattr(tape, second)(y, x)


@leakless
def test_a_failed_question_does_not_use_the_tape_up():
    x = jg.constant(3.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = x * x
    with pytest.raises(ValueError, match="unconnected_gradients"):
        tape.gradient(y, x, unconnected_gradients="maybe")
    assert numbers(tape.gradient(y, x)) == 6.0


@expresses("testPersistentTape")
@leakless
def test_persistent_tape():
    with jg.GradientTape(persistent=True) as tape:
        x = jg.constant(3.0)
        tape.watch(x)
        y = x * x
        z = y * y
    assert numbers([tape.gradient(z, [x]), tape.gradient(y, [x]), tape.gradient(z, [x])]) == [[108.0], [6.0], [108.0]]


@expresses("testNestedGradients")
@leakless
def test_intermediate_value_as_source():
    x = jg.constant(3.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = x * x
        z = y * y
    assert numbers(tape.gradient(z, [x, y])) == [108.0, 18.0]


@expresses("testGradientTapeVariable")
@leakless
def test_variable_as_source():
    v = jg.Variable(1.0, name="v")
    with jg.GradientTape() as tape:
        y = v * v
    assert numbers(tape.gradient(y, [v])) == [2.0]


@expresses("testGradientWithinTapeBlock")
@pytest.mark.parametrize("persistent", [False, True])
@leakless
def test_gradient_inside_the_block(persistent):
    v = jg.Variable(1.0)
    with jg.GradientTape(persistent=persistent) as tape:
        loss = 2 * v
        grad = tape.gradient(loss, v)
    assert numbers(grad) == 2.0


def test_persistent_gradient_inside_the_block_is_warned_about_once(caplog):
    v = jg.Variable(1.0)
    with jg.GradientTape(persistent=True) as tape:
        loss = 2 * v
        tape.gradient(loss, v)
        tape.gradient(loss, v)
    assert [r.levelname for r in caplog.records if "significantly less efficient" in r.message] == ["WARNING"]
    with jg.GradientTape() as tape:
        tape.gradient(2 * v, v)
    assert len(caplog.records) == 1


@leakless
def test_a_tape_popped_by_a_gradient_inside_its_block_records_no_more():
    v = jg.Variable(3.0)
    with jg.GradientTape() as tape:
        tape.gradient(2 * v, v)
        y = v * v
    assert not jg.identity(y)._tracked
    with pytest.raises(RuntimeError, match="one set of gradients"):
        tape.gradient(y, v)


@expresses("testWhereGradient")
@pytest.mark.parametrize(("at", "slope"), [(5.0, 1.0), (50.0, 100.0)])
@leakless
def test_where(at, slope):
    x = jg.constant(at)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = jg.where(x < 10, x, x * x)
    assert numbers(tape.gradient(y, x)) == slope


@expresses("testDifferentiatingScalarCache")
@leakless
def test_equal_constants_are_distinct():
    with jg.GradientTape() as tape:
        a, b = jg.constant(3.0), jg.constant(3.0)
        tape.watch([a, b])
        y = a + b
    assert numbers(tape.gradient(y, [a])) == [1.0]


def no_ops(x):
    others = [jg.identity(x), x + 0, x - 0, x * 1]
    with jg.GradientTape() as tape:
        tape.watch([x, *others])
        loss = x * 2.0
        for other in others:
            loss = loss + other * 3.0
    return tape.gradient(loss, [x, *others])


@expresses("testNoOpBehaviorConsistent")
@leakless
def test_operations_that_change_nothing_make_distinct_tensors():
    assert numbers(no_ops(jg.constant(10.0))) == [2.0, 3.0, 3.0, 3.0, 3.0]


@leakless
def test_operations_that_change_nothing_in_a_function():
    assert numbers(jg.function(no_ops)(jg.constant(10.0))) == [2.0, 3.0, 3.0, 3.0, 3.0]


@expresses("testVariablesAndConstantsProduceTheSameGradients")
@leakless
def test_variables_and_constants_alike():
    def gradients(a, b):
        with jg.GradientTape() as tape:
            tape.watch([a, b])
            y, z = a ** 3, b ** 2
        return numbers(tape.gradient([y, z], [a, b]))

    assert gradients(jg.constant(2.0), jg.constant(2.0)) == gradients(jg.Variable(2.0), jg.Variable(2.0)) == [12.0, 4.0]


@expresses("testZerosCacheDoesntLeakAcrossGraphs")
@leakless
def test_part_of_the_result_is_constant():
    found = []
    for _ in range(2):
        t, x = jg.constant(1.0, shape=(10, 4)), jg.constant(2.0, shape=(10, 4))
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = jg.concat([x[:, :2] ** 2, t], axis=1)
        found.append(numbers(tape.gradient(y, x)))
    assert found[0] == found[1] == [[4.0, 4.0, 0.0, 0.0]] * 10


@leakless
def test_a_leaf_used_many_times():
    v = jg.Variable(2.0)
    with jg.GradientTape() as tape:
        y = v * 0.0
        for _ in range(50):
            y = y + v
    assert numbers(tape.gradient(y, v)) == 50.0


@leakless
def test_dtype_of_a_gradient_is_its_sources():
    x = jg.constant([3.0, 1.0], dtype="float64")
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = jg.cast(x * x, dtype="float32") * jg.constant([2.0, 2.0])
    g = tape.gradient(y, x)
    assert (numbers(g), g.dtype.name, y.dtype.name) == ([12.0, 4.0], "float64", "float32")


@pytest.mark.parametrize("source", ["text", None, 3.0, object])
@leakless
def test_what_is_no_tensor_has_no_gradient(source):
    x = jg.constant(2.0)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = x * x
    assert numbers(tape.gradient(y, [x, source])) == [4.0, None]
    assert numbers(tape.gradient([y, source], x)) == 4.0
    assert tape.gradient(source, x) is None
    assert tape.gradient(y, source) is None
