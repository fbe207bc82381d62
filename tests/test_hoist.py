"""What leaves the bodies of scans: the same numbers as where it stays, and as a plain Python loop's."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.program import programs_in
from jitgrad.testing import check_grads
from jitgrad.transform.control import outside

TOLERANCE = {"float64": {"rtol": 1e-10, "atol": 1e-10}, "float32": {"rtol": 2e-4, "atol": 2e-4}, "int32": {"rtol": 0}}


def looped(f, init, xs, length, reverse=False):
    """What `jg.scan` is short for."""
    carry, ys = init, []
    for i in reversed(range(length)) if reverse else range(length):
        carry, y = f(carry, [x[i] for x in xs])
        ys.append(y)
    return carry, [jg.stack(list(y), axis=0) for y in zip(*(reversed(ys) if reverse else ys), strict=True)]


def rows_of(program):
    """Names of all rows, by place: those in loops apart."""
    outer = [made.prim.name for made, _, _ in program.rows()]
    held = [rows_of(p) for made, _, _ in program.rows() for _, p in programs_in(made.params)]
    inner = [name for own, deeper in held for name in (*own, *deeper)]
    return outer, inner


def inside(f, *args):
    """How many products the loops of a recorded function have in their bodies."""
    return rows_of(jg.function(f).program(*args))[1].count("matmul")


def close(got, want, dtype="float64"):
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a.numpy(), b.numpy(), **TOLERANCE[dtype])


# ---- random bodies ---------------------------------------------------------------------------------

B, D = 3, 2


ROWS = (lambda x, y, m, u, w: x @ m, lambda x, y, m, u, w: x @ m, lambda x, y, m, u, w: x @ (u * 2),
        lambda x, y, m, u, w: jg.matmul(x, jg.matrix_transpose(m)),
        lambda x, y, m, u, w: jg.matrix_transpose(m @ jg.matrix_transpose(x)),
        lambda x, y, m, u, w: x + w, lambda x, y, m, u, w: x * y, lambda x, y, m, u, w: x - y,
        lambda x, y, m, u, w: jg.maximum(x, y), lambda x, y, m, u, w: m[:1] + x,
        lambda x, y, m, u, w: jg.concat([x[:, 1:], y[:, :1]], axis=1),
        lambda x, y, m, u, w: x + jg.sum(y * w, axis=0, keepdims=True),
        lambda x, y, m, u, w: jg.sum(x[:, :, None] * y[:, None, :], axis=1))

# what becomes of a sum of products p, and of a sum of rows
TOTALS = (lambda total, p, more, same: total + p, lambda total, p, more, same: p + total,
          lambda total, p, more, same: total - p, lambda total, p, more, same: total + jg.matrix_transpose(p) + more,
          lambda total, p, more, same: total + (p + same), lambda total, p, more, same: total)
SUMS = (lambda row, x, y, z, w: row + jg.sum(y, axis=0), lambda row, x, y, z, w: row + y[0],
        lambda row, x, y, z, w: row + w, lambda row, x, y, z, w: jg.sum(x * z, axis=0) + row)


class Body:
    """A body drawn at random, the same each time it is called. The carry: states [B, D], a sum of products [D, D], a
    sum of rows [D], an entry that stays. The consts: matrices [D, D], a vector [D]."""

    def __init__(self, seed, dtype):
        self.seed, self.dtype = seed, dtype
        rng = np.random.default_rng(seed)
        self.rows, self.length = rng.integers(2, 9), int(rng.choice([0, 1, 2, 3, 5, 6]))
        self.reverse = bool(rng.integers(2))

    def arguments(self):
        rng = np.random.default_rng(self.seed + 1)
        shapes = [(B, D), (B, D), (D, D), (D,), (B, D), (D, D), (D, D), (D,), (self.length, B, D), (self.length, B, D)]
        if self.dtype == "int32":
            return [jg.constant(rng.integers(-3, 4, shape), "int32") for shape in shapes]
        return [jg.constant(rng.uniform(-1, 1, shape), self.dtype) for shape in shapes]

    def step(self, u, v, w):
        def f(carry, xs):
            rng = np.random.default_rng(self.seed)

            def drawn(some):
                return some[rng.integers(len(some))]
            h, s, total, row, still = carry
            values = [h, s, still, *xs]
            for _ in range(self.rows):
                out = drawn(ROWS)(drawn(values), drawn(values), drawn((u, v)), u, w)
                values.append(out if self.dtype == "int32" else jg.tanh(out))
            x, y, z = drawn(values), drawn(values), drawn(values)
            total = drawn(TOTALS)(total, jg.matrix_transpose(x) @ y, jg.matrix_transpose(z) @ x, u * v)
            row = drawn(SUMS)(row, x, y, z, w)
            ys = [drawn(values), values[-1] @ v + w, *([total] if rng.integers(4) == 0 else []), xs[0]]
            return (values[-1], drawn(values) if rng.integers(2) else s, total, row, still), ys
        return f

    def run(self, scan, h, s, total, row, still, u, v, w, *xs):
        carry, ys = scan(self.step(u, v, w), (h, s, total, row, still), list(xs))
        return [*carry, *ys]

    def scanned(self, *args):
        return self.run(lambda f, init, xs: jg.scan(f, init, xs, reverse=self.reverse), *args)

    def looped(self, *args):
        return self.run(lambda f, init, xs: looped(f, init, xs, self.length, self.reverse), *args)

    def loss(self, run):
        def loss(*args):
            out = run(*args)
            return sum(jg.sum(x * x * (0.3 + k)) for k, x in enumerate(out))
        return loss


def replayed(f, args):
    """The answer of a recorded function that does not run Python any more."""
    made = jg.function(f)
    made(*args)
    return made(*args)


@pytest.mark.parametrize("dtype", ("float64", "float32", "int32"))
@pytest.mark.parametrize("first", range(0, 80, 20))
def test_random_bodies(dtype, first):
    left = 0
    for seed in range(first, first + 20):
        body = Body(seed, dtype)
        args = body.arguments()
        got = replayed(body.scanned, args)
        if body.length:
            close(got, body.looped(*args), dtype)
        close(got, body.scanned(*args), dtype)
        outer, _ = rows_of(jg.function(body.scanned).program(*args))
        left += "matmul" in outer
    assert left >= 8                               # most bodies that run twice or more have something to give


@pytest.mark.parametrize("first", range(0, 80, 20))
def test_gradients_of_random_bodies(first):
    left = 0
    for seed in range(first, first + 20):
        body = Body(seed, "float64")
        args = body.arguments()
        every = tuple(range(len(args)))
        grads = jg.grad(body.loss(body.scanned), argnums=every)
        got = replayed(grads, args)
        close(got, grads(*args))
        if body.length:
            close(got, jg.grad(body.loss(body.looped), argnums=every)(*args))
        left += "matmul" in rows_of(jg.function(grads).program(*args))[0]
    assert left >= 8


@pytest.mark.parametrize("seed", range(12))
def test_higher_derivatives_and_batches_of_random_bodies(seed):
    body = Body(seed, "float64")
    args = body.arguments()
    if not body.length:
        pytest.skip("a plain loop without rounds leaves no shapes")
    args, fixed = args[:8], args[8:]
    directions = [jg.constant(np.random.default_rng(k).normal(size=x.shape)) for k, x in enumerate(args)]

    def directed(run):
        def f(*given):
            grads = jg.grad(body.loss(lambda *a: run(*a, *fixed)), argnums=tuple(range(8)))(*given)
            return sum(jg.sum(g * d) for g, d in zip(grads, directions, strict=True))
        return jg.grad(f, argnums=tuple(range(8)))
    close(replayed(directed(body.scanned), args), directed(body.looped)(*args))

    def pushed(run):
        return lambda *given: jg.jvp(lambda *a: run(*a, *fixed), given, tuple(directions))[1]
    close(replayed(pushed(body.scanned), args), pushed(body.looped)(*args))

    def mapped(run):
        def of_two(*given):
            grads = jg.grad(body.loss(run), argnums=(0, 5, 7))
            return jg.vmap(lambda h, u, x: grads(h, *given[1:5], u, *given[6:8], x, fixed[1]))(
                jg.stack([given[0], given[0] * 0.5]), jg.stack([given[5], given[6]]),
                jg.stack([fixed[0], fixed[0] * 0.7]))
        return of_two
    close(replayed(mapped(body.scanned), args), mapped(body.looped)(*args))


@pytest.mark.parametrize("seed", range(12))
def test_finite_differences_of_random_bodies(seed):
    body = Body(seed, "float64")
    made = jg.function(body.loss(body.scanned))
    check_grads(made, body.arguments(), order=2 if body.length else 1)


# ---- what leaves, and what stays -------------------------------------------------------------------

def normal(*shape, seed=0, dtype="float32"):
    return jg.constant(np.random.default_rng(seed).normal(size=shape).astype(dtype))


def lstm(wx, wh, b, x):
    """The last state of an LSTM."""
    n = wh.shape[0]

    def step(carry, xt):
        h, s = carry
        z = xt @ wx + h @ wh + b
        i, f, g, o = (z[:, k * n: (k + 1) * n] for k in range(4))
        s = jg.sigmoid(f) * s + jg.sigmoid(i) * jg.tanh(g)
        return (jg.sigmoid(o) * jg.tanh(s), s), None
    start = jg.zeros((x.shape[1], n))
    return jg.scan(step, (start, start), x)[0][0]


def test_an_lstm_has_one_product_a_round_and_direction():
    args = [normal(4, 32), normal(8, 32, seed=1), normal(32, seed=2), normal(6, 2, 4, seed=3)]
    grads = jg.grad(lambda *a: jg.sum(lstm(*a) ** 2), argnums=(0, 1, 2, 3))
    outer, inner = rows_of(jg.function(grads).program(*args))
    assert inner.count("matmul") == 2                     # by wh, and by its transpose
    assert outer.count("matmul") == 4                     # x @ wx, and the gradients of wx, wh and x
    assert "reduce_sum" not in inner                      # the gradient of b
    close(replayed(grads, args), grads(*args), "float32")


def test_products_of_what_goes_by_are_one():
    x, w, v = normal(5, 3, 4), normal(4, 2), normal(2, 2)

    def chained(x, w, v):
        return jg.scan(lambda h, xt: (jg.tanh(h + jg.tanh(xt * 2 @ w) @ v), None), jg.zeros((3, 2)), x)[0]

    def summed(x, w, v):
        return jg.scan(lambda h, xt: (h + jg.tanh(xt * 2 @ w) @ v, None), jg.zeros((3, 2)), x)[0]
    for f, left in ((chained, ["add", "tanh"]), (summed, ["add"])):
        outer, inner = rows_of(jg.function(f).program(x, w, v))
        assert outer.count("matmul") == 2 and inner == left
        close([replayed(f, (x, w, v))], [f(x, w, v)], "float32")


def test_products_of_a_column_by_a_matrix_that_stays():
    w, x = normal(4, 3), normal(6, 3, 1, seed=1)
    f = lambda w, x: jg.scan(lambda h, xt: (jg.tanh(h + w @ xt), None), jg.zeros((4, 1)), x)[0]      # noqa: E731
    assert inside(f, w, x) == 0
    close([replayed(f, (w, x))], [f(w, x)], "float32")


def test_rows_that_are_the_same_each_round_leave_unless_they_grow():
    w = normal(8, 8)
    f = lambda w: jg.scan(lambda h, _: (h @ jg.exp(-w) + jg.sum(w), None), normal(2, 8), length=3)[0]      # noqa: E731
    outer, inner = rows_of(jg.function(f).program(w))
    assert {"exp", "negative", "reduce_sum"} <= {*outer} and sorted({*inner}) == ["add", "matmul"]
    f = lambda v: jg.scan(lambda h, x: (h + jg.sin(jg.broadcast_to(v, (64, 64)) + x), None), jg.zeros((64, 64)),       # noqa: E731
                          jg.zeros((3,)))[0]
    outer, inner = rows_of(jg.function(f).program(jg.constant(1.0)))
    assert "sin" in inner


def test_memory_is_bounded():
    """Streams beyond the cache wait for a reason to leave; no stream is larger than the bound."""
    w, x = normal(8, 64), normal(600, 16, 8)
    f = lambda w, x: jg.scan(lambda h, xt: (jg.tanh(h + xt @ w), None), jg.zeros((x.shape[1], 64)), x)[0]      # noqa: E731
    assert x.shape[0] * 16 * 64 * 4 > outside.CACHED and inside(f, w, x) == 1
    assert inside(f, w, x[:8]) == 0                       # short
    assert inside(f, w, x[:, :1]) == 0                    # a row each
    rows = outside.ROOM // (4 * 64) + 1
    assert inside(f, w, jg.zeros((rows, 1, 8))) == 1 and inside(f, w, jg.zeros((rows - 1, 1, 8))) == 0


def test_accumulations_stay_where_they_are_less_than_what_they_add_up():
    def f(x, y):
        def step(carry, given):
            s, h = carry
            h = jg.tanh(h + given[1])
            return (s + jg.matrix_transpose(given[0]) @ h, h), None
        return jg.scan(step, (jg.zeros((x.shape[2], y.shape[2])), jg.zeros(y.shape[1:])), (x, y))[0]
    few, many = (normal(40, 4, 16), normal(40, 4, 16)), (normal(40, 128, 16), normal(40, 128, 16))
    assert inside(f, *few) == 0 and inside(f, *many) == 1
    for args in (few, many):
        close(replayed(f, args), f(*args), "float32")


def test_a_carry_read_elsewhere_is_no_accumulation():
    x = normal(5, 3, 2)

    def read(total, xt):
        product = jg.matrix_transpose(xt) @ xt
        return total + product * total[0, 0], None

    def shown(total, xt):
        total = total + jg.matrix_transpose(xt) @ xt
        return total, total

    def twice(total, xt):
        return total + (total + jg.matrix_transpose(xt) @ xt), None
    for step in (read, shown, twice):
        f = lambda x, step=step: jg.scan(step, jg.ones((2, 2)), x)      # noqa: E731
        got, want = replayed(f, (x,)), f(x)
        close([got[0]], [want[0]], "float32")


def test_sums_without_products_stay():
    x = normal(5, 3)
    f = lambda x: jg.scan(lambda s, xt: (s + xt, None), jg.zeros((3,)), x)[0]      # noqa: E731
    assert rows_of(jg.function(f).program(x))[1] == ["add"]
    assert replayed(f, (x,)).numpy().tobytes() == f(x).numpy().tobytes()


def test_special_numbers():
    """A zero of a sum may have another sign; infinities and NaNs are where they were."""
    inf, nan = np.inf, np.nan
    x = np.ones((4, 3, 2))
    x[0, 0, 0], x[1, 1, 1], x[2, 2, 0], x[3] = inf, -inf, nan, -0.0
    x, w = jg.constant(x), normal(2, 5, dtype="float64")

    def f(x, w):
        return jg.scan(lambda s, xt: (s + jg.matrix_transpose(xt) @ xt, xt @ w), jg.zeros((2, 2), "float64"), x)
    got, want = replayed(f, (x, w)), f(x, w)
    assert inside(f, x, w) == 0
    close([got[0], got[1]], [want[0], want[1]])


def test_rows_that_raise_stay():
    """What cannot be computed is told by the round that computes it, also where a product of it could leave."""
    w = normal(2, 2)

    def f(w, at):
        return jg.scan(lambda h, a: (jg.tanh(h + jg.gather(w, a, axis=0) @ w), None), jg.zeros((2, 2)), at)[0]
    good, bad = (jg.constant(np.array(at, "int32")) for at in ([[0, 1], [1, 1], [1, 0]], [[0, 1], [0, 5], [1, 0]]))
    outer, inner = rows_of(jg.function(f).program(w, good))
    assert "gather" in inner and "gather" not in outer and "matmul" in inner
    made = jg.function(f)
    for _ in range(2):
        close([made(w, good)], [f(w, good)], "float32")
        with pytest.raises(IndexError):
            made(w, bad)


def test_random_numbers_stay():
    """They are drawn round by round, in the same order; a product of them may follow the loop."""
    w = normal(3, 2)

    def f(w):
        return jg.scan(lambda h, _: (h, jg.random.normal((4, 3)) @ w), jg.zeros(()), length=3)[1]
    outer, inner = rows_of(jg.function(f).program(w))
    assert "random_normal" in inner and "random_normal" not in outer and "matmul" in outer
    made = jg.function(f)
    made(w)
    jg.random.set_seed(3)
    got = made(w)
    jg.random.set_seed(3)
    close([got], [f(w)], "float32")


def test_variables_that_a_body_assigns():
    v, w = jg.Variable(np.ones((2, 2), "float32")), normal(2, 2)

    def f(x):
        def step(h, xt):
            v.assign_add(jg.matrix_transpose(xt) @ xt)
            return h + xt @ w, None
        return jg.scan(step, jg.zeros((3, 2)), x)[0]
    x = normal(4, 3, 2)
    made = jg.function(f)
    want = f(x)
    assigned = v.numpy()
    for _ in range(3):
        v.assign(np.ones((2, 2), "float32"))
        close([made(x)], [want], "float32")
        np.testing.assert_allclose(v.numpy(), assigned, rtol=1e-5)


@pytest.mark.parametrize("every", (1, 2, 3, 7))
def test_checkpoints(every):
    args = [normal(4, 32, dtype="float64"), normal(8, 32, seed=1, dtype="float64"), normal(7, 2, 4, dtype="float64")]

    def loss(scan, wx, wh, x):
        def step(h, xt):
            h = jg.tanh((xt @ wx + h @ wh)[:, :8])
            return h, h
        return jg.sum(scan(step, jg.zeros((2, 8), "float64"), x)[0] ** 2)
    grads = jg.grad(lambda *a: loss(lambda *b: jg.scan(*b, checkpoint_every=every), *a), argnums=(0, 1, 2))
    plain = jg.grad(lambda *a: loss(lambda f, h, x: looped(lambda c, s: (f(c, s[0])[0], ()), h, [x], 7), *a),
                    argnums=(0, 1, 2))
    close(replayed(grads, args), plain(*args))


def test_a_loop_in_a_loop_gives_to_the_outermost():
    w, x = normal(3, 3, dtype="float64"), normal(4, 5, 2, 3, dtype="float64")

    def f(w, x):
        def outer(h, rows):
            return jg.scan(lambda c, xt: (jg.tanh(c + xt @ w), None), h, rows)[0], None
        return jg.sum(jg.scan(outer, jg.zeros((2, 3), "float64"), x)[0] ** 2)
    assert inside(f, w, x) == 0
    grads = jg.grad(f, argnums=(0, 1))
    assert inside(grads, w, x) == 0

    def plain(w, x):
        h = jg.zeros((2, 3), "float64")
        for i in range(4):
            for j in range(5):
                h = jg.tanh(h + x[i, j] @ w)
        return jg.sum(h ** 2)
    close(replayed(grads, (w, x)), jg.grad(plain, argnums=(0, 1))(w, x))


def test_under_a_tape_around():
    """A function's row on a tape holds what was recorded, so that its derivatives are those of the loop as it stood."""
    args = [normal(4, 32, dtype="float64"), normal(8, 32, dtype="float64"), normal(32, dtype="float64"),
            normal(5, 2, 4, dtype="float64")]
    plain = lambda wx, wh, b, x: jg.sum(jg.tanh(x[0] @ wx + b)) + jg.sum(jg.scan(      # noqa: E731
        lambda h, xt: (jg.tanh(xt @ wx + h @ wh[:, :32] @ wh.T @ wh + b)[:, :8], None), x[0] @ wx[:, :8], x)[0])
    f = jg.function(plain)
    for _ in range(3):
        with jg.GradientTape(persistent=True) as outer:
            for t in args:
                outer.watch(t)
            with jg.GradientTape() as inner:
                for t in args:
                    inner.watch(t)
                y = f(*args)
            first = inner.gradient(y, args)
            total = sum(jg.sum(g * g) for g in first)
        second = outer.gradient(total, args)
    grads = jg.grad(lambda *a: sum(jg.sum(g * g) for g in jg.grad(plain, argnums=(0, 1, 2, 3))(*a)),
                    argnums=(0, 1, 2, 3))
    close(first, jg.grad(plain, argnums=(0, 1, 2, 3))(*args))
    for a, b in zip(second, grads(*args), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-9, atol=1e-9)
