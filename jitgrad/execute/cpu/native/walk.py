"""The walk: which rows lie between sources and targets, in canonical numbering, hashed.

Equal structure gives equal words, so the backward Plan made for one tape serves every tape like it.
Marks live in the Tensors themselves (walk epoch, flags, number), so no table of addresses is needed.
"""

from __future__ import annotations

from numba import njit

from jitgrad.execute.cpu.layout import (
    CUT,
    F_FLAGS,
    F_ID,
    F_INPUTS,
    F_OUTPUTS,
    HAS_CUT,
    HIT,
    K_ACCESSED,
    K_FLAGS,
    K_INTERVAL,
    K_INTERVAL_COUNT,
    K_INTERVALS,
    K_LOG,
    K_PERSISTENT,
    K_USED,
    K_WATCH_COUNT,
    K_WATCHES,
    L_FIRST,
    L_FORMS,
    L_READ_COUNT,
    L_READS,
    L_REFS,
    MISS,
    NEEDS_CALL,
    P_CALL,
    P_HASH,
    P_WORD_COUNT,
    P_WORDS,
    S_EPOCH,
    S_GRADIENT,
    S_HASH,
    S_LIST,
    S_NONE,
    S_PLAN_MASK,
    S_PLANS,
    S_ROW_CAPACITY,
    S_ROW_COUNT,
    S_ROWS,
    S_TENSOR,
    S_VALUE_CAPACITY,
    S_VALUE_COUNT,
    S_VALUES,
    S_VARIABLE,
    S_WORD_CAPACITY,
    S_WORD_COUNT,
    S_WORDS,
    T_DTYPE,
    T_EPOCH,
    T_INDEX,
    TYPE,
    V_EXPLICIT,
    V_FIRST,
    V_FLAGS,
    V_SOURCE,
    V_TRAINABLE,
)
from jitgrad.execute.cpu.native.objects import FLOAT32, ensure
from jitgrad.execute.cpu.native.raw import (
    bytes_new,
    compare,
    decref,
    incref,
    list_get,
    list_size,
    load,
    long_new,
    release,
    resize,
    stack,
    state,
    store,
    tuple_get,
    tuple_new,
    tuple_set,
    tuple_size,
    vectorcall,
)
from jitgrad.execute.cpu.native.sweep import matters, run_recorded
from jitgrad.execute.cpu.native.tapes import end_of, is_open, last_read, meet_all, none, release_rows

# marks: flags below, number + 1 above
TRACKED, FROM_SOURCE, SOURCE, NEEDED = 1, 2, 4, 8
MANY = 128                     # sources beyond this are listed in Python
frame_sources, frame_status = stack(MANY), stack(1)
NUMBER = 256
SEVERAL = 1


@njit
def flags_of(o, epoch):
    return load(o + T_INDEX) if load(o + T_EPOCH) == epoch else 0


@njit
def mark(o, epoch, flags):
    old = flags_of(o, epoch)
    store(o + T_EPOCH, epoch)
    store(o + T_INDEX, old | flags)


@njit
def word(st, value):
    n = load(st + S_WORD_COUNT)
    if ensure(st, S_WORDS, n + 1, S_WORD_CAPACITY, 8):
        store(load(st + S_WORDS) + 8 * n, value)
        store(st + S_WORD_COUNT, n + 1)
        store(st + S_HASH, (load(st + S_HASH) ^ value) * 1099511628211)


@njit
def number(st, o, epoch):
    """The canonical number of a value: the next one if it has none."""
    m = flags_of(o, epoch)
    if m >= NUMBER:
        return m // NUMBER - 1
    n = load(st + S_VALUE_COUNT)
    if ensure(st, S_VALUES, n + 1, S_VALUE_CAPACITY, 8):
        store(load(st + S_VALUES) + 8 * n, o)
        store(st + S_VALUE_COUNT, n + 1)
    store(o + T_EPOCH, epoch)
    store(o + T_INDEX, m + NUMBER * (n + 1))
    return n


@njit
def item(sequence, i):
    return list_get(sequence, i) if load(sequence + TYPE) == load(state() + S_LIST) else tuple_get(sequence, i)


@njit
def length(sequence):
    return list_size(sequence) if load(sequence + TYPE) == load(state() + S_LIST) else tuple_size(sequence)


