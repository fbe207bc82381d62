"""The machine half of GradientTape: which rows of the log it covers, and when they die."""

from __future__ import annotations

from numba import njit

from jitgrad.execute.cpu.layout import (
    F_ID,
    K_ACCESSED,
    K_FLAGS,
    K_INTERVAL,
    K_INTERVAL_CAPACITY,
    K_INTERVAL_COUNT,
    K_INTERVALS,
    K_LOG,
    K_MET,
    K_MET_CAPACITY,
    K_MET_COUNT,
    K_NEXT,
    K_PREVIOUS,
    K_WATCH_CAPACITY,
    K_WATCH_COUNT,
    K_WATCHES,
    K_WEAK,
    L_ACTIVE,
    L_COUNT,
    L_EPOCH,
    L_FIRST,
    L_FORMS,
    L_READ_COUNT,
    L_READS,
    L_REF_COUNT,
    L_REFS,
    L_TAPES,
    S_NEW_LOG,
    S_NONE,
    S_RECORDER_TABLE,
    S_RECORDERS,
    S_REENTERED,
    S_TAPE_FLAGS,
    S_TENSOR,
    S_THREAD_COUNT,
    S_THREADS,
    S_TICK,
    S_VARIABLE,
    T_TRACKED,
    TYPE,
    V_FLAGS,
    V_TRAINABLE,
)
from jitgrad.execute.cpu.native.objects import any_tracked, append_row, current_log, ensure
from jitgrad.execute.cpu.native.raw import (
    clear_weak,
    decref,
    incref,
    list_append,
    list_new,
    list_set,
    load,
    long_new,
    long_value,
    object_call,
    object_free,
    object_new,
    release,
    resize,
    stack,
    state,
    store,
    thread_state,
    tuple_get,
    tuple_new,
    tuple_set,
    tuple_size,
    vectorcall,
)


frame_call = stack(2)


@njit
def none():
    r = load(state() + S_NONE)
    incref(r)
    return r


@njit
def drop_row(log, row):
    """Release what a row owns; the row stays, empty."""
    refs, first = load(log + L_REFS), load(log + L_FIRST)
    for i in range(load(first + 8 * row), load(first + 8 * (row + 1))):
        o = load(refs + 8 * i)
        store(refs + 8 * i, 0)
        if o != 0:
            decref(o)
    store(load(log + L_FORMS) + 8 * row, 0)


@njit
def is_open(tape):
    """The tape records now."""
    n = load(tape + K_INTERVAL_COUNT)
    return n > 0 and load(load(tape + K_INTERVALS) + K_INTERVAL * (n - 1) + 8) < 0


@njit
def end_of(tape, interval, log):
    """One past the last row of an interval; an open one reaches to the present."""
    end = load(load(tape + K_INTERVALS) + K_INTERVAL * interval + 8)
    return load(log + L_COUNT) if end < 0 else end


@njit
def covers(tape, row, log):
    for i in range(load(tape + K_INTERVAL_COUNT)):
        if load(load(tape + K_INTERVALS) + K_INTERVAL * i) <= row < end_of(tape, i, log):
            return True
    return False


@njit
def covered(log, row, but):
    other = load(log + L_TAPES)
    while other != 0:
        if other != but and covers(other, row, log):
            return True
        other = load(other + K_NEXT)
    return False


@njit
def reach(log, but):
    """One past the last row that a living tape other than ``but`` covers or may still extend from."""
    last = 0
    other = load(log + L_TAPES)
    while other != 0:
        if other != but:
            for i in range(load(other + K_INTERVAL_COUNT)):
                last = max(last, end_of(other, i, log))
                last = max(last, load(load(other + K_INTERVALS) + K_INTERVAL * i))
        other = load(other + K_NEXT)
    return last


@njit
def clip_reads(log):
    """Open intervals start no later than the reads that are left."""
    count = load(log + L_READ_COUNT)
    tape = load(log + L_TAPES)
    while tape != 0:
        if is_open(tape):
            at = load(tape + K_INTERVALS) + K_INTERVAL * (load(tape + K_INTERVAL_COUNT) - 1) + 16
            store(at, min(load(at), count))
        tape = load(tape + K_NEXT)


@njit
def drop_reads(log, keep):
    """Forget noted reads from row ``keep`` on (the last first, so that none is lost half way)."""
    count = load(log + L_READ_COUNT)
    while count > 0 and load(load(log + L_READS) + 24 * (count - 1) + 16) >= keep:
        count -= 1
        at = load(log + L_READS) + 24 * count
        variable, value = load(at), load(at + 8)
        store(log + L_READ_COUNT, count)
        decref(variable)
        decref(value)


