"""The hand-written loops of `use_numba`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, prange

f4, i4 = np.float32, np.int32
LOG2E, LN2_HIGH, LN2_LOW, ROUND = f4(1.4426950408889634), f4(0.693115234375), f4(3.194618329871446e-05), f4(12582912)
inlined = njit(fastmath={"contract", "nsz"}, error_model="numpy", forceinline=True)
fast = {"fastmath": {"contract", "nsz", "reassoc"}, "error_model": "numpy"}
CHUNK = 4096


# ---- networks ------------------------------------------------------------------------------------

def small_work(batch: int, hidden: int, classes: int) -> tuple[np.ndarray, ...]:
    """What a step of the small network writes: activations, logits, gradients."""
    return tuple(np.empty(s, np.float32) for s in ((batch, hidden), (batch, classes), (batch, hidden)))


@inlined
def crossentropy(z: Any, y: Any) -> Any:
    """Mean loss of logits, which become its gradient in them."""
    total = f4(0)
    scale = f4(1) / f4(z.shape[0])
    for i in range(z.shape[0]):
        top = z[i, 0]
        for j in range(1, z.shape[1]):
            top = max(top, z[i, j])
        picked = z[i, y[i]] - top
        s = f4(0)
        for j in range(z.shape[1]):
            z[i, j] = f4(math.exp(z[i, j] - top))
            s += z[i, j]
        total += f4(math.log(s)) - picked
        for j in range(z.shape[1]):
            z[i, j] *= scale / s
        z[i, y[i]] -= scale
    return total * scale


@inlined
def with_bias(h: Any, b: Any, relu: bool) -> None:
    """A bias added in place, and relu."""
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            v = h[i, j] + b[j]
            h[i, j] = v if not relu or v > 0 else f4(0)


@inlined
def descend(p: Any, g: Any, rate: Any) -> None:
    """A matrix less its gradient."""
    for i in range(p.shape[0]):
        for j in range(p.shape[1]):
            p[i, j] -= rate * g[i, j]


@inlined
def descend_by_rows(p: Any, g: Any, rate: Any) -> None:
    """A bias less the sum of the rows."""
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            p[j] -= rate * g[i, j]


@njit(error_model="numpy")
def mlp_step(w1: Any, b1: Any, w2: Any, b2: Any, x: Any, y: Any, h: Any, z: Any, gh: Any, rate: float) -> Any:
    """One step of the small network in place; the loss."""
    rate = f4(rate)
    np.dot(x, w1, h)
    with_bias(h, b1, True)
    np.dot(h, w2, z)
    with_bias(z, b2, False)
    loss = crossentropy(z, y)
    np.dot(z, w2.T, gh)
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            gh[i, j] = gh[i, j] if h[i, j] > 0 else f4(0)
    descend(w2, np.dot(h.T, z), rate)
    descend_by_rows(b2, z, rate)
    descend(w1, np.dot(x.T, gh), rate)
    descend_by_rows(b1, gh, rate)
    return loss


@njit(error_model="numpy")
def mlp_epoch(w1: Any, b1: Any, w2: Any, b2: Any, xs: Any, ys: Any, h: Any, z: Any, gh: Any, rate: float) -> Any:
    """All batches; all losses."""
    losses = np.empty(xs.shape[0], np.float32)
    for k in range(xs.shape[0]):
        losses[k] = mlp_step(w1, b1, w2, b2, xs[k], ys[k], h, z, gh, rate)
    return losses


def _adam_update(p: Any, g: Any, m: Any, v: Any, factor: Any, beta_1: Any, beta_2: Any, epsilon: Any) -> None:
    """Keras's Adam of one parameter in one loop."""
    for i in prange(p.size):
        m[i] += (g[i] - m[i]) * (f4(1) - beta_1)
        v[i] += (g[i] * g[i] - v[i]) * (f4(1) - beta_2)
        p[i] -= m[i] * factor / (f4(math.sqrt(v[i])) + epsilon)


adam_updates = {False: njit(**fast)(_adam_update), True: njit(parallel=True, **fast)(_adam_update)}      # in parallel?


@inlined
def through_relu(g: Any, h: Any) -> None:
    """A gradient where the activation is on."""
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            g[i, j] = g[i, j] if h[i, j] > 0 else f4(0)


@inlined
def add_rows(g: Any, out: Any) -> None:
    """The gradient in a bias."""
    out[:] = 0
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            out[j] += g[i, j]


