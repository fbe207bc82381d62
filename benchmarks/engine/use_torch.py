"""PyTorch, eager and by torch.compile."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.func import grad, grad_and_value, jvp, vmap
from torch.nn import functional

from benchmarks import workloads as w
from benchmarks.engine import workloads as e
from benchmarks.libraries import use_torch as here
from benchmarks.libraries.use_torch import VERSION
from benchmarks.worker import Mode, over

__all__ = ["VERSION", "WORKLOADS"]
COMPILED = "torch.compile"


def called(label: str, f: Callable[..., Any], *args: Any, numbers: Callable[[Any], list[Any]]) -> Mode:
    """A call with the same arguments, its results dropped."""
    def loop(n: int) -> None:
        for _ in itertools.repeat(None, n):
            f(*args)
    return Mode(label, loop, lambda: [r.detach() for r in numbers(f(*args))])


def both(name: str, f: Callable[..., Any], *args: Any, numbers: Callable[[Any], list[Any]]) -> Iterator[Mode]:
    """As it is, and compiled."""
    yield called(f"eager, {name}", f, *args, numbers=numbers)
    yield called(f"{COMPILED}({name})", torch.compile(f), *args, numbers=numbers)


# ---- training ------------------------------------------------------------------------------------

def mlp() -> Iterator[Mode]:
    yield from here.mlp()
    yield from here.mlp_layers()
    step, parameters = here.functional_training(here.by_grad)
    yield here.stepped(f"{COMPILED}(step), autograd.grad, sub_", lambda: (torch.compile(step), parameters))


def deep_training(compiled: bool, **options: Any) -> Callable[..., Any]:
    """A step of the large network."""
    layers: list[Any] = []
    for m, n in itertools.pairwise(e.WIDTHS):
        layers += [torch.nn.Linear(m, n), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1]).to(here.DEVICE)
    with torch.no_grad():
        for p, start in zip(model.parameters(), e.deep_parameters(), strict=True):
            p.copy_(torch.from_numpy(start).T if start.ndim == 2 else torch.from_numpy(start))
    rate, *betas, epsilon = e.ADAM.values()
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=tuple(betas), eps=epsilon, **options)

    def total(x: Any, y: Any) -> Any:
        return functional.cross_entropy(model(x), y)
    loss_of = torch.compile(total) if compiled else total

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(x, y)
        loss.backward()
        optimizer.step()
        return loss
    return step


def adam() -> Iterator[Mode]:
    batches = [(here.there(x), here.there(y).long()) for x, y in e.deep_batches()]
    for label, compiled, options in (("eager, nn and Adam(foreach=True)", False, {"foreach": True}),
                                     ("eager, nn and Adam(fused=True)", False, {"fused": True}),
                                     (f"{COMPILED}(loss), nn and Adam(fused=True)", True, {"fused": True})):
        step = deep_training(compiled, **options)
        yield Mode(label, over(batches, step),
                   lambda step=step: [[step(*b).item() for b in batches[:e.DEEP_STEPS]]])


# ---- values and gradients ------------------------------------------------------------------------

def written(x: Any) -> Any:
    """The expression."""
    return torch.sum(torch.tanh(x) * torch.exp(-x * x) + torch.log1p(x * x))


def expression(n: int) -> Iterator[Mode]:
    x = here.there(e.points(n))
    leaf = x.clone().requires_grad_()

    def eager() -> tuple[Any, Any]:
        value = written(leaf)
        return value, torch.autograd.grad(value, leaf)[0]

    def numbers(found: Any) -> list[Any]:
        return [torch.from_numpy(np.asarray(a)) for a in e.expression_numbers(*map(here.numbers, found))]
    yield called("eager, autograd.grad", eager, numbers=numbers)
    yield called(f"{COMPILED}(grad_and_value)", torch.compile(grad_and_value(written)), x,
                 numbers=lambda found: numbers(found[::-1]))


def lstm() -> Iterator[Mode]:
    (wi, wh, b), xs = e.lstm_inputs()
    model, x = torch.nn.LSTM(e.INPUTS, e.HIDDEN), torch.from_numpy(xs)
    with torch.no_grad():
        for p, start in zip(model.parameters(), (wi.T, wh.T, b, 0 * b), strict=True):
            p.copy_(torch.from_numpy(start))
    weights = list(model.parameters())[:3]      # the second bias has the gradient of the first

    def call() -> tuple[Any, ...]:
        hs, _ = model(x)
        loss = torch.mean(hs * hs)
        return loss, *torch.autograd.grad(loss, weights)
    yield called("eager, nn.LSTM, autograd.grad", call,
                 numbers=lambda found: [found[0], found[1].T, found[2].T, found[3]])


def third_derivative() -> Iterator[Mode]:
    x = torch.from_numpy(e.angles()).requires_grad_()

    def eager() -> Any:
        y = torch.sin(x) ** 2
        for turn in range(3):
            y, = torch.autograd.grad(y.sum(), x, create_graph=turn < 2)
        return y
    yield called("eager, autograd.grad with create_graph", eager, numbers=lambda found: [found])
    f = vmap(grad(grad(grad(lambda x: torch.sin(x) ** 2))))
    yield called(f"{COMPILED}(vmap(grad of grad of grad))", torch.compile(f), x.detach(),
                 numbers=lambda found: [found])


def hessian() -> Iterator[Mode]:
    def rosenbrock(x: Any) -> Any:
        return torch.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)
    yield from both("func.hessian", torch.func.hessian(rosenbrock), torch.from_numpy(e.unknowns()),
                    numbers=lambda found: [found])


def hvp() -> Iterator[Mode]:
    start, along = (tuple(torch.from_numpy(a) for a in kind) for kind in (w.mlp_parameters(), e.direction()))
    x, y = here.batches()[0]
    leaves = [p.clone().requires_grad_() for p in start]

    def loss(ps: Any) -> Any:
        w1, b1, w2, b2 = ps
        return functional.cross_entropy(torch.addmm(b2, torch.relu(torch.addmm(b1, x, w1)), w2), y)

    def twice() -> Any:
        grads = torch.autograd.grad(loss(leaves), leaves, create_graph=True)
        return torch.autograd.grad(grads, leaves, along)
    yield called("eager, autograd.grad twice", twice, numbers=list)

    def product(ps: Any, vs: Any) -> Any:
        return jvp(grad(loss), (ps,), (vs,))[1]
    yield from both("jvp(grad)", product, start, along, numbers=list)


def rk4() -> Iterator[Mode]:
    p = torch.from_numpy(e.rates()).requires_grad_()
    h = e.RK4["h"]

    def call() -> tuple[Any, Any]:
        a, b, c, d = p.unbind()

        def slope(x: Any, y: Any) -> tuple[Any, Any]:
            return a * x - b * x * y, d * x * y - c * y
        x, y = (torch.tensor(v, dtype=torch.float64) for v in e.RK4["start"])
        for _ in range(e.RK4["steps"]):
            k1, l1 = slope(x, y)
            k2, l2 = slope(x + h / 2 * k1, y + h / 2 * l1)
            k3, l3 = slope(x + h / 2 * k2, y + h / 2 * l2)
            k4, l4 = slope(x + h * k3, y + h * l3)
            x, y = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), y + h / 6 * (l1 + 2 * l2 + 2 * l3 + l4)
        value = x + y
        return value, torch.autograd.grad(value, p)[0]
    yield called(f"eager, {e.UNROLLED}", call, numbers=list)


WORKLOADS: dict[str, Callable[[], Iterator[Mode]]] = {
    "mlp": mlp, "adam": adam, "lstm": lstm, "third-derivative": third_derivative, "hessian": hessian, "hvp": hvp,
    "rk4": rk4, "chain": lambda: iter(here.chain_value()),
    **{f"expression-{size}": partial(expression, n) for size, n in e.SIZES.items()}}
