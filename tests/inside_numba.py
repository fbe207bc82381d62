"""Compiled callers of recorded functions, which several files of tests share."""

from __future__ import annotations

import numba

import jitgrad as jg


def loss(x, w):
    return jg.sum(jg.tanh(x @ w) ** 2)


@numba.njit(nogil=True)
def apply1(f, x):
    return f(x)


@numba.njit(nogil=True)
def apply2(f, x, y):
    return f(x, y)


@numba.njit(nogil=True)
def repeat(f, x, n):
    y = f(x)
    for _ in range(n - 1):
        y = f(x)
    return y
