"""From a walk to gradients: the plan of its signature is run, or Python is asked to make it."""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.raw import (
    bytes_new,
    compare,
    copy,
    decref,
    incref,
    list_get,
    list_size,
    load,
    long_new,
    no_memory,
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
from jitgrad.execute.cpu.native.rows import finished, is_open, meet_all, none, release_rows
from jitgrad.execute.cpu.native.sweep import matters, run_recorded
from jitgrad.execute.cpu.native.tensors import in_recording
from jitgrad.execute.cpu.native.walk import walk

MANY = 128                     # sources beyond this are listed in Python
frame_sources = stack(MANY)
frame_status = stack(1)


def item(sequence, i):
    return list_get(sequence, i) if load(sequence + lay.TYPE) == load(state() + lay.S_LIST) else tuple_get(sequence, i)


def length(sequence):
    return list_size(sequence) if load(sequence + lay.TYPE) == load(state() + lay.S_LIST) else tuple_size(sequence)


def find_plan(st):
    """The plan whose signature is the last walk's, or 0."""
    table, mask, hashed = load(st + lay.S_PLANS), load(st + lay.S_PLAN_MASK), load(st + lay.S_HASH)
    count = load(st + lay.S_WORD_COUNT)
    at = hashed & mask
    while True:
        plan = load(table + 8 * at)
        if plan == 0:
            return plan
        if (load(plan + lay.P_HASH) == hashed and load(plan + lay.P_WORD_COUNT) == count
                and compare(load(plan + lay.P_WORDS), load(st + lay.S_WORDS), 8 * count) == 0):
            return plan
        at = (at + 1) & mask


def report(st, tape, status):
    """What Python needs to go on: (status, words, rows, values, hash).

    All is taken out of the shared scratch first: making a tuple can lead to a collection, and that to other code that
    walks, or to the death of a tape, which cuts rows off.
    """
    n, hashed = load(st + lay.S_VALUE_COUNT), load(st + lay.S_HASH)
    n_rows, n_words = load(st + lay.S_ROW_COUNT), load(st + lay.S_WORD_COUNT)
    taken = resize(0, 8 * (n + n_rows + n_words) + 8)
    if taken == 0:
        return no_memory()
    cut = load(load(tape + lay.K_LOG) + lay.L_CUT) if n_rows > 0 else 0
    rows_at, words_at = taken + 8 * n, taken + 8 * (n + n_rows)
    for i in range(n_rows):
        store(rows_at + 8 * i, load(load(st + lay.S_ROWS) + 8 * i) + cut)
    copy(words_at, load(st + lay.S_WORDS), 8 * n_words)
    for i in range(n):
        o = load(load(st + lay.S_VALUES) + 8 * i)
        incref(o)
        store(taken + 8 * i, o)
    words = bytes_new(words_at, 8 * n_words)
    rows = bytes_new(rows_at, 8 * n_rows)
    values, out = tuple_new(n), tuple_new(5)
    if values == 0 or out == 0:
        for i in range(n):
            decref(load(taken + 8 * i))
        release(taken)
        decref(words)
        decref(rows)
        decref(values)
        decref(out)
        return 0
    for i in range(n):
        tuple_set(values, i, load(taken + 8 * i))
    release(taken)
    tuple_set(out, 0, long_new(status))
    tuple_set(out, 1, words)
    tuple_set(out, 2, rows)
    tuple_set(out, 3, values)
    tuple_set(out, 4, long_new(hashed))
    return finished(out)


def spread(sequence):
    """The items of a list or tuple in a block of their own (released by the caller), or 0."""
    n = length(sequence)
    block = resize(0, 8 * (n + 1))
    if block != 0:
        for i in range(n):
            store(block + 8 * i, item(sequence, i))
    return block


def walk_between(st, tape, targets, sources, seeds):
    """The walk between lists or tuples of objects; seeds may be None."""
    target_items, source_items = spread(targets), spread(sources)
    seeded = seeds != load(st + lay.S_NONE)
    seed_items = spread(seeds) if seeded else 0
    status = lay.SHORT
    if target_items != 0 and source_items != 0 and (seed_items != 0 or not seeded):
        status = walk(st, tape, target_items, length(targets), source_items, length(sources), seed_items)
    release(target_items)
    release(source_items)
    release(seed_items)
    return status


def connect(unused, args, count):
    """connect(tape, targets, sources, seeds or None): the walk's report and nothing run, for Python to work with."""
    st = state()
    obstacle = walk_between(st, load(args), load(args + 8), load(args + 16), load(args + 24))
    if obstacle == lay.SHORT:
        return no_memory()
    return report(st, load(args), obstacle if obstacle != 0 else lay.MISS)


def any_dry(plan, values):
    """An input of the plan has no elements."""
    for i in range(load(plan + lay.P_INPUT_COUNT)):
        if load(load(values + 8 * load(load(plan + lay.P_INPUTS) + 8 * i)) + lay.T_DATA) == 0:
            return True
    return False


def any_elsewhere(st):
    """A value of the last walk has its elements on another device."""
    for i in range(load(st + lay.S_VALUE_COUNT)):
        if load(load(load(st + lay.S_VALUES) + 8 * i) + lay.T_DATA) == 0:
            return True
    return False


def answer(st, obstacle, status):
    """After a walk: run its plan. With another status than lay.HIT nothing ran and Python has to act."""
    store(status, obstacle if obstacle != 0 else lay.MISS)
    if obstacle == lay.SHORT:
        store(status, lay.HIT)           # nothing that Python could add
        return no_memory()
    if obstacle != 0:
        return 0
    plan = find_plan(st)
    if plan == 0:
        return plan
    if (in_recording(st) and any_dry(plan, load(st + lay.S_VALUES))
            or load(st + lay.S_ELSEWHERE) != 0 and any_elsewhere(st)):
        store(status, lay.DRY)
        return 0
    marks = matters(plan, load(st + lay.S_VALUES))
    if marks != 0 and load(plan + lay.P_CALL) == 0:
        store(status, lay.NEEDS_CALL)
        return 0
    store(status, lay.HIT)
    return run_recorded(plan, load(st + lay.S_VALUES), marks)


def gradient(unused, args, count):
    """gradient(tape, targets, sources, seeds or None): results as a list, or a report tuple for Python to act on.

    Targets are Tensors, sources Tensors or Variables, in lists or tuples; seeds are None or have the targets' avals.
    """
    st = state()
    obstacle = walk_between(st, load(args), load(args + 8), load(args + 16), load(args + 24))
    status = frame_status()
    results = answer(st, obstacle, status)
    return report(st, load(args), load(status)) if load(status) != lay.HIT else results


def known_kinds(st, items, n):
    """Every item is a Tensor or a Variable."""
    for i in range(n):
        kind = load(load(items + 8 * i) + lay.TYPE)
        if kind != load(st + lay.S_TENSOR) and kind != load(st + lay.S_VARIABLE):
            return False
    return True


def tape_gradient(tape, args, n_positional, names):
    """GradientTape.gradient: the ordinary call at once, everything else in Python."""
    st = state()
    if (n_positional == 2 and names == 0 and load(tape + lay.K_FLAGS) & lay.K_USED == 0 and not is_open(tape)
            and load(st + lay.S_CHECK) == 0):
        sources = load(args + 8)
        kind = load(sources + lay.TYPE)
        several = kind == load(st + lay.S_LIST)
        n = list_size(sources) if several else 1
        block = frame_sources()
        if load(load(args) + lay.TYPE) == load(st + lay.S_TENSOR) and n <= MANY:
            if several:
                for i in range(n):
                    store(block + 8 * i, list_get(sources, i))
            else:
                store(block, sources)
            if known_kinds(st, block, n):
                status = frame_status()
                results = answer(st, walk(st, tape, args, 1, block, n, 0), status)
                if load(status) == lay.HIT:
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
    if block == 0:
        return no_memory()
    store(block, tape)
    for i in range(total):
        store(block + 8 * (i + 1), load(args + 8 * i))
    results = vectorcall(load(st + lay.S_GRADIENT), block, n_positional + 1, names)
    release(block)
    return results


def let_go(tape):
    """After a set of gradients: a tape that is not persistent frees its rows."""
    if load(tape + lay.K_FLAGS) & lay.K_PERSISTENT == 0:
        store(tape + lay.K_FLAGS, load(tape + lay.K_FLAGS) | lay.K_USED)
        meet_all(tape)
        release_rows(tape)


def tape_finish(unused, args, count):
    """finish(tape): what `let_go` says."""
    let_go(load(args))
    return none()
