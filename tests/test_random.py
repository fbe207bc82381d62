"""Random numbers: the cipher's published answers, distributions, streams, bounds, gradients, bad arguments."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
import threading

import numpy as np
import pytest
from scipy import stats

import jitgrad as jg
from jitgrad.core.recorder import Body
from jitgrad.execute.cpu.plans import plan_of
from jitgrad.ops.random import philox

random = jg.random
UNLIKELY = 1e-4            # of a p-value; seeds are fixed, so a test that passes once passes always


def generator(seed=20):
    return random.Generator(seed)


# ---- the cipher ----------------------------------------------------------------------------------

KNOWN = [   # kat_vectors of Random123 for philox 4x32 10: counter, key, answer
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_gives_the_published_answers(counter, key, answer):
    block, stream, both = (low | high << 32 for low, high in (counter[:2], counter[2:], key))
    words = philox(both, stream, np.array([block], np.uint64))
    assert words.tolist() == [list(answer)]
    place = 4 * (block if block < 2**63 else block - 2**64)
    if -2**63 <= place < 2**63:                         # of the second half of a stream a place reaches the end
        state = np.array([both, stream, place % 2**64], np.uint64).view(np.int64)
        assert jg.random_bits(state, 4, "int32").numpy().view(np.uint32).tolist() == list(answer)
        wide = jg.random_bits(state, 2, "int64").numpy().view(np.uint64)
        assert wide.tolist() == [answer[0] << 32 | answer[1], answer[2] << 32 | answer[3]]


def test_numbers_stay_what_they_are():
    """Saved runs depend on them."""
    g = random.Generator(1)
    assert g.bits((3,)).numpy().tolist() == [-471333264, -452325700, -1779293504]
    np.testing.assert_allclose(g.normal((2,), dtype="float64").numpy(), [-0.9462981478543367, 1.9702166327827635], rtol=1e-14)
    children = random.Generator(1).split(4)
    assert children[2].bits((3,)).numpy().tolist() == [952255518, -1507087202, 912529902]
    assert children[3].state == {"key": 15401000388423231813, "stream": 231206679647626961, "place": 0, "children": 0}


# ---- distributions -------------------------------------------------------------------------------

TWO = stats.truncnorm(-2, 2)
CONTINUOUS = [
    ("uniform", {}, stats.uniform()), ("uniform", {"minval": -3.0, "maxval": 5.0}, stats.uniform(-3, 8)),
    ("normal", {}, stats.norm()), ("normal", {"mean": 2.0, "stddev": 0.5}, stats.norm(2, 0.5)),
    ("truncated_normal", {}, TWO), ("truncated_normal", {"mean": -1.0, "stddev": 3.0}, stats.truncnorm(-2, 2, -1, 3)),
    ("exponential", {}, stats.expon()), ("exponential", {"scale": 4.0}, stats.expon(0, 4)),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "arguments", "law"), CONTINUOUS)
def test_distributions(name, arguments, law, dtype):
    x = getattr(generator(), name)((40_000,), **arguments, dtype=dtype).numpy()
    assert x.dtype == dtype and x.shape == (40_000,)
    assert stats.kstest(x, law.cdf).pvalue > UNLIKELY
    mean, variance, skew, kurtosis = law.stats("mvsk")
    error = math.sqrt(variance / x.size)
    assert abs(x.mean() - mean) < 4 * error
    assert abs(x.var() / variance - 1) < 4 * math.sqrt((kurtosis + 2) / x.size)
    assert abs(stats.skew(x) - skew) < 0.15
    # neighbours, and what stands a block or a vector apart, are unrelated
    for lag in (1, 2, 3, 4, 8, 16, 32):
        assert abs(np.corrcoef(x[:-lag], x[lag:])[0, 1]) < 4 / math.sqrt(x.size)


def test_tails_of_the_normal_reach_far():
    """Of four million, the farthest are where they should be: in float32 too nothing is cut at 5.4."""
    x = np.abs(generator().normal((4_000_000,)).numpy())
    for z in (4.0, 4.5, 5.0):
        want = 4_000_000 * 2 * stats.norm.sf(z)
        assert abs((x > z).sum() - want) < 4 * math.sqrt(want) + 1
    top = jg.random_normal(np.array([2**31 - 1, -2**31], np.int32)).numpy()
    np.testing.assert_allclose(top, [stats.norm.isf(2.0**-33), stats.norm.ppf(2.0**-33)], rtol=1e-6)


def test_bits_are_fair():
    words = generator().bits((50_000,)).numpy().view(np.uint32)
    ones = ((words[:, None] >> np.arange(32, dtype=np.uint32)) & 1).sum(axis=0, dtype=np.int64)
    assert np.abs(ones - 25_000).max() < 4.5 * math.sqrt(50_000) / 2
    wide = generator().bits((3,), "int64").numpy().view(np.uint64)
    assert [int(w) >> 32 for w in wide] == words[:6:2].tolist()        # the same stream in portions of 64 bits


# ---- where the numbers come from -----------------------------------------------------------------

@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["uniform", "normal", "exponential"])
def test_the_same_numbers_in_all_portions(name, dtype):
    whole = getattr(generator(), name)((97,), dtype=dtype).numpy()
    g, parts = generator(), []
    for shape in ((1,), (), (0,), (2, 3), (5, 0), (7,), (4, 4), (33,), (1, 1), (32,)):
        parts.append(getattr(g, name)(shape, dtype=dtype).numpy())
        assert parts[-1].shape == shape
    np.testing.assert_array_equal(np.concatenate([p.ravel() for p in parts]), whole)


DRAWS = [lambda g: g.bits((3,)), lambda g: g.normal((2, 2), dtype="float64"), lambda g: g.permutation(5),
         lambda g: g.categorical(np.zeros((2, 3), np.float32)), lambda g: g.integers(-2**63, 2**63, (1,)),
         lambda g: g.bernoulli(0.5, (7,)), lambda g: g.choice(9, (4,), replace=False), lambda g: g.truncated_normal()]


def test_recorded_draws_draw_on():
    """The state is data: a Program goes on where the last run stopped, and plain draws go on behind it."""
    g, plain = generator(), generator()
    g.bits((1,))
    plain.bits((1,))
    with Body() as body:
        results = [draw(g) for draw in DRAWS]
        plan = plan_of(body.program([*results, body.read(g._state)]))
    given = body.captured
    (at,) = [i for i, t in enumerate(given) if t is g._state._value]
    for _ in range(4):
        *drawn, given[at] = plan.run(given)
        for x, draw in zip(drawn, DRAWS, strict=True):
            np.testing.assert_array_equal(x.numpy(), draw(plain).numpy())
    assert g.state["place"] == 1              # the recording drew nothing


def test_threads_draw_different_numbers():
    g, drawn = generator(), []
    start = threading.Barrier(8)

    def draw():
        start.wait()
        drawn.extend(g.bits((3,)).numpy() for _ in range(200))
    threads = [threading.Thread(target=draw) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(np.concatenate(drawn).tolist()) == sorted(generator().bits((8 * 200 * 3,)).numpy().tolist())


def test_generators_copy_and_pickle():
    g = generator()
    g.bits((3,))
    for other in (copy.deepcopy(g), pickle.loads(pickle.dumps(g))):
        assert other.state == g.state
        other.bits((1,))
        assert other.state["place"] == 4 and g.state["place"] == 3


def test_seeds_and_states():
    g, other = generator(1), generator(2)
    assert not np.array_equal(g.bits((8,)).numpy(), other.bits((8,)).numpy())
    g.normal((5,))
    saved = json.loads(json.dumps(g.state))            # ints in a dict: any file format will do
    want = g.uniform((9,)).numpy()
    other.state = saved
    np.testing.assert_array_equal(other.uniform((9,)).numpy(), want)
    g.reset(1)
    np.testing.assert_array_equal(g.bits((8,)).numpy(), generator(1).bits((8,)).numpy())
    assert not np.array_equal(random.Generator().bits((8,)).numpy(), random.Generator().bits((8,)).numpy())
    np.testing.assert_array_equal(generator(-1).bits((4,)).numpy(), generator(2**64 - 1).bits((4,)).numpy())


def test_split_streams_are_independent_and_repeat():
    g = generator()
    first, second = g.split()
    third = g.split(1)[0]
    again = generator().split(3)
    drawn = [s.normal((20_000,)).numpy() for s in (first, second, third)]
    for x, s in zip(drawn, again, strict=True):
        np.testing.assert_array_equal(x, s.normal((20_000,)).numpy())
    drawn += [g.normal((20_000,)).numpy(), first.split(1)[0].normal((20_000,)).numpy()]
    np.testing.assert_array_equal(drawn[3], generator().normal((20_000,)).numpy())     # splitting draws nothing
    related = np.corrcoef(drawn) - np.eye(len(drawn))
    assert np.abs(related).max() < 4 / math.sqrt(20_000)
    assert len({(s.state["key"], s.state["stream"]) for s in g.split(1000)}) == 1000 and g.split(0) == []


def test_consecutive_seeds_are_unrelated():
    x = np.stack([generator(seed).uniform((64,), dtype="float64").numpy() for seed in range(400)])
    assert stats.kstest(x[:, 0], "uniform").pvalue > UNLIKELY
    assert np.abs(np.corrcoef(x.T) - np.eye(64)).max() < 5 / math.sqrt(400)


@pytest.mark.parametrize("draw", [
    lambda **k: random.uniform((4,), **k), lambda **k: random.normal((4,), **k), lambda **k: random.bits((4,), **k),
    lambda **k: random.truncated_normal((4,), **k), lambda **k: random.exponential((4,), **k),
    lambda **k: random.integers(99, shape=(4,), **k), lambda **k: random.bernoulli(0.5, (40,), **k),
    lambda **k: random.categorical(np.zeros((1, 9)), 20, **k), lambda **k: random.permutation(9, **k),
    lambda **k: random.shuffle(np.arange(9), **k), lambda **k: random.choice(99, (4,), **k)])
def test_the_shared_generator_and_seeds(draw):
    random.set_seed(3)
    first, second = draw().numpy(), draw().numpy()
    assert not np.array_equal(first, second)
    random.set_seed(3)
    np.testing.assert_array_equal(draw().numpy(), first)
    np.testing.assert_array_equal(draw(seed=5).numpy(), draw(seed=5).numpy())
    np.testing.assert_array_equal(draw().numpy(), second)            # a draw with a seed of its own takes nothing
    random.set_seed(3)
    state = random.global_generator().state
    np.testing.assert_array_equal(draw().numpy(), first)
    random.global_generator().state = state
    np.testing.assert_array_equal(draw().numpy(), first)


# ---- bounds --------------------------------------------------------------------------------------

def test_uniform_never_reaches_its_end():
    for narrow, wide, kept in (("int32", "float32", 24), ("int64", "float64", 53)):
        words = generator().bits((50,), narrow).numpy().astype(np.uint64) & np.uint64(2**int(narrow[3:]) - 1)
        unit = generator().uniform((50,), dtype=wide).numpy()
        assert unit.tolist() == [float(int(w) >> int(narrow[3:]) - kept) / 2.0**kept for w in words]   # below 1: exact
    for low, high in ((1.0, 2.0), (1e6, 1e6 + 0.25), (-1e-3, 1.0), (1.0, 1.0 + 2.0**-23), (0.0, 1e-44)):
        x = generator().uniform((20_000,), low, high).numpy()
        assert x.min() >= np.float32(low) and x.max() < np.float32(high)
    # three steps of float32 apart: the four roundings of 1e6 + u / 4 make equal shares of three values and one more
    values, counts = np.unique(generator().uniform((40_000,), 1e6, 1e6 + 0.25).numpy(), return_counts=True)
    assert len(values) == 4 and np.abs(counts - 10_000).max() < 400
    assert generator().uniform((3,), 2.0, 2.0).numpy().tolist() == [2.0] * 3


def test_truncated_normal_stays_within_two():
    for dtype in ("float32", "float64"):
        x = generator().truncated_normal((100_000,), 3.0, 0.5, dtype).numpy()
        assert x.min() >= 2.0 and x.max() <= 4.0
        width = dtype.replace("float", "int")
        ends = jg.random_normal(np.array([np.iinfo(width).max], width), 0.9544997361036416).numpy()
        np.testing.assert_allclose(ends, 2.0, rtol=1e-7)


@pytest.mark.parametrize(("low", "high"), [(0, 6), (-3, 4), (10, 11), (0, 1000)])
def test_integers_are_equally_likely(low, high):
    x = generator().integers(low, high, (30_000,)).numpy()
    assert x.dtype == np.int32 and x.min() >= low and x.max() < high
    counts = np.bincount(x - low, minlength=high - low)
    assert high - low == 1 or stats.chisquare(counts).pvalue > UNLIKELY


@pytest.mark.parametrize(("low", "high", "dtype"), [
    (-2**31, 2**31, "int32"), (0, 2**31 - 1, "int32"), (-2**63, 2**63, "int64"), (0, 3 * 2**61, "int64"),
    (-5, 2**40, "int64"), (0, 2**32, "int64")])
def test_integers_of_wide_ranges(low, high, dtype):
    x = generator().integers(low, high, (20_000,)).numpy()
    assert x.dtype == dtype and x.min() >= low and x.max() < high
    unit = (x.astype(np.float64) - low) / (high - low)
    assert stats.kstest(unit, "uniform").pvalue > UNLIKELY
    low_bits = np.bincount(x & 7, minlength=8)
    assert stats.chisquare(low_bits).pvalue > UNLIKELY


def test_integers_by_other_names():
    assert random.integers(5, seed=1).shape == () and random.randint is random.integers
    a = generator().uniform((9,), -2, 5, "int64").numpy()
    np.testing.assert_array_equal(a, generator().integers(-2, 5, (9,), "int64").numpy())
    assert generator().uniform((4,), np.int64(2), jg.constant(9), "int32").dtype == np.int32


def test_empty_and_scalar_draws():
    g = generator()
    for draw in (g.uniform, g.normal, g.truncated_normal, g.exponential, g.bits):
        assert draw().shape == () and draw((0,)).shape == (0,) and draw((3, 0, 2)).shape == (3, 0, 2)
    assert g.integers(5, shape=(0,)).shape == (0,) and g.integers(-2**63, 2**63, (0, 2)).shape == (0, 2)
    assert g.permutation(0).shape == (0,) and g.permutation(1).numpy().tolist() == [0]
    assert g.categorical(np.zeros((0, 4))).shape == (0,) and g.categorical(np.zeros((2, 4)), 0).shape == (2, 0)
    assert g.bernoulli(np.zeros((0, 3))).shape == (0, 3) and g.choice(3, (0,)).shape == (0,)
    assert g.normal((2, 3), mean=jg.zeros((3,)), dtype="float64").dtype == np.float64


# ---- choices -------------------------------------------------------------------------------------

def test_bernoulli():
    p = np.array([0.0, 0.1, 0.5, 0.999, 1.0])
    x = generator().bernoulli(p, (20_000, 5)).numpy()
    assert x.dtype == bool and not x[:, 0].any() and x[:, 4].all()
    np.testing.assert_allclose(x.mean(axis=0), p, atol=4 * 0.5 / math.sqrt(20_000))
    ones = generator().bernoulli(0.5, (7,), "float32").numpy()
    assert ones.dtype == np.float32 and set(ones) <= {0.0, 1.0}


def test_categorical():
    p = np.array([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [0.001, 0.009, 0.99]])
    with np.errstate(divide="ignore"):
        x = generator().categorical(np.log(p) + 7.0, 30_000)         # a shift changes nothing
    assert x.shape == (3, 30_000) and x.dtype == np.int64 and (x.numpy()[1] == 1).all()
    for row in (0, 2):
        counts = np.bincount(x.numpy()[row], minlength=3)
        assert stats.chisquare(counts, p[row] * 30_000).pvalue > UNLIKELY
    one = generator().categorical(np.zeros((4, 5, 6), np.float32), dtype="int32")
    assert one.shape == (4, 5) and one.dtype == np.int32
    assert generator().categorical([0.0, -np.inf]).numpy() == 0


def test_permutation_is_fair():
    g = generator()
    assert sorted(g.permutation(100).numpy().tolist()) == list(range(100))
    seen = np.zeros(24)
    orders = {p: i for i, p in enumerate(itertools.permutations(range(4)))}
    for _ in range(6_000):
        seen[orders[tuple(g.permutation(4).numpy().tolist())]] += 1
    assert stats.chisquare(seen).pvalue > UNLIKELY


def test_permutation_of_slices():
    x = np.arange(24.0).reshape(2, 3, 4)
    y = generator().permutation(x, axis=-1).numpy()
    order = y[0, 0].astype(int)
    assert sorted(order) == [0, 1, 2, 3]
    np.testing.assert_array_equal(y, x[..., order])
    np.testing.assert_array_equal(random.shuffle(x, seed=4).numpy(), random.permutation(x, seed=4).numpy())
    t = jg.constant([1.0, 2.0, 3.0, 4.0])
    with jg.GradientTape() as tape:
        tape.watch(t)
        shuffled = random.shuffle(t)
        y = jg.sum(shuffled * [1.0, 10.0, 100.0, 1000.0])
    np.testing.assert_allclose(tape.gradient(y, t).numpy()[shuffled.numpy().astype(int) - 1], [1, 10, 100, 1000])


def test_choice():
    g = generator()
    x = g.choice(5, (20_000,)).numpy()
    assert stats.chisquare(np.bincount(x, minlength=5)).pvalue > UNLIKELY
    few = g.choice(50, (5, 8), replace=False).numpy()
    assert few.shape == (5, 8) and len(set(few.ravel().tolist())) == 40 and few.max() < 50
    p = np.array([0.7, 0.0, 0.3])
    y = g.choice(jg.constant([10.0, 20.0, 30.0]), (20_000,), p=p * 8).numpy()
    assert stats.chisquare([(y == 10).sum(), (y == 30).sum()], [14_000, 6_000]).pvalue > UNLIKELY
    assert g.choice(np.zeros((4, 7)), (2, 3), axis=1).shape == (4, 2, 3)


# ---- derivatives ---------------------------------------------------------------------------------

def test_draws_have_gradients_in_their_parameters():
    mean, stddev = jg.Variable([1.0, -2.0, 0.5]), jg.Variable([[2.0], [0.25]])
    with jg.GradientTape(persistent=True) as outer:
        with jg.GradientTape() as tape:
            x = random.normal((2, 3), mean, stddev, seed=6)
            y = jg.sum(jg.square(x))
        by_mean, by_stddev = tape.gradient(y, [mean, stddev])
    z = random.normal((2, 3), seed=6).numpy()
    want = mean.numpy() + stddev.numpy() * z
    np.testing.assert_allclose(x.numpy(), want, rtol=1e-6)
    np.testing.assert_allclose(by_mean.numpy(), (2 * want).sum(0), rtol=1e-5)
    np.testing.assert_allclose(by_stddev.numpy(), (2 * want * z).sum(1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(outer.gradient(by_stddev, stddev).numpy(), (2 * z * z).sum(1, keepdims=True), rtol=1e-5)
    low, high, scale = jg.Variable(1.0), jg.Variable(3.0), jg.Variable(2.0)
    with jg.GradientTape(persistent=True) as tape:
        u = random.uniform((50,), low, high, seed=6)
        e = random.exponential((50,), scale, seed=6)
        t = random.truncated_normal((50,), low, scale, seed=6)
    share = (u.numpy() - 1.0) / 2.0
    np.testing.assert_allclose(tape.gradient(u, high), share.sum(), rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(u, low), (1 - share).sum(), rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(e, scale), e.numpy().sum() / 2.0, rtol=1e-5)
    np.testing.assert_allclose(tape.gradient(t, scale), ((t.numpy() - 1.0) / 2.0).sum(), rtol=1e-4)
    p = jg.Variable([0.5, 0.5])
    with jg.GradientTape() as tape:
        hits = jg.astype(random.bernoulli(p), "float32") * 2.0
    assert tape.gradient(hits, p) is None


def test_parameters_give_the_dtype():
    assert generator().normal((2,), np.float64(1.0)).dtype == np.float64
    assert generator().uniform((2,), maxval=jg.constant(2.0, "float64")).dtype == np.float64
    assert generator().normal((2,), np.float64(1.0), dtype="float32").dtype == np.float32
    assert generator().uniform((2,), 0, 3).dtype == np.float32


# ---- bad arguments -------------------------------------------------------------------------------

@pytest.mark.parametrize(("error", "match", "call"), [
    (TypeError, "random: a seed is an int, got 1.5", lambda: random.Generator(1.5)),
    (ValueError, "a state is a dict of the ints key", lambda: setattr(generator(), "state", {"key": 1})),
    (ValueError, "uniform: maxval 1.0 must not be below minval 2.0", lambda: random.uniform((2,), 2.0, 1.0)),
    (OverflowError, r"uniform: from -3e\+38 to 3e\+38 is too far for float32", lambda: random.uniform((2,), -3e38, 3e38)),
    (OverflowError, "uniform: from 0.0 to inf is too far for float64",
     lambda: random.uniform((2,), 0.0, float("inf"), "float64")),
    (ValueError, "uniform: maxval 1 must be above minval 1", lambda: random.uniform((2,), 1, 1, "int32")),
    (TypeError, "uniform: integers are int32 or int64, not bool", lambda: random.uniform((2,), 0, 1, "bool")),
    (TypeError, "uniform: a bound must be an integer, got 0.5", lambda: random.uniform((2,), 0.5, 3, "int32")),
    (ValueError, "integers: high 0 must be above low 0", lambda: random.integers(0)),
    (OverflowError, r"integers: \[0, 4294967296\) does not fit int32",
     lambda: random.integers(0, 2**32, dtype="int32")),
    (OverflowError, "does not fit int64", lambda: random.integers(0, 2**64)),
    (TypeError, "exponential: makes floats, not bool", lambda: random.exponential((2,), dtype="bool")),
    (TypeError, "bits: makes int32 or int64, not float32", lambda: random.bits((2,), "float32")),
    (ValueError, r"normal: mean of shape \(3,\) does not broadcast to shape \(2,\)",
     lambda: random.normal((2,), [1.0, 2.0, 3.0])),
    (ValueError, r"bernoulli: p of shape \(2,\) does not broadcast", lambda: random.bernoulli([0.1, 0.2], (3,))),
    (ValueError, "name no classes", lambda: random.categorical(np.zeros((2, 0)))),
    (ValueError, "name no classes", lambda: random.categorical(1.0)),
    (ValueError, "6 of 5 needs replace=True", lambda: random.choice(5, (6,), replace=False)),
    (ValueError, "0 things to choose from", lambda: random.choice(0, (2,))),
    (ValueError, "p is one probability for each of the 5", lambda: random.choice(5, (2,), p=[0.5, 0.5])),
    (ValueError, "choice: axis 0 is out of range for 0 dimensions", lambda: random.choice(2.5)),
    (ValueError, "axis 1 is out of range", lambda: random.permutation([1, 2, 3], axis=1)),
    (TypeError, "random_normal: takes integers or booleans, got float32", lambda: jg.random_normal([1.0])),
    (TypeError, "random_bits: makes int32, int64, float32 or float64, not bool",
     lambda: jg.random_bits(jg.zeros((3,), "int64"), 2, "bool")),
    (ValueError, "random_permutation: takes one axis of int64", lambda: jg.random_permutation([[1]])),
    (MemoryError, "cannot fit in memory", lambda: random.normal((2**50,)))])
def test_bad_arguments(error, match, call):
    with pytest.raises(error, match=match) as caught:
        call()
    assert "test_random.py" in str(caught.value)
