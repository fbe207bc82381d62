"""The call of a Function: the trace that matches is run, its assignments are made, its answer is built.

Nothing is changed before every guard has held.
"""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.answers import answer_of
from jitgrad.execute.cpu.native.calls import keep_read, scalar_new
from jitgrad.execute.cpu.native.matching import called_alike, match
from jitgrad.execute.cpu.native.places import over_inputs
from jitgrad.execute.cpu.native.plain import SLOWLY, STOPPED, UNLIKE, answered, at_once, stopped
from jitgrad.execute.cpu.native.raw import (
    copy,
    decref,
    error_occurred,
    incref,
    load,
    long_new,
    long_value,
    no_memory,
    release,
    resize,
    stack,
    state,
    store,
    tuple_get,
    vectorcall,
)
from jitgrad.execute.cpu.native.sweep import compact, drop, make_results, ran, run_code
from jitgrad.execute.cpu.native.tensors import (
    FLOAT64,
    INT64,
    append_row,
    current_log,
    hold,
    in_recording,
    tensor_new,
    view_new,
)

FRAME = 256                    # words of working memory that the stack has room for
MOST = 64                      # traces that one call tries
frame_work = stack(FRAME)
frame_met = stack(MOST)


def function_vectorcall(f, args, flagged, names):
    st = state()
    n = flagged & 0x7FFFFFFFFFFFFFFF
    if load(st + lay.S_CHECK) | load(st + lay.S_EAGERLY) != 0 or in_recording(st):
        return slowly(st, f, args, flagged, names)
    answer, trace, i = UNLIKE, 0, 0
    while i < load(f + lay.N_COUNT):     # a match may run code that changes the traces
        trace = load(f + lay.N_TRACES + 8 * i)
        answer = tried(st, trace, args, n, names)
        if answer > 0:
            succeeded(f, trace, i)
            return answer
        if answer != UNLIKE:
            break
        i += 1
    if answer == 0:
        return answer
    if answer <= STOPPED:
        return follow(st, f, trace, STOPPED - answer, args, n, names)
    return slowly(st, f, args, flagged, names)


def tried(st, trace, args, n, names):
    """What an attempt answers, if the trace was recorded for such a call. It is held where a guard stopped it."""
    holder = load(trace + lay.E_OBJECT)
    if names == 0 and load(trace + lay.E_PLAIN) == n + 1 and load(st + lay.S_RECORDERS) == 0:
        answer = at_once(st, trace, args)
        if answer <= STOPPED:
            incref(holder)
        return answer
    if not called_alike(trace, n, names):
        return UNLIKE
    incref(holder)
    answer = attempt(st, trace, args)
    if answer > STOPPED:
        decref(holder)
    return answer


def slowly(st, f, args, flagged, names):
    """The function's Python half does the call."""
    slow = load(f + lay.N_SLOW)
    return vectorcall(slow if slow != 0 else load(st + lay.S_NONE), args, flagged, names)


def succeeded(f, trace, i):
    """Count, and try this trace first from now on."""
    store(f + lay.N_HITS, load(f + lay.N_HITS) + 1)
    if i != 0 and i < load(f + lay.N_COUNT) and load(f + lay.N_TRACES + 8 * i) == trace:
        while i > 0:
            store(f + lay.N_TRACES + 8 * i, load(f + lay.N_TRACES + 8 * (i - 1)))
            i -= 1
        store(f + lay.N_TRACES, trace)


def place_of(f, trace):
    for i in range(load(f + lay.N_COUNT)):
        if load(f + lay.N_TRACES + 8 * i) == trace:
            return i
    return 0


def follow(st, f, trace, number, args, n, names):
    """A guard of a trace, which the caller has taken hold of, failed: go on with those linked there, each once."""
    met, count = frame_met(), 0
    while True:
        store(met + 8 * count, trace)
        count += 1
        answer, other, i = UNLIKE, 0, 0
        while answer == UNLIKE and count < MOST and i < load(load(trace + lay.E_LINKS)):
            link = load(trace + lay.E_LINKS) + 8 + 16 * i
            if load(link) == number and not among(met, count, load(link + 8)):
                other = load(link + 8)
                answer = tried(st, other, args, n, names)
            i += 1
        if answer <= STOPPED:
            decref(load(trace + lay.E_OBJECT))
            trace, number = other, STOPPED - answer
        elif answer >= 0:
            decref(load(trace + lay.E_OBJECT))
            if answer != 0:
                succeeded(f, other, place_of(f, other))
            return answer
        else:
            r = lost(st, f, trace, number, args, n, names) if answer == UNLIKE else slowly(st, f, args, n, names)
            decref(load(trace + lay.E_OBJECT))
            return r


def among(met, count, trace):
    for i in range(count):
        if load(met + 8 * i) == trace:
            return True
    return False


