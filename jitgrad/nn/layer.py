"""The Layer: a function with Variables, made on the first call, and with layers inside."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from jitgrad.core import backend
from jitgrad.core.device import Device, device_of
from jitgrad.core.dtypes import DTYPES, code_of, default_float
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.core.recorder import is_elsewhere
from jitgrad.execute.cpu.types import Tensor, Variable
from jitgrad.nn import initializers
from jitgrad.nn.names import fresh, snake
from jitgrad.nn.tracking import Structure, Versioned, members, tracked


def _beside(given: Any) -> AbstractContextManager[Any]:
    """Where the weights are made: with the first input, if that is a Tensor on a GPU."""
    return Device(device_of(given)) if type(given) is Tensor and is_elsewhere(given) else nullcontext()


class _Call(threading.local):
    """``training`` as the outermost call that said so set it, for layers inside that are not told."""

    training: bool | None = None


CALL = _Call()


class Layer(Versioned):
    """A function of Tensors that holds Variables. Subclasses define `call`, and `build` where weights need a shape.

    >>> import jitgrad as jg
    >>> class Scale(jg.nn.Layer):
    ...     def build(self, input_shape):
    ...         self.factor = self.add_weight(shape=input_shape[-1:], initializer="ones", name="factor")
    ...     def call(self, x):
    ...         return x * self.factor
    >>> layer = Scale()
    >>> layer(jg.ones((2, 3))).shape, [v.name for v in layer.trainable_variables]
    ((2, 3), ['factor'])
    """

    built = False
    output_shape: tuple[int | None, ...] | None = None
    _trainable = True
    _name: str | None = None
    _code: int | None = None
    _training_at = -1                    # where `call` takes ``training``: its position, or -1
    _memo: tuple[int, list[Any], list[Any]] = (-1, [], [])

    def __init__(self, *, trainable: bool = True, name: str | None = None, dtype: Any = None) -> None:
        self._trainable = trainable
        self._name = name
        self._code = None if dtype is None else code_of(dtype)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        names = list(inspect.signature(cls.call).parameters)
        cls._training_at = names.index("training") - 1 if "training" in names else -1

    # ---- calling ----

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs or self._training_at >= 0:
            return self._call_with_training(args, kwargs)
        if not self.built:
            return self._first_call(args, kwargs)
        return self.call(*args)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """What the layer computes: users define it. A layer that only holds others needs none, so it is not abstract:
        NotImplementedError, as Keras raises, where one without is called.
        """
        raise NotImplementedError(f"{type(self).__name__} must define call")

    def build(self, input_shape: Any) -> None:
        """Make the weights for inputs of a shape; runs once, before the first `call`."""

    def _call_with_training(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Layers inside see ``training`` without being told, as in Keras."""
        outer = CALL.training
        at = self._training_at
        if at >= 0 and len(args) > at:
            training = args[at]
        else:
            training = kwargs.pop("training", None)
            if training is None:
                training = outer
            if training is not None and at >= 0:
                kwargs["training"] = training
        run = self.call if self.built else self._first
        if training is None or training is outer:
            return run(*args, **kwargs)
        CALL.training = bool(training)
        try:
            return run(*args, **kwargs)
        finally:
            CALL.training = outer

    def _first(self, *args: Any, **kwargs: Any) -> Any:
        return self._first_call(args, kwargs)

    def _first_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Build, call, and keep the shape that came out for `Model.summary`."""
        with _beside(args[0] if args else None):
            self._build(shape_of(args[0]) if args else None)
        out: Any = self.call(*args, **kwargs)
        if type(out) is Tensor:
            self.output_shape = (None, *out.shape[1:]) if out.ndim else ()
        return out

    def _build(self, input_shape: Any) -> None:
        self.build(input_shape)
        self.built = True

    # ---- weights ----

    def add_weight(self, shape: Any = None, initializer: Any = None, dtype: Any = None, trainable: bool = True,
                   name: str | None = None) -> Any:
        """A Variable of this layer; the initializer is Glorot's for floats, zeros for the rest."""
        if isinstance(shape, str):
            raise user_error(TypeError, f"add_weight: the first argument is the shape, got the name {shape!r}; "
                                        "write shape=..., name=...")
        code = self.weight_code if dtype is None else code_of(dtype)
        if initializer is None:
            initializer = "glorot_uniform" if DTYPES[code].kind == "f" else "zeros"
        value = initializers.get(initializer)(() if shape is None else shape, DTYPES[code])
        made = backend.current().Variable(value, trainable, name)
        self.__dict__.setdefault("_added", []).append(made)
        Structure.version += 1
        self.moved()
        return made

    @property
    def weight_code(self) -> int:
        """Code of the dtype in which the weights are made."""
        return default_float() if self._code is None else self._code

    def held(self, path: str, seen: set[int], trained: bool) -> Iterator[tuple[str, Any, bool]]:
        """(path, Variable, whether it is trained) of everything here and below: own ones first, each once."""
        if id(self) in seen:
            return
        seen.add(id(self))
        trained = trained and self._trainable
        own = [found for key, value in vars(self).items() if key not in ("_memo", "_added")
               for found in members(path + key.lstrip("_"), value)]
        own += [(f"{path}{v.name}", v) for v in vars(self).get("_added", ())]
        for key, v in own:
            if type(v) is Variable and id(v) not in seen:
                seen.add(id(v))
                yield key, v, trained and bool(v.trainable)
        for key, v in own:
            if type(v) is not Variable:
                yield from v.held(key + "/", seen, trained)

    def _lists(self) -> tuple[int, list[Any], list[Any]]:
        """Trained and other Variables, from the memo while nothing has changed."""
        memo = self._memo
        if memo[0] != Structure.version:
            version = Structure.version
            found = list(self.held("", set(), True))
            memo = (version, [v for _, v, trained in found if trained], [v for _, v, trained in found if not trained])
            self.__dict__["_memo"] = memo
        return memo

    @property
    def trainable_variables(self) -> list[Any]:
        """The Variables to train, those of nested layers included."""
        return self._lists()[1].copy()

    @property
    def non_trainable_variables(self) -> list[Any]:
        """The Variables that are not to be trained."""
        return self._lists()[2].copy()

    @property
    def variables(self) -> list[Any]:
        """All Variables, in the order of `get_weights`."""
        return [v for _, v, _ in self.held("", set(), True)]

    trainable_weights = trainable_variables
    non_trainable_weights = non_trainable_variables
    weights = variables

    @property
    def trainable(self) -> bool:
        """Whether the Variables here and below are among the `trainable_variables`."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        Structure.version += 1

    def count_params(self) -> int:
        """How many numbers the weights hold. ValueError before the weights exist."""
        if not self.built:
            raise user_error(ValueError, f"count_params: {self.name!r} is not built yet; call it on some input first")
        return sum(v.size for v in self.variables)

    def get_weights(self) -> list[np.ndarray]:
        """Copies of the Variables' values, in the order of `variables`."""
        return [v.numpy().copy() for v in self.variables]

    def set_weights(self, weights: Any) -> None:
        """Assign arrays like those of `get_weights`; ValueError, and nothing assigned, if they do not fit."""
        values, variables = [tensor(w, what="set_weights").numpy() for w in weights], self.variables
        if len(values) != len(variables):
            raise user_error(ValueError, f"set_weights: {len(values)} arrays for the {len(variables)} weights of "
                                         f"{self.name!r}")
        for value, v in zip(values, variables, strict=True):
            if value.shape != v.shape:
                raise user_error(ValueError, f"set_weights: an array of shape {value.shape} does not fit the weight "
                                             f"{v.name!r} of shape {v.shape}")
        for value, v in zip(values, variables, strict=True):
            v.assign(value)

    # ---- the rest ----

    @property
    def name(self) -> str:
        """The given name, or one made from the class."""
        if self._name is None:
            self._name = fresh(snake(type(self).__name__))
        return self._name

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, _STRUCTURAL) or isinstance(self.__dict__.get(name), _STRUCTURAL):
            Structure.version += 1
            value = tracked(value)
        object.__setattr__(self, name, value)
        if name != "_name":
            self.moved()

    def __delattr__(self, name: str) -> None:
        Structure.version += 1
        object.__delattr__(self, name)
        self.moved()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


