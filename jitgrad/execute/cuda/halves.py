"""A recorded Program of which one half ran on the CPU and the other on the GPU, as two.

Rows run where their operands are; a row of constants alone belongs to whoever reads it. The first half reads nothing of
the second, or it is not two halves: numbers that go from the GPU back to the CPU, to be computed with, are for Python.
Those that are results are copied at the end.
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

import numpy as np

from jitgrad.core.primitive import BY_NAME, Kind
from jitgrad.core.program import Program
from jitgrad.transform.prune import pruned
from jitgrad.transform.residuals import with_results

GUARD = BY_NAME["guard"]
HOST, DEVICE, FREE, BACK = range(4)         # BACK: results that are made on the GPU and copied to the CPU


class NotTwo(Exception):
    """The rows are not two halves; says why."""


class Halves(NamedTuple):
    """``host`` makes, in this order, results of the whole, operands of guards, and what ``device`` reads of it behind
    its own inputs."""

    host: Program
    device: Program
    host_inputs: list[int]         # of the whole, by position
    device_inputs: list[int]
    result_of: list[tuple[int, int]]       # for each result: which half (BACK: the device's, copied), which of its own;
    #                                (-1, -1) for none
    guards: list[tuple[int, int, int]]     # half; on the host the results that are compared, else the device's number
    crossing: list[int]            # results of ``host`` that ``device`` reads


def halves(program: Program, placed: Container[int], here: Container[int] = ()) -> Halves:
    """``placed``: positions of the inputs that are on the GPU; ``here``: of the results that are on the CPU."""
    at = _where(program, placed)
    rows = program.rows()
    on_device = [r for r, (_, operands, outs) in enumerate(rows)
                 if (at[outs[0]] in (DEVICE, FREE) if outs else any(at[v] == DEVICE for v in operands))]
    source = {outs[0]: operands[0] for _, operands, outs in rows if outs and at[outs[0]] == BACK}
    crossing = sorted({v for r in on_device for v in rows[r][1] if at[v] == HOST})
    results = program.results.tolist()
    wanted: list[int] = []         # of the host

    def of_host(v: int) -> int:
        if v not in wanted:
            wanted.append(v)
        return wanted.index(v)
    device_results: list[int] = []
    result_of, guards = [], []
    for k, v in enumerate(results):
        if v < 0:
            result_of.append((-1, -1))
        elif at[v] in (DEVICE, BACK):            # what a loop makes of the CPU's numbers beside the GPU's comes back
            result_of.append((BACK if k in here else at[v], len(device_results)))
            device_results.append(source.get(v, v))
        else:
            result_of.append((HOST, of_host(v)))
    count = 0
    for made, operands, _ in rows:
        if made.prim is GUARD:
            if any(at[v] == DEVICE for v in operands):
                guards.append((DEVICE, count, -1))
                count += 1
            else:
                guards.append((HOST, of_host(operands[0]), of_host(operands[1])))
    crossed = [of_host(v) for v in crossing]
    host, host_inputs = _pruned(with_results(program, wanted))
    device, device_inputs = _second(program, on_device, crossing, device_results, at)
    return Halves(host, device, host_inputs, device_inputs, result_of, guards, crossed)


def _where(program: Program, placed: Container[int]) -> list[int]:
    """Where each value is."""
    at = [FREE] * len(program.avals)
    for i, v in enumerate(program.inputs.tolist()):
        at[v] = DEVICE if i in placed else HOST
    for v, t in program.constants.items():
        at[v] = FREE if t._data else DEVICE
    for made, operands, outs in program.rows():
        kinds = {at[v] for v in operands}
        if BACK in kinds:
            raise NotTwo("it computes with numbers that it has moved from the GPU to the CPU")
        if made.prim.kind is Kind.MOVE and "device" in made.params:
            here = DEVICE if made.params["device"] != "cpu" else BACK if DEVICE in kinds else HOST
        else:
            here = DEVICE if DEVICE in kinds else FREE if kinds <= {FREE} else HOST
        for v in outs:
            at[v] = here
    return at


def _pruned(program: Program) -> tuple[Program, list[int]]:
    """Without what its results do not need, and the positions of the inputs that are left."""
    kept = pruned(program, keep_inputs=True)
    used = np.isin(kept.inputs, np.concatenate([kept.operands, kept.results]))
    return pruned(kept), np.flatnonzero(used).tolist()


def _second(program: Program, rows: list[int], crossing: list[int], results: list[int], at: list[int],
            ) -> tuple[Program, list[int]]:
    """The device's half: its own inputs that are read, then what crosses."""
    n = len(program.avals)
    read = np.arange(n)
    read[crossing] = n + np.arange(len(crossing))
    widths = np.diff(program.first_operand)
    taken = np.repeat(np.isin(np.arange(len(program)), rows), widths)
    inputs = [i for i, v in enumerate(program.inputs.tolist()) if at[v] == DEVICE]
    own = Program(attr=program.attr[rows], first_out=program.first_out[rows],
                  first_operand=np.concatenate([[0], np.cumsum(widths[rows])]),
                  operands=read[program.operands[taken]],
                  avals=np.concatenate([program.avals, program.avals[crossing]]),
                  inputs=np.concatenate([program.inputs[inputs], n + np.arange(len(crossing))]),
                  constants=program.constants, results=np.array(results, np.int32),
                  lines=[program.lines[r] for r in rows] if program.lines else ())
    return pruned(own, keep_inputs=True, keep_effects=True), inputs
