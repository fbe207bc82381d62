"""jacobian and batch_jacobian: numbers, shapes, dtypes, nesting, errors."""

import re

import numpy as np
import pytest

import jitgrad as jg
from tape_omissions import expresses
from tapes import leakless, numbers

each_way = pytest.mark.parametrize("pfor", [True, False])


@each_way
@expresses("JacobianTest.testPfor", "JacobianTest.testWhileLoop")
@leakless
def test_jacobian_of_a_product(pfor):
    x, y = jg.constant([1.0, 2.0]), jg.constant([3.0, 4.0])
    with jg.GradientTape(persistent=not pfor) as tape:
        tape.watch([x, y])
        z = x * x * y
    found = tape.jacobian(z, [x, y], experimental_use_pfor=pfor)
    assert numbers(found) == [[[6.0, 0.0], [0.0, 16.0]], [[1.0, 0.0], [0.0, 4.0]]]


@each_way
@expresses("BatchJacobianTest.testPfor", "BatchJacobianTest.testWhileLoop")
@leakless
def test_batch_jacobian_of_a_product(pfor):
    x, y = jg.constant([[1.0, 2.0], [3.0, 4.0]]), jg.constant([[3.0, 4.0], [5.0, 6.0]])
    with jg.GradientTape(persistent=not pfor) as tape:
        tape.watch(x)
        z = x * x * y
    found = tape.batch_jacobian(z, x, experimental_use_pfor=pfor)
    assert numbers(found) == [[[6.0, 0.0], [0.0, 16.0]], [[30.0, 0.0], [0.0, 48.0]]]


@pytest.mark.parametrize("what", ["jacobian", "batch_jacobian"])
@expresses("JacobianTest.testPersistentTape", "BatchJacobianTest.testPersistentTape")
@leakless
def test_loop_needs_a_persistent_tape(what):
    with jg.GradientTape() as tape:
        x = jg.constant([[1.0, 2.0]])
        tape.watch(x)
        y = x * x
    with pytest.raises(RuntimeError, match="persistent=True.*experimental_use_pfor set to False"):
        getattr(tape, what)(y, x, experimental_use_pfor=False)
    assert numbers(tape.batch_jacobian(y, x)) == [[[2.0, 0.0], [0.0, 4.0]]]


