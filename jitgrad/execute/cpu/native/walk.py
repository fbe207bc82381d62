"""The walk: which rows lie between sources and targets, in canonical numbering, hashed.

Equal structure gives equal words, so the backward Plan made for one tape serves every tape like it.
Marks live in the Tensors themselves (walk epoch, flags, number), so no table of addresses is needed.
"""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.raw import load, store
from jitgrad.execute.cpu.native.rows import end_of, last_read
from jitgrad.execute.cpu.native.tensors import FLOAT32, ensure

# marks: flags below, number + 1 above
TRACKED, FROM_SOURCE, SOURCE, NEEDED = 1, 2, 4, 8
NUMBER = 256
SEVERAL = 1


def flags_of(o, epoch):
    return load(o + lay.T_INDEX) if load(o + lay.T_EPOCH) == epoch else 0


def mark(o, epoch, flags):
    old = flags_of(o, epoch)
    store(o + lay.T_EPOCH, epoch)
    store(o + lay.T_INDEX, old | flags)


def word(st, value):
    n = load(st + lay.S_WORD_COUNT)
    if ensure(st, lay.S_WORDS, n + 1, lay.S_WORD_CAPACITY, 8):
        store(load(st + lay.S_WORDS) + 8 * n, value)
        store(st + lay.S_WORD_COUNT, n + 1)
        store(st + lay.S_HASH, (load(st + lay.S_HASH) ^ value) * 1099511628211)
    else:
        store(st + lay.S_SHORT, 1)


def number(st, o, epoch):
    """The canonical number of a value: the next one if it has none."""
    m = flags_of(o, epoch)
    if m >= NUMBER:
        return m // NUMBER - 1
    n = load(st + lay.S_VALUE_COUNT)
    if ensure(st, lay.S_VALUES, n + 1, lay.S_VALUE_CAPACITY, 8):
        store(load(st + lay.S_VALUES) + 8 * n, o)
        store(st + lay.S_VALUE_COUNT, n + 1)
    else:
        store(st + lay.S_SHORT, 1)
    store(o + lay.T_EPOCH, epoch)
    store(o + lay.T_INDEX, m + NUMBER * (n + 1))
    return n


def note_source(st, o, epoch):
    if load(o + lay.TYPE) == load(st + lay.S_VARIABLE):
        store(o + lay.V_SOURCE, epoch)
        store(o + lay.V_FIRST, 0)
    else:
        mark(o, epoch, SOURCE)


def leaf(value, epoch):
    """A watched value; integers have no gradient."""
    if load(value + lay.T_DTYPE) < FLOAT32:
        return
    m = flags_of(value, epoch)
    mark(value, epoch, TRACKED | (FROM_SOURCE if m & SOURCE else 0))


def read_event(tape, at, epoch):
    """A Variable was read: its Tensor is a leaf if this tape watches the Variable."""
    variable, value = load(at), load(at + 8)
    accessed = load(tape + lay.K_FLAGS) & lay.K_ACCESSED and load(variable + lay.V_FLAGS) & lay.V_TRAINABLE
    if not accessed and load(variable + lay.V_EXPLICIT) != epoch:
        return
    if load(variable + lay.V_SOURCE) == epoch:
        first = load(variable + lay.V_FIRST)
        if first == 0:
            store(variable + lay.V_FIRST, value)
        elif first != value:
            store(variable + lay.V_FIRST, SEVERAL)
        mark(value, epoch, SOURCE)
    leaf(value, epoch)


def watch_event(st, o, epoch):
    if load(o + lay.TYPE) == load(st + lay.S_VARIABLE):
        store(o + lay.V_EXPLICIT, epoch)
    else:
        leaf(o, epoch)


