"""Batching of every entry and of random Programs against a loop over examples; its place among the transforms."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.aval import AVALS, MAX_DIMENSIONS, aval
from jitgrad.core.dtypes import CODES
from jitgrad.core.form import form
from jitgrad.core.primitive import BY_NAME, OPS, TABLE, Kind, Primitive
from jitgrad.core.record import dispatch, tensor
from jitgrad.core.recorder import Body, Recorder
from jitgrad.execute import oracle
from jitgrad.execute.cpu.plans import plan_of
from jitgrad.transform.higher import CALL, with_results
from jitgrad.transform.vjp import vjp
from jitgrad.transform.vmap import vmap
from programs import FLOAT, random_program
from table import ENTRIES, drawn, dtypes_of, ident, samples
from tolerance import assert_close, assert_same_bits


def aval_of(array):
    return aval(CODES[array.dtype], array.shape)


def recorded(function, *avals):
    """The Program of a function of dry Tensors."""
    with Recorder() as recorder:
        out = function(*(recorder.input(a) for a in avals))
        return recorder.program(out if isinstance(out, tuple) else (out,))


def called(program, *operands):
    """A `call` row."""
    return dispatch(form(CALL, [AVALS[t._aval] for t in operands], {"program": program}), operands)


def run(program, arrays):
    """A Program by the machine."""
    return [None if t is None else t.numpy() for t in plan_of(program).run([tensor(a) for a in arrays])]


def looped(run_one, arrays, batched, size, outs):
    """The results of a function for each example, stacked; ``outs`` are the avals of one."""
    each = [run_one([a[k] if has else a for a, has in zip(arrays, batched, strict=True)]) for k in range(size)]
    return [np.stack([r[i] for r in each]) if size else np.empty((0, *a.shape), a.dtype) for i, a in enumerate(outs)]


def spread(prim, arrays, batched, size, rng):
    """Operands with batch axes: the numbers of the sample in another order in each example; what is sorted stays so."""
    def other(a):
        mixed = rng.permutation(a.ravel()).reshape(a.shape)
        return np.sort(mixed, -1) if prim.name == "searchsorted" and a is arrays[0] else mixed
    return [a if not has else np.stack([other(a) for _ in range(size)]) if size else np.empty((0, *a.shape), a.dtype)
            for a, has in zip(arrays, batched, strict=True)]


def combinations(count):
    return [flags for flags in itertools.product((False, True), repeat=count) if any(flags)]


def check(prim, program, given, batched, size):
    """The batched Program equals a loop, by machine and oracle: bit for bit, but for matrix products, of which one for
    all examples may add in another order."""
    many, flags = vmap(program, batched, size)
    many.verify()
    assert flags == (True,) * len(program.results)
    outs = [program.aval(v) for v in program.results.tolist()]
    agree = assert_close if prim.kind is Kind.CONTRACT else assert_same_bits
    for a, b in zip(run(many, given), looped(lambda one: run(program, one), given, batched, size, outs), strict=True):
        agree(a, b)
    for a, b in zip(oracle.run(many, given), looped(lambda one: oracle.run(program, one), given, batched, size, outs),
                    strict=True):
        assert_close(a, b)


# ---- the table -----------------------------------------------------------------------------------

@pytest.mark.parametrize("prim", ENTRIES, ids=ident)
def test_an_entry_equals_a_loop(prim, rng):
    for dtype in dtypes_of(prim):
        for arrays, params in samples(prim, dtype, rng):
            arrays = [np.asarray(a) for a in arrays]
            program = recorded(lambda *xs, p=params: OPS[prim.name](*xs, **p), *map(aval_of, arrays))
            for batched in combinations(len(arrays)):
                for size in (3, 1, 0):
                    check(prim, program, spread(prim, arrays, batched, size, rng), batched, size)


@pytest.mark.parametrize("prim", ENTRIES, ids=ident)
def test_a_batch_of_batches_equals_loops(prim, rng):
    """Each operand in the inner batch, the outer, both or neither."""
    arrays, params = list(samples(prim, dtypes_of(prim)[-1], rng))[-1]
    arrays = [np.asarray(a) for a in arrays]
    program = recorded(lambda *xs: OPS[prim.name](*xs, **params), *map(aval_of, arrays))
    for inner, outer in itertools.product(combinations(len(arrays)), repeat=2):
        middle = spread(prim, arrays, inner, 2, rng)
        given = [np.stack([np.roll(a, k, 0) if has_too else a for k in range(3)]) if has else a
                 for a, has, has_too in zip(middle, outer, inner, strict=True)]
        once, _ = vmap(program, inner, 2)
        check(prim, once, given, outer, 3)


@pytest.mark.parametrize("prim", [p for p in ENTRIES if p.kind is Kind.ELEMENTWISE and len(p.domains) > 1], ids=ident)
def test_operands_broadcast(prim, rng):
    for shapes in (((), (4,), (2, 1)), ((2, 4), (), (4,)), ((3, 1, 2), (2,), ()), ((0,), (1, 1), ())):
        arrays, params = drawn(prim, dtypes_of(prim)[-1], rng, shapes[: len(prim.domains)])
        program = recorded(lambda *xs, p=params: OPS[prim.name](*xs, **p), *map(aval_of, arrays))
        for batched in combinations(len(arrays)):
            check(prim, program, spread(prim, arrays, batched, 3, rng), batched, 3)


@pytest.mark.parametrize("prim", [p for p in ENTRIES if p.kind is Kind.REDUCE], ids=ident)
@pytest.mark.parametrize("shape, axes", [((9001,), (0,)), ((300, 5), (0,)), ((2, 70, 40), (1, 2)), ((3, 70, 4), (1,))])
def test_long_reductions_keep_their_order(prim, shape, axes, rng):
    x = rng.normal(1, 1e-3, (3, *shape)).astype("float32")
    check(prim, recorded(lambda t: OPS[prim.name](t, axes=axes), aval_of(x[0])), [x], (True,), 3)


LEADS, MATRICES = ((), (1,), (2, 3)), ((4, 3, 5), (1, 3, 5), (4, 3, 1), (1, 3, 1), (4, 1, 5), (4, 0, 5))


@pytest.mark.parametrize("ta", (False, True))
@pytest.mark.parametrize("tb", (False, True))
def test_matrix_products(ta, tb, rng):
    prim = BY_NAME["matmul"]
    for lead, (m, k, n) in itertools.product(LEADS, MATRICES):
        x = rng.normal(size=(*lead, *((k, m) if ta else (m, k))))
        y = rng.normal(size=(*lead, *((n, k) if tb else (k, n))))
        program = recorded(lambda a, b: OPS[prim.name](a, b, ta, tb), aval_of(x), aval_of(y))
        for batched in combinations(2):
            for size in (3, 0):
                check(prim, program, spread(prim, [x, y], batched, size, rng), batched, size)


@pytest.mark.parametrize("function, shapes, batched, product", [
    (lambda w, x: jg.matmul(w, x), ((5, 4), (4,)), (False, True), [(7, 4), (5, 4)]),
    (lambda w, x: jg.matmul(x, w), ((4, 5), (4,)), (False, True), [(7, 4), (4, 5)]),
    (lambda w, x: jg.matmul(x, w), ((4, 5), (3, 4)), (False, True), [(21, 4), (4, 5)])])
def test_a_shared_matrix_meets_all_examples_in_one_product(function, shapes, batched, product):
    many, _ = vmap(recorded(function, *(aval(FLOAT, s) for s in shapes)), batched, 7)
    names = [made.prim.name for made, _, _ in many.rows()]
    assert [[a.shape for a in made.avals] for made, _, _ in many.rows() if made.prim.name == "matmul"] == [product]
    assert {*names} == {"reshape", "matmul"}                 # nothing is moved


def test_an_index_out_of_range_of_its_example_is_no_index_of_the_next():
    for name, x, i, params in (("gather", (5,), (2,), {"axis": 0}), ("scatter_add", (2,), (2,), {"axis": 0, "n": 5}),
                               ("pick", (2, 5), (2,), {}), ("unpick", (2,), (2,), {"n": 5}),
                               ("take_along_axis", (5,), (2,), {"axis": 0}),
                               ("add_along_axis", (2,), (2,), {"axis": 0, "n": 5})):
        index = np.zeros((3, *i), np.int64)
        program = recorded(lambda a, b, n=name, p=params: OPS[n](a, b, **p), aval(FLOAT, x), aval_of(index[0]))
        for bad in (5, -6):
            index[1, 1] = bad
            for batched in combinations(2)[::2]:
                arrays = [np.ones((3, *x) if batched[0] else x), index]
                with pytest.raises(IndexError):
                    run(vmap(program, batched, 3)[0], arrays)


# ---- Programs ------------------------------------------------------------------------------------

def batches(program, rng, batched, size):
    return [rng.uniform(0.5, 1.5, (size, *program.aval(v).shape) if has else program.aval(v).shape)
            for v, has in zip(program.inputs.tolist(), batched, strict=True)]


@pytest.mark.parametrize("seed", range(12))
def test_random_programs_equal_a_loop(seed):
    rng = np.random.default_rng(seed)
    program = random_program(rng, 14)
    for batched in combinations(3)[seed % 2::2]:
        given = batches(program, rng, batched, 4)
        many, flags = vmap(program, batched, 4)
        many.verify()
        assert len(many) < 8 * len(program) and flags[1]
        outs = [program.aval(v) for v in program.results.tolist()]
        want = looped(lambda one: run(program, one), given, batched, 4, outs)
        for got in (run(many, given), oracle.run(many, given)):
            for a, b, has in zip(got, want, flags, strict=True):
                assert_close(a, b if has else b[0], rtol=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_gradients_of_batches_are_batches_of_gradients(seed):
    """An input that all examples share gets the sum of their gradients."""
    rng = np.random.default_rng(seed)
    program = random_program(rng, 10)
    program = with_results(program, program.results.tolist()[1:])
    batched = combinations(3)[seed % 7]
    given, weights = batches(program, rng, batched, 3), rng.normal(size=3)
    many, _ = vmap(program, batched, 3)
    together = run(vjp(many, range(3)), [*given, weights])
    back = vjp(program, range(3))
    each, flags = vmap(back, (*batched, True), 3)
    for got, want, has, flag in zip(together, run(each, [*given, weights]), batched, flags, strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            assert_close(got, want if has else want.sum(0) if flag else want * 3, rtol=1e-8)


def test_rows_that_are_the_same_for_all_examples_stay():
    def function(x, w):
        heavy = jg.sum(jg.exp(w) * 2.0)
        return x * heavy, heavy, x
    program = recorded(function, aval(FLOAT, (3,)), aval(FLOAT, (100, 100)))
    many, flags = vmap(program, (True, False), 5)
    assert flags == (True, False, True)
    assert sum(a.size for made, _, _ in many.rows() for a in made.outs) < 5 * 20 + 21000
    assert vmap(program, [1, 0], 5)[0] is many
    again, flags = vmap(program, (False, False), 5)
    assert flags == (False,) * 3 and [row[0] for row in again.rows()] == [row[0] for row in program.rows()]
    none = with_results(program, [-1, *program.results.tolist()[:1]])
    many, flags = vmap(none, (True, False), 5)
    assert many.results[0] == -1 and flags == (False, True)


def test_calls(rng):
    """Of Programs with several results, of which not all have a batch axis."""
    inner = recorded(lambda x, w: (x * w, jg.exp(w)), aval(FLOAT, (3,)), aval(FLOAT, ()))
    program = recorded(lambda x, w: (*called(inner, x, w), called(inner, x, w)[1] + 1.0),
                       aval(FLOAT, (3,)), aval(FLOAT, ()))
    x, w = rng.normal(size=(4, 3)), rng.normal(size=())
    many, flags = vmap(program, (True, False), 4)
    assert flags == (True, False, False)
    for a, b in zip(run(many, [x, w]), (x * w, np.exp(w), np.exp(w) + 1), strict=True):
        assert_close(a, b)
    for a, b in zip(run(vmap(program, (False, True), 4)[0], [x[0], np.repeat(w, 4)]),
                    (x[:1] * np.repeat(w, 4)[:, None], np.exp(np.repeat(w, 4))), strict=False):
        assert_close(a, b)
    unbatched = recorded(lambda y, x, w: y + called(inner, x, w)[0], *(aval(FLOAT, s) for s in ((3,), (3,), ())))
    many, _ = vmap(unbatched, (True, False, False), 4)
    assert [made.params["program"] for made, _, _ in many.rows() if made.prim is CALL] == [inner]


def test_nothing_is_recorded_around():
    program = recorded(lambda x: jg.exp(x) + 1.0, aval(FLOAT, (3,)))
    with Body() as body, jg.GradientTape() as tape:
        body.input(aval(FLOAT, (3,)))
        vmap(program, (True,), 6)
    assert body.rows == [] and len(body.avals) == 1 and tape.watched_variables() == ()


# ---- random numbers ------------------------------------------------------------------------------

STATE = np.array([7, 11, 5])


@pytest.mark.parametrize("through_call", (False, True))
def test_each_example_draws_its_own_numbers(through_call):
    """Also two batches deep; an example's numbers depend on neither the other examples nor their count."""
    def draw(state):
        return jg.random_bits(state, 6, "int64")
    program = recorded(draw, aval_of(STATE))
    if through_call:
        program = recorded(lambda state, p=program: called(p, state), aval_of(STATE))
    many, flags = vmap(program, (False,), 4)
    assert flags == (True,)
    (got,) = run(many, [STATE])
    assert got.shape == (4, 6)
    assert len(np.unique(got)) == got.size
    np.testing.assert_array_equal(run(vmap(program, (False,), 9)[0], [STATE])[0][:4], got)
    deeper, flags = vmap(many, (False,), 3)
    (both,) = run(deeper, [STATE])
    assert flags == (True,) and both.shape == (3, 4, 6) and len(np.unique(both)) == both.size
    np.testing.assert_array_equal(oracle.run(deeper, [STATE])[0], both)
    states = np.array([STATE, [7, 11, 9], [8, 11, 5]])
    (mixed,) = run(vmap(many, (True,), 3)[0], [states])
    np.testing.assert_array_equal(mixed[0], got)
    np.testing.assert_array_equal(mixed[1][:, :4], got[:, 2:])          # four words further in each example's stream
    assert not np.isin(mixed[2], mixed[:2]).any()