@expresses("JacobianTest.test_parallel_iterations", "BatchJacobianTest.test_parallel_iterations")
@leakless
def test_parallel_iterations_change_nothing():
    x = jg.constant([[1.0, 2.0], [3.0, 4.0]])
    w = jg.constant([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        square, y = jg.matmul(x, x), jg.matmul(x, w)
    a, b = (tape.jacobian(square, x, parallel_iterations=n) for n in (2, 3))
    np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert numbers(a[0, 1]) == [[2.0, 5.0], [0.0, 2.0]]
    a, b = (tape.batch_jacobian(y, x, parallel_iterations=n) for n in (2, 3))
    np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert numbers(a) == [numbers(w.T)] * 2


@expresses("testJacobianInsideGradientTapeScope", "testBatchJacobianInsideGradientTapeScope")
@pytest.mark.parametrize("persistent", [False, True])
@leakless
def test_inside_the_block(persistent):
    with jg.GradientTape(persistent=persistent) as tape:
        x = jg.constant(3.0)
        tape.watch(x)
        z = (x * x) * (x * x)
        assert numbers(tape.jacobian(z, x)) == 108.0
    with jg.GradientTape(persistent=persistent) as tape:
        x = jg.constant([[3.0]])
        tape.watch(x)
        z = (x * x) * (x * x)
        assert numbers(tape.batch_jacobian(z, x)) == [[[108.0]]]


@leakless
def test_jacobian_is_recorded_inside_its_own_block():
    x = jg.constant(3.0)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        first = tape.jacobian(x * x * x * x, x)
        second = tape.gradient(first, x)
    assert numbers([first, second, tape.gradient(second, x)]) == [108.0, 108.0, 72.0]


@expresses("JacobianTest.test_nested_jacobian")
@leakless
def test_nested_jacobian():
    x = jg.ones((10, 2))
    with jg.GradientTape() as outer:
        outer.watch(x)
        with jg.GradientTape() as inner:
            inner.watch(x)
            y = jg.sum(jg.square(x))
        dy = inner.jacobian(y, x)
    assert numbers(outer.batch_jacobian(dy, x)) == [[[2.0, 0.0], [0.0, 2.0]]] * 10


@leakless
def test_hessian_by_nesting():
    x = jg.Variable([1.0, 2.0])
    with jg.GradientTape() as outer:
        with jg.GradientTape() as inner:
            y = x[0] ** 3 * x[1] ** 2
        g = inner.gradient(y, x)
    assert numbers([g, outer.jacobian(g, x)]) == [[12.0, 4.0], [[24.0, 12.0], [12.0, 2.0]]]


@leakless
def test_jacobian_of_a_jacobian():
    x = jg.Variable([1.0, 2.0])
    with jg.GradientTape() as outer:
        with jg.GradientTape() as inner:
            y = jg.stack([x[0] ** 3 * x[1] ** 2, x[0] * x[1]])
        j = inner.jacobian(y, x)
    assert numbers(j) == [[12.0, 4.0], [2.0, 1.0]]
    assert numbers(outer.jacobian(j, x)) == [[[24.0, 12.0], [12.0, 2.0]], [[0.0, 1.0], [1.0, 0.0]]]


@each_way
@expresses("JacobianTest.test_indexed_slices")
@leakless
def test_jacobian_of_a_lookup(pfor):
    with jg.GradientTape(persistent=True) as tape:
        table = jg.constant([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        tape.watch(table)
        rows = jg.take(table, [0, 2], 0)
    want = np.zeros((2, 2, 3, 2), np.float32)
    for i, row in enumerate((0, 2)):
        want[i, 0, row, 0] = want[i, 1, row, 1] = 1
    np.testing.assert_array_equal(tape.jacobian(rows, table, experimental_use_pfor=pfor).numpy(), want)


@pytest.mark.parametrize(("target", "source"), [((), ()), ((3,), ()), ((), (2, 3)), ((2, 3), (4,)), ((1, 2), (2, 1, 3))])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@leakless
def test_shape_is_targets_then_sources(target, source, dtype):
    x = jg.Variable(np.arange(1.0, 1 + np.prod(source, dtype=int)).reshape(source), dtype=dtype)
    weights = jg.constant(np.arange(np.prod(target, dtype=int)).reshape(target), dtype=dtype)
    with jg.GradientTape() as tape:
        y = jg.sum(x * x) * weights
    j = tape.jacobian(y, x)
    assert (j.shape, j.dtype.name) == (target + source, dtype)
    np.testing.assert_allclose(j.numpy(), np.multiply.outer(weights.numpy(), 2 * x.numpy()))


@leakless
def test_sources_in_a_nest():
    x, w = jg.constant([1.0, 2.0]), jg.constant(3.0)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch([x, w])
        y = x * w
    found = numbers(tape.jacobian(y, {"x": x, "rest": (w, [x, y])}))
    wide = [[3.0, 0.0], [0.0, 3.0]]
    assert found == {"x": wide, "rest": ([1.0, 2.0], [wide, [[1.0, 0.0], [0.0, 1.0]]])}


@leakless
def test_target_that_is_the_source():
    x, v = jg.constant([1.0, 2.0]), jg.Variable([1.0, 2.0])
    eye = [[1.0, 0.0], [0.0, 1.0]]
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = x * v
    assert numbers(tape.jacobian(x, [x, v])) == [eye, None]
    assert numbers(tape.jacobian(v, [x, v])) == [None, eye]
    assert numbers(tape.jacobian(y, y)) == eye


@leakless
def test_variable_assigned_between_reads():
    v = jg.Variable([1.0, 2.0])
    with jg.GradientTape() as tape:
        y = v * v
        v.assign([3.0, 4.0])
        z = y * v
    assert numbers(tape.jacobian(z, v)) == [[7.0, 0.0], [0.0, 20.0]]


@leakless
def test_jacobian_through_a_custom_gradient():
    @jg.custom_gradient
    def f(x):
        return x * x, lambda dy: dy * 7.0

    x = jg.constant([2.0, 3.0])
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = f(x) * x
    assert numbers(tape.jacobian(y, x)) == [[18.0, 0.0], [0.0, 30.0]]


@leakless
def test_unconnected_jacobian():
    x, w = jg.constant([1.0, 2.0]), jg.constant(np.ones((2, 1)))
    with jg.GradientTape(persistent=True) as tape:
        tape.watch([x, w])
        y = x * x
    assert numbers(tape.jacobian(y, w)) is None
    zeros = tape.jacobian(y, [w, x], unconnected_gradients="zero")
    assert (zeros[0].shape, zeros[0].dtype.name, float(jg.sum(zeros[0]))) == ((2, 2, 1), "float64", 0.0)
    assert numbers(zeros[1]) == [[2.0, 0.0], [0.0, 4.0]]


@leakless
def test_integers_have_no_jacobian():
    n, x = jg.constant([1, 2]), jg.constant([1.0, 2.0])
    with jg.GradientTape(persistent=True) as tape:
        tape.watch([n, x])
        y, z = n * n, x * x
    assert [tape.jacobian(z, n), tape.jacobian(y, n), tape.jacobian(y, x)] == [None] * 3


@expresses("JacobianTest.test_empty_tensor_consistent_jacobian")
@each_way
@leakless
def test_jacobians_of_empty_tensors(pfor):
    for shape in [(0,), (0, 3), (3, 0), (2, 0, 2)]:
        x = jg.zeros(shape)
        with jg.GradientTape(persistent=True) as tape:
            tape.watch(x)
            y, s = x * x, jg.sum(x * x)
        assert tape.jacobian(y, x, experimental_use_pfor=pfor).shape == shape + shape
        assert tape.jacobian(s, x, experimental_use_pfor=pfor).shape == shape
        if len(shape) > 1:
            found = tape.batch_jacobian(y, x, experimental_use_pfor=pfor)
            assert found.shape == shape + shape[1:]


def square_batch(x, pfor):
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = x ** 2
    return tape.batch_jacobian(y, x, experimental_use_pfor=pfor)


@expresses("BatchJacobianTest.test_degenerate_shape")
@each_way
@leakless
def test_batch_of_nothing(pfor):
    assert square_batch(jg.zeros((1, 0)), pfor).shape == (1, 0, 0)


@leakless
def test_batch_of_nothing_in_a_function():
    assert jg.function(square_batch)(jg.zeros((1, 0)), True).shape == (1, 0, 0)


@expresses("BatchJacobianTest.test_zeros_type_correct")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_way
@leakless
def test_batch_jacobian_is_zeros_where_unconnected(dtype, pfor):
    x, y = jg.ones((3, 2), dtype=dtype), jg.ones((3, 4), dtype=dtype)
    with jg.GradientTape(persistent=True) as tape:
        tape.watch([x, y])
        connected, other = x * x, y * y
        flat = jg.zeros((3, 2), dtype=dtype)
    for target, shape in ((other, (3, 4, 2)), (flat, (3, 2, 2))):
        for how in ("none", "zero"):
            found = tape.batch_jacobian(target, x, unconnected_gradients=how, experimental_use_pfor=pfor)
            assert (found.shape, found.dtype.name, float(jg.sum(jg.abs(found)))) == (shape, dtype, 0.0)
    assert tape.batch_jacobian(connected, x, experimental_use_pfor=pfor).dtype.name == dtype


@expresses("BatchJacobianTest.test_strided_slice")
@each_way
@leakless
def test_batch_jacobian_of_a_slice_with_an_end_from_data(pfor):
    x, lengths = jg.constant([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), jg.constant([1, 2])
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        twice = jg.reshape(jg.stack([x, x], axis=2), (2, 6))         # each element repeated
        y = twice[:, :jg.max(lengths)] * 2.0
    want = [[[2.0, 0.0, 0.0], [2.0, 0.0, 0.0]]] * 2
    assert numbers(tape.batch_jacobian(y, x, experimental_use_pfor=pfor)) == want


@leakless
def test_batch_jacobian_of_higher_rank_and_of_a_variable():
    v = jg.Variable(np.arange(12.0).reshape(2, 3, 2))
    with jg.GradientTape(persistent=True) as tape:
        y = jg.sum(v * v, axis=2)
    found, whole = tape.batch_jacobian(y, v), tape.jacobian(y, v)
    assert (found.shape, whole.shape) == ((2, 3, 3, 2), (2, 3, 2, 3, 2))
    np.testing.assert_array_equal(found.numpy(), np.einsum("bxbyz->bxyz", whole.numpy()))


@expresses("BatchJacobianTest.testBadShape")
@leakless
def test_batches_of_different_length():
    x = jg.ones((2, 3))
    with jg.GradientTape() as tape:
        y = jg.concat([x, x], axis=0)
    with pytest.raises(ValueError, match=r"Need first dimension of target shape \(\(4, 3\)\) and source shape "
                                         r"\(\(2, 3\)\) to match\."):
        tape.batch_jacobian(y, x)


@expresses("BatchJacobianTest.testBadInputRank", "BatchJacobianTest.testBadOutputRank")
@pytest.mark.parametrize(("target", "source"), [((2, 2), (2,)), ((2,), (2, 2)), ((), ())])
@leakless
def test_batch_jacobian_of_too_few_axes(target, source):
    x = jg.ones(source)
    with jg.GradientTape() as tape:
        y = jg.ones(target)
    with pytest.raises(ValueError, match="must have rank at least 2"):
        tape.batch_jacobian(y, x)


@leakless
def test_what_is_not_one_tensor():
    x = jg.Variable([[1.0, 2.0]])
    with jg.GradientTape(persistent=True) as tape:
        y = x * x
    for target in ([y, y], 3.0, None):
        with pytest.raises(ValueError, match="one Tensor"):
            tape.jacobian(target, x)
    for target, source in [(y, [x]), ([y], x), (y, 2.0)]:
        with pytest.raises(ValueError, match="one Tensor each"):
            tape.batch_jacobian(target, source)
    with pytest.raises(ValueError, match="sources Tensors or Variables"):
        tape.jacobian(y, [x, 3.0])


# ---- where somebody records ----------------------------------------------------------------------

def whole(x):
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = jg.sin(x) * x[0, 1]
    return tape.jacobian(y, x)


def per_example(x):
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = jg.cumulative_sum(jg.sin(x) * x[:, :1], axis=1)
    return tape.batch_jacobian(y, x)


@pytest.mark.parametrize("f", [whole, per_example])
@leakless
def test_jacobians_replay(f):
    """The compiled loop of the plain case leaves no rows, so a recording must go another way."""
    g, x = jg.function(f), jg.constant([[1.0, 2.0, 3.0], [0.5, 0.2, 0.1]], "float64")
    for k in (1.0, 1.0, 2.0, 3.0):
        np.testing.assert_allclose(g(x * k).numpy(), f(x * k).numpy(), rtol=1e-12)
    assert g.cache_info().hits == 3


@pytest.mark.parametrize("f", [whole, per_example])
@leakless
def test_jacobians_in_control_flow_and_transforms(f):
    x = jg.constant([[1.0, 2.0, 3.0], [0.5, 0.2, 0.1]], "float64")
    many = jg.stack([x, x * 2.0])
    each = np.stack([f(many[0]).numpy(), f(many[1]).numpy()])
    np.testing.assert_allclose(jg.vmap(f)(many).numpy(), each, rtol=1e-12)
    np.testing.assert_allclose(jg.scan(lambda c, t: (c, f(t)), 0.0, many)[1].numpy(), each, rtol=1e-12)
    np.testing.assert_allclose(jg.cond(x[0, 0] > 0, f, lambda t: f(t) * 0.0, x).numpy(), each[0], rtol=1e-12)
    step = np.zeros(x.shape)
    step[0, 1] = 1e-6
    slope = (f(x + step).numpy() - f(x - step).numpy()) / 2e-6
    np.testing.assert_allclose(jg.jvp(f, (x,), (jg.constant(step * 1e6),))[1].numpy(), slope, atol=1e-8)
    with jg.GradientTape() as outer:
        outer.watch(x)
        j = f(x)
    assert len(re.findall(r"^ {,7}%\d+ +call", outer.show(), re.M)) == 1             # one row, not one an element
    np.testing.assert_allclose(outer.jacobian(j, x).numpy()[..., 0, 1], slope, atol=1e-8)
