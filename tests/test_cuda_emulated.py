"""The emulator of a GPU finds faults, and what a recorded function asks of the driver is counted (see emulator/)."""

from __future__ import annotations

import gc
import os
import re
import threading

import numpy as np
import pytest

import jitgrad as jg
from emulator import plugin
from jitgrad.execute.cuda import kernel, memory, stream

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not os.environ.get("JITGRAD_EMULATOR"), reason="python tests/emulator")]

FLOAT32, INT64 = np.dtype(np.float32), np.dtype(np.int64)


@pytest.fixture
def gpu():
    return stream.driver()


def on(array, dtype=np.float32):
    return jg.constant(np.asarray(array, dtype), device="cuda")


def launch(lines, *tensors, words=(), blocks=1, threads=32, pointers=None, done=True):
    """A kernel of pointers x, y... to float32 and words n, m..., on whole tensors."""
    made = kernel.kernel("tried", lines, pointers or [FLOAT32] * len(tensors), [*"xyz"[:len(tensors)], *"nm"[:len(words)]])
    gpu = stream.driver()
    gpu.launch(made, [(t._owner.base, t._number) for t in tensors], words, blocks, threads)
    if done:
        gpu.sync()


SHIFT = ["shared = cuda.shared.array(64, f4)", "i = cuda.threadIdx.x", "shared[i] = x[i]", "cuda.syncthreads()",
         "y[i] = shared[(i + 1) % 64]"]


def test_threads_meet_at_barriers():
    x, y = on(range(64)), on(np.zeros(64))
    launch(SHIFT, x, y, threads=64)
    np.testing.assert_array_equal(y.numpy(), np.roll(np.arange(64), -1))


@pytest.mark.parametrize(("lines", "says"), [
    ([line for line in SHIFT if "sync" not in line], r"no barrier is between this access to shared memory and what"),
    ([*SHIFT, "shared[i] = 0"], r"no barrier .* what (others read|thread \d+ wrote) there"),
    (["if cuda.threadIdx.x < 40:", "    cuda.syncthreads()", "y[0] = x[0]"], "it ended, or waits, where others do not"),
    (["if cuda.threadIdx.x < 40:", "    cuda.syncthreads()", "else:", "    y[1] = 1", "    cuda.syncthreads()"],
     "waits at another barrier"),
    (["y[cuda.threadIdx.x + 1] = x[0]"], r"kernel tried, block 0 of 1, thread 63 of 64: an access of 4 bytes at 0x\w+, "
                                         r"outside of all memory that is allocated \(PTX line \d+: st\.global\.f32 "),
    (["y[0] = x[-1]"], "outside of all memory"),
    (["shared = cuda.shared.array(64, f4)", "shared[cuda.threadIdx.x + i8(x[5])] = 1"], "outside of the block's shared memory"),
    (["y[0] = sdiv(i8(7), i8(x[0]))"], "division by zero")],
    ids=["no barrier", "none before a write", "some end", "two barriers", "behind", "before", "shared", "division"])
def test_what_a_kernel_may_not_do(lines, says):
    x, y = on(range(64)), on(np.zeros(64))
    with pytest.raises(RuntimeError, match="work on the GPU failed"):
        launch(lines, x, y, threads=64)
    with pytest.raises(RuntimeError):                # nothing works from then on
        y.numpy()
    said = plugin.complaints()
    assert re.search(says, said), said


def test_memory_that_was_freed_is_not_read(gpu):
    base, keeper = gpu.allocate(256)
    gpu.fill(base, 0, 256)
    gpu.sync()
    del keeper
    gc.collect()
    with pytest.raises(RuntimeError, match="work on the GPU failed"):
        gpu.download(base, 0, np.empty(4, np.float32))
    assert "a download outside of all memory that is allocated" in plugin.complaints()


def test_fresh_memory_is_junk():
    x = memory.empty(1 << 20)
    assert set(memory.downloaded(x, 0, (1 << 18,), np.dtype(np.uint32))) == {0xC5C5C5C5}


def test_nothing_is_done_before_somebody_waits(gpu):
    x = on([1.0])
    gpu.sync()
    launch(["x[0] = 5"], x, done=False)
    got = np.zeros(1, np.float32)
    assert gpu._calls.cuMemcpyDtoHAsync(got.ctypes.data, x._owner.base, 4, gpu.handle)[0] == 0
    assert got == 0.0
    gpu.sync()
    assert got == 5.0


