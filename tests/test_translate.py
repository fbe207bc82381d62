"""The restricted language: Python, the direct translation and Numba give the same numbers; what it lacks is refused."""

from __future__ import annotations

import ctypes
from fractions import Fraction

import numpy as np
import pytest

from jitgrad.core.aval import AVALS
from jitgrad.core.primitive import Kind
from jitgrad.core.record import tensor
from jitgrad.execute.cpu import llvm
from jitgrad.execute.cpu.native import build, by_numba, raw
from jitgrad.execute.cpu.native.language import Unsupported
from jitgrad.execute.cpu.native.raw import (
    load,
    load_f32,
    load_f64,
    load_i8,
    load_i32,
    store,
    store_f32,
    store_f64,
    store_i8,
    store_i32,
)
from jitgrad.execute.cpu.native.translate import Module
from jitgrad.ops.scalar import fmuladd
from table import ENTRIES, dtypes_of, ident, samples

LEAST = -(2**63)
STEP = 3
SCALE = 2**60
frame = raw.stack(4)


def linked(text, name, count):
    address = llvm.link(llvm.emit(text, optimise="branches"), [name])[name]
    return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * count)(address)


def direct(function):
    module = Module()
    module.export(function.__name__, function)
    return linked(module.text(), function.__name__, function.__code__.co_argcount)


def helper(a, b):
    return a if a > b else b - a


def truth(a):
    return a > 1


def nothing(a):
    helper(a, 1)


def arithmetic(a, b):
    c = a * b + 7 - (a & 5) + (b | 9) - (a ^ b)
    c += a << 3
    c -= b >> 2
    return ~c + -a


def divisions(a, b):
    return a // b + 1000 * (a % b) + 7 * (a // 8) + (b % 16) + a // -3 + a % -3 if b != 0 else -1


def chains(a, b):
    return (1 if 0 < a <= b < 10 else 0) + (2 if a != b == 3 else 0) + (4 if not a else 0)


def settled(a, b):
    return (a and b) + 10 * (a or b) + 100 * (a > 0 and helper(a, b) and 3) + (b or a > 2 or 5)


def loops(a, b):
    total, i, k = 0, 0, -1
    for i in range(a):
        if i == 3:
            continue
        if i > 7:
            break
        total += i * b
    for k in range(10, a, -STEP):
        total += k
    while True:
        total -= 1
        if total < b:
            break
    return total + 1000 * i + 100000 * k


def early(a, b):
    if a > b:
        return a
    elif a == b:
        return False
    for i in range(b):
        if i * i > a:
            return i
    return truth(b)


def swaps(a, b):
    a, b = b, a
    return a - 2 * b


def floats(a, b):
    x = float(a) / 3.0
    y = x * 2.0 - float(b) + 0.5
    z = -abs(y)
    if z < -4.5:
        z = z / 2
    return int(z * 100.0) + int(min(x, y) * 10.0) + int(max(x, 1.5)) + (1 if x != y else 0)


def narrow(a, b):
    x = np.float32(a) / np.float32(3.0)
    return int(float(x + np.float32(b)) * 1000.0)


def widened(a, b):
    x = 0
    for i in range(3):
        if i == b:
            x = 1.5
        x = x * 2
    return int(x * 4)


def unsigned(a, b):
    mask = np.uint64(0xFFFFFFFF)
    c, d = np.uint64(a), np.uint64(b) & mask
    for _ in range(3):
        c = (c * np.uint64(0xD2511F53) ^ d) & mask
        d = (c >> np.uint64(7)) + d
    return np.int64(c) + (1 if np.uint64(a) > np.uint64(b) else 0)


def extremes(a, b):
    return min(a, b, 3) + 10 * max(a, b) + 100 * abs(a) + bool(a)


FUNCTIONS = [arithmetic, swaps, divisions, chains, settled, loops, early, floats, narrow, widened, unsigned, extremes]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_translation_agrees_with_python_and_numba(function):
    made = direct(function)
    by = linked(by_numba.exported(function.__name__, function), function.__name__, 2)
    for a in (-17, -3, -1, 0, 1, 2, 3, 5, 8, 12):
        for b in (-9, -2, 0, 1, 3, 4, 10):
            with np.errstate(over="ignore"):
                expected = None if function is unsigned and min(a, b) < 0 else int(function(a, b))
            assert made(a, b) == by(a, b) == (made(a, b) if expected is None else expected), (a, b)


def memory(a, b):
    block = frame()
    store(block, a)
    store_i32(block + 8, b)
    store_f64(block + 16, 0.25)
    store_f32(block + 24, 0.5)
    store_i8(block + 28, -3)
    parts = load_f64(block + 16) + load_f32(block + 24)
    return load(block) + load_i32(block + 8) * 3 + int(parts * 100.0) + 1000 * load_i8(block + 28)


