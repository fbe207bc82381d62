"""NumPy and memoryview over a Tensor's memory."""

import numpy as np
import pytest

import jitgrad as jg
from tapes import census


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "bool"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,), (2, 0, 3), (1, 2, 3, 4)])
def test_typed_and_shaped(dtype, shape):
    a = (np.arange(int(np.prod(shape))) % 2).reshape(shape).astype(dtype)
    for t in (jg.constant(a), jg.Variable(a)):
        for b in (np.asarray(t), np.array(t), t.numpy()):
            assert (b.dtype, b.shape) == (a.dtype, shape)
            np.testing.assert_array_equal(b, a)
        assert not t.numpy().flags.writeable and np.array(t).flags.writeable
    view = memoryview(jg.constant(a))
    assert (view.shape, view.itemsize, view.readonly, view.tobytes()) == (shape, a.itemsize, True, a.tobytes())


def test_functions_of_numpy_see_numbers():
    t = jg.constant([[1.0, 2.0], [3.0, 4.0]])
    assert np.mean(t, axis=0).tolist() == [2.0, 3.0]
    assert np.where(t > 2, t, 0).tolist() == [[0.0, 0.0], [3.0, 4.0]]
    assert np.asarray(t, np.float64).dtype == np.float64
    assert np.stack([t, t]).shape == (2, 2, 2)


def test_a_view_keeps_the_memory_and_lets_go_of_it():
    start = census()["Tensor"]
    b = np.asarray(jg.constant([2.0, 4.0]))
    assert b.tolist() == [2.0, 4.0]
    assert census()["Tensor"] == start + 1
    del b
    assert census()["Tensor"] == start
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(jg.constant([1.0]))[0] = 2.0