_STRUCTURAL = (list, dict, tuple, Variable, Layer)


def shape_of(x: Any) -> Any:
    """The shape of an input; of a nest of inputs, the nest of their shapes."""
    if type(x) is Tensor or type(x) is Variable or isinstance(x, np.ndarray):
        return x.shape
    if isinstance(x, dict):
        return {key: shape_of(v) for key, v in x.items()}
    if isinstance(x, list | tuple) and any(hasattr(v, "shape") for v in x):
        return [shape_of(v) for v in x]
    return np.shape(x)


class Unary(Layer):
    """A layer of one Tensor, whose call costs little: inputs it has met before pass one comparison.

    `call` gets a Tensor of the layer's float dtype; `checked` looks at inputs of a new shape or dtype.
    """

    _aval = -1                           # of the last input that was found good

    def __call__(self, inputs: Any) -> Any:
        if type(inputs) is Tensor and inputs._aval == self._aval:
            return self.call(inputs)
        return self._new_input(inputs)

    def checked(self, inputs: Any) -> Any:
        """The input to compute with; raises ValueError where the shape does not fit."""
        return inputs

    def _new_input(self, inputs: Any) -> Any:
        given = inputs
        inputs = tensor(inputs, what=self.name)
        if self._code is not None and inputs.dtype.kind == "f":
            inputs = tensor(inputs, self._code)
        first = not self.built
        if first:
            with _beside(inputs):
                self._build(inputs.shape)
        good: Any = self.checked(inputs)
        if good is given:
            self.__dict__["_aval"] = good._aval
        out: Any = self.call(good)
        if first and type(out) is Tensor:
            self.output_shape = (None, *out.shape[1:])
        return out
