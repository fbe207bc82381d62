"""Tensors in machine code: making and freeing them, running a form, appending its row, and the way in from Python.

Restricted Python for Numba, over addresses. An object address is an int64; a function that returns 0 has
set a Python exception.
"""

from __future__ import annotations

from numba import njit

from jitgrad.execute.cpu.layout import (
    C_BYTES,
    C_FORM,
    C_POSITION,
    CACHE_WAYS,
    CUT,
    DIFFERENTIABLE,
    F_FLAGS,
    F_ID,
    F_IN_DTYPE,
    F_INPUTS,
    F_KERNEL,
    F_OUT,
    F_OUT_BYTES,
    F_OUTPUTS,
    F_PARAMS,
    GUARDED,
    FIRST_COMPARISON,
    KEY_WORDS,
    L_CAPACITY,
    L_COUNT,
    L_EPOCH,
    L_FIRST,
    L_FORMS,
    L_READ_CAPACITY,
    L_READ_COUNT,
    L_READS,
    L_REF_CAPACITY,
    L_REF_COUNT,
    L_REFS,
    LARGE,
    LINE,
    LONG,
    MAX_ARGS,
    O_CACHE,
    O_LITERAL,
    O_OPERANDS,
    O_OPERATOR,
    O_SLOW,
    S_FLOAT,
    S_GUARD,
    S_KERNEL_FAILED,
    S_LONG,
    S_OPS,
    S_RECORDER_TABLE,
    S_RECORDERS,
    S_TENSOR,
    S_TOO_LARGE,
    S_VARIABLE,
    T_AVAL,
    T_DATA,
    T_DTYPE,
    T_EPOCH,
    T_INDEX,
    T_OWNER,
    T_PAYLOAD,
    T_SIZE,
    T_TRACKED,
    T_WEAK,
    TYPE,
    V_EPOCH,
    V_FLAGS,
    V_TRAINABLE,
    V_VALUE,
    V_WATCHED,
    VIEW,
    WEAK_FLOAT,
    WEAK_INT,
)
from jitgrad.execute.cpu.native.raw import (
    call_kernel,
    decref,
    error_clear,
    error_occurred,
    float_value,
    incref,
    load,
    long_new,
    long_value,
    object_new_var,
    release,
    resize,
    restore_thread,
    save_thread,
    stack,
    state,
    store,
    store_f32,
    store_f64,
    store_i32,
    thread_state,
    tuple_new,
    tuple_set,
    tuple_size,
    vectorcall,
)

frame_key, frame_args, frame_operands = stack(KEY_WORDS), stack(MAX_ARGS), stack(MAX_ARGS)
frame_slots, frame_call = stack(16), stack(4)
BOOL, INT32, INT64, FLOAT32, FLOAT64 = 0, 1, 2, 3, 4
FEW = 16


@njit
def item_bytes(dtype):
    if dtype == BOOL:
        return 1
    return 4 if dtype == INT32 or dtype == FLOAT32 else 8


@njit
def tensor_new(aval, nbytes, size, dtype):
    extra = nbytes + LINE if nbytes >= LARGE else nbytes
    o = object_new_var(load(state() + S_TENSOR), extra)
    if o == 0:
        return o
    data = o + T_PAYLOAD
    if nbytes >= LARGE:
        data = (data + LINE - 1) & -LINE
    store(o + T_DATA, data)
    store(o + T_SIZE, size)
    store(o + T_AVAL, aval)
    store(o + T_TRACKED, 0)
    store(o + T_OWNER, 0)
    store(o + T_WEAK, 0)
    store(o + T_EPOCH, 0)
    store(o + T_INDEX, 0)
    store(o + T_DTYPE, dtype)
    return o


@njit
def view_new(aval, size, dtype, operand, offset):
    o = tensor_new(aval, 0, size, dtype)
    if o != 0:
        owner = load(operand + T_OWNER)
        if owner == 0:
            owner = operand
        incref(owner)
        store(o + T_OWNER, owner)
        store(o + T_DATA, load(operand + T_DATA) + offset)
    return o


@njit
def current_log(st):
    """The log of the calling thread if it records now, else 0."""
    table = load(st + S_RECORDER_TABLE)
    me = thread_state()
    for i in range(load(st + S_RECORDERS)):
        if load(table + 16 * i) == me:
            return load(table + 16 * i + 8)
    return 0


