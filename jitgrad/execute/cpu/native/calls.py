"""The way in from Python: an op is called, its inline cache looked up, Python asked for what it lacks."""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.raw import (
    decref,
    error_clear,
    error_occurred,
    float_value,
    incref,
    load,
    long_value,
    no_memory,
    object_equal,
    object_hash,
    release,
    resize,
    stack,
    state,
    store,
    store_f32,
    store_f64,
    store_i32,
    thread_state,
    tuple_get,
    tuple_size,
    vectorcall,
)
from jitgrad.execute.cpu.native.tensors import (
    BOOL,
    FLOAT32,
    FLOAT64,
    INT32,
    current_log,
    ensure,
    execute,
    in_recording,
    item_bytes,
    record,
    tensor_new,
)

EQUAL = 2                      # Py_EQ
frame_args = stack(lay.MAX_ARGS)
frame_call = stack(4)
frame_key = stack(lay.KEY_WORDS)
frame_operands = stack(lay.MAX_ARGS)


def note_read(st, variable):
    """The Tensor a Variable holds; if a tape of this thread may watch it, the log keeps the read.

    0 with an exception where memory is out, without one where the Variable holds nothing.
    """
    value = load(variable + lay.V_VALUE)
    if value == 0:                       # made past its constructor; the caller asks Python, which says so
        return value
    if load(st + lay.S_RECORDERS) != 0 and load(variable + lay.V_FLAGS) & (lay.V_TRAINABLE | lay.V_WATCHED):
        log = current_log(st)
        if log != 0 and load(log + lay.L_EPOCH) != load(variable + lay.V_EPOCH):
            if not keep_read(log, variable, value):
                return no_memory()
            store(variable + lay.V_EPOCH, load(log + lay.L_EPOCH))
    return value


def keep_read(log, variable, value):
    """The log keeps that a Variable was read as ``value``; False if memory is out."""
    count = load(log + lay.L_READ_COUNT)
    if not ensure(log, lay.L_READS, count + 1, lay.L_READ_CAPACITY, 24):
        return False
    at = load(log + lay.L_READS) + 24 * count
    incref(variable)
    incref(value)
    store(at, variable)
    store(at + 8, value)
    store(at + 16, load(log + lay.L_COUNT))
    store(log + lay.L_READ_COUNT, count + 1)
    store(value + lay.T_TRACKED, load(value + lay.T_TRACKED) | lay.ON_TAPE)
    return True


def read_note(unused, args, count):
    """read_note(variable, Tensor): a Variable was read in a recording, where it holds the Tensor."""
    st = state()
    variable, value = load(args), load(args + 8)
    if load(st + lay.S_RECORDERS) != 0 and load(variable + lay.V_FLAGS) & (lay.V_TRAINABLE | lay.V_WATCHED):
        log = current_log(st)
        if log != 0 and not keep_read(log, variable, value):
            return no_memory()
    incref(value)
    return value


def scalar_new(number, kind, dtype):
    """A 0-d Tensor of ``dtype`` from a Python number; 0 without an exception if it does not fit."""
    if dtype == FLOAT32 or dtype == FLOAT64:
        value = 0.0
        if kind == lay.WEAK_FLOAT:
            value = float_value(number)
        else:
            value = float(long_value(number))
            if error_occurred() != 0:
                error_clear()
                return 0
        o = tensor_new(dtype, item_bytes(dtype), 1, dtype)    # the avals of scalars are numbered by dtype
        if o != 0:
            if dtype == FLOAT32:
                store_f32(o + lay.T_PAYLOAD, value)
            else:
                store_f64(o + lay.T_PAYLOAD, value)
        return o
    if kind == lay.WEAK_FLOAT or dtype == BOOL:
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
            store_i32(o + lay.T_PAYLOAD, whole)
        else:
            store(o + lay.T_PAYLOAD, whole)
    return o


def key_of(argument, kind, literal, st):
    """The word an operand contributes to an inline cache's key, or 0 for what only Python understands."""
    if kind == load(st + lay.S_TENSOR):
        return 2 * load(argument + lay.T_AVAL) + 1 if load(argument + lay.T_DATA) != 0 else 0
    if kind == load(st + lay.S_FLOAT):
        return lay.WEAK_FLOAT
    if kind == load(st + lay.S_LONG):
        return argument if literal else lay.WEAK_INT
    return 0


