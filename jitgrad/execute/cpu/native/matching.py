"""Whether a call is one that a trace was recorded for: its recipe is gone through, and the inputs taken on the way.

A recipe answers 1 (it is), 0 (it is not) or -1 (with an exception that is no Exception: Ctrl-C, say).
"""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.raw import (
    attribute,
    cell_get,
    decref,
    dict_get,
    dict_next,
    error_clear,
    error_matches,
    error_occurred,
    get_item,
    incref,
    load,
    load_f64,
    load_i32,
    long_value,
    object_equal,
    stack,
    store,
    store_f32,
    zero,
)

EQUAL = 2                      # Py_EQ
frame_entry = stack(3)


def called_alike(trace, n_positional, names):
    """As many positional arguments and the same keywords."""
    own = load(trace + lay.E_NAMES)
    if load(trace + lay.E_POSITIONAL) != n_positional:
        return False
    if names == own:
        return True
    n = load(names + lay.SIZE) if names != 0 else 0
    if n != load(trace + lay.E_ARGUMENTS) - n_positional:
        return False
    for i in range(n):
        a, b = load(names + lay.TUPLE_ITEMS + 8 * i), load(own + lay.TUPLE_ITEMS + 8 * i)
        if a != b:
            same = object_equal(a, b, EQUAL)
            if same < 0:
                error_clear()
            if same != 1:
                return False
    return True


def match(st, trace, args, work):
    """Registers, objects and addresses of the inputs are in the working memory if it answers 1.

    What looks at the call may run code of the user's, so it comes before what takes addresses.
    """
    registers = work + load(trace + lay.E_REGISTERS)
    for i in range(load(trace + lay.E_ARGUMENTS)):
        store(registers + 8 * i, load(args + 8 * i))
    at = load(trace + lay.E_RECIPE)
    owned = work + load(trace + lay.E_OWNED)
    for _ in range(load(trace + lay.E_KEYS)):
        fits = key_fits(st, registers, owned, at)
        if fits != 1:
            return fits
        at += 32
    objects, scalars = work + load(trace + lay.E_OBJECTS), work + load(trace + lay.E_SCALARS)
    for _ in range(load(trace + lay.E_DATA)):
        if not data_fits(st, registers, objects, scalars, work, at):
            return 0
        at += 32
    return 1 if distinct(trace, objects, work) else 0


# ---- what looks at the call ----

def key_fits(st, registers, owned, at):
    op, first, what, to = load(at), load(at + 8), load(at + 16), registers + load(at + 24)
    if op <= lay.M_INT_KEY:
        return value_fits(st, load(registers + first), op, what, to, owned)
    if op == lay.M_GLOBAL:
        o = dict_get(first, what)
        return found(st, o, to, owned) if o == 0 else kept(o, to, owned)
    if op == lay.M_ABSENT:
        o = dict_get(first, what)
        return 0 if o != 0 else 1 if error_occurred() == 0 else passed_over(st)
    if op == lay.M_CELL:
        return found(st, cell_get(first), to, owned)
    if op == lay.M_ATTR:
        return found(st, attribute(load(registers + first), what), to, owned)
    if op == lay.M_ITEM:
        return found(st, get_item(load(registers + first), what), to, owned)
    return 1 if load(first) == what else 0                       # M_WORD


def value_fits(st, o, op, what, to, owned):
    """An argument or a part of one."""
    if op == lay.M_IS:
        return 1 if o == what else 0
    kind = load(o + lay.TYPE)
    if op == lay.M_TUPLE:
        if kind != load(st + lay.S_TUPLE) or load(o + lay.SIZE) != what:
            return 0
        for i in range(what):
            store(to + 8 * i, load(o + lay.TUPLE_ITEMS + 8 * i))
        return 1
    if op == lay.M_LIST:
        if kind != load(st + lay.S_LIST) or load(o + lay.SIZE) != what:
            return 0
        for i in range(what):
            kept(load(load(o + lay.LIST_ITEMS) + 8 * i), to + 8 * i, owned)
        return 1
    if op == lay.M_DICT:
        return values_fit(st, o, what, to, owned) if kind == load(st + lay.S_DICT) else 0
    if op == lay.M_EQUAL:
        same = o == what
        if not same and kind == load(what + lay.TYPE):
            answer = object_equal(o, what, EQUAL)
            return answer if answer >= 0 else passed_over(st)
        return 1 if same else 0
    if op == lay.M_FLOAT_KEY:
        return 1 if kind == load(st + lay.S_FLOAT) and load(o + lay.FLOAT_VALUE) == what else 0
    return 1 if kind == load(st + lay.S_LONG) and is_number(o, what) else 0


def is_number(o, value):
    number = long_value(o)
    if number == -1 and error_occurred() != 0:
        error_clear()                    # beyond int64
        return False
    return number == value


def values_fit(st, o, keys, to, owned):
    """A dictionary has these keys in this order, in which Python goes through them, and no others."""
    n, at = load(keys + lay.SIZE), frame_entry()
    if load(o + lay.SIZE) != n:
        return 0
    store(at, 0)
    for i in range(n):
        if dict_next(o, at, at + 8, at + 16) == 0:
            return 0
        kept(load(at + 16), to + 8 * i, owned)
        same = same_key(st, load(at + 8), load(keys + lay.TUPLE_ITEMS + 8 * i))
        if same != 1:
            return same
    return 1


