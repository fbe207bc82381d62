"""`Function.show` and `Function.ir` tell what plans run."""

from __future__ import annotations

import re

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.execute.cpu import compiling


def shown(f, *args):
    """The lines of the plan of a call, and the numbers of its last."""
    made = jg.function(f)
    made(*args)
    *lines, last = made.show().split("\n\n")[-1].splitlines()
    return lines[1:], last


def zeros(*shape):
    return jg.zeros(shape, "float32")


def test_what_is_fused_is_one_step_that_moves_what_it_has_to():
    lines, last = shown(lambda x, b: jg.relu(x * 2.0 + b) - 1.0, zeros(100, 50), zeros(50))
    (line,) = lines
    assert re.search(r"multiply, add, relu, subtract +100 x 50 .* 20\.2 kB +20\.0 kB$", line)
    assert last.startswith("1 step of 4 rows")
    assert last.endswith("40.2 kB read and written, 0 bytes of working memory, 20.0 kB of results")


def test_working_memory_is_what_lies_between_steps():
    lines, last = shown(lambda x: (jg.exp(x) @ jg.exp(x)) * 2.0, zeros(100, 100))
    assert len(lines) == 3
    assert "80.0 kB of working memory, 40.0 kB of results" in last


@pytest.mark.parametrize(("f", "args", "how"), [
    (lambda x, y: x @ y, (zeros(8, 8), zeros(8, 8)), r"matmul \(8,8\) \(8,8\) .*register tiles"),
    (lambda x, y: x @ y, (zeros(300, 300), zeros(300, 300)), r"matmul \(300,300\) .*BLAS"),
    (lambda x: jg.cumulative_sum(x), (zeros(30),), r"cum\w+ \(30,\).*a kernel of its own"),
    (lambda x: jg.scan(lambda c, x: (c + x, c), x[0], x), (zeros(5),), "scan .*runs bodies of its own"),
    (lambda x: jg.softmax(x), (zeros(64, 300),), r"64 x 300 .* 3 passes"),
    (lambda x: jg.tanh(x), (zeros(1_000_000),), r"1 x 1000000 .* tasks"),
    (lambda x: (x * 2.0)[1:], (zeros(9),), "copy"),
], ids=["tiles", "BLAS", "kernel", "loop", "passes", "tasks", "copy"])
def test_what_runs_a_step_is_told(f, args, how):
    lines, _ = shown(f, *args)
    assert any(re.search(how, line) for line in lines), lines


def test_a_plan_tells_when_it_is_machine_code():
    f = jg.function(lambda x: x * 3.25 + 1.5)
    for _ in range(40):
        f(np.ones(3, np.float32))
    compiling.wait()
    assert "1 step of 2 rows, as machine code;" in f.show()


def test_the_text_of_a_plan_has_its_calls_and_loops():
    f = jg.function(lambda x: jg.sum(jg.sort(x) * 2.0))
    f(zeros(5000))
    text = f.ir()
    assert text.count("define i64 @plan(ptr %table, ptr %arena)") == 1
    assert "call i64 @kernel0(ptr @params" in text
    assert "fmul <" in text
