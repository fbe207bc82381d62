"""Reductions and scans on a GPU, of every way in which they share lines."""

from __future__ import annotations

import numpy as np
import pytest

import cuda_here
from cuda_here import RUNS
from jitgrad.core.primitive import BY_NAME
from jitgrad.execute.cuda import library, reductions, scans
from table import form_of

pytestmark = RUNS


@pytest.fixture
def small(monkeypatch):
    """Blocks and pieces of so few threads and elements that a few hundred elements need many."""
    for module in (reductions, scans):
        monkeypatch.setattr(module, "THREADS", 8)
        monkeypatch.setattr(module, "COLUMNS", 4)
    monkeypatch.setattr(scans, "SHORT", 1)
    monkeypatch.setattr(reductions, "LEAST", 2)
    library.work_of.cache_clear()
    yield
    library.work_of.cache_clear()


SHAPES = [((75,), (0,), 2), ((2, 53), (1,), 2), ((45, 3), (0,), 2), ((2, 30, 5), (1,), 2), ((5, 3), (1,), 1),
          ((2, 1, 3), (1,), 1), ((3, 0, 2), (1,), 1), ((3, 0), (0,), 0), ((5,), (), 1), ((2, 2, 3, 2), (1, 2), 1)]


@pytest.mark.parametrize(("name", "dtype", "shape", "axes", "launches"), [
    *(("reduce_sum", "float32", *case) for case in SHAPES), *(("reduce_max", "float32", *case) for case in SHAPES[:2]),
    ("reduce_sum", "int64", *SHAPES[0]), ("reduce_min", "bool", *SHAPES[2]), ("reduce_prod", "int32", *SHAPES[3])])
def test_reductions_of_all_shapes(small, rng, name, dtype, shape, axes, launches):
    x = rng.normal(size=shape) * 9
    arrays = [(x > 0 if dtype == "bool" else x).astype(dtype)]
    if name == "reduce_max":
        arrays[0].flat[50] = np.nan
    prim, params = BY_NAME[name], {"axes": axes}
    assert len(library.work_of(form_of(prim, arrays, params)).launches) == launches
    cuda_here.check(prim, arrays, params)


@pytest.mark.parametrize(("name", "dtype", "shape", "axis", "launches"), [
    ("cumulative_sum", "float32", (7,), 0, 1), ("cumulative_sum", "int32", (45,), 0, 3),
    ("cumulative_prod", "float64", (2, 37), 1, 3), ("cumulative_sum", "float32", (2, 21, 3), 1, 3),
    ("logcumsumexp", "float32", (33, 5), 0, 3), ("cumulative_sum", "float64", (3, 5, 2), 1, 1),
    ("cumulative_sum", "int64", (3, 0), 1, 0), ("linear_recurrence", "float32", (2, 21, 3), 1, 1),
    ("linear_recurrence", "float64", (3, 37), 1, 1)])
@pytest.mark.parametrize(("exclusive", "reverse"), [(False, False), (True, True)])
def test_scans_of_all_shapes(small, rng, name, dtype, shape, axis, launches, exclusive, reverse):
    prim = BY_NAME[name]
    arrays = [(rng.uniform(0.5, 1.5, size=shape) * (8 if "int" in dtype else 1)).astype(dtype) for _ in prim.operands]
    params = {"axis": axis, "exclusive": exclusive and name != "logcumsumexp", "reverse": reverse}
    assert len(library.work_of(form_of(prim, arrays, params)).launches) == launches
    cuda_here.check(prim, arrays, params)


def test_rounding_errors_of_long_lines_stay_small(monkeypatch):
    monkeypatch.setattr(reductions, "THREADS", 2)
    monkeypatch.setattr(reductions, "FULL", 1)
    library.work_of.cache_clear()
    arrays = [np.full(3000, 0.1, np.float32)]                # all rounded the same way
    cuda_here.check(BY_NAME["reduce_sum"], arrays, {"axes": (0,)})
    library.work_of.cache_clear()
