"""Programs for GPUs step by step: their launches compiled, or run."""

from __future__ import annotations

import numpy as np

import cuda_here
from jitgrad.execute.cuda import nests, straight
from jitgrad.plan import merge
from jitgrad.plan.fuse import Call, Nest, Straight, read_later, steps_of
from jitgrad.transform.higher import inlined


def works(program, together=True):
    """The program flat, its steps with the work of each that is a group and its slots, and where values lie.

    ``together``: with nests joined and beside each other.
    """
    flat = inlined(program)
    steps, lies = steps_of(flat, lambda form: False)
    results = {lies.get(v, (v, 0))[0] for v in flat.results.tolist()}
    steps = merge.merged(steps, results, nests.structure) if together else steps
    made = []
    for step, later in zip(steps, read_later(steps), strict=True):
        written = later | (results & {v for m in step.members for v in m.outs})
        module = nests if isinstance(step, Nest) else straight
        made.append((step, *(module.work(step, written) if isinstance(step, Nest | Straight) else ((), ()))))
    return flat, made, lies


def kernels(program):
    """All kernels of the groups of a program."""
    return {launch.kernel: step for step, work, _ in works(program)[1] if work for launch in work.launches}


def run(program, inputs, together=True):
    """Results, where the groups run on the device and the rows outside of them by their references."""
    flat, made, lies = works(program, together)
    given = {**dict(zip(flat.inputs.tolist(), inputs, strict=True)),
             **{v: t.numpy() for v, t in flat.constants.items()}}
    held = {v: np.array(x, flat.aval(v).dtype).reshape(-1).view(np.uint8) for v, x in given.items()}

    def part(value, offset, dtype, count=None):
        memory = held.setdefault(value, np.full(flat.aval(value).nbytes, 77, np.uint8))[offset:]
        items = len(memory) // dtype.itemsize if count is None else count
        return memory[: items * dtype.itemsize].view(dtype)

    for step, work, slots in made:
        if isinstance(step, Call):
            with np.errstate(all="ignore"):
                out = step.form.prim.ref(*(part(o.value, o.offset, o.aval.dtype, o.aval.size).reshape(o.aval.shape)
                                           for o in step.operands), **step.form.params)
            outs = out if isinstance(out, tuple) else (out,)
            for v, answer, aval in zip(step.outs, outs, step.form.outs, strict=True):
                held[v] = np.array(answer, aval.dtype).reshape(-1).view(np.uint8)
        else:
            assert cuda_here.play(work, [part(*slot) for slot in slots]) == 0
    return [part(*lies.get(v, (v, 0)), flat.aval(v).dtype, flat.aval(v).size).reshape(flat.aval(v).shape)
            for v in flat.results.tolist()]
