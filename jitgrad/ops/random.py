"""Random bits from a counter, and numbers from random bits: pure functions, the same on every machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core import dtypes
from jitgrad.core.aval import Aval, aval
from jitgrad.core.errors import user_error
from jitgrad.core.primitive import Kind, elementwise, kernel
from jitgrad.core.record import tensor
from jitgrad.ops import scalar
from jitgrad.ops.batching import Batch, moved
from jitgrad.ops.maths import quantile

WORDS = {"int32": 4, "int64": 2, "float32": 4, "float64": 2}        # elements of one block of 128 bits
_DROPPED = {"int32": 0, "int64": 0, "float32": 8, "float64": 11}      # bits that a float has no room for


def philox(key: int, stream: int, blocks: np.ndarray) -> np.ndarray:
    """Philox 4x32-10 over whole arrays: four words of 32 bits for each block, given by its number in uint64."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    c = [blocks & mask, blocks >> half,
         *(np.full(blocks.shape, v, np.uint64) for v in (stream & 0xFFFFFFFF, stream >> 32))]
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(p1 >> half) ^ c[1] ^ np.uint64(k0), p1 & mask, (p0 >> half) ^ c[3] ^ np.uint64(k1), p0 & mask]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, -1)


def pairs(words: np.ndarray) -> np.ndarray:
    """Words of 64 bits from those of 32."""
    wide: np.ndarray = words[..., 0::2] << np.uint64(32) | words[..., 1::2]
    return wide


def _bits_aval(state: Aval, *, size: int, dtype: str) -> Aval:
    if state.shape[-1:] != (3,) or state.code != dtypes.INT64:
        raise user_error(ValueError, "random_bits: the state is three int64 numbers, key, stream and place, got "
                                     f"{state!r}")
    if dtype not in WORDS:
        raise user_error(TypeError, f"random_bits: makes int32, int64, float32 or float64, not {dtype}")
    if type(size) is not int or size < 0:
        raise user_error(ValueError, f"random_bits: {size!r} is no number of elements")
    return aval(dtypes.code_of(dtype), (*state.shape[:-1], size))


def _bits_ref(state: Any, *, size: int, dtype: str) -> Any:
    out = np.empty((*state.shape[:-1], size), np.longdouble if dtype[0] == "f" else dtype)
    for row in np.ndindex(state.shape[:-1]):
        out[row] = _stream_ref(state[row], size, dtype)
    return out


