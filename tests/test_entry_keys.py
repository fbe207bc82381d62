"""Recipes: what of a call a trace looks at, and that nothing else matches."""

from __future__ import annotations

import struct
from collections import OrderedDict, namedtuple

import numpy as np
import pytest

import jitgrad as jg
from entry import F32, F64, I64, function, is_slow, plan, trace
from jitgrad.execute.cpu.functions import Trace

KEY = object()
SPACE = {"rate": 2.5, "name": KEY}
NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]


class Holder:
    rate = KEY

    @property
    def wrong(self):
        raise ValueError("never let out")

    @property
    def stop(self):
        raise KeyboardInterrupt


class Like:
    """Equal to everything, or an error."""

    def __init__(self, answer=True):
        self.answer = answer

    def __eq__(self, other):
        if self.answer is None:
            raise RuntimeError("never let out")
        return self.answer

    __hash__ = object.__hash__


Pair = namedtuple("Pair", "a b")
TUPLE, LIST, DICT = type("Tuple", (tuple,), {}), type("List", (list,), {}), type("Dict", (dict,), {})
CELL = (lambda x: lambda: x)(KEY).__closure__[0]
counter = np.array([7])
YES, NO = Like(), Like(None)

KEYS = {
    "tuple": ([("tuple", 0, 2, 1), ("is", 2, KEY)], [(0, KEY)], [(KEY, 0), (0, KEY, 0), [0, KEY], (0,), Pair(0, KEY),
                                                                TUPLE((0, KEY)), None, 5, np.zeros(2)]),
    "empty tuple": ([("tuple", 0, 0, 1)], [()], [(0,), [], None, TUPLE()]),
    "list": ([("list", 0, 2, 1), ("is", 2, KEY)], [[0, KEY]], [[KEY, 0], [0], (0, KEY), LIST([0, KEY]), None, {}]),
    "dict": ([("dict", 0, ("a", 3), 1), ("is", 2, KEY)], [{"a": 0, 3: KEY}],
             [{3: KEY, "a": 1}, {"a": 0}, {"a": 0, 3: 0}, {"a": 0, 3: KEY, "b": 0}, {"a": 0, 4: KEY}, DICT({"a": 0, 3: KEY}), [], None,
              OrderedDict({"a": 0, 3: KEY}), {"a": 0, Like(None): KEY}]),
    "nested": ([("dict", 0, ("w",), 1), ("list", 1, 2, 2), ("tuple", 3, 1, 4), ("is", 4, None)],
               [{"w": [0, (None,)]}], [{"w": [0, (0,)]}, {"w": [(None,), 0]}, {"w": (0, (None,))}, {"v": [0, (None,)]}]),
    "is": ([("is", 0, None)], [None], [0, False, KEY]),
    "equal": ([("equal", 0, "ab")], ["ab", "".join(["a", "b"])], ["ac", b"ab", None, 0, Like()]),
    "equal to what raises": ([("equal", 0, NO)], [NO, Like()], [Like(None), Like(False)]),
    "equal to everything": ([("equal", 0, YES)], [YES], [Like(False), Like(None), 5]),
    "float_key": ([("float_key", 0, 0.5)], [0.5, float("0.5")], [0.25, 1, np.float64(0.5), None, "0.5", True]),
    "float_key of -0": ([("float_key", 0, -0.0)], [-0.0], [0.0, 0]),
    "float_key of NaN": ([("float_key", 0, NAN)], [NAN], [0.0, -NAN]),
    "int_key": ([("int_key", 0, 3)], [3], [4, 3.0, np.int64(3), 2**64 + 3, -2**70, None]),
    "int_key of 1": ([("int_key", 0, 1)], [1], [True, 1.0]),
    "int_key of -1": ([("int_key", 0, -1)], [-1], [2**70, 2**64 - 1, 0]),
    "large int_key": ([("int_key", 0, -2**63)], [-2**63], [2**63, 0, 2**100]),
    "global": ([("global", SPACE, "name", 1), ("is", 1, KEY)], [0], []),
    "another global": ([("global", SPACE, "rate", 1), ("is", 1, KEY)], [], [0]),
    "no global": ([("global", SPACE, "gone", 1)], [], [0]),
    "absent": ([("absent", SPACE, "gone")], [0], []),
    "present": ([("absent", SPACE, "rate")], [], [0]),
    "cell": ([("cell", CELL, 1), ("is", 1, KEY)], [0], []),
    "empty cell": ([("cell", type(CELL)(), 1)], [], [0]),
    "attr": ([("attr", 0, "rate", 1), ("is", 1, KEY)], [Holder(), Holder], [5, None, np.zeros(2)]),
    "attr that raises": ([("attr", 0, "wrong", 1)], [], [Holder()]),
    "item": ([("item", 0, "k", 1), ("is", 1, KEY)], [{"k": KEY}, DICT(k=KEY)], [{"k": 0}, {}, [KEY], None, 5]),
    "item of a list": ([("item", 0, -1, 1), ("is", 1, KEY)], [[KEY], (0, KEY)], [[], [KEY, 0], "ab"]),
    "word": ([("word", counter.ctypes.data, 7)], [0], []),
    "another word": ([("word", counter.ctypes.data, 8)], [], [0]),
}


