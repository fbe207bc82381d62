"""The benchmark of the CUDA path in Numba's simulator: rows are set up, checked and timed (test_cuda_rows.py has all)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def command(*given):
    return subprocess.run([sys.executable, "-m", "benchmarks.cuda", *given], cwd=ROOT, capture_output=True, text=True)


def test_rows_are_right_and_timed(tmp_path):
    done = command("--quick", "--only", "chain", "expression", "--json", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Not timed" not in done.stdout, done.stdout
    tables = json.loads((tmp_path / "found.json").read_text())["tables"]
    assert {*tables} == {"chain", "expression"}
    for rows in tables.values():
        assert {row["label"].partition(":")[0] for row in rows} == {
            "host time of asking", "waited for at each call", "waited for at the end"}
        assert all(row["worst"] <= 1 and row["median"] > 0 for row in rows)


def test_the_simulator_is_no_gpu_to_measure():
    done = command()
    assert done.returncode == 2 and "there is no GPU to measure" in done.stderr
