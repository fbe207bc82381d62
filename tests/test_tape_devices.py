"""Tests of TensorFlow's about devices, on a GPU or, in a process of its own, on the simulator of one."""

import pytest

import jitgrad as jg
from tape_omissions import expresses

pytestmark = pytest.mark.skipif("cuda" not in jg.devices(), reason="no GPU here")


@expresses("testGPU")
def test_sum_on_a_gpu():
    x = jg.constant(1.0)
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = (x.to_device("gpu") + 2.0 + 3.0).to_device("cpu")
    assert float(tape.gradient(y, x)) == 1.0


@expresses("testGPUImplicitGrad")
def test_variable_read_on_a_gpu():
    v = jg.Variable(jg.constant(1.0).to_device("gpu"))
    with jg.GradientTape() as tape:
        y = v.read_value()
    assert float(tape.gradient(y, v).to_device("cpu")) == 1.0


@expresses("testTensorCopyGPU2CPU2GPU")
def test_copies_from_a_gpu_and_back():
    a, b = jg.constant(1.0).to_device("gpu"), jg.constant(2.0).to_device("gpu")
    with jg.GradientTape() as tape:
        tape.watch(a)
        y = a.to_device("cpu") + b.to_device("cpu")
    assert float(tape.gradient(y, a).to_device("cpu")) == 1.0


@expresses("testTensorCopyCPU2GPU2CPU")
def test_copies_to_a_gpu_and_back():
    a, b = jg.constant(1.0), jg.constant(2.0)
    with jg.GradientTape() as tape:
        tape.watch(a)
        y = (a.to_device("gpu") + b.to_device("gpu")).to_device("cpu") + 3.0
    assert float(tape.gradient(y, a)) == 1.0
