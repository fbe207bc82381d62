"""Rows without outputs: guards in Programs, transforms, files, plans and the oracle."""

from __future__ import annotations

import numpy as np
import pytest

import jitgrad as jg
from jitgrad import ops
from jitgrad.core.aval import AVALS, aval
from jitgrad.core.dtypes import CODES, DTYPES
from jitgrad.core.form import form
from jitgrad.core.primitive import BY_NAME, OPS
from jitgrad.core.program import Program
from jitgrad.core.record import dispatch
from jitgrad.core.recorder import Recorder
from jitgrad.execute import oracle
from jitgrad.execute.cpu.layout import GUARD_FAILED
from jitgrad.execute.cpu.plans import plan_of
from jitgrad.execute.cpu.types import peek
from jitgrad.transform.higher import CALL, inlined
from jitgrad.transform.prune import pruned
from jitgrad.transform.residuals import with_results
from jitgrad.transform.vjp import vjp
from programs import FLOAT

GUARD = BY_NAME["guard"]


def guarded(expected=2.0, at="middle"):
    """y = tanh(x) * x and z = sum(y), with a guard of max(x) at the start, in the middle or at the end."""
    recorder = Recorder()
    x = recorder.input(aval(FLOAT, (3,)))
    wanted = jg.constant(expected, "float64")
    if at == "start":
        OPS["guard"](ops.reshape(x[:1], ()), wanted)
    y = jg.tanh(x)
    if at == "middle":
        assert OPS["guard"](jg.max(x), wanted) == ()
    y = y * x
    z = jg.sum(y)
    if at == "end":
        OPS["guard"](jg.max(x), wanted)
    return recorder.program([z, y])


def run(program, *arrays):
    return [t.numpy() for t in plan_of(program).run([jg.asarray(a) for a in arrays])]


@pytest.mark.parametrize("at", ("start", "middle", "end"))
def test_programs_with_guards_run(at):
    program = guarded(at=at)
    program.verify()
    good, bad = np.array([2.0, 1.0, 0.5]), np.array([0.5, 1.0, 3.0])
    for got, want in zip(run(program, good), oracle.run(program, [good]), strict=True):
        np.testing.assert_allclose(got, want)
    with pytest.raises(RuntimeError, match="a guard of the recorded program does not hold"):
        run(program, bad)
    with pytest.raises(ValueError, match="guard"):
        oracle.run(program, [bad])
    assert "guard" in program.show() and len(plan_of(program).guards) == 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_guard_compares_bits(dtype):
    for x in (np.zeros((0, 2)), np.array(1), np.arange(6).reshape(2, 3), np.array([np.nan, -0.0, np.inf, 0.0])):
        with np.errstate(invalid="ignore"):
            x = x.astype(dtype)
        assert OPS["guard"](jg.asarray(x), jg.asarray(x.copy())) == ()
        for i in range(x.size):
            other = x.copy()
            other.reshape(-1).view(np.uint8)[i * dtype.itemsize] ^= 1
            with pytest.raises(IndexError, match="guard: a value is not the one that was expected"):
                OPS["guard"](jg.asarray(x), jg.asarray(other))
    with pytest.raises(IndexError):
        OPS["guard"](jg.constant(0.0), jg.constant(-0.0))


def test_a_guard_wants_equal_avals():
    for other in (jg.constant([1.0]), jg.constant(1.0, "float64")):
        recorder = Recorder()
        x = recorder.input(aval(CODES[np.dtype("float32")], ()))
        if other.dtype == "float32":
            with pytest.raises(ValueError, match=r"guard: shapes \(\) and \(1,\)"):
                OPS["guard"](x, other)
        else:
            OPS["guard"](x, other)
            assert [made.prim.name for made, _, _ in recorder.program([]).rows()] == ["cast", "guard"]


@pytest.mark.parametrize("at", ("start", "middle", "end"))
def test_transforms_keep_guards(at):
    program = guarded(at=at)
    assert len(pruned(with_results(program, [int(program.results[0])]), keep_effects=True)) == len(program)
    back = vjp(with_results(program, [int(program.results[0])]), [0])
    back.verify()
    assert (back.op == GUARD.code).sum() == 1
    x = np.array([2.0, 1.0, 0.5])
    np.testing.assert_allclose(run(back, x, np.array(1.0))[0], np.tanh(x) + x / np.cosh(x)**2)


def test_calls_of_programs_with_guards():
    program = guarded()
    recorder = Recorder()
    x = recorder.input(program.aval(0))
    z, y = dispatch(_call_of(program, x), [x])
    outer = recorder.program([z, y * 2.0])
    flat = inlined(outer)
    flat.verify()
    assert (flat.op == GUARD.code).sum() == 1
    good = np.array([1.0, 2.0, -1.0])
    np.testing.assert_allclose(run(outer, good)[1], 2 * np.tanh(good) * good)
    with pytest.raises(RuntimeError):
        run(outer, good + 1)


def _call_of(program, *operands):
    return form(CALL, [AVALS[t._aval] for t in operands], {"program": program})


def test_a_program_of_guards_alone():
    recorder = Recorder()
    x = recorder.input(aval(FLOAT, ()))
    OPS["guard"](x, jg.constant(1.0, "float64"))
    program = recorder.program([])
    program.verify()
    assert run(program, np.array(1.0)) == [] and vjp(program, [0]).results.tolist() == [-1]
    with pytest.raises(RuntimeError):
        run(program, np.array(2.0))
    with jg.GradientTape() as tape:
        t = jg.constant(1.0, "float64")
        tape.watch(t)
        assert plan_of(program).run([t]) == []
        y = t * 2.0
    assert tape.nbytes > 0 and "one recorded row" in tape.explain(y, t)
    assert tape.gradient(y, t).numpy() == 2.0


@pytest.mark.parametrize("at", ("start", "middle", "end"))
def test_files_and_signatures(at, tmp_path):
    program = guarded(at=at)
    program.save(tmp_path / "p.npz")
    again = Program.load(tmp_path / "p.npz")
    assert again.show() == program.show() and again.signature() == program.signature()
    assert again.signature() != guarded(expected=3.0, at=at).signature()
    with pytest.raises(RuntimeError):
        run(again, np.zeros(3))


def test_ordinals_of_guards_count_instructions():
    """Rows that move nothing have no instruction, so an ordinal is not a row."""
    recorder = Recorder()
    x = recorder.input(aval(FLOAT, (2, 3)))
    y = ops.reshape(x, (6,))
    OPS["guard"](jg.sum(y), jg.constant(0.0, "float64"))
    OPS["guard"](jg.sum(ops.reshape(y + 1.0, (3, 2))), jg.constant(6.0, "float64"))
    plan = plan_of(recorder.program([y]))
    assert plan.guards == sorted(plan.guards) and len(plan.guards) == 2
    code, at, found = plan._code.tolist(), 0, []
    address = peek(next(f for f, _, _ in plan.program.rows() if f.prim is GUARD).address)
    for i in range(max(plan.guards) + 1):
        found += [i] if code[at] == address else []
        at += 3 + code[at + 2]
    assert found == plan.guards and GUARD_FAILED == 255


def test_debug_nans_looks_through_guards():
    program = guarded()
    with jg.debug_nans():
        np.testing.assert_allclose(run(program, np.array([2.0, 1.0, 0.0]))[1][2], 0.0)
