"""The end of the process: what is alive then dies after the modules, and the machine has to work for it."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import jitgrad as jg
class Holder: pass
keep = []
for i in range(20):
    h = Holder()
    h.self, h.tape, h.x = h, jg.GradientTape(persistent=True), jg.ones((3, i + 1))
    with h.tape:
        h.tape.watch(h.x)
        h.y = jg.sum(jg.exp(h.x) * 2.0)
    h.f = jg.function(lambda v, h=h: jg.grad(lambda w: jg.sum(w * w * h.y))(v))
    h.g = [h.f(jg.ones(i + 1)) for _ in range(3)]
    keep.append([h, keep])
"""


def test_objects_in_cycles_at_exit() -> None:
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