@njit
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


@njit
def append_row(log, form, operands, n_in, outs, n_out, rule):
    """Append a row that owns its operands, outputs and (of a cut) its rule."""
    count, refs = load(log + L_COUNT), load(log + L_REF_COUNT)
    total = n_in + n_out + (1 if rule != 0 else 0)
    if count + 2 > load(log + L_CAPACITY):
        room = load(log + L_CAPACITY)
        if not ensure(log, L_FIRST, count + 2, L_CAPACITY, 8):
            return False
        wider = load(log + L_CAPACITY)
        block = resize(load(log + L_FORMS), wider * 8)
        if block == 0:
            store(log + L_CAPACITY, room)
            return False
        store(log + L_FORMS, block)
    if not ensure(log, L_REFS, refs + total, L_REF_CAPACITY, 8):
        return False
    store(load(log + L_FORMS) + 8 * count, form)
    store(load(log + L_FIRST) + 8 * count, refs)
    at = load(log + L_REFS) + 8 * refs
    for i in range(n_in):
        o = load(operands + 8 * i)
        incref(o)
        store(at + 8 * i, o)
    at += 8 * n_in
    for i in range(n_out):
        o = load(outs + 8 * i)
        incref(o)
        store(o + T_TRACKED, 1)
        store(at + 8 * i, o)
    if rule != 0:
        incref(rule)
        store(at + 8 * n_out, rule)
    store(load(log + L_FIRST) + 8 * (count + 1), refs + total)
    store(log + L_REF_COUNT, refs + total)
    store(log + L_COUNT, count + 1)
    return True


@njit
def any_tracked(operands, n_in):
    for i in range(n_in):
        if load(load(operands + 8 * i) + T_TRACKED) != 0:
            return True
    return False


@njit
def fail(callable_, first, second):
    """Let a Python callable raise the exception that says it in words."""
    call = frame_call()
    store(call, long_new(first))
    store(call + 8, long_new(second))
    r = vectorcall(callable_, call, 2, 0)
    decref(load(call))
    decref(load(call + 8))
    if r != 0:
        decref(r)
    return 0


@njit
def out_of_memory(form):
    error_clear()
    return fail(load(state() + S_TOO_LARGE), load(form + F_ID), 0)


@njit
def run_kernel(form, slots):
    """Call the kernel; a long one lets other Python threads run (the caller holds what it reads and writes)."""
    if load(form + F_FLAGS) & LONG:
        thread = save_thread()
        status = call_kernel(load(form + F_KERNEL), load(form + F_PARAMS), slots)
        restore_thread(thread)
        return status
    return call_kernel(load(form + F_KERNEL), load(form + F_PARAMS), slots)


@njit
def record(form, operands, n_in, outs, n_out, rule):
    """Append the row if this thread records and an operand matters to some tape; False on an exception."""
    st = state()
    if load(st + S_RECORDERS) == 0 or load(form + F_FLAGS) & (DIFFERENTIABLE | CUT | GUARDED) == 0:
        return True
    log = current_log(st)
    if log == 0 or not any_tracked(operands, n_in):
        return True
    if load(form + F_FLAGS) & GUARDED:
        if error_occurred() == 0:
            fail(load(st + S_GUARD), form, operands)
        return error_occurred() == 0
    if append_row(log, form, operands, n_in, outs, n_out, rule):
        return True
    out_of_memory(form)
    return False


@njit
def execute_one(form, operands, n_in):
    """Run a form with one output on exact Tensors: allocate, compute, record."""
    out = form + F_OUT
    if load(form + F_FLAGS) & VIEW:
        o = view_new(load(out), load(out + 16), load(out + 24), load(operands), load(load(form + F_PARAMS)))
        if o == 0:
            return out_of_memory(form)
    else:
        o = tensor_new(load(out), load(out + 8), load(out + 16), load(out + 24))
        if o == 0:
            return out_of_memory(form)
        slots = frame_slots() if n_in < FEW else resize(0, 8 * (n_in + 1))
        store(slots, load(o + T_DATA))
        for i in range(n_in):
            store(slots + 8 * (i + 1), load(load(operands + 8 * i) + T_DATA))
        status = run_kernel(form, slots)
        if n_in >= FEW:
            release(slots)
        if status != 0:
            decref(o)
            return fail(load(state() + S_KERNEL_FAILED), load(form + F_ID), status)
    if load(state() + S_RECORDERS) != 0:
        outs = frame_call()
        store(outs, o)
        if not record(form, operands, n_in, outs, 1, 0):
            decref(o)
            return 0
    return o


