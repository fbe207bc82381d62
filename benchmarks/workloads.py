"""What is measured: inputs, NumPy's answer by hand, and how close every library has to come to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LENGTH = 16                     # of the arrays in `op` and `chain`
OPS_A_TAPE = 1000               # rows that one tape keeps in `op`
TURNS = 33                      # of the chain: 99 operations
INPUTS, HIDDEN, CLASSES, BATCH, BATCHES = 64, 32, 10, 32, 50
RATE = 0.05
PAIRS = 40                      # of floats that `partials` goes through
SCANNED = "no Python between steps"     # in labels of modes that run many steps a call
CHECKED_STEPS = 20              # of the MLP, before anything is timed

Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Workload:
    """One table of the comparison."""

    name: str
    title: str
    goes_in: str
    comes_out: str
    rtol: float
    atol: float

    def answers(self) -> Arrays:
        """What every library must give."""
        return ANSWERS[self.name]()


WORKLOADS = [
    Workload("op", f"one eager operation, a + b on {LENGTH} float32",
             "two arrays of the library's own kind, made before",
             f"one array, dropped; recorded: {OPS_A_TAPE} operations under one tape that keeps the rows, making and "
             "freeing the tape included", 1e-6, 0.0),
    Workload("chain",
             f"x = sin(x) * 1.01 + 0.1, {TURNS} times on {LENGTH} float32 (99 operations), forward and backward",
             "x, an array of the library's own kind, made before", "the gradient of the sum in x, as such an array",
             1e-3, 1e-9),
    Workload("chain-value", "the same chain, its sum and the gradient; functions to replay or jit were called before",
             "x, an array of the library's own kind, made before",
             "the sum and its gradient in x, as such arrays", 1e-3, 1e-9),
    Workload("entry", f"a * b + c - d on four arrays of {LENGTH} float32, by a function that was called before",
             "four NumPy arrays, or arrays of the library's own kind where the label says so",
             "one array of the library's own kind, dropped", 1e-6, 1e-7),
    Workload("partials", "3 * w1**2 + 2 * w1 * w2 and both partial derivatives, by a function that was called before",
             f"two Python floats, others at each call (one of {PAIRS} pairs)",
             "value and derivatives as three arrays of the library's own kind (by hand: Python floats), dropped, or "
             "read as Python floats where the label says so", 1e-6, 0.0),
    Workload("tutorial", "3 * w1**2 + 2 * w1 * w2 and its two partial derivatives",
             "two variables made before (by hand: two Python floats)", "both derivatives as Python floats", 1e-6, 0.0),
    Workload("mlp",
             f"one SGD step of an MLP {INPUTS}-{HIDDEN}-{CLASSES}, batch {BATCH}, sparse softmax cross-entropy with "
             "logits: functions of parameters",
             f"a batch of float32 images and int labels out of {BATCHES}, as the library's own arrays",
             "the loss as such an array, unread; the parameters updated in place or returned", 2e-3, 2e-5),
    Workload("mlp-layers", "the same step with layers, a loss object and an optimizer", "the same",
             "the same", 2e-3, 2e-5),
]


def op_inputs() -> Arrays:
    """The two operands of `op`."""
    rng = np.random.default_rng(1)
    return [rng.normal(size=LENGTH).astype(np.float32) for _ in range(2)]


def op_answer() -> Arrays:
    """The sum of the operands."""
    a, b = op_inputs()
    return [a + b]


def chain_input() -> np.ndarray:
    """Where the chain starts."""
    return np.linspace(0.1, 2.9, LENGTH).astype(np.float32)


def chain_by_hand(x: np.ndarray) -> np.ndarray:
    """Gradient of the chain's sum."""
    kept = []
    for _ in range(TURNS):
        kept.append(x)
        x = np.sin(x) * np.float32(1.01) + np.float32(0.1)
    g = np.ones_like(x)
    for x in reversed(kept):
        g = g * np.float32(1.01) * np.cos(x)
    return g


def chain_sum(x: np.ndarray) -> np.floating:
    """What the chain ends in, added up."""
    for _ in range(TURNS):
        x = np.sin(x) * np.float32(1.01) + np.float32(0.1)
    return x.sum()


def entry_inputs() -> Arrays:
    """The arguments of `entry`."""
    rng = np.random.default_rng(5)
    return [rng.normal(size=LENGTH).astype(np.float32) for _ in range(4)]


def entry_by_hand(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """What `entry` computes."""
    return a * b + c - d


def pairs() -> list[tuple[float, float]]:
    """The arguments of `partials`."""
    rng = np.random.default_rng(6)
    return [(float(a), float(b)) for a, b in rng.uniform(1, 5, (PAIRS, 2))]


def partials_by_hand(w1: float, w2: float) -> tuple[float, float, float]:
    """The value and both partial derivatives."""
    return 3 * w1 * w1 + 2 * w1 * w2, 6 * w1 + 2 * w2, 2 * w1


def tutorial_by_hand(w1: float, w2: float) -> tuple[float, float]:
    """Both partial derivatives."""
    return 6 * w1 + 2 * w2, 2 * w1


def mlp_parameters() -> Arrays:
    """Kernel and bias of both layers at the start."""
    rng = np.random.default_rng(2)
    shapes = [(INPUTS, HIDDEN), (HIDDEN,), (HIDDEN, CLASSES), (CLASSES,)]
    return [(rng.normal(size=s) * 0.15 if len(s) == 2 else np.zeros(s)).astype(np.float32) for s in shapes]


def mlp_batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and labels."""
    rng = np.random.default_rng(3)
    return [(rng.uniform(0, 1, (BATCH, INPUTS)).astype(np.float32), rng.integers(0, CLASSES, BATCH).astype(np.int32))
            for _ in range(BATCHES)]


def mlp_by_hand(parameters: Arrays, x: np.ndarray, y: np.ndarray) -> np.floating:
    """One step in place; the loss."""
    w1, b1, w2, b2 = parameters
    h = x @ w1
    h += b1
    np.maximum(h, 0, out=h)
    z = h @ w2
    z += b2
    z -= z.max(axis=1, keepdims=True)
    p = np.exp(z)
    total = p.sum(axis=1, keepdims=True)
    rows = np.arange(BATCH)
    loss = np.mean(np.log(total[:, 0]) - z[rows, y])
    p /= total
    p[rows, y] -= 1
    p *= np.float32(1 / BATCH)
    gh = p @ w2.T
    gh *= h > 0
    rate = np.float32(RATE)
    w2 -= rate * (h.T @ p)
    b2 -= rate * p.sum(axis=0)
    w1 -= rate * (x.T @ gh)
    b1 -= rate * gh.sum(axis=0)
    return loss


def mlp_answer() -> Arrays:
    """The parameters after the checked steps."""
    parameters, batches = mlp_parameters(), mlp_batches()
    for x, y in batches[:CHECKED_STEPS]:
        mlp_by_hand(parameters, x, y)
    return parameters


ANSWERS = {
    "op": op_answer,
    "chain": lambda: [chain_by_hand(chain_input())],
    "chain-value": lambda: [np.asarray(chain_sum(chain_input())), chain_by_hand(chain_input())],
    "entry": lambda: [entry_by_hand(*entry_inputs())],
    "partials": lambda: [np.array([partials_by_hand(*p) for p in pairs()])],
    "tutorial": lambda: [np.array(tutorial_by_hand(5.0, 3.0))],
    "mlp": mlp_answer,
    "mlp-layers": mlp_answer,
}