@njit
def note_source(st, o, epoch):
    if load(o + TYPE) == load(st + S_VARIABLE):
        store(o + V_SOURCE, epoch)
        store(o + V_FIRST, 0)
    else:
        mark(o, epoch, SOURCE)


@njit
def leaf(value, epoch):
    """A watched value; integers have no gradient."""
    if load(value + T_DTYPE) < FLOAT32:
        return
    m = flags_of(value, epoch)
    mark(value, epoch, TRACKED | (FROM_SOURCE if m & SOURCE else 0))


@njit
def read_event(tape, at, epoch):
    """A Variable was read: its Tensor is a leaf if this tape watches the Variable."""
    variable, value = load(at), load(at + 8)
    accessed = load(tape + K_FLAGS) & K_ACCESSED and load(variable + V_FLAGS) & V_TRAINABLE
    if not accessed and load(variable + V_EXPLICIT) != epoch:
        return
    if load(variable + V_SOURCE) == epoch:
        first = load(variable + V_FIRST)
        if first == 0:
            store(variable + V_FIRST, value)
        elif first != value:
            store(variable + V_FIRST, SEVERAL)
        mark(value, epoch, SOURCE)
    leaf(value, epoch)


@njit
def watch_event(st, o, epoch):
    if load(o + TYPE) == load(st + S_VARIABLE):
        store(o + V_EXPLICIT, epoch)
    else:
        leaf(o, epoch)


@njit
def forward(st, tape, epoch):
    """Mark what depends on a watched value and on a source; list the rows that depend on a source."""
    log = load(tape + K_LOG)
    watch, watches, watched = 0, load(tape + K_WATCHES), load(tape + K_WATCH_COUNT)
    for i in range(load(tape + K_INTERVAL_COUNT)):
        interval = load(tape + K_INTERVALS) + K_INTERVAL * i
        read, reads_end = load(interval + 16), last_read(log, interval)
        forms, first, refs, reads = load(log + L_FORMS), load(log + L_FIRST), load(log + L_REFS), load(log + L_READS)
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


@njit
def visit(st, row, form, at, epoch):
    n_in, n_out = load(form + F_INPUTS), load(form + F_OUTPUTS)
    flags = 0
    for k in range(n_in):
        flags |= flags_of(load(at + 8 * k), epoch)
    if flags & TRACKED == 0:
        return
    for k in range(n_in, n_in + n_out):
        o = load(at + 8 * k)
        m = flags_of(o, epoch)
        mark(o, epoch, TRACKED | (flags & FROM_SOURCE) | (FROM_SOURCE if m & SOURCE else 0))
    if flags & FROM_SOURCE:
        n = load(st + S_ROW_COUNT)
        if ensure(st, S_ROWS, n + 1, S_ROW_CAPACITY, 8):
            store(load(st + S_ROWS) + 8 * n, row)
            store(st + S_ROW_COUNT, n + 1)


@njit
def backward(st, tape, epoch):
    """Keep the listed rows that a target needs. Needed values are marked; returns whether a cut is among the rows."""
    log = load(tape + K_LOG)
    if log == 0:
        return False
    forms, first, refs = load(log + L_FORMS), load(log + L_FIRST), load(log + L_REFS)
    rows, count = load(st + S_ROWS), load(st + S_ROW_COUNT)
    kept, cut = count, False
    i = count - 1
    while i >= 0:
        row = load(rows + 8 * i)
        form, at = load(forms + 8 * row), refs + 8 * load(first + 8 * row)
        n_in, n_out = load(form + F_INPUTS), load(form + F_OUTPUTS)
        needed = False
        for k in range(n_in, n_in + n_out):
            needed = needed or flags_of(load(at + 8 * k), epoch) & NEEDED != 0
        if needed:
            for k in range(n_in):
                o = load(at + 8 * k)
                if flags_of(o, epoch) & FROM_SOURCE:
                    mark(o, epoch, NEEDED)
            cut = cut or load(form + F_FLAGS) & CUT != 0
            kept -= 1
            store(rows + 8 * kept, row)
        i -= 1
    for i in range(count - kept):
        store(rows + 8 * i, load(rows + 8 * (kept + i)))
    store(st + S_ROW_COUNT, count - kept)
    return cut


