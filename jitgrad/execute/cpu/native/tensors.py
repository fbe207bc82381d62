"""Tensors in machine code: making and freeing them, running a form, appending its row.

Restricted Python for Numba, over addresses. An object address is an int64; a function that returns 0 has
set a Python exception.
"""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.frames import note_frame
from jitgrad.execute.cpu.native.pool import take_block, take_small
from jitgrad.execute.cpu.native.raw import (
    call_kernel,
    copy,
    decref,
    error_clear,
    error_occurred,
    incref,
    load,
    long_new,
    no_memory,
    object_init_var,
    release,
    resize,
    restore_thread,
    save_thread,
    stack,
    state,
    store,
    thread_state,
    tuple_new,
    tuple_set,
    vectorcall,
)

BOOL, INT32, INT64, FLOAT32, FLOAT64 = 0, 1, 2, 3, 4
FEW = 16
frame_call = stack(4)
frame_slots = stack(16)


def item_bytes(dtype):
    if dtype == BOOL:
        return 1
    return 4 if dtype == INT32 or dtype == FLOAT32 else 8


def tensor_new(aval, nbytes, size, dtype):
    st = state()
    room = lay.TINY
    if nbytes > lay.TINY:
        room = ((nbytes + lay.LINE - 1) & -lay.LINE) + (lay.LINE if nbytes >= lay.LARGE else 0)
    if room < lay.POOLED:
        o = take_small(st, room)
    else:
        o = take_block(st, lay.T_PAYLOAD + nbytes + lay.LINE)
        room = load(st + lay.S_POOL_TAKEN) - lay.T_PAYLOAD
    if o == 0:
        return no_memory()
    object_init_var(o, load(st + lay.S_TENSOR), room)
    data = o + lay.T_PAYLOAD
    if nbytes >= lay.LARGE:
        data = (data + lay.LINE - 1) & -lay.LINE
    store(o + lay.T_DATA, data)
    store(o + lay.T_SIZE, size)
    store(o + lay.T_AVAL, aval)
    store(o + lay.T_TRACKED, 0)
    store(o + lay.T_OWNER, 0)
    store(o + lay.T_WEAK, 0)
    store(o + lay.T_EPOCH, 0)            # T_INDEX means nothing without it
    store(o + lay.T_DTYPE, dtype)
    return o


def view_new(aval, size, dtype, operand, offset):
    o = tensor_new(aval, 0, size, dtype)
    if o != 0:
        owner = load(operand + lay.T_OWNER)
        if owner == 0:
            owner = operand
        incref(owner)
        store(o + lay.T_OWNER, owner)
        if load(operand + lay.T_DATA) == 0:          # elsewhere: the payload says where
            store(o + lay.T_DATA, 0)
            store(o + lay.T_PAYLOAD, load(operand + lay.T_PAYLOAD) + offset)
        else:
            store(o + lay.T_DATA, load(operand + lay.T_DATA) + offset)
    return o


def current_log(st):
    """The log of the calling thread if it records now, else 0."""
    table = load(st + lay.S_RECORDER_TABLE)
    me = thread_state()
    for i in range(load(st + lay.S_RECORDERS)):
        if load(table + 16 * i) == me:
            return load(table + 16 * i + 8)
    return 0


def hold(variable, value):
    """Let a Variable hold a Tensor, whose reference it takes; the one it held before is the caller's now."""
    old, pin = load(variable + lay.V_VALUE), load(variable + lay.V_PIN)    # other threads may have run
    store(variable + lay.V_VALUE, value)
    store(variable + lay.V_EPOCH, 0)
    if pin != 0 and load(value + lay.T_DATA) != 0:
        size = load(pin - lay.V_PINNED + 8)
        if load(value + lay.T_SIZE) * item_bytes(load(value + lay.T_DTYPE)) == size:
            copy(pin, load(value + lay.T_DATA), size)
    return old


def in_recording(st):
    """The calling thread is inside a recording, which sees what Variables are read and assigned."""
    n = load(st + lay.S_RECORDINGS)
    if n == 0:
        return False
    table, me = load(st + lay.S_RECORDING_TABLE), thread_state()
    for i in range(n):
        if load(table + 8 * i) == me:
            return True
    return False


def ensure(log, column, count, capacity, width):
    """Room for ``count`` items of ``width`` bytes in a growing column; False if memory is out."""
    room = load(log + capacity)
    if count <= room:
        return True
    room = max(count, 2 * room, 256)
    block = resize(load(log + column), room * width)
    if block == 0:
        return False
    store(log + column, block)
    store(log + capacity, room)
    return True