def lost(st, f, trace, number, args, n, names):
    """failed(trace, number of the guard, *args, **kwargs): no trace is known that goes on from this guard."""
    total = n + (load(names + lay.SIZE) if names != 0 else 0)
    block, a, b = resize(0, 8 * (total + 2)), long_new(trace), long_new(number)
    r = 0
    if block == 0:
        r = no_memory()
    elif a != 0 and b != 0:
        store(block, a)
        store(block + 8, b)
        copy(block + 16, args, 8 * total)
        failed = load(f + lay.N_FAILED)
        r = vectorcall(failed if failed != 0 else load(st + lay.S_NONE), block, n + 2, names)
    release(block)
    decref(a)
    decref(b)
    return r


# ---- one trace ----

def attempt(st, trace, args):
    """A new reference if the trace matches and every guard holds. The caller holds the trace."""
    words = load(trace + lay.E_WORDS)
    work = frame_work() if words <= FRAME else resize(0, 8 * words)
    if work == 0:
        return no_memory()
    owned = work + load(trace + lay.E_OWNED)
    store(owned, 0)
    fits = match(st, trace, args, work)
    answer = UNLIKE if fits == 0 else 0
    if fits == 1:
        answer = replay(st, trace, work)
    drop(owned + 8, load(owned))
    if words > FRAME:
        release(work)
    return answer


def replay(st, trace, work):
    log = current_log(st) if load(st + lay.S_RECORDERS) != 0 else 0
    if log != 0 and load(log + lay.L_WHOLE) != 0:
        return SLOWLY                    # a recording: it wants rows
    objects, n_in = work + load(trace + lay.E_OBJECTS), load(load(trace + lay.E_PLAN) + lay.P_INPUT_COUNT)
    plan = load(trace + lay.E_PLAN)
    if log != 0 and tracked(trace, objects, n_in):
        plan = load(trace + lay.E_TAPE_PLAN)
        if plan == 0:
            return SLOWLY
    else:
        log = 0
    if load(trace + lay.E_ELSEWHERE) != 0:
        return replay_elsewhere(st, trace, plan, work)
    held = log != 0 or load(plan + lay.P_FLAGS) & lay.LONG != 0
    if held:
        for i in range(n_in):
            incref(load(objects + 8 * i))
    answer = replay_recorded(st, trace, plan, work, log) if log != 0 else replay_alone(st, trace, plan, work)
    if answer > 0:
        ran(st, plan)
    if held:
        drop(objects, n_in)
    return answer


def replay_alone(st, trace, plan, work):
    outs = work + load(trace + lay.E_OUTS)
    if not make_results(st, plan, work, outs):
        return 0
    if not make_views(trace, work, outs):
        drop(outs, load(plan + lay.P_OUTPUT_COUNT))
        return 0
    status = run_code(st, plan, work, over_inputs(st, trace, plan, work, outs))
    answer = finish(st, trace, work, outs, False) if status == 0 else stopped(plan, status)
    drop(outs, load(plan + lay.P_OUTPUT_COUNT))
    return answer


def replay_elsewhere(st, trace, plan, work):
    """A callable gets the inputs, and returns a tuple of the results or the number of the guard that failed."""
    objects, n_in = work + load(trace + lay.E_OBJECTS), load(plan + lay.P_INPUT_COUNT)
    outs, n_out = work + load(trace + lay.E_OUTS), load(plan + lay.P_OUTPUT_COUNT)
    for i in range(n_in):
        incref(load(objects + 8 * i))
    made = vectorcall(load(trace + lay.E_ELSEWHERE), objects, n_in, 0)
    drop(objects, n_in)
    answer = 0
    if made != 0:
        if load(made + lay.TYPE) == load(st + lay.S_LONG):
            answer = STOPPED - long_value(made)
        elif load(made + lay.TYPE) != load(st + lay.S_TUPLE) or load(made + lay.SIZE) != n_out:
            answer = SLOWLY
        else:
            for k in range(n_out):
                incref(tuple_get(made, k))
                store(outs + 8 * k, tuple_get(made, k))
            answer = finish(st, trace, work, outs, False)
            drop(outs, n_out)
        decref(made)
    return answer


def make_views(trace, work, outs):
    """The results that the plan does not make: they share the memory of inputs. False with an exception."""
    objects = work + load(trace + lay.E_OBJECTS)
    for i in range(load(trace + lay.E_VIEW_COUNT)):
        row = load(trace + lay.E_VIEWS) + 48 * i
        at = outs + load(row)
        o = view_new(load(row + 16), load(row + 24), load(row + 32), load(objects + load(row + 8)), load(row + 40))
        if o == 0:
            return False
        decref(load(at))
        store(at, o)
    return True