def same_key(st, key, wanted):
    if key == wanted:
        return 1
    if load(key + lay.TYPE) != load(wanted + lay.TYPE):
        return 0
    incref(key)                          # comparing may change the dictionary
    same = object_equal(key, wanted, EQUAL)
    decref(key)
    return same if same >= 0 else passed_over(st)


def kept(o, to, owned):
    """A borrowed object goes to a register; the call owns it, since what holds it may change."""
    incref(o)
    return own(o, to, owned)


def own(o, to, owned):
    n = load(owned)
    store(owned + 8 + 8 * n, o)
    store(owned, n + 1)
    store(to, o)
    return 1


def found(st, o, to, owned):
    """A new reference goes to a register, unless nothing was found."""
    if o != 0:
        return own(o, to, owned)
    return 0 if error_occurred() == 0 else passed_over(st)


def passed_over(st):
    """What looking raised: a trace that raises where Python may not have looked does not match."""
    if error_matches(load(st + lay.S_EXCEPTION)) == 0:
        return -1
    error_clear()
    return 0


# ---- what takes data ----

def data_fits(st, registers, objects, scalars, table, at):
    """The object and the address of one input; no code of others runs."""
    op, first, what, to = load(at), load(at + 8), load(at + 16), load(at + 24)
    if op == lay.M_VARIABLE:
        o = load(first + lay.V_VALUE)
        if o == 0 or load(o + lay.T_AVAL) != what or load(o + lay.T_DATA) == 0:
            return False
        store(table + to, load(o + lay.T_DATA))
    elif op == lay.M_PLACED_VARIABLE:
        o = load(first + lay.V_VALUE)
        if o == 0 or load(o + lay.T_AVAL) != what or not elsewhere(st, o):
            return False
    elif op == lay.M_CAPTURED:
        o = first
        if not array_fits(o, what):
            return False
        store(table + to, load(o + lay.A_DATA))
    else:
        o = load(registers + first)
        kind = load(o + lay.TYPE)
        if op == lay.M_TENSOR:
            if kind != load(st + lay.S_TENSOR) or load(o + lay.T_AVAL) != what or load(o + lay.T_DATA) == 0:
                return False
            store(table + to, load(o + lay.T_DATA))
        elif op == lay.M_PLACED:
            if kind != load(st + lay.S_TENSOR) or load(o + lay.T_AVAL) != what or not elsewhere(st, o):
                return False
        elif op == lay.M_ARRAY:
            if kind != load(st + lay.S_NDARRAY) or not array_fits(o, what):
                return False
            store(table + to, load(o + lay.A_DATA))
        elif op == lay.M_FLOAT:
            if kind != load(st + lay.S_FLOAT):
                return False
            store(table + to, o + lay.FLOAT_VALUE)
        elif op == lay.M_SINGLE:
            if kind != load(st + lay.S_FLOAT):
                return False
            store_f32(scalars + to, load_f64(o + lay.FLOAT_VALUE))
            store(table + to, scalars + to)
        elif op == lay.M_SAME:
            return load(objects + to) == o
        else:
            if kind != load(st + lay.S_LONG):
                return False
            number = long_value(o)
            if number == -1 and error_occurred() != 0:
                error_clear()
                return False
            store(scalars + to, number)
            store(table + to, scalars + to)
    store(objects + to, o)
    return True


def elsewhere(st, o):
    """Whether a Tensor's elements are not in this memory, but somewhere."""
    if load(o + lay.T_DATA) != 0 or load(st + lay.S_ELSEWHERE) == 0:
        return False
    owner = load(o + lay.T_OWNER)
    return owner != 0 and load(owner + lay.TYPE) == load(st + lay.S_ELSEWHERE)


def array_fits(o, block):
    """Of this dtype and shape, in C order, aligned. Not every array of a dtype has NumPy's one object for it."""
    descr = load(o + lay.A_DESCR)
    if descr != load(block + lay.I_DESCR) and load(descr + lay.DESCR_KIND) & lay.DESCR_MASK != load(block + lay.I_KIND):
        return False
    n = load(block + lay.I_NDIM)
    if load_i32(o + lay.A_NDIM) != n or load_i32(o + lay.A_FLAGS) & lay.A_WANTED != lay.A_WANTED:
        return False
    lengths = load(o + lay.A_DIMS)
    for i in range(n):
        if load(lengths + 8 * i) != load(block + lay.I_DIMS + 8 * i):
            return False
    return True


def distinct(trace, objects, work):
    """Arguments that were different objects when recorded are now: of few each pair, of many a hash table."""
    offsets, n, mask = load(trace + lay.E_DISTINCT), load(trace + lay.E_DISTINCT_COUNT), load(trace + lay.E_SET_MASK)
    if mask == 0:
        for i in range(1, n):
            o = load(objects + load(offsets + 8 * i))
            for j in range(i):
                if load(objects + load(offsets + 8 * j)) == o:
                    return False
        return True
    table = work + load(trace + lay.E_SET)
    zero(table, 0, 8 * (mask + 1))
    for i in range(n):
        o = load(objects + load(offsets + 8 * i))
        at = ((o >> 4) ^ (o >> 13)) & mask
        while load(table + 8 * at) != 0:
            if load(table + 8 * at) == o:
                return False
            at = (at + 1) & mask
        store(table + 8 * at, o)
    return True
