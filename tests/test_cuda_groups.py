"""Random Programs by the kernels of their groups, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest

import cuda_plans
import cuda_steps
import jitgrad as jg
import nests as programs
import programs as programs_of
from cuda_here import RUNS
from cuda_plans import SHAPES
from jitgrad.execute import oracle
from jitgrad.execute.cuda import nests, reductions
from tolerance import assert_close, assert_same_bits

pytestmark = RUNS

MIXED = 3e-5                   # float64 results of rows in float32


@pytest.fixture(params=["whole rows", "rows in pieces"])
def rows(request, monkeypatch):
    """Rows of few elements by one launch, and as rows of many elements are walked."""
    if request.param == "rows in pieces":
        monkeypatch.setattr(nests, "THREADS", 8)
        monkeypatch.setattr(reductions, "THREADS", 8)
        monkeypatch.setattr(reductions, "LEAST", 1)
    return request.param


@pytest.mark.parametrize("seed", range(8))
def test_random_programs(rows, seed):
    rng = np.random.default_rng(seed)
    program = programs.random_nests(rng, 12, SHAPES)
    arrays = [rng.uniform(0.5, 1.5, program.aval(v).shape).astype(program.aval(v).dtype)
              for v in program.inputs.tolist()]
    for got, want in zip(cuda_steps.run(program, arrays), oracle.run(program, arrays), strict=True):
        assert_close(got, want, MIXED)


@pytest.mark.parametrize("seed", range(5))
def test_random_programs_as_many_nests(seed):
    """Of many values of a few sizes nests are joined, and stand beside each other: no bit changes."""
    rng = np.random.default_rng(seed)
    program = programs.random_nests(rng, 40, [(7, 11), (5, 20), (130,)])
    arrays = [rng.uniform(0.5, 1.5, program.aval(v).shape).astype(program.aval(v).dtype)
              for v in program.inputs.tolist()]
    for got, want in zip(cuda_steps.run(program, arrays), cuda_steps.run(program, arrays, together=False), strict=True):
        assert_same_bits(got, want)


def test_updates_of_many_variables_are_one_launch(rng):
    def update(*given):
        return tuple(x for w, g, m in zip(given[::3], given[1::3], given[2::3], strict=True)
                     for x in (w - 0.1 * (m + g), 0.9 * m + 0.1 * g))
    shapes = [shape for shape in ((70,), (5, 20), (66,)) for _ in range(3)]
    program = programs_of.recorded(update, *shapes, dtype="float32")
    assert [kernel.name.split("_")[0] for kernel in cuda_steps.kernels(program)] == ["nests"]
    arrays = [rng.normal(size=shape).astype("float32") for shape in shapes]
    for got, want in zip(cuda_steps.run(program, arrays), oracle.run(program, arrays), strict=True):
        assert_close(got, want)


def test_both_ways_are_taken(rows):
    names = [kernel.name for seed in range(25) for kernel in cuda_steps.kernels(
        programs.random_nests(np.random.default_rng(seed), 12, SHAPES))]
    assert {name.split("_")[0] for name in names} >= {"nest", "rows", "straight"}
    assert any(name.startswith("reduce") for name in names) == (rows == "rows in pieces")


@pytest.mark.parametrize("name", cuda_plans.PLANS)
def test_plans(rows, name):
    program, arrays = cuda_plans.program_of(name)
    for got, want in zip(cuda_steps.run(program, arrays), oracle.run(program, arrays), strict=True):
        assert_close(got, want)


@pytest.mark.parametrize(("name", "sizes"), [
    ("softmax_cross_entropy", (1, 7)), ("softmax_cross_entropy", (9, 2)), ("layer_norm", (1, 33)), ("layer_norm", (3, 5)),
    ("layer_norm", (1, 5)), ("adam", (5,)), ("gates", (6, 1)), ("gates", (2, 17)), ("expression", (5,)),
    ("lstm_cell", (1, 9))])
def test_plans_of_odd_sizes(rows, name, sizes):
    program, arrays = cuda_plans.program_of(name, *sizes)
    for got, want in zip(cuda_steps.run(program, arrays), oracle.run(program, arrays), strict=True):
        assert_close(got, want)


def test_booleans_and_integers(rows, rng):
    def f(x, k):
        positive, even = x > 0.0, k % 2 == 0
        most = jg.max(jg.where(even, k, -k), axis=-1, keepdims=True)
        return (positive, positive & even, jg.any(positive & even, axis=-1), jg.all(positive | even, axis=-1),
                jg.sum(jg.astype(positive, "int32"), axis=-1), k - most, jg.sum(k * k), jg.min(k, axis=(0, 1)))
    program = programs_of.recorded(f, (3, 37), (3, 37), dtype=("float32", "int64"))
    arrays = [rng.normal(size=(3, 37)).astype("float32"), rng.integers(-99, 99, (3, 37))]
    for got, want in zip(cuda_steps.run(program, arrays), oracle.run(program, arrays), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("seed", range(4))
def test_odd_numbers(rows, seed):
    rng = np.random.default_rng(seed)
    program = programs.random_nests(rng, 8, [(3, 37), (33,)])
    arrays = programs.arguments(program, rng)
    for got, want in zip(cuda_steps.run(program, arrays), oracle.run(program, arrays), strict=True):
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))


def test_rounding_errors_of_long_rows_stay_small(monkeypatch):
    monkeypatch.setattr(nests, "THREADS", 2)
    monkeypatch.setattr(reductions, "FULL", 1)
    program = programs_of.recorded(lambda x: jg.sum(x * 1.5), (3000,), dtype="float32")
    arrays = [np.full(3000, 0.1, np.float32)]
    (got,) = cuda_steps.run(program, arrays)
    np.testing.assert_allclose(got, np.sum((arrays[0] * np.float32(1.5)).astype(np.float64)), rtol=6e-7)
