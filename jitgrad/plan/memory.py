"""Where values live while a Plan runs: lifetimes, arena offsets, results in their own memory.

`lay_out` is a plain function over int64 arrays, which the backend compiles. A slot is a byte offset into the arena
(>= 0), or -1 - (i + (offset << ENTRY)) for what lies so many bytes behind entry i of the call's table of pointers:
inputs, results, constants.
"""

from __future__ import annotations

ALIGN = 64
ENTRY = 24                     # bits of an entry's number in a slot: 16 million entries, half a terabyte behind each
DONE, FULL = 0, 1

# words of `sizes`
N_ROWS, N_VALUES, N_RESULTS = 0, 1, 2
# words of `made`
M_CODE, M_COUNT, M_ARENA = 0, 1, 2
NOWHERE = 1 << 62


def take(nbytes, free_at, free_size, made):  # type: ignore[no-untyped-def]
    """The first free block that is large enough, else new memory at the end. free_size[0] counts the blocks."""
    need = max((nbytes + 63) // 64 * 64, 64)
    for i in range(1, free_size[0] + 1):
        if free_size[i] >= need:
            at = free_at[i]
            free_at[i] += need
            free_size[i] -= need
            if free_size[i] == 0:
                last = free_size[0]
                free_at[i], free_size[i] = free_at[last], free_size[last]
                free_size[0] -= 1
            return at
    at = made[2]
    made[2] += need
    return at


def give(at, nbytes, free_at, free_size):  # type: ignore[no-untyped-def]
    """Return a block, joined to its neighbours."""
    size = max((nbytes + 63) // 64 * 64, 64)
    i = 1
    while i <= free_size[0]:
        if free_at[i] + free_size[i] == at or at + size == free_at[i]:
            at = min(at, free_at[i])
            size += free_size[i]
            last = free_size[0]
            free_at[i], free_size[i] = free_at[last], free_size[last]
            free_size[0] -= 1
            i = 1
        else:
            i += 1
    n = free_size[0] + 1
    if n < len(free_at):                 # else the hole is forgotten: only memory is lost
        free_at[n], free_size[n] = at, size
        free_size[0] = n


def row_code(code, made, kernel, params, n):  # type: ignore[no-untyped-def]
    """Begin an instruction; returns where its slots go, or -1 if there is no room."""
    at = made[0]
    if at + 3 + n > len(code):
        return -1
    code[at], code[at + 1], code[at + 2] = kernel, params, n
    made[0] = at + 3 + n
    made[1] += 1
    return at + 3


def share(sizes, row_form, first, operands, row_out, nbytes, views, inputs, copy_params, root, offset, last_use):  # type: ignore[no-untyped-def]
    """Where values lie in the memory of others (``root``, bytes behind its start), and the last row that reads each.

    A part of a value that is a result is copied where it is made, so that the whole does not have to stay for it.
    """
    for v in range(sizes[1]):
        root[v], offset[v], last_use[v] = v, 0, -1
    for r in range(sizes[0]):
        form = row_form[r]
        out = row_out[r]
        if views[form] > 0:
            source = operands[first[r]]
            if copy_params[out] == 0 or nbytes[out] == nbytes[root[source]]:
                root[out], offset[out] = root[source], offset[source] + views[form] - 1
        for k in range(inputs[form]):
            last_use[root[operands[first[r] + k]]] = r


def behind(slot, nbytes):  # type: ignore[no-untyped-def]
    """The slot of what lies so many bytes behind another's."""
    return slot + nbytes if slot >= 0 else slot - (nbytes << ENTRY)


def lay_out(sizes, row_form, first, operands, row_out, results, slot, nbytes, kernels, params, views, inputs, outputs,  # type: ignore[no-untyped-def]
            copy_kernel, copy_params, root, offset, last_use, free_at, free_size, code, ordinals, made):
    """Instructions for rows whose inputs and constants have slots already (NOWHERE elsewhere).

    ``views[form]`` is 1 + byte offset for a form that shares its operand's memory, else 0; ``results`` has the value
    and the table slot of each result; ``copy_params[v]`` is the params address to copy value v as bytes.
    ``ordinals[r]`` becomes the number of row r's instruction, -1 where it has none.
    """
    n_rows, n_results = sizes[0], sizes[2]
    share(sizes, row_form, first, operands, row_out, nbytes, views, inputs, copy_params, root, offset, last_use)
    for i in range(n_results):
        v = results[2 * i]
        if v < 0:
            continue
        base = root[v]
        last_use[base] = n_rows
        if slot[base] == NOWHERE:
            slot[base] = results[2 * i + 1]
    for r in range(n_rows):
        form, out = row_form[r], row_out[r]
        n_in, n_out = inputs[form], outputs[form]
        ordinals[r] = -1
        if n_out > 0 and root[out] != out:
            slot[out] = behind(slot[root[out]], offset[out])
            continue
        for o in range(n_out):
            if slot[out + o] == NOWHERE:
                slot[out + o] = take(nbytes[out + o], free_at, free_size, made)
        ordinals[r] = made[1]
        at = row_code(code, made, kernels[form], params[form], n_in + n_out)
        if at < 0:
            return 1
        for o in range(n_out):
            code[at + o] = slot[out + o]
        for k in range(n_in):
            code[at + n_out + k] = slot[operands[first[r] + k]]
        for k in range(n_in):
            base = root[operands[first[r] + k]]
            if last_use[base] == r and slot[base] >= 0:
                give(slot[base], nbytes[base], free_at, free_size)
                last_use[base] = -2
        for o in range(n_out):
            if last_use[out + o] == -1 and slot[out + o] >= 0:
                give(slot[out + o], nbytes[out + o], free_at, free_size)
    for i in range(n_results):
        v, where = results[2 * i], results[2 * i + 1]
        if v >= 0 and slot[root[v]] != where:
            at = row_code(code, made, copy_kernel[0], copy_params[v], 2)
            if at < 0:
                return 1
            code[at], code[at + 1] = where, slot[root[v]]
    return 0