@njit
def execute_many(form, operands, n_in, n_out):
    """The same for several outputs: a tuple."""
    slots = resize(0, 8 * (n_in + 2 * n_out))
    outs = slots + 8 * (n_in + n_out)
    result = tuple_new(n_out)
    for k in range(n_out):
        out = form + F_OUT + F_OUT_BYTES * k
        o = tensor_new(load(out), load(out + 8), load(out + 16), load(out + 24))
        if o == 0:
            decref(result)
            release(slots)
            return out_of_memory(form)
        tuple_set(result, k, o)
        store(outs + 8 * k, o)
        store(slots + 8 * k, load(o + T_DATA))
    for i in range(n_in):
        store(slots + 8 * (n_out + i), load(load(operands + 8 * i) + T_DATA))
    status = run_kernel(form, slots)
    fine = status == 0 and record(form, operands, n_in, outs, n_out, 0)
    release(slots)
    if fine:
        return result
    decref(result)
    if status != 0:
        return fail(load(state() + S_KERNEL_FAILED), load(form + F_ID), status)
    return 0


@njit
def execute(form, operands):
    n_in, n_out = load(form + F_INPUTS), load(form + F_OUTPUTS)
    held = load(form + F_FLAGS) & LONG
    if held:                             # another thread may let go of an operand meanwhile
        for i in range(n_in):
            incref(load(operands + 8 * i))
    result = execute_one(form, operands, n_in) if n_out == 1 else execute_many(form, operands, n_in, n_out)
    if held:
        for i in range(n_in):
            decref(load(operands + 8 * i))
    return result


@njit
def note_read(st, variable):
    """The Tensor a Variable holds; if a tape of this thread may watch it, the log keeps the read."""
    value = load(variable + V_VALUE)
    if load(st + S_RECORDERS) != 0 and load(variable + V_FLAGS) & (V_TRAINABLE | V_WATCHED):
        log = current_log(st)
        if log != 0 and load(log + L_EPOCH) != load(variable + V_EPOCH):
            count = load(log + L_READ_COUNT)
            if ensure(log, L_READS, count + 1, L_READ_CAPACITY, 24):
                at = load(log + L_READS) + 24 * count
                incref(variable)
                incref(value)
                store(at, variable)
                store(at + 8, value)
                store(at + 16, load(log + L_COUNT))
                store(log + L_READ_COUNT, count + 1)
                store(value + T_TRACKED, 1)
                store(variable + V_EPOCH, load(log + L_EPOCH))
    return value


@njit
def scalar_new(number, kind, dtype):
    """A 0-d Tensor of ``dtype`` from a Python number; 0 without an exception if it does not fit."""
    if dtype == FLOAT32 or dtype == FLOAT64:
        value = 0.0
        if kind == WEAK_FLOAT:
            value = float_value(number)
        else:
            value = float(long_value(number))
            if error_occurred() != 0:
                error_clear()
                return 0
        o = tensor_new(dtype, item_bytes(dtype), 1, dtype)    # the avals of scalars are numbered by dtype
        if o != 0:
            if dtype == FLOAT32:
                store_f32(o + T_PAYLOAD, value)
            else:
                store_f64(o + T_PAYLOAD, value)
        return o
    if kind == WEAK_FLOAT or dtype == BOOL:
        return 0
    whole = long_value(number)
    if error_occurred() != 0:
        error_clear()
        return 0
    if dtype == INT32 and (whole > 2147483647 or whole < -2147483648):
        return 0
    o = tensor_new(dtype, item_bytes(dtype), 1, dtype)
    if o != 0:
        if dtype == INT32:
            store_i32(o + T_PAYLOAD, whole)
        else:
            store(o + T_PAYLOAD, whole)
    return o


