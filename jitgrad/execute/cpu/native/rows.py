"""Which rows of the log a tape covers, and when they die."""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.raw import (
    copy,
    decref,
    error_occurred,
    incref,
    load,
    move_bytes,
    release,
    resize,
    state,
    store,
)
from jitgrad.execute.cpu.native.tensors import ensure

MANY_DEAD = 256                # rows; fewer are not worth moving the others


def finished(out):
    """A tuple or list that was filled; 0 if an exception was set meanwhile."""
    if error_occurred() != 0:
        decref(out)
        return 0
    return out


def none():
    r = load(state() + lay.S_NONE)
    incref(r)
    return r


def drop_row(log, row):
    """Release what a row owns; the row stays, empty."""
    store(load(log + lay.L_FORMS) + 8 * row, 0)
    first = load(log + lay.L_FIRST)
    for i in range(load(first + 8 * row), load(first + 8 * (row + 1))):
        at = load(log + lay.L_REFS) + 8 * i          # read anew: a destructor may run Python, which may record
        o = load(at)
        store(at, 0)
        if o != 0:
            decref(o)


def is_open(tape):
    """The tape records now."""
    n = load(tape + lay.K_INTERVAL_COUNT)
    return n > 0 and load(load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * (n - 1) + 8) < 0


def end_of(tape, interval, log):
    """One past the last row of an interval; an open one reaches to the present."""
    end = load(load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * interval + 8)
    return load(log + lay.L_COUNT) if end < 0 else end


def covers(tape, row, log):
    for i in range(load(tape + lay.K_INTERVAL_COUNT)):
        if load(load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * i) <= row < end_of(tape, i, log):
            return True
    return False


def covered(log, row, but):
    other = load(log + lay.L_TAPES)
    while other != 0:
        if other != but and covers(other, row, log):
            return True
        other = load(other + lay.K_NEXT)
    return False


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


def first_read(log):
    """The first noted read that a living tape's interval includes."""
    first = load(log + lay.L_READ_COUNT)
    tape = load(log + lay.L_TAPES)
    while tape != 0:
        for i in range(load(tape + lay.K_INTERVAL_COUNT)):
            first = min(first, load(load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * i + 16))
        tape = load(tape + lay.K_NEXT)
    return first


def end_of_reads(log):
    """One past the last noted read that a living tape's interval includes or may yet include."""
    last = 0
    tape = load(log + lay.L_TAPES)
    while tape != 0:
        for i in range(load(tape + lay.K_INTERVAL_COUNT)):
            last = max(last, last_read(log, load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * i))
        tape = load(tape + lay.K_NEXT)
    return last


def shift(log, rows, reads):
    """Living tapes count rows and reads from new origins."""
    tape = load(log + lay.L_TAPES)
    while tape != 0:
        for i in range(load(tape + lay.K_INTERVAL_COUNT)):
            at = load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * i
            store(at, max(load(at) - rows, 0))
            store(at + 16, max(load(at + 16) - reads, 0))
            if load(at + 8) >= 0:
                store(at + 8, max(load(at + 8) - rows, 0))
                store(at + 24, max(load(at + 24) - reads, 0))
        for w in range(load(tape + lay.K_WATCH_COUNT)):
            at = load(tape + lay.K_WATCHES) + 16 * w + 8
            store(at, max(load(at) - rows, 0))
        tape = load(tape + lay.K_NEXT)
    noted = load(log + lay.L_READS)
    for r in range(load(log + lay.L_READ_COUNT)):
        at = noted + 24 * r + 16
        store(at, max(load(at) - rows, 0))


def dead_prefix(log):
    """How many rows at the front to cut: all if none lives, else only once they are half of the log."""
    count, forms = load(log + lay.L_COUNT), load(log + lay.L_FORMS)
    n = 0
    while n < count and load(forms + 8 * n) == 0:
        n += 1
    return n if n == count or (n >= MANY_DEAD and 2 * n >= count) else 0


