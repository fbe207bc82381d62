"""Nobody waits for error codes that cannot be left: downloads are counted."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

import jitgrad as jg
from cuda_here import RUNS
from jitgrad import nn
from jitgrad.execute.cuda import stream

pytestmark = RUNS
RNG = np.random.default_rng(3)
IMAGES, LABELS = RNG.normal(size=(6, 4, 5)).astype(np.float32), RNG.integers(0, 3, (6, 4))


def there(x):
    return jg.constant(np.asarray(x), device="cuda")


@pytest.fixture
def waited(monkeypatch):
    """Downloads, which wait for the GPU."""
    gpu = stream.driver()
    monkeypatch.setattr(gpu, "download", mock.Mock(wraps=gpu.download))
    return gpu.download


def trainer(change=lambda labels: labels):
    model = nn.Sequential([nn.layers.Dense(4, "tanh"), nn.layers.Dense(3)])
    model(there(IMAGES[0]))
    optimizer, losses = nn.optimizers.SGD(0.1), nn.losses.SparseCategoricalCrossentropy(from_logits=True)

    @jg.function
    def step(x, y):
        with jg.GradientTape() as tape:
            loss = losses(change(y), model(x))
        optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables,
                                      strict=True))
        return loss
    return step, model


def test_steps_with_labels_from_the_cpu_are_not_waited_for(waited):
    step, model = trainer()
    waited.reset_mock()
    for x, y in zip(IMAGES, LABELS, strict=True):
        step(there(x), there(y))
    assert step.cache_info().hits == 5 and not waited.called
    before = [v.numpy() for v in model.trainable_variables]
    waited.reset_mock()
    for wrong in (3, -1):
        with pytest.raises(ValueError, match=r"label outside the valid range of \[0, 3\)"):
            step(there(IMAGES[0]), there([0, 1, wrong, 2]))
        assert waited.called
    for v, b in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(v.numpy(), b)


def test_labels_that_were_computed_are(waited):
    step, _ = trainer(lambda labels: (labels + 1) % 3)
    waited.reset_mock()
    for x, y in zip(IMAGES, LABELS, strict=True):
        step(there(x), there(y))
    assert step.cache_info().hits == 5 and waited.call_count >= 6


def test_batches_picked_at_random_positions(waited):
    images, labels = there(IMAGES.reshape(24, 5)), there(LABELS.reshape(24))
    step, _ = trainer()
    waited.reset_mock()

    @jg.function
    def batch(order, k):
        at = order[4 * k: 4 * k + 4]
        return jg.take(images, at, axis=0), jg.take(labels, at, axis=0)
    for _ in range(2):
        with jg.device("cuda"):
            order = jg.random.permutation(24)
        for k in range(6):
            step(*batch(order, k))
    assert step.cache_info().hits == 11 and not waited.called


def test_rounds_of_a_scan(waited):
    table, labels = there(RNG.normal(size=(3, 2)).astype(np.float32)), there(LABELS)

    @jg.function
    def f(rows):
        return jg.scan(lambda carry, row: (carry + jg.take(table, row, axis=0), None), jg.zeros((4, 2), device="cuda"), rows)[0]
    found = [f(labels) for _ in range(3)]
    assert not waited.called
    np.testing.assert_allclose(found[-1].numpy(), table.numpy()[LABELS].sum(0), rtol=1e-5)
    with pytest.raises(IndexError, match="out of range"):
        f(there(LABELS + 1))


def test_nothing_is_known_of_memory_that_others_may_write():
    x = there(LABELS)
    assert x._owner.span == (0, 3)
    found = x.__cuda_array_interface__
    assert x._owner.span is None
    assert jg.asarray(type("Other", (), {"__cuda_array_interface__": found, "keeps": x})())._owner.span is None


def test_indices_that_others_wrote_are_looked_at():
    x, table = there([0, 1, 2]), there(np.arange(3.0))
    assert x.__cuda_array_interface__["data"][0] == x._owner.address
    stream.driver().upload(x._owner.base, 0, np.array([0, 7, 9]))
    for look in (jg.take, jg.function(jg.take)):
        for _ in range(2):
            with pytest.raises(IndexError, match="out of range"):
                look(table, x, axis=0)