@njit(error_model="numpy")
def deep_gradient(ps: Any, gs: Any, work: Any, x: Any, y: Any) -> Any:
    """Loss of the large network, its gradients into arrays that are there."""
    w1, b1, w2, b2, w3, b3 = ps
    g1, c1, g2, c2, g3, c3 = gs
    h1, h2, z, d1, d2, _ = work
    np.dot(x, w1, h1)
    with_bias(h1, b1, True)
    np.dot(h1, w2, h2)
    with_bias(h2, b2, True)
    np.dot(h2, w3, z)
    with_bias(z, b3, False)
    loss = crossentropy(z, y)
    np.dot(h2.T, z, g3)
    add_rows(z, c3)
    np.dot(z, w3.T, d2)
    through_relu(d2, h2)
    np.dot(h1.T, d2, g2)
    add_rows(d2, c2)
    np.dot(d2, w2.T, d1)
    through_relu(d1, h1)
    np.dot(x.T, d1, g1)
    add_rows(d1, c1)
    return loss


@njit(error_model="numpy")
def adam_step(adam_update: Any, ps: Any, gs: Any, flat: Any, flat_gs: Any, ms: Any, vs: Any, work: Any, x: Any, y: Any,
              turn: int, rate: float, beta_1: float, beta_2: float, epsilon: float) -> Any:
    """One step of the large network in place; the loss. ``flat``: views of one axis."""
    loss = deep_gradient(ps, gs, work, x, y)
    how = f4(rate * math.sqrt(1 - beta_2 ** turn) / (1 - beta_1 ** turn)), f4(beta_1), f4(beta_2), f4(epsilon)
    adam_update(flat[0], flat_gs[0], ms[0], vs[0], *how)
    adam_update(flat[1], flat_gs[1], ms[1], vs[1], *how)
    adam_update(flat[2], flat_gs[2], ms[2], vs[2], *how)
    adam_update(flat[3], flat_gs[3], ms[3], vs[3], *how)
    adam_update(flat[4], flat_gs[4], ms[4], vs[4], *how)
    adam_update(flat[5], flat_gs[5], ms[5], vs[5], *how)
    return loss


@njit(error_model="numpy")
def hvp(w1: Any, b1: Any, w2: Any, b2: Any, v1: Any, c1: Any, v2: Any, c2: Any, x: Any, y: Any) -> Any:
    """The Hessian of the small network's loss times a direction."""
    h, dh = np.dot(x, w1), np.dot(x, v1)
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            a = h[i, j] + b1[j]
            h[i, j] = a if a > 0 else f4(0)
            dh[i, j] = dh[i, j] + c1[j] if a > 0 else f4(0)
    z, dz, more = np.dot(h, w2), np.dot(dh, w2), np.dot(h, v2)
    with_bias(z, b2, False)
    crossentropy(z, y)                                  # z: (p - onehot) / batch
    scale = f4(1) / f4(z.shape[0])
    for i in range(z.shape[0]):
        mean = f4(0)
        for j in range(z.shape[1]):
            dz[i, j] += more[i, j] + c2[j]
            p = z[i, j] + (scale if j == y[i] else f4(0))
            mean += p * dz[i, j]
        for j in range(z.shape[1]):
            p = z[i, j] + (scale if j == y[i] else f4(0))
            dz[i, j] = p * (dz[i, j] - mean / scale)
    dg, more = np.dot(dz, w2.T), np.dot(z, v2.T)
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            dg[i, j] = dg[i, j] + more[i, j] if h[i, j] > 0 else f4(0)
    o1, o2 = np.empty_like(b1), np.empty_like(b2)
    add_rows(dg, o1)
    add_rows(dz, o2)
    return np.dot(x.T, dg), o1, np.dot(dh.T, z) + np.dot(h.T, dz), o2


# ---- the expression ------------------------------------------------------------------------------

@inlined
def quick_exp(x: Any) -> Any:
    """exp by a polynomial, for arguments that do not overflow."""
    x = max(x, f4(-87))
    k = (x * LOG2E + ROUND) - ROUND
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    p = (((f4(0.00139261836) * r + f4(0.00836317905)) * r + f4(0.0416665546)) * r + f4(0.16666577)) * r + f4(0.5)
    return (p * r * r + r + f4(1)) * i4((i4(k) + i4(127)) << i4(23)).view(f4)


