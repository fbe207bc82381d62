"""Every row that the benchmark of the CUDA path times gives the right numbers, small, in the emulator of a GPU."""

from __future__ import annotations

import os

import pytest

from benchmarks.cuda import workloads
from benchmarks.cuda.ways import EACH, END, ISSUED
from benchmarks.side_by_side import excess
from benchmarks.worker import described
from cuda_here import RUNS

alone = pytest.mark.skipif(not os.environ.get("JITGRAD_EMULATOR"), reason="it makes the rows small for all of a process")
pytestmark = [*RUNS, alone]


@pytest.fixture(scope="module")
def jitgrad():
    os.environ.update(workloads.TINY.settings(), BENCHMARKS_DEVICE="cuda")
    from benchmarks.cuda import use_jitgrad
    return use_jitgrad


@pytest.mark.parametrize("name", [row.name for row in workloads.rows(workloads.TINY)])
def test_rows_are_right(jitgrad, name):
    (row,) = (row for row in workloads.rows(workloads.TINY) if row.name == name)
    answers, found = row.answers(), list(jitgrad.WORKLOADS[name]())
    assert {mode.label.partition(":")[0] for mode in found} == {EACH, END, ISSUED}
    for mode in found:
        told = described(mode)
        assert not told["result"] or excess(told["result"], answers, row) <= 1, mode.label
        mode.loop(mode.whole)
    assert name != "sums" or all(mode.nodes for mode in found)
