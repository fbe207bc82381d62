"""Shape-generic kernels over raw pointers: broadcasting around an inner kernel, moving, placing.

All have the kernel interface ``i64 kernel(i64 *params, ptr *slots)``, outputs first in ``slots``.
"""

from __future__ import annotations

from jitgrad.execute.cpu.native.raw import (
    call_kernel,
    copy,
    load,
    load_i8,
    load_i32,
    stack,
    store,
    store_i8,
    store_i32,
    zero,
)

frame_counters, frame_pointers = stack(16), stack(16)


def advance(counters, dims, rank):
    """The next index of a nested loop; the axis that moved, or -1 at the end."""
    axis = rank - 1
    while axis >= 0:
        c = load(counters + 8 * axis) + 1
        if c < load(dims + 8 * axis):
            store(counters + 8 * axis, c)
            return axis
        store(counters + 8 * axis, 0)
        axis -= 1
    return -1


def is_empty(dims, rank):
    for axis in range(rank):
        if load(dims + 8 * axis) == 0:
            return True
    return False


def lines(inner, params, pointers, strides, count, n):
    """The inner kernel n times, its pointers moved by fixed steps."""
    for _ in range(n):
        status = call_kernel(inner, params, pointers)
        if status != 0:
            return status
        for k in range(count):
            store(pointers + 8 * k, load(pointers + 8 * k) + load(strides + 8 * k))
    return 0


def broadcast(params, slots):
    """params: inner kernel, outer rank, slots, outer dims, byte strides [slot][axis], the inner kernel's params."""
    inner, rank, count = load(params), load(params + 8), load(params + 16)
    dims = params + 24
    strides = dims + 8 * rank
    inner_params = strides + 8 * rank * count
    if is_empty(dims, rank):
        return 0
    counters, pointers = frame_counters(), frame_pointers()
    for axis in range(rank):
        store(counters + 8 * axis, 0)
    for k in range(count):
        store(pointers + 8 * k, load(slots + 8 * k))
    if rank == 1:
        return lines(inner, inner_params, pointers, strides, count, load(dims))
    while True:
        status = call_kernel(inner, inner_params, pointers)
        if status != 0:
            return status
        axis = advance(counters, dims, rank)
        if axis < 0:
            return 0
        for k in range(count):
            step = load(strides + 8 * (k * rank + axis))
            for back in range(axis + 1, rank):
                step -= load(strides + 8 * (k * rank + back)) * (load(dims + 8 * back) - 1)
            store(pointers + 8 * k, load(pointers + 8 * k) + step)


def copy_line(to, to_step, source, source_step, n, width):
    """n items of ``width`` bytes at byte steps."""
    if to_step == width and source_step == width:
        copy(to, source, n * width)
    elif width == 4:
        for i in range(n):
            store_i32(to + i * to_step, load_i32(source + i * source_step))
    elif width == 8:
        for i in range(n):
            store(to + i * to_step, load(source + i * source_step))
    else:
        for i in range(n):
            store_i8(to + i * to_step, load_i8(source + i * source_step))


def strided(dense, sparse, params, gather):
    """Between a dense array and a strided one. params: width, rank, offset, dims, byte strides."""
    width, rank = load(params), load(params + 8)
    dims = params + 24
    strides = dims + 8 * rank
    if is_empty(dims, rank):
        return 0
    sparse += load(params + 16)
    if rank == 0:
        if gather:
            copy(dense, sparse, width)
        else:
            copy(sparse, dense, width)
        return 0
    outer = rank - 1
    n, step = load(dims + 8 * outer), load(strides + 8 * outer)
    counters = frame_counters()
    for axis in range(outer):
        store(counters + 8 * axis, 0)
    while True:
        if gather:
            copy_line(dense, width, sparse, step, n, width)
        else:
            copy_line(sparse, step, dense, width, n, width)
        dense += n * width
        axis = advance(counters, dims, outer)
        if axis < 0:
            return 0
        sparse += load(strides + 8 * axis)
        for back in range(axis + 1, outer):
            sparse -= load(strides + 8 * back) * (load(dims + 8 * back) - 1)


def move(params, slots):
    """out[i] = x[offset + i . strides]"""
    return strided(load(slots), load(slots + 8), params, True)


def place(params, slots):
    """out = 0; out[offset + i . strides] = x[i]. params: bytes of out, then as `move`."""
    zero(load(slots), 0, load(params))
    return strided(load(slots + 8), load(slots), params + 8, False)
