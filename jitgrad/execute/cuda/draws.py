"""Random bits and permutations: bit for bit the CPU's."""

from __future__ import annotations

import math
import textwrap

import numpy as np

from jitgrad.core.form import Form
from jitgrad.execute.cuda.kernel import Work, digits, kernel, launch, turns
from jitgrad.execute.cuda.sorting import ordered
from jitgrad.execute.source import literal

_WORD = np.dtype(np.int64)


def work(f: Form) -> Work:
    """The launches of a form, by the entry's name and what its own kernel gets."""
    assert f.prim.words is not None
    if not f.outs[0].size:
        return Work(())
    made: Work = globals()[f.prim.name](f, *f.prim.words(*f.avals, **f.params))
    return made


def random_bits(f: Form, states: int, size: int, words: int, dropped: int) -> Work:
    """A thread for each block of Philox 4x32-10, which has up to four elements; see ops/random.py."""
    dtype = f.outs[0].dtype
    parts = [f"c{k}" for k in range(4)] if words == 4 else ["(shl(c0, 32) | c1)", "(shl(c2, 32) | c3)"]
    integer = [f"ushr({part}, {dropped})" if dropped else part for part in parts]
    word = "i4" if dtype == np.int32 else "i8" if dtype == _WORD else ""
    # without the bits that there is no room for, both the conversion and the product with a power of two are exact
    values = [f"{word}({v})" if word else f"mul({'f4' if dtype.itemsize == 4 else 'f8'}({v}), "
              f"{literal(math.ldexp(1.0, dropped - 128 // words), dtype)})" for v in integer]
    stores = [line for k, value in enumerate(values) for line in (
        f"at = first + {k}", "if at >= 0 and at < size:", f"    out[row * size + at] = {value}")]
    lines = [*digits("i", ("block", "blocks"), ("row", "")), *textwrap.dedent(f"""
        key = state[3 * row]
        stream = state[3 * row + 1]
        start = state[3 * row + 2]
        {"" if words == 4 else "start = add64(start, i8(1)) >> 1"}
        first = block * {words} - (start & {words - 1})
        counter = (start >> {words.bit_length() - 1}) + block
        c0 = counter & 0xFFFFFFFF
        c1 = ushr(counter, 32)
        c2 = stream & 0xFFFFFFFF
        c3 = ushr(stream, 32)
        k0 = key & 0xFFFFFFFF
        k1 = ushr(key, 32)
        r = 0
        while r < 10:
            p0 = mul64(c0, i8(0xD2511F53))
            p1 = mul64(c2, i8(0xCD9E8D57))
            c0 = ushr(p1, 32) ^ c1 ^ k0
            c1 = p1 & 0xFFFFFFFF
            c2 = ushr(p0, 32) ^ c3 ^ k1
            c3 = p0 & 0xFFFFFFFF
            k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
            k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
            r += 1
        """).strip().splitlines(), *stores]
    made = kernel(f"random_bits_{dtype.name}", turns(lines), (dtype, _WORD), ("out", "state", "n", "size", "blocks"))
    blocks = -(-size // words) + 1
    return Work((launch(made, (0, 1), (states * blocks, size, blocks), states * blocks),))


def random_permutation(f: Form, rows: int, n: int) -> Work:
    """The swaps of Fisher and Yates, which are one after the other, as paths that all numbers walk at once.

    Swap i exchanges places i and j(i) <= i, where j(i) is known from the bits. So the number i goes to place j(i), on
    to the next i' with the same j, from there to the first i'' > i' with j(i'') = i', and so on: steps between swaps
    that stand together when swaps are sorted by (j, i). Paths are as long as log n, on average.
    """
    size = rows * n
    place = textwrap.dedent("""
        word = bits[i]
        count = k + 1
        j = ushr(ushr(word, 32) * count + ushr((word & 0xFFFFFFFF) * count, 32), 32)
        swaps[i] = shl(j, 32) | k
        first[i] = -1
        """).strip().splitlines()
    taken = ["j = ushr(swaps[i], 32)", "k = swaps[i] & 0xFFFFFFFF", "base = row * length"]
    heads = [*digits("i", ("at", "length"), ("row", "")), *taken, "if at == 0 or ushr(swaps[i - 1], 32) != j:",
             "    first[base + j] = k"]
    walk = [*digits("i", ("at", "length"), ("row", "")), *taken, "place = j", "next = i8(-1)",
            "if at + 1 < length and ushr(swaps[i + 1], 32) == j:", "    next = swaps[i + 1] & 0xFFFFFFFF",
            "while next >= 0:", "    place = next", "    next = first[base + place]", "out[base + place] = k"]
    makes = kernel("permutation_swaps", turns([*digits("i", ("k", "length"), ("row", "")), *place]), (_WORD,) * 3,
                   ("swaps", "first", "bits", "n", "length"))
    links = kernel("permutation_heads", turns(heads), (_WORD,) * 2, ("swaps", "first", "n", "length"))
    walks = kernel("permutation_walks", turns(walk), (_WORD,) * 3, ("out", "swaps", "first", "n", "length"))
    return Work((launch(makes, (2, 3, 1), (size, n), size), *ordered(rows, n, (2,)),
                 launch(links, (2, 3), (size, n), size), launch(walks, (0, 2, 3), (size, n), size)), (8 * size,) * 2)
