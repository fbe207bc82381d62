"""`tf.function` and `tf.TensorSpec`: `jg.function`, and what a signature says of its arguments."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import jitgrad as jg
from jitgrad.core import nest
from jitgrad.core.errors import user_error


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class TensorSpec:
    """Shape and dtype of a Tensor; None is any length, or with ``shape=None`` any shape.

    >>> import jitgrad.interop.tensorflow as tf
    >>> tf.TensorSpec([None, 2], tf.float32)
    TensorSpec(shape=(None, 2), dtype=float32, name=None)
    """

    shape: tuple[int | None, ...] | None
    dtype: np.dtype[Any]
    name: str | None = dataclasses.field(compare=False)

    def __init__(self, shape: Any, dtype: Any = jg.float32, name: str | None = None) -> None:
        lengths = (shape,) if isinstance(shape, int) else shape
        object.__setattr__(self, "shape", None if lengths is None else tuple(lengths))
        object.__setattr__(self, "dtype", np.dtype(dtype))
        object.__setattr__(self, "name", name)

    @classmethod
    def from_tensor(cls, tensor: Any, name: str | None = None) -> TensorSpec:
        """The spec of this very shape and dtype."""
        return cls(tensor.shape, tensor.dtype, name)

    def is_compatible_with(self, other: Any) -> bool:
        """Whether a Tensor, or every Tensor of another spec, is one of these."""
        if self.dtype != other.dtype:
            return False
        if self.shape is None or other.shape is None:
            return True
        return len(self.shape) == len(other.shape) and all(
            a is None or b is None or a == b for a, b in zip(self.shape, other.shape, strict=True))

    def __repr__(self) -> str:
        shape = "<unknown>" if self.shape is None else self.shape
        return f"TensorSpec(shape={shape}, dtype={self.dtype.name}, name={self.name!r})"


def function(func: Callable[..., Any] | None = None, input_signature: Sequence[Any] | None = None,
             autograph: bool = True, jit_compile: bool | None = None, reduce_retracing: bool = False,
             experimental_implements: Any = None, experimental_autograph_options: Any = None,
             experimental_attributes: Any = None, experimental_relax_shapes: Any = None,
             experimental_compile: bool | None = None, experimental_follow_type_hints: bool | None = None) -> Any:
    """`jg.function`, with an ``input_signature`` to hold calls to.

    ``input_signature``: a `TensorSpec`, or a nest of them, for each parameter without a default; numbers, lists and
    arrays become Tensors of its dtype, and what does not fit raises TypeError. Nothing else changes how a call is
    recorded: Python's own control flow is guarded rather than rewritten (``autograph``), all is machine code
    (``jit_compile``), and each shape has a recording of its own (``reduce_retracing``).

    >>> import jitgrad.interop.tensorflow as tf
    >>> @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)])
    ... def double(x):
    ...     return 2.0 * x
    >>> double([1.0, 2.0]).numpy()
    array([2., 4.], dtype=float32)
    """
    if func is None:
        return functools.partial(function, input_signature=input_signature)
    return jg.function(func) if input_signature is None else _Signed(func, input_signature)


class _Signed:
    """A function whose arguments have to fit a signature."""

    def __init__(self, func: Callable[..., Any], input_signature: Sequence[Any]) -> None:
        if not isinstance(input_signature, list | tuple):
            raise user_error(TypeError, f"input_signature must be either a tuple or a list, got "
                                        f"{type(input_signature).__name__}.")
        self.input_signature = tuple(input_signature)
        for spec in nest.flatten(self.input_signature)[0]:
            if not isinstance(spec, TensorSpec):
                raise user_error(TypeError, "input_signature must be a possibly nested sequence of TensorSpec objects, "
                                            f"got {spec!r}")
        self.python_function = func
        self.function = jg.function(func)
        self._signature = inspect.signature(func)
        names = [p.name for p in self._signature.parameters.values()
                 if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self._specs = dict(zip(names[names[:1] == ["self"]:], self.input_signature, strict=False))
        if len(self._specs) < len(self.input_signature):
            raise user_error(TypeError, f"input_signature has {len(self.input_signature)} entries, the function "
                                        f"{self.function.__name__} takes {len(self._specs)} positional arguments")
        for p in self._signature.parameters.values():
            if p.name not in self._specs and p.name != "self" and p.default is p.empty and \
                    p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                raise user_error(TypeError, f"input_signature missing type constraint for {p.name}")
        functools.update_wrapper(self, func)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            bound = self._signature.bind(*args, **kwargs)
            for name, value in bound.arguments.items():
                if name in self._specs:
                    bound.arguments[name] = _fitted(self._specs[name], value)
                elif name != "self" and value is not (default := self._signature.parameters[name].default):
                    raise TypeError(f"{name!r} is not in the input_signature, it stays {default!r} and cannot be "
                                    f"{value!r}")
        except (TypeError, ValueError) as error:
            signature = ", ".join(f"{name}: {spec!r}" for name, spec in self._specs.items())
            raise user_error(TypeError, f"Binding inputs to tf.function failed due to `{error}`. Received args: {args} "
                                        f"and kwargs: {kwargs} for signature: ({signature})") from None
        return self.function(*bound.args, **bound.kwargs)


def _fitted(spec: Any, value: Any) -> Any:
    """A nest of arguments as Tensors that fit a nest of specs."""
    if isinstance(spec, TensorSpec):
        made = value if isinstance(value, jg.Tensor | jg.Variable) else jg.asarray(value, spec.dtype)
        found = TensorSpec.from_tensor(made)
        if not spec.is_compatible_with(found):
            raise TypeError(f"Can not cast {found!r} to {spec!r}")
        return made
    specs, structure = nest.flatten(spec)
    return nest.rebuild(structure, [_fitted(s, v) for s, v in zip(specs, structure.flatten_up_to(value), strict=True)])
