"""Reading a Tensor from Python, and the ends of objects: numbers, buffers, deallocation."""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.calls import form_for, note_read
from jitgrad.execute.cpu.native.pool import give_block, give_small
from jitgrad.execute.cpu.native.raw import (
    bool_new,
    buffer_fill,
    clear_weak,
    copy,
    decref,
    error_occurred,
    float_new,
    incref,
    load,
    load_f32,
    load_f64,
    load_i8,
    load_i32,
    long_new,
    long_value,
    no_memory,
    object_free,
    release,
    resize,
    stack,
    state,
    store,
    vectorcall,
)
from jitgrad.execute.cpu.native.tensors import (
    BOOL,
    FLOAT32,
    FLOAT64,
    INT32,
    execute,
    hold,
    in_recording,
    item_bytes,
    tell,
    tensor_new,
)

ADD, SUBTRACT = lay.SYMBOLS.index("+"), lay.SYMBOLS.index("-")
TO_FLOAT, TO_INT, TO_BOOL, TO_INDEX, TO_BUFFER = 0, 1, 2, 3, 4
BUFFER_WRITABLE, BUFFER_FORMAT, BUFFER_ND, BUFFER_STRIDES = 1, 4, 8, 24
frame_read = stack(2)


def held(o):
    """The Tensor itself, or the one that a Variable holds (which notes the read)."""
    st = state()
    t = o
    if load(o + lay.TYPE) == load(st + lay.S_VARIABLE):
        if in_recording(st):
            return o                     # Python knows what it holds there
        t = note_read(st, o)
    if t == 0:
        return o                         # no Tensor, which its reader finds out
    note_number(t)
    return t


def note_number(t):
    """Under debug_lines: a number leaves the tape here."""
    note = load(state() + lay.S_WAS_READ)
    if note != 0 and load(t + lay.T_TRACKED) != 0:
        tell(note, t)


def slow_read(o, what):
    """Python converts (or refuses) what is not one concrete element."""
    if error_occurred() != 0:
        return 0
    call = frame_read()
    store(call, o)
    number = long_new(what)
    if number == 0:
        return number
    store(call + 8, number)
    r = vectorcall(load(state() + lay.S_SLOW_READ), call, 2, 0)
    decref(number)
    return r


def is_scalar(t):
    is_tensor = load(t + lay.TYPE) == load(state() + lay.S_TENSOR)
    return is_tensor and load(t + lay.T_DATA) != 0 and load(t + lay.T_SIZE) == 1


def as_float(t):
    data, dtype = load(t + lay.T_DATA), load(t + lay.T_DTYPE)
    if dtype == FLOAT32:
        return float(load_f32(data))
    if dtype == FLOAT64:
        return load_f64(data)
    return float(as_int(t))


def as_int(t):
    data, dtype = load(t + lay.T_DATA), load(t + lay.T_DTYPE)
    if dtype == BOOL:
        return int(load_i8(data))
    if dtype == INT32:
        return int(load_i32(data))
    return load(data)


def to_float(o):
    t = held(o)
    return float_new(as_float(t)) if is_scalar(t) else slow_read(t, TO_FLOAT)


def to_int(o):
    t = held(o)
    if is_scalar(t) and load(t + lay.T_DTYPE) < FLOAT32:
        return long_new(as_int(t))
    return slow_read(t, TO_INT)


def to_index(o):
    t = held(o)
    if is_scalar(t) and BOOL < load(t + lay.T_DTYPE) < FLOAT32:
        return long_new(as_int(t))
    return slow_read(t, TO_INDEX)


def to_bool(o):
    """nb_bool: 1, 0, or -1 with an exception."""
    st = state()
    if in_recording(st) and (load(o + lay.TYPE) != load(st + lay.S_TENSOR) or load(o + lay.T_DTYPE) != BOOL):
        return truth_of(slow_read(o, TO_BOOL))     # a recording may want to know the truth only
    t = held(o)
    if is_scalar(t):
        if load(t + lay.T_DTYPE) < FLOAT32:
            return 1 if as_int(t) != 0 else 0
        return 1 if as_float(t) != 0.0 else 0
    return truth_of(slow_read(t, TO_BOOL))


def truth_of(r):
    """Of a new reference to a bool, which is given up: 1, 0, or -1 if there is none."""
    if r == 0:
        return -1
    truth = bool_new(1)
    decref(truth)
    decref(r)
    return 1 if r == truth else 0


