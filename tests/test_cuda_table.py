"""Each entry of the table has its place on a GPU, whether or not there is one."""

from __future__ import annotations

import importlib.util

import pytest

import jitgrad.interop.numba.op  # noqa: F401  # has an entry of its own
from jitgrad.core.primitive import TABLE, Kind
from jitgrad.execute.cuda import library
from table import ident


@pytest.mark.parametrize("prim", TABLE, ids=ident)
def test_an_entry_has_kernels_or_programs_or_a_reason(prim):
    """Rows that hold Programs are inlined by the plan, or are control flow, which it drives."""
    holds = prim.kind is Kind.HIGHER and ("program" in prim.params or prim.runner == "control")
    assert [library.has_kernel(prim), holds, bool(prim.host)].count(True) == 1
    assert not prim.host or (" " in prim.host and not prim.host.endswith("."))
    assert not prim.cuda or importlib.util.find_spec(f"jitgrad.execute.cuda.{prim.cuda}")
