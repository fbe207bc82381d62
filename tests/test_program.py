"""Programs as data: grammar, printing, signature, files; dry recording; and reverse mode as Program -> Program."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.core.aval import aval
from jitgrad.core.form import FORMS
from jitgrad.core.program import Program
from jitgrad.core.recorder import Recorder
from jitgrad.execute import oracle
from jitgrad.execute.cpu.plans import plan_of
from jitgrad.transform.vjp import vjp
from programs import FLOAT, arguments, random_program
from tolerance import assert_close

SEEDS = range(12)
COLUMNS = ("attr", "first_out", "first_operand", "operands", "avals", "inputs", "results")


def small(scale=2.0):
    """Two inputs of float64[3], a constant, params with tuples and None, three results of which one is none."""
    recorder = Recorder()
    x, y = (recorder.input(aval(FLOAT, (3,))) for _ in range(2))
    z = jg.sum(jg.reshape(jg.tanh(x * y) * jg.constant([scale, 1.0, 1.0], "float64"), (3, 1))[::-1, :], axis=0)
    return recorder.program([z, None, z + x])


def copy(program, **columns):
    given = {name: columns.get(name, getattr(program, name).copy()) for name in COLUMNS}
    return Program(**given, constants=columns.get("constants", program.constants))


# ---- grammar ----

@pytest.mark.parametrize("seed", SEEDS)
def test_verify_accepts_what_is_recorded_and_derived(seed):
    program = random_program(np.random.default_rng(seed), 12)
    for _ in range(3):
        program.verify()
        program = vjp(program, range(2))


def test_verify_rejects_each_kind_of_damage():
    program = small()
    n, last = len(program.avals), len(program) - 1
    constant = next(iter(program.constants))

    def poked(name, at, value):
        column = getattr(program, name).copy()
        column[at] = value
        return copy(program, **{name: column})
    damaged = {
        "operand of the future": poked("operands", 0, n - 1), "operand that is not": poked("operands", 0, n),
        "negative operand": poked("operands", 0, -1), "operand of another aval": poked("operands", 1, constant + 2),
        "output again": poked("first_out", last, program.first_out[0]), "output beyond": poked("first_out", last, n),
        "negative output": poked("first_out", last, -1), "input twice": poked("inputs", 1, program.inputs[0]),
        "input is an output": poked("inputs", 0, program.first_out[0]), "input that is not": poked("inputs", 0, n),
        "negative input": poked("inputs", 0, -1), "result that is not": poked("results", 0, n),
        "result below -1": poked("results", 0, -2), "another form": poked("attr", 0, program.attr[last]),
        "form that is not": poked("attr", 0, len(FORMS)), "negative form": poked("attr", 0, -1),
        "aval of an output": poked("avals", program.first_out[0], aval(FLOAT, ()).id),
        "aval of a constant": poked("avals", constant, aval(FLOAT, (7,)).id),
        "aval that is not": poked("avals", 0, 10**6), "negative aval": poked("avals", 0, -5),
        "offsets backwards": poked("first_operand", 1, program.first_operand[2] + 1),
        "offsets beyond": poked("first_operand", last + 1, len(program.operands) + 1),
        "offsets not from 0": poked("first_operand", 0, 1),
        "offsets short": copy(program, first_operand=program.first_operand[:-1]),
        "outputs short": copy(program, first_out=program.first_out[:-1]),
        "a value that nothing defines": copy(program, avals=np.append(program.avals, program.avals[0])),
        "constant that is not": copy(program, constants={**program.constants, n: jg.constant(1.0)}),
        "constant is an input": copy(program, constants={**program.constants, 0: jg.constant([1.0] * 3, "float64")}),
        "op code": copy(program),
    }
    damaged["op code"].op[0] += 1
    program.verify()
    accepted = []
    for what, broken in damaged.items():
        try:
            broken.verify()
        except ValueError as error:
            assert re.search(r"row|value|result|constant|columns", str(error)), (what, str(error))
        else:
            accepted.append(what)
    assert accepted == []


@pytest.mark.parametrize("seed", SEEDS)
def test_verify_never_fails_otherwise(seed):
    """Random damage is accepted only if the Program still runs, and rejected by ValueError."""
    rng = np.random.default_rng(seed)
    program = random_program(rng, 6)
    inputs = arguments(program, rng)
    for _ in range(40):
        name = COLUMNS[rng.integers(len(COLUMNS))]
        column = getattr(program, name).copy()
        column[rng.integers(len(column))] += rng.choice([-3, -1, 1, 2, 50])
        broken = copy(program, **{name: column}) if name != "attr" or 0 <= column.min() <= column.max() < len(FORMS) \
            else program
        try:
            broken.verify()
        except ValueError:
            continue
        if broken.inputs.tolist() == program.inputs.tolist():
            oracle.run(broken, inputs)


# ---- printing, signature ----

def test_show_has_a_line_for_each_value():
    program = small()
    lines = program.show().splitlines()
    assert len(lines) == len(program.avals) + 2
    assert lines[0].split() == ["value", "op", "operands", "type", "bytes"]
    assert lines[1].split() == ["%0", "input", "float64[3]", "24"]
    assert sum("constant" in line for line in lines) == 1
    assert any("tanh" in line and "float64[3]" in line for line in lines)
    assert "-" in lines[-1] and lines[-1].startswith("results: %")
    assert repr(program) == f"<Program: 2 inputs, {len(program)} rows, 3 results>"


def test_show_has_the_lines_of_the_source_where_they_were_recorded():
    program = small()
    program.lines = tuple(f"here.py:{i}" for i in range(len(program)))
    assert all(line in program.show() for line in program.lines)


def test_signature_is_equal_for_equal_programs_only():
    first = small().signature()
    assert re.fullmatch("[0-9a-f]{64}", first) and small().signature() == first
    others = [random_program(np.random.default_rng(s), 5).signature() for s in range(10)]
    assert len({first, *others}) == 11
    assert small(3.0).signature() != first                                       # a constant's content
    base = small()
    for name, change in (("results", [1, -1, 2]), ("inputs", base.inputs[::-1])):
        assert copy(base, **{name: np.array(change)}).signature() != first


def test_signature_sees_params_dtypes_and_shapes():
    def of(f, code=FLOAT, shape=(2, 3)):
        recorder = Recorder()
        return recorder.program([f(recorder.input(aval(code, shape)))]).signature()
    found = [of(lambda x: jg.sum(x, axis=0)), of(lambda x: jg.sum(x, axis=1)), of(lambda x: jg.sum(x, axis=0), FLOAT - 1),
             of(lambda x: jg.sum(x, axis=0), FLOAT, (2, 4)), of(lambda x: x**2), of(lambda x: x**3)]
    assert len(set(found)) == len(found)


def test_signature_is_the_same_in_another_process(tmp_path):
    """Forms and avals have other numbers there; the signature goes by names."""
    path = tmp_path / "p.npz"
    program = random_program(np.random.default_rng(0), 8)
    program.save(path)
    code = (f"import jitgrad as jg; x = jg.zeros((9, 9, 9)); x = x * x + 1; jg.tanh(x[2:3]);"
            f"print(jg.Program.load({str(path)!r}).signature())")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == program.signature()


# ---- files ----

@pytest.mark.parametrize("seed", SEEDS[:4])
def test_save_and_load(seed, tmp_path):
    rng = np.random.default_rng(seed)
    program = vjp(random_program(rng, 10), [0, 1])
    program.save(tmp_path / "p.npz")
    again = Program.load(tmp_path / "p.npz")
    assert again.signature() == program.signature() and again.show() == program.show()
    inputs = arguments(program, rng)
    for a, b in zip(oracle.run(program, inputs), oracle.run(again, inputs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_saved_file_holds_names_and_no_pickle(tmp_path):
    path = tmp_path / "p.npz"
    small().save(path)
    with np.load(path, allow_pickle=False) as data:
        assert all(data[name].dtype.kind != "O" for name in data.files)
        table = data["table"].tobytes().decode()
    assert '"tanh"' in table and '"tuple"' in table
    assert os.listdir(tmp_path) == ["p.npz"]


def test_params_keep_their_types(tmp_path):
    recorder = Recorder()
    x = recorder.input(aval(FLOAT, (2, 3)))
    program = recorder.program([jg.matmul(x, x, transpose_b=True), x[1:, ::2], x**2, jg.astype(x, "int32")])
    program.save(tmp_path / "p")
    again = Program.load(tmp_path / "p")
    assert [made.params for made, _, _ in again.rows()] == [made.params for made, _, _ in program.rows()]
    assert again.attr.tolist() == program.attr.tolist()          # the very forms: 1, 1.0 and True are kept apart


def test_rows_that_hold_programs_are_refused_by_name(tmp_path):
    x = jg.constant([1.0, 2.0])
    with jg.GradientTape(persistent=True) as outer:
        outer.watch(x)
        with jg.GradientTape() as inner:
            inner.watch(x)
            y = jg.sin(x)
        inner.gradient(y, x)
    from jitgrad.frontend.explain import program_of
    with pytest.raises(ValueError, match="save: the row 'call' holds a Program"):
        program_of(outer).save(tmp_path / "p.npz")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("broken", ("open", "replace"))
def test_an_interrupted_save_leaves_the_old_file(broken, tmp_path, monkeypatch):
    path = tmp_path / "p.npz"
    small().save(path)
    before = path.read_bytes()

    class Full:
        def __init__(self, *args): self.file = open(*args)
        def __enter__(self): return self
        def __exit__(self, *exc): self.file.close()
        def write(self, data):
            self.file.write(data[: len(data) // 2])
            raise OSError(28, "No space left on device")

    def fail(*args):
        raise KeyboardInterrupt
    with monkeypatch.context() as m:
        if broken == "open":
            m.setattr("jitgrad.core.program.open", Full, raising=False)
        else:
            m.setattr(os, "replace", fail)
        with pytest.raises((OSError, KeyboardInterrupt)):
            small(5.0).save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["p.npz"]
    assert Program.load(path).signature() == small().signature()


def test_files_that_are_no_programs_are_refused(tmp_path):
    path = tmp_path / "p.npz"
    small().save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for at in [*rng.integers(0, len(whole), 30).tolist(), 0, len(whole) - 1]:
        bad = bytearray(whole)
        bad[at] ^= 0x55
        for data in (bytes(bad), whole[:at]):
            path.write_bytes(data)
            try:
                again = Program.load(path)
            except ValueError as error:
                assert "load" in str(error)
            else:
                assert again.signature() == small().signature()
    with pytest.raises(FileNotFoundError):
        Program.load(tmp_path / "absent.npz")


# ---- dry recording ----

def test_dry_recording_runs_nothing_and_keeps_constants():
    recorder = Recorder()
    x = recorder.input(aval(FLOAT, (2,)))
    c = jg.constant([1.0, 2.0], "float64")
    y = x * c + c * 3.0
    assert y.shape == (2,) and y.dtype == "float64" and repr(y) == "<jg.Tensor: shape=(2,), dtype=float64, dry>"
    program = recorder.program([y])
    assert [made.prim.name for made, _, _ in program.rows()] == ["multiply", "add"]      # c * 3.0 is concrete, and ran
    assert sum(t is c for t in program.constants.values()) == 1
    n = recorder.input(aval(FLOAT, ()))
    for read in (float, int, bool, np.asarray, lambda t: t.item(), lambda t: t.numpy(), lambda t: t.tolist(),
                 lambda t: f"{t:.2f}", lambda t: 0.0 in t, lambda t: memoryview(t)):
        with pytest.raises((TypeError, BufferError), match="dry recording"):
            read(n)


def test_dry_recordings_do_not_mix():
    one, other = Recorder(), Recorder()
    x, y = (r.input(aval(FLOAT, ())) for r in (one, other))
    with pytest.raises(RuntimeError, match="one dry recording was used in another"):
        x + y


def test_dry_recording_under_a_tape_records_on_no_tape():
    c = jg.constant([1.0, 2.0], "float64")
    with jg.GradientTape() as tape:
        tape.watch(c)
        with Recorder() as recorder:
            jg.sum(recorder.input(aval(FLOAT, (2,))) * c)
    assert tape.show().splitlines()[1:] == ["results: "]


# ---- reverse mode ----

@pytest.mark.parametrize("seed", SEEDS)
def test_vjp_by_the_oracle_and_by_the_machine(seed):
    """To second order: both run the Program, its vjp, and the vjp of that."""
    rng = np.random.default_rng(seed)
    program = random_program(rng, 8)
    for order in range(3):
        inputs = arguments(program, rng)
        want = oracle.run(program, inputs)
        got = plan_of(program).run([jg.asarray(a) for a in inputs])
        for a, b in zip(got, want, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert_close(a.numpy(), b, rtol=[1e-12, 1e-11, 1e-10][order])
        if order < 2:
            program = vjp(program, range(3))


@pytest.mark.parametrize("seed", SEEDS[:4])
def test_vjp_against_differences(seed):
    rng = np.random.default_rng(seed)
    program = random_program(rng, 8)
    inputs = arguments(program, rng)
    weights = [rng.normal(size=program.aval(v).shape) for v in program.results.tolist()]
    found = oracle.run(vjp(program, range(3)), [*inputs, *weights])
    step = 2.0**-16
    for _ in range(4):
        directions = [rng.normal(size=a.shape) for a in inputs]
        high, low = (sum(np.sum(w * r) for w, r in zip(weights, oracle.run(
            program, [a + s * d for a, d in zip(inputs, directions, strict=True)]), strict=True)) for s in (step, -step))
        slope = sum(np.sum(g * d) for g, d in zip(found, directions, strict=True) if g is not None)
        assert slope == pytest.approx((high - low) / (2 * step), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("seed", SEEDS[:4])
def test_tape_agrees_with_vjp(seed):
    """The tape's path (log, signature, pasted fragments, plan) gives what the transform gives."""
    rng = np.random.default_rng(seed)
    program = random_program(rng, 8)
    inputs = arguments(program, rng)
    xs = [jg.asarray(a) for a in inputs]
    with jg.GradientTape() as tape:
        tape.watch(xs)
        last, total = plan_of(program).run(xs)
    found = tape.gradient([last, total], xs)
    ones = [np.ones(program.aval(v).shape) for v in program.results.tolist()]
    for g, want in zip(found, oracle.run(vjp(program, range(3)), [*inputs, *ones]), strict=True):
        assert (g is None) == (want is None)
        if g is not None:
            assert_close(g.numpy(), want, rtol=1e-11)


def test_plans_check_what_they_are_given():
    plan = plan_of(small())
    x = jg.constant([1.0, 2.0, 3.0], "float64")
    for bad in ([x], [x, x, x], [x, jg.constant([1.0, 2.0], "float64")], [x, jg.constant([1.0] * 3, "float32")], [x, 1.0]):
        with pytest.raises((ValueError, TypeError)):
            plan.run(bad)
