"""The rows: what goes in, what comes out, and the answer that every library must come close to."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import workloads as w
from benchmarks.engine import by_hand
from benchmarks.workloads import Arrays, Workload

WIDTHS, DEEP_BATCH, DEEP_BATCHES, DEEP_STEPS = (784, 512, 256, 10), 128, 20, 8
# A rate at which the network is far from learning its few batches by heart: moments would fade into subnormal numbers.
ADAM = {"rate": 1e-5, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}
CHECKED = 1000                  # elements of a gradient, about
SIZES = {"1e3": 1_000, "1e5": 100_000, "1e7": 10_000_000}
STEPS, INPUTS, HIDDEN, BATCH = 50, 32, 64, 16           # of the LSTM
UNROLLED = "a Python loop"      # in the label of the mode that runs one
GEMMS = "GEMMs alone"           # is no training: there is nothing to check
REVERSE = "scan, reverse mode"  # in labels of the modes that a target names
POINTS, UNKNOWNS = 100, 50
RK4 = {"start": (1.0, 1.0), "h": 0.01, "steps": 1000}
OWN = "arrays of the library's own kind, made before"


@dataclass(frozen=True)
class Row(Workload):
    """One table."""

    answer: Callable[[], Arrays]
    double: bool = False            # float64: JAX runs where it has 64-bit types
    large: bool = False             # libraries run with huge pages, too

    def answers(self) -> Arrays:
        """What every library must give."""
        return self.answer()


# ---- inputs --------------------------------------------------------------------------------------

def deep_parameters() -> Arrays:
    """Kernels and biases of the large network at the start."""
    rng = np.random.default_rng(11)
    shapes = [s for pair in itertools.pairwise(WIDTHS) for s in (pair, pair[1:])]
    return [(rng.normal(size=s) * (2 / s[0]) ** 0.5 if len(s) == 2 else np.zeros(s)).astype(np.float32)
            for s in shapes]


def deep_batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and labels of the large network."""
    rng = np.random.default_rng(12)
    return [(rng.random((DEEP_BATCH, WIDTHS[0]), np.float32), rng.integers(0, WIDTHS[-1], DEEP_BATCH).astype(np.int32))
            for _ in range(DEEP_BATCHES)]


def deep_layers() -> list[Arrays]:
    """What the products of a step of it are of: a layer's activations, its kernel, a gradient in what it gives."""
    rng = np.random.default_rng(17)
    return [[rng.standard_normal(s, np.float32) for s in ((DEEP_BATCH, m), (m, n), (DEEP_BATCH, n))]
            for m, n in itertools.pairwise(WIDTHS)]


def rk4_step(p: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """One Runge-Kutta step of Lotka and Volterra's equations, on any library's arrays."""
    a, b, c, d = p[0], p[1], p[2], p[3]
    h = RK4["h"]

    def slope(x: Any, y: Any) -> tuple[Any, Any]:
        return a * x - b * x * y, d * x * y - c * y
    k1, l1 = slope(x, y)
    k2, l2 = slope(x + h / 2 * k1, y + h / 2 * l1)
    k3, l3 = slope(x + h / 2 * k2, y + h / 2 * l2)
    k4, l4 = slope(x + h * k3, y + h * l3)
    return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), y + h / 6 * (l1 + 2 * l2 + 2 * l3 + l4)


def points(n: int) -> np.ndarray:
    """Where the expression is evaluated."""
    return np.random.default_rng(13).standard_normal(n, np.float32)


def lstm_inputs() -> tuple[Arrays, np.ndarray]:
    """Weights (input to gates, hidden to gates, bias), and a sequence of batches."""
    rng = np.random.default_rng(14)
    weights = [rng.normal(size=s).astype(np.float32) * np.float32(0.15)
               for s in ((INPUTS, 4 * HIDDEN), (HIDDEN, 4 * HIDDEN), (4 * HIDDEN,))]
    return weights, rng.standard_normal((STEPS, BATCH, INPUTS), np.float32)


def angles() -> np.ndarray:
    """Where the third derivative is taken."""
    return np.linspace(-3, 3, POINTS).astype(np.float32)


def unknowns() -> np.ndarray:
    """Where the Hessian is taken."""
    return np.random.default_rng(15).uniform(-1, 1, UNKNOWNS).astype(np.float32)


def direction() -> Arrays:
    """What the Hessian of the small network's loss is multiplied with."""
    rng = np.random.default_rng(16)
    return [rng.standard_normal(p.shape, np.float32) for p in w.mlp_parameters()]


def rates() -> np.ndarray:
    """The parameters of Lotka and Volterra's equations."""
    return np.array([1.5, 1.0, 3.0, 1.0])


# ---- answers -------------------------------------------------------------------------------------

def exactly(arrays: Arrays) -> Arrays:
    """In float64."""
    return [a.astype(np.float64) for a in arrays]


def deep_answer() -> Arrays:
    """The losses of the first steps."""
    parameters = exactly(deep_parameters())
    adam, losses = by_hand.Adam(parameters, **ADAM), []
    for x, y in deep_batches()[:DEEP_STEPS]:
        loss, grads = by_hand.deep_gradient(parameters, x.astype(np.float64), y)
        losses.append(loss)
        adam.apply(grads)
    return [np.array(losses)]