def forward(st, tape, epoch):
    """Mark what depends on a watched value and on a source; list the rows that depend on a source."""
    log = load(tape + lay.K_LOG)
    watch, watches, watched = 0, load(tape + lay.K_WATCHES), load(tape + lay.K_WATCH_COUNT)
    for i in range(load(tape + lay.K_INTERVAL_COUNT)):
        interval = load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * i
        read, reads_end = load(interval + 16), last_read(log, interval)
        forms, first, refs = load(log + lay.L_FORMS), load(log + lay.L_FIRST), load(log + lay.L_REFS)
        reads = load(log + lay.L_READS)
        row, end = load(interval), end_of(tape, i, log)
        while row <= end:
            while watch < watched and load(watches + 16 * watch + 8) <= row:
                watch_event(st, load(watches + 16 * watch), epoch)
                watch += 1
            while read < reads_end and load(reads + 24 * read + 16) <= row:
                read_event(tape, reads + 24 * read, epoch)
                read += 1
            if row < end and load(forms + 8 * row) != 0:
                visit(st, row, load(forms + 8 * row), refs + 8 * load(first + 8 * row), epoch)
            row += 1
    while watch < watched:
        watch_event(st, load(watches + 16 * watch), epoch)
        watch += 1


def visit(st, row, form, at, epoch):
    n_in, n_out = load(form + lay.F_INPUTS), load(form + lay.F_OUTPUTS)
    flags = 0
    if load(form + lay.F_FLAGS) & (lay.DIFFERENTIABLE | lay.CUT) == 0:
        return                           # a row that only a recorded function keeps
    for k in range(n_in):
        flags |= flags_of(load(at + 8 * k), epoch)
    if flags & TRACKED == 0:
        return
    for k in range(n_in, n_in + n_out):
        o = load(at + 8 * k)
        m = flags_of(o, epoch)
        mark(o, epoch, TRACKED | (flags & FROM_SOURCE) | (FROM_SOURCE if m & SOURCE else 0))
    if flags & FROM_SOURCE:
        n = load(st + lay.S_ROW_COUNT)
        if ensure(st, lay.S_ROWS, n + 1, lay.S_ROW_CAPACITY, 8):
            store(load(st + lay.S_ROWS) + 8 * n, row)
            store(st + lay.S_ROW_COUNT, n + 1)
        else:
            store(st + lay.S_SHORT, 1)


def backward(st, tape, epoch):
    """Keep the listed rows that a target needs. Needed values are marked; returns whether a cut is among the rows."""
    log = load(tape + lay.K_LOG)
    if log == 0:
        return False
    forms, first, refs = load(log + lay.L_FORMS), load(log + lay.L_FIRST), load(log + lay.L_REFS)
    rows, count = load(st + lay.S_ROWS), load(st + lay.S_ROW_COUNT)
    kept, cut = count, False
    i = count - 1
    while i >= 0:
        row = load(rows + 8 * i)
        form, at = load(forms + 8 * row), refs + 8 * load(first + 8 * row)
        n_in, n_out = load(form + lay.F_INPUTS), load(form + lay.F_OUTPUTS)
        needed = False
        for k in range(n_in, n_in + n_out):
            needed = needed or flags_of(load(at + 8 * k), epoch) & NEEDED != 0
        if needed:
            for k in range(n_in):
                o = load(at + 8 * k)
                if flags_of(o, epoch) & FROM_SOURCE:
                    mark(o, epoch, NEEDED)
            cut = cut or load(form + lay.F_FLAGS) & lay.CUT != 0
            kept -= 1
            store(rows + 8 * kept, row)
        i -= 1
    for i in range(count - kept):
        store(rows + 8 * i, load(rows + 8 * (kept + i)))
    store(st + lay.S_ROW_COUNT, count - kept)
    return cut