@inlined
def quick_log(x: Any) -> Any:
    """log of a finite number from 1 on, by a polynomial."""
    x = f4(x)
    bits = f4(x).view(i4) - i4(1060439283)
    k = bits >> i4(23)
    e, f = f4(k), i4(f4(x).view(i4) - i4(k << i4(23))).view(f4) - f4(1)
    p = ((((f4(0.0697161147) * f - f4(0.114797338)) * f + f4(0.116854199)) * f - f4(0.124256873)) * f + f4(0.142490576))
    p = (((p * f - f4(0.166678023)) * f + f4(0.200007157)) * f - f4(0.24999997)) * f + f4(0.333333312)
    z = f * f
    return p * f * z + e * LN2_LOW - f4(0.5) * z + f + e * LN2_HIGH


@njit(**fast)
def expression(x: Any) -> Any:
    """Value and gradient with the functions of libm."""
    total, g = 0.0, np.empty_like(x)
    for i in range(x.size):
        v = x[i]
        s, t = v * v, f4(math.tanh(v))
        ex = f4(math.exp(-s))
        total += t * ex + f4(math.log1p(s))
        g[i] = ex * (f4(1) - t * t - f4(2) * v * t) + f4(2) * v / (f4(1) + s)
    return total, g


@njit(**fast)
def _chunk(x: Any, g: Any, start: int, end: int) -> Any:
    total = f4(0)
    for i in range(start, end):
        v = x[i]
        s = v * v
        t = f4(1) - f4(2) / (f4(1) + quick_exp(min(f4(2) * v, f4(80))))
        ex = quick_exp(-s)
        total += t * ex + quick_log(f4(1) + s)
        g[i] = ex * (f4(1) - t * t - f4(2) * v * t) + f4(2) * v / (f4(1) + s)
    return total


@njit(**fast)
def expression_quick(x: Any) -> Any:
    """Value and gradient in chunks."""
    total, g = 0.0, np.empty_like(x)
    for start in range(0, x.size, CHUNK):
        total += _chunk(x, g, start, min(start + CHUNK, x.size))
    return total, g