@njit
def release_rows(tape):
    """Free the rows that only this tape covers and forget its intervals and watches."""
    log = load(tape + K_LOG)
    if log != 0:
        alone = load(load(log + L_TAPES) + K_NEXT) == 0
        for i in range(load(tape + K_INTERVAL_COUNT)):
            row = end_of(tape, i, log) - 1
            start = load(load(tape + K_INTERVALS) + K_INTERVAL * i)
            while row >= start:
                if load(load(log + L_FORMS) + 8 * row) != 0 and (alone or not covered(log, row, tape)):
                    drop_row(log, row)
                row -= 1
        last = reach(log, tape)
        if last < load(log + L_COUNT):
            store(log + L_COUNT, last)
            store(log + L_REF_COUNT, load(load(log + L_FIRST) + 8 * last) if last > 0 else 0)
        if alone:
            drop_reads(log, 0)
        else:
            drop_reads(log, last + 1)
        clip_reads(log)
    store(tape + K_INTERVAL_COUNT, 0)
    count = load(tape + K_WATCH_COUNT)
    store(tape + K_WATCH_COUNT, 0)
    for i in range(count):
        decref(load(load(tape + K_WATCHES) + 16 * i))


@njit
def next_epoch():
    st = state()
    tick = load(st + S_TICK) + 1
    store(st + S_TICK, tick)
    return tick


@njit
def start_thread(log):
    """This thread records into ``log`` from now on."""
    st = state()
    n = load(st + S_RECORDERS)
    at = load(st + S_RECORDER_TABLE) + 16 * n
    store(at, thread_state())
    store(at + 8, log)
    store(st + S_RECORDERS, n + 1)


@njit
def stop_thread(log):
    st = state()
    table, n = load(st + S_RECORDER_TABLE), load(st + S_RECORDERS)
    for i in range(n):
        if load(table + 16 * i + 8) == log:
            store(table + 16 * i, load(table + 16 * (n - 1)))
            store(table + 16 * i + 8, load(table + 16 * (n - 1) + 8))
            store(st + S_RECORDERS, n - 1)
            return


@njit
def open_interval(tape, log):
    n = load(tape + K_INTERVAL_COUNT)
    if not ensure(tape, K_INTERVALS, n + 1, K_INTERVAL_CAPACITY, K_INTERVAL):
        return False
    at = load(tape + K_INTERVALS) + K_INTERVAL * n
    store(at, load(log + L_COUNT))
    store(at + 8, -1)
    store(at + 16, load(log + L_READ_COUNT))
    store(at + 24, -1)
    store(tape + K_INTERVAL_COUNT, n + 1)
    store(log + L_EPOCH, next_epoch())
    if load(log + L_ACTIVE) == 0:
        start_thread(log)
    store(log + L_ACTIVE, load(log + L_ACTIVE) + 1)
    return True


@njit
def close_interval(tape, log):
    n = load(tape + K_INTERVAL_COUNT)
    if n == 0 or not is_open(tape):
        return
    at = load(tape + K_INTERVALS) + K_INTERVAL * (n - 1)
    store(at + 8, load(log + L_COUNT))
    store(at + 24, load(log + L_READ_COUNT))
    active = load(log + L_ACTIVE) - 1
    store(log + L_ACTIVE, active)
    if active == 0:
        stop_thread(log)


def tape_new(kind, args, names):
    """tp_new: GradientTape(persistent=False, watch_accessed_variables=True)."""
    st = state()
    flags = K_ACCESSED
    if names != 0 or tuple_size(args) != 0:
        answer = object_call(load(st + S_TAPE_FLAGS), args, names)
        if answer == 0:
            return answer
        flags = long_value(answer)
        decref(answer)
    return tape_make(kind, flags)


@njit
def tape_make(kind, flags):
    o = object_new(kind)
    if o != 0:
        for word in range(K_LOG, K_WEAK + 8, 8):
            store(o + word, 0)
        store(o + K_FLAGS, flags)
    return o


@njit
def log_of_thread(st):
    """The calling thread's log, made at its first use; 0 with an exception."""
    me = thread_state()
    table = load(st + S_THREADS)
    for i in range(load(st + S_THREAD_COUNT)):
        if load(table + 16 * i) == me:
            return load(table + 16 * i + 8)
    number = long_new(me)
    call = frame_call()
    store(call, number)
    made = vectorcall(load(st + S_NEW_LOG), call, 1, 0)
    decref(number)
    if made == 0:
        return made
    log = long_value(made)
    decref(made)
    return log