def test_numbers_of_examples_are_uniform_and_not_correlated():
    many, _ = vmap(recorded(lambda state: jg.random_bits(state, 2, "float64"), aval_of(STATE)), (False,), 20000)
    (got,) = run(many, [STATE])
    flat = got.reshape(-1)
    counts = np.histogram(flat, 20, (0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 43.8                   # chi-squared, 19 degrees: one in a thousand
    for lag in (1, 2, 3):
        assert abs(np.corrcoef(flat[lag:], flat[:-lag])[0, 1]) < 4 / np.sqrt(len(flat))


# ---- what cannot be batched ----------------------------------------------------------------------

def test_rows_with_effects():
    """One that is the same for all examples stays, though it has no outputs."""
    effect = Primitive(name="look", code=BY_NAME["exp"].code, kind=Kind.EFFECT, body=lambda x: None, vjp=None,
                       aval=lambda x, of: (), ref=lambda x: (), samples=None, operands=("x",), params=("of",),
                       domains=("any",))

    def function(x, y):
        recorder = x._owner
        assert recorder.append(form(effect, [AVALS[y._aval]], {"of": "test"}), [y]) == ()
        return x + y
    program = recorded(function, *[aval(FLOAT, (2,))] * 2)
    many, flags = vmap(program, (True, False), 3)
    many.verify()
    assert [len(outs) for _, _, outs in many.rows()] == [0, 1] and flags == (True,)
    with pytest.raises(TypeError, match=r"vmap: look .* a number was read from a batched value.*where or cond"):
        vmap(program, (False, True), 3)


def test_errors():
    wide = aval(FLOAT, (1,) * MAX_DIMENSIONS)
    most = aval(FLOAT, (1,) * (MAX_DIMENSIONS - 1))
    with pytest.raises(ValueError, match="vmap: an input has shape .* more than 16 dimensions"):
        vmap(recorded(jg.exp, wide), (True,), 2)
    with pytest.raises(ValueError, match="vmap: a result of broadcast_to has shape .* more than 16 dimensions"):
        vmap(recorded(lambda x: jg.broadcast_to(x, wide.shape), most), (True,), 2)
    assert run(vmap(recorded(jg.exp, most), (True,), 2)[0], [np.zeros((2, *most.shape))])[0].shape == (2, *most.shape)
    custom = recorded(lambda x, y: dispatch(form(BY_NAME["custom"], [AVALS[x._aval]], {"outs": (x._aval,)}), [x]) + y,
                      *[aval(FLOAT, (2,))] * 2)
    with pytest.raises(TypeError, match="vmap: a function with a gradient of its own .* cannot be batched"):
        vmap(custom, (True, False), 2)
    assert vmap(custom, (False, True), 2)[1] == (True,)
    with pytest.raises(ValueError, match="1 flags for 2 inputs"):
        vmap(custom, (True,), 2)
    with pytest.raises(LookupError, match="ruleless: has no batching rule"):
        ruleless = dataclasses.replace(BY_NAME["argmax"], name="ruleless", code=BY_NAME["exp"].code, batch=None)
        vmap(recorded(lambda x: dispatch(form(ruleless, [AVALS[x._aval]], {"axis": 0}), [x]), most), (True,), 2)


def test_every_entry_has_a_rule():
    by_kind = (Kind.ELEMENTWISE, Kind.REDUCE, Kind.SCAN, Kind.EFFECT)
    assert [p.name for p in TABLE if p.batch is None and p.kind not in by_kind] == []
