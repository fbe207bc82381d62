"""Groups of rows of Plans for GPUs, where there is none: each compiles, float32 stays float32, sizes are words.

What they compute is tested by test_cuda_groups.py.
"""

from __future__ import annotations

import numpy as np
import pytest

import cuda_plans
import cuda_steps
import nests as programs
from jitgrad.core.primitive import BY_NAME
from jitgrad.execute.cuda import library, toolkit
from jitgrad.plan.fuse import Nest, body_of
from table import form_of
from test_cuda_kernels import FLOAT64, check

pytestmark = pytest.mark.skipif(bool(toolkit.missing()) or toolkit.simulated(), reason=toolkit.missing() or "simulated")

SIZES = {"softmax_cross_entropy": ((6, 11), (9, 70)), "layer_norm": ((15, 13), (31, 40)), "adam": ((70,), (1000,)),
         "gates": ((20, 7), (70, 9)), "expression": ((70,), (130,)), "lstm_cell": ((20, 5), (30, 8))}


def in_double(step):
    return any(node.dtype == FLOAT64 for m in step.members if m.form.prim.kind.value in ("elementwise", "reduce")
               for node in body_of(m.form.id).nodes)


@pytest.mark.parametrize("name", cuda_plans.PLANS)
def test_plans_compile(name):
    program, _ = cuda_plans.program_of(name)
    kernels = cuda_steps.kernels(program)
    assert any(isinstance(step, Nest) for step in kernels.values())
    for kernel, step in kernels.items():
        check(kernel, in_double(step))


@pytest.mark.parametrize("name", SIZES)
def test_another_size_compiles_nothing(name):
    one, other = (cuda_steps.kernels(cuda_plans.program_of(name, *sizes)[0]) for sizes in SIZES[name])
    assert {*one} == {*other}


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "layer_norm", "expression"])
def test_few_long_rows_compile(name):
    program, _ = cuda_plans.program_of(name, *((2, 100_000) if name != "expression" else (1_000_000,)))
    kernels = cuda_steps.kernels(program)
    assert any(kernel.name.startswith("reduce") for kernel in kernels)      # where their pieces meet
    for kernel, step in kernels.items():
        check(kernel, in_double(step))


def test_random_programs_compile():
    made = {}
    for seed in range(6):
        made |= cuda_steps.kernels(programs.random_nests(np.random.default_rng(seed), 12, cuda_plans.SHAPES))
    assert len(made) > 8
    for kernel in made:
        check(kernel, True)


@pytest.mark.parametrize(("name", "dtype"), [("cumulative_sum", "float32"), ("logcumsumexp", "float64"),
                                             ("cumulative_prod", "int32"), ("linear_recurrence", "float32")])
@pytest.mark.parametrize("shape", [(3, 40), (2, 1_000_000)])
def test_scans_of_long_lines_compile(name, dtype, shape):
    prim = BY_NAME[name]
    f = form_of(prim, [np.ones(shape, dtype) for _ in prim.operands],
                {"axis": 1, "exclusive": False, "reverse": False})
    made = library.work_of(f).launches
    assert len(made) == (3 if prim.associative and shape[1] > 40 else 1)
    for launch in made:
        check(launch.kernel, "float" in dtype)


def test_nests_of_all_updates_compile_as_one():
    program, _ = cuda_plans.program_of("optimizer", 512)
    (kernel,) = [kernel for kernel in cuda_steps.kernels(program) if kernel.name.startswith("nests")]
    check(kernel, False)