def thread_log(unused, args, count):
    """thread_log(): address of the calling thread's log."""
    log = log_of_thread(state())
    return long_new(log) if log != 0 else log


def tape_enter(tape, unused):
    """__enter__"""
    st = state()
    if is_open(tape):
        call = frame_call()
        store(call, tape)
        return vectorcall(load(st + S_REENTERED), call, 1, 0)
    log = load(tape + K_LOG)
    if log == 0:
        log = log_of_thread(st)
        if log == 0:
            return log
        join(tape, log)
    open_interval(tape, log)
    incref(tape)
    return tape


def tape_exit(tape, args, count):
    """__exit__(type, value, traceback)"""
    if load(tape + K_LOG) != 0:
        close_interval(tape, load(tape + K_LOG))
    return none()


@njit
def join(tape, log):
    """The tape becomes one of the log's living tapes."""
    head = load(log + L_TAPES)
    store(tape + K_LOG, log)
    store(tape + K_NEXT, head)
    store(tape + K_PREVIOUS, 0)
    if head != 0:
        store(head + K_PREVIOUS, tape)
    store(log + L_TAPES, tape)


@njit
def meet(tape, variable):
    """Remember a Variable that this tape watched, once in a row."""
    n = load(tape + K_MET_COUNT)
    for i in range(n):
        if load(load(tape + K_MET) + 8 * i) == variable:
            return
    if ensure(tape, K_MET, n + 1, K_MET_CAPACITY, 8):
        incref(variable)
        store(load(tape + K_MET) + 8 * n, variable)
        store(tape + K_MET_COUNT, n + 1)


@njit
def meet_all(tape):
    """Before rows are let go: `watched_variables` still answers afterwards."""
    log = load(tape + K_LOG)
    accessed = load(tape + K_FLAGS) & K_ACCESSED
    if log != 0 and accessed:
        for i in range(load(tape + K_INTERVAL_COUNT)):
            interval = load(tape + K_INTERVALS) + K_INTERVAL * i
            for r in range(load(interval + 16), last_read(log, interval)):
                variable = load(load(log + L_READS) + 24 * r)
                if load(variable + V_FLAGS) & V_TRAINABLE:
                    meet(tape, variable)
    for w in range(load(tape + K_WATCH_COUNT)):
        o = load(load(tape + K_WATCHES) + 16 * w)
        if load(o + TYPE) == load(state() + S_VARIABLE):
            meet(tape, o)


@njit
def last_read(log, interval):
    """One past the last noted read of an interval that is still there."""
    last = load(interval + 24)
    count = load(log + L_READ_COUNT)
    return count if last < 0 or last > count else last


def tape_variables(unused, args, count):
    """variables(tape): the Variables it watches, as met."""
    tape = load(args)
    meet_all(tape)
    n = load(tape + K_MET_COUNT)
    out = list_new(n)
    for i in range(n):
        v = load(load(tape + K_MET) + 8 * i)
        incref(v)
        list_set(out, i, v)
    return out


@njit
def forget_met(tape):
    n = load(tape + K_MET_COUNT)
    store(tape + K_MET_COUNT, 0)
    for i in range(n):
        decref(load(load(tape + K_MET) + 8 * i))


def tape_start(unused, args, count):
    """start(tape): record from here, in the calling thread's log if it has none yet."""
    tape = load(args)
    if load(tape + K_LOG) == 0:
        log = log_of_thread(state())
        if log == 0:
            return log
        join(tape, log)
    open_interval(tape, load(tape + K_LOG))
    return none()


def tape_stop(unused, args, count):
    """stop(tape): rows from here on are not its own."""
    tape = load(args)
    if load(tape + K_LOG) != 0:
        close_interval(tape, load(tape + K_LOG))
    return none()


def tape_release(unused, args, count):
    """release(tape): forget everything, as a new tape. It may be recording and goes on from here."""
    tape = load(args)
    forget_met(tape)
    log = load(tape + K_LOG)
    recording = log != 0 and is_open(tape)
    if recording:
        close_interval(tape, log)
    release_rows(tape)
    if recording:
        open_interval(tape, log)
    return none()


