"""The sweep: forward and backward rows of a Plan, one kernel call each, and the run of a whole Plan around it."""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.pool import give_block, take_block
from jitgrad.execute.cpu.native.raw import (
    call_kernel,
    copy,
    decref,
    error_clear,
    error_occurred,
    incref,
    list_new,
    list_set,
    load,
    long_new,
    long_value,
    no_memory,
    release,
    resize,
    restore_thread,
    save_thread,
    stack,
    state,
    store,
    tuple_get,
    tuple_size,
    vectorcall,
    zero,
)
from jitgrad.execute.cpu.native.tensors import append_row, current_log, failed, tensor_new

SMALL_TABLE = 192
FEW_SLOTS = 64
frame_given = stack(SMALL_TABLE)
frame_one = stack(1)
frame_slots = stack(FEW_SLOTS)
frame_table = stack(SMALL_TABLE)


def is_guard(status):
    """Whether a status is that of a guard."""
    return status > 0 and status & ((1 << lay.ORDINAL) - 1) == lay.GUARD_FAILED


def sweep(code, count, table, arena):
    """Instructions: kernel, params, n, then n slots, each in the arena or behind an entry of the table (`plan.memory`).

    A negative count says that ``code`` is a function of the table and the arena that does all of them. The status is
    that of the kernel that failed; where a guard did, here or in a row that loops, it says in which row.
    """
    if count < 0:
        return call_kernel(code, table, arena)
    few = frame_slots()
    for i in range(count):
        n = load(code + 16)
        slots = few if n <= FEW_SLOTS else resize(0, 8 * n)
        if slots == 0:
            return lay.NO_MEMORY
        for k in range(n):
            where = load(code + 24 + 8 * k)
            if where >= 0:
                store(slots + 8 * k, arena + where)
            else:
                where = -1 - where
                store(slots + 8 * k, load(table + 8 * (where & ((1 << lay.ENTRY) - 1))) + (where >> lay.ENTRY))
        status = call_kernel(load(code), load(code + 8), slots)
        if n > FEW_SLOTS:
            release(slots)
        if status != 0:
            return lay.GUARD_FAILED + (i << lay.ORDINAL) if is_guard(status) else status
        code += 24 + 8 * n
    return 0


def make_results(st, plan, table, outs):
    """The Tensors of a plan's results, without numbers yet: new references in ``outs``, None where there is none.

    Their addresses go to the table. False with an exception, and nothing made, where memory is out.
    """
    described, n_in = load(plan + lay.P_OUTPUTS), load(plan + lay.P_INPUT_COUNT)
    for k in range(load(plan + lay.P_OUTPUT_COUNT)):
        out = described + lay.F_OUT_BYTES * k
        o = load(st + lay.S_NONE)
        if load(out) >= 0:
            o = tensor_new(load(out), load(out + 8), load(out + 16), load(out + 24))
            if o == 0:
                drop(outs, k)
                error_clear()
                return failed(-1, lay.NO_MEMORY) != 0
            store(table + 8 * (n_in + k), load(o + lay.T_DATA))
        else:
            incref(o)
        store(outs + 8 * k, o)
    return True


def drop(objects, n):
    for k in range(n):
        o = load(objects + 8 * k)
        if o != 0:                       # what was handed on is not there any more
            decref(o)


def run_code(st, plan, table, alone):
    """The sweep over a table that has the inputs and results: its status. The caller holds what a LONG plan reads.
    ``alone``: other threads of Python are not let run.
    """
    n_in, n_out = load(plan + lay.P_INPUT_COUNT), load(plan + lay.P_OUTPUT_COUNT)
    constants = load(plan + lay.P_CONSTANTS)
    for k in range(load(plan + lay.P_CONSTANT_COUNT)):
        store(table + 8 * (n_in + n_out + k), load(constants + 8 * k))
    # all three at once: another thread may put machine code in the place of instructions
    size, code, count = load(plan + lay.P_ARENA), load(plan + lay.P_CODE), load(plan + lay.P_CODE_COUNT)
    long = load(plan + lay.P_FLAGS) & lay.LONG != 0
    free_threads = long and not alone
    if not long and size <= lay.SCRATCH_BYTES:
        scratch = load(st + lay.S_SCRATCH)
        return call_kernel(code, table, scratch) if count < 0 else sweep(code, count, table, scratch)
    block = take_block(st, size + 64)
    if block == 0:
        return lay.NO_MEMORY
    room = load(st + lay.S_POOL_TAKEN)
    thread = save_thread() if free_threads else 0
    status = sweep(code, count, table, (block + 63) & -64)
    if free_threads:
        restore_thread(thread)
    give_block(st, block, room)
    return status


