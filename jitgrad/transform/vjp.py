"""Reverse mode as Program -> Program."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from jitgrad.core import backend
from jitgrad.core.aval import AVALS, Aval, aval
from jitgrad.core.form import COLUMNS, FORMS, form
from jitgrad.core.lock import TABLES
from jitgrad.core.primitive import BY_NAME
from jitgrad.core.program import Program
from jitgrad.ops.creation import ones
from jitgrad.transform import walk
from jitgrad.transform.fragment import POOL
from jitgrad.transform.prune import pruned

_int = np.int64


@cache
def _paste() -> Any:
    return backend.current().compiled(walk.paste)


@cache
def one(code: int) -> Any:
    """The scalar 1 of a dtype, as a constant of Programs."""
    return ones((), AVALS[code].dtype, "cpu")    # wherever new Tensors are made: it is kept for all


def pullback(program: Program, targets: Sequence[int], seeds: Sequence[int], sources: Sequence[int],
             extra: Sequence[Aval] = ()) -> tuple[Program, list[int]]:
    """The backward rows alone: a Program of the primal values that they read, and which those are.

    ``seeds[i]`` is -1 for ones, else the value that holds the cotangent of ``targets[i]``; values from
    ``len(program.avals)`` on are extra inputs, with the avals ``extra``. The Program has one result per source: its
    cotangent, -1 where there is none.
    """
    with TABLES:
        return _pullback(program, targets, seeds, sources, extra)


def _pullback(program: Program, targets: Sequence[int], seeds: Sequence[int], sources: Sequence[int],
              extra: Sequence[Aval]) -> tuple[Program, list[int]]:
    n_rows, n_values = len(program), len(program.avals)
    base = n_values + len(extra)
    prefix = _Prefix(base)
    seed_values = [s if s >= 0 else prefix.ones(program.aval(t)) for t, s in zip(targets, seeds, strict=True)]
    adds = [form(BY_NAME["add"], [program.aval(t)] * 2, {}).id for t in targets]
    room = 4 * n_rows + 64
    override = np.zeros(n_rows + 1, _int)
    columns = [np.ascontiguousarray(c, _int) for c in (program.attr, program.first_operand, program.operands,
                                                       program.first_out)]
    depends, cotangent, used = (np.zeros(base + 1, _int) for _ in range(3))
    while True:
        made = np.array([0, 0, prefix.next, 0, 0, 0], _int)
        out_form, out_first, out_value = (np.zeros(room, _int) for _ in range(3))
        out_operands, constants = np.zeros(3 * room, _int), np.zeros(2 * room, _int)
        status = _paste()(
            np.array([n_rows, n_values, len(targets), len(sources)], _int), *columns, np.array([*targets, 0], _int),
            np.array([*seed_values, 0], _int), np.array([*adds, 0], _int), np.array([*sources, 0], _int), override,
            COLUMNS.inputs, COLUMNS.outputs, _padded(POOL.of, len(FORMS) << walk.MASK_BITS), POOL.at, POOL.words,
            depends, cotangent, used, np.zeros(POOL.local + 1, _int), np.full(len(POOL.constants) + 1, -1, _int), made,
            out_form, out_first, out_operands, out_value, constants)
        if status == walk.DONE:
            break
        if status == walk.FULL:
            room *= 2
        elif status == walk.WANT_FRAGMENT:
            POOL.narrow(int(made[walk.M_WANTED]), int(made[walk.M_MASK]))
        else:
            row = int(made[walk.M_WANTED])
            outs = program.row(row)[2]
            with_cotangent = sum(1 << o for o, v in enumerate(outs) if cotangent[v] >= 0)
            override[row] = POOL.wide(int(program.attr[row]), int(made[walk.M_MASK]), with_cotangent)
    return _assemble(program, extra, prefix, made, (out_form, out_first, out_operands, out_value, constants), used,
                     [int(cotangent[s]) for s in sources])


def _padded(column: np.ndarray, size: int) -> np.ndarray:
    if len(column) < size:
        POOL.of = np.concatenate([column, np.zeros(2 * size - len(column), _int)])
        return POOL.of
    return column


class _Prefix:
    """Constants and rows before the pasted ones: default seeds."""

    def __init__(self, base: int) -> None:
        self.next = base
        self.constants: dict[int, Any] = {}
        self.rows: list[tuple[int, int, int]] = []       # form, operand, output
        self._known: dict[int, int] = {}

    def _new(self) -> int:
        self.next += 1
        return self.next - 1

    def ones(self, like: Aval) -> int:
        scalar = aval(like.code, ())
        for wanted in (scalar, like):
            if wanted.id not in self._known:
                value = self._known[wanted.id] = self._new()
                if wanted is scalar:
                    self.constants[value] = one(like.code)
                else:
                    spread = form(BY_NAME["broadcast_to"], [scalar], {"shape": like.shape})
                    self.rows.append((spread.id, self._known[scalar.id], value))
        return self._known[like.id]


def _assemble(program: Program, extra: Sequence[Aval], prefix: _Prefix, made: np.ndarray,
              columns: tuple[np.ndarray, ...], used: np.ndarray, results: list[int]) -> tuple[Program, list[int]]:
    out_form, out_first, out_operands, out_value, constants = columns
    n_rows, n_operands, n_values = int(made[walk.M_ROWS]), int(made[walk.M_OPERANDS]), len(program.avals)
    for r in results:
        if 0 <= r < n_values:
            used[r] = 1
    saved = np.flatnonzero(used[:n_values])
    inputs = np.concatenate([saved, np.arange(n_values, n_values + len(extra))]).astype(_int)
    # renumber: inputs, then the new values in their order
    base = n_values + len(extra)
    number = np.full(int(made[walk.M_NEXT]), -1, _int)
    number[inputs] = np.arange(len(inputs))
    number[base:] = np.arange(len(inputs), len(inputs) + len(number) - base)
    avals = np.zeros(len(inputs) + len(number) - base, _int)
    avals[: len(saved)] = program.avals[saved]
    avals[len(saved): len(inputs)] = [a.id for a in extra]
    pool = constants[: 2 * int(made[walk.M_CONSTANTS])].reshape(-1, 2)
    held = {**prefix.constants, **{int(v): POOL.constants[c] for c, v in pool.tolist()}}
    for v, t in held.items():
        avals[number[v]] = t._aval
    before = np.array(prefix.rows, _int).reshape(-1, 3)
    attr = np.concatenate([before[:, 0], out_form[:n_rows]])
    first_out = number[np.concatenate([before[:, 2], out_value[:n_rows]])]
    counts = COLUMNS.outputs[attr]
    for k in range(int(counts.max(initial=0))):
        has = counts > k
        avals[first_out[has] + k] = COLUMNS.out_avals[COLUMNS.first_out[attr[has]] + k]
    made_program = Program(
        attr=attr, first_out=first_out,
        first_operand=np.concatenate([np.arange(len(before)), out_first[: n_rows + 1] + len(before)]),
        operands=number[np.concatenate([before[:, 1], out_operands[:n_operands]])], avals=avals,
        inputs=np.arange(len(inputs)), constants={int(number[v]): t for v, t in held.items()},
        results=np.array([number[r] if r >= 0 else -1 for r in results], _int))
    return made_program, saved.tolist()


def vjp(program: Program, sources: Sequence[int]) -> Program:
    """The Program (inputs..., cotangents of results...) -> cotangents of the inputs at positions ``sources``.

    Self-contained: the primal rows that the backward ones need are computed again.
    """
    live = [r for r, v in enumerate(program.results.tolist()) if v >= 0]
    targets = [int(program.results[r]) for r in live]
    extra = [program.aval(t) for t in targets]
    seeds = [len(program.avals) + i for i in range(len(targets))]
    back, saved = pullback(program, targets, seeds, [int(program.inputs[s]) for s in sources], extra)
    return joined(program, back, saved, keep_effects=True)


def joined(program: Program, back: Program, saved: Sequence[int], keep_results: bool = False,
           keep_effects: bool = False) -> Program:
    """``program``'s rows, then ``back``'s on the primal values ``saved`` and on extra inputs of its own.

    The results are those of ``back``, behind those of ``program`` where they are kept; rows that no result needs go.
    """
    n = len(program.avals)
    extra = len(back.inputs) - len(saved)
    number = np.full(len(back.avals) + 1, -1, _int)      # its last word is that of results which are not
    number[back.inputs[: len(saved)]] = saved
    rest = np.setdiff1d(np.arange(len(back.avals)), back.inputs[: len(saved)])
    number[rest] = n + np.arange(len(rest))
    both = Program(
        attr=np.concatenate([program.attr, back.attr]),
        first_out=np.concatenate([program.first_out, number[back.first_out]]),
        first_operand=np.concatenate([program.first_operand, back.first_operand[1:] + len(program.operands)]),
        operands=np.concatenate([program.operands, number[back.operands]]),
        avals=np.concatenate([program.avals, back.avals[rest]]),
        inputs=np.concatenate([program.inputs, number[back.inputs[len(saved):]]]) if extra else program.inputs,
        constants={**program.constants, **{int(number[v]): t for v, t in back.constants.items()}},
        results=np.concatenate([program.results if keep_results else program.results[:0],
                                number[back.results]]))
    return pruned(both, keep_inputs=True, keep_effects=keep_effects)
