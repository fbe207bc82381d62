"""The benchmark of the CUDA path where there is no GPU: what it says, and what it can measure all the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cuda import arithmetic
from jitgrad.execute.cuda import stream

ROOT = Path(__file__).resolve().parent.parent


def command(*given):
    return subprocess.run([sys.executable, "-m", "benchmarks.cuda", *given], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.skipif(not stream.problem(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_is_missing():
    done = command()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("benchmarks.cuda: there is no GPU to measure: ") and done.stderr.count("\n") == 1


def test_the_hosts_part_needs_no_gpu():
    """Under a driver that does nothing; and each function replays, or it would take milliseconds."""
    done = command("--host", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^\| [^|]+ \| \d+\.\d+ \| \d+\.\d+ \|$", done.stdout, re.MULTILINE)) == 4
    assert "recorded" not in done.stderr and "plain Python" not in done.stderr


PTX = """
.visible .entry f(
$L__BB0_1:
add.s64 %rd1, %rd1, 1;
$L__BB0_2:
ld.global.f32 %f1, [%rd1];
mov.f32 %f2, 0f3F800000;
@%p1 bra $L__BB0_4;

mul.rn.f32 %f1, %f1, %f1;
mul.rn.f32 %f1, %f1, %f1;
$L__BB0_4:
div.rn.f32 %f3, %f1, %f2;
@%p2 bra $L__BB0_2;
setp.lt.s64 %p3, %rd1, %rd2;
@%p3 bra $L__BB0_1;
ret;
"""


def test_instructions_are_counted_once_around_the_innermost_loop():
    assert arithmetic.instructions(PTX) == 1 + 1 + arithmetic.DIVISION + 1        # load, branch, division, branch
    assert arithmetic.instructions(PTX.replace("@%p1 bra $L__BB0_4;", "")) == 1 + 2 + arithmetic.DIVISION + 1
    assert arithmetic.Arithmetic(100, 1e6).limit(10_000) == 1.0
