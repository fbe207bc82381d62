"""Every single allocation of a program fails once: MemoryError or the right answer, never a crash or a wrong one."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("_testcapi", reason="CPython was built without its test modules")

PROGRAM = """
import gc
import sys
import _testcapi
import numpy as np
import jitgrad as jg

x, v = jg.asarray(np.linspace(0.5, 1.5, 6)), jg.Variable(np.ones((40, 40)))

def loop():
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = x
        for _ in range(300):
            y = y * 1.01
        z = jg.sum(y)
    return [tape.gradient(z, x)]

def mixed():
    with jg.GradientTape(persistent=True) as tape:
        tape.watch(x)
        y = jg.sin(x) * x + 0.5
        z = jg.sum(y) + jg.sum(v @ v) * 1e-9 + jg.sum(jg.sort(x))
    g = tape.gradient(z, [x, v])
    memoryview(g[0]), float(z)
    if sys.version_info >= (3, 12):       # which crashes itself where it gets no memory for a function or generator
        return g
    tape.watched_variables(), tape.show()
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = x * x
    return [*g, tape.jacobian(y, x)]

for program, last in ((loop, 700), (mixed, 2500)):
    program()
    want = [t.numpy() for t in program()]
    gc.collect()
    failed = 0
    for n in range(last):
        _testcapi.set_nomemory(n, n + 1)
        try:
            got = program()
            _testcapi.remove_mem_hooks()
            assert all((a.numpy() == b).all() for a, b in zip(got, want, strict=True)), n
        except Exception as error:       # ctypes wraps what its arguments raise, NumPy forgets it at times
            if not isinstance(error, SystemError) and "MemoryError" not in f"{type(error)} {error}":
                raise
            failed += 1
        finally:
            _testcapi.remove_mem_hooks()
    assert failed > 20, failed
    assert all((a.numpy() == b).all() for a, b in zip(program(), want, strict=True))
print("sound")
"""


def test_any_allocation_may_fail():
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", PROGRAM], capture_output=True, text=True)
    assert done.stdout.strip().endswith("sound"), done.stderr[-3000:]
