"""What Python may see of a tape: its Variables, reads and rows."""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.raw import (
    decref,
    incref,
    list_append,
    list_new,
    list_set,
    load,
    long_new,
    long_value,
    tuple_new,
    tuple_set,
)
from jitgrad.execute.cpu.native.rows import end_of, finished, is_open, last_read, meet_all


def tape_variables(unused, args, count):
    """variables(tape): the Variables it watches, as met."""
    tape = load(args)
    meet_all(tape)
    n = load(tape + lay.K_MET_COUNT)
    out = list_new(n)
    if out == 0:
        return out
    for i in range(n):
        v = load(load(tape + lay.K_MET) + 8 * i)
        incref(v)
        list_set(out, i, v)
    return finished(out)


def tape_watches(unused, args, count):
    """watches(tape): Tensors and Variables that were watched by name."""
    tape = load(args)
    out = list_new(0)
    if out == 0:
        return out
    for w in range(load(tape + lay.K_WATCH_COUNT)):
        list_append(out, load(load(tape + lay.K_WATCHES) + 16 * w))
    return finished(out)


def tape_reads(unused, args, count):
    """reads(tape, Variable): the Tensors read from it while the tape recorded, each once per change."""
    tape, variable = load(args), load(args + 8)
    log = load(tape + lay.K_LOG)
    out = list_new(0)
    if out == 0:
        return out
    previous = 0
    for i in range(load(tape + lay.K_INTERVAL_COUNT)):
        interval = load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * i
        for r in range(load(interval + 16), last_read(log, interval)):
            at = load(log + lay.L_READS) + 24 * r
            value = load(at + 8)
            if load(at) == variable and value != previous:
                list_append(out, value)
                previous = value
    return finished(out)


def open_tapes(unused, args, count):
    """open_tapes(log address): the users' tapes that record into it now."""
    out = list_new(0)
    if out == 0:
        return out
    tape = load(long_value(load(args)) + lay.L_TAPES)
    while tape != 0:
        if is_open(tape) and load(tape + lay.K_FLAGS) & lay.K_WHOLE == 0:
            list_append(out, tape)
        tape = load(tape + lay.K_NEXT)
    return finished(out)


def sharing_tapes(unused, args, count):
    """sharing_tapes(tape): the users' tapes that have rows which this one has too, or later ones."""
    out = list_new(0)
    if out == 0:
        return out
    tape = load(args)
    log = load(tape + lay.K_LOG)
    other = load(log + lay.L_TAPES) if load(tape + lay.K_INTERVAL_COUNT) > 0 else 0
    first = load(load(tape + lay.K_INTERVALS)) if other != 0 else 0
    while other != 0:
        if load(other + lay.K_FLAGS) & lay.K_WHOLE == 0 and last_row(other, log) > first:
            list_append(out, other)
        other = load(other + lay.K_NEXT)
    return finished(out)


def last_row(tape, log):
    """One past the last row that a tape covers; 0 if none."""
    last = 0
    for i in range(load(tape + lay.K_INTERVAL_COUNT)):
        if end_of(tape, i, log) > load(load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * i):
            last = max(last, end_of(tape, i, log))
    return last


def log_rows(unused, args, count):
    """log_rows(tape): (form number, operands, outputs[, rule]) of each of its rows, as a list of tuples.

    Making one can lead to a collection, and that to the death of a tape, which cuts rows off: places are read anew.
    """
    tape = load(args)
    log = load(tape + lay.K_LOG)
    out = list_new(0)
    if out == 0:
        return out
    for i in range(load(tape + lay.K_INTERVAL_COUNT)):
        k = load(load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * i) + load(log + lay.L_CUT)
        while k - load(log + lay.L_CUT) < end_of(tape, i, log):
            if load(load(log + lay.L_FORMS) + 8 * (k - load(log + lay.L_CUT))) != 0:
                entry = row_tuple(log, k)
                if entry != 0:
                    list_append(out, entry)
                decref(entry)
            k += 1
    return finished(out)


def log_row(unused, args, count):
    """log_row(tape, row): the same for one row of the log, by the number that a report gave it."""
    return row_tuple(load(load(args) + lay.K_LOG), long_value(load(args + 8)))


def row_tuple(log, k):
    """The row as a tuple; ``k`` counts the rows that were cut off before it."""
    row = k - load(log + lay.L_CUT)
    n = load(load(log + lay.L_FIRST) + 8 * (row + 1)) - load(load(log + lay.L_FIRST) + 8 * row)
    out = tuple_new(n + 1)
    if out == 0:
        return out
    row = k - load(log + lay.L_CUT)
    first = load(load(log + lay.L_FIRST) + 8 * row)
    tuple_set(out, 0, long_new(load(load(load(log + lay.L_FORMS) + 8 * row) + lay.F_ID)))
    for i in range(n):
        o = load(load(log + lay.L_REFS) + 8 * (first + i))
        incref(o)
        tuple_set(out, i + 1, o)
    return finished(out)
