"""Optimizers by Keras's names, arguments and numbers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core import backend
from jitgrad.core.aval import AVALS
from jitgrad.core.dtypes import NAMES, default_float
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.frontend.tape import GradientTape
from jitgrad.nn.names import by_name, snake
from jitgrad.nn.tracking import Versioned
from jitgrad.nn.update import Update
from jitgrad.ops import composite

_logger = logging.getLogger("jitgrad")


class Optimizer(Versioned):
    """Changes Variables by their gradients. A subclass gives the rule for one variable, in ops, and names its slots.

    ``learning_rate`` and ``iterations`` are Variables: reading and assigning them works as in Keras. Of ``clipnorm``
    (each gradient's norm), ``clipvalue`` (each element) and ``global_clipnorm`` (the norm of all) one may be given.
    ``weight_decay`` takes that fraction, times the learning rate, off each variable before its step.
    """

    slots: tuple[str, ...] = ()          # numbers kept for each variable, zero at first

    def __init__(self, learning_rate: Any, weight_decay: float | None = None, clipnorm: float | None = None,
                 clipvalue: float | None = None, global_clipnorm: float | None = None, name: str | None = None) -> None:
        self._updates: dict[tuple[int, ...], Update] = {}
        self._kept: dict[int, tuple[Any, ...]] = {}            # id of a variable -> (it, its slots...)
        self._warned = False
        if (clipnorm is not None) + (clipvalue is not None) + (global_clipnorm is not None) > 1:
            raise user_error(ValueError, f"{type(self).__name__}: only one of clipnorm, clipvalue and global_clipnorm "
                                         "may be given")
        for word, value in (("clipnorm", clipnorm), ("clipvalue", clipvalue), ("global_clipnorm", global_clipnorm)):
            if value is not None and not value > 0:
                raise user_error(ValueError, f"{type(self).__name__}: {word} must be above 0, got {value}")
        variable = backend.current().Variable
        self._learning_rate: Any = learning_rate if type(learning_rate) is variable else variable(
            learning_rate, trainable=False, name="learning_rate", dtype=NAMES[default_float()])
        self._iterations: Any = variable(np.int64(0), trainable=False, name="iteration")
        self.weight_decay = weight_decay
        self.clipnorm, self.clipvalue, self.global_clipnorm = clipnorm, clipvalue, global_clipnorm
        self.name = snake(type(self).__name__) if name is None else name

    # ---- the rule ----

    def factors(self, rate: Any, step: Any) -> tuple[Any, ...]:
        """Scalars that the rule needs, from the learning rate and the number of the step (the first is 1)."""
        return (rate,)

    def rule(self, g: Any, value: Any, slots: Sequence[Any], *factors: Any) -> tuple[Any, ...]:
        """The new value and the new slots of one variable, from its gradient, value, slots and the `factors`.

        Users define it, or `apply_gradients` itself, so it is not abstract: NotImplementedError, as Keras raises, where
        neither is there.
        """
        raise NotImplementedError(f"{type(self).__name__} must define rule")

    def _record(self, variables: Sequence[Any]) -> Update:
        """The step of these variables as an `Update`."""
        if len(set(map(id, variables))) != len(variables):
            raise user_error(ValueError, "apply_gradients: a variable is given twice; add its gradients")
        n, kept = len(variables), [self._slots_of(v)[1:] for v in variables]
        width = len(self.slots)

        def rule(state: list[Any], read: list[Any], gs: list[Any]) -> list[Any]:
            step = state[0] + 1
            values, slots = state[1: n + 1], state[n + 1:]
            factors = self.factors(read[0], step)
            new: list[tuple[Any, ...]] = []
            for i, (g, value) in enumerate(zip(self._clipped(gs), values, strict=True)):
                dtype = AVALS[value._aval].dtype
                if self.weight_decay:
                    value = value - value * (composite.astype(read[0], dtype) * self.weight_decay)
                new.append(self.rule(g, value, slots[width * i: width * (i + 1)],
                                     *(composite.astype(f, dtype) for f in factors)))
            return [step, *(made[0] for made in new), *(slot for made in new for slot in made[1:])]
        return Update(rule, [self._iterations, *variables, *(slot for slots in kept for slot in slots)],
                      [self._learning_rate], [AVALS[v._value._aval] for v in variables])

    def _slots_of(self, v: Any) -> tuple[Any, ...]:
        found = self._kept.get(id(v))
        if found is None:
            if v.dtype.kind != "f":
                raise user_error(TypeError, f"apply_gradients: the variable {v.name!r} holds {v.dtype}, not floats")
            made = (backend.current().Variable(np.zeros(v.shape, v.dtype), False, f"{v.name}_{slot}", device=v.device)
                    for slot in self.slots)
            found = self._kept[id(v)] = (v, *made)
        return found

    def _clipped(self, gs: list[Any]) -> list[Any]:
        if self.clipvalue is not None:
            return [composite.clip(g, -self.clipvalue, self.clipvalue) for g in gs]
        if self.clipnorm is not None:
            return [g * (self.clipnorm / ops.maximum(ops.sqrt(composite.sum(g * g)), self.clipnorm)) for g in gs]
        if self.global_clipnorm is not None:
            total = sum(ops.cast(composite.sum(g * g), "float64") for g in gs)
            scale = self.global_clipnorm / ops.maximum(ops.sqrt(total), self.global_clipnorm)
            return [g * ops.cast(scale, NAMES[AVALS[g._aval].code]) for g in gs]
        return gs

    # ---- steps ----

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Any]], name: str | None = None) -> Any:
        """One step from pairs of gradient and Variable; returns `iterations`.

        A gradient that is None is skipped, with one warning. Raises ValueError if all are, or if a gradient does not
        fit its variable.
        """
        pairs = tuple(grads_and_vars)
        if not pairs:
            raise user_error(ValueError, "apply_gradients: no gradients provided for any variable")
        grads, variables = zip(*pairs, strict=True)
        update = self._updates.get(tuple(map(id, variables)))
        if update is None or not update.fits(grads):
            return self._unusual_step(pairs)
        update(grads)
        return self._iterations

    def _unusual_step(self, pairs: Sequence[tuple[Any, Any]]) -> Any:
        """A step with variables not met together before, or with gradients that are None or need a cast."""
        given = [(g, v) for g, v in pairs if g is not None]
        names = ", ".join(v.name for _, v in pairs)
        if not given:
            raise user_error(ValueError, f"apply_gradients: no gradients provided for any variable: {names}")
        if len(given) < len(pairs) and not self._warned:
            self._warned = True
            _logger.warning("Gradients do not exist for variables %s; they are left as they are",
                            [v.name for g, v in pairs if g is None])
        gs = [_fitted(g, v) for g, v in given]
        variables = [v for _, v in given]
        key = tuple(map(id, variables))
        if key not in self._updates:
            self._updates[key] = self._record(variables)
        self._updates[key].step(gs)
        return self._iterations

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any]) -> Any:
        """`apply_gradients` with the gradients and the Variables in two lists."""
        if len(grads) != len(trainable_variables):
            raise user_error(ValueError, f"apply: {len(grads)} gradients for {len(trainable_variables)} variables")
        return self.apply_gradients(zip(grads, trainable_variables, strict=True))

    def minimize(self, loss: Any, var_list: Any, tape: Any = None) -> Any:
        """One step down ``loss``: a function of nothing, or a Tensor that ``tape`` recorded."""
        if tape is None:
            if not callable(loss):
                raise user_error(ValueError, "minimize: a loss that is a Tensor needs the tape that recorded it")
            with GradientTape() as tape:
                loss = loss()
        variables = list(var_list() if callable(var_list) else var_list)
        return self.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    # ---- what it holds ----

    @property
    def learning_rate(self) -> Any:
        """The learning rate, a Variable; setting it assigns."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: Any) -> None:
        self._learning_rate.assign(value)

    lr = learning_rate

    @property
    def iterations(self) -> Any:
        """Steps so far, an int64 Variable."""
        return self._iterations

    @property
    def variables(self) -> list[Any]:
        """The iterations, the learning rate and the slots of every variable met."""
        return [self._iterations, self._learning_rate, *(s for kept in self._kept.values() for s in kept[1:])]

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name[0] != "_" and name not in ("learning_rate", "lr"):
            self._updates.clear()                # a rule recorded with the old value
            self.moved()

    def __repr__(self) -> str:
        return (f"<{type(self).__name__} learning_rate={float(self._learning_rate):.6g}, "
                f"iterations={int(self._iterations)}>")


def _fitted(given: Any, v: Any) -> Any:
    """A gradient as a Tensor of its variable's shape and dtype."""
    made = tensor(given, AVALS[v._value._aval].code, "apply_gradients")
    if made.shape != v.shape:
        raise user_error(ValueError, f"apply_gradients: a gradient of shape {made.shape} does not fit the variable "
                                     f"{v.name!r} of shape {v.shape}")
    return made


class SGD(Optimizer):
    """Gradient descent, ``w -= learning_rate * g``; with momentum a velocity ``m = momentum * m - learning_rate * g``
    is added instead, or with ``nesterov`` ``momentum * m - learning_rate * g``.

    >>> import jitgrad as jg
    >>> w = jg.Variable([1., 2.])
    >>> _ = SGD(learning_rate=0.5).apply_gradients([(jg.constant([1., 1.]), w)])
    >>> w.numpy()
    array([0.5, 1.5], dtype=float32)
    """

    def __init__(self, learning_rate: Any = 0.01, momentum: float = 0.0, nesterov: bool = False,
                 weight_decay: float | None = None, clipnorm: float | None = None, clipvalue: float | None = None,
                 global_clipnorm: float | None = None, name: str | None = None) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name)
        if not 0.0 <= momentum <= 1.0:
            raise user_error(ValueError, f"SGD: momentum must be in [0, 1], got {momentum}")
        self.momentum, self.nesterov = float(momentum), bool(nesterov)
        self.slots = ("momentum",) if momentum else ()

    def rule(self, g: Any, value: Any, slots: Sequence[Any], *factors: Any) -> tuple[Any, ...]:
        step = g * factors[0]
        if not slots:
            return (value - step,)
        velocity = slots[0] * self.momentum - step
        return (value + (velocity * self.momentum - step if self.nesterov else velocity), velocity)


