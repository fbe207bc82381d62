"""simplify: the same bits from fewer rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import jitgrad as jg
from jitgrad import ops
from jitgrad.core import backend
from jitgrad.core.aval import AVALS, aval
from jitgrad.core.dtypes import CODES, DTYPES
from jitgrad.core.form import form
from jitgrad.core.primitive import BY_NAME, OPS, TABLE, Kind, Primitive, takes
from jitgrad.core.program import programs_in
from jitgrad.core.record import dispatch, tensor
from jitgrad.core.recorder import Recorder
from jitgrad.execute.cpu.plans import plan_of
from jitgrad.transform import control
from jitgrad.transform.higher import CALL, inlined
from jitgrad.transform.prune import pruned
from jitgrad.transform.simplify import simplify
from jitgrad.transform.vjp import vjp
from programs import arguments, random_body, random_program
from table import ident

RUN = backend.current().run
SPECIAL = (0.0, -0.0, 1.0, -1.0, 2.5, np.inf, -np.inf, np.nan, -np.nan, 1e-310, 7.0, -3.5)
F4, I4, B1 = "float32", "int32", "bool"


def special(shape, dtype, shift=0):
    """An array of numbers that rules are wrong about first."""
    numbers = np.roll(np.resize(np.array(SPECIAL), np.prod(shape, dtype=int)), shift).reshape(shape)
    kind = np.dtype(dtype).kind
    return (numbers if kind == "f" else np.nan_to_num(numbers, posinf=9, neginf=-9) if kind == "i"
            else numbers > 0).astype(dtype)


def recorded(build, *avals):
    """A Program of dry inputs of (shape, dtype)."""
    recorder = Recorder()
    made = build(*(recorder.input(aval(CODES[np.dtype(dtype)], shape)) for shape, dtype in avals))
    return recorder.program(made if isinstance(made, list) else [made])


def answers(program, arrays):
    out = plan_of(program).run([tensor(a) for a in arrays])
    return [None if t is None else (t.shape, t.dtype, t.numpy().tobytes()) for t in out]


def agreed(program, arrays):
    """The simplified Program, which is legal, has the same inputs and results, and is simple already."""
    small = simplify(program, RUN)
    small.verify()
    assert small.avals[small.inputs].tolist() == program.avals[program.inputs].tolist()
    assert len(small) <= len(program)
    assert answers(small, arrays) == answers(program, arrays), f"{program.show()}\n{small.show()}"
    again = simplify(small, RUN)
    assert (again.attr.tolist(), again.operands.tolist(), again.results.tolist()) == (
        small.attr.tolist(), small.operands.tolist(), small.results.tolist())
    return small


def cut(build, *avals):
    """Rows before and after, on special numbers."""
    program = recorded(build, *avals)
    return len(program), len(agreed(program, [special(shape, dtype) for shape, dtype in avals]))


# ---- random Programs -----------------------------------------------------------------------------

@pytest.mark.parametrize("seed", range(30))
def test_random_programs_keep_their_bits(seed):
    rng = np.random.default_rng(seed)
    program = random_program(rng, 12)
    small = agreed(program, arguments(program, rng))
    assert len(small) < len(program)


def _unary(rng, x):
    """One of the rows that rules are about."""
    shape = x.shape
    flat = jg.reshape(x, (x.size,)) if x.ndim else x
    choices = [lambda: -x, lambda: ops.reshape(x, shape=shape), lambda: jg.abs(x), lambda: ops.stop_gradient(x),
               lambda: jg.reshape(flat, shape), lambda: ops.positive(x), lambda: x ** int(rng.integers(0, 4)),
               lambda: ops.broadcast_to(ops.broadcast_to(x, shape=(1, *shape)), shape=(2, *shape)),
               lambda: ops.permute_dims(x, axes=tuple(int(a) for a in rng.permutation(x.ndim))),
               lambda: ops.slice(x, spans=tuple((0, n, 1) if rng.integers(2) else (n - 1, n, -1) for n in shape)),
               lambda: ops.cast(ops.cast(x, dtype=("float64", "int32", "bool")[rng.integers(3)]), dtype=F4),
               lambda: ops.reduce_sum(x, axes=()), lambda: ops.reduce_max(x, axes=()), lambda: jg.relu(x),
               lambda: jg.sum(x), lambda: ops.square(x)]
    return choices[rng.integers(len(choices))]()


def _binary(rng, x, y):
    if jg.core.aval.broadcast_shapes(x.shape, y.shape) is None:
        y = jg.sum(y)
    pair = (x, y) if rng.integers(2) else (y, x)
    name = ("add", "subtract", "multiply", "divide", "maximum", "where")[rng.integers(6)]
    return ops.where(x > y, *pair) if name == "where" else OPS[name](*pair)


@pytest.mark.parametrize("seed", range(60))
def test_random_programs_over_the_rules_keep_their_bits(seed):
    rng = np.random.default_rng(1000 + seed)
    recorder = Recorder()
    shapes = [(), (3,), (2, 3), (4, 1, 3)]
    avals = [aval(CODES[np.dtype(F4)], shapes[i]) for i in rng.integers(4, size=2)]
    values = [recorder.input(a) for a in avals]
    numbers = [tensor(np.float32(n)) for n in (0.0, -0.0, 1.0, -1.0, np.nan, np.inf)]
    numbers += [tensor(np.full((3,), n, F4)) for n in (1, -0.0)] + [tensor(special((2, 3), F4))]
    for _ in range(25):
        x = values[rng.integers(len(values))]
        if x.size > 200:
            continue
        pool = numbers if rng.integers(3) == 0 else values
        y = pool[rng.integers(len(pool))]
        values.append(_unary(rng, x) if rng.integers(2) else _binary(rng, x, y))
    program = recorder.program([*values[-6:], values[0], None, values[-1]])
    small = agreed(program, [special(a.shape, F4, int(rng.integers(9))) for a in avals])
    assert len(small) < len(program)


# ---- the table -----------------------------------------------------------------------------------

RULED = [(p, d) for p in TABLE if p.exact and p.kind is Kind.ELEMENTWISE for d in DTYPES if takes(p, d)]


@pytest.mark.parametrize(("prim", "dtype"), RULED, ids=ident)
def test_entries_with_rules_keep_special_bits(prim, dtype):
    """Each entry on itself, on one operand twice, and on a known number: whatever fires, fires rightly."""
    shape, op = (2, 6), OPS[prim.name]
    numbers = [np.array(n) if dtype.kind == "f" else np.nan_to_num(n, posinf=9, neginf=-9)
               for n in (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan)]
    params = [p for _, p in prim.samples(np.random.default_rng(0))] if prim.params else [{}]
    if prim.name == "cast":
        params = [{"dtype": d.name} for d in DTYPES]
    domains = [np.dtype(B1) if d == "bool" else dtype for d in prim.domains]
    avals = [(shape, d) for d in domains]
    for given in params:
        for k, n in itertools.product(range(len(domains)), numbers):
            known = tensor(np.asarray(n).astype(domains[k]))
            program = recorded(lambda *xs, k=k, known=known, given=given: op(*xs[:k], known, *xs[k + 1:], **given),
                               *avals)
            agreed(program, [special(shape, d) for d in domains])
        for then in params:
            build = (lambda *xs, given=given, then=then: op(*[op(*xs, **given)] * len(xs), **then)) \
                if "bool" not in prim.domains or dtype.kind == "b" else \
                (lambda c, *xs, given=given: op(c, *[op(c, *xs)] * 2, **given))
            agreed(recorded(build, *avals), [special(shape, d, i) for i, d in enumerate(domains)])


# ---- rules, each with a near miss: (rows before, rows after) --------------------------------------

V, M, S = ((4,), F4), ((3, 4), F4), ((), F4)
ONES, TRUE = np.ones(4, F4), np.array([True] * 4)
FIRES = {
    "x + -0.0": (lambda x: x + -0.0, V, lambda x: x + 0.0),
    "-0.0 + x": (lambda x: ops.add(-0.0, x), V, lambda x: ops.add(0.0, x)),
    "n + 0": (lambda x: x + 0, ((4,), I4), lambda x: x + 1),
    "x - 0.0": (lambda x: x - 0.0, V, lambda x: x - -0.0),
    "x * 1": (lambda x: x * 1, V, lambda x: x * -1),
    "x * ones": (lambda x: x * tensor(ONES), V, lambda x: x * tensor(special(4, F4))),
    "x / 1": (lambda x: x / 1, V, lambda x: 1 / x),
    "x ** 1": (lambda x: x ** 1, V, lambda x: x ** 3),
    "-(-x)": (lambda x: ops.negative(-x), V, lambda x: -jg.abs(-x)),
    "positive": (lambda x: ops.positive(x), V, lambda x: jg.abs(x)),
    "relu of relu": (lambda x: jg.relu(jg.relu(x)), V, lambda x: jg.relu(jg.sin(x)), 1),
    "max(x, x)": (lambda x: jg.maximum(x, x), V, lambda x: jg.maximum(x, x + 0.0)),
    "where(True)": (lambda x: ops.where(tensor(TRUE), x, -x), V,
                    lambda x: ops.where(tensor(np.array([True, False] * 2)), x, -x)),
    "where(c, x, x)": (lambda x: ops.where(x > 0, x, x), V, lambda x: ops.where(x > 0, x, x + 0.0)),
    "cast to its dtype": (lambda x: ops.cast(x, dtype=F4), V, lambda x: ops.cast(x, dtype=I4)),
    "cast there and back": (lambda x: ops.cast(ops.cast(x, dtype="float64"), dtype=F4), V,
                            lambda x: ops.cast(ops.cast(x, dtype="int64"), dtype=F4)),
    "int64 is no float64": (lambda x: ops.cast(ops.cast(x, dtype="float64"), dtype=I4), ((4,), I4),
                            lambda x: ops.cast(ops.cast(x, dtype="float32"), dtype=I4)),
    "reshape to its shape": (lambda x: ops.reshape(x, shape=(4,)), V, lambda x: ops.reshape(x, shape=(2, 2))),
    "reshape and back": (lambda x: jg.reshape(jg.reshape(x, (2, 6)), (3, 4)), M,
                         lambda x: ops.slice(jg.reshape(x, (2, 6)), spans=((0, 2, 1), (5, 6, -1)))),
    "transpose twice": (lambda x: ops.permute_dims(ops.permute_dims(x, axes=(1, 0)), axes=(1, 0)), M,
                        lambda x: ops.permute_dims(jg.sin(ops.permute_dims(x, axes=(1, 0))), axes=(1, 0))),
    "flip twice": (lambda x: jg.flip(jg.flip(x)), M, lambda x: jg.flip(jg.sin(jg.flip(x)))),
    "stop_gradient": (lambda x: ops.stop_gradient(x), V, lambda x: ops.slice(x, spans=((0, 3, 1),))),
    "max of one": (lambda x: ops.reduce_max(x, axes=(0,)), ((1, 4), F4), lambda x: ops.reduce_max(x, axes=(1,))),
    "sum of one": (lambda x: ops.reduce_sum(x, axes=(0,)), ((1, 4), I4), lambda x: ops.reduce_sum(x, axes=(1,))),
    "x << 0": (lambda x: ops.bitwise_left_shift(x, 0), ((4,), I4), lambda x: ops.bitwise_left_shift(x, 1)),
    "x & -1": (lambda x: x & -1, ((4,), I4), lambda x: x & 1),
    "not not": (lambda x: ops.logical_not(ops.logical_not(x)), ((4,), B1),
                lambda x: ops.logical_not(ops.logical_xor(x, True))),
}


@pytest.mark.parametrize("name", FIRES)
def test_exact_algebra(name):
    build, given, miss, *left = FIRES[name]
    assert cut(build, given)[1] == (left[0] if left else 0)
    before, after = cut(miss, given)
    assert after == before > 0


def test_minus_zero_survives():
    """x + 0.0, and the sum of one float, make 0.0 of -0.0."""
    for build in (lambda x: x + 0.0, lambda x: ops.reduce_sum(x, axes=()), lambda x: jg.where(x == 0, 0.0, x)):
        program = recorded(build, V)
        minus = np.full(4, -0.0, F4)
        assert len(agreed(program, [minus])) == len(program)
        assert not np.signbit(plan_of(simplify(program, RUN)).run([tensor(minus)])[0].numpy()).any()


def test_squares_meet():
    assert cut(lambda x: [x * x, x ** 2, ops.square(x)], V) == (3, 1)
    assert cut(lambda x: [x * -x], V) == (2, 2)


def test_common_rows_are_one():
    assert cut(lambda x: [jg.sin(x), jg.sin(x), jg.sin(x) * jg.cos(x), jg.sin(x) * jg.cos(x)], V) == (8, 3)
    assert cut(lambda x, y: [x + y, y + x], V, V) == (2, 2)           # which NaN wins depends on the order
    assert cut(lambda x: [x * 2, ops.multiply(2, x)], V) == (2, 1)
    assert cut(lambda x: [x * np.float32(np.nan), ops.multiply(np.float32(np.nan), x)], V) == (2, 2)
    assert cut(lambda x, y: [x + y, y + x, x == y, y == x], ((4,), I4), ((4,), I4)) == (4, 2)
    assert cut(lambda x, y: [x == y, y == x, x < y, y < x], V, V) == (4, 3)
    assert cut(lambda x: [jg.sum(x, 0), jg.sum(x, 1)], M)[1] > 2


def test_equal_constants_are_one():
    build = recorded(lambda x: [x * tensor(np.float32(3)), x * tensor(np.float32(3)), x * tensor(np.float32(-0.0)),
                                x * tensor(np.float32(0.0)), x * tensor(np.float64(3).astype(F4))], V)
    small = agreed(build, [special(4, F4)])
    assert len(small) == 3 and len(small.constants) == 3


def test_broadcasting_is_left_to_elementwise_rows():
    wide = lambda x: ops.broadcast_to(x, shape=(3, 4))  # noqa: E731
    assert cut(lambda x, y: wide(x) + y, V, M) == (2, 1)
    assert cut(lambda x, y: wide(x) + wide(y), V, ((3, 1), F4)) == (3, 1)
    assert cut(lambda x, y: wide(x) + wide(y), V, V) == (3, 2)        # one of them gives the shape
    assert cut(lambda x: jg.sum(wide(x)), V) == cut(lambda x: jg.sum(jg.broadcast_to(x, (3, 4))), V)
    assert cut(lambda x: wide(x), V) == (1, 1)
    assert cut(lambda s, y: jg.reshape(ops.broadcast_to(s, shape=(12,)), (3, 4)) * y, S, M) == (3, 1)
    full = recorded(lambda y: y * tensor(np.full((3, 4), 7, F4)), M)
    small = agreed(full, [special((3, 4), F4)])
    assert [t.shape for t in small.constants.values()] == [()]


def put(x, first, n=7, axis=1):
    """Zeros of ``n`` along an axis of a matrix, and ``x`` from ``first`` on."""
    spans = tuple((first, m, 1) if k == axis else (0, m, 1) for k, m in enumerate(x.shape))
    return ops.embed(x, shape=tuple(n if k == axis else m for k, m in enumerate(x.shape)), spans=spans)


def test_pieces_side_by_side_are_assembled():
    def names(build, *avals):
        program = agreed(recorded(build, *avals), [special(*a, k) for k, a in enumerate(avals)])
        return sorted(made.prim.name for made, _, _ in program.rows())
    three = [((2, n), F4) for n in (3, 1, 3)]
    for order in itertools.permutations((0, 1, 2)):
        def summed(*given, order=order):
            x, (a, b, c) = given[3:], (put(given[k], (0, 3, 4)[k]) for k in order)
            return a + b + c if not x else x[0] + a + b + c
        assert names(summed, *three) == ["add"] * 3 + ["concat"] * 2
        assert names(summed, *three, ((2, 7), F4)) == ["add"] * 4 + ["concat"] * 2
    for missed in (lambda a, b, c: put(a, 0) + put(b, 3), lambda a, b, c: put(a, 0) + put(b, 3) + put(c, 3),
                   lambda a, b, c: put(a, 0) + put(b, 2) + put(c, 4), lambda a, b, c: put(c, 3) + put(b, 3) + put(a, 0),
                   lambda a, b, c: put(a, 0) + (put(b, 3) + put(c, 4))):
        assert "concat" not in names(missed, *three)
    assert "concat" not in names(lambda a, b, c: put(a, 0) + put(b, 3) + put(c, 4), *(((2, n), I4) for n in (3, 1, 3)))


def late(recorder, name, *operands, **params):
    """A row also where all operands are known, as pasted derivatives have them."""
    return recorder.append(form(BY_NAME[name], [AVALS[t._aval] for t in operands], params), operands)


def test_constants_are_folded():
    two, recorder = tensor(np.float32(2)), Recorder()
    x = recorder.input(aval(3, (4,)))
    sine = late(recorder, "sin", two)
    large = late(recorder, "broadcast_to", sine, shape=(2000,))
    whole = late(recorder, "floor", late(recorder, "sin", two))
    program = recorder.program([x * sine, x + late(recorder, "exp", sine), jg.sum(large), x - whole, sine, two])
    small = agreed(program, [special(4, F4)])
    names = [f.prim.name for f, _, _ in small.rows()]
    assert names == ["broadcast_to", "multiply", "add", "reduce_sum", "reshape"]       # not made larger; x - 0.0 is x
    assert small.results[3] == small.inputs[0]
    alone = [f.prim.name for f, _, _ in simplify(program).rows()]                      # nobody to evaluate
    assert "sin" in alone and "exp" in alone


def test_results_may_be_inputs_constants_or_repeat():
    two = tensor(np.float32(2))
    small = agreed(recorded(lambda x: [two, x * 1, x, ops.negative(-x), two * 1], V), [special(4, F4)])
    assert len(small) == 0 and len({*small.results.tolist()}) == 2


def test_dead_rows_go_and_inputs_stay():
    recorder = Recorder()
    xs = [recorder.input(aval(3, (4,))) for _ in range(3)]
    jg.exp(xs[0] * 2)
    small = agreed(recorder.program([jg.sin(xs[1]), None]), [special(4, F4)] * 3)
    assert len(small) == 1 and len(small.inputs) == 3 and small.results[1] == -1


# ---- effects and Programs within -------------------------------------------------------------------

def test_effects_stay_in_their_order_with_their_operands():
    """Rows without outputs: between the same rows as before, each as often as it was there."""
    def build(x, sine, cosine):
        OPS["guard"](jg.sin(x * 1), sine)
        OPS["guard"](jg.sin(x), sine)
        OPS["guard"](ops.positive(jg.cos(x)), cosine)
        jg.exp(x)
        return x
    program, x = recorded(build, V, V, V), special(4, F4)
    small = agreed(program, [x, jg.sin(x).numpy(), jg.cos(x).numpy()])
    assert [(f.prim.name, ids) for f, ids, _ in small.rows()] == [
        ("sin", (0,)), ("guard", (3, 1)), ("guard", (3, 1)), ("cos", (0,)), ("guard", (4, 2))]
    for wrong in (1, 2):
        given = [x, jg.sin(x), jg.cos(x)]
        given[wrong] = given[wrong] + 1
        with pytest.raises(RuntimeError, match="a guard of the recorded program does not hold"):
            answers(small, given)
    assert len(pruned(program)) == 0 and len(pruned(program, keep_effects=True)) == len(program) - 1


def called(program, *operands):
    return dispatch(form(CALL, [AVALS[t._aval] for t in operands], {"program": program}), operands)


def test_calls_are_opened():
    """To the last level; what they hold meets what is around them, effects too."""
    inner = recorded(lambda x: [jg.sin(x) * 3.0, x], V)
    middle = recorded(lambda x: [jg.sin(x), *called(inner, x), called(recorded(lambda y: y * 1, V), x)], V)
    program = recorded(lambda x: [*called(middle, x), *called(middle, jg.sin(x)), jg.sin(x)], V)
    small = agreed(program, [special(4, F4)])
    assert [f.prim.name for f, _, _ in small.rows()] == ["sin", "multiply", "sin", "multiply"]
    assert len(inlined(program)) == 2 * 4 + 2
    checked = recorded(lambda x, y: [jg.cos(x), OPS["guard"](x, y)][:1], V, V)
    small = agreed(recorded(lambda x: [x, called(checked, x, x)][:1], V), [special(4, F4)])
    assert [f.prim.name for f, _, _ in small.rows()] == ["guard"]


def test_programs_in_params_are_simplified():
    """Of any entry that holds some; a row with a Python rule, which holds none, is never another's."""
    loop = Primitive(name="twice", code=60_001, kind=Kind.HIGHER, body=lambda: None, vjp=None, samples=None,
                     aval=lambda x, *, bodies: x, ref=lambda *xs: (), operands=("x",), params=("bodies",),
                     domains=("any",))
    body = recorded(lambda x: jg.sin(x * 1) + jg.sin(x), V)
    cut_row = form(BY_NAME["custom"], [aval(3, (4,))], {"outs": (aval(3, (4,)).id,)})
    program = recorded(lambda x: [dispatch(form(loop, [aval(3, (4,))], {"bodies": (body, 3)}), [x]),
                                  dispatch(cut_row, [x]), dispatch(cut_row, [x])], V)
    small = simplify(program, RUN)
    small.verify()
    assert len(small) == 3
    held, times = small.row(0)[0].params["bodies"]
    assert len(held) == 2 and times == 3


