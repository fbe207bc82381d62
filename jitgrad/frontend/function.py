"""What users hold of `jitgrad.function`: the decorator, and the methods of what it makes."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from jitgrad.core.aval import as_length
from jitgrad.core.errors import user_error
from jitgrad.core.program import Program
from jitgrad.core.tensor import install as install_methods
from jitgrad.execute.cpu.function_type import Function
from jitgrad.frontend.recorded import CacheInfo, Recorded, make
from jitgrad.frontend.traces import Entry


class FunctionMethods:
    """A Python function of Tensors that is recorded when it is called and replayed from then on; see `function`."""

    _impl: Recorded

    def program(self, *args: Any, **kwargs: Any) -> Program:
        """The Program that replays of a call with these arguments run. The call is made to record it, and Variables
        get back what they held; RuntimeError if it makes Variables, as a first call does.

        >>> import jitgrad as jg
        >>> jg.function(lambda x: x * x + 1.0).program(jg.ones(3))
        <Program: 1 inputs, 2 rows, 1 results>
        """
        return self._impl.program(args, kwargs)

    def warmup(self, *args: Any, **kwargs: Any) -> None:
        """Have the machine code for calls with such arguments ready, without making one.

        For a Tensor, anything else that has a shape and a dtype will do. The code of the
        function runs as in a call, on Tensors without numbers; where it goes by numbers, and arguments have them, it
        runs as a plain call, after which Variables get back what they held. Raises TypeError where it goes by numbers
        that are not given, and what the function raises.

        >>> import jitgrad as jg
        >>> from jitgrad.interop.tensorflow import TensorSpec
        >>> double = jg.function(lambda x: x + x)
        >>> double.warmup(TensorSpec((2,), "float32"))
        >>> double(jg.constant([1.0, 2.0])).tolist(), double.cache_info().hits
        ([2.0, 4.0], 1)
        """
        self._impl.warmup(args, kwargs)

    def njit(self, *example_args: Any, out: bool = False) -> Any:
        """The call with arguments like these, as machine code for functions that `numba.njit` compiles.

        It takes C-contiguous arrays (or Tensors) of the shapes and dtypes of the example, numbers, and tuples of such
        for tuples, lists and dicts, all by position; it returns new arrays and numbers, in tuples. What else was given
        is as it was. With ``out`` the caller gives memory for the arrays that it returns, in order, after arguments.
        It needs no GIL, and threads may share it. Variables are read and assigned as in Python, of which the latter
        takes the GIL for a moment; who assigns the same Variable in two threads may miss an assignment.

        Raises TypeError for what cannot run without Python. Where Numba compiles a call: TypingError for other dtypes
        and numbers of axes. In a call, for `except Exception` of Numba's as well: ValueError for another shape or
        layout, RuntimeError where a number is not the one that Python went by, IndexError, MemoryError.

        >>> import numba
        >>> import numpy as np
        >>> import jitgrad as jg
        >>> slope = jg.function(jg.grad(lambda x: jg.sum(x * x))).njit(np.ones(3))
        >>> @numba.njit(nogil=True)
        ... def descend(x, steps):
        ...     for _ in range(steps):
        ...         x = x - 0.25 * slope(x)
        ...     return x
        >>> descend(np.array([1., 2., 4.]), 2)
        array([0.25, 0.5 , 1.  ])
        """
        above = importlib.import_module("jitgrad.interop.numba.compiled")     # this layer is for all, that one for few
        return above.njit(self, example_args, out)

    def show(self) -> str:
        """Every trace as two tables: its rows with value, op, operands, type, bytes and the source line that made
        them; and the steps of its plan with what runs them and the bytes that they read and write.

        >>> import jitgrad as jg
        >>> f = jg.function(lambda x: jg.sum(jg.tanh(x) * x))
        >>> _ = f(jg.ones(1000))
        >>> print(f.show())  # doctest: +ELLIPSIS
           value  op...
        results: %4
        <BLANKLINE>
        step  what it runs                rows x length  how ...
           0  tanh, multiply, reduce_sum       1 x 1000  ... lanes, 1 pass  4.0 kB  4 bytes
        1 step of 4 rows...; 4.0 kB read and written, 0 bytes of working memory, 4 bytes of results
        """
        return "\n\n".join(f"{e.program.show()}\n\n{e.plan.show()}" for e in self._entries())

    def ir(self) -> str:
        """The LLVM text of the machine code of every trace: one function ``@plan(ptr table, ptr arena)`` each.

        >>> import jitgrad as jg
        >>> f = jg.function(lambda x: x * x)
        >>> _ = f(jg.ones(3))
        >>> "define i64 @plan(ptr %table, ptr %arena)" in f.ir()
        True
        """
        return "\n".join(e.plan.ir() for e in self._entries())

    def _entries(self) -> list[Entry]:
        return [e for impl in self._impl.by_arguments() for e in impl.entries]

    def cache_info(self) -> CacheInfo:
        """How many calls were replays, how many were recorded, how many traces are kept and were dropped.

        >>> import jitgrad as jg
        >>> f = jg.function(lambda x: x * x)
        >>> for i in range(3): _ = f(jg.ones(3) * i)
        >>> f.cache_info()
        CacheInfo(hits=2, recordings=1, traces=1, dropped=0, python_bound=False)
        """
        impls = self._impl.by_arguments()
        return CacheInfo(sum(i.hits() for i in impls), sum(i.recordings for i in impls),
                         sum(len(i.entries) for i in impls), sum(i.dropped for i in impls), any(i.bound for i in impls))

    def __repr__(self) -> str:
        return f"<jitgrad.function {self._impl.name}>"

    def __reduce__(self) -> str:                     # copied and pickled as Python's functions are
        return str(vars(self)["__qualname__"])


install_methods(FunctionMethods, Function)


def function(f: Callable[..., Any] | None = None, *, on_branch_change: str = "retrace", check_every: int = 0,
             eager_compile: bool = False) -> Any:
    """Record calls of ``f`` and replay them in machine code: for `@jitgrad.function`, methods and partials too.

    The first call runs as plain Python, and is recorded. Later calls with arguments of the same structure, dtypes,
    shapes and Python values replay it, without Python; where something has changed that the function went by, it is
    recorded again: numbers that Python read from Tensors (a branch taken), names and attributes that it used, the
    contents of NumPy arrays, layers and optimizers. Variables are read and assigned as in plain Python. What else
    Python does (printing, clocks, its own random numbers, appending to lists) is done when recorded only. A call that
    is recorded and given 32 MiB or more of arrays, Tensors and Variables computes as late as it can, without a tape
    around it: up to a number when the code asks for that, the rest at the end, in machine code. So it has no need of
    memory for all that it passes through. A Python number is a key until a second value comes; then the function is
    recorded with the number as data, and once more as plain Python if that does not give the same bits. Containers
    among the arguments are copied.

    ``on_branch_change``: "retrace", or "raise" for a RuntimeError where a branch would be taken that was not recorded.
    ``check_every``: compare every n-th replay with plain Python, RuntimeError where they differ; slow, for debugging.
    ``eager_compile``: a first call is answered by machine code already. The code of ``f`` runs without numbers then, on
    Tensors that have a shape and a dtype only; where it asks for a number, it is run again as a plain first call.
    Without it a recording is compiled in the background, once it was replayed a few times.
    Raises TypeError for what is not callable, and for generators and coroutines.

    >>> import jitgrad as jg
    >>> w = jg.Variable(2.0)
    >>> @jg.function
    ... def step(x):
    ...     with jg.GradientTape() as tape:
    ...         loss = (w * x - 1.0) ** 2
    ...     w.assign_sub(0.1 * tape.gradient(loss, w))
    ...     return loss
    >>> [round(float(step(jg.constant(1.0))), 4) for _ in range(3)]
    [1.0, 0.64, 0.4096]
    """
    if f is None:
        return functools.partial(function, on_branch_change=on_branch_change, check_every=check_every,
                                 eager_compile=eager_compile)
    if isinstance(f, Function):
        return f
    if not callable(f):
        raise user_error(TypeError, f"function: takes a callable, got {type(f).__name__}")
    if inspect.isgeneratorfunction(f) or inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f):
        raise user_error(TypeError, f"function: {getattr(f, '__name__', f)} is a generator or coroutine, whose body "
                                    "runs after the call; decorate the function that it calls")
    if on_branch_change not in ("retrace", "raise"):
        raise user_error(ValueError, f"function: on_branch_change is 'retrace' or 'raise', got {on_branch_change!r}")
    return make(f, on_branch_change, as_length(check_every, "function: check_every"), bool(eager_compile))
