"""Two builds of one body: the vector kernels and Numba's, bit for bit; and the matrix product's own kernel."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from jitgrad.core.primitive import Kind
from jitgrad.execute.cpu import codegen, llvm, loops
from jitgrad.execute.cpu.library import kernel_of, numba_kernel
from jitgrad.ops import scalar
from table import (
    ENTRIES,
    call,
    cases,
    drawn,
    dtypes_of,
    error,
    form_of,
    ident,
    operands,
    points,
    reference,
    samples,
)
from tolerance import assert_close, assert_same_bits


def chosen(kinds):
    """Both floats, and one of the other dtypes (another for each entry): every Numba kernel costs a tenth of a second."""
    out = []
    for prim, dtype in cases(ENTRIES, kinds):
        others = [d for d in dtypes_of(prim) if d is None or d.kind != "f"]
        if dtype is not None and dtype.kind == "f" or dtype == others[prim.code % len(others)]:
            out.append((prim, dtype))
    return out


@pytest.mark.parametrize("prim, dtype", chosen((Kind.ELEMENTWISE,)), ids=ident)
def test_elementwise_builds_agree(prim, dtype, rng):
    for _, params in prim.samples(rng)[:2]:
        special = points(prim, dtype)
        for n in (1, 61):
            arrays, _ = drawn(prim, dtype, rng, [(n,)] * len(prim.domains))
            if n > 1 and special:
                arrays = [np.concatenate(pair) for pair in zip(arrays, special, strict=True)]
            made = form_of(prim, arrays, params)
            address, words = kernel_of(made)
            by_numba = numba_kernel(prim, tuple(a.dtype for a in made.avals), params)
            assert by_numba.address != address and "def " in by_numba.source
            vector, scalar = (np.full(made.outs[0].shape, 7, made.outs[0].dtype) for _ in range(2))
            call(address, words, vector, *arrays)
            call(by_numba.address, words, scalar, *arrays)
            assert_same_bits(vector, scalar)
            for got in (vector, scalar):
                assert error(prim, got, arrays, params) <= prim.ulp


@pytest.mark.parametrize("body", [lambda x: x + 1 > x, lambda x: x - 1 < x, lambda x: x * 2 // 2 == x], ids=["add", "sub", "mul"])
def test_integers_wrap_in_both_builds(body):
    """Nothing is concluded from sums, differences and products that would not overflow."""
    dtype, ends = np.dtype(np.int64), np.iinfo(np.int64)
    body, x = scalar.trace(body, [dtype]), np.array([ends.min, -1, 0, 1, ends.max])
    by_numba, symbol = loops.elementwise_kernel("wraps", body), f"wraps_{abs(hash(body))}"
    vector = llvm.link(llvm.emit(codegen.elementwise_ir(symbol, body), optimise="loops"), [symbol])[symbol]
    one, other = (np.full(x.shape, 7, bool) for _ in range(2))
    call(vector, [x.size, 1], one, x)
    call(by_numba.address, [x.size, 1], other, x)
    assert_same_bits(one, other)
    assert not one.all()


@pytest.mark.parametrize("prim, dtype", chosen((Kind.REDUCE,)), ids=ident)
def test_reduction_builds_agree(prim, dtype, rng):
    by_numba = numba_kernel(prim, (dtype,), {}).address
    for shape, axes in (((3, 37), (1,)), ((37, 3), (0,)), ((2, 9001), (1,)), ((2, 5000, 3), (1,)), ((4,), ())):
        x = drawn(prim, dtype, rng, [shape])[0][0]
        if dtype.kind == "f":
            x.flat[:: 7] *= 1e6
        made = form_of(prim, [x], {"axes": axes})
        address, words = kernel_of(made)
        vector, scalar = (np.full(made.outs[0].shape, 7, dtype) for _ in range(2))
        call(address, words, vector, x)
        call(by_numba, words, scalar, x)
        assert_same_bits(vector, scalar)


@pytest.mark.parametrize("prim, dtype", chosen((Kind.SCAN,)), ids=ident)
def test_scan_builds_agree(prim, dtype, rng):
    """Columns in whole blocks, single vectors and a ragged rest; rows four at a time and alone; both directions."""
    by_numba = numba_kernel(prim, (dtype,), {}).address
    for shape, axis in (((3, 37), 1), ((37, 3), 0), ((2, 1001, 1), 1), ((7, 5, 91), 1), ((2, 3, 64), 1), ((5, 0), 1)):
        arrays, _ = drawn(prim, dtype, rng, [shape] * len(prim.domains))
        for exclusive, reverse in ((False, False), (False, True), (True, False), (True, True)):
            made = form_of(prim, arrays, {"axis": axis, "exclusive": exclusive, "reverse": reverse})
            address, words = kernel_of(made)
            vector, scalar = (np.full(made.outs[0].shape, 7, dtype) for _ in range(2))
            call(address, words, vector, *arrays)
            call(by_numba, words, scalar, *arrays)
            assert address != by_numba
            assert_same_bits(vector, scalar)


@pytest.mark.parametrize("prim, dtype", cases(ENTRIES, (Kind.CONTRACT,), "f"), ids=ident)
def test_own_product_against_blas(prim, dtype, rng, monkeypatch):
    for arrays, params in [*samples(prim, dtype, rng), *large(prim, dtype, rng)]:
        made = form_of(prim, arrays, params)
        blas, words = kernel_of(made)
        with monkeypatch.context() as m:
            m.setenv("JITGRAD_KERNELS", "numba")
            own, own_words = kernel_of(made)
        assert own != blas
        one, other = (np.full(made.outs[0].shape, 7, dtype) for _ in range(2))
        call(blas, words, one, *arrays)
        call(own, own_words, other, *arrays)
        assert_close(one, other)
        # magnitudes meet in sums of many: the bound of the small samples grows as a random walk
        depth = max(a.shape[-1] for a in arrays)
        assert max(error(prim, got, arrays, params) for got in (one, other)) <= prim.ulp + np.sqrt(depth)


def large(prim, dtype, rng):
    """Each sample's operands scaled up to 40 or so along the contracted axes: beyond what a small-matrix path takes."""
    for arrays, params in prim.samples(rng):
        big = [np.tile(a, [1] * (a.ndim - 2) + [12, 12]) for a in operands(prim, arrays, dtype)]
        yield [(a * rng.uniform(0.5, 1.5, a.shape)).astype(dtype) for a in big], params