def run_cached(entry, key, resolved):
    """A hit: convert Python numbers, run the form; -1 without an exception if a number does not fit its dtype."""
    form, positions = load(entry + lay.C_FORM), load(entry + lay.C_POSITION)
    n_in = load(form + lay.F_INPUTS)
    operands = frame_operands()
    made = 0
    for k in range(n_in):
        at = (positions >> (8 * k)) & 255
        o = load(resolved + 8 * at)
        kind = load(key + 8 + 8 * at)
        if kind == lay.WEAK_FLOAT or kind == lay.WEAK_INT:
            o = scalar_new(o, kind, load(form + lay.F_IN_DTYPE + 8 * k))
            if o == 0:
                for j in range(k):
                    if made >> j & 1:
                        decref(load(operands + 8 * j))
                return -1 if error_occurred() == 0 else 0
            made |= 1 << k
        store(operands + 8 * k, o)
    result = execute(form, operands)
    if made != 0:
        for j in range(n_in):
            if made >> j & 1:
                decref(load(operands + 8 * j))
    return result


def same_tuples(entry, args, first, total):
    """Parameters that are tuples have equal items of the same types: the words of a key say equal hashes only."""
    for i in range(first, total):
        a, b = load(args + 8 * i), load(entry + lay.C_ARGS + 8 * i)
        if a != b:
            n = tuple_size(a)
            if n != tuple_size(b):
                return False
            for k in range(n):
                x, y = tuple_get(a, k), tuple_get(b, k)
                if x != y and (load(x + lay.TYPE) != load(y + lay.TYPE) or object_equal(x, y, EQUAL) != 1):
                    return False
    return True


def matches(entry, key, total):
    """The entry was filled for this key."""
    for i in range(total + 2):
        if load(entry + 8 * i) != load(key + 8 * i):
            return False
    return load(entry + lay.C_FORM) != 0


def set_of(key, total):
    """Which set of an op's entries a key belongs to."""
    mixed, factor = 0, lay.MIX
    for i in range(total + 2):
        mixed += load(key + 8 * i) * factor
        factor += lay.MIX_STEP
    return (mixed >> 40) & (lay.CACHE_SETS - 1)


def find_entry(op, key, total):
    """The entry for a key, or 0."""
    entry = load(op + lay.O_LAST)
    if entry != 0 and matches(entry, key, total):
        return entry
    entry = load(op + lay.O_CACHE) + lay.C_BYTES * lay.CACHE_WAYS * set_of(key, total)
    for _ in range(lay.CACHE_WAYS):
        if matches(entry, key, total):
            store(op + lay.O_LAST, entry)
            return entry
        entry += lay.C_BYTES
    return 0


def form_for(st, op, a, b):
    """The form that an op has cached for two Tensors, or 0."""
    tensor = load(st + lay.S_TENSOR)
    if load(b + lay.TYPE) != tensor or load(a + lay.T_DATA) == 0 or load(b + lay.T_DATA) == 0:
        return 0
    key = frame_key()
    store(key, 2)
    store(key + 8, 2 * load(a + lay.T_AVAL) + 1)
    store(key + 16, 2 * load(b + lay.T_AVAL) + 1)
    store(key + 24, 0)
    entry = find_entry(op, key, 2)
    return load(entry + lay.C_FORM) if entry != 0 else 0


def op_call(op, args, n_positional, names, slow):
    """An op is called: look the argument kinds up in its inline cache, else ask Python."""
    st = state()
    total = n_positional
    if names != 0:
        total += tuple_size(names)
    if 0 < total <= lay.MAX_ARGS:
        key, resolved = frame_key(), frame_args()
        n_operands, literal = load(op + lay.O_OPERANDS), load(op + lay.O_LITERAL)
        tensor, variable = load(st + lay.S_TENSOR), load(st + lay.S_VARIABLE)
        store(key, total)
        known = True
        first = min(n_operands, n_positional)
        for i in range(first, total):    # before a Variable's Tensor is borrowed: an item's own hash may assign it
            a = load(args + 8 * i)
            word = a
            if load(a + lay.TYPE) == load(st + lay.S_TUPLE):
                word = object_hash(a)
                if word == -1:
                    error_clear()
                    known = False
            store(resolved + 8 * i, a)
            store(key + 8 + 8 * i, word)
        for i in range(first):
            a = load(args + 8 * i)
            kind = load(a + lay.TYPE)
            if kind == variable and not in_recording(st):
                a = note_read(st, a)
                kind = tensor
            word = key_of(a, kind, literal >> i & 1, st) if a != 0 else 0
            known = known and word != 0
            store(resolved + 8 * i, a)
            store(key + 8 + 8 * i, word)
        store(key + 8 + 8 * total, names)
        if known:
            entry = find_entry(op, key, total)
            if entry != 0 and same_tuples(entry, args, n_operands, total):
                result = run_cached(entry, key, resolved)
                if result != -1:
                    return result
        elif error_occurred() != 0:
            return 0                     # no memory to note a read
    return vectorcall(load(op + slow), args, n_positional, names)