def ran(st, plan):
    """Count a run that was fine. Other code may run here, so the caller holds all that it goes on with."""
    left = load(plan + lay.P_COLD)
    if left == 0:
        return
    store(plan + lay.P_COLD, left - 1)
    if left == 1:
        given = frame_one()
        store(given, long_new(plan))
        answer = vectorcall(load(st + lay.S_HOT), given, 1, 0) if load(given) != 0 else 0
        decref(load(given))
        decref(answer)
        if answer == 0:
            error_clear()


def compact(plan, outs, tensors):
    """The Tensors among a plan's results, in a row of their own; how many there are."""
    made = 0
    for k in range(load(plan + lay.P_OUTPUT_COUNT)):
        if load(load(plan + lay.P_OUTPUTS) + lay.F_OUT_BYTES * k) >= 0:
            store(tensors + 8 * made, load(outs + 8 * k))
            made += 1
    return made


def run_plan(plan, given, outs):
    """Compute ``outs``, which gets new references, from the input Tensors ``given``; False on an exception.

    The caller holds the inputs.
    """
    st = state()
    n_in, n_out = load(plan + lay.P_INPUT_COUNT), load(plan + lay.P_OUTPUT_COUNT)
    words = n_in + n_out + load(plan + lay.P_CONSTANT_COUNT)
    table = frame_table() if words <= SMALL_TABLE else resize(0, 8 * words)
    if table == 0:
        return no_memory() != 0
    for i in range(n_in):
        store(table + 8 * i, load(load(given + 8 * i) + lay.T_DATA))
    fine = make_results(st, plan, table, outs)
    if fine:
        status = run_code(st, plan, table, False)
        if status != 0:
            drop(outs, n_out)
            failed(-1, status)
            fine = False
    if words > SMALL_TABLE:
        release(table)
    return fine


def matters(plan, values):
    """Who wants to know of a run of this plan, as marks of its results; 0 for nobody."""
    st = state()
    if load(st + lay.S_RECORDERS) == 0:
        return 0
    log = current_log(st)
    if log == 0:
        return 0
    marks = lay.IN_TRACE if load(log + lay.L_WHOLE) != 0 else 0
    if load(log + lay.L_ACTIVE) != load(log + lay.L_WHOLE):
        for i in range(load(plan + lay.P_INPUT_COUNT)):
            if load(load(values + 8 * load(load(plan + lay.P_INPUTS) + 8 * i)) + lay.T_TRACKED) & lay.ON_TAPE:
                return marks | lay.ON_TAPE
    return marks


def run_recorded(plan, values, marks):
    """A new list of results (None where the plan has none); with marks, one `call` row for all in the log.

    ``values`` is indexed by the plan's input numbers. It may change as soon as other code runs, which even the making
    of a list can lead to (a collection, a destructor), so the inputs are taken out of it first.
    """
    st = state()
    n_in, n_out = load(plan + lay.P_INPUT_COUNT), load(plan + lay.P_OUTPUT_COUNT)
    tick = load(st + lay.S_TICK) + 1
    store(st + lay.S_TICK, tick)
    store(plan + lay.P_USED, tick)
    store(plan + lay.P_BUSY, load(plan + lay.P_BUSY) + 1)
    few = n_in + n_out <= SMALL_TABLE
    given = frame_given() if few else resize(0, 8 * (n_in + n_out))
    if given == 0:
        store(plan + lay.P_BUSY, load(plan + lay.P_BUSY) - 1)
        return no_memory()
    outs = given + 8 * n_in
    held = load(plan + lay.P_FLAGS) & lay.LONG
    for i in range(n_in):
        o = load(values + 8 * load(load(plan + lay.P_INPUTS) + 8 * i))
        store(given + 8 * i, o)
        if held:
            incref(o)
    results = list_new(n_out)
    fine = results != 0 and run_plan(plan, given, outs)
    if fine:
        for k in range(n_out):
            list_set(results, k, load(outs + 8 * k))
    if fine and marks != 0:
        made = compact(plan, outs, outs)
        if made != 0:                    # of a run without results nobody wants to know
            fine = append_row(current_log(st), load(plan + lay.P_CALL), given, n_in, outs, made, 0, marks)
        if not fine and error_occurred() == 0:
            no_memory()
    if held:
        for i in range(n_in):
            decref(load(given + 8 * i))
    if not few:
        release(given)
    if fine:
        ran(st, plan)
    store(plan + lay.P_BUSY, load(plan + lay.P_BUSY) - 1)
    if results != 0 and not fine:
        decref(results)
        return 0
    return results


