"""What a replayed call returns: its results in the nest that the function returned when it was recorded."""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.raw import (
    decref,
    dict_new,
    dict_set,
    incref,
    list_new,
    load,
    stack,
    store,
    tuple_new,
    vectorcall,
)

frame_leaves = stack(1)


def answer_of(trace, registers, items, outs):
    """A new reference; 0 with an exception. References that are handed on are gone from ``outs``."""
    at, depth = load(trace + lay.E_ANSWER), 0
    for _ in range(load(trace + lay.E_ANSWER_COUNT)):
        op, what = load(at), load(at + 8)
        if op == lay.W_TAKEN:
            o = load(outs + what)
            store(outs + what, 0)
        elif op == lay.W_RESULT:
            o = load(outs + what)
            incref(o)
        elif op == lay.W_ARGUMENT:
            o = load(registers + what)
            incref(o)
        elif op == lay.W_CONST:
            o = what
            incref(o)
        else:
            depth -= what
            o = container(op, items + 8 * depth, what, load(at + 16))
        if o == 0:
            for i in range(depth):
                decref(load(items + 8 * i))
            return o
        store(items + 8 * depth, o)
        depth += 1
        at += 24
    return load(items)


def container(op, items, n, other):
    """Takes the references of its items over."""
    if op == lay.W_TUPLE:
        o = tuple_new(n)
        if o != 0:
            for i in range(n):
                store(o + lay.TUPLE_ITEMS + 8 * i, load(items + 8 * i))
            return o
    elif op == lay.W_LIST:
        return list_of(items, n)
    elif op == lay.W_CALL:
        return called_with(other, items, n)
    else:
        o = dict_of(other, items, n)
    for i in range(n):                   # a dictionary has references of its own
        decref(load(items + 8 * i))
    return o


def list_of(items, n):
    o = list_new(n)
    for i in range(n):
        if o != 0:
            store(load(o + lay.LIST_ITEMS) + 8 * i, load(items + 8 * i))
        else:
            decref(load(items + 8 * i))
    return o


def dict_of(keys, items, n):
    o = dict_new()
    for i in range(n):
        if o != 0 and dict_set(o, load(keys + lay.TUPLE_ITEMS + 8 * i), load(items + 8 * i)) != 0:
            decref(o)
            o = 0
    return o


def called_with(function, items, n):
    leaves = list_of(items, n)
    if leaves == 0:
        return leaves
    call = frame_leaves()
    store(call, leaves)
    o = vectorcall(function, call, 1, 0)
    decref(leaves)
    return o
