"""New values of Variables in the memory of the old ones, where nobody can tell.

Training steps of large networks are bound by memory: of values written elsewhere the processor reads the lines before
it writes them, and twice as many have to find room in its caches.
"""

from __future__ import annotations

from jitgrad.execute.cpu import layout as lay
from jitgrad.execute.cpu.native.raw import decref, first_thread, incref, interpreter, load, next_thread, store

NOWHERE = -1
REFERENCES = 0xFFFFFFFF        # of the word where CPython counts them; from 3.14 on the others are flags
HELD = 2                       # references to a Tensor that a Variable has, and a long run


def over_inputs(st, trace, plan, work, outs):
    """Let assigned results take the place of what Variables have now, in the table and in ``outs``; whether one does.

    The old Tensor must be nobody's but the Variable's, and no other thread may get hold of it during the run: so the
    run is to keep the GIL, which it does only where no other thread of Python is there to want it.
    """
    places = load(plan + lay.P_PLACES)
    if places == 0 or load(plan + lay.P_FLAGS) & lay.LONG == 0 or not private(trace) or not alone(st):
        return False
    found = False
    for j in range(load(trace + lay.E_ASSIGNED_COUNT)):
        row = load(trace + lay.E_ASSIGNED) + lay.E_ASSIGNED_BYTES * j
        if load(row + 24) >= 0 and taken(plan, work + load(trace + lay.E_OBJECTS), work, outs, places, row):
            found = True
    return found


def taken(plan, objects, work, outs, places, row):
    """Whether the result of one assignment now takes the place of the Variable's old value."""
    n_in, out = load(plan + lay.P_INPUT_COUNT), load(row + 8)
    read, made = load(places + load(row + 24)), load(places + 8 * n_in + out)
    old, new = load(objects + load(row + 24)), load(outs + out)
    if read == NOWHERE or made == NOWHERE or read >> 32 != made >> 32 or read > made:
        return False
    if load(load(row) + lay.V_VALUE) != old or load(old) & REFERENCES != HELD or load(old + lay.T_AVAL) != load(
            new + lay.T_AVAL):
        return False
    if load(load(row) + lay.V_PIN) != 0:             # machine code of others reads it without the GIL
        return False
    if load(old + lay.T_OWNER) != 0 or load(old + lay.T_TRACKED) != 0 or load(old + lay.T_WEAK) != 0:
        return False
    decref(new)
    incref(old)
    store(outs + out, old)
    store(work + 8 * n_in + out, load(old + lay.T_DATA))
    return True


def private(trace):
    """Whether no assigned result goes elsewhere too: then nothing can fail between the first assignment and the last.
    """
    for j in range(load(trace + lay.E_ASSIGNED_COUNT)):
        if load(load(trace + lay.E_ASSIGNED) + lay.E_ASSIGNED_BYTES * j + 16) != 0:
            return False
    return True


def alone(st):
    """Whether Python has no thread but this one and those that are ours, which read no Variable."""
    left, thread = load(st + lay.S_OURS) + 1, first_thread(interpreter())
    while thread != 0 and left >= 0:
        left -= 1
        thread = next_thread(thread)
    return left >= 0