@njit
def key_of(argument, kind, literal, st):
    """The word an operand contributes to an inline cache's key, or 0 for what only Python understands."""
    if kind == load(st + S_TENSOR):
        return 2 * load(argument + T_AVAL) + 1 if load(argument + T_DATA) != 0 else 0
    if kind == load(st + S_FLOAT):
        return WEAK_FLOAT
    if kind == load(st + S_LONG):
        return argument if literal else WEAK_INT
    return 0


@njit
def run_cached(entry, key, resolved):
    """A hit: convert Python numbers, run the form; -1 if a number does not fit its dtype."""
    form, positions = load(entry + C_FORM), load(entry + C_POSITION)
    n_in = load(form + F_INPUTS)
    operands = frame_operands()
    made = 0
    for k in range(n_in):
        at = (positions >> (8 * k)) & 255
        o = load(resolved + 8 * at)
        kind = load(key + 8 + 8 * at)
        if kind == WEAK_FLOAT or kind == WEAK_INT:
            o = scalar_new(o, kind, load(form + F_IN_DTYPE + 8 * k))
            if o == 0:
                for j in range(k):
                    if made >> j & 1:
                        decref(load(operands + 8 * j))
                return -1
            made |= 1 << k
        store(operands + 8 * k, o)
    result = execute(form, operands)
    if made != 0:
        for j in range(n_in):
            if made >> j & 1:
                decref(load(operands + 8 * j))
    return result


@njit
def op_call(op, args, n_positional, names, slow):
    """An op is called: look the argument kinds up in its inline cache, else ask Python."""
    st = state()
    total = n_positional
    if names != 0:
        total += tuple_size(names)
    if 0 < total <= MAX_ARGS:
        key, resolved = frame_key(), frame_args()
        n_operands, literal = load(op + O_OPERANDS), load(op + O_LITERAL)
        tensor, variable = load(st + S_TENSOR), load(st + S_VARIABLE)
        store(key, total)
        mixed = total * 1000003
        known = True
        for i in range(total):
            a = load(args + 8 * i)
            word = a
            if i < n_operands and i < n_positional:
                kind = load(a + TYPE)
                if kind == variable:
                    a = note_read(st, a)
                    kind = tensor
                word = key_of(a, kind, literal >> i & 1, st)
                known = known and word != 0
            store(resolved + 8 * i, a)
            store(key + 8 + 8 * i, word)
            mixed = (mixed ^ word) * 1000003
        store(key + 8 + 8 * total, names)
        mixed = (mixed ^ names) * -7046029254386353131
        if known:
            entry = load(op + O_CACHE) + C_BYTES * ((mixed >> 32) & (CACHE_WAYS - 1))
            same = True
            for i in range(total + 2):
                same = same and load(entry + 8 * i) == load(key + 8 * i)
            if same and load(entry + C_FORM) != 0:
                result = run_cached(entry, key, resolved)
                if result != -1:
                    return result
    return vectorcall(load(op + slow), args, n_positional, names)


def key_hash(key, total):
    """Where op_call looks: the slot for a key of ``total`` arguments (the installer in Python calls this)."""
    mixed = total * 1000003
    for i in range(total):
        mixed = (mixed ^ load(key + 8 + 8 * i)) * 1000003
    mixed = (mixed ^ load(key + 8 + 8 * total)) * -7046029254386353131
    return (mixed >> 32) & (CACHE_WAYS - 1)


def op_vectorcall(op, args, flagged, names):
    return op_call(op, args, flagged & 0x7FFFFFFFFFFFFFFF, names, O_SLOW)


def run_form(unused, args, count):
    """run(form address, *tensors): the builtin behind the slow path; Python has validated the operands."""
    return execute(long_value(load(args)), args + 8)


@njit
def slot_binary_(index, a, b):
    call = frame_call()
    store(call, a)
    store(call + 8, b)
    return op_call(load(state() + S_OPS + 8 * index), call, 2, 0, O_OPERATOR)


def slot_binary(index, a, b):
    return slot_binary_(index, a, b)


def compare_slot(a, b, operator):
    """tp_richcompare: CPython numbers < <= == != > >= from 0."""
    return slot_binary_(FIRST_COMPARISON + (operator & 0xFFFFFFFF), a, b)


def slot_unary(index, a):
    call = frame_call()
    store(call, a)
    return op_call(load(state() + S_OPS + 8 * index), call, 1, 0, O_OPERATOR)
