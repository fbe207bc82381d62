"""Values and derivatives worked out by hand in NumPy: the answers, in float64, and NumPy's own rows, in float32."""

from __future__ import annotations

from typing import Any

import numpy as np

Arrays = list[np.ndarray]
Floats = tuple[float, ...]


# ---- the network and Adam ------------------------------------------------------------------------

def deep_gradient(parameters: Arrays, x: np.ndarray, y: np.ndarray) -> tuple[np.floating, Arrays]:
    """Mean cross-entropy of a network of dense layers with relu between, and the gradient in every parameter."""
    kept, h = [], x
    for k in range(0, len(parameters), 2):
        kept.append(h)
        h = h @ parameters[k] + parameters[k + 1]
        if k + 2 < len(parameters):
            np.maximum(h, 0, out=h)
    h -= h.max(axis=1, keepdims=True)
    g = np.exp(h)
    total = g.sum(axis=1, keepdims=True)
    rows = np.arange(len(x))
    loss = np.mean(np.log(total[:, 0]) - h[rows, y])
    g /= total
    g[rows, y] -= 1
    g *= g.dtype.type(1 / len(x))
    grads: Arrays = []
    for k in range(len(parameters) - 2, -1, -2):
        h = kept[k // 2]
        grads = [h.T @ g, g.sum(axis=0), *grads]
        if k:
            g = g @ parameters[k].T
            g *= h > 0
    return loss, grads


class Adam:
    """Keras's Adam in place, temporaries reused."""

    def __init__(self, parameters: Arrays, rate: float, beta_1: float, beta_2: float, epsilon: float) -> None:
        self.parameters, self.settings, self.turn = parameters, (rate, beta_1, beta_2, epsilon), 0
        self.slots = [(np.zeros_like(p), np.zeros_like(p), np.empty_like(p)) for p in parameters]

    def apply(self, grads: Arrays) -> None:
        """One update; the gradients are overwritten."""
        rate, beta_1, beta_2, epsilon = self.settings
        self.turn += 1
        factor = rate * np.sqrt(1 - beta_2 ** self.turn) / (1 - beta_1 ** self.turn)
        for p, g, (m, v, t) in zip(self.parameters, grads, self.slots, strict=True):
            kind = p.dtype.type
            np.multiply(m, kind(beta_1), out=m)
            m += np.multiply(g, kind(1 - beta_1), out=t)
            np.multiply(v, kind(beta_2), out=v)
            np.multiply(g, g, out=g)
            v += np.multiply(g, kind(1 - beta_2), out=g)
            np.sqrt(v, out=t)
            t += kind(epsilon)
            np.divide(m, t, out=t)
            p -= np.multiply(t, kind(factor), out=t)


def hessian_vector(parameters: Arrays, direction: Arrays, x: np.ndarray, y: np.ndarray) -> Arrays:
    """The Hessian of the small network's loss times a direction, forward over reverse."""
    (w1, b1, w2, b2), (v1, c1, v2, c2) = parameters, direction
    a = x @ w1 + b1
    on = a > 0
    h, dh = a * on, (x @ v1 + c1) * on
    z = h @ w2 + b2
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    dz = dh @ w2 + h @ v2 + c2
    dp = p * (dz - (p * dz).sum(axis=1, keepdims=True)) / z.dtype.type(len(x))
    p[np.arange(len(x)), y] -= 1
    p /= z.dtype.type(len(x))
    dg = (dp @ w2.T + p @ v2.T) * on
    return [x.T @ dg, dg.sum(axis=0), dh.T @ p + h.T @ dp, dp.sum(axis=0)]


# ---- elementwise ---------------------------------------------------------------------------------

def expression(x: np.ndarray) -> tuple[np.floating, np.ndarray]:
    """sum(tanh(x) exp(-x x) + log1p(x x)) and its gradient."""
    square = x * x
    t, e = np.tanh(x), np.exp(-square)
    value = np.sum(t * e + np.log1p(square))
    return value, e * ((1 - t * t) - 2 * x * t) + 2 * x / (1 + square)


def third_derivative(x: np.ndarray) -> np.ndarray:
    """Of sin(x)**2."""
    return -4 * np.sin(2 * x)


def rosenbrock_hessian(x: np.ndarray) -> np.ndarray:
    """Of sum(100 (x[i+1] - x[i]**2)**2 + (1 - x[i])**2)."""
    n, out = x.size, np.zeros((x.size, x.size), x.dtype)
    diagonal = out.reshape(-1)[::n + 1]
    diagonal[:-1] = 1200 * x[:-1] ** 2 - 400 * x[1:] + 2
    diagonal[1:] += 200
    beside = -400 * x[:-1]
    out.reshape(-1)[1::n + 1] = beside
    out.reshape(-1)[n::n + 1] = beside
    return out


# ---- loops ---------------------------------------------------------------------------------------

def lstm(weights: Arrays, xs: np.ndarray) -> tuple[np.floating, Arrays]:
    """Mean square of all hidden states of an LSTM (gates in the order i, f, g, o), and the gradient in its weights."""
    wi, wh, b = weights
    steps, batch, hidden = len(xs), xs.shape[1], wh.shape[0]
    z = (xs.reshape(steps * batch, -1) @ wi + b).reshape(steps, batch, 4 * hidden)
    hs, cs = (np.zeros((steps + 1, batch, hidden), xs.dtype) for _ in range(2))
    tanhs = np.empty_like(cs[1:])
    for t in range(steps):
        z[t] += hs[t] @ wh
        i, f, g, o = (z[t, :, k * hidden:(k + 1) * hidden] for k in range(4))
        for gate in (i, f, o):
            np.negative(gate, out=gate)
            np.exp(gate, out=gate)
            gate += 1
            np.reciprocal(gate, out=gate)
        np.tanh(g, out=g)
        cs[t + 1] = f * cs[t] + i * g
        np.tanh(cs[t + 1], out=tanhs[t])
        hs[t + 1] = o * tanhs[t]
    loss = np.mean(hs[1:] ** 2)
    scale = xs.dtype.type(2 / hs[1:].size)
    dh, dc = np.zeros((2, batch, hidden), xs.dtype)
    for t in range(steps - 1, -1, -1):
        i, f, g, o = (z[t, :, k * hidden:(k + 1) * hidden] for k in range(4))
        dh = dh + scale * hs[t + 1]
        dc = dc + dh * o * (1 - tanhs[t] ** 2)
        into = (dc * g * i * (1 - i), dc * cs[t] * f * (1 - f), dc * i * (1 - g * g), dh * tanhs[t] * o * (1 - o))
        dc = dc * f
        for gate, d in zip((i, f, g, o), into, strict=True):
            gate[...] = d
        dh = z[t] @ wh.T
    flat = z.reshape(steps * batch, -1)
    return loss, [xs.reshape(steps * batch, -1).T @ flat, hs[:-1].reshape(steps * batch, hidden).T @ flat,
                  flat.sum(axis=0)]


def orbit(p: Any, start: Floats, h: float, steps: int) -> Any:
    """The sum of both populations of Lotka and Volterra's equations after so many Runge-Kutta steps."""
    a, b, c, d = p

    def slope(x: Any, y: Any) -> tuple[Any, Any]:
        return a * x - b * x * y, d * x * y - c * y
    x, y = start
    for _ in range(steps):
        k1, l1 = slope(x, y)
        k2, l2 = slope(x + h / 2 * k1, y + h / 2 * l1)
        k3, l3 = slope(x + h / 2 * k2, y + h / 2 * l2)
        k4, l4 = slope(x + h * k3, y + h * l3)
        x, y = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), y + h / 6 * (l1 + 2 * l2 + 2 * l3 + l4)
    return x + y


def orbit_gradient(p: np.ndarray, start: Floats, h: float, steps: int) -> tuple[float, np.ndarray]:
    """The same and its gradient in the parameters, by steps in the imaginary direction."""
    tiny = 1e-30
    found = [orbit(p + 1j * tiny * unit, start, h, steps) for unit in np.eye(4)]
    return found[0].real, np.array([f.imag / tiny for f in found])
