"""The table, tapes and training on a real GPU (``pytest -m cuda``): against the references, and against the CPU."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.device import device_of
from jitgrad.core.primitive import OPS, Kind
from jitgrad.execute.cuda import memory, stream, toolkit
from table import ENTRIES, cases, error, ident, points, samples

REASON = stream.problem() or ("the simulator has tests of its own" if toolkit.simulated() else "")
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(bool(REASON), reason=REASON),
              pytest.mark.filterwarnings("ignore::RuntimeWarning")]

HERE = [p for p in ENTRIES if "device" not in p.params]            # the others say where they are
SLACK = {Kind.REDUCE: 2.0, Kind.SCAN: 2.0, Kind.CONTRACT: 8.0, Kind.INDEX: 2.0}      # another order of sums, in ulp


def there(array):
    return jg.constant(array, device="cuda")


def outputs(found):
    return found if isinstance(found, tuple) else (found,)


@pytest.mark.parametrize(("prim", "dtype"), cases(HERE), ids=ident)
def test_entries_compute_what_the_table_says(prim, dtype, rng):
    given = list(samples(prim, dtype, rng))
    special = points(prim, dtype) if prim.kind is Kind.ELEMENTWISE and dtype is not None else []
    for arrays, params in [*given, *([(special, given[0][1])] if special else [])]:
        got = outputs(OPS[prim.name](*map(there, arrays), **params))
        assert all(device_of(t) == "cuda" for t in got)
        wants = prim.ref(*arrays, **params)
        if isinstance(wants, tuple):
            for g, want in zip(got, wants, strict=True):
                np.testing.assert_array_equal(g.numpy(), want)
            continue
        found = error(prim, got[0].numpy(), arrays, params)
        assert found <= prim.ulp + SLACK.get(prim.kind, 0.0), f"{prim.name}{params}: {found} ulp, states {prim.ulp}"


def gradients(prim, tensors, params, seeds):
    with jg.GradientTape() as tape:
        tape.watch(tensors)
        outs = [y for y in outputs(OPS[prim.name](*tensors, **params)) if y.dtype.kind == "f"]
    return outs, tape.gradient(outs, tensors, output_gradients=[s(y) for s, y in zip(seeds, outs, strict=False)])


@pytest.mark.parametrize(("prim", "dtype"), cases([p for p in HERE if callable(p.vjp)], chars="f"), ids=ident)
def test_gradients_are_those_of_the_cpu(prim, dtype, rng):
    for arrays, params in samples(prim, dtype, rng):
        drawn = [rng.normal(size=100_000) for _ in range(4)]
        on_cpu = [lambda y, d=d: jg.constant(np.resize(d, y.shape).astype(y.dtype)) for d in drawn]
        on_gpu = [lambda y, d=d: there(np.resize(d, y.shape).astype(y.dtype)) for d in drawn]
        _, want = gradients(prim, [jg.constant(a) for a in arrays], params, on_cpu)
        _, got = gradients(prim, [there(a) for a in arrays], params, on_gpu)
        for g, w in zip(got, want, strict=True):
            assert (g is None) == (w is None)
            if w is not None:
                assert g.device == "cuda"
                scale = max(1.0, float(np.abs(w.numpy()[np.isfinite(w.numpy())]).max(initial=0)))
                room = (1e-5 if dtype == np.float32 else 1e-12) * scale
                np.testing.assert_allclose(g.numpy(), w.numpy(), 1e-5 if dtype == np.float32 else 1e-12, room)


def trained(device, steps, compiled=False):
    rng = np.random.default_rng(0)
    x, y = (jg.constant(rng.normal(size=s).astype(np.float32), device=device) for s in ((256, 64), (256, 10)))
    shapes = (64, 128), (128,), (128, 10), (10,)
    variables = [jg.Variable(rng.normal(size=s).astype(np.float32) * 0.1, device=device) for s in shapes]
    optimizer = jg.nn.optimizers.Adam(0.01)

    def step():
        with jg.GradientTape() as tape:
            w1, b1, w2, b2 = variables
            loss = jg.mean((jg.tanh(x @ w1 + b1) @ w2 + b2 - y) ** 2)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss
    run = jg.function(step) if compiled else step
    losses = [float(run()) for _ in range(steps)]
    return losses, [v.numpy() for v in variables]


@pytest.mark.parametrize("compiled", [False, True])
def test_an_mlp_trains_as_on_the_cpu(compiled):
    (losses, variables), (want, expected) = trained("cuda", 20, compiled), trained("cpu", 20)
    np.testing.assert_allclose(losses, want, 1e-3)
    for v, e in zip(variables, expected, strict=True):
        np.testing.assert_allclose(v, e, 1e-2, 1e-3)


def test_memory_comes_back():
    gc.collect()
    before = memory.Use.nbytes
    for _ in range(3):
        trained("cuda", 3)
    gc.collect()
    assert memory.Use.nbytes <= before + 2**20


def test_large_tensors_and_many_launches():
    emulated = os.environ.get("JITGRAD_EMULATOR")
    x = jg.linspace(-1.0, 1.0, 100_001 if emulated else 10_000_001, device="cuda")
    y = x
    for _ in range(100):
        y = y * 0.5 + x
    np.testing.assert_allclose(y.numpy()[::1000], 2 * x.numpy()[::1000], 1e-5)
    assert abs(float(jg.sum(x))) < 5.0 and float(jg.max(y)) == pytest.approx(2.0)


def test_what_goes_there_may_change_at_once(rng):
    kept, wants = [], []
    for size in [5_000_000, 3, *rng.integers(1, 900_000, 40).tolist()]:
        array = rng.normal(size=size).astype(np.float32)
        wants.append(array.copy())
        kept.append(there(array))
        array[:] = np.nan
    for got, want in zip(kept, wants, strict=True):
        np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("name", ["torch", "cupy"])
def test_arrays_are_shared_with(name):
    other = pytest.importorskip(name)
    x = there(np.arange(6, dtype=np.float32).reshape(2, 3))
    theirs = other.from_dlpack(x)
    assert theirs.shape == (2, 3) and float(theirs.sum()) == 15.0
    back = jg.from_dlpack(theirs * 2)
    assert back.device == "cuda" and back.tolist() == [[0.0, 2.0, 4.0], [6.0, 8.0, 10.0]]
    assert jg.asarray(theirs * 3).tolist() == [[0.0, 3.0, 6.0], [9.0, 12.0, 15.0]]
    del x
    gc.collect()
    assert float(theirs.sum()) == 15.0


def test_errors_of_kernels_are_raised():
    with pytest.raises(IndexError, match="out of range"):
        jg.take(there(np.ones(3, np.float32)), there(np.array([5])))
    assert float(jg.sum(there(np.ones(3, np.float32)))) == 3.0