def get_buffer(o, view, flags):
    """The buffer protocol: a read-only view of the payload that keeps the Tensor alive, typed if a shape is asked."""
    note_number(o)
    data = load(o + lay.T_DATA)
    if data == 0:
        r = slow_read(o, TO_BUFFER)                  # Python may know how to compute the elements
        data = load(o + lay.T_DATA) if r != 0 else 0
        decref(r)
    if data == 0:
        store(view + 8, 0)        # view->obj must be NULL on failure
        return -1
    nbytes = load(o + lay.T_SIZE) * item_bytes(load(o + lay.T_DTYPE))
    flags &= 0xFFFFFFFF
    if flags & BUFFER_ND == 0 or flags & BUFFER_WRITABLE:
        return buffer_fill(view, o, data, nbytes, 1, flags)
    call = frame_read()
    number = long_new(load(o + lay.T_AVAL))
    store(call, number)
    described = vectorcall(load(state() + lay.S_DESCRIBE), call, 1, 0) if number != 0 else 0
    decref(number)
    if described == 0:
        store(view + lay.B_OBJECT, 0)
        return -1
    at = long_value(described)                # lives as long as the process
    decref(described)
    ndim = load(at + lay.D_NDIM)
    incref(o)
    store(view + lay.B_DATA, data)
    store(view + lay.B_OBJECT, o)
    store(view + lay.B_BYTES, nbytes)
    store(view + lay.B_ITEM, load(at + lay.D_ITEM))
    store(view + lay.B_FLAGS, 1 | (ndim << 32))              # read-only
    store(view + lay.B_FORMAT, load(at + lay.D_FORMAT) if flags & BUFFER_FORMAT else 0)
    store(view + lay.B_SHAPE, at + lay.D_SHAPE if ndim > 0 else 0)
    strided = ndim > 0 and flags & BUFFER_STRIDES == BUFFER_STRIDES
    store(view + lay.B_STRIDES, at + lay.D_SHAPE + 8 * ndim if strided else 0)
    store(view + lay.B_INNER, 0)
    store(view + lay.B_END, 0)
    return 0


def tensor_dealloc(o):
    if load(o + lay.T_WEAK) != 0:
        clear_weak(o)
    owner, kind, size = load(o + lay.T_OWNER), load(o + lay.TYPE), load(o + lay.ITEMS)
    if size >= lay.POOLED:
        give_block(state(), o, lay.T_PAYLOAD + size)
    else:
        give_small(state(), o, size)
    if owner != 0:
        decref(owner)
    decref(kind)
    return 0


def tensor_make(unused, args, count):
    """tensor_make(aval, bytes, elements, dtype): a Tensor with uninitialised elements."""
    return tensor_new(long_value(load(args)), long_value(load(args + 8)), long_value(load(args + 16)),
                      long_value(load(args + 24)))


def tensor_placed(unused, args, count):
    """tensor_placed(aval, elements, dtype, owner, number): a Tensor whose elements are not here but with its owner."""
    o = tensor_new(long_value(load(args)), lay.WORD, long_value(load(args + 8)), long_value(load(args + 16)))
    if o != 0:
        incref(load(args + 24))
        store(o + lay.T_OWNER, load(args + 24))
        store(o + lay.T_DATA, 0)
        store(o + lay.T_PAYLOAD, long_value(load(args + 32)))
    return o


def variable_dealloc(o):
    if load(o + lay.V_WEAK) != 0:
        clear_weak(o)
    value, name, kind = load(o + lay.V_VALUE), load(o + lay.V_NAME), load(o + lay.TYPE)
    pin = load(o + lay.V_PIN)
    if pin != 0:
        release(load(pin - lay.V_PINNED))
    object_free(o)
    if value != 0:
        decref(value)
    if name != 0:
        decref(name)
    decref(kind)
    return 0


def variable_read(unused, args, count):
    """read(variable): the Tensor it holds, noted for the tapes of this thread."""
    value = note_read(state(), load(args))
    if value == 0:
        return slow_read(load(args), TO_FLOAT)
    incref(value)
    return value


def assign(variable, delta, operator, general):
    """variable = variable operator delta, at once for a Tensor of its aval that nobody records."""
    st = state()
    value = load(variable + lay.V_VALUE)
    if value != 0 and load(st + lay.S_RECORDERS) == 0 and not in_recording(st):
        form = form_for(st, load(st + lay.S_OPS + 8 * operator), value, delta)
        if form != 0 and load(form + lay.F_OUT) == load(value + lay.T_AVAL):
            call = frame_read()
            store(call, value)
            store(call + 8, delta)
            new = execute(form, call)
            if new != 0:
                decref(hold(variable, new))
                incref(variable)
                new = variable
            return new
    call = frame_read()
    store(call, variable)
    store(call + 8, delta)
    return vectorcall(load(st + general), call, 2, 0)


def variable_hold(unused, args, count):
    """variable_hold(variable, Tensor): let it hold that from now on; tapes see the next read."""
    value = load(args + 8)
    incref(value)
    decref(hold(load(args), value))
    r = load(state() + lay.S_NONE)
    incref(r)
    return r


def variable_pin(unused, args, count):
    """variable_pin(variable): the address where its elements can be read without the GIL, as long as it lives."""
    variable = load(args)
    pin = load(variable + lay.V_PIN)
    if pin == 0:
        value = load(variable + lay.V_VALUE)
        size = load(value + lay.T_SIZE) * item_bytes(load(value + lay.T_DTYPE))
        block = resize(0, size + 3 * lay.V_PINNED)
        if block == 0:
            return no_memory()
        pin = ((block + 63) & -64) + lay.V_PINNED
        store(pin - lay.V_PINNED, block)
        store(pin - lay.V_PINNED + 8, size)
        copy(pin, load(value + lay.T_DATA), size)
        store(variable + lay.V_PIN, pin)
    return long_new(pin)


def variable_assign_add(variable, delta):
    return assign(variable, delta, ADD, lay.S_ASSIGN_ADD)


def variable_assign_sub(variable, delta):
    return assign(variable, delta, SUBTRACT, lay.S_ASSIGN_SUB)
