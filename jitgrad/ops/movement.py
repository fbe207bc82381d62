"""Moving elements without arithmetic: each body is an index map."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jitgrad import ops
from jitgrad.core.aval import Aval, aval
from jitgrad.core.errors import user_error
from jitgrad.core.exact import joined, returned
from jitgrad.core.primitive import (
    Index,
    Kind,
    Linear,
    contiguous_strides,
    kernel,
    movement,
    placement,
    several,
    shape_error,
    uniform,
)
from jitgrad.ops.batching import behind, spread


@movement(ref=lambda x, *, shape: np.reshape(x, shape),
          samples=several(uniform((3, 4), shape=(2, 6)), uniform((), shape=(1, 1))),
          vjp=lambda g, ans, x, *, shape: (ops.reshape(g, shape=x.shape),),
          batch=lambda batched, size, x, *, shape: ((ops.reshape(x, (size, *shape)),), (True,)),
          exact=(joined(lambda x, inner, outer: outer),))
def reshape(x, *, shape):
    """The same elements in row-major order under another shape: a view."""
    if math.prod(shape) != x.size:
        raise user_error(ValueError, f"reshape: {x.size} elements of shape {x.shape} do not fill shape {shape}")
    return Index(shape, contiguous_strides(shape))


@movement(ref=lambda x, *, axes: np.transpose(x, axes), samples=uniform((3, 4, 2), axes=(2, 0, 1)),
          vjp=lambda g, ans, x, *, axes: (ops.permute_dims(g, axes=_inverse(axes)),),
          batch=lambda batched, size, x, *, axes: ((ops.permute_dims(x, (0, *(a + 1 for a in axes))),), (True,)),
          exact=(joined(lambda x, inner, outer: {"axes": tuple(inner["axes"][a] for a in outer["axes"])}),))
def permute_dims(x, *, axes):
    """Axes in another order: axis i of the result is axis ``axes[i]`` of ``x``."""
    if sorted(axes) != list(range(x.ndim)):
        raise user_error(ValueError, f"permute_dims: axes {axes} are not a permutation of the {x.ndim} axes of "
                                     f"shape {x.shape}")
    strides = contiguous_strides(x.shape)
    return Index(tuple(x.shape[a] for a in axes), tuple(strides[a] for a in axes))


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axes.index(i) for i in range(len(axes)))


def _broadcast_vjp(g: Any, ans: Any, x: Any, *, shape: tuple[int, ...]) -> tuple[Any]:
    return (ops.sum_to(g, x.shape),)


@movement(ref=lambda x, *, shape: np.broadcast_to(x, shape),
          samples=several(uniform((3, 1), shape=(3, 4)), uniform((), shape=(2, 2)), uniform((3, 1), shape=(2, 3, 1))),
          vjp=_broadcast_vjp,
          batch=lambda batched, size, x, *, shape: (
              (ops.broadcast_to(behind(x, len(shape)), (size, *shape)),), (True,)),
          exact=(joined(lambda x, inner, outer: outer),))
def broadcast_to(x, *, shape):
    """``x`` repeated along new axes in front and along its axes of length 1."""
    lead = len(shape) - x.ndim
    if lead < 0 or any(n not in (1, m) for n, m in zip(x.shape, shape[lead:], strict=True)):
        raise user_error(ValueError, f"broadcast_to: shape {x.shape} does not broadcast to {shape}")
    own = contiguous_strides(x.shape)
    strides = (0,) * lead + tuple(0 if n == 1 else s for n, s in zip(x.shape, own, strict=True))
    return Index(shape, strides)


Spans = tuple[tuple[int, int, int], ...]        # per axis: first element, count, step


def _span_index(shape: tuple[int, ...], spans: Spans) -> Index:
    if type(spans) is not tuple or len(spans) != len(shape) or not all(map(_inside, spans, shape)):
        raise user_error(ValueError, f"slice: the spans {spans} (first element, count and step of each axis) do not "
                                     f"lie in shape {shape}")
    strides = contiguous_strides(shape)
    return Index(tuple(count for _, count, _ in spans),
                 tuple(step * s for (_, _, step), s in zip(spans, strides, strict=True)),
                 sum(first * s for (first, count, _), s in zip(spans, strides, strict=True) if count))


def _inside(span: tuple[int, int, int], n: int) -> bool:
    """All elements of a span are among n, none twice."""
    if type(span) is not tuple or len(span) != 3 or any(type(v) is not int for v in span):
        return False
    first, count, step = span
    return count == 0 or (count > 0 and 0 <= first < n and 0 <= first + (count - 1) * step < n
                          and (step != 0 or count == 1))


def _span_slices(spans: Spans) -> tuple[slice, ...]:
    """NumPy's slices; a negative step that ends at element 0 has no stop."""
    out = []
    for first, count, step in spans:
        stop = first + count * step
        out.append(slice(first, None if stop < 0 else stop, step) if count else slice(0, 0))
    return tuple(out)


def _spans_of_spans(inner: Spans, outer: Spans) -> Spans:
    return tuple((f + first * step, count, step * by)
                 for (f, _, step), (first, count, by) in zip(inner, outer, strict=True))


