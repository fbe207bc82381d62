"""PyTorch eager, in every form that might be its fastest."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks import kernels
from benchmarks import workloads as w
from benchmarks.worker import Mode, measured, over, repeated, with_four, with_pairs

VERSION = torch.__version__
DEVICE = os.environ.get("BENCHMARKS_DEVICE", "cpu")
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
torch.backends.cuda.matmul.allow_tf32 = os.environ.get("BENCHMARKS_TF32") == "1"


def there(array: np.ndarray) -> Any:
    """A tensor where the work is done."""
    return torch.from_numpy(array).to(DEVICE)


def numbers(t: Any) -> Any:
    """A tensor's numbers, in memory that NumPy reads."""
    return t.detach().cpu()


def op() -> list[Mode]:
    a, b = (torch.from_numpy(x) for x in w.op_inputs())
    leaf = a.clone().requires_grad_()

    def plain(n: int) -> None:
        with torch.inference_mode():
            for _ in itertools.repeat(None, n):
                a + b

    def recorded(n: int) -> None:
        for done in range(0, n, w.OPS_A_TAPE):
            kept = [leaf + b for _ in itertools.repeat(None, min(w.OPS_A_TAPE, n - done))]
            del kept
    return [Mode("a + b, recorded", recorded, lambda: [(leaf + b).detach()]),
            Mode("a + b, inference mode", plain, lambda: [a + b], recorded=False)]


def chain() -> list[Mode]:
    x = torch.from_numpy(w.chain_input()).requires_grad_()
    ones = torch.ones(w.LENGTH)

    def forward() -> Any:
        y = x
        for _ in range(w.TURNS):
            y = torch.sin(y) * 1.01 + 0.1
        return y

    def by_grad() -> Any:
        return torch.autograd.grad(forward(), x, ones)[0]

    def by_backward() -> Any:
        x.grad = None
        forward().backward(ones)
        return x.grad
    return [Mode("eager, autograd.grad", repeated(by_grad), lambda: [by_grad()]),
            Mode("eager, backward", repeated(by_backward), lambda: [by_backward()])]


def chain_value() -> list[Mode]:
    x = there(w.chain_input()).requires_grad_()

    def total(y: Any) -> Any:
        for _ in range(w.TURNS):
            y = torch.sin(y) * 1.01 + 0.1
        return y.sum()

    def mode(label: str, total: Callable[[Any], Any]) -> Mode:
        def call() -> tuple[Any, Any]:
            value = total(x)
            return value, torch.autograd.grad(value, x)[0]

        def result() -> list[Any]:
            return list(map(numbers, call()))
        return Mode(label, repeated(call), result)
    return [mode("eager, autograd.grad", total), mode("torch.compile, autograd.grad", torch.compile(total))]


def entry() -> list[Mode]:
    arrays = [torch.from_numpy(a) for a in w.entry_inputs()]

    def mode(label: str, function: Callable[..., Any]) -> Mode:
        turns = with_four(function, *arrays)

        def loop(n: int) -> None:
            with torch.inference_mode():
                turns(n)

        def result() -> list[Any]:
            with torch.inference_mode():
                return [function(*arrays).clone()]
        return Mode(label, loop, result, recorded=False)
    return [mode("eager, own arrays, inference mode", w.entry_by_hand),
            mode("torch.compile, own arrays, inference mode", torch.compile(w.entry_by_hand))]


def partials() -> list[Mode]:
    def eager(w1: float, w2: float) -> tuple[Any, Any, Any]:
        a, b = torch.tensor(w1, requires_grad=True), torch.tensor(w2, requires_grad=True)
        value = 3 * a**2 + 2 * a * b
        return value, *torch.autograd.grad(value, (a, b))

    def reading(w1: float, w2: float) -> tuple[float, ...]:
        return tuple(t.item() for t in eager(w1, w2))

    def result() -> list[Any]:
        return [[reading(*p) for p in w.pairs()]]
    return [Mode("eager, torch.tensor of each, autograd.grad", with_pairs(w.pairs(), eager), result),
            Mode("eager, the same, read as floats", with_pairs(w.pairs(), reading), result)]