@pytest.mark.parametrize("seed", range(8))
def test_choices_and_loops_keep_their_bits(seed):
    """And their derivatives: what runs inside is simplified, too."""
    rng = np.random.default_rng(seed)
    body, turn, other = (random_body(rng, [(3,), ()], [(3,), ()], 5) for _ in range(3))

    def around(c, x, y):
        x, y = control.scan([x, y], body, 0, 2, 3)
        counted = recorded(lambda x, y, i: [*control.steps.emit(i._owner, turn, [x, y]), i + 1],
                           ((3,), "float64"), ((), "float64"), ((), I4))
        below = recorded(lambda x, y, i: i < 3, ((3,), "float64"), ((), "float64"), ((), I4))
        x, y, *_ = control.while_loop([x, y, tensor(np.int32(0))], below, counted, 0)
        return [*control.cond(c, [x * 1, y], body, other)]
    program = recorded(around, ((), B1), ((3,), "float64"), ((), "float64"))
    arrays = [np.bool_(seed % 2), rng.uniform(0.5, 1.5, 3), rng.uniform(0.5, 1.5, ())]
    for given in (program, vjp(program, [1, 2])):
        values = [*arrays, *(np.ones(given.aval(v).shape) for v in given.inputs.tolist()[3:])]
        small = simplify(given, RUN)
        small.verify()
        assert answers(small, values) == answers(given, values)
        assert sum(rows_within(small)) < sum(rows_within(given))


def rows_within(program):
    """Rows of a Program and of those that its params hold."""
    yield len(program)
    for made, _, _ in program.rows():
        for _, inner in programs_in(made.params):
            yield from rows_within(inner)


def test_source_lines_stay_with_their_rows():
    program = recorded(lambda x: [jg.exp(x), jg.sin(x) * 1, jg.cos(x)], V)
    program.lines = ("a.py:1", "a.py:2", "a.py:3", "a.py:4")
    program.results = program.results[1:]
    small = simplify(program, RUN)
    assert small.lines == ("a.py:2", "a.py:4") and "a.py:4" in small.show()