@pytest.mark.parametrize("case", KEYS)
def test_keys(case):
    recipe, good, bad = KEYS[case]
    made = Trace(plan([], lambda: []), recipe, positional=1, answer=[("const", "hit")])
    f = function(made)
    for _ in range(3):
        for x in good:
            assert f(x) == "hit", x
        for x in bad:
            assert is_slow(f(x)), x
    assert made.hits == f._hits == 3 * len(good)


def test_a_key_interrupt_is_not_swallowed():
    f = function(Trace(plan([], lambda: []), [("attr", 0, "stop", 1)], positional=1, answer=[("const", 1)]))
    with pytest.raises(KeyboardInterrupt):
        f(Holder())


def test_globals_and_words_are_read_at_each_call():
    space, holder, count = {"a": KEY}, Holder(), np.array([1])
    made = Trace(plan([], lambda: []), [
        ("global", space, "a", 1), ("is", 1, KEY), ("absent", space, "len"), ("attr", 0, "rate", 2), ("is", 2, KEY),
        ("word", count.ctypes.data, 1)], positional=1, answer=[("const", "hit")])
    f = function(made)
    assert f(holder) == "hit"
    for do, undo in ((lambda: space.update(a=1), lambda: space.update(a=KEY)),
                     (lambda: space.pop("a"), lambda: space.update(a=KEY)),
                     (lambda: space.update(len=1), lambda: space.pop("len")),
                     (lambda: setattr(holder, "rate", 3), lambda: delattr(holder, "rate")),
                     (lambda: count.fill(2), lambda: count.fill(1))):
        do()
        assert is_slow(f(holder))
        undo()
        assert f(holder) == "hit"


# ---- random nests ----

LEAVES = ("none", "text", "float key", "int key", "float", "int", "tensor", "array")


class Nest:
    """A nest drawn at random, with the recipe that matches it alone."""

    def __init__(self, rng):
        self.rng, self.recipe, self.avals, self.next = rng, [], [], 1
        self.draw(0, 3)

    def registers(self, n):
        self.next += n
        return self.next - n

    def draw(self, src, depth):
        rng = self.rng
        kind = ("tuple", "list", "dict")[rng.integers(3)] if depth and rng.random() < (1.0 if depth == 3 else 0.5) else \
            LEAVES[rng.integers(len(LEAVES))]
        if kind in ("tuple", "list", "dict"):
            n = int(rng.integers(4))
            keys = tuple(f"k{i}" for i in range(n))
            first = self.registers(n)
            self.recipe.append((kind, src, keys if kind == "dict" else n, first))
            for i in range(n):
                self.draw(first + i, depth - 1)
            return
        if kind in LEAVES[4:]:
            code = {"float": F64, "int": I64}.get(kind, F32)
            self.avals.append((code, tuple(rng.integers(0, 3, rng.integers(3)).tolist()) if code == F32 else ()))
            self.recipe.append((kind, src, len(self.avals) - 1))
        else:
            name, want = {"none": ("is", None), "text": ("equal", "abc"), "float key": ("float_key", 1.5),
                          "int key": ("int_key", 7)}[kind]
            self.recipe.append((name, src, want))

    def example(self):
        """Fresh objects that match."""
        made = {}
        for name, src, *rest in reversed(self.recipe):
            if name in ("tuple", "list"):
                made[src] = (tuple if name == "tuple" else list)(made[rest[1] + i] for i in range(rest[0]))
            elif name == "dict":
                made[src] = {k: made[rest[1] + i] for i, k in enumerate(rest[0])}
            elif name in ("tensor", "array"):
                x = np.ones(self.avals[rest[0]][1], "f4")
                made[src] = jg.asarray(x) if name == "tensor" else x
            else:
                made[src] = {"float": 2.5, "int": 3}.get(name, rest[0])
        return made[0]


def changed(x, at):
    """The nest with something else at the ``at``-th place, counted down to 0 on the way; None once it was changed."""
    at[0] -= 1
    if at[0] == -1:
        return {"other"}
    if type(x) in (tuple, list):
        return type(x)(changed(v, at) for v in x)
    return {k: changed(v, at) for k, v in x.items()} if type(x) is dict else x


@pytest.mark.parametrize("seed", range(40))
def test_random_nests(seed):
    nest = Nest(np.random.default_rng(seed))
    recipe = nest.recipe
    body = (lambda *xs: [jg.sum(jg.astype(xs[-1], "float64"))]) if nest.avals else (lambda: [])
    f = function(trace(nest.avals, body, recipe, positional=1,
                       answer=[("result", 0)] if nest.avals else [("const", 1.0)]))
    want = float(f(nest.example()))
    for place in range(len(recipe)):
        assert is_slow(f(changed(nest.example(), [place]))), recipe[place]
    assert float(f(nest.example())) == want and f._hits == 2
