"""GradientTape: TensorFlow's tape over the machine's log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from typing import Any

from jitgrad.core import nest
from jitgrad.core.aval import AVALS
from jitgrad.core.device import beside
from jitgrad.core.dtypes import CODES, FLOAT32
from jitgrad.core.errors import user_error
from jitgrad.core.form import FORMS
from jitgrad.core.tensor import install
from jitgrad.core.variable import WATCHED
from jitgrad.execute.cpu import types as machine
from jitgrad.execute.cpu.layout import (
    ALONE,
    DRY,
    F_ID,
    HAS_CUT,
    K_ACCESSED,
    K_PERSISTENT,
    K_USED,
    K_WARNED,
    NEEDS_CALL,
    S_GRADIENT,
    S_GUARD,
    S_REENTERED,
    S_TAPE_FLAGS,
)
from jitgrad.execute.cpu.plans import plan_for, recorded_gradient
from jitgrad.execute.cpu.types import Tensor, Variable
from jitgrad.frontend import (
    explain,
    jacobian,
    log,  # noqa: F401  (its callbacks serve the machine)
    nans,
    pieces,
)
from jitgrad.ops import creation

_logger = logging.getLogger("jitgrad")


class UnconnectedGradients(Enum):
    """What `gradient` gives for a source that the target does not depend on: None, or zeros."""

    NONE = "none"
    ZERO = "zero"


class TapeMethods:
    """Records operations for automatic differentiation, as TensorFlow's tape of the same name.

    ``persistent``: gradients may be asked for more than once. ``watch_accessed_variables``: trainable Variables are
    watched when they are read; otherwise only what `watch` names.

    >>> import jitgrad as jg
    >>> x = jg.Variable(3.0)
    >>> with jg.GradientTape() as tape:
    ...     y = x ** 2
    >>> float(tape.gradient(y, x))
    6.0

    Entering, leaving and the ordinary `gradient` are machine code; these are the other methods.
    """

    # ---- what is recorded ----

    def watch(self, tensor: Any) -> None:
        """Record operations on ``tensor``: a Tensor, a Variable or any nest of them.

        Raises ValueError for anything else; a dtype that is not a float is logged and has no gradient.
        """
        for t in nest.flatten(tensor)[0]:
            if type(t) is not Tensor and type(t) is not Variable:
                raise user_error(ValueError, f"Passed in object of type {type(t)}, not jg.Tensor")
            if CODES[t.dtype] < FLOAT32:
                _logger.warning("The dtype of the watched tensor must be floating (e.g. jg.float32), got %r",
                                t.dtype.name)
            if type(t) is Variable:
                t._flags |= WATCHED
            machine.tape_watch(self, t)

    def stop_recording(self) -> AbstractContextManager[None]:
        """Record nothing in the block. Raises RuntimeError if the tape is not recording."""
        if not self._recording:
            raise user_error(RuntimeError, "Trying to stop recording a tape which is not recording.")
        return self._stopped()

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        machine.tape_stop(self)
        try:
            yield
        finally:
            machine.tape_start(self)

    def reset(self) -> None:
        """Forget everything recorded and watched, as leaving the tape and entering a new one.

        Raises ValueError if the tape is not recording.
        """
        if not self._recording:
            raise user_error(ValueError, "Tape is not recording.")
        machine.tape_release(self)
        self._flags &= ~(K_USED | K_WARNED)

    def watched_variables(self) -> tuple[Any, ...]:
        """The Variables watched so far, in the order of their construction."""
        return tuple(sorted(machine.tape_variables(self), key=lambda v: v._serial))

    @property
    def _recording(self) -> bool:
        return self in machine.open_tapes(machine.thread_log())

    _flags: int

    # ---- derivatives ----

    def _gradient(self, target: Any, sources: Any, output_gradients: Any = None,
                  unconnected_gradients: Any = UnconnectedGradients.NONE) -> Any:
        """`gradient` when a plan is yet to be made, for nests, seeds, errors and rows with Python rules."""
        unconnected = self._unusual(unconnected_gradients)
        ends = _ends(target, output_gradients)
        plain = type(sources) is list and all(type(s) is Tensor or type(s) is Variable for s in sources)
        leaves, structure = (sources, None) if plain else nest.flatten(sources)
        known = [i for i, s in enumerate(leaves) if type(s) is Tensor or type(s) is Variable]
        within = [(t, s) for t, s in ends if type(t) is Tensor]
        found = self._results([t for t, _ in within], [leaves[i] for i in known],
                              None if output_gradients is None else [s for _, s in within])
        found = _identity(found, [leaves[i] for i in known], [(t, s) for t, s in ends if type(t) is Variable])
        self._finish()
        out: list[Any] = [None] * len(leaves)
        for i, g in zip(known, found, strict=True):
            out[i] = g
        if unconnected is UnconnectedGradients.ZERO:
            out = [creation.zeros_like(s) if g is None and i in known else g
                   for i, (g, s) in enumerate(zip(out, leaves, strict=True))]
        return out if plain else nest.rebuild(structure, out)

    def _results(self, targets: list[Any], sources: list[Any], seeds: list[Any] | None) -> list[Any]:
        """Cotangents of Tensors and Variables by the machine, which asks for what it lacks."""
        checking = nans.checking()
        run = machine.connect if checking else machine.gradient
        found = run(self, targets, sources, seeds)
        while type(found) is tuple:
            status, words, rows, values, hashed = found
            if status == ALONE:
                return self._with_lone(targets, sources, seeds)
            if status == HAS_CUT or checking:
                with nans.backward_pass():
                    return pieces.gradient(self, words, rows, values, targets, seeds, len(sources))
            if status == DRY or any(v._data == 0 for v in values):
                return recorded_gradient(words, values, len(targets), seeds is not None, len(sources))
            plan = plan_for(words, values, hashed, len(targets), seeds is not None, len(sources))
            if status == NEEDS_CALL:
                plan.recordable()
            found = machine.gradient(self, targets, sources, seeds)
        results: list[Any] = found
        return results

    def _with_lone(self, targets: list[Any], sources: list[Any], seeds: list[Any] | None) -> list[Any]:
        """Gradients where a target is a source that the tape knows nothing else of: identity for that source."""
        lone = [any(t is s for s in sources) and machine.connect(self, (t,), (t,), None)[0] == ALONE for t in targets]
        rest = [i for i, alone in enumerate(lone) if not alone]
        found = self._results([targets[i] for i in rest], sources, None if seeds is None else [seeds[i] for i in rest])
        return _identity(found, sources, [(t, None if seeds is None else seeds[i])
                                          for i, t in enumerate(targets) if lone[i]])

    def _unusual(self, unconnected: Any) -> UnconnectedGradients:
        """The checks that the common call skips."""
        try:
            unconnected = UnconnectedGradients(unconnected)
        except ValueError:
            raise user_error(ValueError, f"Unknown value for unconnected_gradients: {unconnected!r}") from None
        self._check_use()
        return unconnected

    def _check_use(self) -> None:
        if self._flags & K_USED:
            raise user_error(RuntimeError, "A non-persistent GradientTape can only be used to compute one set of "
                                           "gradients (or jacobians)")
        if self._recording:
            if not self._flags & K_PERSISTENT:
                machine.tape_stop(self)
            elif not self._flags & K_WARNED:
                self._flags |= K_WARNED
                _logger.warning("Calling GradientTape.gradient on a persistent tape inside its context is "
                                "significantly less efficient than calling it outside the context.")

    def _finish(self) -> None:
        """After a set of gradients: a tape that is not persistent lets go of what it recorded."""
        machine.tape_finish(self)

    def jacobian(self, target: Any, sources: Any, unconnected_gradients: Any = UnconnectedGradients.NONE,
                 parallel_iterations: int | None = None, experimental_use_pfor: bool = True) -> Any:
        """The Jacobian of one target Tensor in each source: shape ``target.shape + source.shape``, in a nest like
        ``sources``, None where unconnected.

        Raises RuntimeError like `gradient`, and on a tape that is not persistent with ``experimental_use_pfor=False``.
        """
        unconnected = self._unusual(unconnected_gradients)
        if not experimental_use_pfor and not self._flags & K_PERSISTENT:
            raise user_error(RuntimeError, "GradientTape must be created with persistent=True to compute the jacobian "
                                           "with experimental_use_pfor set to False.")
        leaves, structure = nest.flatten(sources)
        out = jacobian.jacobian(self, target, leaves, per_example=False)
        if unconnected is UnconnectedGradients.ZERO:
            out = [creation.zeros((*target.shape, *s.shape), s.dtype, s.device) if g is None else g
                   for g, s in zip(out, leaves, strict=True)]
        self._finish()
        return nest.rebuild(structure, out)

    def batch_jacobian(self, target: Any, source: Any, unconnected_gradients: Any = UnconnectedGradients.NONE,
                       parallel_iterations: int | None = None, experimental_use_pfor: bool = True) -> Any:
        """The Jacobian of each example: ``[batch, *target.shape[1:], *source.shape[1:]]``.

        Examples must not influence one another. Raises ValueError if the first lengths differ or an operand has
        fewer than two axes, RuntimeError like `jacobian`, and on a tape that is not persistent where
        ``parallel_iterations`` would split an example's outputs. Zeros where unconnected, as in TensorFlow, whatever
        ``unconnected_gradients`` says.
        """
        self._unusual(unconnected_gradients)
        if not all(type(t) is Tensor or type(t) is Variable for t in (target, source)):
            raise user_error(ValueError, f"batch_jacobian: target and source must be one Tensor each, got "
                                         f"{type(target).__name__} and {type(source).__name__}")
        if target.ndim < 2 or source.ndim < 2:
            raise user_error(ValueError, f"batch_jacobian: target and source must have rank at least 2, got shapes "
                                         f"{target.shape} and {source.shape}")
        if target.shape[0] != source.shape[0]:
            raise user_error(ValueError, f"Need first dimension of target shape ({target.shape}) and source shape "
                                         f"({source.shape}) to match.")
        if not experimental_use_pfor and not self._flags & K_PERSISTENT:
            raise user_error(RuntimeError, "GradientTape must be created with persistent=True to compute the "
                                           "batch_jacobian with experimental_use_pfor set to False.")
        if parallel_iterations is not None and not self._flags & K_PERSISTENT and \
                target.size // max(target.shape[0], 1) >= parallel_iterations:
            raise user_error(RuntimeError, "GradientTape must be created with persistent=True to compute the "
                                           "batch_jacobian with parallel_iterations.")
        (out,) = jacobian.jacobian(self, target, [source], per_example=True)
        if out is None:
            out = creation.zeros((*target.shape, *source.shape[1:]), source.dtype, source.device)
        self._finish()
        return out

    # ---- looking inside ----

    def show(self) -> str:
        """The recorded rows as a table: value, op, operands, type, bytes."""
        return explain.program_of(self).show()

    @property
    def nbytes(self) -> int:
        """Bytes that the tape keeps alive: its rows and the values they hold."""
        return explain.nbytes(self)

    def explain(self, target: Any, source: Any) -> str:
        """In words, why the gradient of ``target`` in ``source`` is None, or which operations connect them."""
        return explain.explain(self, target, source)


def _ends(target: Any, output_gradients: Any) -> list[tuple[Any, Any]]:
    """Targets and their seeds; what is neither Tensor nor Variable is dropped."""
    leaves, _ = nest.flatten(target)
    seeds = [None] * len(leaves) if output_gradients is None else nest.flatten(output_gradients)[0]
    if len(seeds) != len(leaves):
        raise user_error(ValueError, f"gradient: {len(seeds)} output_gradients for {len(leaves)} targets")
    return [(t, _seed(s, t._value if type(t) is Variable else t)) for t, s in zip(leaves, seeds, strict=True)
            if type(t) is Tensor or type(t) is Variable]


def _identity(found: list[Any], sources: list[Any], lone: list[tuple[Any, Any]]) -> list[Any]:
    """Add the seed of each target (ones by default) to its source: a Variable as target leads to itself alone."""
    for t, seed in lone:
        if CODES[t.dtype] >= FLOAT32:
            for i, s in enumerate(sources):
                if s is t:
                    g = seed if seed is not None else creation.ones_like(t)
                    found[i] = g if found[i] is None else found[i] + g
    return found


def _seed(seed: Any, target: Any) -> Any:
    """An output gradient as a Tensor of the target's shape and dtype."""
    if seed is None:
        return None
    aval = AVALS[target._aval]
    made = beside(creation.asarray(seed, aval.dtype), target)
    if made.shape != aval.shape:
        raise user_error(ValueError, f"gradient: an output gradient of shape {made.shape} does not fit its target of "
                                     f"shape {aval.shape}")
    return made


def _tape_flags(persistent: bool = False, watch_accessed_variables: bool = True) -> int:
    return (K_PERSISTENT if persistent else 0) | (K_ACCESSED if watch_accessed_variables else 0)


def _reentered(tape: Any) -> None:
    raise user_error(ValueError, "Tape is still recording, This can happen if you try to re-enter an already-active "
                                 "tape.")


def _guard(form_address: int, operands: int) -> None:
    """An operation without a derivative rule meets operands that some tape recorded: does one record now?"""
    made = FORMS[machine.peek(form_address + F_ID)]
    met = {machine.peek(operands + 8 * i) for i in range(len(made.avals))}
    if any(met & explain.tracked(tape) for tape in machine.open_tapes(machine.thread_log())):
        raise user_error(LookupError, f"gradient registry has no entry for: {made.prim.name} (operands "
                                      f"{' and '.join(map(repr, made.avals))}); use stop_gradient or custom_gradient")


GradientTape: Any = machine.Tape
install(TapeMethods, GradientTape)
machine.callback(S_GRADIENT, TapeMethods._gradient)
machine.callback(S_TAPE_FLAGS, _tape_flags)
machine.callback(S_REENTERED, _reentered)
machine.callback(S_GUARD, _guard)
