"""Rows on the blocks of a large product, by the thread that made them: the same bits, with any number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.record import tensor
from jitgrad.execute.cpu import blas, compiling, engine
from jitgrad.execute.cpu.plans import Plan
from jitgrad.plan.fuse import Followed
from test_in_place import allowed, pairs, program_of, run
from tolerance import assert_same_bits

pytestmark = [pytest.mark.usefixtures("threads_as_before"),
              pytest.mark.skipif(not blas.functions(), reason="no BLAS here")]


def planned(f, *shapes, dtype="float32"):
    """The program of a call, numbers for it, and how many of its products are followed by how many sums."""
    rng = np.random.default_rng(len(shapes))
    arrays = [rng.normal(size=s).astype(dtype) for s in shapes]
    program = jg.function(f).program(*map(tensor, arrays))
    n = len(program.inputs)
    steps = engine.lay_out(program, n, n + len(program.results)).steps
    return program, arrays, [len(s.sums) for s in steps if isinstance(s, Followed)]


def assert_bits_of_the_sweep(program, arrays):
    given = [tensor(a) for a in arrays]
    for threads in (1, 2, 3, 9):
        jg.set_num_threads(threads)
        plan = Plan(program, range(len(program.inputs)))
        want = [t.numpy().copy() for t in plan.run(given)]
        assert compiling.compiled(plan)
        for _ in range(2):
            for got, answer in zip(plan.run(given), want, strict=True):
                assert_same_bits(got.numpy(), answer)


def _dense(x, w, b):
    return jg.relu(x @ w + b)


def _gated(g, w, h):
    z = jg.where(h > 0, g @ w.T, 0.0)
    return z, jg.sum(z, axis=0), jg.max(z, axis=0), jg.sum(z[:, 1:], axis=0)


def _twice(x, w, b):
    z = x @ w
    return jg.tanh(z) * b, z, jg.sum(z, axis=0)


def _mask(x, w, b):
    z = x @ w + b
    return z > 0.0, jg.astype(z, "float64") * 2.0


def _late(x, w, b):
    """What the update needs is made behind the product, of other things."""
    g = x.T @ (x @ w)
    rate = jg.sum(b[:2]) * 0.1
    return w - g * rate, g


def _added(x, w, b):
    """A sum of columns of what another product is added to."""
    z = jg.tanh(x @ w) + (x + 1.0) @ w
    return z, jg.sum(z, axis=0), jg.tanh(b)


DENSE = [(130, 400), (400, 128), (128,)]


@pytest.mark.parametrize(("f", "shapes", "sums"), [
    (_dense, DENSE, [0]),
    (_dense, [(128, 784), (784, 512), (512,)], [0]),
    (_dense, [(1, 4096), (4096, 1056), (1056,)], [0]),
    (_dense, [(700, 200), (200, 48), (48,)], [0]),
    (_dense, [(131, 401), (401, 144), (131, 1)], [0]),
    (_dense, [(131, 401), (401, 144), ()], [0]),
    (_dense, [(131, 401), (401, 144), (131, 144)], [0]),
    (_gated, [(128, 256), (512, 256), (128, 512)], [2]),
    (_gated, [(131, 256), (528, 256), (131, 528)], [2]),
    (_gated, [(600, 256), (48, 256), (600, 48)], [2]),
    (_twice, DENSE, [0]),
    (_mask, DENSE, [0]),
    (_late, [(300, 200), (200, 144), (144,)], [0]),
], ids=range(13))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bits_are_those_of_the_sweep(f, shapes, sums, dtype):
    program, arrays, found = planned(f, *shapes, dtype=dtype)
    assert found == sums
    assert_bits_of_the_sweep(program, arrays)


@pytest.mark.parametrize(("f", "shapes"), [
    (_dense, [(128, 400), (400, 130), (130,)]),                              # no whole vectors
    (_dense, [(40, 40), (40, 48), (48,)]),                                   # one thread makes it
    (_dense, [(1200, 64), (64, 1200), (1200,)]),                             # too large for a cache
    (_dense, [(3, 100, 200), (3, 200, 128), (128,)]),                        # several products
    (lambda x, w, b: jg.softmax(x @ w + b), DENSE),                          # rows that need all of themselves
    (lambda x, w, b: (jg.sum(z := x @ w + b, axis=1), z), DENSE),
    (lambda x, w, b: jg.relu((x @ w)[1:] + b), DENSE),                       # a part
    (lambda x, w, b: jg.relu((x @ w).T) + jg.sum(b), DENSE),                 # in another order
    (lambda x, w, b: jg.relu(x @ w) + jg.sort(jg.reshape(x @ w, (-1,)))[:128], DENSE),
], ids=range(9))
def test_what_cannot_follow_does_not(f, shapes):
    program, arrays, found = planned(f, *shapes)
    assert len(found) <= (f is not _dense and "sort" in f.__code__.co_names)
    assert_bits_of_the_sweep(program, arrays)


def test_empty_products():
    for shapes in ([(0, 400), (400, 128), (128,)], [(4000, 0), (0, 1600), (1600,)], [(400, 400), (400, 0), (0,)]):
        program, arrays, found = planned(_dense, *shapes)
        assert found == []
        assert_bits_of_the_sweep(program, arrays)


def test_a_sum_of_what_is_added_to_later_waits():
    program, arrays, _ = planned(_added, *DENSE)
    jg.set_num_threads(2)
    plan = Plan(program, range(3))
    assert compiling.compiled(plan)
    z, total, _ = (t.numpy() for t in plan.run([tensor(a) for a in arrays]))
    np.testing.assert_allclose(total, z.astype(np.float64).sum(0), rtol=1e-4, atol=1e-2)
    x, w, _ = (a.astype(np.float64) for a in arrays)
    np.testing.assert_allclose(z, np.tanh(x @ w) + (x + 1) @ w, rtol=1e-3, atol=1e-2)


def test_a_product_lies_where_its_last_reader_writes():
    program, _, _ = planned(lambda x, w, b: (x * 2.0) @ jg.relu(x.T @ w + b), (300, 400), (300, 128), (128,))
    laid = engine.lay_out(program, 3, 4)
    (k,) = (k for k, s in enumerate(laid.steps) if isinstance(s, Followed))
    assert laid.places[k][laid.steps[k].product.outs[0]] == laid.places[k][laid.written[k][0]] >= 0


def test_an_update_may_be_written_over_the_old_value_unless_the_product_reads_that():
    assert (2, 0) in allowed(lambda x, g, w: [w - (x.T @ g) * 0.1], (200, 160), (200, 144), (160, 144))
    assert (0, 0) not in allowed(lambda w, g: [w - w @ g], (208, 208), (208, 208))
    assert (1, 0) not in allowed(lambda w, g: [g - w @ g], (208, 208), (208, 208))


def test_a_training_step_has_the_bits_of_the_sweep():
    def loss(ws, x):
        for w, b in ws[:-1]:
            x = jg.relu(x @ w + b)
        (w, b) = ws[-1]
        return jg.mean(jg.square(x @ w + b))

    def step(x, *flat):
        ws = [flat[k: k + 2] for k in range(0, len(flat), 2)]
        value, grads = jg.value_and_grad(loss)(ws, x)
        return [value] + [w - g * 0.5 for pair, gs in zip(ws, grads, strict=True)
                          for w, g in zip(pair, gs, strict=True)]
    program, arrays, found = planned(step, (128, 320), (320, 256), (256,), (256, 256), (256,), (256, 16), (16,))
    assert len(found) >= 4
    assert sum(found) >= 1
    assert_bits_of_the_sweep(program, arrays)


def random_steps(rng, n):
    """A Program of products of square matrices, and of what might follow them."""
    def build(*inputs):
        values, rows = list(inputs[:4]), [inputs[4]]
        for _ in range(int(rng.integers(4, 16))):
            x, y, row = (some[rng.integers(len(some))] for some in (values, values, rows))
            kind = rng.integers(10)
            if kind < 4:
                values.append(jg.matmul(x, y) * 0.07 if rng.random() < 0.3 else jg.matmul(x, y))
            elif kind < 7:
                values.append((jg.relu(x + row), x - y * 0.5, jg.tanh(values[-1]), values[-1] * 0.1 + x)[rng.integers(4)])
            elif kind == 7:
                rows.append((jg.sum, jg.max)[rng.integers(2)](values[-1], axis=0) * 0.01)
            elif kind == 8:
                values.append(x - values[-1] * (jg.sum(row[:3]) * 0.1))
            else:
                values.append(values[-1] + jg.matmul(x, y))
        return [*values[-4:], rows[-1] + 0.0]
    return program_of(build, *[(n, n)] * 4, (n,))


@pytest.mark.parametrize("seed", range(30))
def test_random_programs_have_the_bits_of_steps_one_by_one(seed, monkeypatch):
    """Written over inputs, too."""
    rng = np.random.default_rng([6, seed])
    n = (176, 208, 272)[seed % 3]
    program = random_steps(rng, n)
    arrays = [(rng.normal(size=program.aval(v).shape) * 0.1).astype(np.float32) for v in program.inputs.tolist()]
    first = len(program.inputs)
    machine = engine.machine_code(program, first, first + len(program.results), [])
    with monkeypatch.context() as m:
        m.setattr(engine, "followed", lambda steps, divided: list(steps))
        plain = engine.machine_code(program, first, first + len(program.results), [])
    for threads in (2, 5):
        jg.set_num_threads(threads)
        want = run(program, plain, arrays)
        for a, b in zip(run(program, machine, arrays), want, strict=True):
            assert_same_bits(a, b)
        for pair in pairs(program, machine):
            for a, b in zip(run(program, machine, arrays, [pair]), want, strict=True):
                assert_same_bits(a, b)


def test_it_is_shown():
    f = jg.function(_gated)
    f(*(np.ones(s, np.float32) for s in [(128, 256), (512, 256), (128, 512)]))
    assert "matmul (128,256) (512,256); " in f.show()
    assert "BLAS, each block followed in" in f.show()
    assert "columns.reduce_sum.float32" in f.ir()
