"""Large kernels in pieces along one extent that they are told in their params: each piece is a task of the team.

The pieces are the same however many threads there are, and a kernel gives an element the same bits in any piece.
"""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.raw import call_kernel, copy, load, stack, store
from jitgrad.execute.cpu.native.threads import parallel

frame_context, frame_words, frame_pointers = stack(2), stack(lay.PIECE_WORDS), stack(lay.PIECE_SLOTS)


def divide(params, slots):
    """params: address of `piece`, kernel, extent, which of the kernel's words holds it, how much of it is a piece,
    slots, bytes from one to the next in each slot, how many words the kernel has, its words."""
    context = frame_context()
    store(context, params)
    store(context + 8, slots)
    return parallel(load(params), context, (load(params + 16) + load(params + 32) - 1) // load(params + 32))


def piece(context, index):
    params, slots = load(context), load(context + 8)
    extent, size, count = load(params + 16), load(params + 32), load(params + 40)
    first = index * size
    pointers, words = frame_pointers(), frame_words()
    for k in range(count):
        store(pointers + 8 * k, load(slots + 8 * k) + first * load(params + 48 + 8 * k))
    given = params + 48 + 8 * count
    copy(words, given + 8, 8 * load(given))
    store(words + 8 * load(params + 24), min(size, extent - first))
    return call_kernel(load(params + 8), words, pointers)
