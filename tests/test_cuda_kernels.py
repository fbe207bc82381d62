"""Kernels for GPUs, where there is none: each compiles to PTX and to machine code, and float32 stays float32.

What they compute is tested in the emulator of a GPU (test_cuda_stand_ins.py) and on one (`pytest -m cuda`).
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from jitgrad.core.primitive import BY_NAME, Kind
from jitgrad.execute.cpu import library as cpu
from jitgrad.execute.cuda import library, toolkit
from table import ENTRIES, cases, form_of, ident, samples

pytestmark = pytest.mark.skipif(bool(toolkit.missing()) or toolkit.simulated(), reason=toolkit.missing() or "simulated")


ARCHITECTURES = ("sm_80", "sm_90")
FLOAT64 = np.dtype(np.float64)


def in_double(f):
    """Whether the body itself computes in float64, where float32 alone would not reach the stated error."""
    if f.prim.kind is Kind.SCAN:                     # its accumulator is a float64, as the table says
        return f.outs[0].dtype.kind == "f"
    bodies = (Kind.ELEMENTWISE, Kind.REDUCE)
    return f.prim.kind in bodies and any(node.dtype == FLOAT64 for node in cpu.elementwise_trace(
        f.prim, [a.dtype for a in f.avals] * (2 if f.prim.kind is Kind.REDUCE else 1),
        f.params if f.prim.kind is Kind.ELEMENTWISE else {}).nodes)


def check(kernel, double):
    """The kernel compiles for each architecture; only where something is float64 does it compute in float64."""
    text = kernel.ptx()
    assert f".visible .entry {kernel.name}(" in text
    if not double:
        wrong = [line for line in text.splitlines() if re.search(r"\.f64\b", line)]
        assert not wrong, f"{kernel.name} computes in float64: {wrong[:3]}\n{kernel.source}"
    for arch in ARCHITECTURES:
        assert kernel.cubin(arch)[:4] == b"\x7fELF"


@pytest.mark.parametrize(("prim", "dtype"), cases([p for p in ENTRIES if library.has_kernel(p)]), ids=ident)
def test_kernels_compile(prim, dtype, rng):
    for arrays, params in samples(prim, dtype, rng):
        f = form_of(prim, arrays, params)
        double = FLOAT64 in [a.dtype for a in (*f.avals, *f.outs)] or in_double(f)
        for launch in library.work_of(f).launches:
            check(launch.kernel, double)


def test_int64_may_wrap(rng):
    """Numba promises its compiler that signed sums and products do not overflow: they are functions of our own."""
    found = []
    for prim, dtype in cases([p for p in ENTRIES if library.has_kernel(p)], (Kind.ELEMENTWISE, Kind.REDUCE, Kind.SCAN)):
        for arrays, params in samples(prim, dtype, rng) if dtype == np.int64 else ():
            for launch in library.work_of(form_of(prim, arrays, params)).launches:
                found.append(launch.kernel.source)
    assert any("mul64(" in text for text in found) and any("add64(" in text for text in found)
    for text in found:
        assert not re.search(r"i8\(\w+ [-+*] \w+\)", text), text


def zeros(shape, dtype=np.float32):
    return np.zeros(shape, dtype)


LARGER = [("argmax", [zeros(100)], {"axis": 0}), ("argmin", [zeros((2, 10**5), bool)], {"axis": 1}),
          ("sort", [zeros(5000)], {"axis": 0, "descending": True}),
          ("argsort", [zeros((2, 3000), np.float64)], {"axis": 1, "descending": False}),
          ("matmul", [zeros((40, 30)), zeros((30, 9))], {"ta": False, "tb": False}),
          ("matmul", [zeros((40, 30), np.int64), zeros((30, 9), np.int64)], {"ta": False, "tb": False}),
          ("scatter_add", [zeros((9, 2)), zeros(9, np.int32)], {"axis": 0, "n": 4, "rows": 0}),
          ("gather", [zeros((0, 2)), zeros(9, np.int32)], {"axis": 1, "rows": 0}),
          ("permute_dims", [zeros((2, 3, 4, 5))], {"axes": (3, 1, 2, 0)}),
          *(("permute_dims", [zeros((9, 2, 9), dtype)], {"axes": (2, 1, 0)}) for dtype in (bool, np.float32, np.float64)),
          ("random_permutation", [zeros(3000, np.int64)], {}),
          *(("guard", [zeros(3, dtype)] * 2, {}) for dtype in (bool, np.int32, np.float32, np.float64))]


@pytest.mark.parametrize(("name", "arrays", "params"), LARGER, ids=[name for name, _, _ in LARGER])
def test_kernels_that_no_sample_needs_compile(name, arrays, params):
    launches = library.work_of(form_of(BY_NAME[name], arrays, params)).launches
    assert launches
    for made in {launch.kernel for launch in launches}:
        check(made, any(a.dtype == FLOAT64 for a in arrays))


def test_products_and_sums_are_fused_only_where_a_body_says_so(rng):
    tried = 0
    for prim, dtype in cases([p for p in ENTRIES if library.has_kernel(p)], (Kind.ELEMENTWISE,), "f"):
        arrays, params = next(samples(prim, dtype, rng))
        f = form_of(prim, arrays, params)
        nodes = {n.op for n in cpu.elementwise_trace(f.prim, [a.dtype for a in f.avals], f.params).nodes}
        if "mul" in nodes and nodes & {"add", "sub"} and "fmuladd" not in nodes:
            tried += 1
            assert "fma." not in library.work_of(f).launches[0].kernel.ptx(), prim.name
    assert tried > 1