@njit
def numbering(st, tape, epoch):
    """Signature words of the rows: form, then operand numbers. Outputs take the next numbers, so they are implied."""
    log = load(tape + K_LOG)
    if log == 0:
        return
    forms, first, refs = load(log + L_FORMS), load(log + L_FIRST), load(log + L_REFS)
    for i in range(load(st + S_ROW_COUNT)):
        row = load(load(st + S_ROWS) + 8 * i)
        form, at = load(forms + 8 * row), refs + 8 * load(first + 8 * row)
        n_in, n_out = load(form + F_INPUTS), load(form + F_OUTPUTS)
        word(st, load(form + F_ID))
        for k in range(n_in):
            word(st, number(st, load(at + 8 * k), epoch))
        for k in range(n_in, n_in + n_out):
            number(st, load(at + 8 * k), epoch)


@njit
def source_words(st, tape, o, epoch):
    """How many leaves a source has here (a Variable assigned in between has several), and their numbers."""
    if load(o + TYPE) != load(st + S_VARIABLE):
        connected = flags_of(o, epoch) & NEEDED
        word(st, 1 if connected else 0)
        if connected:
            word(st, number(st, o, epoch))
        return
    first = load(o + V_FIRST)
    if first != SEVERAL:
        connected = first != 0 and flags_of(first, epoch) & NEEDED != 0
        word(st, 1 if connected else 0)
        if connected:
            word(st, number(st, first, epoch))
        return
    log = load(tape + K_LOG)
    found = 0
    previous = 0
    at_count = load(st + S_WORD_COUNT)
    word(st, -2)
    for r in range(load(log + L_READ_COUNT)):
        at = load(log + L_READS) + 24 * r
        value = load(at + 8)
        if load(at) == o and value != previous and flags_of(value, epoch) & NEEDED:
            word(st, number(st, value, epoch))
            found += 1
            previous = value
    store(load(st + S_WORDS) + 8 * at_count, found)
    word(st, -3 - found)


@njit
def walk(st, tape, targets, n_targets, sources, n_sources, seeds):
    """Words: rows; -1; per target its number or -1, then with seeds 1 + the seed's number or 0; -1; per source its leaves.

    Targets, sources and seeds are arrays of objects; seeds may be 0 for none.
    """
    epoch = load(st + S_EPOCH) + 1
    store(st + S_EPOCH, epoch)
    store(st + S_WORD_COUNT, 0)
    store(st + S_VALUE_COUNT, 0)
    store(st + S_ROW_COUNT, 0)
    store(st + S_HASH, -3750763034362895579)
    for i in range(n_sources):
        note_source(st, load(sources + 8 * i), epoch)
    if load(tape + K_LOG) != 0:
        forward(st, tape, epoch)
    for i in range(n_targets):
        o = load(targets + 8 * i)
        if flags_of(o, epoch) & FROM_SOURCE:
            mark(o, epoch, NEEDED)
    cut = backward(st, tape, epoch)
    numbering(st, tape, epoch)
    word(st, -1)
    for i in range(n_targets):
        o = load(targets + 8 * i)
        connected = flags_of(o, epoch) & NEEDED
        word(st, number(st, o, epoch) if connected else -1)
        if seeds != 0:
            seed = load(seeds + 8 * i)
            given = connected and seed != load(st + S_NONE)
            word(st, 1 + number(st, seed, epoch) if given else 0)
    word(st, -1)
    for i in range(n_sources):
        source_words(st, tape, load(sources + 8 * i), epoch)
    return cut


@njit
def find_plan(st):
    """The plan whose signature is the last walk's, or 0."""
    table, mask, hashed = load(st + S_PLANS), load(st + S_PLAN_MASK), load(st + S_HASH)
    count = load(st + S_WORD_COUNT)
    at = hashed & mask
    while True:
        plan = load(table + 8 * at)
        if plan == 0:
            return plan
        if (load(plan + P_HASH) == hashed and load(plan + P_WORD_COUNT) == count
                and compare(load(plan + P_WORDS), load(st + S_WORDS), 8 * count) == 0):
            return plan
        at = (at + 1) & mask


@njit
def report(st, status):
    """What Python needs to go on: (status, words, rows, values, hash), copied so that threads do not meet."""
    values = tuple_new(load(st + S_VALUE_COUNT))
    for i in range(load(st + S_VALUE_COUNT)):
        o = load(load(st + S_VALUES) + 8 * i)
        incref(o)
        tuple_set(values, i, o)
    out = tuple_new(5)
    tuple_set(out, 0, long_new(status))
    tuple_set(out, 1, bytes_new(load(st + S_WORDS), 8 * load(st + S_WORD_COUNT)))
    tuple_set(out, 2, bytes_new(load(st + S_ROWS), 8 * load(st + S_ROW_COUNT)))
    tuple_set(out, 3, values)
    tuple_set(out, 4, long_new(load(st + S_HASH)))
    return out