def numbering(st, tape, epoch):
    """Signature words of the rows: form, then operand numbers. Outputs take the next numbers, so they are implied."""
    log = load(tape + lay.K_LOG)
    if log == 0:
        return
    forms, first, refs = load(log + lay.L_FORMS), load(log + lay.L_FIRST), load(log + lay.L_REFS)
    for i in range(load(st + lay.S_ROW_COUNT)):
        row = load(load(st + lay.S_ROWS) + 8 * i)
        form, at = load(forms + 8 * row), refs + 8 * load(first + 8 * row)
        n_in, n_out = load(form + lay.F_INPUTS), load(form + lay.F_OUTPUTS)
        word(st, load(form + lay.F_ID))
        for k in range(n_in):
            word(st, number(st, load(at + 8 * k), epoch))
        for k in range(n_in, n_in + n_out):
            number(st, load(at + 8 * k), epoch)


def source_words(st, tape, o, epoch):
    """How many leaves a source has here (a Variable assigned in between has several), and their numbers."""
    if load(o + lay.TYPE) != load(st + lay.S_VARIABLE):
        connected = flags_of(o, epoch) & NEEDED
        word(st, 1 if connected else 0)
        if connected:
            word(st, number(st, o, epoch))
        return
    first = load(o + lay.V_FIRST)
    if first != SEVERAL:
        connected = first != 0 and flags_of(first, epoch) & NEEDED != 0
        word(st, 1 if connected else 0)
        if connected:
            word(st, number(st, first, epoch))
        return
    log = load(tape + lay.K_LOG)
    found = 0
    previous = 0
    at_count = load(st + lay.S_WORD_COUNT)
    word(st, -2)
    for r in range(load(log + lay.L_READ_COUNT)):
        at = load(log + lay.L_READS) + 24 * r
        value = load(at + 8)
        if load(at) == o and value != previous and flags_of(value, epoch) & NEEDED:
            word(st, number(st, value, epoch))
            found += 1
            previous = value
    store(load(st + lay.S_WORDS) + 8 * at_count, found)
    word(st, -3 - found)


def walk(st, tape, targets, n_targets, sources, n_sources, seeds):
    """Words: rows; -1; per target its number or -1, then with seeds 1 + the seed's number or 0; -1; per source its
    leaves; the avals of the values that no row has.

    Targets, sources and seeds are arrays of objects; seeds may be 0 for none. Returns what keeps the machine from going
    on by itself (HAS_CUT, ALONE, SHORT) or 0.
    """
    epoch = load(st + lay.S_EPOCH) + 1
    store(st + lay.S_EPOCH, epoch)
    store(st + lay.S_WORD_COUNT, 0)
    store(st + lay.S_VALUE_COUNT, 0)
    store(st + lay.S_ROW_COUNT, 0)
    store(st + lay.S_SHORT, 0)
    store(st + lay.S_HASH, -3750763034362895579)
    for i in range(n_sources):
        note_source(st, load(sources + 8 * i), epoch)
    if load(tape + lay.K_LOG) != 0:
        forward(st, tape, epoch)
    status = 0
    for i in range(n_targets):
        o = load(targets + 8 * i)
        m = flags_of(o, epoch)
        if m & FROM_SOURCE:
            mark(o, epoch, NEEDED)
        elif m & SOURCE and load(o + lay.T_DTYPE) >= FLOAT32:
            status = lay.ALONE
    if backward(st, tape, epoch) and status == 0:
        status = lay.HAS_CUT
    numbering(st, tape, epoch)
    n_rows_have = load(st + lay.S_VALUE_COUNT)
    word(st, -1)
    for i in range(n_targets):
        o = load(targets + 8 * i)
        connected = flags_of(o, epoch) & NEEDED
        word(st, number(st, o, epoch) if connected else -1)
        if seeds != 0:
            seed = load(seeds + 8 * i)
            given = connected and seed != load(st + lay.S_NONE)
            word(st, 1 + number(st, seed, epoch) if given else 0)
    word(st, -1)
    for i in range(n_sources):
        source_words(st, tape, load(sources + 8 * i), epoch)
    for i in range(n_rows_have, load(st + lay.S_VALUE_COUNT)):
        word(st, load(load(load(st + lay.S_VALUES) + 8 * i) + lay.T_AVAL))
    return lay.SHORT if load(st + lay.S_SHORT) != 0 else status
