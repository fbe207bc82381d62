"""The machine half of GradientTape: its life, what it watches, its thread's log."""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.calls import spread_tuples
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
    long_new,
    long_value,
    no_memory,
    object_call,
    release,
    stack,
    state,
    store,
    thread_state,
    tuple_size,
    vectorcall,
)
from jitgrad.execute.cpu.native.rows import covered, end_of, forget_met, is_open, none, release_rows
from jitgrad.execute.cpu.native.tensors import append_row, current_log, ensure, marks_for

frame_call = stack(2)


def next_epoch():
    st = state()
    tick = load(st + lay.S_TICK) + 1
    store(st + lay.S_TICK, tick)
    return tick


def start_thread(log):
    """This thread records into ``log`` from now on."""
    st = state()
    n = load(st + lay.S_RECORDERS)
    at = load(st + lay.S_RECORDER_TABLE) + 16 * n
    store(at, thread_state())
    store(at + 8, log)
    store(st + lay.S_RECORDERS, n + 1)


def stop_thread(log):
    st = state()
    table, n = load(st + lay.S_RECORDER_TABLE), load(st + lay.S_RECORDERS)
    for i in range(n):
        if load(table + 16 * i + 8) == log:
            store(table + 16 * i, load(table + 16 * (n - 1)))
            store(table + 16 * i + 8, load(table + 16 * (n - 1) + 8))
            store(st + lay.S_RECORDERS, n - 1)
            return


def open_interval(tape, log):
    n = load(tape + lay.K_INTERVAL_COUNT)
    if not ensure(tape, lay.K_INTERVALS, n + 1, lay.K_INTERVAL_CAPACITY, lay.K_INTERVAL):
        return False
    at = load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * n
    store(at, load(log + lay.L_COUNT))
    store(at + 8, -1)
    store(at + 16, load(log + lay.L_READ_COUNT))
    store(at + 24, -1)
    store(tape + lay.K_INTERVAL_COUNT, n + 1)
    store(log + lay.L_EPOCH, next_epoch())
    if load(log + lay.L_ACTIVE) == 0:
        start_thread(log)
    store(log + lay.L_ACTIVE, load(log + lay.L_ACTIVE) + 1)
    if load(tape + lay.K_FLAGS) & lay.K_WHOLE:
        store(log + lay.L_WHOLE, load(log + lay.L_WHOLE) + 1)
    return True


def close_interval(tape, log):
    n = load(tape + lay.K_INTERVAL_COUNT)
    if n == 0 or not is_open(tape):
        return
    at = load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * (n - 1)
    store(at + 8, load(log + lay.L_COUNT))
    store(at + 24, load(log + lay.L_READ_COUNT))
    active = load(log + lay.L_ACTIVE) - 1
    store(log + lay.L_ACTIVE, active)
    if load(tape + lay.K_FLAGS) & lay.K_WHOLE:
        store(log + lay.L_WHOLE, load(log + lay.L_WHOLE) - 1)
    if active == 0:
        stop_thread(log)


def tape_new(kind, args, names):
    """tp_new: GradientTape(persistent=False, watch_accessed_variables=True)."""
    st = state()
    flags = lay.K_ACCESSED
    if names != 0 or tuple_size(args) != 0:
        answer = object_call(load(st + lay.S_TAPE_FLAGS), args, names)
        if answer == 0:
            return answer
        flags = long_value(answer)
        decref(answer)
    return tape_make(kind, flags)


def tape_make(kind, flags):
    o = gc_new(kind)
    if o != 0:
        for word in range(lay.K_LOG, lay.K_WEAK + 8, 8):
            store(o + word, 0)
        store(o + lay.K_FLAGS, flags)
        gc_track(o)
    return o


def log_of_thread(st):
    """The calling thread's log, made at its first use; 0 with an exception."""
    me = thread_state()
    table = load(st + lay.S_THREADS)
    for i in range(load(st + lay.S_THREAD_COUNT)):
        if load(table + 16 * i) == me:
            return load(table + 16 * i + 8)
    number = long_new(me)
    call = frame_call()
    store(call, number)
    made = vectorcall(load(st + lay.S_NEW_LOG), call, 1, 0) if number != 0 else 0
    decref(number)
    if made == 0:
        return made
    log = long_value(made)
    decref(made)
    return log


def note_frames(unused, args, count):
    """note_frames(list or None): where the rows of this thread are made, as code and position, from here on."""
    log = log_of_thread(state())
    if log == 0:
        return log
    before, frames = load(log + lay.L_FRAMES), load(args)
    store(log + lay.L_FRAMES, frames if frames != load(state() + lay.S_NONE) else 0)
    if load(log + lay.L_FRAMES) != 0:
        incref(frames)
    decref(before)
    return none()


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
        return vectorcall(load(st + lay.S_REENTERED), call, 1, 0)
    log = load(tape + lay.K_LOG)
    if log == 0:
        log = log_of_thread(st)
        if log == 0:
            return log
        join(tape, log)
    if load(tape + lay.K_FLAGS) & lay.K_USED:          # after its gradient a tape starts anew
        store(tape + lay.K_FLAGS, load(tape + lay.K_FLAGS) & ~lay.K_USED)
        forget_met(tape)
    if not open_interval(tape, log):
        return no_memory()
    incref(tape)
    return tape


