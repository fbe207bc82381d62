"""Random numbers from a counter: a pure function of (seed, counter), the same on every machine and thread count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jitgrad.core import dtypes
from jitgrad.core.aval import Aval, as_shape, aval
from jitgrad.core.errors import user_error
from jitgrad.core.primitive import Kind, kernel


def _aval(state: Aval, *, shape: tuple[int, ...], dtype: str) -> Aval:
    code = dtypes.code_of(dtype)
    if state.shape != (2,) or state.code != dtypes.INT64:
        raise user_error(ValueError, f"random_uniform: the state is two int64 numbers, seed and counter, got {state!r}")
    if not dtypes.is_float(code):
        raise user_error(TypeError, f"random_uniform: makes floats, not {dtypes.NAMES[code]}")
    return aval(code, as_shape(shape))


def _words(state: Aval, *, shape: tuple[int, ...], dtype: str) -> tuple[int]:
    return (8 if dtype == "float64" else 4,)


def _ref(state: Any, *, shape: tuple[int, ...], dtype: str) -> Any:
    """Philox 4x32-10 over whole arrays."""
    size, wide = math.prod(shape), dtype == "float64"
    blocks = -(-size // (2 if wide else 4))
    mask = np.uint64(0xFFFFFFFF)
    counter = np.uint64(int(state[1]) & (2**64 - 1)) + np.arange(blocks, dtype=np.uint64)
    c = [counter & mask, counter >> np.uint64(32), np.zeros(blocks, np.uint64), np.zeros(blocks, np.uint64)]
    seed = int(state[0]) & (2**64 - 1)
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), p1 & mask,
             (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), p0 & mask]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    words = np.stack(c, 1).reshape(-1)
    if wide:
        high, low = words[0::2] >> np.uint64(5), words[1::2] >> np.uint64(6)
        out: np.ndarray = (high * np.uint64(67108864) + low) * 2.0**-53
    else:
        out = (words >> np.uint64(8)) * 2.0**-24
    return out[:size].astype(dtype).reshape(shape)


def _samples(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    state = np.array([rng.integers(2**60), 3], np.int64)
    return [((state,), {"shape": (3, 7), "dtype": dtype}) for dtype in ("float32", "float64")]


@kernel(Kind.OPAQUE, vjp=None, ref=_ref, samples=_samples, operands=("state",), params=("shape", "dtype"),
        domain="index", aval=_aval, words=_words, ulp=0.0)
def random_uniform(out, state, width):
    """Uniform numbers in [0, 1) by Philox 4x32-10 (Salmon et al., SC 2011): 24 random bits each, 53 in float64.

    ``state`` holds the seed and the counter of the first block of four 32-bit words.
    """
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    size = out.size
    per = 2 if width == 8 else 4
    seed = np.uint64(state[0])
    counter = np.uint64(state[1])
    for block in range((size + per - 1) // per):
        c0, c1, c2, c3 = counter & mask, counter >> half, np.uint64(0), np.uint64(0)
        k0, k1 = seed & mask, seed >> half
        for _ in range(10):
            p0 = c0 * np.uint64(0xD2511F53)
            p1 = c2 * np.uint64(0xCD9E8D57)
            c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1 & mask, (p0 >> half) ^ c3 ^ k1, p0 & mask
            k0 = (k0 + np.uint64(0x9E3779B9)) & mask
            k1 = (k1 + np.uint64(0xBB67AE85)) & mask
        counter += np.uint64(1)
        at = block * per
        if width == 8:
            out[at] = (float(c0 >> np.uint64(5)) * 67108864.0 + float(c1 >> np.uint64(6))) / 9007199254740992.0
            if at + 1 < size:
                out[at + 1] = (float(c2 >> np.uint64(5)) * 67108864.0 + float(c3 >> np.uint64(6))) / 9007199254740992.0
        else:
            out[at] = float(c0 >> np.uint64(8)) / 16777216.0
            if at + 1 < size:
                out[at + 1] = float(c1 >> np.uint64(8)) / 16777216.0
            if at + 2 < size:
                out[at + 2] = float(c2 >> np.uint64(8)) / 16777216.0
            if at + 3 < size:
                out[at + 3] = float(c3 >> np.uint64(8)) / 16777216.0
    return 0