def _stream_ref(state: Any, size: int, dtype: str) -> Any:
    key, stream, place = map(int, state)
    each = WORDS[dtype]
    first, skipped = divmod(place if each == 4 else (place + 1) // 2, each)
    blocks = np.uint64(first % 2**64) + np.arange((skipped + size + each - 1) // each, dtype=np.uint64)
    words = philox(key % 2**64, stream % 2**64, blocks)
    words = (words if each == 4 else pairs(words)).ravel()[skipped: skipped + size]
    if dtype[0] == "f":
        kept = 128 // each - _DROPPED[dtype]
        return (words >> np.uint64(_DROPPED[dtype])).astype(np.longdouble) * np.longdouble(2.0)**-kept
    return words.astype(f"u{dtype}").view(dtype)


def _bits_samples(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """States at places that begin and end inside of blocks, and before the first one."""
    states = rng.integers(-2**63, 2**63, (6, 3))
    states[:, 2] = 0, 1, 2, 3, -2, 2**40 + 1
    return [((states,), {"size": size, "dtype": dtype}) for dtype in WORDS for size in (37, 2, 0)] + [
        ((states[place],), {"size": 16, "dtype": "float32"}) for place in (0, 1)]


EXAMPLES = -2**63              # places from here on make keys and streams of the examples of a batch: no draw is there


def _bits_batch(batched: Sequence[bool], count: int, state: Any, *, size: int, dtype: str) -> Batch:
    """A shared state gives each example a key and a stream of its own: a function of theirs and of the example's
    number, whatever the size of the batch. So nested batches are told apart, too.
    """
    if not batched[0]:
        *lead, _ = state.shape
        whole = tuple((0, n, 1) for n in lead)
        here = ops.broadcast_to(tensor(EXAMPLES, dtypes.INT64), (*lead, 1))
        common = ops.concat(ops.slice(state, (*whole, (0, 2, 1))), here, len(lead))
        own = moved(ops.reshape(ops.random_bits(common, 2 * count, "int64"), (*lead, count, 2)), len(lead), 0)
        place = ops.broadcast_to(ops.slice(state, (*whole, (2, 1, 1))), (count, *lead, 1))
        state = ops.concat(own, place, len(lead) + 1)
    return (ops.random_bits(state, size, dtype),), (True,)


@kernel(Kind.OPAQUE, vjp=None, ref=_bits_ref, samples=_bits_samples, operands=("state",), params=("size", "dtype"),
        domain="index", aval=_bits_aval, ulp=0.0, batch=_bits_batch, draws=lambda **params: True, cuda="draws",
        words=lambda state, *, size, dtype: (state.size // 3, size, WORDS[dtype], _DROPPED[dtype]))
def random_bits(out, state, states, size, words, dropped):
    """Random bits by Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

    ``state`` holds the key, the stream and the place of the first word, 64 bits each. A stream is words of 32 bits;
    four of them, block b, are the cipher of the counter (b, stream) under the key. int64 takes two words, the first of
    them an even one. In a float dtype these integers, read as unsigned, make uniform numbers in [0, 1): of their first
    24 bits, or 53. Several states, along leading axes, have their numbers along the same axes of the result.
    """
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    drop = np.uint64(dropped)
    for row in range(states):
        key = np.uint64(state[3 * row])
        stream = np.uint64(state[3 * row + 1])
        place = state[3 * row + 2]
        at = row * size
        start = place if words == 4 else (place + 1) >> 1
        first = start >> 2 if words == 4 else start >> 1
        skipped = start & (words - 1)
        if skipped > 0 and size > 0:
            taken = min(words - skipped, size)
            part_of_block(out, at, skipped, skipped + taken, words, drop, key, stream, np.uint64(first))
            at += taken
            first += 1
        blocks = (row * size + size - at) // words
        # the rounds stand thrice, since only a loop of one kind of store becomes vectors
        if words == 4:
            for block in range(blocks):
                counter = np.uint64(first + block)
                # bits above the low 32 of a word are left to be anything: products and stores take the low half
                c0, c1, c2, c3 = counter, counter >> half, stream, stream >> half
                k0, k1 = key, key >> half
                for _ in range(10):
                    p0 = (c0 & mask) * np.uint64(0xD2511F53)
                    p1 = (c2 & mask) * np.uint64(0xCD9E8D57)
                    c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1, (p0 >> half) ^ c3 ^ k1, p0
                    k0 += np.uint64(0x9E3779B9)
                    k1 += np.uint64(0xBB67AE85)
                out[at + 4 * block] = np.int64((c0 & mask) >> drop)
                out[at + 4 * block + 1] = np.int64((c1 & mask) >> drop)
                out[at + 4 * block + 2] = np.int64((c2 & mask) >> drop)
                out[at + 4 * block + 3] = np.int64((c3 & mask) >> drop)
        else:
            for block in range(blocks):
                counter = np.uint64(first + block)
                c0, c1, c2, c3 = counter, counter >> half, stream, stream >> half
                k0, k1 = key, key >> half
                for _ in range(10):
                    p0 = (c0 & mask) * np.uint64(0xD2511F53)
                    p1 = (c2 & mask) * np.uint64(0xCD9E8D57)
                    c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1, (p0 >> half) ^ c3 ^ k1, p0
                    k0 += np.uint64(0x9E3779B9)
                    k1 += np.uint64(0xBB67AE85)
                out[at + 2 * block] = np.int64(((c0 << half) | (c1 & mask)) >> drop)
                out[at + 2 * block + 1] = np.int64(((c2 << half) | (c3 & mask)) >> drop)
        at += blocks * words
        rest = row * size + size - at
        if rest > 0:
            part_of_block(out, at, 0, rest, words, drop, key, stream, np.uint64(first + blocks))
    if dropped == 8:
        for i in range(out.size):
            out[i] = out[i] * 5.9604644775390625e-08           # 2^-24
    if dropped == 11:
        for i in range(out.size):
            out[i] = out[i] * 1.1102230246251565e-16           # 2^-53
    return 0


def part_of_block(out, at, begin, end, words, drop, key, stream, counter):
    """Elements ``begin`` to ``end`` of a block."""
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    c0, c1, c2, c3 = counter, counter >> half, stream, stream >> half
    k0, k1 = key, key >> half
    for _ in range(10):
        p0 = (c0 & mask) * np.uint64(0xD2511F53)
        p1 = (c2 & mask) * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1, (p0 >> half) ^ c3 ^ k1, p0
        k0 += np.uint64(0x9E3779B9)
        k1 += np.uint64(0xBB67AE85)
    for k in range(begin, end):
        if words == 4:
            word = (c0 if k == 0 else c1 if k == 1 else c2 if k == 2 else c3) & mask
        else:
            word = (c0 << half) | (c1 & mask) if k == 0 else (c2 << half) | (c3 & mask)
        out[at + k - begin] = np.int64(word >> drop)


def _steps(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [((np.array([[-7, 9, place] for place in range(-3, 4)]), np.array([0, 0, unit]), np.array([count])), {})
            for unit in (1, 2) for count in (0, 5)]


@elementwise(domain="integer", vjp=None, samples=_steps,
             ref=lambda state, unit, count: np.where(unit > 0, -(-state // np.maximum(unit, 1) - count) * unit, state))
def random_next(state, unit, count):
    """The state behind a draw of ``count`` numbers, which take one or two words each: ``unit`` is (0, 0, 1 or 2)."""
    return scalar.where(unit > 0, ((state + (unit - 1)) & -unit) + unit * count, state)


# ---- floats from bits ----------------------------------------------------------------------------

def _float_aval(bits: Aval, **params: Any) -> Aval:
    return aval(_FLOATS[bits.code], bits.shape)


_FLOATS = {dtypes.INT32: dtypes.FLOAT32, dtypes.INT64: dtypes.FLOAT64}


def _patterns(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Bits at random, and those at the ends, around 0 and at powers of two from an end, of both widths."""
    near = [top - (1 << k) for width in (31, 63) for top in [2**width - 1] for k in range(width)]
    some = np.array([2**63 - 1, 2**31 - 1, 0, 1, *near, *rng.integers(0, 2**63, 40), *rng.integers(0, 2**31, 40)])
    return [((np.concatenate([some, ~some]),), {})]


def _ends(bits: Any) -> list[tuple[int, float, float]]:
    """Sign, |v| and 1 - |v| of v = (2 i + 1) / 2^width: exact before they round."""
    half = 1 << (8 * bits.dtype.itemsize - 1)
    sizes = [(i, ~i if i < 0 else i) for i in map(int, bits.ravel())]
    return [(-1 if i < 0 else 1, (2 * n + 1) / (2 * half), (2 * (half - 1 - n) + 1) / (2 * half)) for i, n in sizes]


def _normal_ref(bits: Any, *, share: float) -> Any:
    """The standard library's quantile, a step of Newton's method nearer."""
    def at(sign: int, v: float, distance: float) -> float:
        v, distance = v * share, distance * share + (1.0 - share)
        x = -_STANDARD.inv_cdf(distance / 2)
        miss = v - math.erf(x / math.sqrt(2)) if v < 0.5 else math.erfc(x / math.sqrt(2)) - distance
        return sign * (x + miss * math.sqrt(math.pi / 2) * math.exp(x * x / 2))
    return np.array([at(*ends) for ends in _ends(bits)], np.longdouble).reshape(bits.shape)


_STANDARD = NormalDist()
TWO_SIGMA = 0.9544997361036416          # erf(sqrt(2)): what lies within two standard deviations


def _normal_samples(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [(bits, {"share": share}) for bits, _ in _patterns(rng) for share in (1.0, TWO_SIGMA)]


@elementwise(domain="integer", vjp=None, ref=_normal_ref, samples=_normal_samples, aval=_float_aval, ulp=5.0,
             defaults={"share": 1.0})
def random_normal(bits, *, share):
    """A standard normal number from random bits, by the quantile function: float32 up to 6.34 from an int32, float64
    up to 9.16 from an int64; a greater integer gives a greater number. ``share`` < 1 keeps to the middle of the
    distribution.
    """
    return quantile.normal(bits, share)


def _exponential_ref(bits: Any) -> Any:
    out = [-math.log(d / 2) if sign < 0 else -math.log1p(-d / 2) for sign, _, d in _ends(bits)]
    return np.array(out, np.longdouble).reshape(bits.shape)


@elementwise(domain="integer", vjp=None, ref=_exponential_ref, samples=_patterns, aval=_float_aval, ulp=3.0)
def random_exponential(bits):
    """A standard exponential number from random bits, above 0 and up to 22.9 (45.1 in float64)."""
    return quantile.exponential(bits)


# ---- integers from bits --------------------------------------------------------------------------

def _integer_ref(bits: Any, more: Any, span: Any, *, wide: bool) -> Any:
    width = 8 * bits.dtype.itemsize

    def at(a: int, b: int, n: int) -> int:
        a, b, n = a % 2**width, b % 2**width, n % 2**width
        if wide:
            found = (((a << width) | b) * n) >> 2 * width if n else a
        else:
            half = width // 2           # products beyond the width wrap, as those of a span too large do
            found = ((a >> half) * n + ((a % 2**half) * n % 2**width >> half)) % 2**width >> half
        return found - 2**width if found >= 2**(width - 1) else found
    return np.vectorize(lambda *v: at(*map(int, v)), otypes=[bits.dtype])(bits, more, span)


def _integer_samples(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    bits = np.concatenate([rng.integers(-2**63, 2**63, 20), [0, -1, 2**63 - 1, -2**63]])
    spans = [1, 2, 7, 2**31 - 1, 2**32 - 1, 2**32, 2**63 - 1, -2**31, -2**63, -1, 0]
    wide = [((bits, rng.permutation(bits), np.array([[n] for n in spans])), {"wide": True})]
    return [*wide, ((bits, np.int64(0), np.array([[1], [2], [7], [2 ** 15 - 1]])), {"wide": False})]


@elementwise(domain="integer", vjp=None, ref=_integer_ref, samples=_integer_samples,
             indexes=lambda bits, more, span, wide: (0, ()) if wide else (1, (2,)))      # narrow spans are positive
def random_integer(bits, more, span, *, wide):
    """The integer part of ``span`` times the fraction that ``bits`` are read as: each value likely to one part in 2^32.

    ``wide`` spans may be above 2^31 (2^15 of int32): the fraction goes on with ``more``, the span is read as unsigned,
    and 0 stands for 2^64 (2^32).
    """
    if not wide:
        half = 4 * bits.dtype.itemsize
        low = scalar.ushr((bits & ((1 << half) - 1)) * span, half)
        return scalar.ushr(scalar.ushr(bits, half) * span + low, half)
    low = bits * span
    carry = scalar.ult(low + _high(more, span), low)
    return scalar.where(span == 0, bits, _high(bits, span) + scalar.where(carry, span.dtype.type(1), 0))


def _high(a: Any, b: Any) -> Any:
    """The upper half of a product of unsigned integers."""
    if a.dtype == np.int64:
        return scalar.mulhi64(a, b)
    wide: list[Any] = [scalar.convert(x, np.int64) & 0xFFFFFFFF for x in (a, b)]
    return scalar.convert((wide[0] * wide[1]) >> 32, np.int32)


def _permutation_aval(bits: Aval) -> Aval:
    if bits.ndim == 0 or bits.code != dtypes.INT64:
        raise user_error(ValueError, f"random_permutation: takes one axis of int64 bits, or rows, got {bits!r}")
    return bits


def _permutation_ref(bits: Any) -> Any:
    out = np.empty(bits.shape, np.int64)
    for row in np.ndindex(bits.shape[:-1]):
        out[row] = range(bits.shape[-1])
        for i, b in enumerate(bits[row]):
            j = (int(b) % 2**64 * (i + 1)) >> 64
            out[*row, i], out[*row, j] = out[*row, j], out[*row, i]
    return out


def _permutation_samples(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [((rng.integers(-2**63, 2**63, shape),), {}) for shape in (40, 1, 0, (2, 5))]


@kernel(Kind.OPAQUE, vjp=None, ref=_permutation_ref, samples=_permutation_samples, operands=("bits",), domain="index",
        aval=_permutation_aval, words=lambda bits: (math.prod(bits.shape[:-1]), bits.shape[-1]), ulp=0.0,
        cuda="draws", batch=lambda batched, size, bits: ((ops.random_permutation(bits),), (True,)),
        indexes=lambda bits: (bits.shape[-1], ()))
def random_permutation(out, bits, rows, n):
    """The numbers 0 to n - 1 in an order that n int64 random bits choose (Fisher and Yates, inside out), by rows."""
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    for row in range(rows):
        first = row * n
        for i in range(n):
            word = np.uint64(bits[first + i])
            count = np.uint64(i) + np.uint64(1)
            j = np.int64(((word >> half) * count + (((word & mask) * count) >> half)) >> half)     # word * count / 2^64
            out[first + i] = out[first + j] if j < i else i
            out[first + j] = i
    return 0
