"""Which rows of the log a tape covers, and when they die."""

from __future__ import annotations

from numba import njit

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.raw import decref, incref, load, state, store
from jitgrad.execute.cpu.native.tensors import ensure


@njit
def none():
    r = load(state() + lay.S_NONE)
    incref(r)
    return r


@njit
def drop_row(log, row):
    """Release what a row owns; the row stays, empty."""
    refs, first = load(log + lay.L_REFS), load(log + lay.L_FIRST)
    for i in range(load(first + 8 * row), load(first + 8 * (row + 1))):
        o = load(refs + 8 * i)
        store(refs + 8 * i, 0)
        if o != 0:
            decref(o)
    store(load(log + lay.L_FORMS) + 8 * row, 0)


@njit
def is_open(tape):
    """The tape records now."""
    n = load(tape + lay.K_INTERVAL_COUNT)
    return n > 0 and load(load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * (n - 1) + 8) < 0


@njit
def end_of(tape, interval, log):
    """One past the last row of an interval; an open one reaches to the present."""
    end = load(load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * interval + 8)
    return load(log + lay.L_COUNT) if end < 0 else end


@njit
def covers(tape, row, log):
    for i in range(load(tape + lay.K_INTERVAL_COUNT)):
        if load(load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * i) <= row < end_of(tape, i, log):
            return True
    return False


@njit
def covered(log, row, but):
    other = load(log + lay.L_TAPES)
    while other != 0:
        if other != but and covers(other, row, log):
            return True
        other = load(other + lay.K_NEXT)
    return False


@njit
def reach(log, but):
    """One past the last row that a living tape other than ``but`` covers or may still extend from."""
    last = 0
    other = load(log + lay.L_TAPES)
    while other != 0:
        if other != but:
            for i in range(load(other + lay.K_INTERVAL_COUNT)):
                last = max(last, end_of(other, i, log))
                last = max(last, load(load(other + lay.K_INTERVALS) + lay.K_INTERVAL * i))
        other = load(other + lay.K_NEXT)
    return last


@njit
def clip_reads(log):
    """Open intervals start no later than the reads that are left."""
    count = load(log + lay.L_READ_COUNT)
    tape = load(log + lay.L_TAPES)
    while tape != 0:
        if is_open(tape):
            at = load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * (load(tape + lay.K_INTERVAL_COUNT) - 1) + 16
            store(at, min(load(at), count))
        tape = load(tape + lay.K_NEXT)


@njit
def drop_reads(log, keep):
    """Forget noted reads from row ``keep`` on (the last first, so that none is lost half way)."""
    count = load(log + lay.L_READ_COUNT)
    while count > 0 and load(load(log + lay.L_READS) + 24 * (count - 1) + 16) >= keep:
        count -= 1
        at = load(log + lay.L_READS) + 24 * count
        variable, value = load(at), load(at + 8)
        store(log + lay.L_READ_COUNT, count)
        decref(variable)
        decref(value)


@njit
def release_rows(tape):
    """Free the rows that only this tape covers and forget its intervals and watches."""
    log = load(tape + lay.K_LOG)
    if log != 0:
        alone = load(load(log + lay.L_TAPES) + lay.K_NEXT) == 0
        for i in range(load(tape + lay.K_INTERVAL_COUNT)):
            row = end_of(tape, i, log) - 1
            start = load(load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * i)
            while row >= start:
                if load(load(log + lay.L_FORMS) + 8 * row) != 0 and (alone or not covered(log, row, tape)):
                    drop_row(log, row)
                row -= 1
        last = reach(log, tape)
        if last < load(log + lay.L_COUNT):
            store(log + lay.L_COUNT, last)
            store(log + lay.L_REF_COUNT, load(load(log + lay.L_FIRST) + 8 * last) if last > 0 else 0)
        if alone:
            drop_reads(log, 0)
        else:
            drop_reads(log, last + 1)
        clip_reads(log)
    store(tape + lay.K_INTERVAL_COUNT, 0)
    count = load(tape + lay.K_WATCH_COUNT)
    store(tape + lay.K_WATCH_COUNT, 0)
    for i in range(count):
        decref(load(load(tape + lay.K_WATCHES) + 16 * i))


@njit
def meet(tape, variable):
    """Remember a Variable that this tape watched, once in a row."""
    n = load(tape + lay.K_MET_COUNT)
    for i in range(n):
        if load(load(tape + lay.K_MET) + 8 * i) == variable:
            return
    if ensure(tape, lay.K_MET, n + 1, lay.K_MET_CAPACITY, 8):
        incref(variable)
        store(load(tape + lay.K_MET) + 8 * n, variable)
        store(tape + lay.K_MET_COUNT, n + 1)


@njit
def meet_all(tape):
    """Before rows are let go: `watched_variables` still answers afterwards."""
    log = load(tape + lay.K_LOG)
    accessed = load(tape + lay.K_FLAGS) & lay.K_ACCESSED
    if log != 0 and accessed:
        for i in range(load(tape + lay.K_INTERVAL_COUNT)):
            interval = load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * i
            for r in range(load(interval + 16), last_read(log, interval)):
                variable = load(load(log + lay.L_READS) + 24 * r)
                if load(variable + lay.V_FLAGS) & lay.V_TRAINABLE:
                    meet(tape, variable)
    for w in range(load(tape + lay.K_WATCH_COUNT)):
        o = load(load(tape + lay.K_WATCHES) + 16 * w)
        if load(o + lay.TYPE) == load(state() + lay.S_VARIABLE):
            meet(tape, o)


@njit
def last_read(log, interval):
    """One past the last noted read of an interval that is still there."""
    last = load(interval + 24)
    count = load(log + lay.L_READ_COUNT)
    return count if last < 0 or last > count else last


@njit
def forget_met(tape):
    n = load(tape + lay.K_MET_COUNT)
    store(tape + lay.K_MET_COUNT, 0)
    for i in range(n):
        decref(load(load(tape + lay.K_MET) + 8 * i))
