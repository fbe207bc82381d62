"""Large blocks are used again when their Tensor is gone, and only then; what is kept is bounded."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import jitgrad as jg

N = 50_000


def large(value, n=N):
    return jg.full((n,), float(value), "float64")


def test_memory_of_a_dead_tensor_is_used_again():
    x = large(1)
    y = x + 1.0
    at = y._data
    del y
    assert (x * 2.0)._data == at
    assert large(3, N - 50)._data == at, "a block may be a little larger than what is asked"
    assert large(3, N // 2)._data != at


def test_what_is_still_looked_at_is_not():
    x = large(1)
    y = x + 1.0
    seen, at = y.numpy(), y._data
    view = jg.reshape(y, (N // 2, 2))
    del y
    others = [x * float(k) for k in range(8)]
    assert at not in [t._data for t in others]
    assert (seen == 2.0).all() and (view.numpy() == 2.0).all()
    del seen, view
    assert at in [(x * 9.0)._data, *(t._data for t in others)]


def test_saved_values_of_a_tape_are_not():
    v = jg.Variable(np.full(N, 0.5))
    with jg.GradientTape() as tape:
        y = jg.sum(jg.exp(v) * v)
    for _ in range(5):
        large(7) + large(8)
    np.testing.assert_allclose(tape.gradient(y, v).numpy(), np.exp(0.5) * 1.5)


def test_odd_sizes_around_the_limit_of_pooling():
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(400):
        n = int(rng.choice([8183, 8184, 8185, 8191, 8192, 8193, 9000, 20_000, 60_000])) + int(rng.integers(-2, 3))
        kept.append((float(n), large(n, n) + 0.0))
        if len(kept) > 6:
            del kept[int(rng.integers(len(kept)))]
        for value, t in kept:
            assert t.numpy()[[0, -1]].tolist() == [value, value]


def test_threads_share_the_pool():
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(60):
            n = int(rng.choice([10_000, 70_000, 200_000]))
            x = large(seed, n)
            if (((x * 2.0) + x).numpy() != 3.0 * seed).any():
                wrong.append((seed, n))
    threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 9)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


LIMIT = """
import jitgrad as jg
from jitgrad.execute.cpu import layout, types
def held():
    return types.get_state(layout.S_POOL_HELD), types.get_state(layout.S_POOL_COUNT)
most = 0
for k in range(300):
    kept = [jg.zeros((20_000 + 3_000 * ((k * j) % 29),)) + 1.0 for j in range(5)]
    del kept
    most = max(most, held()[0])
    assert held()[1] <= layout.POOL_BLOCKS
x = jg.zeros((10_000_000,)) + 1.0
del x
print(most, held()[0])
"""


@pytest.mark.parametrize("megabytes", ["0", "1", "256", "nonsense"])
def test_what_is_kept_is_bounded(megabytes):
    done = subprocess.run([sys.executable, "-c", LIMIT], capture_output=True, text=True, check=True,
                          env={**os.environ, "JITGRAD_POOL_MB": megabytes})
    most, at_last = map(int, done.stdout.split())
    limit = 256 << 20 if megabytes == "nonsense" else int(megabytes) << 20
    assert most <= limit and at_last <= limit
    assert (most > 0) == (limit > 0)


LATE = """
import sys
import numpy as np
import jitgrad as jg
v = jg.Variable(np.ones(70_000))
f = jg.function(lambda x: x * v)
with jg.GradientTape(persistent=True) as tape:
    y = f(np.ones(70_000))
sys.kept = [v, f, tape, y, jg.exp, tape.gradient, [y + float(i) for i in range(100)]]     # sys goes last
"""


def test_what_dies_after_the_modules_still_finds_its_memory():
    unmapped = {"MALLOC_MMAP_THRESHOLD_": "512", "MALLOC_MMAP_MAX_": "60000"}    # memory that was freed is gone at once
    subprocess.run([sys.executable, "-c", LATE], check=True, env={**os.environ, **unmapped})
