"""TensorFlow's names for running sums, sorting and adding at indices."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad.interop.tensorflow as tf


def test_running_sums_in_all_modes():
    x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert tf.cumsum(x).numpy().tolist() == [[1, 2, 3], [5, 7, 9]]
    assert tf.cumsum(x, axis=-1, exclusive=True).numpy().tolist() == [[0, 1, 3], [0, 4, 9]]
    assert tf.cumsum(x, axis=1, reverse=True).numpy().tolist() == [[6, 5, 3], [15, 11, 6]]
    assert tf.math.cumprod(x, axis=1, exclusive=True, reverse=True).numpy().tolist() == [[6, 3, 1], [30, 6, 1]]
    got = tf.math.cumulative_logsumexp(x, axis=1, exclusive=True).numpy()
    np.testing.assert_allclose(got[:, 1:], np.logaddexp.accumulate(x, 1)[:, :-1], rtol=1e-14)
    assert np.all(got[:, 0] == -np.inf)


def test_reductions_and_order():
    assert tf.reduce_prod([[1, 2], [3, 4]], axis=0).numpy().tolist() == [3, 8]
    assert bool(tf.reduce_any([False, True])) and not bool(tf.reduce_all([False, True]))
    assert tf.sort([2.0, 3.0, 1.0], direction="DESCENDING").numpy().tolist() == [3, 2, 1]
    order = tf.argsort([2.0, 3.0, 1.0])
    assert order.dtype == "int32" and order.numpy().tolist() == [2, 0, 1]
    values, indices = tf.math.top_k([1.0, 4.0, 3.0], k=2)
    assert values.numpy().tolist() == [4, 3] and indices.numpy().tolist() == [1, 2]
    with pytest.raises(ValueError, match="direction must be 'ASCENDING' or 'DESCENDING', got 'UP'"):
        tf.sort([1.0], direction="UP")


def test_moving():
    x = np.arange(6).reshape(2, 3)
    assert tf.reverse(x, [1]).numpy().tolist() == [[2, 1, 0], [5, 4, 3]]
    assert tf.roll(x, 1, 0).numpy().tolist() == [[3, 4, 5], [0, 1, 2]]
    assert tf.tile([1, 2], [2]).numpy().tolist() == [1, 2, 1, 2] and tf.repeat([1, 2], [0, 2]).numpy().tolist() == [2, 2]
    assert tf.pad([1, 2], [[1, 0]], "CONSTANT", 9).numpy().tolist() == [9, 1, 2]
    assert [p.shape for p in tf.split(x, [1, -1], axis=1)] == [(2, 1), (2, 2)]
    assert [p.shape for p in tf.split(x, 3, axis=1)] == [(2, 1)] * 3
    with pytest.raises(ValueError, match=r"split: sizes \[1, 1\] do not add up to the 3 elements"):
        tf.split(x, [1, 1], axis=1)
    assert tf.einsum("ij->j", x, optimize="greedy").numpy().tolist() == [3, 5, 7]
    assert tf.tensordot(x, x, [[1], [1]]).numpy().tolist() == [[5, 14], [14, 50]]
    assert [g.shape for g in tf.meshgrid([1, 2], [1, 2, 3], indexing="ij")] == [(2, 3)] * 2


def test_index_tuples():
    x = np.arange(6.0).reshape(2, 3)
    assert tf.gather_nd(x, [[0, 2], [1, 0]]).numpy().tolist() == [2, 3]
    assert tf.gather_nd(x, [[1]]).numpy().tolist() == [[3, 4, 5]]
    t = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(t)
        y = tf.reduce_sum(tf.tensor_scatter_nd_add(t, [[0, 1], [0, 1], [1, 2]], [1.0, 2.0, 3.0]) ** 2)
    want = x.copy()
    want[0, 1] += 3
    want[1, 2] += 3
    np.testing.assert_array_equal(tape.gradient(y, t).numpy(), 2 * want)
    for wrong in ([[0, 3]], [[2, 0]], [[-1, 0]]):
        with pytest.raises(IndexError, match="out of range"):
            tf.tensor_scatter_nd_add(x, wrong, [1.0])
