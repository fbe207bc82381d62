"""The benchmark of the CUDA path where there is no GPU: what it says, and what it can measure all the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cuda import arithmetic, targets
from benchmarks.cuda.ways import EACH, END, ISSUED
from benchmarks.cuda.workloads import COPY
from benchmarks.side_by_side import Row
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


def row(library, label, median, nodes=0):
    return Row(library, "", label, False, 0.0, [median], nodes=nodes)


def test_targets_go_by_the_time_of_all_the_work():
    tables = {
        "mlp": [row("jitgrad", f"{END}: function", 40.0), row("jitgrad", f"{ISSUED}: function", 8.0),
                row("torch", f"{END}: eager, nn", 70.0), row("torch", f"{END}: torch.compile(step)", 50.0),
                row("torch", f"{ISSUED}: eager, nn", 60.0), row("jax", f"{END}: jit(step)", 41.0),
                row("jax", f"{EACH}: jit(step)", 30.0)],
        "sums": [row("jitgrad", f"{END}: function", 300.0, 150), row("jitgrad", f"{ISSUED}: function", 9.0, 150)],
        "expression": [row("jitgrad", f"{END}: function", 400.0), row("jitgrad", f"{END}: {COPY}", 300.0)],
        "matmul": [row("jitgrad", f"{END}: function", 104.0), row("torch", f"{END}: eager", 100.0)],
        "matmul-tf32": [row("jitgrad", f"{END}: function", 106.0), row("torch", f"{END}: eager", 100.0)]}
    found = targets.found(tables, 10**8, arithmetic.Arithmetic(100, 1e8))
    holds = {text: (got, fine) for text, got, fine in found}

    def of(*words):
        (line,) = (value for text, value in holds.items() if all(word in text for word in words))
        return line
    assert of("mlp", "2x faster than torch", "eager") == ("1.75x by medians, 1.75x by minima (40 us against 70)", False)
    assert of("mlp", "1x faster than jax")[1] is True
    assert of("mlp", "against torch", "compile")[1] is None
    assert of("mlp", "host time")[0] == "8.00 us"
    assert of("sums", "15 us of host time", "150 nodes")[1] is True
    assert of("sums", "2 us for a node") == ("2.00 us (300.0 us for all)", True)
    assert of("expression", "60 % of the bandwidth") == ("75 % (2,000 GB/s of x and gradient against 2,667)", True)
    assert "100 us, 25 % of what it takes" in of("expression", "arithmetic limit")[0]
    assert of("matmul: ", "at most 1.05x")[1] is True and of("matmul-tf32: ", "at most 1.05x")[1] is False
