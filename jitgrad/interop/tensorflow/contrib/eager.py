"""`tf.contrib.eager` (tfe) of TensorFlow 1: gradients as functions of functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jitgrad as jg
from jitgrad.core import nest
from jitgrad.core.errors import user_error
from jitgrad.frontend.tape import GradientTape as GradientTape

Variable = jg.Variable


def executing_eagerly() -> bool:
    """True: operations run when they are called."""
    return True


in_eager_mode = executing_eagerly


def value_and_gradients_function(f: Callable[..., Any], params: Sequence[int | str] | None = None,
                                 ) -> Callable[..., tuple[Any, list[Any]]]:
    """A function of f's arguments that gives f's value and the list of its gradients in ``params``.

    ``params``: numbers or names of arguments, all positional ones by default. ``dy=`` in the call starts from other
    cotangents than ones.

    >>> value_and_gradients_function(lambda x, y: x * y)(3.0, 4.0)[1][0].numpy().item()
    4.0
    """
    names = list(inspect.signature(f).parameters)

    def differentiated(*args: Any, dy: Any = None) -> tuple[Any, list[Any]]:
        wanted = [_position(f, names, p, len(args)) for p in params] if params is not None else list(range(len(args)))
        given = [_tensors(a) if i in wanted else a for i, a in enumerate(args)]
        sources = [given[i] for i in wanted]
        with GradientTape() as tape:
            tape.watch(sources)
            value = f(*given)
        if value is None:
            raise user_error(ValueError, "Cannot differentiate a function that returns None; did you forget to return "
                                         f"a value from {getattr(f, '__name__', 'it')}?")
        return value, list(tape.gradient(value, sources, output_gradients=dy))
    return differentiated


def gradients_function(f: Callable[..., Any], params: Sequence[int | str] | None = None) -> Callable[..., list[Any]]:
    """`value_and_gradients_function` without the value: a function that gives the list of gradients.

    >>> def square(x):
    ...     return x * x
    >>> gradients_function(square)(3.0)[0].numpy().item()
    6.0
    """
    both = value_and_gradients_function(f, params)

    def differentiated(*args: Any, dy: Any = None) -> list[Any]:
        return both(*args, dy=dy)[1]
    return differentiated


def implicit_value_and_gradients(f: Callable[..., Any]) -> Callable[..., tuple[Any, list[tuple[Any, Any]]]]:
    """A function of f's arguments that gives f's value and (gradient, variable) for each Variable that f reads."""
    def differentiated(*args: Any, **kwargs: Any) -> tuple[Any, list[tuple[Any, Any]]]:
        with GradientTape() as tape:
            value = f(*args, **kwargs)
        if value is None:
            raise user_error(ValueError, "Cannot differentiate a function that returns None; did you forget to return "
                                         f"a value from {getattr(f, '__name__', 'it')}?")
        variables = list(tape.watched_variables())
        if not variables:
            raise user_error(ValueError, "No trainable variables were accessed while the function was being computed.")
        return value, list(zip(tape.gradient(value, variables), variables, strict=True))
    return differentiated


def implicit_gradients(f: Callable[..., Any]) -> Callable[..., list[tuple[Any, Any]]]:
    """`implicit_value_and_gradients` without the value."""
    both = implicit_value_and_gradients(f)

    def differentiated(*args: Any, **kwargs: Any) -> list[tuple[Any, Any]]:
        return both(*args, **kwargs)[1]
    return differentiated


def _tensors(argument: Any) -> Any:
    """An argument with its numbers and arrays as Tensors, so that they can be watched; each stays its own."""
    leaves, structure = nest.flatten(argument)
    return nest.rebuild(structure, [x if isinstance(x, jg.Tensor | jg.Variable) else jg.asarray(x) for x in leaves])


def _position(f: Callable[..., Any], names: list[str], param: int | str, count: int) -> int:
    at = names.index(param) if param in names else param
    if not isinstance(at, int) or not 0 <= at < count:
        raise user_error(ValueError, f"gradients_function: {getattr(f, '__name__', 'the function')} was given {count} "
                                     f"positional arguments, none of them is {param!r}")
    return at