@njit
def spread(sequence):
    """The items of a list or tuple in a block of their own (released by the caller)."""
    n = length(sequence)
    block = resize(0, 8 * (n + 1))
    for i in range(n):
        store(block + 8 * i, item(sequence, i))
    return block


def connect(unused, args, count):
    """connect(tape, targets, sources, seeds or None): the walk's report and nothing run, for Python to work with."""
    st = state()
    targets, sources, seeds = load(args + 8), load(args + 16), load(args + 24)
    target_items, source_items = spread(targets), spread(sources)
    seed_items = spread(seeds) if seeds != load(st + S_NONE) else 0
    cut = walk(st, load(args), target_items, length(targets), source_items, length(sources), seed_items)
    release(target_items)
    release(source_items)
    release(seed_items)
    return report(st, HAS_CUT if cut else MISS)


@njit
def answer(st, cut, status):
    """After a walk: run its plan. With another status than HIT nothing ran and Python has to act."""
    store(status, MISS)
    if cut:
        store(status, HAS_CUT)
        return 0
    plan = find_plan(st)
    if plan == 0:
        return plan
    log = matters(plan, load(st + S_VALUES))
    if log != 0 and load(plan + P_CALL) == 0:
        store(status, NEEDS_CALL)
        return 0
    store(status, HIT)
    return run_recorded(plan, load(st + S_VALUES), log)


def gradient(unused, args, count):
    """gradient(tape, targets, sources, seeds or None): results as a list, or a report tuple for Python to act on.

    Targets are Tensors, sources Tensors or Variables, in lists or tuples; seeds are None or have the targets' avals.
    """
    st = state()
    tape, targets, sources, seeds = load(args), load(args + 8), load(args + 16), load(args + 24)
    target_items, source_items = spread(targets), spread(sources)
    seed_items = spread(seeds) if seeds != load(st + S_NONE) else 0
    cut = walk(st, tape, target_items, length(targets), source_items, length(sources), seed_items)
    release(target_items)
    release(source_items)
    release(seed_items)
    status = frame_status()
    results = answer(st, cut, status)
    return report(st, load(status)) if load(status) != HIT else results


@njit
def known_kinds(st, items, n):
    """Every item is a Tensor or a Variable."""
    for i in range(n):
        kind = load(load(items + 8 * i) + TYPE)
        if kind != load(st + S_TENSOR) and kind != load(st + S_VARIABLE):
            return False
    return True


def tape_gradient(tape, args, n_positional, names):
    """GradientTape.gradient: the ordinary call at once, everything else in Python."""
    st = state()
    if n_positional == 2 and names == 0 and load(tape + K_FLAGS) & K_USED == 0 and not is_open(tape):
        sources = load(args + 8)
        kind = load(sources + TYPE)
        several = kind == load(st + S_LIST)
        n = list_size(sources) if several else 1
        block = frame_sources()
        if load(load(args) + TYPE) == load(st + S_TENSOR) and n <= MANY:
            if several:
                for i in range(n):
                    store(block + 8 * i, list_get(sources, i))
            else:
                store(block, sources)
            if known_kinds(st, block, n):
                status = frame_status()
                results = answer(st, walk(st, tape, args, 1, block, n, 0), status)
                if load(status) == HIT:
                    if results != 0:
                        let_go(tape)
                        if not several:
                            only = list_get(results, 0)
                            incref(only)
                            decref(results)
                            return only
                    return results
    total = n_positional + (tuple_size(names) if names != 0 else 0)
    block = resize(0, 8 * (total + 1))
    store(block, tape)
    for i in range(total):
        store(block + 8 * (i + 1), load(args + 8 * i))
    results = vectorcall(load(st + S_GRADIENT), block, n_positional + 1, names)
    release(block)
    return results


@njit
def let_go(tape):
    """After a set of gradients: a tape that is not persistent frees its rows."""
    if load(tape + K_FLAGS) & K_PERSISTENT == 0:
        store(tape + K_FLAGS, load(tape + K_FLAGS) | K_USED)
        meet_all(tape)
        release_rows(tape)


def tape_finish(unused, args, count):
    """finish(tape): what `let_go` says."""
    let_go(load(args))
    return none()