def finish(st, trace, work, outs, apart):
    """Every guard has held: assign, and build the answer. ``apart``: a tape has the results, and assigning ends it."""
    fresh, n = work + load(trace + lay.E_FRESH), load(trace + lay.E_ASSIGNED_COUNT)
    for i in range(n):
        row = load(trace + lay.E_ASSIGNED) + lay.E_ASSIGNED_BYTES * i
        o = load(outs + load(row + 8))
        if apart or load(row + 16) != 0:
            o = view_new(load(o + lay.T_AVAL), load(o + lay.T_SIZE), load(o + lay.T_DTYPE), o, 0)
            if o == 0:
                drop(fresh, i)
                return o
        else:
            incref(o)
        store(fresh + 8 * i, o)
    for i in range(n):
        variable = load(load(trace + lay.E_ASSIGNED) + lay.E_ASSIGNED_BYTES * i)
        store(fresh + 8 * i, hold(variable, load(fresh + 8 * i)))
    answered(st, trace)
    answer = answer_of(trace, work + load(trace + lay.E_REGISTERS), work + load(trace + lay.E_STACK), outs)
    drop(fresh, n)
    return answer


# ---- under a tape ----

def tracked(trace, objects, n_in):
    """Whether an input matters to some tape."""
    for i in range(load(trace + lay.E_VARIABLE_COUNT)):
        variable = load(load(trace + lay.E_VARIABLES) + 16 * i)
        if load(variable + lay.V_FLAGS) & (lay.V_TRAINABLE | lay.V_WATCHED):
            return True
    for i in range(n_in):
        op = load(load(trace + lay.E_INPUTS) + 16 * i)
        is_tensor = op == lay.M_TENSOR or op == lay.M_VARIABLE or op == lay.M_PLACED or op == lay.M_PLACED_VARIABLE
        if is_tensor and load(load(objects + 8 * i) + lay.T_TRACKED) & lay.ON_TAPE:
            return True
    return False


def replay_recorded(st, trace, plan, work, log):
    """A run of the tape's plan as one `call` row, whose operands are all inputs and outputs all results."""
    n_in, n_out = load(plan + lay.P_INPUT_COUNT), load(plan + lay.P_OUTPUT_COUNT)
    table = resize(0, 8 * (2 * n_in + 3 * n_out + load(plan + lay.P_CONSTANT_COUNT)))
    if table == 0:
        return no_memory()
    operands = table + 8 * (n_in + n_out + load(plan + lay.P_CONSTANT_COUNT))
    outs = operands + 8 * n_in
    answer = 0
    if make_operands(trace, work, operands, n_in):
        for i in range(n_in):
            store(table + 8 * i, load(load(operands + 8 * i) + lay.T_DATA))
        if make_results(st, plan, table, outs):
            status = run_code(st, plan, table, False)
            if status != 0:
                answer = stopped(plan, status)
            elif noted(trace, work, plan, log, operands, n_in, outs, outs + 8 * n_out):
                answer = finish(st, trace, work, outs, True)
            drop(outs, n_out)
        drop(operands, n_in)
    release(table)
    return answer


def make_operands(trace, work, operands, n_in):
    """The inputs as Tensors, new references; False with an exception, and nothing made."""
    objects = work + load(trace + lay.E_OBJECTS)
    for i in range(n_in):
        op, block = load(load(trace + lay.E_INPUTS) + 16 * i), load(load(trace + lay.E_INPUTS) + 16 * i + 8)
        o = load(objects + 8 * i)
        if op == lay.M_FLOAT or op == lay.M_SINGLE:
            o = scalar_new(o, lay.WEAK_FLOAT, FLOAT64)
        elif op == lay.M_INT:
            o = scalar_new(o, lay.WEAK_INT, INT64)
        elif op == lay.M_ARRAY or op == lay.M_CAPTURED:
            o = tensor_new(load(block + lay.I_AVAL), load(block + lay.I_BYTES), load(block + lay.I_SIZE),
                           load(block + lay.I_DTYPE))
            if o != 0:
                copy(load(o + lay.T_DATA), load(work + 8 * i), load(block + lay.I_BYTES))
        else:
            incref(o)
        if o == 0:
            drop(operands, i)
            if error_occurred() == 0:
                no_memory()
            return False
        store(operands + 8 * i, o)
    return True


def noted(trace, work, plan, log, operands, n_in, outs, tensors):
    """The log has the reads of Variables and the row; False with an exception."""
    fine = True
    for i in range(load(trace + lay.E_VARIABLE_COUNT)):
        row = load(trace + lay.E_VARIABLES) + 16 * i
        variable, value = load(row), load(operands + load(row + 8))
        if (fine and load(variable + lay.V_FLAGS) & (lay.V_TRAINABLE | lay.V_WATCHED)
                and load(log + lay.L_EPOCH) != load(variable + lay.V_EPOCH)):
            fine = keep_read(log, variable, value)
            if load(variable + lay.V_VALUE) == value:         # another thread may have assigned it meanwhile
                store(variable + lay.V_EPOCH, load(log + lay.L_EPOCH))
    made = compact(plan, outs, tensors)
    if fine and made > 0:
        fine = append_row(log, load(plan + lay.P_CALL), operands, n_in, tensors, made, 0, lay.ON_TAPE)
    if not fine and error_occurred() == 0:
        no_memory()
    return fine
