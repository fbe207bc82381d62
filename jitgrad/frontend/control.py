"""Control flow that stays one row: `cond`, `while_loop`, `fori_loop`, `scan`, by JAX's names and arguments.

The functions are recorded dry. They may read and assign Variables, and use what is around them: the rows get it all as
operands, so that gradients go there and a recorded function replays it. Of a Variable that they assign, a tape around
sees what it held before alone: its gradient is that of the reads of this value, where plain Python counts every read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from jitgrad import ops
from jitgrad.core import backend, nest
from jitgrad.core.aval import AVALS, as_length, aval
from jitgrad.core.dtypes import BOOL, is_float
from jitgrad.core.errors import user_error
from jitgrad.core.program import Program
from jitgrad.core.record import tensor
from jitgrad.execute.cpu.layout import ON_TAPE
from jitgrad.frontend.bodies import Recorded, avals_of, hold, present, tensors, union
from jitgrad.frontend.transforms import flat
from jitgrad.transform import control


def cond(pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any) -> Any:
    """``true_fun(*operands)`` where ``pred`` holds, else ``false_fun(*operands)``, as one row: Python reads no number.

    ``pred``: a bool of shape (); operands are nests of Tensors, Variables, arrays and numbers. Both functions are
    recorded, whichever runs; they must return nests of equal structure, shapes and dtypes, else TypeError.

    >>> import jitgrad as jg
    >>> x = jg.constant(3.0)
    >>> float(jg.cond(x > 0, lambda v: v * v, lambda v: -v, x))
    9.0
    """
    pred = _truth("cond", pred)
    leaves, structure = nest.flatten(operands)
    given = [tensor(x) for x in leaves]
    yes = Recorded(true_fun, structure, avals_of(given))
    no = Recorded(false_fun, structure, avals_of(given), avals_of(yes.results))
    _same_structure("cond: the branches return", yes, no)
    variables = union(list(yes.assigned.values()), list(no.assigned.values()))
    for branch in (yes, no):
        branch.close([*branch.results, *map(branch.value, variables)])
    around = union(yes.captured, no.captured)
    programs = [branch.program([*branch.inputs, *around]) for branch in (yes, no)]
    outs = control.cond(pred, [*given, *around], *programs)
    count = len(outs) - len(variables)
    hold(variables, outs[count:])
    return yes.rebuilt(outs[:count])


def while_loop(cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init_val: Any) -> Any:
    """``val = body_fun(val)`` from ``init_val`` on while ``cond_fun(val)`` holds; the last ``val``.

    ``val`` is a nest of Tensors that keeps its structure, shapes and dtypes (TypeError otherwise); ``cond_fun`` returns
    a bool of shape (). Gradients of every order and mode go through it: the values of all rounds are kept for that.

    >>> import jitgrad as jg
    >>> float(jg.while_loop(lambda x: x < 100.0, lambda x: x * 2.0, 3.0))
    192.0
    """
    leaves, like = flat(init_val)
    init = [tensor(x) for x in leaves]
    given = nest.flatten(tuple(range(len(init))))[1]
    body = Recorded(lambda *values: body_fun(like(values)), given, avals_of(init), avals_of(init))
    condition = Recorded(lambda *values: cond_fun(like(values)), given, avals_of(init))
    if condition.assigned:
        raise user_error(TypeError, "while_loop: the condition must not assign Variables")
    _carried("while_loop", body.answer, init_val, body.results, init)
    if len(condition.results) != 1 or condition.leaves[0] is not condition.answer:
        raise user_error(TypeError, f"while_loop: the condition must return one bool, got {_shown(condition.answer)}")
    condition.close([_truth("while_loop", condition.results[0])])
    loop = _Loop(body, init)
    consts = loop.consts([*body.captured, *condition.captured])
    outs = control.while_loop([*consts, *loop.carry], condition.program([*consts, *condition.inputs, *loop.states]),
                              body.program([*consts, *body.inputs, *loop.states]), len(consts))
    return loop.finished(outs, body)


def fori_loop(lower: Any, upper: Any, body_fun: Callable[[Any, Any], Any], init_val: Any) -> Any:
    """``val = body_fun(i, val)`` for i from ``lower`` up to, not including, ``upper``; the last ``val``.

    Bounds are ints, or integer Tensors of shape () (TypeError otherwise); ``i`` is a Tensor of the dtype of ``lower``,
    int32 for an int. ``val`` as in `while_loop`.

    >>> import jitgrad as jg
    >>> float(jg.fori_loop(0, 4, lambda i, x: x + i, 0.5))
    6.5
    """
    def step(carry: Any, x: Any) -> Any:
        i, val = carry
        new, init = body_fun(i, val), flat(val)[0]
        _carried("fori_loop", new, val, tensors(nest.flatten((new,))[0], avals_of(init)), init)
        return (i + 1, new), None

    if type(lower) is int and type(upper) is int:
        return scan(step, (tensor(lower), init_val), None, max(upper - lower, 0))[0][1]
    start, end = _bound(lower), _bound(upper)
    return while_loop(lambda carry: carry[0] < end, lambda carry: step(carry, None)[0], (start, init_val))[1]


def scan(f: Callable[[Any, Any], Any], init: Any, xs: Any = None, length: int | None = None, reverse: bool = False,
         checkpoint_every: int | None = None) -> Any:
    """``carry, y = f(carry, x)`` along the first axis of ``xs``; ``(the last carry, the ys stacked)``.

    ``carry`` is a nest of Tensors that keeps its structure, shapes and dtypes (TypeError otherwise), ``xs`` a nest of
    arrays of one first length; without ``xs`` say the ``length``. With ``reverse`` from the last slice to the first.
    ``checkpoint_every=k`` keeps the carry of every k-th round only for gradients, and computes the rest again.
    Raises ValueError where lengths differ.

    >>> import jitgrad as jg
    >>> total, sums = jg.scan(lambda c, x: (c + x, c + x), 0.0, jg.constant([1.0, 2.0, 3.0]))
    >>> float(total), sums.numpy()
    (6.0, array([1., 3., 6.], dtype=float32))
    """
    leaves, slices_like = flat(xs)
    arrays = [tensor(x) for x in leaves]
    n = _length(arrays, length)
    if checkpoint_every is not None and as_length(checkpoint_every, "scan: checkpoint_every") < 1:
        raise user_error(ValueError, f"scan: checkpoint_every must be at least 1, got {checkpoint_every}")
    leaves, like = flat(init)
    start = [tensor(x) for x in leaves]
    count = len(start)

    def step(*given: Any) -> Any:
        x = slices_like(given[count:])
        answer = f(like(given[:count]), x)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise user_error(TypeError, f"scan: the function must return (carry, y), got {type(answer).__name__}")
        return answer

    slices = [_slice_aval(t) for t in arrays]
    given = nest.flatten(tuple(range(count + len(slices))))[1]
    body = Recorded(step, given, [*avals_of(start), *slices], avals_of(start))
    carried = len(flat(body.answer[0])[0])
    _carried("scan", body.answer[0], init, body.results[:carried], start)
    loop = _Loop(body, start)
    consts = loop.consts(body.captured)
    program = body.program([*consts, *body.inputs[:count], *loop.states, *body.inputs[count:]])
    operands = [*consts, *loop.carry, *arrays]
    outs = _scanned(operands, program, len(consts), len(loop.carry), n, reverse, checkpoint_every)
    return loop.finished(outs, body)


class _Loop:
    """What a loop carries: the leaves of its nest, then what the Variables hold that its body assigns."""

    def __init__(self, body: Recorded, init: Sequence[Any]) -> None:
        self.variables = list(body.assigned.values())
        self.states = [present(v) for v in self.variables]
        self.carry = [*init, *self.states]
        self._count = len(init)
        results = body.results
        body.close([*results[: self._count], *map(body.value, self.variables), *results[self._count:]])

    def consts(self, captured: Sequence[Any]) -> list[Any]:
        """What the rounds read and do not change."""
        own = {id(t) for t in self.states}
        return [t for t in union(captured) if id(t) not in own]

    def finished(self, outs: Sequence[Any], body: Recorded) -> Any:
        """Assigns the Variables; what the body returned, of the last round or stacked."""
        end = self._count + len(self.variables)
        hold(self.variables, outs[self._count: end])
        ys = sum(x is not None for x in body.leaves) - self._count
        return body.rebuilt([*outs[: self._count], *outs[end: end + ys]])


def _scanned(operands: Sequence[Any], body: Program, consts: int, carry: int, length: int, reverse: bool,
             every: int | None) -> Sequence[Any]:
    """The scan row; under a tape it keeps what its gradient will read."""
    if every is not None and every < length:
        return _in_chunks(operands, body, consts, carry, length, reverse, every)
    if backend.current().tapes() and any(t._tracked & ON_TAPE for t in operands):
        floats = [k for k, t in enumerate(operands) if is_float(AVALS[t._aval].code)]
        body = control.with_residuals(body, consts, carry, floats)
    return control.scan(operands, body, consts, carry, length, reverse)


def _in_chunks(operands: Sequence[Any], body: Program, consts: int, carry: int, length: int, reverse: bool,
               every: int) -> Sequence[Any]:
    """A scan of scans of ``every`` rounds, and one of what is left; each inner one is one row of the outer body."""
    whole = length // every
    fixed, state, arrays = operands[:consts], list(operands[consts: consts + carry]), operands[consts + carry:]
    left = length - whole * every
    spans = [(0, whole * every), (whole * every, left)]
    stacked: list[list[Any]] = []
    for first, n in reversed(spans) if reverse else spans:
        if not n:
            continue
        parts = [x if n == length else _rows(x, first, n) for x in arrays]
        if n == whole * every:
            parts = [ops.reshape(x, (whole, every, *x.shape[1:])) for x in parts]
            out = _outer([*fixed, *state, *parts], body, consts, carry, whole, every, reverse)
            ys = [ops.reshape(y, (n, *y.shape[2:])) for y in out[carry:]]
        else:
            out = _scanned([*fixed, *state, *parts], body, consts, carry, n, reverse, None)
            ys = list(out[carry: len(body.results)])
        state = list(out[:carry])
        stacked.append(ys)
    if reverse:
        stacked.reverse()
    return [*state, *(ops.concat(*ys, axis=0) if len(ys) > 1 else ys[0] for ys in zip(*stacked, strict=True))]


def _outer(operands: Sequence[Any], body: Program, consts: int, carry: int, whole: int, every: int,
           reverse: bool) -> Sequence[Any]:
    def chunk(*flat: Any) -> Any:
        return tuple(control.scan(flat, body, consts, carry, every, reverse))

    avals = [*avals_of(operands[: consts + carry]), *map(_slice_aval, operands[consts + carry:])]
    _, flat = nest.flatten(tuple(range(len(operands))))
    inner = Recorded(chunk, flat, avals)
    out = _scanned(operands, inner.program(inner.inputs), consts, carry, whole, reverse, None)
    return out[: len(body.results)]


def _rows(x: Any, first: int, n: int) -> Any:
    """A stretch along the first axis."""
    return ops.slice(x, ((first, n, 1), *((0, m, 1) for m in x.shape[1:])))


def _slice_aval(t: Any) -> Any:
    have = AVALS[t._aval]
    return aval(have.code, have.shape[1:])


def _length(arrays: Sequence[Any], length: int | None) -> int:
    if any(t.ndim == 0 for t in arrays):
        raise user_error(ValueError, "scan: xs need a first axis to go along, got a Tensor of shape ()")
    found = {t.shape[0] for t in arrays} | ({as_length(length, "scan: length")} if length is not None else set())
    if len(found) != 1:
        raise user_error(ValueError, "scan: without xs it needs a length" if not found else
                         f"scan: xs (and length) must agree on one length, got {sorted(found)}")
    return int(found.pop())


def _bound(given: Any) -> Any:
    made = tensor(given)
    have = AVALS[made._aval]
    if is_float(have.code) or have.code == BOOL or have.shape:
        raise user_error(TypeError, f"fori_loop: the bounds must be integers, got {have!r}")
    return made


def _truth(name: str, pred: Any) -> Any:
    made = tensor(pred)
    have = AVALS[made._aval]
    if math.prod(have.shape) != 1 or have.shape:
        raise user_error(TypeError, f"{name}: the condition must be one bool, got shape {have.shape}")
    return made if have.code == BOOL else ops.not_equal(made, 0)


def _same_structure(what: str, a: Recorded, b: Recorded) -> None:
    if a.structure != b.structure or [x is None for x in a.leaves] != [x is None for x in b.leaves]:
        raise user_error(TypeError, f"{what} nests of different structure: {_shown(a.answer)} and {_shown(b.answer)}")


def _carried(name: str, answer: Any, began: Any, results: Sequence[Any], init: Sequence[Any]) -> None:
    """Every round must leave what it found."""
    (leaves, has), (wanted, structure) = nest.flatten((answer,)), nest.flatten((began,))
    if has != structure or [x is None for x in leaves] != [x is None for x in wanted]:
        raise user_error(TypeError, f"{name}: what is carried must keep its structure: began as {_shown(began)}, one "
                                    f"round makes {_shown(answer)}")
    if avals_of(results) != avals_of(init):
        raise user_error(TypeError, f"{name}: what is carried must keep shapes and dtypes: began as "
                                    f"{', '.join(map(repr, avals_of(init)))}, one round makes "
                                    f"{', '.join(map(repr, avals_of(results)))}")


def _shown(given: Any) -> str:
    """A nest with stars in the place of its leaves."""
    leaves, structure = nest.flatten((given,))
    (shown,) = nest.rebuild(structure, [None if x is None else "*" for x in leaves])
    return repr(shown).replace("'*'", "*")
