"""Large blocks that are kept for the next result of their size: fresh memory costs a page fault for every 4 kB.

Blocks come from and go back to PyObject_Malloc, under the GIL. The table holds (bytes, address), the last given last.
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