def tape_watch(unused, args, count):
    """watch(tape, Tensor or Variable): a leaf of this tape from here on."""
    tape, o = load(args), load(args + 8)
    log = load(tape + K_LOG)
    n = load(tape + K_WATCH_COUNT)
    if ensure(tape, K_WATCHES, n + 1, K_WATCH_CAPACITY, 16):
        incref(o)
        at = load(tape + K_WATCHES) + 16 * n
        store(at, o)
        store(at + 8, load(log + L_COUNT) if log != 0 else 0)
        store(tape + K_WATCH_COUNT, n + 1)
        if load(o + TYPE) == load(state() + S_TENSOR):
            store(o + T_TRACKED, 1)
        elif log != 0:
            store(log + L_EPOCH, next_epoch())
    return none()


def tape_watches(unused, args, count):
    """watches(tape): Tensors and Variables that were watched by name."""
    tape = load(args)
    out = list_new(0)
    for w in range(load(tape + K_WATCH_COUNT)):
        list_append(out, load(load(tape + K_WATCHES) + 16 * w))
    return out


def tape_reads(unused, args, count):
    """reads(tape, Variable): the Tensors read from it while the tape recorded, each once per change."""
    tape, variable = load(args), load(args + 8)
    log = load(tape + K_LOG)
    out = list_new(0)
    previous = 0
    for i in range(load(tape + K_INTERVAL_COUNT)):
        interval = load(tape + K_INTERVALS) + K_INTERVAL * i
        for r in range(load(interval + 16), last_read(log, interval)):
            at = load(log + L_READS) + 24 * r
            value = load(at + 8)
            if load(at) == variable and value != previous:
                list_append(out, value)
                previous = value
    return out


def open_tapes(unused, args, count):
    """open_tapes(log address): the machine halves that record into it now."""
    out = list_new(0)
    tape = load(long_value(load(args)) + L_TAPES)
    while tape != 0:
        if is_open(tape):
            list_append(out, tape)
        tape = load(tape + K_NEXT)
    return out


def log_rows(unused, args, count):
    """log_rows(tape): (form number, operands, outputs[, rule]) of each of its rows, as a list of tuples."""
    tape = load(args)
    log = load(tape + K_LOG)
    out = list_new(0)
    for i in range(load(tape + K_INTERVAL_COUNT)):
        row = load(load(tape + K_INTERVALS) + K_INTERVAL * i)
        end = end_of(tape, i, log)
        while row < end:
            form = load(load(log + L_FORMS) + 8 * row)
            if form != 0:
                entry = row_tuple(log, row, form)
                list_append(out, entry)
                decref(entry)
            row += 1
    return out


def log_row(unused, args, count):
    """log_row(tape, row): the same for one row of the log."""
    log = load(load(args) + K_LOG)
    row = long_value(load(args + 8))
    return row_tuple(log, row, load(load(log + L_FORMS) + 8 * row))


@njit
def row_tuple(log, row, form):
    first = load(load(log + L_FIRST) + 8 * row)
    n = load(load(log + L_FIRST) + 8 * (row + 1)) - first
    out = tuple_new(n + 1)
    tuple_set(out, 0, long_new(load(form + F_ID)))
    for k in range(n):
        o = load(load(log + L_REFS) + 8 * (first + k))
        incref(o)
        tuple_set(out, k + 1, o)
    return out


def append_cut(unused, args, count):
    """append_cut(form address, operands, outputs, rule): a row whose derivative is a Python callable."""
    form, operands, outputs, rule = long_value(load(args)), load(args + 8), load(args + 16), load(args + 24)
    st = state()
    log = current_log(st) if load(st + S_RECORDERS) != 0 else 0
    if log != 0:
        n_in, n_out = tuple_size(operands), tuple_size(outputs)
        block = resize(0, 8 * (n_in + n_out + 1))
        for k in range(n_in):
            store(block + 8 * k, tuple_get(operands, k))
        for k in range(n_out):
            store(block + 8 * (n_in + k), tuple_get(outputs, k))
        if any_tracked(block, n_in):
            append_row(log, form, block, n_in, block + 8 * n_in, n_out, rule)
        release(block)
    return none()


def tape_dealloc(tape):
    log = load(tape + K_LOG)
    if load(tape + K_WEAK) != 0:
        clear_weak(tape)
    if log != 0:
        close_interval(tape, log)
        release_rows(tape)
        previous, following = load(tape + K_PREVIOUS), load(tape + K_NEXT)
        if previous != 0:
            store(previous + K_NEXT, following)
        else:
            store(log + L_TAPES, following)
        if following != 0:
            store(following + K_PREVIOUS, previous)
    forget_met(tape)
    release(load(tape + K_INTERVALS))
    release(load(tape + K_WATCHES))
    release(load(tape + K_MET))
    kind = load(tape + TYPE)
    object_free(tape)
    decref(kind)
    return 0
