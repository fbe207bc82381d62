"""The layers, by Keras's names and arguments."""

from __future__ import annotations

import math
from typing import Any

from jitgrad import ops, random
from jitgrad.core.aval import AVALS
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.nn import activations, initializers
from jitgrad.nn.layer import CALL, Unary
from jitgrad.nn.layer import Layer as Layer
from jitgrad.ops import composite


class Dense(Unary):
    """``activation(x @ kernel + bias)`` over the last axis, with weights named ``kernel`` and ``bias``.

    ``activation``: a name or a function, None for none. The kernel is made at the first call, in ``dtype`` or the
    default float, in which the layer then computes. Raises ValueError for an input whose last axis does not fit.

    >>> import jitgrad as jg
    >>> layer = Dense(4, activation="relu")
    >>> layer(jg.ones((2, 3))).shape, layer.kernel.shape, layer.bias.shape
    ((2, 4), (3, 4), (4,))
    """

    kernel: Any = None
    bias: Any = None

    def __init__(self, units: int, activation: Any = None, use_bias: bool = True,
                 kernel_initializer: Any = "glorot_uniform", bias_initializer: Any = "zeros", name: str | None = None,
                 dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        if not isinstance(units, int) or units <= 0:
            raise user_error(ValueError, f"Dense: units must be a positive int, got {units!r}")
        self.units = units
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self._bent = self.activation is not activations.linear

    def build(self, input_shape: Any) -> None:
        if len(input_shape) < 2:
            raise self._misfit(input_shape, "at least 2 axes")
        self.kernel = self.add_weight((input_shape[-1], self.units), self.kernel_initializer, name="kernel")
        if self.use_bias:
            self.bias = self.add_weight((self.units,), self.bias_initializer, name="bias")

    def call(self, inputs: Any) -> Any:
        out = inputs @ self.kernel
        if self.use_bias:
            out = out + self.bias
        return self.activation(out) if self._bent else out

    def checked(self, inputs: Any) -> Any:
        rows, _ = self.kernel.shape
        if inputs.ndim < 2 or inputs.shape[-1] != rows:
            raise self._misfit(inputs.shape, f"a last axis of length {rows}")
        return tensor(inputs, AVALS[self.kernel._value._aval].code)

    def _misfit(self, shape: Any, wanted: str) -> ValueError:
        return user_error(ValueError, f"Dense: input of shape {tuple(shape)} does not fit the layer {self.name!r}, "
                                      f"which takes {wanted}")


class Flatten(Unary):
    """All axes but the first in one.

    >>> import jitgrad as jg
    >>> Flatten()(jg.ones((5, 2, 3))).shape
    (5, 6)
    """

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name=name)

    def call(self, inputs: Any) -> Any:
        shape = inputs.shape
        return composite.reshape(inputs, (shape[0], math.prod(shape[1:])) if shape else (1, 1))


class Activation(Unary):
    """An activation function, by name or itself."""

    def __init__(self, activation: Any, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.activation = activations.get(activation)

    def call(self, inputs: Any) -> Any:
        return self.activation(inputs)


class ReLU(Unary):
    """``x`` where it is positive, else 0; up to ``max_value``, with a slope below ``threshold``.

    >>> ReLU(max_value=6.0)([-1., 3., 8.]).numpy()
    array([0., 3., 6.], dtype=float32)
    """

    def __init__(self, max_value: float | None = None, negative_slope: float = 0.0, threshold: float = 0.0,
                 name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        for word, value in (("max_value", max_value), ("negative_slope", negative_slope), ("threshold", threshold)):
            if value is not None and value < 0.0:
                raise user_error(ValueError, f"ReLU: {word} must not be negative, got {value}")
        self.max_value, self.negative_slope, self.threshold = max_value, float(negative_slope), float(threshold)

    def call(self, inputs: Any) -> Any:
        if self.negative_slope or self.threshold:
            below = (inputs - self.threshold) * self.negative_slope
            out = ops.where(inputs > self.threshold, inputs, below)
        else:
            out = ops.relu(inputs)
        return out if self.max_value is None else ops.minimum(out, self.max_value)


class Softmax(Unary):
    """``exp(x) / sum(exp(x))`` along an axis."""

    def __init__(self, axis: Any = -1, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.axis = axis

    def call(self, inputs: Any) -> Any:
        return composite.softmax(inputs, self.axis)


class Rescaling(Unary):
    """``x * scale + offset``, in the layer's float dtype.

    >>> Rescaling(1 / 255)([0, 255]).numpy()
    array([0., 1.], dtype=float32)
    """

    def __init__(self, scale: float, offset: float = 0.0, name: str | None = None, dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.scale, self.offset = float(scale), float(offset)

    def checked(self, inputs: Any) -> Any:
        return tensor(inputs, self.weight_code)

    def call(self, inputs: Any) -> Any:
        return inputs * self.scale + self.offset


class Dropout(Layer):
    """While training, each element is 0 with probability ``rate``, and the others grow by ``1 / (1 - rate)``.

    Without ``training=`` it does as the model around it was told, else nothing.

    >>> import jitgrad as jg
    >>> layer = Dropout(0.5, seed=1)
    >>> float(jg.max(layer(jg.ones((100,)), training=True))), float(jg.max(layer(jg.ones((100,)))))
    (2.0, 1.0)
    """

    def __init__(self, rate: float, noise_shape: Any = None, seed: int | None = None, name: str | None = None,
                 dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        if not 0.0 <= rate <= 1.0:
            raise user_error(ValueError, f"Dropout: rate must be in [0, 1], got {rate}")
        self.rate = float(rate)
        self.noise_shape = noise_shape
        self._uniform = random.uniform if seed is None else random.Generator(seed).uniform

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        inputs = tensor(inputs, self._code)
        if not (CALL.training if training is None else training) or self.rate == 0.0:
            return inputs
        if self.rate == 1.0:
            return inputs * 0.0
        shape = inputs.shape
        if self.noise_shape is not None:
            shape = tuple(n if m is None else m for n, m in zip(shape, self.noise_shape, strict=True))
        keep = self._uniform(shape, dtype="float32") >= self.rate
        return ops.where(keep, inputs * (1.0 / (1.0 - self.rate)), 0.0)
