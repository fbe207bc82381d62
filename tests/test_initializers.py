"""Initializers: Keras's spread, repetition, and what they make."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg
from jitgrad import nn

L = nn.layers


@pytest.mark.parametrize(("name", "stddev", "limit"), [
    ("glorot_uniform", (2 / 300) ** 0.5, (6 / 300) ** 0.5), ("glorot_normal", (2 / 300) ** 0.5, 2 * (2 / 300) ** 0.5 / 0.8796),
    ("he_uniform", (2 / 200) ** 0.5, (6 / 200) ** 0.5), ("he_normal", (2 / 200) ** 0.5, 2 * (2 / 200) ** 0.5 / 0.8796),
    ("lecun_normal", (1 / 200) ** 0.5, 2 * (1 / 200) ** 0.5 / 0.8796), ("random_normal", 0.05, 1.0),
    ("random_uniform", 0.1 / 12**0.5, 0.05), ("zeros", 0.0, 0.0)])
def test_initializers_have_keras_spread(name: str, stddev: float, limit: float) -> None:
    jg.random.set_seed(0)
    w = nn.initializers.get(name)((200, 100)).numpy()
    np.testing.assert_allclose(w.std(), stddev, rtol=0.02)
    assert np.abs(w).max() <= limit * 1.0001 and abs(w.mean()) <= 0.02 * stddev


def test_initializers_repeat_with_a_seed_and_say_the_names() -> None:
    first, again = nn.initializers.GlorotUniform(seed=4), nn.initializers.GlorotUniform(seed=4)
    np.testing.assert_array_equal(first((3, 4)).numpy(), again((3, 4)).numpy())
    np.testing.assert_array_equal(nn.initializers.Constant([1.0, 2.0])((3, 2)).numpy(), [[1, 2]] * 3)
    with pytest.raises(ValueError, match="glorot_uniform.*zeros"):
        L.Dense(2, kernel_initializer="nonsense")
    with pytest.raises(ValueError, match="relu.*tanh"):
        L.Dense(2, activation="nonsense")


def test_truncated_normal_keeps_within_two() -> None:
    w = nn.initializers.TruncatedNormal(1.0, 0.5, seed=2)((300, 40)).numpy()
    assert w.dtype == np.float32 and w.min() >= 0.0 and w.max() <= 2.0
    np.testing.assert_allclose([w.mean(), w.std()], [1.0, 0.5 * 0.8796], rtol=0.02)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 2, 5)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    w = nn.initializers.Orthogonal(gain=2.0, seed=3)(shape, "float64").numpy().reshape(-1, shape[-1])
    small = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    np.testing.assert_allclose(small, 4.0 * np.eye(len(small)), atol=1e-14)
    with pytest.raises(ValueError, match="needs at least two axes"):
        nn.initializers.Orthogonal()((3,))


def test_identity() -> None:
    np.testing.assert_array_equal(nn.initializers.get("identity")((2, 3)).numpy(), np.eye(2, 3))
    with pytest.raises(ValueError, match=r"Identity: makes matrices, not shape \(3,\)"):
        nn.initializers.Identity()((3,))
