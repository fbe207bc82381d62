"""`numba_op`: a function that Numba compiles as an operation of jitgrad, with a derivative that its user says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jitgrad.core import nest
from jitgrad.core.aval import AVALS, Aval, aval
from jitgrad.core.dtypes import CODES, default_float, is_float
from jitgrad.core.errors import user_error
from jitgrad.core.form import form
from jitgrad.core.primitive import BY_NAME, KERNEL_RAISED, Kind, define
from jitgrad.core.record import bind, dispatch, replay, tensor
from jitgrad.execute.cpu import library
from jitgrad.frontend.bodies import Recorded
from jitgrad.ops import composite, creation
from jitgrad.ops.batching import Batch
from jitgrad.transform.tangent import transposed


class NumbaOp:
    """What `numba_op` makes of a function: call it on arrays."""

    def __init__(self, kernel: Callable[..., Any], vjp: Callable[..., Any] | None, jvp: Callable[..., Any] | None,
                 shape: Any, dtype: Any) -> None:
        if not hasattr(kernel, "py_func"):
            raise user_error(TypeError, f"numba_op: takes a function that numba.njit has decorated, not {kernel!r}")
        self.kernel, self.vjp, self.jvp = kernel, vjp, jvp
        self._shape, self._dtype = shape, dtype
        self.__name__ = getattr(kernel, "__name__", "a kernel")
        self.__doc__ = kernel.__doc__

    def __call__(self, *args: Any) -> Any:
        operands = [tensor(x) for x in args]
        made = form(BY_NAME["numba_op"], [AVALS[t._aval] for t in operands], {"op": self})
        library.realise(made)                        # what Numba has to say it says to who calls, and now
        return dispatch(made, operands)

    def __repr__(self) -> str:
        return f"<numba_op {self.__name__}>"

    def outs(self, operands: Sequence[Aval]) -> tuple[Aval, ...]:
        """What the results are."""
        shapes = self._shape
        if callable(shapes):
            shapes = shapes(*(a.shape for a in operands))
        elif shapes is None and operands:
            shapes = operands[0].shape
        several = isinstance(shapes, list)
        given = shapes if several else [shapes]
        if not given or not all(isinstance(s, tuple) and all(isinstance(n, int | np.integer) and n >= 0 for n in s)
                                for s in given):
            raise user_error(ValueError, f"numba_op: shape= of {self.__name__} is to give a tuple of lengths, or a "
                                         f"list of such for several results, not {shapes!r}")
        dtypes = self._dtype if isinstance(self._dtype, list) else [self._dtype] * len(given)
        if len(dtypes) != len(given):
            raise user_error(ValueError, f"numba_op: {self.__name__} has {len(given)} shapes but {len(dtypes)} dtypes")
        codes = [self._code(d, operands) for d in dtypes]
        return tuple(aval(code, tuple(map(int, s))) for code, s in zip(codes, given, strict=True))

    def _code(self, dtype: Any, operands: Sequence[Aval]) -> int:
        if dtype is None:
            first = operands[0].code if operands else default_float()
            return next((a.code for a in operands if is_float(a.code)), first)
        code = CODES.get(np.dtype(dtype))
        if code is None:
            raise user_error(TypeError, f"numba_op: {self.__name__}: there are no Tensors of dtype {np.dtype(dtype)}")
        return code


def _avals(*operands: Aval, op: NumbaOp) -> tuple[Aval, ...]:
    return op.outs(operands)


def _ref(run: Any, *arrays: Any, op: NumbaOp) -> Any:
    """By Python, with copies: what the kernel does is what its function does."""
    given = [np.array(a) if np.ndim(a) else np.asarray(a)[()] for a in arrays]
    codes = [aval(CODES[np.asarray(a).dtype], np.shape(a)) for a in arrays]
    outs = tuple(np.zeros(a.shape, a.dtype) for a in op.outs(codes))
    op.kernel(*given, *outs)
    return outs if len(outs) > 1 else outs[0]


def _filled(ts: Any, like: Sequence[Any]) -> tuple[Any, ...]:
    """One for each, zeros for None."""
    return tuple(creation.zeros_like(x) if t is None else t for t, x in zip(ts, like, strict=True))


def _several(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


def _like(x: Any, given: Sequence[Any]) -> Any:
    """As the user's rule has it: alone if the operation has one result."""
    return tuple(given) if isinstance(x, tuple) else given[0]


def _vjp(g: Any, ans: Any, *operands: Any, op: NumbaOp) -> list[Any]:
    if op.vjp is None:
        raise user_error(LookupError, f"numba_op: {op.__name__} has no derivative; give it one by vjp=")
    answer = op.vjp(_like(ans, _filled(_several(g), _several(ans))), ans, *operands)
    found = list(answer) if isinstance(answer, tuple | list) else [answer]
    if len(found) != len(operands):
        raise user_error(ValueError, f"numba_op: vjp= of {op.__name__} is to return {len(operands)} gradients, one for "
                                     f"each operand (None for none), but returned {len(found)}")
    return [_fitted(op, "vjp", k, t, x) for k, (t, x) in enumerate(zip(found, operands, strict=True))]