OWN = (Kind.CONTRACT, Kind.INDEX, Kind.OPAQUE)


@pytest.mark.parametrize("prim, dtype", cases(ENTRIES, OWN), ids=ident)
def test_own_kernel_against_the_reference(prim, dtype, rng):
    """The kernel alone, writing over garbage: nothing relies on memory that was zero."""
    for arrays, params in samples(prim, dtype, rng):
        out = of_own_kernel(prim, arrays, params)
        assert error(prim, out, arrays, params) <= prim.ulp
        assert out.shape == reference(prim, arrays, params).shape


@pytest.mark.parametrize("prim, dtype", chosen((Kind.INDEX, Kind.OPAQUE)), ids=ident)
def test_own_kernel_builds_agree(prim, dtype, rng, monkeypatch):
    arrays, params = next(iter(samples(prim, dtype, rng)))
    translated = of_own_kernel(prim, arrays, params)
    monkeypatch.setenv("JITGRAD_KERNELS", "numba")
    assert_same_bits(of_own_kernel(prim, arrays, params), translated)


def of_own_kernel(prim, arrays, params):
    made = form_of(prim, arrays, params)
    address, words = kernel_of(made)
    out = np.full(made.outs[0].shape, 7, made.outs[0].dtype)
    call(address, words, out, *arrays)
    return out


RUN = """
import numpy as np, jitgrad as jg
rng = np.random.default_rng(3)
x, w = (jg.asarray(rng.normal(size=s)) for s in ((7, 5), (5, 3)))
with jg.GradientTape() as tape:
    tape.watch([x, w])
    y = jg.tanh(x @ w)
    z = jg.sum(jg.exp(-y * y)[1:, ::-1] + jg.max(y, axis=0))
dx, dw = tape.gradient(z, [x, w])
from jitgrad.core.recorder import Recorder
from jitgrad.transform import control
def recorded(f, *ts):
    recorder = Recorder()
    return recorder.program(f(*(recorder.input(jg.core.aval.AVALS[t._aval]) for t in ts)))
a, b, yes = jg.asarray(np.float64(0.3)), x[:, 0], jg.constant(True)
with jg.GradientTape() as tape:
    tape.watch([a, b])
    c, d = control.scan([a, b], recorded(lambda c, x: [jg.sin(c + x), c * x], a, a), 0, 1, 7, True)
    e, n = control.while_loop([c], recorded(lambda c: [c < 9.0], a), recorded(lambda c: [c * 1.5 + 0.5], a), 0)
    f, = control.cond(yes, [e], recorded(lambda e: [jg.exp(-e)], a), recorded(lambda e: [e], a))
    v = f + jg.sum(d)
da, db = tape.gradient(v, [a, b])
for t in (z, dx, dw, v, da, db):
    print(t.numpy().tobytes().hex())
import sys
print("numba" in sys.modules)
"""


def started(kernels):
    return subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, "JITGRAD_KERNELS": kernels})


@pytest.fixture(scope="module", autouse=True)
def numba_run():
    """Numba takes longest of all to build everything, so a run that asks for it begins with the first test here."""
    with started("numba") as process:
        yield process
        process.kill()


def test_whole_runs_agree(numba_run):
    """JITGRAD_KERNELS=numba gives the bits of the vector builds, but for the order of a product's sums."""
    answers = []
    for run in (lambda: numba_run, lambda: started("numba"), lambda: started("")):   # the second from the object cache
        with run() as process:
            out, err = process.communicate()
        assert process.returncode == 0, err
        *numbers, imported = out.split()
        answers.append([np.frombuffer(bytes.fromhex(n)) for n in numbers])
        assert imported == "False" or len(answers) == 1
    by_numba, again, vectors = answers
    for one, other, vector in zip(by_numba, again, vectors, strict=True):
        assert_same_bits(one, other)
        assert_close(one, vector)
