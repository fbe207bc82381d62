"""jitgrad: functions recorded before, as a user would write them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jitgrad as jg
from benchmarks import workloads as w
from benchmarks.engine import workloads as e
from benchmarks.libraries import use_jitgrad as here
from benchmarks.libraries.use_jitgrad import VERSION, settle
from benchmarks.worker import Mode, over

__all__ = ["VERSION", "WORKLOADS", "settle"]
Numbers = Callable[[Any], list[Any]]


def replayed(label: str, f: Callable[..., Any], *args: Any, numbers: Numbers) -> Mode:
    """A call with the same arguments, its results dropped."""
    def loop(n: int) -> None:
        for _ in itertools.repeat(None, n):
            f(*args)
    return Mode(label, loop, lambda: numbers(f(*args)), replayed=True)


def arrays(found: Any) -> list[Any]:
    """The numbers of a list or tuple of Tensors."""
    return [t.numpy() for t in found]


# ---- training ------------------------------------------------------------------------------------

def mlp() -> Iterator[Mode]:
    yield here.stepped("function(step), tape, assign_sub", here.mlp_training(), replayed=True)
    yield here.stepped("function(step), tape, nn and SGD", here.layers_training(), replayed=True)


def mlp_epoch() -> Iterator[Mode]:
    yield here.scanned(here.mlp_training())


def deep_training() -> Callable[..., Any]:
    """A step of the large network."""
    layers = [jg.nn.layers.Dense(n, activation="relu") for n in e.WIDTHS[1:-1]]
    model = jg.nn.Sequential([*layers, jg.nn.layers.Dense(e.WIDTHS[-1])])
    criterion = jg.nn.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = jg.nn.optimizers.Adam(e.ADAM["rate"], *list(e.ADAM.values())[1:])
    model(jg.asarray(e.deep_batches()[0][0]))
    weights = model.trainable_variables
    for variable, start in zip(weights, e.deep_parameters(), strict=True):
        variable.assign(start)

    def step(x: Any, y: Any) -> Any:
        with jg.GradientTape() as tape:
            loss = criterion(y, model(x))
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss
    return step


def adam() -> Iterator[Mode]:
    step = jg.function(deep_training())
    batches = [(jg.asarray(x), jg.asarray(y)) for x, y in e.deep_batches()]
    yield Mode("function(step), tape, nn and Adam", over(batches, step),
               lambda: [[float(step(*batch)) for batch in batches[:e.DEEP_STEPS]]], replayed=True)
    layers, alone = [[jg.asarray(a) for a in layer] for layer in e.deep_layers()], jg.function(products)
    yield Mode(f"function, {e.GEMMS}", over(batches, lambda x, _: alone(x, layers)), lambda: [], replayed=True)


def products(first: Any, layers: list[Any]) -> list[Any]:
    """The matrix products of a step of the large network on a batch."""
    layers = [[first, *layers[0][1:]], *layers[1:]]
    forward = [x @ kernel for x, kernel, _ in layers]
    kernels = [x.T @ g for x, _, g in layers]
    return forward + kernels + [g @ kernel.T for _, kernel, g in layers[1:]]


# ---- values and gradients ------------------------------------------------------------------------

def written(x: Any) -> Any:
    """The expression."""
    return jg.sum(jg.tanh(x) * jg.exp(-x * x) + jg.log1p(x * x))


def expression(n: int) -> Iterator[Mode]:
    x = jg.asarray(e.points(n))
    yield replayed("function(value_and_grad)", jg.function(jg.value_and_grad(written)), x,
                   numbers=lambda found: e.expression_numbers(*arrays(found)))


def lstm_loss(hoisted: bool, weights: list[Any], xs: Any) -> Any:
    """The mean square of all hidden states; the inputs multiplied within the loop, or all before it."""
    wi, wh, b = weights

    def cell(carry: tuple[Any, Any], x: Any) -> tuple[tuple[Any, Any], Any]:
        h, c = carry
        z = (x if hoisted else x @ wi + b) + h @ wh
        i, f, g, o = (z[:, k * e.HIDDEN:(k + 1) * e.HIDDEN] for k in range(4))
        c = jg.sigmoid(f) * c + jg.sigmoid(i) * jg.tanh(g)
        h = jg.sigmoid(o) * jg.tanh(c)
        return (h, c), h
    start = jg.zeros((e.BATCH, e.HIDDEN))
    _, hs = jg.scan(cell, (start, start), xs @ wi + b if hoisted else xs)
    return jg.mean(hs * hs)


def lstm() -> Iterator[Mode]:
    weights, xs = e.lstm_inputs()
    given = [jg.asarray(a) for a in weights]
    for hoisted in (False, True):
        label = f"function(value_and_grad), scan, inputs multiplied {'before' if hoisted else 'within'}"
        yield replayed(label, jg.function(jg.value_and_grad(partial(lstm_loss, hoisted))), given, jg.asarray(xs),
                       numbers=lambda found: arrays([found[0], *found[1]]))


def third_derivative() -> Iterator[Mode]:
    def f(x: Any) -> Any:
        return jg.sin(x) ** 2

    def each(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return jg.grad(lambda x: jg.sum(f(x)))
    yield replayed("function(vmap(grad of grad of grad))", jg.function(jg.vmap(jg.grad(jg.grad(jg.grad(f))))),
                   jg.asarray(e.angles()), numbers=lambda found: arrays([found]))
    yield replayed("function(grad of sum, three times)", jg.function(each(each(each(f)))), jg.asarray(e.angles()),
                   numbers=lambda found: arrays([found]))


def hessian() -> Iterator[Mode]:
    def rosenbrock(x: Any) -> Any:
        return jg.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)
    yield replayed("function(hessian)", jg.function(jg.hessian(rosenbrock)), jg.asarray(e.unknowns()),
                   numbers=lambda found: arrays([found]))


def hvp() -> Iterator[Mode]:
    start, along = ([jg.asarray(a) for a in kind] for kind in (w.mlp_parameters(), e.direction()))
    x, y = here.batches()[0]
    product = jg.function(lambda ps, vs, x, y: jg.hvp(lambda ps: here.mlp_loss(ps, x, y), (ps,), (vs,)))
    yield replayed("function(hvp)", product, start, along, x, y, numbers=arrays)


# ---- loops ---------------------------------------------------------------------------------------

def _start() -> tuple[Any, ...]:
    return tuple(jg.constant(v, dtype="float64") for v in e.RK4["start"])


def rk4_scan(p: Any) -> Any:
    """All steps as one `scan`."""
    (x, y), _ = jg.scan(lambda s, _: (e.rk4_step(p, *s), None), _start(), None, e.RK4["steps"])
    return x + y


def rk4_fori(p: Any) -> Any:
    """All steps as one `fori_loop`."""
    x, y = jg.fori_loop(0, e.RK4["steps"], lambda _, s: e.rk4_step(p, *s), _start())
    return x + y


def rk4_python(p: Any) -> Any:
    """All steps in a Python loop."""
    x, y = _start()
    for _ in range(e.RK4["steps"]):
        x, y = e.rk4_step(p, x, y)
    return x + y


def rk4() -> Iterator[Mode]:
    p = jg.asarray(e.rates())
    for name, f in (("scan", rk4_scan), ("fori_loop", rk4_fori), (e.UNROLLED, rk4_python)):
        yield replayed(f"function(value_and_grad), {name}", jg.function(jg.value_and_grad(f)), p, numbers=arrays)


def chain() -> Iterator[Mode]:
    yield from (mode for mode in here.chain_value() if mode.replayed)


# ---- from Numba ----------------------------------------------------------------------------------

def njit_call() -> Iterator[Mode]:
    from benchmarks.engine.foreign import calling
    given = w.entry_inputs()
    compiled = jg.function(w.entry_by_hand).njit(*given)
    yield Mode("fn.njit, called under @njit", calling(compiled, given), lambda: [compiled(*given)], replayed=True)


WORKLOADS: dict[str, Callable[[], Iterator[Mode]]] = {
    "mlp": mlp, "mlp-epoch": mlp_epoch, "adam": adam, "lstm": lstm, "third-derivative": third_derivative,
    "hessian": hessian, "hvp": hvp, "rk4": rk4, "chain": chain, "njit-call": njit_call,
    **{f"expression-{size}": partial(expression, n) for size, n in e.SIZES.items()}}
