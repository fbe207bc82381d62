"""Devices where there is no GPU: the CPU by name, and what is said of one that is not there."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.execute.cuda import stream

alone = pytest.mark.skipif("cuda" in jg.devices(), reason="there is a GPU")
MAKERS = [lambda **k: jg.asarray([1.0], **k), lambda **k: jg.constant(1.0, **k), lambda **k: jg.zeros((2,), **k),
          lambda **k: jg.ones((2,), **k), lambda **k: jg.full((2,), 3, **k), lambda **k: jg.arange(3, **k),
          lambda **k: jg.linspace(0, 1, 3, **k), lambda **k: jg.eye(2, **k), lambda **k: jg.zeros_like(1.0, **k),
          lambda **k: jg.ones_like([1.0], **k), lambda **k: jg.Variable([1.0], **k),
          lambda **k: jg.from_dlpack(np.ones(2), **k)]


@pytest.mark.parametrize("make", MAKERS)
def test_the_cpu_can_be_asked_for_everywhere(make):
    for name in ("cpu", "CPU:0", jg.device("cpu")):
        made = make(device=name)
        assert made.device == "cpu" == jg.device("cpu") and made.to_device(name).device == "cpu"
    with jg.device("cpu"), jg.device("cpu"):
        np.testing.assert_array_equal(make().numpy(), make(device="cpu").numpy())
    with pytest.raises(ValueError, match=r"device: there are 'cpu' and 'cuda', got 'tpu' \(at .*test_devices"):
        make(device="tpu")
    with pytest.raises(ValueError, match='a process uses one cuda device, "cuda:0", got \'cuda:1\'; CUDA_VISIBLE_DEVICES'):
        make(device="cuda:1")


@alone
@pytest.mark.parametrize("make", MAKERS)
def test_a_gpu_that_is_not_there_says_what_is_missing(make):
    assert jg.devices() == ["cpu"] and stream.problem()
    with pytest.raises(RuntimeError, match="there is no device cuda here: .*(not installed|driver)") as error:
        make(device="cuda")
    assert stream.problem() in str(error.value) and "test_devices.py" in str(error.value)


@alone
def test_moves_and_blocks_say_it_too():
    x = jg.constant([1.0, 2.0])
    with pytest.raises(RuntimeError, match="there is no device cuda here"):
        x.to_device("cuda")
    with pytest.raises(RuntimeError, match="there is no device cuda here"), jg.device("cuda"):
        raise AssertionError
    assert jg.constant(1.0).device == "cpu" and x.device != jg.device("cuda")
    assert not hasattr(x, "__cuda_array_interface__")


def test_a_move_to_where_it_is():
    x = jg.constant([1.0, 2.0])
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = jg.sum(x.to_device("cpu") ** 2)
    assert x.to_device("cpu") is x and tape.gradient(y, x).numpy().tolist() == [2.0, 4.0]
    with pytest.raises(ValueError, match="stream must be None"):
        x.to_device("cpu", stream=1)


def test_dlpack_of_the_cpu():
    x = jg.constant([[1.0, 2.0]])
    assert x.__dlpack_device__() == (1, 0)
    np.testing.assert_array_equal(np.from_dlpack(x), x.numpy())
    got = jg.from_dlpack(np.arange(6).reshape(2, 3).T)
    np.testing.assert_array_equal(got.numpy(), np.arange(6).reshape(2, 3).T)
    with pytest.raises(ValueError, match="copy=False cannot be"):
        jg.from_dlpack(np.ones(2), copy=False)
    with pytest.raises(TypeError, match="list has no __dlpack__"):
        jg.from_dlpack([1.0])


def test_nothing_of_nvidias_is_imported_before_it_is_needed():
    code = "import sys, jitgrad as jg; jg.constant(1.0) + 1; sys.exit(any(m.split('.')[0] in ('cuda', 'numba_cuda') " \
           "for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == 0