def tape_exit(tape, args, count):
    """__exit__(type, value, traceback)"""
    if load(tape + lay.K_LOG) != 0:
        close_interval(tape, load(tape + lay.K_LOG))
    return none()


def join(tape, log):
    """The tape becomes one of the log's living tapes."""
    head = load(log + lay.L_TAPES)
    store(tape + lay.K_LOG, log)
    store(tape + lay.K_NEXT, head)
    store(tape + lay.K_PREVIOUS, 0)
    if head != 0:
        store(head + lay.K_PREVIOUS, tape)
    store(log + lay.L_TAPES, tape)


def tape_start(unused, args, count):
    """start(tape): record from here, in the calling thread's log if it has none yet. One that records goes on."""
    tape = load(args)
    if is_open(tape):
        return none()
    if load(tape + lay.K_LOG) == 0:
        log = log_of_thread(state())
        if log == 0:
            return log
        join(tape, log)
    return none() if open_interval(tape, load(tape + lay.K_LOG)) else no_memory()


def tape_stop(unused, args, count):
    """stop(tape): rows from here on are not its own."""
    tape = load(args)
    if load(tape + lay.K_LOG) != 0:
        close_interval(tape, load(tape + lay.K_LOG))
    return none()


def tape_release(unused, args, count):
    """release(tape): forget everything, as a new tape. It may be recording and goes on from here."""
    tape = load(args)
    forget_met(tape)
    log = load(tape + lay.K_LOG)
    recording = log != 0 and is_open(tape)
    if recording:
        close_interval(tape, log)
    release_rows(tape)
    if recording and not open_interval(tape, log):
        return no_memory()
    return none()


def tape_watch(unused, args, count):
    """watch(tape, Tensor or Variable): a leaf of this tape from here on."""
    tape, o = load(args), load(args + 8)
    log = load(tape + lay.K_LOG)
    n = load(tape + lay.K_WATCH_COUNT)
    if not ensure(tape, lay.K_WATCHES, n + 1, lay.K_WATCH_CAPACITY, 16):
        return no_memory()
    incref(o)
    at = load(tape + lay.K_WATCHES) + 16 * n
    store(at, o)
    store(at + 8, load(log + lay.L_COUNT) if log != 0 else 0)
    store(tape + lay.K_WATCH_COUNT, n + 1)
    if load(o + lay.TYPE) == load(state() + lay.S_TENSOR):
        store(o + lay.T_TRACKED, load(o + lay.T_TRACKED) | lay.ON_TAPE)
    elif log != 0:
        store(log + lay.L_EPOCH, next_epoch())
    return none()


def append_cut(unused, args, count):
    """append_cut(form address, operands, outputs, rule): a row whose derivative is a Python callable."""
    form, operands, outputs, rule = long_value(load(args)), load(args + 8), load(args + 16), load(args + 24)
    st = state()
    log = current_log(st) if load(st + lay.S_RECORDERS) != 0 else 0
    if log != 0:
        n_in, n_out = tuple_size(operands), tuple_size(outputs)
        block = spread_tuples(operands, n_in, outputs, n_out)
        if block == 0:
            return no_memory()
        marks = marks_for(log, form, block, n_in)
        fine = marks == 0 or append_row(log, form, block, n_in, block + 8 * n_in, n_out, rule, marks)
        release(block)
        if not fine:
            return no_memory()
    return none()


def tape_traverse(tape, visit, argument):
    """tp_traverse: a custom gradient's rule may hold the tape. Rules of rows that other tapes cover too are theirs."""
    status = call_visit(visit, load(tape + lay.TYPE), argument)
    log = load(tape + lay.K_LOG)
    if log == 0:
        return status
    forms, first, refs = load(log + lay.L_FORMS), load(log + lay.L_FIRST), load(log + lay.L_REFS)
    for i in range(load(tape + lay.K_INTERVAL_COUNT)):
        for row in range(load(load(tape + lay.K_INTERVALS) + lay.K_INTERVAL * i), end_of(tape, i, log)):
            form = load(forms + 8 * row)
            if status == 0 and form != 0 and load(form + lay.F_FLAGS) & lay.CUT and not covered(log, row, tape):
                status = call_visit(visit, load(refs + 8 * (load(first + 8 * (row + 1)) - 1)), argument)
    return status


def tape_clear(tape):
    """tp_clear: nothing reaches the tape any more but its own rows."""
    release_rows(tape)
    return 0


def tape_dealloc(tape):
    gc_untrack(tape)
    log = load(tape + lay.K_LOG)
    if load(tape + lay.K_WEAK) != 0:
        clear_weak(tape)
    if log != 0:
        close_interval(tape, log)
        release_rows(tape)
        previous, following = load(tape + lay.K_PREVIOUS), load(tape + lay.K_NEXT)
        if previous != 0:
            store(previous + lay.K_NEXT, following)
        else:
            store(log + lay.L_TAPES, following)
        if following != 0:
            store(following + lay.K_PREVIOUS, previous)
    forget_met(tape)
    release(load(tape + lay.K_INTERVALS))
    release(load(tape + lay.K_WATCHES))
    release(load(tape + lay.K_MET))
    kind = load(tape + lay.TYPE)
    gc_free(tape)
    decref(kind)
    return 0