class Adam(Optimizer):
    """Adam, after Kingma and Ba (2014), with Keras's epsilon; ``amsgrad`` keeps the greatest second moment.

    >>> import jitgrad as jg
    >>> w = jg.Variable([1., 2.])
    >>> _ = Adam(learning_rate=0.5).apply_gradients([(jg.constant([3., -1.]), w)])
    >>> w.numpy().round(4)
    array([0.5, 2.5], dtype=float32)
    """

    def __init__(self, learning_rate: Any = 0.001, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7,
                 amsgrad: bool = False, weight_decay: float | None = None, clipnorm: float | None = None,
                 clipvalue: float | None = None, global_clipnorm: float | None = None, name: str | None = None) -> None:
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name)
        for word, value in (("beta_1", beta_1), ("beta_2", beta_2)):
            if not 0.0 <= value < 1.0:
                raise user_error(ValueError, f"Adam: {word} must be in [0, 1), got {value}")
        self.beta_1, self.beta_2, self.epsilon, self.amsgrad = float(beta_1), float(beta_2), float(epsilon), amsgrad
        self.slots = ("momentum", "velocity", "velocity_hat") if amsgrad else ("momentum", "velocity")

    def factors(self, rate: Any, step: Any) -> tuple[Any, ...]:
        step = ops.cast(step, "float64")       # 1 - beta_2 ** step loses half of a float32's digits
        return (rate * ops.sqrt(1.0 - ops.power(self.beta_2, step)) / (1.0 - ops.power(self.beta_1, step)),)

    def rule(self, g: Any, value: Any, slots: Sequence[Any], *factors: Any) -> tuple[Any, ...]:
        m = slots[0] + (g - slots[0]) * (1.0 - self.beta_1)
        v = slots[1] + (ops.square(g) - slots[1]) * (1.0 - self.beta_2)
        top = ops.maximum(slots[2], v) if self.amsgrad else v
        new = value - m * factors[0] / (ops.sqrt(top) + self.epsilon)
        return (new, m, v, top) if self.amsgrad else (new, m, v)


def get(identifier: Any) -> Optimizer:
    """An optimizer from its name ("sgd", "Adam"), its class, or itself.

    >>> get("adam")
    <Adam learning_rate=0.001, iterations=0>
    """
    if isinstance(identifier, Optimizer):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Optimizer):
        return identifier()  # type: ignore[call-arg]
    made: Optimizer = by_name("optimizer", identifier, globals(), Optimizer)()
    return made