def tutorial() -> list[Mode]:
    w1, w2 = (torch.tensor(v, requires_grad=True) for v in (5.0, 3.0))

    def by_grad() -> tuple[float, float]:
        loss = 3 * w1**2 + 2 * w1 * w2
        g1, g2 = torch.autograd.grad(loss, (w1, w2))
        return float(g1), float(g2)

    def by_backward() -> tuple[float, float]:
        w1.grad = w2.grad = None
        loss = 3 * w1**2 + 2 * w1 * w2
        loss.backward()
        return w1.grad.item(), w2.grad.item()
    return [Mode("eager, autograd.grad", repeated(by_grad), lambda: [by_grad()]),
            Mode("eager, backward", repeated(by_backward), lambda: [by_backward()])]


def batches() -> list[tuple[Any, Any]]:
    return [(there(x), there(y).long()) for x, y in w.mlp_batches()]


def stepped(label: str, make: Callable[[], tuple[Any, list[Any]]]) -> Mode:
    step, parameters = make()
    given = batches()

    def result() -> list[Any]:
        for batch in given[:w.CHECKED_STEPS]:
            step(*batch)
        return [numbers(p).numpy().copy() for p in parameters]
    return Mode(label, over(given, step), result)


def functional_training(update: Callable[[Any, list[Any]], None]) -> tuple[Any, list[Any]]:
    parameters = [there(p).requires_grad_() for p in w.mlp_parameters()]
    w1, b1, w2, b2 = parameters

    def step(x: Any, y: Any) -> Any:
        logits = torch.addmm(b2, torch.relu(torch.addmm(b1, x, w1)), w2)
        loss = functional.cross_entropy(logits, y)
        update(loss, parameters)
        return loss
    return step, parameters


def by_grad(loss: Any, parameters: list[Any]) -> None:
    grads = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for p, g in zip(parameters, grads, strict=True):
            p.sub_(g, alpha=w.RATE)


def _by_grad_foreach(loss: Any, parameters: list[Any]) -> None:
    grads = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        torch._foreach_sub_(parameters, grads, alpha=w.RATE)


def _by_backward(loss: Any, parameters: list[Any]) -> None:
    loss.backward()
    with torch.no_grad():
        for p in parameters:
            p.sub_(p.grad, alpha=w.RATE)
            p.grad = None


def mlp() -> list[Mode]:
    return [stepped("eager, autograd.grad, sub_", lambda: functional_training(by_grad)),
            stepped("eager, autograd.grad, _foreach_sub_", lambda: functional_training(_by_grad_foreach)),
            stepped("eager, backward, sub_", lambda: functional_training(_by_backward))]


def _module(**options: Any) -> tuple[Any, list[Any]]:
    model = torch.nn.Sequential(torch.nn.Linear(w.INPUTS, w.HIDDEN), torch.nn.ReLU(),
                                torch.nn.Linear(w.HIDDEN, w.CLASSES)).to(DEVICE)
    criterion = torch.nn.CrossEntropyLoss()
    parameters = list(model.parameters())
    with torch.no_grad():
        for p, start in zip(parameters, w.mlp_parameters(), strict=True):
            p.copy_(torch.from_numpy(start).T if p.ndim == 2 else torch.from_numpy(start))
    optimizer = torch.optim.SGD(parameters, lr=w.RATE, **options)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss
    return step, [p.T if p.ndim == 2 else p for p in parameters]


def mlp_layers() -> list[Mode]:
    return [stepped("eager, nn and SGD", lambda: _module(foreach=False)),
            stepped("eager, nn and SGD(foreach=True)", lambda: _module(foreach=True)),
            stepped("eager, nn and SGD(fused=True)", lambda: _module(fused=True))]


def kernel(name: str) -> list[Mode]:
    operands = [torch.from_numpy(a) for a in kernels.inputs(name)]
    x = operands[0]
    functions: dict[str, Callable[..., Any]] = {
        "copy": torch.neg, "sort": lambda x: torch.sort(x).values, "cumsum": lambda x: torch.cumsum(x, 0),
        "gather": lambda x, i: torch.index_select(x, 0, i),
        "scatter-add": lambda u, i: torch.zeros(kernels.MANY).index_add_(0, i, u)}
    function = functions.get(name) or getattr(torch, name)

    def call() -> Any:
        with torch.inference_mode():
            return function(*operands)
    modes = [measured(call, f"{name}, new array")]
    if name in ("copy", *kernels.FUNCTIONS):
        out = torch.empty_like(x)
        modes.append(measured(lambda: function(*operands, out=out), f"{name} into an array"))
    return modes


WORKLOADS = {"op": op, "chain": chain, "chain-value": chain_value, "entry": entry, "partials": partials,
             "tutorial": tutorial, "mlp": mlp, "mlp-layers": mlp_layers,
             **{name: partial(kernel, name) for name in kernels.NAMES}}
