"""`debug_nans`: the operation in which a NaN began is named, with its line, and nothing else changes."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.frontend import lines, nans
from jitgrad.nn import optimizers

MIXED = [0.0, 1.0, -1.0]


@pytest.fixture(autouse=True)
def off_afterwards() -> Iterator[None]:
    yield
    assert not nans.checking() and not lines.noting()


def fault(f: Any, *args: Any, inf: bool = False) -> str:
    """What is said of a call under `debug_nans`."""
    with jg.debug_nans(inf=inf), pytest.raises(FloatingPointError) as said:
        f(*args)
    return str(said.value)


def line_of(words: str) -> str:
    """FILE:LINE of a line of this file."""
    with open(__file__) as file:
        (number,) = [i for i, line in enumerate(file, 1) if words in line and "line_of" not in line]
    return f"{__file__}:{number}"


# ---- eager operations ----------------------------------------------------------------------------

def test_an_operation_is_named_with_what_it_held_and_where() -> None:
    x = jg.constant(MIXED)
    said = fault(lambda: jg.sqrt(x))  # the root
    assert said == ("sqrt: the result (float32[3]) has 1 NaN; x (float32[3]) held 1 zero and numbers from -1 to 1 "
                    f"(at {line_of('# the root')})")


@pytest.mark.parametrize(("f", "words"), [
    (lambda: jg.constant(MIXED) / jg.constant(MIXED), r"divide: .* x \(float32\[3\]\) held 1 zero and .*, y \(float"),
    (lambda: jg.constant([np.inf, 1.0]) - np.inf, r"subtract: .* held 1 inf and 1, y \(float32\[\]\) held inf"),
    (lambda: jg.constant([np.nan, np.nan, 2.0]) + 1, r"add: .* has 2 NaNs; x \(float32\[3\]\) held 2 NaNs already and 2"),
    (lambda: jg.constant(np.nan) + 1.0, r"held NaN already, y"),
    (lambda: jg.log(-jg.Variable(1.0)), r"log: the result \(float32\[\]\) .* x \(float32\[\]\) held -1 "),
    (lambda: jg.log_softmax(jg.constant([np.inf, 0.0])), r"subtract: "),
    (lambda: jg.constant([np.inf, 1.0], "float64") @ jg.constant([0.0, 1.0], "float64"), r"matmul: .*float64"),
    (lambda: jg.take(jg.constant([np.nan, 1.0]), [0]), r"gather: .* NaN already and 1, indices \(int32\[1\]\) held 0"),
    (lambda: jg.mean(jg.constant(np.zeros((0, 2), "float32"))), r"divide: "),
    (lambda: jg.sqrt(jg.constant(-np.ones(100_000, "float32"))), r"100000 NaNs; x \(float32\[100000\]\) held -1 ")])
def test_operations_of_every_sort(f: Any, words: str) -> None:
    f()                                       # the inline caches know it
    with np.errstate(all="ignore"):
        assert re.match(words, re.sub(r"^.*?(?=\w+: )", "", fault(f))) or re.search(words, fault(f)), fault(f)
    f()


def test_what_makes_no_nan_runs_as_ever() -> None:
    with jg.debug_nans():
        x = jg.constant([1.0, np.inf, np.nan])            # no operation
        assert np.isnan(x.numpy()).any() and jg.argmax(x).numpy() == 2 and bool((x == x)[0])
        v = jg.Variable(x)
        v.assign(x)
        assert jg.reshape(x, (3, 1)).shape == (3, 1)      # a view makes no numbers
        assert float(jg.constant(1.0) / 0.0) == np.inf
        assert (jg.arange(3) // 0).numpy().tolist() == [0, 0, 0]


def test_infinities_where_asked() -> None:
    assert "divide: the result (float32[]) has 1 inf; x (float32[]) held 1, y (float32[]) held 0" in fault(
        lambda: jg.constant(1.0) / 0.0, inf=True)
    assert "has 1 NaN and 1 -inf" in fault(lambda: jg.log(jg.constant([-1.0, 0.0])), inf=True)


def test_after_an_error_all_goes_on() -> None:
    v = jg.Variable([1.0, 4.0])
    with jg.debug_nans():
        with pytest.raises(FloatingPointError):
            v.assign_add(jg.sqrt(-v))
        with pytest.raises(FloatingPointError):
            v.assign_sub(jg.constant([np.nan, 0.0]))
        assert v.numpy().tolist() == [1.0, 4.0]
        with jg.GradientTape() as tape:
            with pytest.raises(FloatingPointError):
                jg.sqrt(-v)
            y = jg.sqrt(v)
        assert tape.gradient(y, v).numpy().tolist() == [0.5, 0.25]
    assert np.isnan(jg.sqrt(-v).numpy()).all()


# ---- gradients -----------------------------------------------------------------------------------

def born_backward() -> Any:
    """A tape whose gradient is 0 * inf; the forward values are fine."""
    x = jg.Variable([0.0, 1.0])
    with jg.GradientTape(persistent=True) as tape:
        y = jg.sqrt(x) ** 3.0 + jg.power(x, jg.constant([0.5, 0.5]))  # recorded here
        z = y * jg.constant([0.0, 1.0]) - 1.0
    return tape, y, z, x


def test_a_nan_born_in_a_gradient_names_the_recorded_operation() -> None:
    x = jg.Variable([0.0, 1.0])

    def program() -> None:
        with jg.GradientTape() as tape:
            y = x * jg.constant([0.0, 1.0])  # multiplied
        tape.gradient(y, x, output_gradients=np.array([np.inf, 1.0]))  # differentiated
    said = fault(program)
    assert re.match(r"\w+, in the backward pass of multiply\(float32\[2\], float32\[2\]\) recorded at ", said)
    assert f"recorded at {line_of('# multiplied')}, the result (float32[2]) has 1 NaN;" in said
    assert said.endswith(f"(at {line_of('# differentiated')})")


def test_a_tape_recorded_before() -> None:
    x = jg.Variable([0.0, 1.0])
    with jg.GradientTape() as tape:
        y = x * jg.constant([0.0, 1.0])
    assert "recorded before debug_nans was on" in fault(lambda: tape.gradient(y, x, output_gradients=np.array([np.inf, 1.0])))


def test_cotangents_that_cancel() -> None:
    x = jg.Variable(2.0)
    with jg.GradientTape() as tape:
        y, z = x * 1.0, x * 1.0
    said = fault(lambda: tape.gradient([y, z], x, output_gradients=[np.inf, -np.inf]))
    assert said.startswith("add, in the backward pass, the result (float32[]) has 1 NaN; x (float32[]) held ")


def test_what_a_rule_throws_away_is_no_fault() -> None:
    """A zero cotangent at an infinite slope: inside the rule 0 * inf is made, and not chosen."""
    tape, y, z, x = born_backward()
    want = tape.gradient(z, x).numpy()
    with jg.debug_nans():
        np.testing.assert_array_equal(tape.gradient(z, x).numpy(), want)
    assert "in the backward pass of power" in fault(lambda: tape.gradient(y, x), inf=True)


def test_rules_of_the_user() -> None:
    @jg.custom_gradient
    def f(x: Any) -> Any:
        return jg.sin(x), lambda g: jg.log(-g)  # the user's rule
    x = jg.Variable(1.0)

    def program() -> None:
        with jg.GradientTape() as tape:
            y = f(x)
        tape.gradient(y, x)
    said = fault(program)
    assert "log, in the backward pass of custom(float32[], float32[])" in said
    assert said.endswith(f"(at {line_of('# the user')})")


def test_second_derivatives() -> None:
    x = jg.Variable([0.0, 1.0])

    def program() -> None:
        with jg.GradientTape() as outer:
            with jg.GradientTape() as inner:
                y = x * x * jg.constant([0.0, 1.0])
            g = inner.gradient(y, x)  # the first
        outer.gradient(g, x, output_gradients=np.array([np.inf, 1.0]))
    assert re.search(rf"backward pass of \w+\(.*\) recorded at {re.escape(line_of('# the first'))}", fault(program))


@pytest.mark.parametrize("method", ["jacobian", "batch_jacobian"])
def test_jacobians(method: str) -> None:
    x = jg.Variable([[2.0, 1.0], [3.0, 1.0]])
    with jg.GradientTape(persistent=True) as tape:
        y = x * jg.constant([np.inf, 1.0])              # a row of zeros and a one meets the infinity
        fine = x * x
    with jg.debug_nans():
        assert getattr(tape, method)(fine, x).numpy().ravel()[-1] == 2.0
    assert "in the backward pass of multiply" in fault(lambda: getattr(tape, method)(y, x))


def test_gradients_are_those_without_the_checks() -> None:
    v, w = jg.Variable(np.linspace(-1, 1, 6).reshape(2, 3), dtype="float64"), jg.Variable(np.ones((3, 2)))
    unused = jg.Variable(1.0)

    def program() -> list[Any]:
        with jg.GradientTape(persistent=True) as outer:
            with jg.GradientTape() as tape:
                y = jg.sum(jg.tanh(v @ w) * jg.softmax(v @ w)) + jg.mean(jg.exp(v))
            g = tape.gradient(y, [v, w, unused])
            h = jg.sum(g[0] * g[0])
        return [*g, *outer.gradient(h, [v, w]), outer.gradient(h, {"w": w}, unconnected_gradients="zero")["w"]]
    plain = program()
    with jg.debug_nans():
        jg.testing.assert_allclose(program(), plain)


# ---- Programs ------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_an_optimizer_changes_nothing_when_it_raises(name: str) -> None:
    v = jg.Variable([1.0, 2.0])
    optimizer = getattr(optimizers, name)(0.1)
    optimizer.apply_gradients([(jg.constant([1.0, 1.0]), v)])
    state = v.numpy().tolist()
    said = fault(lambda: optimizer.apply_gradients([(jg.constant([np.nan, 1.0]), v)]))  # the step
    assert re.match(r"\w+(, in a program of \d+ rows,|:) the result .* NaN already", said)
    assert said.endswith(f"(at {line_of('# the step')})") and v.numpy().tolist() == state
    with jg.debug_nans():
        optimizer.apply_gradients([(jg.constant([1.0, 1.0]), v)])
    assert np.isfinite(v.numpy()).all() and v.numpy().tolist() != state


def test_a_recorded_gradient_on_an_outer_tape() -> None:
    """A `call` row that was recorded before the checks: its rows are looked at all the same."""
    x = jg.Variable([0.0, 1.0])
    with jg.GradientTape() as outer:
        with jg.GradientTape() as inner:
            y = x * x * jg.constant([0.0, 1.0])
        g = inner.gradient(y, x)
    assert "in a program of" in fault(lambda: outer.gradient(g, x, output_gradients=np.array([np.inf, 1.0])))


# ---- the switch ----------------------------------------------------------------------------------

def nan() -> Any:
    return jg.sqrt(jg.constant(-1.0))


def test_the_switch_and_nested_blocks() -> None:
    switch = jg.debug_nans()
    try:
        assert nans.checking() and lines.noting()
        with jg.debug_nans(False):
            assert np.isnan(nan().numpy())
        with jg.debug_nans(inf=True):
            with pytest.raises(FloatingPointError), jg.debug_nans():
                nan()
            with pytest.raises(FloatingPointError):
                jg.constant(1.0) / 0.0
        assert float(jg.constant(1.0) / 0.0) == np.inf
        with pytest.raises(FloatingPointError):
            nan()
    finally:
        jg.debug_nans(False)
    assert np.isnan(nan().numpy()) and not nans.checking() and not lines.noting()
    with switch:                              # left again: as it was when it was made
        pass
    assert not nans.checking()


def test_lines_stay_noted_where_they_were() -> None:
    jg.debug_lines()
    try:
        with jg.debug_nans():
            pass
        assert lines.noting()
    finally:
        jg.debug_lines(False)


def test_checks_are_no_reads_of_the_user() -> None:
    x = jg.Variable(2.0)
    with jg.debug_nans():
        with jg.GradientTape(persistent=True) as tape:
            y = jg.exp(x)
            z = jg.constant(1.0)
        assert "Numbers left" not in tape.explain(z, x) and tape.gradient(y, x) is not None


def test_the_environment_turns_it_on() -> None:
    code = ("import jitgrad as jg, sys\nx = jg.constant(float(sys.argv[1]))\n"
            "try:\n    print(x / 0.0)\nexcept FloatingPointError as error:\n    print(error)")
    for value, number, words in (("1", "0", "divide: "), ("1", "1", "inf"), ("inf", "1", "divide: "), ("0", "0", "nan")):
        done = subprocess.run([sys.executable, "-c", code, number], capture_output=True, text=True, check=True,
                              env={**os.environ, "JITGRAD_DEBUG_NANS": value})
        assert words in done.stdout and done.stdout.count("\n") == 1


def test_values_die_as_ever() -> None:
    """Neither checks that pass nor errors that were dealt with keep a Tensor."""
    x = jg.Variable([0.0, 1.0])

    def program(seed: Any) -> list[Any]:
        with jg.GradientTape() as tape:
            y = jg.divide(1.0, x + 1e-3)
        try:
            g = tape.gradient(y, x, output_gradients=seed)
        except FloatingPointError:
            g = y
        return [weakref.ref(t) for t in (y, g)]
    with jg.debug_nans():
        refs = program(np.ones(2)) + program(np.array([np.nan, 1.0]))
        gc.collect()
        assert [r() for r in refs] == [None] * 4


def test_threads() -> None:
    """A rule of one thread hides nothing in another."""
    found: list[str] = []

    def work(n: int) -> None:
        for i in range(30):
            x = jg.Variable([float(n), 1.0])
            try:
                with jg.GradientTape() as tape:
                    y = jg.sqrt(x - 2.0 * (i % 2) * n - 1e-3)
                tape.gradient(y, x)
            except FloatingPointError as error:
                found.append(str(error))
    with jg.debug_nans():
        threads = [threading.Thread(target=work, args=(n,)) for n in (1, 2, 3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert len(found) == 45 and all(said.startswith("sqrt: ") for said in found)
