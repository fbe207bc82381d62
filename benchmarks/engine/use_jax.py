"""JAX: jitted, the arguments on the device."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks import workloads as w
from benchmarks.engine import workloads as e
from benchmarks.libraries import use_jax as here
from benchmarks.libraries.use_jax import VERSION
from benchmarks.worker import Mode, over

__all__ = ["VERSION", "WORKLOADS"]
EACH, END = "waited for at each call", "waited for at the end"


def jitted(label: str, f: Callable[..., Any], *args: Any, numbers: Callable[[Any], list[Any]]) -> Iterator[Mode]:
    """A call with the same arguments, waited for at once or after the last, its results dropped."""
    def each(n: int) -> None:
        for _ in itertools.repeat(None, n):
            jax.block_until_ready(f(*args))

    def end(n: int) -> None:
        for _ in itertools.repeat(None, n - 1):
            f(*args)
        jax.block_until_ready(f(*args))
    for how, loop in ((EACH, each), (END, end)):
        yield Mode(f"{label}, {how}", loop, lambda: numbers(f(*args)), recorded=False)


# ---- training ------------------------------------------------------------------------------------

def mlp_epoch() -> Iterator[Mode]:
    yield here.scanned()


def deep_loss(parameters: list[Any], x: Any, y: Any) -> Any:
    """Mean cross-entropy of the large network."""
    for k in range(0, len(parameters), 2):
        x = x @ parameters[k] + parameters[k + 1]
        if k + 2 < len(parameters):
            x = jax.nn.relu(x)
    picked = jnp.take_along_axis(x, y[:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(x, axis=1) - picked)


def deep_step(state: tuple[Any, ...], x: Any, y: Any) -> tuple[Any, Any]:
    """Parameters, moments and turn after a step, and the loss."""
    parameters, ms, vs, turn = state
    rate, beta_1, beta_2, epsilon = e.ADAM.values()
    loss, grads = jax.value_and_grad(deep_loss)(parameters, x, y)
    turn = turn + 1
    factor = rate * jnp.sqrt(1 - beta_2 ** turn) / (1 - beta_1 ** turn)
    ms = [m + (g - m) * (1 - beta_1) for m, g in zip(ms, grads, strict=True)]
    vs = [v + (g * g - v) * (1 - beta_2) for v, g in zip(vs, grads, strict=True)]
    new = [p - m * factor / (jnp.sqrt(v) + epsilon) for p, m, v in zip(parameters, ms, vs, strict=True)]
    return (new, ms, vs, turn), loss


def deep_training(wait: bool) -> Mode:
    """Steps of the large network, each waited for or none."""
    batches = [(jnp.asarray(x), jnp.asarray(y)) for x, y in e.deep_batches()]
    parameters = [jnp.array(p) for p in e.deep_parameters()]
    state: Any = (parameters, *([jnp.zeros_like(p) for p in parameters] for _ in range(2)), jnp.float32(0))
    step = jax.jit(deep_step, donate_argnums=0)

    def one(x: Any, y: Any) -> Any:
        nonlocal state
        state, loss = step(state, x, y)
        if wait:
            jax.block_until_ready(state)
        return loss
    return Mode("jit(step), donated", over(batches, one),
                lambda: [[float(one(*b)) for b in batches[:e.DEEP_STEPS]]], recorded=False)


def adam() -> Iterator[Mode]:
    for how in (EACH, END):
        made = deep_training(how == EACH)
        yield replace(made, label=f"{made.label}, {how}", loop=here.waited(made.loop))


# ---- values and gradients ------------------------------------------------------------------------

def written(x: Any) -> Any:
    """The expression."""
    return jnp.sum(jnp.tanh(x) * jnp.exp(-x * x) + jnp.log1p(x * x))


def expression(n: int) -> Iterator[Mode]:
    f = jax.jit(jax.value_and_grad(written))
    yield from jitted("jit(value_and_grad)", f, jnp.asarray(e.points(n)),
                      numbers=lambda found: e.expression_numbers(*found))


def lstm_loss(hoisted: bool, weights: list[Any], xs: Any) -> Any:
    """The mean square of all hidden states; the inputs multiplied within the loop, or all before it."""
    wi, wh, b = weights

    def cell(carry: tuple[Any, Any], x: Any) -> tuple[tuple[Any, Any], Any]:
        h, c = carry
        i, f, g, o = jnp.split((x if hoisted else x @ wi + b) + h @ wh, 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h
    start = jnp.zeros((e.BATCH, e.HIDDEN), jnp.float32)
    _, hs = lax.scan(cell, (start, start), xs @ wi + b if hoisted else xs)
    return jnp.mean(hs * hs)


def lstm() -> Iterator[Mode]:
    weights, xs = e.lstm_inputs()
    given = [jnp.asarray(a) for a in weights]
    for hoisted in (False, True):
        yield from jitted(f"jit(value_and_grad), scan, inputs multiplied {'before' if hoisted else 'within'}",
                          jax.jit(jax.value_and_grad(partial(lstm_loss, hoisted))), given, jnp.asarray(xs),
                          numbers=lambda found: [found[0], *found[1]])


def third_derivative() -> Iterator[Mode]:
    f = jax.jit(jax.vmap(jax.grad(jax.grad(jax.grad(lambda x: jnp.sin(x) ** 2)))))
    yield from jitted("jit(vmap(grad of grad of grad))", f, jnp.asarray(e.angles()), numbers=lambda found: [found])


def hessian() -> Iterator[Mode]:
    def rosenbrock(x: Any) -> Any:
        return jnp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)
    yield from jitted("jit(hessian)", jax.jit(jax.hessian(rosenbrock)), jnp.asarray(e.unknowns()),
                      numbers=lambda found: [found])


def hvp() -> Iterator[Mode]:
    start, along = ([jnp.asarray(a) for a in kind] for kind in (w.mlp_parameters(), e.direction()))
    x, y = (jnp.asarray(a) for a in w.mlp_batches()[0])

    @jax.jit
    def product(ps: Any, vs: Any, x: Any, y: Any) -> Any:
        return jax.jvp(jax.grad(lambda ps: here.mlp_loss(ps, x, y)), (ps,), (vs,))[1]
    yield from jitted("jit(jvp(grad))", product, start, along, x, y, numbers=list)


# ---- loops ---------------------------------------------------------------------------------------

def rk4() -> Iterator[Mode]:
    def scanned(p: Any) -> Any:
        (x, y), _ = lax.scan(lambda s, _: (e.rk4_step(p, *s), None),
                             tuple(jnp.asarray(v, p.dtype) for v in e.RK4["start"]), None, e.RK4["steps"])
        return x + y

    def fori(p: Any) -> Any:
        return sum(lax.fori_loop(0, e.RK4["steps"], lambda _, s: e.rk4_step(p, *s),
                                 tuple(jnp.asarray(v, p.dtype) for v in e.RK4["start"])))
    p = jnp.asarray(e.rates())
    yield from jitted(f"jit(value_and_grad), {e.REVERSE}", jax.jit(jax.value_and_grad(scanned)), p, numbers=list)
    yield from jitted("jit(jvp of every parameter), fori_loop, forward mode",
                      jax.jit(lambda p: (fori(p), jax.jacfwd(fori)(p))), p, numbers=list)


WORKLOADS: dict[str, Callable[[], Iterator[Mode]]] = {
    "mlp": here.mlp_steps, "mlp-epoch": mlp_epoch, "adam": adam, "lstm": lstm, "third-derivative": third_derivative,
    "hessian": hessian, "hvp": hvp, "rk4": rk4, "chain": lambda: iter(here.chain_value()),
    **{f"expression-{size}": partial(expression, n) for size, n in e.SIZES.items()}}
