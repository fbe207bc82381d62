"""The one walk of reverse mode: pull cotangents back through rows by pasting derivative fragments.

`paste` is a plain function over int64 arrays, which the backend compiles; a tape of a new length costs a pass of
machine code over its rows. It is pure arithmetic on numbers of values, and knows no derivative: those are in the
fragments (see `transform.fragment`).
"""

from __future__ import annotations

MASK_BITS = 6                  # forms with more operands, or several outputs, name their fragment per row
DONE, FULL, WANT_FRAGMENT, WANT_ROW = 0, 1, 2, 3

# words of `sizes`
N_ROWS, N_VALUES, N_TARGETS, N_SOURCES = 0, 1, 2, 3
# words of `made`
M_ROWS, M_OPERANDS, M_NEXT, M_CONSTANTS, M_WANTED, M_MASK = 0, 1, 2, 3, 4, 5


def emit(form, inputs, outputs, made, out_form, out_first, out_operands, out_value):  # type: ignore[no-untyped-def]
    """Append a row; the caller writes its operands after this. Returns where they go, or -1 if there is no room."""
    row, at = made[0], made[1]
    if row + 2 >= len(out_form) or at + inputs[form] >= len(out_operands):
        return -1
    out_form[row] = form
    out_first[row] = at
    out_first[row + 1] = at + inputs[form]
    out_value[row] = made[2]
    made[0] = row + 1
    made[1] = at + inputs[form]
    made[2] += outputs[form]
    return at


def paste(sizes, row_form, first, operands, row_out, targets, seeds, adds, sources, override, inputs, outputs,  # type: ignore[no-untyped-def]
          fragment_of, fragment_at, words, depends, cotangent, used, local, constant_value, made, out_form, out_first,
          out_operands, out_value, constants):
    """Rows that pull ``seeds`` (value numbers) at ``targets`` back to ``sources``.

    Values below sizes[N_VALUES] are the primal ones; new ones are numbered from made[M_NEXT] on. Results:
    cotangent[v] (or -1) for every primal value v, used[v] for primal values that the new rows read, the new rows,
    and the pool constants they read as pairs (constant, value).
    """
    n_values = sizes[1]
    for v in range(n_values):
        depends[v] = 0
        cotangent[v] = -1
        used[v] = 0
    for s in range(sizes[3]):
        depends[sources[s]] = 1
    for r in range(sizes[0]):
        any_ = 0
        for k in range(first[r], first[r + 1]):
            any_ |= depends[operands[k]]
        for o in range(outputs[row_form[r]]):
            depends[row_out[r] + o] |= any_
    for t in range(sizes[2]):
        v = targets[t]
        if cotangent[v] < 0:
            cotangent[v] = seeds[t]
        else:
            at = emit(adds[t], inputs, outputs, made, out_form, out_first, out_operands, out_value)
            if at < 0:
                return 1
            out_operands[at] = cotangent[v]
            out_operands[at + 1] = seeds[t]
            cotangent[v] = made[2] - 1
    for back in range(sizes[0]):
        r = sizes[0] - 1 - back
        form = row_form[r]
        n_out, n_in = outputs[form], inputs[form]
        reached = False
        for o in range(n_out):
            reached = reached or cotangent[row_out[r] + o] >= 0
        if not reached:
            continue
        mask = 0
        for k in range(n_in):
            if depends[operands[first[r] + k]]:
                mask |= 1 << min(k, 62)
        if mask == 0:
            continue
        if n_out > 1 or n_in > 6:
            fragment = override[r]
        else:
            fragment = fragment_of[form * 64 + mask]
        if fragment == 0:
            made[4] = r if n_out > 1 or n_in > 6 else form
            made[5] = mask
            return 3 if n_out > 1 or n_in > 6 else 2
        at = fragment_at[fragment - 1]
        n_const, n_rows, n_results = words[at], words[at + 1], words[at + 2]
        at += 3
        n_local = 0
        for o in range(n_out):
            local[n_local] = cotangent[row_out[r] + o]
            n_local += 1
        for k in range(n_in):
            local[n_local] = operands[first[r] + k]
            n_local += 1
        for o in range(n_out):
            local[n_local] = row_out[r] + o
            n_local += 1
        for c in range(n_const):
            pool = words[at + c]
            if constant_value[pool] < 0:
                if 2 * made[3] + 2 > len(constants):
                    return 1
                constant_value[pool] = made[2]
                constants[2 * made[3]] = pool
                constants[2 * made[3] + 1] = made[2]
                made[3] += 1
                made[2] += 1
            local[n_local] = constant_value[pool]
            n_local += 1
        at += n_const
        for _ in range(n_rows):
            f = words[at]
            to = emit(f, inputs, outputs, made, out_form, out_first, out_operands, out_value)
            if to < 0:
                return 1
            for k in range(inputs[f]):
                v = local[words[at + 1 + k]]
                out_operands[to + k] = v
                if v < n_values:
                    used[v] = 1
            for o in range(outputs[f]):
                local[n_local] = made[2] - outputs[f] + o
                n_local += 1
            at += 1 + inputs[f]
        for _ in range(n_results):
            v, ct, add = operands[first[r] + words[at]], local[words[at + 1]], words[at + 2]
            at += 3
            if depends[v] == 0:
                continue
            if cotangent[v] < 0:
                cotangent[v] = ct
            else:
                to = emit(add, inputs, outputs, made, out_form, out_first, out_operands, out_value)
                if to < 0:
                    return 1
                out_operands[to] = cotangent[v]
                out_operands[to + 1] = ct
                cotangent[v] = made[2] - 1
                if ct < n_values:
                    used[ct] = 1
                if out_operands[to] < n_values:
                    used[out_operands[to]] = 1
    for t in range(sizes[2]):
        if seeds[t] < n_values:
            used[seeds[t]] = 1
    return 0