def cut_rows(log, n):
    count = load(log + lay.L_COUNT) - n
    forms, first, refs = load(log + lay.L_FORMS), load(log + lay.L_FIRST), load(log + lay.L_REFS)
    base = load(first + 8 * n)
    move_bytes(refs, refs + 8 * base, 8 * (load(log + lay.L_REF_COUNT) - base))
    move_bytes(forms, forms + 8 * n, 8 * count)
    for r in range(count + 1):
        store(first + 8 * r, load(first + 8 * (r + n)) - base)
    store(log + lay.L_COUNT, count)
    store(log + lay.L_CUT, load(log + lay.L_CUT) + n)
    store(log + lay.L_REF_COUNT, load(log + lay.L_REF_COUNT) - base)


def settle(log):
    """After rows died: forget reads that no living tape includes and give the room at the front back."""
    reads, rows, kept = first_read(log), dead_prefix(log), end_of_reads(log)
    count, noted = load(log + lay.L_READ_COUNT), load(log + lay.L_READS)
    kept = max(kept, reads)
    tail = count - kept
    gone = resize(0, 24 * (reads + tail) + 8)
    if gone == 0:
        return                           # the next death of a row settles this one too
    copy(gone, noted, 24 * reads)
    copy(gone + 24 * reads, noted + 24 * kept, 24 * tail)
    move_bytes(noted, noted + 24 * reads, 24 * (kept - reads))
    store(log + lay.L_READ_COUNT, kept - reads)
    if rows > 0:
        cut_rows(log, rows)
    if reads > 0 or rows > 0:
        shift(log, rows, reads)
    for r in range(reads + tail):        # last: a destructor may run Python
        decref(load(gone + 24 * r))
        decref(load(gone + 24 * r + 8))
    release(gone)


def drop_all(log):
    """Free every row. The references are taken out of the log first: a destructor may run Python, which may record."""
    refs, count = load(log + lay.L_REFS), load(log + lay.L_REF_COUNT)
    room = load(log + lay.L_REF_CAPACITY)
    store(log + lay.L_REFS, 0)
    store(log + lay.L_REF_CAPACITY, 0)
    store(log + lay.L_REF_COUNT, 0)
    store(log + lay.L_COUNT, 0)
    for i in range(count):
        o = load(refs + 8 * i)
        if o != 0:
            decref(o)
    if load(log + lay.L_REFS) == 0:
        store(log + lay.L_REFS, refs)
        store(log + lay.L_REF_CAPACITY, room)
    else:
        release(refs)


def release_alone(tape, log):
    """Free the rows of this tape that no other covers."""
    for i in range(load(tape + lay.K_INTERVAL_COUNT)):
        row = end_of(tape, i, log) - 1
        start = load(load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * i)
        while row >= start:
            if load(load(log + lay.L_FORMS) + 8 * row) != 0 and not covered(log, row, tape):
                drop_row(log, row)
            row -= 1
    store(tape + lay.K_INTERVAL_COUNT, 0)
    last = reach(log, tape)
    if last < load(log + lay.L_COUNT):
        store(log + lay.L_REF_COUNT, load(load(log + lay.L_FIRST) + 8 * last))
        store(log + lay.L_COUNT, last)


def release_rows(tape):
    """Free the rows that only this tape covers and forget its intervals and watches."""
    log = load(tape + lay.K_LOG)
    if log != 0:
        if load(load(log + lay.L_TAPES) + lay.K_NEXT) == 0:
            store(tape + lay.K_INTERVAL_COUNT, 0)
            drop_all(log)
        else:
            release_alone(tape, log)
        settle(log)
    count = load(tape + lay.K_WATCH_COUNT)
    store(tape + lay.K_WATCH_COUNT, 0)
    for i in range(count):
        decref(load(load(tape + lay.K_WATCHES) + 16 * i))


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


def last_read(log, interval):
    """One past the last noted read of an interval that is still there."""
    last = load(interval + 24)
    count = load(log + lay.L_READ_COUNT)
    return count if last < 0 or last > count else last


def forget_met(tape):
    n = load(tape + lay.K_MET_COUNT)
    store(tape + lay.K_MET_COUNT, 0)
    for i in range(n):
        decref(load(load(tape + lay.K_MET) + 8 * i))
