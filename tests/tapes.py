"""Helpers of the tape tests: leak checks, nests as plain numbers, derivatives of several orders."""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import logging
import sys

import jitgrad as jg
from still import still

RUNS, WARM = 3, 4
logger = logging.getLogger("jitgrad")
TYPES = tuple(dict.fromkeys(
    kind for start in (jg.Tensor, jg.Variable, jg.GradientTape) for kind in start.__mro__ if kind is not object))


def leakless(test):
    """Run a test, warm, ``RUNS`` times with the collector off: nothing may stay alive and nothing may be cyclic.

    Each instance of a heap type holds a reference to its type, so a type's reference count tells how many are alive,
    Tensors included, which the collector does not see. Warm is a run that leaves no cycle (llvmlite leaves some when it
    first links a kernel).
    """
    @functools.wraps(test)
    @still()
    def checked(*args, **kwargs):
        enabled, logger.disabled = gc.isenabled(), True       # pytest keeps what is logged
        gc.disable()
        gc.freeze()
        try:
            for _ in range(WARM):
                test(*args, **kwargs)
                test(*args, **kwargs)
                if gc.collect() == 0:
                    break
            before, others = census(), [other_objects()]
            for _ in range(RUNS):
                test(*args, **kwargs)
                others.append(other_objects())
            after, cycles = census(), gc.collect()
        finally:
            gc.unfreeze()
            logger.disabled = False
            if enabled:
                gc.enable()
        assert after == before, f"instances alive before {before} and after {after}"
        assert cycles == 0, f"{cycles} objects in reference cycles"
        assert any(m <= n for n, m in itertools.pairwise(others)), f"each run leaves objects behind: {others}"
    return checked


def other_objects():
    """Objects made since the collector was frozen, without the parameters that inline caches keep."""
    return sum(type(o) is not tuple and type(o) is not list for o in gc.get_objects())


def census():
    """Instances alive per type, plus a constant."""
    return {kind.__name__: sys.getrefcount(kind) for kind in TYPES}


def numbers(nest):
    """A nest of Tensors, Variables and None with Python numbers in their places."""
    if isinstance(nest, dict):
        return type(nest)((key, numbers(value)) for key, value in nest.items())
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):
        return type(nest)(*map(numbers, nest))
    if isinstance(nest, list | tuple):
        return type(nest)(map(numbers, nest))
    return nest.numpy().tolist() if isinstance(nest, jg.Tensor | jg.Variable) else nest


def orders(f, x, count=2):
    """The value of a function, the gradient of its sum, the gradient of that gradient's sum and so on, by nested tapes."""
    x = jg.asarray(x)
    with contextlib.ExitStack() as stack:
        tapes = [stack.enter_context(jg.GradientTape()) for _ in range(count)]
        for tape in tapes:
            tape.watch(x)
        y = f(x)
        out = [y.numpy()]
        for tape in reversed(tapes):        # an inner gradient is recorded by the tapes around it
            y = tape.gradient(y, x, unconnected_gradients=jg.UnconnectedGradients.ZERO)
            out.append(y.numpy())
    return out
