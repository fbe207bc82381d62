"""A recorded call for callers that are not Python: it needs no GIL but to assign Variables, and owns nothing.

``f`` is the struct that layout.Z_* describes. Several threads may be in it at once: all that a call writes is its own.
"""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.raw import (
    copy,
    gil_ensure,
    gil_release,
    gil_thread,
    load,
    release,
    resize,
    stack,
    store,
)
from jitgrad.execute.cpu.native.sweep import SMALL_TABLE, drop, sweep
from jitgrad.execute.cpu.native.tensors import hold, tensor_new

frame_table = stack(SMALL_TABLE)
frame_arena = stack(lay.FOREIGN_ARENA // 8 + 8)


def put(table, pointers, count):
    for k in range(count):
        store(table + 8 * k, load(pointers + 8 * k))
    return table + 8 * count


def foreign_run(f, given):
    """Compute the results from the arguments: pointers to those, then to the results' memory. 0, or what failed."""
    if load(f + lay.Z_ASSIGNED_COUNT) != 0 and gil_thread() == 0:
        return lay.NO_THREAD             # it would wait for the GIL, and who has that may wait for this thread
    words, size = load(f + lay.Z_WORDS), load(f + lay.Z_ARENA)
    table = frame_table() if words <= SMALL_TABLE else resize(0, 8 * words)
    block = frame_arena() if size <= lay.FOREIGN_ARENA else resize(0, size + 64)
    status = lay.NO_MEMORY
    if table != 0 and block != 0:
        n = load(f + lay.Z_GIVEN)
        at = put(table, given, n)
        at = put(at, load(f + lay.Z_FIXED), load(f + lay.Z_FIXED_COUNT))
        results, arena = at, (block + 63) & -64
        at = put(at, given + 8 * n, load(f + lay.Z_RESULTS))
        for k in range(load(f + lay.Z_OWN_COUNT)):
            store(at, arena + load(load(f + lay.Z_OWN) + 8 * k))
            at += 8
        put(at, load(f + lay.Z_CONSTANTS), load(f + lay.Z_CONSTANT_COUNT))
        status = sweep(load(f + lay.Z_CODE), load(f + lay.Z_COUNT), table, arena)
        if status == 0 and load(f + lay.Z_ASSIGNED_COUNT) != 0:
            status = assign_all(f, results)
    if words > SMALL_TABLE:
        release(table)
    if size > lay.FOREIGN_ARENA:
        release(block)
    return status


def assign_all(f, results):
    """Let Variables hold results, whose addresses these are; none does if memory is out."""
    thread = gil_ensure()
    status, made, n = 0, 0, load(f + lay.Z_ASSIGNED_COUNT)
    fresh = resize(0, 8 * n)
    if fresh == 0:
        status = lay.NO_MEMORY
    while status == 0 and made < n:
        k = load(load(f + lay.Z_ASSIGNED) + 16 * made + 8)
        out = load(f + lay.Z_OUTPUTS) + lay.F_OUT_BYTES * k
        o = tensor_new(load(out), load(out + 8), load(out + 16), load(out + 24))
        if o == 0:
            status = lay.INTERRUPTED     # by an exception, which is set
        else:
            copy(load(o + lay.T_DATA), load(results + 8 * k), load(out + 8))
            store(fresh + 8 * made, o)
            made += 1
    if status == 0:
        for i in range(n):
            store(fresh + 8 * i, hold(load(load(f + lay.Z_ASSIGNED) + 16 * i), load(fresh + 8 * i)))
    drop(fresh, made)
    release(fresh)
    gil_release(thread)
    return status