def key_set(key, total):
    """`set_of` for the installer in Python."""
    return set_of(key, total)


def op_vectorcall(op, args, flagged, names):
    return op_call(op, args, flagged & 0x7FFFFFFFFFFFFFFF, names, lay.O_SLOW)


def recording_enter(unused, args, count):
    """recording_enter(): this thread is in one more recording."""
    st = state()
    n = load(st + lay.S_RECORDINGS)
    if n == lay.MOST_RECORDINGS:
        return no_memory()
    store(load(st + lay.S_RECORDING_TABLE) + 8 * n, thread_state())
    store(st + lay.S_RECORDINGS, n + 1)
    incref(load(st + lay.S_NONE))
    return load(st + lay.S_NONE)


def recording_leave(unused, args, count):
    """recording_leave(): this thread is in one recording less."""
    st = state()
    n, table, me = load(st + lay.S_RECORDINGS), load(st + lay.S_RECORDING_TABLE), thread_state()
    for i in range(n):
        if load(table + 8 * i) == me:
            store(table + 8 * i, load(table + 8 * (n - 1)))
            store(st + lay.S_RECORDINGS, n - 1)
            break
    incref(load(st + lay.S_NONE))
    return load(st + lay.S_NONE)


def row_note(unused, args, count):
    """row_note(form address, operands, outputs): tuples of dry Tensors; the row, where this thread's tapes record."""
    operands, outs = args + 8, args + 16
    n_in, n_out = tuple_size(load(operands)), tuple_size(load(outs))
    block = spread_tuples(load(operands), n_in, load(outs), n_out)
    if block == 0:
        return no_memory()
    fine = record(long_value(load(args)), block, n_in, block + 8 * n_in, n_out, 0)
    release(block)
    if not fine:
        return 0
    r = load(state() + lay.S_NONE)
    incref(r)
    return r


def spread_tuples(a, n, b, m):
    """The items of two tuples in a block, or 0."""
    block = resize(0, 8 * (n + m + 1))
    if block != 0:
        for k in range(n):
            store(block + 8 * k, tuple_get(a, k))
        for k in range(m):
            store(block + 8 * (n + k), tuple_get(b, k))
    return block


def run_form(unused, args, count):
    """run(form address, *tensors): the builtin behind the slow path; Python has validated the operands."""
    return execute(long_value(load(args)), args + 8)


def repeated(st, op, a, b):
    """The form that the op ran last if these two Tensors ask for it again, else 0: the commonest call, at once."""
    entry = load(op + lay.O_LAST)
    if entry == 0 or load(a + lay.TYPE) != load(st + lay.S_TENSOR) or load(b + lay.TYPE) != load(st + lay.S_TENSOR):
        return 0
    if (load(entry) != 2 or load(entry + 8) != 2 * load(a + lay.T_AVAL) + 1 or load(a + lay.T_DATA) == 0
            or load(entry + 16) != 2 * load(b + lay.T_AVAL) + 1 or load(b + lay.T_DATA) == 0 or load(entry + 24) != 0):
        return 0
    return load(entry + lay.C_FORM)


def slot_binary_(index, a, b):
    st = state()
    op = load(st + lay.S_OPS + 8 * index)
    call = frame_call()
    store(call, a)
    store(call + 8, b)
    form = repeated(st, op, a, b)
    if form != 0:
        return execute(form, call)
    return op_call(op, call, 2, 0, lay.O_OPERATOR)


def slot_binary(index, a, b):
    return slot_binary_(index, a, b)


def compare_slot(a, b, operator):
    """tp_richcompare: CPython numbers < <= == != > >= from 0."""
    return slot_binary_(lay.FIRST_COMPARISON + (operator & 0xFFFFFFFF), a, b)


def slot_unary(index, a):
    call = frame_call()
    store(call, a)
    return op_call(load(state() + lay.S_OPS + 8 * index), call, 1, 0, lay.O_OPERATOR)