def fits(plan, given):
    """A tuple of Tensors with elements, of the avals that the plan's inputs have."""
    n = load(plan + lay.P_INPUT_COUNT)
    if tuple_size(given) != n:
        return False
    for i in range(n):
        t = tuple_get(given, i)
        if (load(t + lay.TYPE) != load(state() + lay.S_TENSOR) or load(t + lay.T_DATA) == 0
                or load(t + lay.T_AVAL) != load(load(plan + lay.P_AVALS) + 8 * i)):
            return False
    return True


def plan_run(unused, args, count):
    """plan_run(plan address, tuple of Tensors in the order of the plan's inputs): results as a list."""
    plan, given = long_value(load(args)), load(args + 8)
    if not fits(plan, given):
        return vectorcall(load(state() + lay.S_MISFIT), args, 2, 0)
    check = load(state() + lay.S_CHECK_PLAN)
    if check != 0:
        r = vectorcall(check, args, 2, 0)
        if r == 0:
            return 0
        decref(r)
    inputs, n = load(plan + lay.P_INPUTS), load(plan + lay.P_INPUT_COUNT)
    room = 0
    for i in range(n):
        room = max(room, load(inputs + 8 * i) + 1)
    values = resize(0, 8 * (room + 1))
    if values == 0:
        return no_memory()
    for i in range(n):
        store(values + 8 * load(inputs + 8 * i), tuple_get(given, i))
    results = run_recorded(plan, values, matters(plan, values))
    release(values)
    return results


def fill_rows(unused, args, count):
    """jacobian loop: fill_rows(plan, inputs, seed address, elements, repeats, bytes, results).

    One input is the seed: ``repeats`` times ``elements`` numbers. The e-th run has 1 at element e of each repeat and
    writes slice e of every result (a tuple of Tensors, None where the plan has none).
    """
    plan, given = long_value(load(args)), load(args + 8)
    seed, n, repeats = long_value(load(args + 16)), long_value(load(args + 24)), long_value(load(args + 32))
    width, stacked = long_value(load(args + 40)), load(args + 48)
    n_in, n_out = load(plan + lay.P_INPUT_COUNT), load(plan + lay.P_OUTPUT_COUNT)
    n_const = load(plan + lay.P_CONSTANT_COUNT)
    st = state()
    table = resize(0, 8 * (n_in + n_out + n_const + 1))
    # all three at once, as in run_code: signal handlers run in long loops, and other threads with them
    size, code, count = load(plan + lay.P_ARENA), load(plan + lay.P_CODE), load(plan + lay.P_CODE_COUNT)
    block = take_block(st, size + 64)
    room = load(st + lay.S_POOL_TAKEN)
    if table == 0 or block == 0:
        release(table)
        if block != 0:
            give_block(st, block, room)
        return no_memory()
    for i in range(n_in):
        store(table + 8 * i, load(tuple_get(given, i) + lay.T_DATA))
    for k in range(n_const):
        store(table + 8 * (n_in + n_out + k), load(load(plan + lay.P_CONSTANTS) + 8 * k))
    status = 0
    one = frame_one()
    store(one, 0x3F800000 if width == 4 else 0x3FF0000000000000)      # little-endian: the low bytes count
    for e in range(n):
        for k in range(n_out):
            out = load(plan + lay.P_OUTPUTS) + lay.F_OUT_BYTES * k
            if load(out) >= 0:
                store(table + 8 * (n_in + k), load(tuple_get(stacked, k) + lay.T_DATA) + e * load(out + 8))
        for r in range(repeats):
            copy(seed + (r * n + e) * width, one, width)
        status = sweep(code, count, table, (block + 63) & -64)
        for r in range(repeats):
            zero(seed + (r * n + e) * width, 0, width)
        if status != 0:
            break
    give_block(st, block, room)
    release(table)
    if status != 0:
        return failed(-1, status)
    r = load(state() + lay.S_NONE)
    incref(r)
    return r
