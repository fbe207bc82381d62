"""What the driver of a GPU does when, with a stand-in for the GPU."""

from __future__ import annotations

import gc
import os
import threading
import types

import numpy as np
import pytest

from jitgrad.execute.cuda.gpu import Gpu, told


class Device:
    """Counts what it is asked for."""

    def __init__(self):
        self.synced, self.ended = 0, 0

    def set_current(self):
        pass

    def cuCtxSynchronize(self):
        self.synced += 1
        return (0,)

    def create_graph_builder(self):
        def end():
            self.ended += 1
        return types.SimpleNamespace(begin_building=lambda mode: None, end_building=end, complete=lambda: "a graph",
                                     stream=types.SimpleNamespace(handle=5))


@pytest.fixture
def gpu():
    made = object.__new__(Gpu)
    made._device, made._threads, made._pid = Device(), threading.local(), os.getpid()
    made._calls = made._device
    made._recording, made._late, made.stream, made.handle = threading.Lock(), [], "the stream", 3
    return made


def test_nobody_waits_for_all_streams_while_one_records(gpu):
    seen = []

    def ask():
        assert gpu._now()[1] == 5 and not gc.isenabled()
        gpu.let_go("by this thread")
        other = threading.Thread(target=gpu.let_go, args=("by another",))
        other.start()
        other.join()
        seen.extend(gpu._late)
        assert gpu._device.synced == 0
    assert gpu.record(ask)[:2] == ("a graph", "the stream")
    assert seen == ["by this thread", "by another"]
    assert gpu._device.synced == 1 and not gpu._late and gc.isenabled()
    assert gpu._now() == ("the stream", 3)
    gpu.let_go("later")
    assert gpu._device.synced == 2 and not gpu._late


def test_no_finalizer_runs_while_pinned_memory_is_filled(gpu):
    """One that uploads would wait for the lock that it interrupts."""
    may_run = []
    gpu._uploading = threading.Lock()
    gpu._staging = types.SimpleNamespace(copied=lambda array: may_run.append(gc.isenabled()) or 7)
    gpu._device.cuMemcpyHtoDAsync = lambda *given: (0,)
    gpu.upload(0, 0, np.ones(3))
    assert may_run == [False] and gc.isenabled()


def test_a_recording_that_fails_ends(gpu):
    def ask():
        raise ValueError("no such kernel")
    with pytest.raises(RuntimeError, match=r"cannot be recorded: no such kernel"):
        gpu.record(ask)
    assert gpu._device.ended == 1 and gc.isenabled() and not gpu._recording.locked()
    assert gpu._now() == ("the stream", 3)


def test_errors_end_with_the_users_line():
    with pytest.raises(RuntimeError, match=r"no such thing: 'it is not there' \(at .*test_cuda_gpu\.py:\d+\)"):
        with told("no such thing"):
            raise KeyError("it is not there")