def test_memory_is_read_and_written():
    for made in (direct(memory), linked(by_numba.exported("memory", memory), "memory", 2)):
        assert made(5, -7) == 5 - 21 + 75 - 3000


def fused(a, b):
    third = 1.0 / 3.0
    rest = fmuladd(third, float(b), -(third * float(b)))              # what the product's rounding lost
    narrow = fmuladd(np.float32(third), np.float32(a), np.float32(b))
    mixed = fmuladd(np.float32(0.1), float(a), b)
    return int(rest * SCALE) + int(narrow * 1000.0) + int(mixed * 1e6) + fmuladd(a, b, 7)


def test_a_product_and_a_sum_round_once_in_both_builds():
    made, by = direct(fused), linked(by_numba.exported("fused", fused), "fused", 2)
    for a in (-17, 0, 3, 10_000_019):
        for b in (-9, 0, 1, 7):
            narrow = np.float32(np.float64(np.float32(1 / 3)) * a + b)       # exact but for the last rounding
            mixed = np.float64(np.float32(0.1)) * a + b
            rest = int(Fraction(1 / 3) * b * SCALE - Fraction(1 / 3 * b) * SCALE)
            want = int(float(narrow) * 1000.0) + int(mixed * 1e6) + a * b + 7
            assert made(a, b) == by(a, b)
            if llvm.has_feature("fma") or llvm.has_feature("neon"):
                assert made(a, b) == want + rest


def test_integers_wrap_and_a_division_by_zero_gives_zero():
    def wrap(a, b):
        return a * b + a

    def both(a, b):
        return a // b + a % b
    assert direct(wrap)(2**62, 4) == 2**62
    assert direct(wrap)(LEAST, 1) == 0
    assert direct(both)(5, 0) == 0


def no_source():
    scope = {}
    exec("def f(a):\n    return a\n", scope)
    return scope["f"]


def with_list(a):
    return len([a])


def with_keyword(a):
    return helper(a, b=2)


def with_slice(a):
    return a[1:]


def with_string(a):
    return "x"


def with_unknown(a):
    return a + missing      # noqa: F821


def with_mixed_signs(a):
    return np.int64(np.uint64(a) + a)


def of_itself(a):
    return of_itself(a - 1) if a > 0 else 0


def with_two_targets(a):
    b = c = a
    return b + c


def without_a_number(a):
    b = nothing(a)
    return b


def with_pass_on(a):
    with a:
        return a


@pytest.mark.parametrize("function, said", [
    (with_list, "List is not in the language"), (with_keyword, "by position"), (with_slice, "only an array is indexed"),
    (with_string, "is no number"), (with_unknown, "missing is not known"), (with_mixed_signs, "do not mix"),
    (of_itself, "calls itself"), (without_a_number, "gets no value"), (with_pass_on, "With is not"), (with_two_targets, "one target"),
    (no_source(), "source is not to be found")], ids=lambda v: getattr(v, "__name__", None))
def test_what_the_language_lacks_is_refused(function, said):
    with pytest.raises(Unsupported, match=said):
        direct(function)


def test_a_source_that_was_edited_since_is_refused(tmp_path):
    """The text of the file would be another function than the one that Python runs."""
    path = tmp_path / "edited.py"
    path.write_text("def f(a):\n    return a + 1\n")
    scope = {}
    exec(compile(path.read_text(), str(path), "exec"), scope)
    path.write_text("def f(a):\n    return a + 2\n")
    with pytest.raises(Unsupported, match="not what was imported"):
        direct(scope["f"])


def test_a_refusal_says_where():
    with pytest.raises(Unsupported, match=rf"with_list \(.*test_translate.py:{with_list.__code__.co_firstlineno + 1}\)"):
        direct(with_list)


def aval_of(array):
    return AVALS[tensor(array)._aval]


OWN = [p for p in ENTRIES if p.kind in (Kind.CONTRACT, Kind.INDEX, Kind.OPAQUE)]


@pytest.mark.parametrize("prim", OWN, ids=ident)
def test_own_kernels_of_the_table_are_in_the_language(prim, rng):
    """None of them needs Numba, in any dtype; a wrong index would show in the table tests."""
    for dtype in dtypes_of(prim):
        arrays, params = next(iter(samples(prim, dtype, rng)))
        avals = [aval_of(a) for a in arrays]
        kinds = [a.dtype for a in (prim.aval(*avals, **params), *avals)]
        text = build.translated("kernel", prim, kinds, len(prim.words(*avals, **params)))
        assert "define i64 @kernel(" in text
