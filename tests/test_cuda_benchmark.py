"""The benchmark of the CUDA path where there is no GPU: what it says, and what it can measure all the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

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
