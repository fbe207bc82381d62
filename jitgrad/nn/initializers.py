"""First values of weights, by Keras's names and formulas; the draws are jitgrad's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from jitgrad import random
from jitgrad.core.aval import as_shape
from jitgrad.core.dtypes import code_of, default_float
from jitgrad.core.errors import user_error
from jitgrad.core.record import tensor
from jitgrad.nn.names import by_name
from jitgrad.nn.tracking import Versioned
from jitgrad.ops import creation

_WITHIN_TWO = 0.87962566103423978       # standard deviation of a normal number cut off at two


class Initializer(Versioned):
    """Makes a Tensor of a shape and dtype. A subclass says how in `draw`.

    With a ``seed`` every call gives the same numbers; without one they come from `jitgrad.random`, which
    `jitgrad.random.set_seed` makes reproducible.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """A Tensor of ``shape`` in ``dtype`` (the default float)."""
        code = default_float() if dtype is None else code_of(dtype)
        return creation.from_array(self.draw(as_shape(shape)), code)

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        """The numbers, as a NumPy array. Users define it, or `__call__` as with Keras, so it is not abstract:
        NotImplementedError where neither is there.
        """
        raise NotImplementedError(f"{type(self).__name__} must define draw")

    def stream(self) -> random.Generator | Any:
        """Where ``uniform`` and ``normal`` numbers come from."""
        return random if self.seed is None else random.Generator(self.seed)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({fields})"


class Zeros(Initializer):
    """Zeros."""

    def __init__(self) -> None:
        super().__init__()

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape)


class Ones(Initializer):
    """Ones."""

    def __init__(self) -> None:
        super().__init__()

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.ones(shape)


class Constant(Initializer):
    """One value everywhere, or an array that broadcasts to the shape."""

    def __init__(self, value: Any = 0.0) -> None:
        super().__init__()
        self.value = value

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        value = tensor(self.value, what="Constant").numpy()
        try:
            return np.broadcast_to(value, shape)
        except ValueError:
            raise user_error(ValueError, f"Constant: a value of shape {value.shape} does not fill shape "
                                         f"{shape}") from None


class RandomUniform(Initializer):
    """Uniform numbers in [minval, maxval)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.minval, self.maxval = minval, maxval

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        out: np.ndarray = self.stream().uniform(shape, self.minval, self.maxval, "float64").numpy()
        return out


class RandomNormal(Initializer):
    """Normal numbers."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean, self.stddev = mean, stddev

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        out: np.ndarray = self.stream().normal(shape, self.mean, self.stddev, "float64").numpy()
        return out


class TruncatedNormal(RandomNormal):
    """Normal numbers of those within two standard deviations of the mean."""

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        out: np.ndarray = self.stream().truncated_normal(shape, self.mean, self.stddev, "float64").numpy()
        return out


class VarianceScaling(Initializer):
    """Numbers whose variance is ``scale`` over the number of inputs, of outputs, or their average (`fans`)."""

    def __init__(self, scale: float = 1.0, mode: str = "fan_in", distribution: str = "truncated_normal",
                 seed: int | None = None) -> None:
        super().__init__(seed)
        if scale <= 0:
            raise user_error(ValueError, f"VarianceScaling: scale must be above 0, got {scale}")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise user_error(ValueError, f"VarianceScaling: mode must be fan_in, fan_out or fan_avg, got {mode!r}")
        if distribution not in ("uniform", "truncated_normal", "untruncated_normal"):
            raise user_error(ValueError, "VarianceScaling: distribution must be uniform, truncated_normal or "
                                         f"untruncated_normal, got {distribution!r}")
        self.scale, self.mode, self.distribution = scale, mode, distribution

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        fan_in, fan_out = fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        stddev = math.sqrt(self.scale / max(1.0, fan))
        if self.distribution == "uniform":
            limit = math.sqrt(3.0) * stddev
            return RandomUniform(-limit, limit, self.seed).draw(shape)
        if self.distribution == "untruncated_normal":
            return RandomNormal(0.0, stddev, self.seed).draw(shape)
        return TruncatedNormal(0.0, stddev / _WITHIN_TWO, self.seed).draw(shape)


class _Scaled(VarianceScaling):
    """A `VarianceScaling` under a name of its own."""

    rule: tuple[float, str, str]

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(*self.rule, seed=seed)


class GlorotUniform(_Scaled):
    """Uniform in +-sqrt(6 / (inputs + outputs)), after Glorot and Bengio (2010).

    >>> import jitgrad as jg
    >>> kernel = jg.nn.initializers.GlorotUniform(seed=1)((200, 100))
    >>> bool(abs(kernel.numpy()).max() <= (6 / 300) ** 0.5)
    True
    """

    rule = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Scaled):
    """Truncated normal of variance 2 / (inputs + outputs)."""

    rule = (1.0, "fan_avg", "truncated_normal")


class HeUniform(_Scaled):
    """Uniform in +-sqrt(6 / inputs), after He et al. (2015)."""

    rule = (2.0, "fan_in", "uniform")


class HeNormal(_Scaled):
    """Truncated normal of variance 2 / inputs."""

    rule = (2.0, "fan_in", "truncated_normal")


class LecunUniform(_Scaled):
    """Uniform in +-sqrt(3 / inputs), after LeCun et al. (1998)."""

    rule = (1.0, "fan_in", "uniform")


class LecunNormal(_Scaled):
    """Truncated normal of variance 1 / inputs."""

    rule = (1.0, "fan_in", "truncated_normal")


class Identity(Initializer):
    """``gain`` on the diagonal of a matrix, else 0."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) != 2:
            raise user_error(ValueError, f"Identity: makes matrices, not shape {shape}")
        return np.eye(*shape) * self.gain


class Orthogonal(Initializer):
    """``gain`` times a random matrix whose rows or columns, whichever are fewer, are orthonormal (Saxe et al., 2013).

    Of more than two axes all but the last make the rows.
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        super().__init__(seed)
        self.gain = gain

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) < 2:
            raise user_error(ValueError, f"Orthogonal: needs at least two axes, got shape {shape}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        tall = self.stream().normal((max(rows, columns), min(rows, columns)), dtype="float64").numpy()
        q, r = np.linalg.qr(tall)
        q = q * np.sign(np.diag(r))                # of all orthogonal matrices, each equally likely
        return (q if rows >= columns else q.T).reshape(shape) * self.gain


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """Inputs and outputs of a weight: of a matrix its two lengths, of a convolution times its window.

    >>> fans((3, 3, 16, 32))
    (144, 288)
    """
    if len(shape) < 2:
        n = shape[0] if shape else 1
        return n, n
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window


def get(identifier: Any) -> Callable[..., Any]:
    """An initializer from its name ("glorot_uniform", "GlorotUniform"), its class, or any function of shape and dtype.

    >>> get("zeros")((2,)).numpy()
    array([0., 0.], dtype=float32)
    """
    if isinstance(identifier, type) and issubclass(identifier, Initializer):
        return identifier()
    if callable(identifier):
        return cast(Callable[..., Any], identifier)
    made: Callable[..., Any] = by_name("initializer", identifier, globals(), Initializer)()
    return made
