"""The life of a Function: its making, its being a method, its traces, its end."""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.raw import (
    call_visit,
    clear_weak,
    decref,
    gc_free,
    gc_new,
    gc_track,
    gc_untrack,
    incref,
    load,
    long_value,
    method_new,
    state,
    store,
)
from jitgrad.execute.cpu.native.rows import none


def function_new(kind, args, names):
    """tp_new: Function(); Python fills it."""
    st = state()
    o = gc_new(kind)
    if o != 0:
        for word in range(lay.N_DICT, lay.N_SIZE, 8):
            store(o + word, 0)
        store(o + lay.N_VECTORCALL, load(st + lay.S_FUNCTION_CALL))
        gc_track(o)
    return o


def function_get(f, instance, kind):
    """tp_descr_get: bound to an instance, as functions are."""
    if instance == 0 or instance == load(state() + lay.S_NONE):
        incref(f)
        return f
    return method_new(f, instance)


def set_traces(unused, args, count):
    """set_traces(function, what holds them, tuple of trace addresses): from now on these, the first first."""
    f, addresses = load(args), load(args + 16)
    n = min(load(addresses + lay.SIZE), lay.MAX_TRACES)
    for i in range(n):
        store(f + lay.N_TRACES + 8 * i, long_value(load(addresses + lay.TUPLE_ITEMS + 8 * i)))
    store(f + lay.N_COUNT, n)
    held = load(f + lay.N_HELD)
    incref(load(args + 8))
    store(f + lay.N_HELD, load(args + 8))
    if held != 0:
        decref(held)
    return none()


def function_traverse(f, visit, argument):
    status = call_visit(visit, load(f + lay.TYPE), argument)
    for word in range(lay.N_DICT, lay.N_HELD + 8, 8):
        o = load(f + word)
        if o != 0 and word != lay.N_WEAK and status == 0:
            status = call_visit(visit, o, argument)
    return status


def function_clear(f):
    store(f + lay.N_COUNT, 0)
    for word in range(lay.N_DICT, lay.N_HELD + 8, 8):
        if word != lay.N_WEAK:
            o = load(f + word)
            store(f + word, 0)
            if o != 0:
                decref(o)
    return 0


def function_dealloc(f):
    gc_untrack(f)
    if load(f + lay.N_WEAK) != 0:
        clear_weak(f)
    function_clear(f)
    kind = load(f + lay.TYPE)
    gc_free(f)
    decref(kind)
    return 0