def append_row(log, form, operands, n_in, outs, n_out, rule, marks):
    """Append a row that owns its operands, outputs and (of a cut) its rule; the outputs get the marks."""
    count, refs = load(log + lay.L_COUNT), load(log + lay.L_REF_COUNT)
    total = n_in + n_out + (1 if rule != 0 else 0)
    if count + 2 > load(log + lay.L_CAPACITY):
        room = load(log + lay.L_CAPACITY)
        if not ensure(log, lay.L_FIRST, count + 2, lay.L_CAPACITY, 8):
            return False
        wider = load(log + lay.L_CAPACITY)
        block = resize(load(log + lay.L_FORMS), wider * 8)
        if block == 0:
            store(log + lay.L_CAPACITY, room)
            return False
        store(log + lay.L_FORMS, block)
    if not ensure(log, lay.L_REFS, refs + total, lay.L_REF_CAPACITY, 8):
        return False
    store(load(log + lay.L_FORMS) + 8 * count, form)
    store(load(log + lay.L_FIRST) + 8 * count, refs)
    at = load(log + lay.L_REFS) + 8 * refs
    for i in range(n_in):
        o = load(operands + 8 * i)
        incref(o)
        store(at + 8 * i, o)
    at += 8 * n_in
    for i in range(n_out):
        o = load(outs + 8 * i)
        incref(o)
        store(o + lay.T_TRACKED, load(o + lay.T_TRACKED) | marks)
        store(at + 8 * i, o)
    if rule != 0:
        incref(rule)
        store(at + 8 * n_out, rule)
    store(load(log + lay.L_FIRST) + 8 * (count + 1), refs + total)
    store(log + lay.L_REF_COUNT, refs + total)
    store(log + lay.L_COUNT, count + 1)
    if load(log + lay.L_FRAMES) != 0:
        note_frame(load(log + lay.L_FRAMES))
    note = load(state() + lay.S_ROW_MADE)
    if note != 0 and n_out > 0:
        tell(note, load(outs))
    return True


def tell(note, o):
    """Let a Python callable note something about an object; it raises nothing."""
    call = frame_call()
    store(call, o)
    r = vectorcall(note, call, 1, 0)
    if r != 0:
        decref(r)
    else:
        error_clear()


def any_tracked(operands, n_in):
    for i in range(n_in):
        if load(load(operands + 8 * i) + lay.T_TRACKED) & lay.ON_TAPE:
            return True
    return False


def marks_for(log, form, operands, n_in):
    """Who wants a row of this form on these operands, as marks of its outputs; 0 for nobody."""
    marks = lay.IN_TRACE if load(log + lay.L_WHOLE) != 0 else 0
    if (load(form + lay.F_FLAGS) & (lay.DIFFERENTIABLE | lay.CUT | lay.GUARDED) != 0
            and load(log + lay.L_ACTIVE) != load(log + lay.L_WHOLE) and any_tracked(operands, n_in)):
        marks |= lay.ON_TAPE
    return marks


def fail(callable_, first, second):
    """Let a Python callable raise the exception that says it in words."""
    call = frame_call()
    a, b = long_new(first), long_new(second)
    if a != 0 and b != 0:
        store(call, a)
        store(call + 8, b)
        decref(vectorcall(callable_, call, 2, 0))
    decref(a)
    decref(b)
    return 0


def failed(form_id, status):
    """Raise what the status of a kernel says; of a Plan the form is -1."""
    if status == lay.INTERRUPTED:        # by a signal handler, whose exception is set
        return 0
    return fail(load(state() + lay.S_KERNEL_FAILED), form_id, status)


def out_of_memory(form):
    error_clear()
    return fail(load(state() + lay.S_TOO_LARGE), load(form + lay.F_ID), 0)


def run_kernel(form, slots):
    """Call the kernel; a long one lets other Python threads run (the caller holds what it reads and writes)."""
    if load(form + lay.F_FLAGS) & lay.LONG:
        thread = save_thread()
        status = call_kernel(load(form + lay.F_KERNEL), load(form + lay.F_PARAMS), slots)
        restore_thread(thread)
        return status
    return call_kernel(load(form + lay.F_KERNEL), load(form + lay.F_PARAMS), slots)


