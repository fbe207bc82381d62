"""Rows that hold Programs, as kernels: a choice between two, and loops. Inside a sweep, they sweep.

Working memory is one block a run: on the stack where it is small, else by PyMem_RawMalloc, for these kernels may run
without the GIL. It holds the table of pointers that the inner instructions read, what moves from one iteration to
the next, a second buffer for each carry, and the arena.
"""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.raw import (
    check_signals,
    copy,
    gil_ensure,
    gil_release,
    gil_thread,
    load,
    load_i8,
    release,
    resize,
    stack,
    state,
    store,
    store_i32,
)
from jitgrad.execute.cpu.native.sweep import sweep

frame_room = stack(lay.LOOP_BYTES // 8)


def fill(table, pointers, count):
    for k in range(count):
        store(table + 8 * k, load(pointers + 8 * k))


def branch(params, slots):
    """slots: results, a bool, operands. The table: operands, results, constants."""
    room = load(params + lay.Q_ROOM)
    block = frame_room() if room <= lay.LOOP_BYTES else resize(0, room + 64)
    if block == 0:
        return lay.NO_MEMORY
    table = (block + 63) & -64
    results, operands = load(params + lay.Q_RESULTS), load(params + lay.Q_OPERANDS)
    fill(table, slots + 8 * (results + 1), operands)
    fill(table + 8 * operands, slots, results)
    fill(table + 8 * (operands + results), load(params + lay.Q_CONSTANTS_AT), load(params + lay.Q_CONSTANT_COUNT))
    chosen = params + (lay.Q_YES if load_i8(load(slots + 8 * results)) != 0 else lay.Q_NO)
    status = sweep(load(chosen), load(chosen + 8), table, table + load(params + lay.Q_ARENA))
    if room > lay.LOOP_BYTES:
        release(block)
    return status


def loop(params, slots):
    """Stages one after the other, each as many iterations as the first; see `transform.control`.

    The block: what each stage's iterations left behind for later stages, the number of iterations, the stage's table.
    """
    room, stages = load(params + lay.R_ROOM), load(params + lay.R_STAGES)
    block = frame_room() if room <= lay.LOOP_BYTES else resize(0, room + 64)
    if block == 0:
        return lay.NO_MEMORY
    at = (block + 63) & -64
    for s in range(stages):
        store(at + 8 * s, 0)
    store(at + 8 * stages, load(params + lay.R_LENGTH))
    status, s = 0, 0
    while s < stages and status == 0:
        status = run_stage(params, slots, at, s)
        s += 1
    count = load(params + lay.R_COUNT)
    if status == 0 and count >= 0:
        store_i32(load(slots + 8 * count), load(at + 8 * stages))
    for s in range(stages):
        release(load(at + 8 * s))
    if room > lay.LOOP_BYTES:
        release(block)
    return status


def run_stage(params, slots, block, s):
    stages = load(params + lay.R_STAGES)
    stage = load(params + lay.R_STAGE + 8 * s)
    n = load(block + 8 * stages)
    record = load(stage + lay.G_RECORD)
    if record != 0:
        kept = resize(0, record * max(n, 16))
        if kept == 0:
            return lay.NO_MEMORY
        store(block + 8 * s, kept)
    begin(params, stage, slots, block, n)
    status = iterate(params, stage, block, s, n)
    if status == 0:
        table = block + load(stage + lay.G_TABLE)
        for c in range(load(stage + lay.G_CARRY_COUNT)):
            y = load(stage + lay.G_CARRY) + lay.Y_WIDTH * c
            last, out = load(table + load(y + lay.Y_IN)), load(slots + load(y + lay.Y_SLOT))
            if last != out:
                copy(out, last, load(y + lay.Y_BYTES))
    return status


def begin(params, stage, slots, block, n):
    """The table as the first iteration reads it, and what is to move after each."""
    table = block + load(stage + lay.G_TABLE)
    fill(table, slots + 8 * load(params + lay.R_CONSTS_AT), load(params + lay.R_CONSTS))
    fill(table + load(stage + lay.G_CONSTANT_WORD), load(stage + lay.G_CONSTANTS), load(stage + lay.G_CONSTANT_COUNT))
    swap = block + load(stage + lay.G_SWAPS)
    for c in range(load(stage + lay.G_CARRY_COUNT)):
        y = load(stage + lay.G_CARRY) + lay.Y_WIDTH * c
        store(table + load(y + lay.Y_IN), load(slots + load(y + lay.Y_GIVEN)))
        if load(y + lay.Y_OUT) >= 0:
            out, other = load(slots + load(y + lay.Y_SLOT)), block + load(y + lay.Y_ROOM)
            # the last of n iterations is to write the result itself
            store(table + load(y + lay.Y_OUT), other if n > 0 and n & 1 == 0 else out)
            store(swap, table + load(y + lay.Y_IN))
            store(swap + 8, table + load(y + lay.Y_OUT))
            store(swap + 16, out + other)
            swap += 24
    store(swap, 0)
    move = block + load(stage + lay.G_MOVES)
    for k in range(load(stage + lay.G_STREAM_COUNT)):
        x = load(stage + lay.G_STREAM) + lay.X_WIDTH * k
        stride, where = load(x + lay.X_STRIDE), load(x + lay.X_WHERE)
        of = load(x + lay.X_STAGE)
        first = load(block + 8 * of) + where if of >= 0 else load(slots + where)
        if load(stage + lay.G_REVERSE) != 0:
            first += (n - 1) * stride
            stride = -stride
        store(table + load(x + lay.X_WORD), first)
        store(move, table + load(x + lay.X_WORD))
        store(move + 8, stride)
        move += 16
    store(move, 0)


def iterate(params, stage, block, s, n):
    """``n`` iterations, or with -1 as long as the condition holds: their number is stored."""
    table, arena = block + load(stage + lay.G_TABLE), block + load(params + lay.R_ARENA)
    moves, swaps = block + load(stage + lay.G_MOVES), block + load(stage + lay.G_SWAPS)
    code, rows, work = load(stage + lay.G_CODE), load(stage + lay.G_CODE_COUNT), load(params + lay.R_WORK)
    cond, cond_rows = load(params + lay.R_COND), load(params + lay.R_COND + 8)
    flag = block + load(params + lay.R_COND + 24)
    if n < 0:
        store(table + load(params + lay.R_COND + 16), flag)
    i, room = 0, 16
    while n < 0 or i < n:
        if n < 0:
            status = sweep(cond, cond_rows, table, arena)
            if status != 0:
                return status
            if load_i8(flag) == 0:
                break
            if i == room:
                room *= 2
                if not grown(stage, block, s, room):
                    return lay.NO_MEMORY
        status = sweep(code, rows, table, arena)
        if status != 0:
            return status
        at = moves
        while load(at) != 0:
            store(load(at), load(load(at)) + load(at + 8))
            at += 16
        at = swaps
        while load(at) != 0:
            fresh = load(load(at + 8))
            store(load(at), fresh)
            store(load(at + 8), load(at + 16) - fresh)
            at += 24
        i += 1
        if work != 0 and interrupted(work):
            return lay.INTERRUPTED
    store(block + 8 * load(params + lay.R_STAGES), i)
    return 0


def grown(stage, block, s, room):
    """Room for more iterations of what a stage leaves behind, whose streams all lie there; False if memory is out."""
    record = load(stage + lay.G_RECORD)
    if record != 0:
        old = load(block + 8 * s)
        kept = resize(old, record * room)
        if kept == 0:
            return False
        store(block + 8 * s, kept)
        at = block + load(stage + lay.G_MOVES)
        while load(at) != 0:
            store(load(at), load(load(at)) + kept - old)
            at += 16
    return True


def interrupted(work):
    """Let signal handlers run once in a while; whether one raised an exception, which stays set."""
    st = state()
    left = load(st + lay.S_POLL) - work
    if left >= 0:
        store(st + lay.S_POLL, left)
        return False
    store(st + lay.S_POLL, lay.POLL_WORK)
    if gil_thread() == 0:
        return False                     # Python does not know it: who has the GIL may wait for this thread
    thread = gil_ensure()
    stopped = check_signals() != 0
    gil_release(thread)
    return stopped
