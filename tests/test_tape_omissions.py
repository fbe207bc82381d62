"""Every test of TensorFlow's backprop_test.py is expressed, waits, or never will be."""

import ast
import collections
import pathlib

import pytest

import jitgrad as jg
from tape_omissions import NAMES, NEVER, WAITS
from tapes import leakless

FILES = (*sorted(pathlib.Path(__file__).parent.glob("test_tape_*.py")), pathlib.Path(__file__).parent / "test_guides.py")


def marked(decorator):
    """Names given to a decorator of test functions, read from the sources (so also when one file runs alone)."""
    found = collections.Counter()
    for file in FILES:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
                for call in node.decorator_list:
                    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == decorator:
                        found.update(argument.value for argument in call.args)
    return found


def test_every_name_has_one_place():
    expressed = marked("expresses")
    assert len(NAMES) == len(set(NAMES)) == 151
    assert not set(expressed) & set(NEVER) and not set(expressed) & set(WAITS) and not set(NEVER) & set(WAITS)
    assert set(expressed) | set(NEVER) | set(WAITS) == set(NAMES)


def test_what_waits_has_a_test_that_fails():
    assert set(marked("waits")) == set(WAITS)


def test_the_leak_check_sees_a_cycle_and_a_kept_tensor():
    kept = []

    @leakless
    def keeps():
        kept.append(jg.constant(1.0) + 1.0)

    @leakless
    def knots():
        knot = [jg.constant(1.0)]
        knot.append(knot)

    with pytest.raises(AssertionError, match="alive"):
        keeps()
    with pytest.raises(AssertionError):
        knots()