@njit(parallel=True, **fast)
def expression_parallel(x: Any) -> Any:
    """The same, chunks in parallel."""
    total, g = 0.0, np.empty_like(x)
    for k in prange((x.size + CHUNK - 1) // CHUNK):
        total += _chunk(x, g, k * CHUNK, min((k + 1) * CHUNK, x.size))
    return total, g


@njit(**fast)
def third_derivative(x: Any) -> Any:
    """Of sin(x)**2."""
    out = np.empty_like(x)
    for i in range(x.size):
        out[i] = f4(-4) * f4(math.sin(f4(2) * x[i]))
    return out


@njit(error_model="numpy")
def hessian(x: Any) -> Any:
    """Of Rosenbrock's function."""
    n = x.size
    out = np.zeros((n, n), np.float32)
    for i in range(n - 1):
        out[i, i] += f4(1200) * x[i] * x[i] - f4(400) * x[i + 1] + f4(2)
        out[i + 1, i + 1] += f4(200)
        out[i, i + 1] = out[i + 1, i] = f4(-400) * x[i]
    return out


# ---- loops over time -----------------------------------------------------------------------------

@inlined
def quick_sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return f4(1) / (f4(1) + quick_exp(min(-x, f4(80))))


@inlined
def quick_tanh(x: Any) -> Any:
    """1 - 2 / (1 + exp(2 x))."""
    return f4(1) - f4(2) / (f4(1) + quick_exp(min(f4(2) * x, f4(80))))


@njit(**fast)
def lstm(wi: Any, wh: Any, b: Any, xs: Any) -> Any:
    """The mean square of all hidden states and its gradient in the weights."""
    steps, batch, _ = xs.shape
    n = wh.shape[0]
    flat = xs.reshape(steps * batch, -1)
    z = np.dot(flat, wi).reshape(steps, batch, 4 * n)
    hs, cs = np.zeros((steps + 1, batch, n), np.float32), np.zeros((steps + 1, batch, n), np.float32)
    add, total = np.empty((batch, 4 * n), np.float32), 0.0
    for t in range(steps):
        np.dot(hs[t], wh, add)
        zt, c, new, h = z[t], cs[t], cs[t + 1], hs[t + 1]
        for r in range(batch):
            for j in range(n):
                i = quick_sigmoid(zt[r, j] + add[r, j] + b[j])
                f = quick_sigmoid(zt[r, n + j] + add[r, n + j] + b[n + j])
                g = quick_tanh(zt[r, 2 * n + j] + add[r, 2 * n + j] + b[2 * n + j])
                o = quick_sigmoid(zt[r, 3 * n + j] + add[r, 3 * n + j] + b[3 * n + j])
                zt[r, j], zt[r, n + j], zt[r, 2 * n + j], zt[r, 3 * n + j] = i, f, g, o
                new[r, j] = f * c[r, j] + i * g
                h[r, j] = o * quick_tanh(new[r, j])
                total += h[r, j] * h[r, j]
    scale = f4(2.0 / (steps * batch * n))
    dh, dc = np.zeros((batch, n), np.float32), np.zeros((batch, n), np.float32)
    back = np.ascontiguousarray(wh.T)
    for t in range(steps - 1, -1, -1):
        zt, c, new, h = z[t], cs[t], cs[t + 1], hs[t + 1]
        for r in range(batch):
            for j in range(n):
                i, f, g, o = zt[r, j], zt[r, n + j], zt[r, 2 * n + j], zt[r, 3 * n + j]
                tc = quick_tanh(new[r, j])
                d = dh[r, j] + scale * h[r, j]
                k = dc[r, j] + d * o * (f4(1) - tc * tc)
                zt[r, j], zt[r, n + j] = k * g * i * (f4(1) - i), k * c[r, j] * f * (f4(1) - f)
                zt[r, 2 * n + j], zt[r, 3 * n + j] = k * i * (f4(1) - g * g), d * tc * o * (f4(1) - o)
                dc[r, j] = k * f
        np.dot(zt, back, dh)
    all_z = z.reshape(steps * batch, -1)
    gb = np.zeros_like(b)
    for r in range(steps * batch):
        for j in range(4 * n):
            gb[j] += all_z[r, j]
    return total / (steps * batch * n), np.dot(flat.T, all_z), np.dot(hs[:-1].reshape(steps * batch, n).T, all_z), gb


@inlined
def slope(x: Any, y: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Lotka and Volterra's equations."""
    return a * x - b * x * y, d * x * y - c * y


@inlined
def pulled(x: Any, y: Any, u: Any, v: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """A cotangent of the slope in the state and the four parameters."""
    return u * (a - b * y) + v * d * y, v * (d * x - c) - u * b * x, u * x, -u * x * y, -v * y, v * x * y


@njit(error_model="numpy")
def rk4(p: Any, x: float, y: float, h: float, steps: int) -> Any:
    """The sum of the last state and its gradient in the parameters."""
    a, b, c, d = p[0], p[1], p[2], p[3]
    xs, ys = np.empty(steps), np.empty(steps)
    for t in range(steps):
        xs[t], ys[t] = x, y
        k1, l1 = slope(x, y, a, b, c, d)
        k2, l2 = slope(x + h / 2 * k1, y + h / 2 * l1, a, b, c, d)
        k3, l3 = slope(x + h / 2 * k2, y + h / 2 * l2, a, b, c, d)
        k4, l4 = slope(x + h * k3, y + h * l3, a, b, c, d)
        x += h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        y += h / 6 * (l1 + 2 * l2 + 2 * l3 + l4)
    u, v = 1.0, 1.0
    ga = gb = gc = gd = 0.0
    for t in range(steps - 1, -1, -1):
        x0, y0 = xs[t], ys[t]
        k1, l1 = slope(x0, y0, a, b, c, d)
        x1, y1 = x0 + h / 2 * k1, y0 + h / 2 * l1
        k2, l2 = slope(x1, y1, a, b, c, d)
        x2, y2 = x0 + h / 2 * k2, y0 + h / 2 * l2
        k3, l3 = slope(x2, y2, a, b, c, d)
        u4, v4, a4, b4, c4, d4 = pulled(x0 + h * k3, y0 + h * l3, h / 6 * u, h / 6 * v, a, b, c, d)
        u3, v3, a3, b3, c3, d3 = pulled(x2, y2, h / 3 * u + h * u4, h / 3 * v + h * v4, a, b, c, d)
        u2, v2, a2, b2, c2, d2 = pulled(x1, y1, h / 3 * u + h / 2 * u3, h / 3 * v + h / 2 * v3, a, b, c, d)
        u1, v1, a1, b1, c1, d1 = pulled(x0, y0, h / 6 * u + h / 2 * u2, h / 6 * v + h / 2 * v2, a, b, c, d)
        u += u1 + u2 + u3 + u4
        v += v1 + v2 + v3 + v4
        ga += a1 + a2 + a3 + a4
        gb += b1 + b2 + b3 + b4
        gc += c1 + c2 + c3 + c4
        gd += d1 + d2 + d3 + d4
    return x + y, np.array((ga, gb, gc, gd))