def _fitted(op: NumbaOp, rule: str, k: int, t: Any, x: Any) -> Any:
    """A derivative that has the shape of what it is of, and its dtype; None of what is no float."""
    value = AVALS[x._aval]
    if t is None or not is_float(value.code):
        return None
    t = tensor(t)
    if t.shape != value.shape:
        raise user_error(ValueError, f"numba_op: {rule}= of {op.__name__} returned shape {t.shape} in place {k}, for "
                                     f"{value!r}")
    return t if AVALS[t._aval].code == value.code else composite.astype(t, value.dtype)


def _jvp(ts: Sequence[Any], ans: Any, *operands: Any, op: NumbaOp) -> Any:
    answers = _several(ans)
    if op.jvp is None:
        return _like(ans, _transposed(ts, answers, isinstance(ans, tuple), operands, op))
    found = _several(op.jvp(_filled(ts, operands), ans, *operands))
    if len(found) != len(answers):
        raise user_error(ValueError, f"numba_op: jvp= of {op.__name__} is to return {len(answers)} tangents, but "
                                     f"returned {len(found)}")
    return _like(ans, [_fitted(op, "jvp", k, t, x) for k, (t, x) in enumerate(zip(found, answers, strict=True))])


def _transposed(ts: Sequence[Any], answers: Sequence[Any], many: bool, operands: Sequence[Any],
                op: NumbaOp) -> list[Any]:
    """The tangents of the results: gradients are linear in what they are given, and these are their transpose."""
    n, moving = len(answers), [k for k, t in enumerate(ts) if t is not None]

    def pulled(*given: Any) -> list[Any]:
        gs, ys, xs = given[:n], given[n: 2 * n], given[2 * n:]
        pick = tuple if many else (lambda items: items[0])
        found = _vjp(pick(gs), pick(ys), *xs, op=op)
        return [creation.zeros_like(xs[k]) if found[k] is None else found[k] for k in moving]

    values = [AVALS[t._aval] for t in (*answers, *answers, *operands)]
    _, places = nest.flatten(tuple(range(len(values))))
    made = Recorded(pulled, places, values)
    made.close(made.results)
    around = made.captured
    program = made.program([*made.inputs, *around])
    back = transposed(program, range(n), f"numba_op: vjp= of {op.__name__}")
    return replay(back, [*[None] * n, *answers, *operands, *around, *(ts[k] for k in moving)])


def _batch(batched: Sequence[bool], size: int, *operands: Any, op: NumbaOp) -> Batch:
    """One example after the other."""
    rows = [_several(bind("numba_op", [x[i] if has else x for x, has in zip(operands, batched, strict=True)], op=op))
            for i in range(size)]
    outs = tuple(composite.stack(column) for column in zip(*rows, strict=True))
    return outs, (True,) * len(outs)


def _body() -> None:
    """A function that Numba compiles."""


define(_body, name="numba_op", kind=Kind.HIGHER, vjp=_vjp, jvp=_jvp, batch=_batch, aval=_avals, ref=_ref, samples=None,
       operands=("*xs",), params=("op",), domains=("any",), runner="numba_kernels",
       host="its function is compiled by Numba for the processor",
       errors={KERNEL_RAISED: "the function raised an exception; call it on NumPy arrays to see which"})


def numba_op(kernel: Callable[..., Any], *, vjp: Callable[..., Any] | None = None,
             jvp: Callable[..., Any] | None = None, shape: Any = None, dtype: Any = None) -> NumbaOp:
    """A function that `numba.njit` has decorated as an operation: it joins tapes and recordings like any other.

    ``kernel(*operands, *results)`` fills its last arguments, C-contiguous arrays whose content is undefined, from the
    others, which it must not change: arrays of any dtypes of Tensors, and numbers for operands without axes. It may
    run without the GIL, in several threads at once. A result without axes is an array, too: ``out[()] = ...``.

    ``shape(*shapes of the operands)`` gives the shape of the result, or a list of shapes for several; so does a tuple
    or list as it is; by default it is that of the first operand. ``dtype`` (a list for several) is by default that of
    the first float among the operands.

    ``vjp(dy, y, *operands)`` returns a gradient for each operand, None for none, computed by operations of jitgrad,
    other `numba_op` among them; of several results, ``dy`` and ``y`` are tuples. ``jvp(tangents, y, *operands)``
    returns the tangent of each result; by default it is made of ``vjp``, which is linear in ``dy``. Check them by
    `jitgrad.testing.check_grads`.

    Raises TypeError for what is no such function, and, when called, where Numba does not compile it for the operands;
    ValueError for a wrong shape, or count of gradients; LookupError for a gradient without ``vjp``; RuntimeError where
    the function raises.

    >>> import numba
    >>> import jitgrad as jg
    >>> @numba.njit
    ... def cube(x, out):
    ...     for i in range(len(x)):
    ...         out[i] = x[i] ** 3
    >>> op = jg.numba_op(cube, vjp=lambda dy, y, x: 3 * dy * x * x)
    >>> jg.grad(lambda x: jg.sum(op(x)))(jg.constant([1., 2.])).numpy()
    array([ 3., 12.], dtype=float32)
    """
    return NumbaOp(kernel, vjp, jvp, shape, dtype)