def expression_numbers(value: object, gradient: np.ndarray) -> Arrays:
    """What is checked of a value and a gradient: the value by the element, some elements of the gradient."""
    gradient = np.asarray(gradient)
    return [np.asarray(value, np.float64) / gradient.size, gradient[::max(1, gradient.size // CHECKED)]]


def lstm_answer() -> Arrays:
    """The loss and the gradients, scaled so that one tolerance fits."""
    weights, xs = lstm_inputs()
    loss, grads = by_hand.lstm(exactly(weights), xs.astype(np.float64))
    return [np.asarray(loss), *grads]


def hvp_answer() -> Arrays:
    """By central differences of the gradient."""
    x, y = w.mlp_batches()[0]
    start, along, eps = exactly(w.mlp_parameters()), exactly(direction()), 1e-6
    ends = [by_hand.deep_gradient([p + s * eps * v for p, v in zip(start, along, strict=True)], x.astype(np.float64),
                                  y)[1] for s in (1, -1)]
    return [(a - b) / (2 * eps) for a, b in zip(*ends, strict=True)]


def orbit_answer() -> Arrays:
    """The value and four derivatives."""
    value, gradient = by_hand.orbit_gradient(rates(), **RK4)
    return [np.asarray(value), gradient]


# ---- the table -----------------------------------------------------------------------------------

STEP = (f"one SGD step of an MLP {w.INPUTS}-{w.HIDDEN}-{w.CLASSES}, batch {w.BATCH}, sparse softmax cross-entropy with "
        "logits")
TEXT = "sum(tanh(x) * exp(-x * x) + log1p(x * x))"
ROWS = [
    Row("mlp", STEP, f"a batch of float32 images and int labels out of {w.BATCHES}, {OWN}",
        "the loss, unread; the parameters updated in place or returned", 2e-3, 2e-5, w.mlp_answer),
    Row("mlp-epoch", f"an epoch of {w.BATCHES} such steps in one call, times by the step",
        f"all batches in two {OWN}", "all losses; the parameters updated in place or returned", 2e-3, 2e-5,
        w.mlp_answer),
    Row("adam", f"one Adam step of an MLP {'-'.join(map(str, WIDTHS))}, batch {DEEP_BATCH}, sparse softmax "
        "cross-entropy with logits", f"a batch of float32 images and int labels out of {DEEP_BATCHES}, {OWN}",
        "the loss, unread; parameters and moments updated in place or returned. GEMMs alone: the eight products of a "
        "step on the same batches, NumPy's into arrays that are there", 5e-3, 0.0, deep_answer),
    *(Row(f"expression-{size}", f"value and gradient of {TEXT}, n = {size}", f"x, float32, {OWN}",
          "the value and the gradient, dropped before the next call", 2e-5, 2e-6,
          lambda n=n: expression_numbers(*by_hand.expression(points(n).astype(np.float64))), large=True)
      for size, n in SIZES.items()),
    Row("lstm", f"LSTM, {STEPS} steps, hidden {HIDDEN}, input {INPUTS}, batch {BATCH}: the mean square of all hidden "
        "states and its gradient in all weights", f"the weights and one sequence of float32, {OWN}",
        "the loss and all gradients, dropped", 1e-3, 2e-7, lstm_answer),
    Row("third-derivative", f"the third derivative of sin(x)**2 at {POINTS} points", f"x, float32, {OWN}",
        f"an array of {POINTS}, dropped", 1e-4, 1e-5, lambda: [by_hand.third_derivative(angles().astype(np.float64))]),
    Row("hessian", f"the dense Hessian of Rosenbrock's function, n = {UNKNOWNS}", f"x, float32, {OWN}",
        f"an array of {UNKNOWNS} by {UNKNOWNS}, dropped", 1e-5, 1e-3,
        lambda: [by_hand.rosenbrock_hessian(unknowns().astype(np.float64))]),
    Row("hvp", "the Hessian of the loss of `mlp` times a direction",
        f"parameters, direction and one batch, float32, {OWN}", "four arrays, dropped", 1e-3, 2e-5, hvp_answer),
    Row("rk4", f"Lotka and Volterra's equations, {RK4['steps']} Runge-Kutta steps: the sum of the last state and its "
        "gradient in four parameters", f"the parameters, an array of 4 float64, {OWN}",
        "the value and an array of 4, dropped", 1e-7, 1e-9, orbit_answer, double=True),
    Row("chain", f"x = sin(x) * 1.01 + 0.1, {w.TURNS} times on {w.LENGTH} float32 (99 operations): the sum and its "
        "gradient", f"x, {OWN}", "the sum and the gradient, dropped", 1e-3, 1e-9, w.ANSWERS["chain-value"]),
    Row("njit-call", f"a * b + c - d on four arrays of {w.LENGTH} float32, called from a loop under @numba.njit",
        "four NumPy arrays", "one NumPy array, of which one element is read", 1e-6, 1e-7, w.ANSWERS["entry"]),
]
