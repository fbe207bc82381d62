"""Tests of the CUDA path on whatever stands for a GPU here: a real one, the emulator, or Numba's simulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from jitgrad.core.form import Form
from jitgrad.core.primitive import Kind, Primitive
from jitgrad.execute.cuda import library, simulator, stream, toolkit
from jitgrad.execute.cuda.kernel import Work
from table import error, form_of

SLACK = {Kind.REDUCE: 2.0, Kind.SCAN: 2.0, Kind.CONTRACT: 8.0}      # another order of sums than the CPU's, in ulp
UNTOUCHED = 77                 # what outputs are filled with before
RUNS = [pytest.mark.cuda, pytest.mark.skipif(bool(stream.problem()), reason=stream.problem()),
        pytest.mark.filterwarnings("ignore::RuntimeWarning")]        # integers wrap, floats overflow: NumPy says so


def run(f: Form, operands: Sequence[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """The outputs of a form, and the error code that its kernels leave."""
    outs = [np.full(a.shape, UNTOUCHED, a.dtype) for a in f.outs]
    return outs, play(library.work_of(f), [*outs, *operands])


def check(prim: Primitive, arrays: Sequence[np.ndarray], params: dict[str, Any]) -> None:
    """The entry's kernels give what the table says."""
    outs, status = run(form_of(prim, arrays, params), arrays)
    assert status == 0
    wants = prim.ref(*arrays, **params)
    if isinstance(wants, tuple):
        for got, want in zip(outs, wants, strict=True):
            np.testing.assert_array_equal(got, want)
        return
    found = error(prim, outs[0], arrays, params)
    assert found <= prim.ulp + SLACK.get(prim.kind, 0.0), f"{prim.name}{params}: {found} ulp, states {prim.ulp}"


def play(work: Work, slots: Sequence[np.ndarray]) -> int:
    """Run launches on the arrays of their slots but scratch, as `simulator.play` does; the error code.

    For a GPU what the arrays lie in is copied there and back.
    """
    if toolkit.simulated():
        return simulator.play(work, slots)
    gpu, held = stream.driver(), {}
    for array in map(whole, slots):
        if id(array) not in held:
            base, keeper = gpu.allocate(max(array.nbytes, 1))
            gpu.upload(base, 0, array)
            held[id(array)] = array, base, keeper
    places = [(held[id(whole(a))][1], a.ctypes.data - whole(a).ctypes.data) for a in slots]
    scratch = [gpu.allocate(max(nbytes, 1)) for nbytes in work.scratch]
    code = stream.run(work.launches, [*places, *((base, 0) for base, _ in scratch)])
    for array, base, _ in held.values():
        if array.flags.writeable:
            gpu.download(base, 0, array.ravel(order="K"))
    return code


def whole(array: np.ndarray) -> np.ndarray:
    """The array that owns the memory: slots may lie in one another."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
