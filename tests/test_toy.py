"""Two primitives added here and nowhere else: the whole cost of adding one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import jitgrad as jg
from jitgrad import ops
from jitgrad.core.primitive import elementwise, missing, reduction, uniform
from jitgrad.core.recorder import Recorder
from jitgrad.execute import oracle
from jitgrad.execute.cpu.plans import plan_of
from jitgrad.ops import maths, scalar
from jitgrad.transform.vjp import vjp
from table import check, dtypes_of, samples
from test_table_gradients import test_second_order, test_vjp

CALLS = []


@elementwise(domain="float", ref=lambda x: x / (1 + np.abs(x)), samples=uniform((3, 4)), ulp=1.5, at=(0.0, -0.0, 1.0),
             vjp=lambda g, ans, x: (CALLS.append("toy_softsign"), (g / ops.square(1 + ops.abs(x)),))[1])
def toy_softsign(x):
    """``x / (1 + |x|)``"""
    return x / (1 + scalar.fabs(x))


@reduction(init=1, ref=lambda x, *, axes: np.prod(x, axes, keepdims=True), samples=uniform((3, 4), axes=(1,), low=0.5),
           ulp=4.0, vjp=lambda g, ans, x, *, axes: (g * ans / x,))
def toy_prod(acc, x):
    """Product over axes."""
    return acc * x


@elementwise(domain="float", ref=np.cbrt, samples=uniform((3,), low=0.5), ulp=8.0, vjp=missing)
def toy_without_rule(x):
    """Cube root by way of exp and log."""
    return scalar.copysign(_cbrt(scalar.fabs(x)), x)


def _cbrt(x):
    return maths.exp(maths.log(x) / 3)


TOYS = (toy_softsign, toy_prod)


@pytest.mark.parametrize("op", TOYS, ids=lambda op: op.__name__)
def test_values_of_toys(op, rng):
    for dtype in dtypes_of(op.prim):
        for arrays, params in samples(op.prim, dtype, rng):
            check(op.prim, arrays, params)
    assert getattr(jg, op.__name__) is op and op.__doc__


@pytest.mark.parametrize("op", TOYS, ids=lambda op: op.__name__)
def test_gradients_of_toys(op, rng):
    test_vjp(op.prim, rng)
    test_second_order(op.prim, rng)


def test_toys_run_eagerly_on_anything():
    assert toy_softsign(1).numpy() == np.float32(0.5)
    assert toy_softsign(jg.Variable([1.0, -3.0])).numpy().tolist() == [0.5, -0.75]
    assert toy_softsign(np.array([1, 3])).dtype == np.float32
    assert toy_prod(jg.constant([[2, 3], [4, 5]]), axes=(0, 1)).numpy().tolist() == [[120]]


def test_third_order():
    x = jg.constant(2.0, "float64")
    with jg.GradientTape() as third, jg.GradientTape() as second, jg.GradientTape() as first:
        for tape in (first, second, third):
            tape.watch(x)
        y = toy_softsign(x)
        slopes = [y]
        for tape in (first, second):
            slopes.append(tape.gradient(slopes[-1], x))
    slopes.append(third.gradient(slopes[-1], x))
    assert [s.numpy() for s in slopes] == pytest.approx([2 / 3, 1 / 9, -2 / 27, 6 / 81], rel=1e-14)


def test_show_names_the_toy():
    x = jg.constant([[1.0, 2.0]])
    with jg.GradientTape() as tape:
        tape.watch(x)
        toy_prod(toy_softsign(x), axes=(1,))
    table = tape.show().splitlines()
    assert [word for line in table for word in line.split() if word.startswith("toy")] == ["toy_softsign", "toy_prod"]
    assert "axes=(1,)" in table[-2] and "float32[1,1]" in table[-2]


def test_oracle_and_machine_run_the_toys(rng):
    recorder = Recorder()
    x = recorder.input(jg.core.aval.aval(4, (3, 4)))
    program = recorder.program([toy_prod(toy_softsign(x), axes=(0,))])
    program.verify()
    for p in (program, vjp(program, [0])):
        arrays = [rng.uniform(0.5, 1.5, p.aval(v).shape) for v in p.inputs.tolist()]
        (want,) = oracle.run(p, arrays)
        (got,) = plan_of(p).run([jg.asarray(a) for a in arrays])
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-14)


def test_second_gradient_of_a_structure_runs_no_rule():
    """The backward Program is cached by the tape's signature, fragments by form: the rule ran once, in Python, ever."""
    def gradient(values, times):
        x = jg.constant(values, "float64")
        with jg.GradientTape() as tape:
            tape.watch(x)
            y = x
            for _ in range(times):
                y = toy_softsign(y) * 2.0
        return tape.gradient(y, x).numpy()
    shape = [0.5, 0.25, -1.0, 3.0, 2.0, 7.0, 11.0]
    gradient(shape, 2)
    before = len(CALLS)
    first = gradient(shape, 2)
    assert gradient(shape, 5).shape == (7,)                # a longer tape of the same forms is pasted, not derived
    assert len(CALLS) == before
    gradient(shape[:3], 2)                                 # a new shape is a new form: once
    assert len(CALLS) == before + 1
    y = 2 * np.array(shape) / (1 + np.abs(shape))
    want = 4 / (1 + np.abs(y)) ** 2 / (1 + np.abs(shape)) ** 2
    np.testing.assert_allclose(first, want, rtol=1e-14)


def test_missing_rule_is_said_when_recorded():
    x = jg.constant([8.0])
    assert toy_without_rule(x).numpy() == pytest.approx([2.0], rel=1e-6)
    with jg.GradientTape() as tape:
        toy_without_rule(x)                                # nothing watches x
        tape.watch(x)
        with pytest.raises(LookupError, match=r"toy_without_rule.*operands float32\[1\].* \(at .*test_toy.py:\d+\)"):
            toy_without_rule(x)
        y = x * 2.0
    assert tape.gradient(y, x).numpy().tolist() == [2.0]


def test_missing_rule_in_a_program_is_said():
    recorder = Recorder()
    program = recorder.program([toy_without_rule(recorder.input(jg.core.aval.aval(4, (3,))))])
    with pytest.raises(LookupError, match="toy_without_rule"):
        vjp(program, [0])


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="toy_prod"):
        reduction(init=1, ref=np.prod, samples=uniform((2,), axes=(0,)), vjp=None)(toy_prod.prim.body)


def test_kernels_of_one_name_do_not_meet_in_the_object_cache():
    """Bodies that differ only in what they close over are different kernels, in this process and in the next."""
    code = """
import sys, numpy as np, jitgrad as jg
from jitgrad.core.primitive import elementwise, uniform
def make(c):
    @elementwise(vjp=None, ref=lambda x: x * c, samples=uniform((3,)))
    def toy_scaled(x):
        return x * c
    return toy_scaled
print(make(int(sys.argv[1]))(jg.constant([1.0])).numpy()[0])
"""
    for c in (3, 5):
        done = subprocess.run([sys.executable, "-c", code, str(c)], capture_output=True, text=True, check=True)
        assert float(done.stdout) == c