@movement(name="slice", ref=lambda x, *, spans: x[_span_slices(spans)],
          samples=several(uniform((5, 4), spans=((1, 2, 2), (3, 4, -1))), uniform((5,), spans=((0, 0, 1),))),
          vjp=lambda g, ans, x, *, spans: (ops.embed(g, shape=x.shape, spans=spans),),
          batch=lambda batched, size, x, *, spans: ((ops.slice(x, ((0, size, 1), *spans)),), (True,)),
          exact=(joined(lambda x, inner, outer: {"spans": _spans_of_spans(inner["spans"], outer["spans"])}),))
def take_slice(x, *, spans):
    """Regular slices: per axis the first element, the count and the step."""
    return _span_index(x.shape, spans)


def _embed_aval(x: Aval, *, shape: tuple[int, ...], spans: Spans) -> Aval:
    if _span_index(shape, spans).shape != x.shape:
        raise user_error(ValueError, f"embed: the spans {spans} of shape {shape} do not take an operand of shape "
                                     f"{x.shape}")
    return aval(x.code, shape)


def _embed_ref(x: Any, *, shape: tuple[int, ...], spans: Spans) -> Any:
    out = np.zeros(shape, x.dtype)
    out[_span_slices(spans)] = x
    return out


@placement(ref=_embed_ref, samples=uniform((2, 4), shape=(5, 4), spans=((1, 2, 2), (3, 4, -1))),
           params=("shape", "spans"), aval=_embed_aval,
           vjp=lambda g, ans, x, *, shape, spans: (ops.slice(g, spans=spans),),
           batch=lambda batched, size, x, *, shape, spans: (
               (ops.embed(x, (size, *shape), ((0, size, 1), *spans)),), (True,)))
def embed(x, *, shape, spans):
    """Zeros of ``shape`` with ``x`` at regular slices: the transpose of `slice`."""
    return _span_index(shape, spans)


def _concat_aval(*xs: Aval, axis: int) -> Aval:
    first = xs[0]
    if any(x.ndim != first.ndim or x.shape[:axis] != first.shape[:axis] or x.shape[axis + 1:] != first.shape[axis + 1:]
           for x in xs):
        raise shape_error("concat", xs, f"differ in more than axis {axis}")
    return aval(first.code, (*first.shape[:axis], sum(x.shape[axis] for x in xs), *first.shape[axis + 1:]))


def _concat_vjp(g: Any, ans: Any, *xs: Any, axis: int) -> list[Any]:
    out, first = [], 0
    for x in xs:
        spans = tuple((first if i == axis else 0, n, 1) for i, n in enumerate(x.shape))
        out.append(ops.slice(g, spans=spans))
        first += x.shape[axis]
    return out


def _concat_words(x: Aval, y: Aval, *, axis: int) -> tuple[int, int, int]:
    outer = math.prod(x.shape[:axis])
    return outer, x.size // outer if outer else 0, y.size // outer if outer else 0


def _two(rng: np.random.Generator) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    return [((rng.normal(size=(3, 2)), rng.normal(size=(3, 4))), {"axis": 1})]


@kernel(Kind.INDEX, vjp=_concat_vjp, ref=lambda *xs, axis: np.concatenate(xs, axis), samples=_two,
        operands=("x", "y"), params=("axis",), domain="any", linear=Linear.EACH, ulp=0.0, aval=_concat_aval,
        words=_concat_words, cuda="indexing", indexes=lambda x, y, axis: (0, (0, 1)),
        batch=lambda batched, size, *xs, axis: ((ops.concat(*spread(batched, size, *xs), axis=axis + 1),), (True,)))
def concat(out, x, y, outer, m, n):
    """Two arrays one after the other along an axis."""
    for o in range(outer):
        at = o * (m + n)
        for i in range(m):
            out[at + i] = x[o * m + i]
        for i in range(n):
            out[at + m + i] = y[o * n + i]
    return 0


@movement(vjp=None, ref=lambda x: x, samples=uniform((3, 4)),
          batch=lambda batched, size, x: ((ops.stop_gradient(x),), (True,)))
def stop_gradient(x):
    """``x`` itself as a constant: `jitgrad.stop_gradient`."""
    return Index(x.shape, contiguous_strides(x.shape))


@movement(vjp=lambda g, ans, x: (g,), ref=lambda x: x, samples=uniform((3, 4)), opaque=True,
          batch=lambda batched, size, x: ((ops.barrier(x),), (True,)))
def barrier(x):
    """``x`` itself, but what is computed from it is never taken to be what was computed from ``x``: a view."""
    return Index(x.shape, contiguous_strides(x.shape))


@movement(vjp=lambda g, ans, x, *, device, source: (ops.to_device(g, source, device),), ref=lambda x, **devices: x,
          samples=uniform((3, 4), device="cpu", source="cpu"), opaque=True, exact=(returned,),
          batch=lambda batched, size, x, **devices: ((ops.to_device(x, **devices),), (True,)))
def to_device(x, *, device, source):
    """``x`` on a device, from where it was: `Tensor.to_device`. The gradient goes back."""
    return Index(x.shape, contiguous_strides(x.shape))
