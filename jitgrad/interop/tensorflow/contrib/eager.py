"""`tf.contrib.eager` (tfe) of TensorFlow 1: gradients as functions of functions.

They go by the names of TensorFlow's backprop.py too: `gradients_function`, `val_and_grad_function`, `make_vjp`,
`implicit_grad`, `implicit_val_and_grad`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jitgrad as jg
from jitgrad.core.errors import user_error
from jitgrad.frontend.tape import GradientTape as GradientTape

Variable = jg.Variable


def executing_eagerly() -> bool:
    """True: operations run when they are called."""
    return True


in_eager_mode = executing_eagerly


def make_vjp(f: Callable[..., Any], params: Sequence[int | str] | None = None, persistent: bool = True,
             ) -> Callable[..., tuple[Any, Callable[..., list[Any]]]]:
    """A function of f's arguments that gives f's value and its vjp: cotangents of the value (ones unless given) to
    the list of gradients in ``params``, as often as wanted unless ``persistent=False``.

    ``params``: numbers or names of arguments, all positional ones by default; those become Tensors, each its own.
    Raises ValueError if ``f`` returns None, or an argument that is asked for was not given.

    >>> value, vjp = make_vjp(lambda x: x * x)(3.0)
    >>> float(value), float(vjp()[0]), float(vjp(10.0)[0])
    (9.0, 6.0, 60.0)
    """
    def decorated(*args: Any) -> tuple[Any, Callable[..., list[Any]]]:
        wanted = range(len(args)) if params is None else [_position(f, p, len(args)) for p in params]
        given = [jg.identity(a) if i in wanted else a for i, a in enumerate(args)]
        sources = [given[i] for i in wanted]
        with GradientTape(persistent=persistent) as tape:
            tape.watch([x for x in sources if x.dtype.kind == "f"])
            value = _value(f, *given)

        def vjp(dy: Any = None) -> list[Any]:
            return list(tape.gradient(value, sources, output_gradients=dy))
        return value, vjp
    return decorated


def value_and_gradients_function(f: Callable[..., Any], params: Sequence[int | str] | None = None,
                                 ) -> Callable[..., tuple[Any, list[Any]]]:
    """A function of f's arguments that gives f's value and the list of its gradients in ``params``, as `make_vjp`.

    ``dy=`` in the call starts from other cotangents than ones.

    >>> value_and_gradients_function(lambda x, y: x * y)(3.0, 4.0)[1][0].numpy().item()
    4.0
    """
    both = make_vjp(f, params, persistent=False)

    def differentiated(*args: Any, dy: Any = None) -> tuple[Any, list[Any]]:
        value, vjp = both(*args)
        return value, vjp(dy)
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
    """A function of f's arguments that gives f's value and (gradient, variable) for each Variable that f reads.

    Raises ValueError if ``f`` returns None or reads no trainable Variable.
    """
    def differentiated(*args: Any, **kwargs: Any) -> tuple[Any, list[tuple[Any, Any]]]:
        with GradientTape() as tape:
            value = _value(f, *args, **kwargs)
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


val_and_grad_function = value_and_gradients_function       # as in TensorFlow's backprop.py
implicit_val_and_grad, implicit_grad = implicit_value_and_gradients, implicit_gradients


def _value(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    value = f(*args, **kwargs)
    if value is None:
        raise user_error(ValueError, "Cannot differentiate a function that returns None; did you forget to return "
                                     f"a value from {getattr(f, '__name__', 'it')}?")
    return value


def _position(f: Callable[..., Any], param: int | str, count: int) -> int:
    names = list(inspect.signature(f).parameters) if isinstance(param, str) else []
    at = names.index(param) if param in names else param
    if not isinstance(at, int) or not 0 <= at < count:
        raise user_error(ValueError, f"gradients_function: {getattr(f, '__name__', 'the function')} was given {count} "
                                     f"positional arguments, none of them is {param!r}")
    return at
