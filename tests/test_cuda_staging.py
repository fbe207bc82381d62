"""Pinned memory in two halves: what was put there stays until it has been read."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from jitgrad.execute.cuda.staging import HALF, Staging


class Reader:
    """A stream that reads late: each copy when it is waited for."""

    def __init__(self):
        self.memory = ctypes.create_string_buffer(2 * HALF)
        self.staging = Staging(ctypes.addressof(self.memory), self.mark)
        self.asked, self.read, self.waited = [], [], 0

    def put(self, array):
        self.asked.append((self.staging.copied(array), array.nbytes))

    def mark(self):
        count = len(self.asked)

        def wait():
            self.waited += 1
            self.catch_up(count)
        return wait

    def catch_up(self, count):
        self.read += [ctypes.string_at(*asked) for asked in self.asked[len(self.read): count]]


def test_nothing_is_overwritten_before_it_is_read(rng):
    reader = Reader()
    arrays = [rng.integers(0, 256, n, np.uint8) for n in [HALF, 1, HALF, *rng.integers(1, HALF // 3, 40)]]
    for array in arrays:
        reader.put(array)
    reader.catch_up(len(arrays))
    assert reader.read == [a.tobytes() for a in arrays]
    assert 3 < reader.waited < 20


def test_small_arrays_are_waited_for_by_nobody():
    reader = Reader()
    for k in range(1000):
        reader.put(np.full(3, k))
    assert not reader.waited


def test_what_waits_to_be_read_outlives_an_interrupt():
    reader, arrays = Reader(), [np.full(HALF, k, np.uint8) for k in range(4)]
    for array in arrays[:2]:
        reader.put(array)
    catch_up = reader.catch_up

    def interrupted(count):
        reader.catch_up = catch_up
        raise KeyboardInterrupt
    reader.catch_up = interrupted
    with pytest.raises(KeyboardInterrupt):
        reader.put(arrays[2])
    for array in arrays[2:]:
        reader.put(array)
    reader.catch_up(4)
    assert reader.read == [a.tobytes() for a in arrays]