def record(form, operands, n_in, outs, n_out, rule):
    """Append the row if this thread records and an operand matters to some tape; False on an exception."""
    st = state()
    if load(st + lay.S_RECORDERS) == 0:
        return True
    log = current_log(st)
    if log == 0:
        return True
    marks = marks_for(log, form, operands, n_in)
    if load(form + lay.F_FLAGS) & lay.GUARDED and marks & lay.ON_TAPE:
        if error_occurred() == 0:
            fail(load(st + lay.S_GUARD), form, operands)
        if error_occurred() != 0:
            return False
        marks &= lay.IN_TRACE
    if marks == 0 or append_row(log, form, operands, n_in, outs, n_out, rule, marks):
        return True
    out_of_memory(form)
    return False


def checked(form, operands, n_in, outs, n_out):
    """Under debug_nans: Python looks at what a form made; False with an exception if it is not to be."""
    block, number = resize(0, 8 * (1 + n_in + n_out)), long_new(load(form + lay.F_ID))
    if block == 0 or number == 0:
        release(block)
        decref(number)
        return no_memory() != 0
    store(block, number)
    for i in range(n_in):
        store(block + 8 * (1 + i), load(operands + 8 * i))
    for k in range(n_out):
        store(block + 8 * (1 + n_in + k), load(outs + 8 * k))
    r = vectorcall(load(state() + lay.S_CHECK), block, 1 + n_in + n_out, 0)
    decref(number)
    release(block)
    decref(r)
    return r != 0


def execute_one(form, operands, n_in):
    """Run a form with one output on exact Tensors: allocate, compute, record."""
    out = form + lay.F_OUT
    if load(form + lay.F_FLAGS) & lay.VIEW:
        o = view_new(load(out), load(out + 16), load(out + 24), load(operands), load(load(form + lay.F_PARAMS)))
        if o == 0:
            return out_of_memory(form)
    else:
        o = tensor_new(load(out), load(out + 8), load(out + 16), load(out + 24))
        if o == 0:
            return out_of_memory(form)
        slots = frame_slots() if n_in < FEW else resize(0, 8 * (n_in + 1))
        if slots == 0:
            decref(o)
            return out_of_memory(form)
        store(slots, load(o + lay.T_DATA))
        for i in range(n_in):
            store(slots + 8 * (i + 1), load(load(operands + 8 * i) + lay.T_DATA))
        status = run_kernel(form, slots)
        if n_in >= FEW:
            release(slots)
        if status != 0:
            decref(o)
            return failed(load(form + lay.F_ID), status)
    if load(state() + lay.S_CHECK) != 0:
        outs = frame_call()
        store(outs, o)
        if not checked(form, operands, n_in, outs, 1):
            decref(o)
            return 0
    if load(state() + lay.S_RECORDERS) != 0:
        outs = frame_call()
        store(outs, o)
        if not record(form, operands, n_in, outs, 1, 0):
            decref(o)
            return 0
    return o


def execute_many(form, operands, n_in, n_out):
    """The same for several outputs: a tuple."""
    slots = resize(0, 8 * (n_in + 2 * n_out))
    outs = slots + 8 * (n_in + n_out)
    result = tuple_new(n_out)
    if slots == 0 or result == 0:
        release(slots)
        decref(result)
        return out_of_memory(form)
    for k in range(n_out):
        out = form + lay.F_OUT + lay.F_OUT_BYTES * k
        o = tensor_new(load(out), load(out + 8), load(out + 16), load(out + 24))
        if o == 0:
            decref(result)
            release(slots)
            return out_of_memory(form)
        tuple_set(result, k, o)
        store(outs + 8 * k, o)
        store(slots + 8 * k, load(o + lay.T_DATA))
    for i in range(n_in):
        store(slots + 8 * (n_out + i), load(load(operands + 8 * i) + lay.T_DATA))
    status = run_kernel(form, slots)
    fine = status == 0 and (load(state() + lay.S_CHECK) == 0 or checked(form, operands, n_in, outs, n_out))
    fine = fine and record(form, operands, n_in, outs, n_out, 0)
    release(slots)
    if fine:
        return result
    decref(result)
    if status != 0:
        return failed(load(form + lay.F_ID), status)
    return 0


def execute(form, operands):
    n_in, n_out = load(form + lay.F_INPUTS), load(form + lay.F_OUTPUTS)
    held = load(form + lay.F_FLAGS) & lay.LONG != 0 or load(state() + lay.S_CHECK) != 0
    if held:                             # another thread, or Python, may let go of an operand meanwhile
        for i in range(n_in):
            incref(load(operands + 8 * i))
    result = execute_one(form, operands, n_in) if n_out == 1 else execute_many(form, operands, n_in, n_out)
    if held:
        for i in range(n_in):
            decref(load(operands + 8 * i))
    return result
