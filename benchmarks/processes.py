"""Fresh processes: from start to a library imported, and to a first gradient read, with warm and with empty caches.

Every process computes d/dx sin(x) x at x = 3 and prints it, which is checked. Bytecode files exist for all (one run
before the first that counts), as they do for whoever runs a program twice.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXPECTED = 3 * math.cos(3) + math.sin(3)
IMPORT = f"print({EXPECTED!r})"
GRADIENT = "\nprint(float({}))"
JITGRAD = "import jitgrad as jg\nx = jg.Variable(3.0)\nwith jg.GradientTape() as tape:\n    y = jg.sin(x) * x"
JAX = "import jax\nimport jax.numpy as jnp\ndef f(x):\n    return jnp.sin(x) * x"
NUMBA = """
import math
from numba import njit
@njit(cache=True)
def gradient(x):
    return math.cos(x) * x + math.sin(x)
print(gradient(3.0))
"""
TORCH = "import torch\nx = torch.tensor(3.0, requires_grad=True)\n(torch.sin(x) * x).backward()"
TENSORFLOW = ("import tensorflow as tf\nx = tf.Variable(3.0)\nwith tf.GradientTape() as tape:\n"
              "    y = tf.sin(x) * x")
AUTOGRAD = "import autograd.numpy as np\nfrom autograd import grad"


@dataclass
class Start:
    """One kind of process."""

    library: str
    label: str
    code: str
    empty: bool = False            # each round has an empty object cache
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def kinds() -> list[Start]:
    """What is timed."""
    first = JITGRAD + GRADIENT.format("tape.gradient(y, x)")
    return [
        Start("numpy", "import numpy", f"import numpy\n{IMPORT}"),
        Start("jitgrad", "import jitgrad, warm cache", f"import jitgrad\n{IMPORT}"),
        Start("jitgrad", "first gradient, warm cache", first),
        Start("jitgrad", "first gradient, empty cache", first, empty=True),
        Start("jax", "first gradient", JAX + GRADIENT.format("jax.grad(f)(3.0)")),
        Start("jax", "first gradient, jitted", JAX + GRADIENT.format("jax.jit(jax.grad(f))(3.0)")),
        Start("numba", "@njit(cache=True) by hand, warm cache", NUMBA),
        Start("torch", "first gradient", TORCH + GRADIENT.format("x.grad")),
        Start("tensorflow", "first gradient", TENSORFLOW + GRADIENT.format("tape.gradient(y, x)")),
        Start("autograd", "first gradient", AUTOGRAD + GRADIENT.format("grad(lambda x: np.sin(x) * x)(3.0)")),
    ]


def measure(rounds: int, libraries: list[str]) -> list[Start]:
    """All kinds whose library is here, interleaved."""
    wanted = [s for s in kinds() if s.library in (*libraries, "numpy", "numba")]
    with tempfile.TemporaryDirectory() as place:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        env |= {"PYTHONPATH": str(ROOT), "JITGRAD_CACHE_DIR": f"{place}/warm", "NUMBA_CACHE_DIR": f"{place}/numba",
                "PYTHONPYCACHEPREFIX": f"{place}/bytecode", "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu",
                "CUDA_VISIBLE_DEVICES": "-1"}
        here = [s for s in wanted if _run(s, place, env, 0) is not None]
        for turn in range(1, rounds + 1):
            for start in here:
                start.seconds.append(_run(start, place, env, turn) or math.nan)
    return here


def _run(start: Start, place: str, env: dict[str, str], turn: int) -> float | None:
    """Seconds of one process, its answer checked; None if the library is absent."""
    program = Path(place) / f"{start.library}_{abs(hash(start.label))}.py"
    program.write_text(start.code)                   # numba caches functions of files only
    if start.empty:
        env = env | {"JITGRAD_CACHE_DIR": f"{place}/empty{turn}"}
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, str(program)], env=env, capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    if "ModuleNotFoundError" in done.stderr:
        return None
    if done.returncode or not math.isclose(float(done.stdout), EXPECTED, rel_tol=1e-6):
        raise RuntimeError(f"{start.library}, {start.label}: printed {done.stdout!r}\n{done.stderr}")
    return seconds


def show(starts: list[Start]) -> None:
    """One table, as markdown."""
    print("\n### processes: from start to end of a fresh process, seconds\n\n| library | what | median | min |\n"
          "|---|---|--:|--:|")
    for s in starts:
        print(f"| {s.library} | {s.label} | {s.median:.3f} | {min(s.seconds):.3f} |")
    sys.stdout.flush()


def targets(starts: list[Start]) -> list[tuple[str, str, bool]]:
    """What was asked for, what was measured, whether it holds."""
    found = {(s.library, s.label): s.median for s in starts}
    above = found[("jitgrad", "import jitgrad, warm cache")] - found[("numpy", "import numpy")]
    lines = [("processes: import jitgrad, warm cache, at most 0.15 s above import numpy", f"{above:.3f} s",
              above <= 0.15)]
    jax = [seconds for (library, _), seconds in found.items() if library == "jax"]
    for cache, limit in (("warm", 0.4), ("empty", 2.0)):
        if jax:
            ratio = found[("jitgrad", f"first gradient, {cache} cache")] / min(jax)
            lines.append((f"processes: first gradient with {cache} cache at most {limit:g}x of JAX's",
                          f"{ratio:.2f}x", ratio <= limit))
    return lines
