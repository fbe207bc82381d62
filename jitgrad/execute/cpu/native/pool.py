"""Blocks that are kept for the next result of their size.

Large ones, because fresh memory costs a page fault for every 4 kB: the table holds (bytes, address), the last given
last. Others, because of the two calls of an allocator: a list of each size leads from one to the next. Blocks
come from and go back to PyObject_Malloc, under the GIL.
"""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.raw import advise, load, move_bytes, object_free, object_malloc, store

PAGE = 4096
ADVICE = 14                    # MADV_HUGEPAGE: one page fault for 2 MB, where the system is willing


def take_block(st, need):
    """A block of at least ``need`` bytes, in S_POOL_TAKEN how many; 0 if memory is out."""
    table, count = load(st + lay.S_POOL), load(st + lay.S_POOL_COUNT)
    for back in range(count):
        i = count - 1 - back             # what was freed last is in the processor's caches still
        size = load(table + 16 * i)
        if need <= size and size - need <= need >> 3:
            block = load(table + 16 * i + 8)
            forget(st, i)
            store(st + lay.S_POOL_TAKEN, size)
            return block
    size = (need + PAGE - 1) & -PAGE
    store(st + lay.S_POOL_TAKEN, size)
    block = object_malloc(size)
    if block == 0 and load(st + lay.S_POOL_COUNT) > 0:
        while load(st + lay.S_POOL_COUNT) > 0:
            free_oldest(st)
        block = object_malloc(size)
    if lay.HUGE != 0 and block != 0 and size >= lay.HUGE:
        advise((block + PAGE - 1) & -PAGE, size - PAGE, ADVICE)
    return block


def give_block(st, block, size):
    """Keep a block; the oldest go where there would be too many, or more bytes than the limit."""
    limit = load(st + lay.S_POOL_LIMIT)
    if size > limit:
        object_free(block)
        return
    while load(st + lay.S_POOL_COUNT) == lay.POOL_BLOCKS or load(st + lay.S_POOL_HELD) + size > limit:
        free_oldest(st)
    at = load(st + lay.S_POOL) + 16 * load(st + lay.S_POOL_COUNT)
    store(at, size)
    store(at + 8, block)
    store(st + lay.S_POOL_COUNT, load(st + lay.S_POOL_COUNT) + 1)
    store(st + lay.S_POOL_HELD, load(st + lay.S_POOL_HELD) + size)


def free_oldest(st):
    block = load(load(st + lay.S_POOL) + 8)
    forget(st, 0)
    object_free(block)


def forget(st, i):
    """Take entry i out of the table."""
    table, left = load(st + lay.S_POOL), load(st + lay.S_POOL_COUNT) - 1
    store(st + lay.S_POOL_COUNT, left)
    store(st + lay.S_POOL_HELD, load(st + lay.S_POOL_HELD) - load(table + 16 * i))
    move_bytes(table + 16 * i, table + 16 * (i + 1), 16 * (left - i))


def take_small(st, room):
    """The block for a Tensor with so much room that was freed last, or a new one; 0 if memory is out."""
    waiting = load(st + lay.S_WAITING) + 16 * (room >> 6)
    block = load(waiting)
    if block == 0:
        return object_malloc(lay.T_PAYLOAD + room)
    store(waiting, load(block + lay.T_DATA))
    store(waiting + 8, load(waiting + 8) - 1)
    store(st + lay.S_WAITING_BYTES, load(st + lay.S_WAITING_BYTES) - room)
    return block


def give_small(st, block, room):
    """Keep the block of a Tensor, unless many are waiting."""
    waiting = load(st + lay.S_WAITING) + 16 * (room >> 6)
    count, held = load(waiting + 8), load(st + lay.S_WAITING_BYTES) + room
    if count * room >= lay.WAITING or held > lay.MOST_WAITING:
        object_free(block)
        return
    store(block + lay.T_DATA, load(waiting))
    store(waiting, block)
    store(waiting + 8, count + 1)
    store(st + lay.S_WAITING_BYTES, held)
