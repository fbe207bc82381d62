"""Kernels for GPUs compiled by Numba for the processor, as one block of one thread: sizes that the simulator is too
slow for, where every loop of theirs turns and integers have their real widths.
"""

from __future__ import annotations

import numba
import numpy as np
import pytest

from jitgrad.core.primitive import BY_NAME
from jitgrad.execute.cuda import library
from jitgrad.execute.cuda.kernel import STATUS
from jitgrad.execute.cuda.sorting import CHUNK
from table import form_of
from table import run as on_cpu

ALONE = [("cuda.gridsize(1)", "1"), ("cuda.grid(1)", "0"), ("cuda.threadIdx.x", "0"), ("cuda.blockDim.x", "1"),
         ("cuda.blockIdx.x", "0"), ("cuda.gridDim.x", "1"), ("cuda.syncthreads()", "pass"),
         ("cuda.shared.array", "np.empty")]


def add(pointer, index, value):
    pointer[index] += value


SCOPE = {"np": np, "u1": np.uint8, "i4": np.int32, "i8": np.int64, "f4": np.float32, "f8": np.float64, **{
    name: numba.njit(function) for name, function in {
        "sdiv": lambda a, b: a // b, "shl": lambda a, b: a << b, "mul": lambda a, b: a * b, "atomic_add": add,
        "add64": lambda a, b: np.int64(np.uint64(a) + np.uint64(b)),
        "mul64": lambda a, b: np.int64(np.uint64(a) * np.uint64(b)),
        "ushr": lambda a, b: np.int64(np.uint64(a) >> np.uint64(b))}.items()}}
compiled: dict = {}


def alone(kernel):
    if kernel not in compiled:
        source = kernel.source
        for there, here in ALONE:
            source = source.replace(there, here)
        scope = dict(SCOPE)
        exec(source, scope)
        compiled[kernel] = numba.njit(scope[kernel.name])
    return compiled[kernel]


def run(name, *arrays, **params):
    """The only output, and the error code."""
    f = form_of(BY_NAME[name], arrays, params)
    work = library.work_of(f)
    outs = [np.full(a.shape, 77, a.dtype) for a in f.outs]
    slots = [*outs, *arrays, *(np.full(n, 77, np.uint8) for n in work.scratch)]
    status = np.zeros(1, np.int32)
    for launch in work.launches:
        alone(launch.kernel)(*(status if s == STATUS else slots[s].reshape(-1).view(d if d.kind != "b" else np.uint8)
                               for s, d in zip(launch.slots, launch.kernel.pointers, strict=True)), *launch.words)
    return outs[0], int(status[0])


def same_as_on_cpu(name, *arrays, **params):
    got, status = run(name, *arrays, **params)
    want = on_cpu(BY_NAME[name], arrays, params)
    assert status == 0 and got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["bool", "int32", "float32", "float64", "int64"])
def test_long_rows_are_sorted(rng, dtype):
    for shape, axis, descending in [((3, 5 * CHUNK + 77), 1, False), ((CHUNK + 1, 2), 0, True), ((2 * CHUNK,), 0, True),
                                    ((50, 60, 2), 1, False)]:
        x = rng.integers(-10**4, 10**4, shape)
        x = (x > 0 if dtype == "bool" else x / 64 if dtype[0] == "f" else x).astype(dtype)
        same_as_on_cpu("argsort", x, axis=axis, descending=descending)
        same_as_on_cpu("sort", x, axis=axis, descending=descending)


def test_long_permutations(rng):
    for bits in rng.integers(-2**63, 2**63, 10**5), rng.integers(-2**63, 2**63, (3, 3000)), np.zeros(5000, int):
        same_as_on_cpu("random_permutation", bits)


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64"])
def test_many_bits(rng, dtype):
    state = rng.integers(-2**63, 2**63, (50, 3))
    for size in (1, 2, 3, 997):
        same_as_on_cpu("random_bits", state, size=size, dtype=dtype)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("dtype", [np.bool_, np.int32, np.float32])
def test_places_in_long_rows(rng, name, dtype):
    for shape, axis in [((3, 70001), 1), ((100, 7), 0), ((40, 50, 2), 1)]:
        x = rng.integers(-50, 50, shape).astype(dtype)
        same_as_on_cpu(name, x, axis=axis)
    if dtype is np.float32:
        x = rng.normal(size=(2, 70001)).astype(dtype)
        x[1, [69999, 40000, 40001]] = np.nan
        same_as_on_cpu(name, x, axis=1)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_many_indices(rng, kind):
    x = rng.integers(-99, 99, (5, 40, 6)).astype(np.float32)
    indices = rng.integers(-40, 40, (5, 300)).astype(kind)
    same_as_on_cpu("gather", x, indices, axis=1, rows=0)
    same_as_on_cpu("gather", x, indices, axis=1, rows=1)
    g = rng.integers(-99, 99, (5, 300, 6)).astype(np.float32)
    same_as_on_cpu("scatter_add", g, indices, axis=1, n=40, rows=1)
    same_as_on_cpu("scatter_add", g, indices[0], axis=1, n=40, rows=0)
    along = rng.integers(-40, 40, g.shape).astype(kind)
    same_as_on_cpu("take_along_axis", x, along, axis=1)
    same_as_on_cpu("add_along_axis", g, along, axis=1, n=40)
    picked = rng.integers(0, 6, (5, 40)).astype(kind)
    same_as_on_cpu("pick", x, picked)
    same_as_on_cpu("unpick", x[..., 0].copy(), picked, n=6)
    same_as_on_cpu("searchsorted", np.sort(x, axis=-1), rng.integers(-99, 99, (5, 40, 3)).astype(np.float32),
                   right=True)
    along[3, 4, 5] = 40
    got, status = run("take_along_axis", x, along, axis=1)
    assert status == 1 and got[3, 4, 5] == 77


def test_many_elements_move(rng):
    x = rng.normal(size=(30, 40, 50))
    for axes in [(2, 1, 0), (0, 2, 1), (1, 0, 2), (2, 0, 1)]:
        same_as_on_cpu("permute_dims", x, axes=axes)
        same_as_on_cpu("permute_dims", x[..., None] > 0, axes=(3, *axes))
    same_as_on_cpu("permute_dims", x.reshape(5, 6, 10, 4, 50), axes=(4, 2, 3, 0, 1))
    same_as_on_cpu("concat", x, x[:, :7].copy(), axis=1)
    same_as_on_cpu("embed", x, shape=(70, 40, 60), spans=((65, 30, -2), (0, 40, 1), (3, 50, 1)))
