"""The plainest calls of recorded functions, at once: most calls of small functions are such.

A trace that changes nothing, whose recipe looks at words and data alone, in a call of positional arguments. Its plan is
too short to let other threads run.
"""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.answers import answer_of
from jitgrad.execute.cpu.native.matching import data_fits, distinct
from jitgrad.execute.cpu.native.raw import decref, incref, load, stack, store
from jitgrad.execute.cpu.native.sweep import drop, is_guard, make_results, ran, run_code
from jitgrad.execute.cpu.native.tensors import failed

frame_plain = stack(lay.PLAIN_WORDS)

# what an attempt answers beside a new reference, and 0 for an exception
UNLIKE = -1                    # the trace does not match
SLOWLY = -2                    # Python has to do the call
STOPPED = -16                  # less the number of the guard that failed, among the plan's


def at_once(st, trace, args):
    """`attempt` (see `replay`) for such a trace, whose recipe begins with the words.

    No code of others runs until the answer is built, so nothing needs to be held.
    """
    work, plan = frame_plain(), load(trace + lay.E_PLAN)
    outs = work + load(trace + lay.E_OUTS)
    if not plainly_fits(st, trace, args, work):
        return UNLIKE
    if not make_results(st, plan, work, outs):
        return 0
    status = run_code(st, plan, work, False)
    if status != 0:
        drop(outs, load(plan + lay.P_OUTPUT_COUNT))
        return stopped(plan, status)
    answered(st, trace)
    if (load(plan + lay.P_OUTPUT_COUNT) == 1 and load(trace + lay.E_ANSWER_COUNT) == 1
            and load(load(trace + lay.E_ANSWER)) == lay.W_TAKEN and load(plan + lay.P_COLD) == 0):
        return load(outs)
    holder = load(trace + lay.E_OBJECT)
    incref(holder)                       # a new tuple may make the garbage collector run
    answer = answer_of(trace, args, work + load(trace + lay.E_STACK), outs)
    drop(outs, load(plan + lay.P_OUTPUT_COUNT))
    if answer != 0:
        ran(st, plan)
    decref(holder)
    return answer


def plainly_fits(st, trace, args, work):
    """`match` for such a trace: the arguments are its registers."""
    at, tensor = load(trace + lay.E_RECIPE), load(st + lay.S_TENSOR)
    for _ in range(load(trace + lay.E_KEYS)):
        if load(load(at + 8)) != load(at + 16):
            return False
        at += 32
    objects, scalars = work + load(trace + lay.E_OBJECTS), work + load(trace + lay.E_SCALARS)
    for _ in range(load(trace + lay.E_DATA)):
        if load(at) == lay.M_TENSOR:
            o, data = load(args + load(at + 8)), load(at + 24)
            if load(o + lay.TYPE) != tensor or load(o + lay.T_AVAL) != load(at + 16) or load(o + lay.T_DATA) == 0:
                return False
            store(objects + data, o)
            store(work + data, load(o + lay.T_DATA))
        elif not data_fits(st, args, objects, scalars, work, at):
            return False
        at += 32
    return distinct(trace, objects, work)


def stopped(plan, status):
    """A guard failed; or a kernel, of which Python has more to say, as nothing was changed; or memory is out."""
    if is_guard(status):
        for i in range(load(plan + lay.P_GUARD_COUNT)):
            if load(load(plan + lay.P_GUARDS) + 8 * i) == status >> lay.ORDINAL:
                return STOPPED - i
    return SLOWLY if status > 0 else failed(-1, status)


def answered(st, trace):
    tick = load(st + lay.S_TICK) + 1
    store(st + lay.S_TICK, tick)
    store(trace + lay.E_USED, tick)
    store(trace + lay.E_HITS, load(trace + lay.E_HITS) + 1)