def test_memory_ends(gpu):
    gc.collect()
    memory._give_back()                              # what tests before this one left
    gpu.sync()
    with plugin.room(64 << 20):
        held = [memory.empty(16 << 20) for _ in range(3)]
        with pytest.raises(MemoryError, match="no memory for 20971520 bytes on the GPU"):
            memory.empty(20 << 20)
        del held
        memory.empty(20 << 20)


# ---- recording -------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("call", "says"), [
    (lambda gpu, x: gpu.upload(x.base, 0, np.ones(1)), "cuMemcpyHtoDAsync"),
    (lambda gpu, x: gpu.download(x.base, 0, np.ones(1)), "cuMemcpyDtoHAsync"),
    (lambda gpu, x: gpu._calls.cuCtxSynchronize(), "cuCtxSynchronize"),
    (lambda gpu, x: launch(["x[0] = 1234"], on([1.0])), "cuMemcpyHtoDAsync")], ids=["upload", "download", "sync", "load"])
def test_what_a_recording_may_not_do(gpu, call, says):
    x = memory.empty(256)
    with pytest.raises(RuntimeError, match="cannot be recorded"):
        gpu.record(lambda: call(gpu, x))
    assert f"{says} while a stream captures" in plugin.complaints()
    gpu.record(lambda: gpu.fill(x.base, 0, 4)).launch()
    assert memory.downloaded(x, 0, (1,), INT64).tolist() == [-0x3a3a3a3b00000000]


def test_a_library_is_not_loaded_while_a_stream_captures(gpu):
    x = on([1.0])
    with pytest.raises(RuntimeError, match="cannot be recorded"):
        gpu.record(lambda: launch(["x[0] = 4321"], x, done=False))
    assert "cuLibraryLoadData while a stream captures" in plugin.complaints()


def test_the_stream_that_captures_is_not_waited_for(gpu):
    with pytest.raises(RuntimeError, match="cannot be recorded"):
        gpu.record(lambda: gpu._calls.cuStreamSynchronize(gpu._now()[1]))
    assert "a stream is waited for while it captures" in plugin.complaints()


def test_a_thread_sets_its_context(gpu):
    found = []
    thread = threading.Thread(target=lambda: found.extend(gpu._calls.cuMemGetInfo()))
    thread.start()
    thread.join()
    assert "CONTEXT" in found[0].name and "cuMemGetInfo: its thread has set no context" in plugin.complaints()


def test_functions_that_are_not_there_say_so(gpu):
    assert gpu._calls.cuProfilerStart()[0] != 0
    assert plugin.complaints() == "cuProfilerStart is not emulated\n"


def test_a_full_gpu_is_told_and_functions_go_on_afterwards(gpu):
    x, v = on(np.ones(1 << 13)), jg.Variable(np.zeros(1 << 13, np.float32), device="cuda")

    @jg.function
    def step(x):
        v.assign_add(x)
        return jg.cumulative_sum(x)
    for _ in range(4):
        step(x)
    held = []
    with plugin.room(1 << 17):
        with pytest.raises(MemoryError, match=r"no memory for 32768 bytes on the GPU: CUDA_ERROR_OUT_OF_MEMORY \(at"):
            while True:
                held.append(x * 2.0)
        for call in step, jg.sort:
            with pytest.raises(MemoryError):
                call(x)
        assert float(v[0]) == 4.0 and float(jg.sum(x)) == 1 << 13
        held.clear()
    for n in range(5, 9):
        assert float(step(x)[-1]) == 1 << 13 and float(v[0]) == n


# ---- what is asked for -----------------------------------------------------------------------------------

def test_a_replay_is_one_graph():
    f, x = jg.function(lambda x: jg.sum(jg.sin(x) * x, keepdims=True)), on([1, 2, 3])
    for _ in range(4):
        f(x)
    before = plugin.counts()
    for _ in range(5):
        f(x)
    asked = plugin.Counts(*(a - b for a, b in zip(plugin.counts(), before, strict=True)))
    assert asked == plugin.Counts(0, 5, 0, 0, 0, 0, 0)


def test_products_are_asked_of_cublas():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 5, 4)).astype(np.float32), rng.normal(size=(3, 4, 6)).astype(np.float32)
    before = plugin.counts().products
    np.testing.assert_allclose((on(x) @ on(y)).numpy(), x @ y, 1e-5)
    assert plugin.counts().products == before + 1
