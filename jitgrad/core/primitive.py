"""The table: one entry per primitive, and what each kind of entry supplies.

The body of a decorated function is what the machine runs; the decorator's keywords are the mathematics.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from jitgrad.core import backend, dtypes
from jitgrad.core.aval import Aval, aval, broadcast_shapes
from jitgrad.core.errors import user_error


class Kind(Enum):
    """How a primitive touches memory: each kind owns a shape rule and a loop."""

    ELEMENTWISE = "elementwise"    # body(x, ...) -> scalar; operands broadcast
    REDUCE = "reduce"              # body(acc, x) -> acc over adjacent `axes`, kept as length 1
    SCAN = "scan"                  # body(acc, x, ...) -> acc along `axis`, every partial result kept
    MOVE = "move"                  # body(aval, **params) -> Index: no arithmetic
    PLACE = "place"                # body(aval, **params) -> Index: the transpose of a MOVE that repeats no element
    CONTRACT = "contract"          # own kernel body(out, x, y, *words)
    INDEX = "index"                # own kernel, linear in its first operand
    OPAQUE = "opaque"              # own kernel
    EFFECT = "effect"              # checks or changes something outside; may have no output
    HIGHER = "higher"              # params hold Programs


GUARD_FAILED = 255             # what the kernel of a guard that does not hold returns; no other kernel does
KERNEL_RAISED = 254            # what the kernel of a user's function returns that raised an exception
ACCUMULATING = (Kind.REDUCE, Kind.SCAN, Kind.CONTRACT, Kind.INDEX)     # errors count against the sum of magnitudes


DOMAINS = {                    # kinds of the dtypes in which operands of a domain reach a kernel
    "float": "f", "number": "if", "integer": "i", "logical": "bi", "any": "bif", "bool": "b", "index": "i"}
FIXED = ("bool", "index")      # domains whose operands take no part in promotion; the others share a dtype


class Linear(Enum):
    """What derivative rules may assume."""

    NO = 0
    EACH = 1                       # linear in all operands taken together
    MULTI = 2                      # linear in each operand alone


class Missing:
    """The type of `missing`, for an entry that has a derivative in mathematics but no rule here."""


missing = Missing()

Rule = Callable[..., Sequence[Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Primitive:
    """One row of the table. Names, not codes, are an entry's identity on disk."""

    name: str
    code: int
    kind: Kind
    body: Callable[..., Any]
    vjp: Rule | Missing | None           # cotangents of the operands, written in ops; None: gradient None
    aval: Callable[..., Aval | tuple[Aval, ...]]
    ref: Callable[..., Any]              # NumPy's answer
    samples: Callable[..., Any] | None   # rng -> [(arrays, params)]
    operands: tuple[str, ...]            # operand names; ('*xs',) for any number
    params: tuple[str, ...]
    domains: tuple[str, ...]             # per operand: see DOMAINS
    jvp: Callable[..., Any] | None = None     # rule(ts, ans, *operands, **params) -> tangent (one an output), in ops;
    #                                      ts has None for zero. By default what the kind and `linear` say
    batch: Callable[..., Any] | None = None   # rule(batched, size, *operands, **params) -> (outputs, which batched);
    #                                      batch axes stand in front. By default what the kind says
    draws: Callable[..., bool] | None = None  # params -> whether a row draws random numbers, which differ from example
    #                                      to example though no operand does; its rule is asked with nothing batched
    indexes: Callable[..., tuple[int, tuple[int, ...]]] | None = None     # (avals, params) -> (n, positions): integers
    #                                      of the result are indices of n elements or elements of these operands;
    #                                      (0, ()) if neither. By default what the kind says
    exact: tuple[Callable[..., Any], ...] = ()     # rewrites that keep every bit: see core/exact.py
    linear: Linear = Linear.NO
    init: Any = None                     # of a reduction or scan: number, or dtype -> number
    associative: bool = False            # of a scan: f(f(a, b), c) = f(a, f(b, c)), but for rounding
    words: Callable[..., Any] | None = None   # of an own kernel: the integers its body gets
    scratch: Callable[..., int] | None = None  # of an own kernel: how many int64 words of working memory its body gets
    opaque: bool = False                 # not to be simplified away, though it changes nothing
    vectors: str = ""                    # module of the machine that may have vector text in the place of the body
    runner: str = ""                     # of a row that holds Programs: module of the machine that makes its kernel
    cuda: str = ""                       # of an own kernel: module of the GPU's machine that has its launches
    host: str = ""                       # why a row on a GPU's Tensors has no kernel there and runs on the host
    bits: bool = False                   # an own kernel gets floats as integers of their width
    ulp: float = 0.5                     # stated error of a float result, in units of the last place
    cancels: bool = False                # ... of the result or of the greater operand, whichever is larger
    at: tuple[Any, ...] = ()             # special points for tests
    symbol: str | None = None
    literal: str = ""                    # the entry that takes a Python int in the last operand's place as a parameter
    partial: bool = False                # the rule takes want=, the operand positions whose cotangent is asked for
    defaults: dict[str, Any] | None = None    # of params that a caller may leave out
    general: Callable[..., Any] | None = None   # the answer for operands that the entry does not take itself, or None
    errors: dict[int, str] | None = None  # sentences for the codes that an own kernel returns
    doc: str = ""

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


def takes(prim: Primitive, dtype: np.dtype[Any]) -> bool:
    """Whether data operands of a dtype reach the entry's kernel (promotion casts the others before).

    Of an entry without data operands, whether any of its operands may have the dtype.
    """
    shared = [d for d in prim.domains if d not in FIXED] or list(prim.domains) or ["index"]
    return all(dtype.kind in DOMAINS[domain] for domain in shared)


TABLE: list[Primitive] = []          # index == op code
BY_NAME: dict[str, Primitive] = {}
OPS: dict[str, Callable[..., Any]] = {}
Op = Callable[..., Any]


def define(body: Callable[..., Any], **fields: Any) -> Op:
    """Add an entry to the table; the op that users and rules call."""
    name = fields.pop("name", None) or body.__name__
    if name in BY_NAME:
        raise ValueError(f"the table has an entry named {name!r} already")
    prim = Primitive(name=name, code=len(TABLE), body=body, doc=inspect.getdoc(body) or "", **fields)
    TABLE.append(prim)
    BY_NAME[name] = prim
    OPS[name] = backend.current().op(prim)
    return OPS[name]


# ---- shape rules by kind -------------------------------------------------------------------------

def broadcast_aval(name: str, result: str | None) -> Callable[..., Aval]:
    def rule(*operands: Aval, **params: Any) -> Aval:
        shape = broadcast_shapes(*(a.shape for a in operands))
        if shape is None:
            raise shape_error(name, operands, "do not broadcast together")
        return aval(dtypes.BOOL if result == "bool" else operands[-1].code, shape)
    return rule


def reduce_aval(name: str) -> Callable[..., Aval]:
    def rule(x: Aval, *, axes: tuple[int, ...]) -> Aval:
        if type(axes) is not tuple or any(type(a) is not int for a in axes):
            raise user_error(TypeError, f"{name}: axes must be a tuple of ints, got {axes!r}")
        if axes != tuple(range(axes[0], axes[0] + len(axes))) if axes else False:
            raise user_error(ValueError, f"{name}: axes must be adjacent and ascending, got {axes}")
        if any(not 0 <= a < x.ndim for a in axes):
            raise user_error(ValueError, f"{name}: axes {axes} are out of range for shape {x.shape}")
        return aval(x.code, tuple(1 if i in axes else n for i, n in enumerate(x.shape)))
    return rule


def scan_aval(name: str) -> Callable[..., Aval]:
    def rule(*operands: Aval, axis: int, exclusive: bool, reverse: bool) -> Aval:
        x = operands[0]
        if type(axis) is not int or not 0 <= axis < x.ndim:
            raise user_error(ValueError, f"{name}: axis {axis!r} is out of range for shape {x.shape}")
        if any(a.shape != x.shape for a in operands):
            raise shape_error(name, operands, "differ")
        return x
    return rule


def shape_error(name: str, operands: Sequence[Aval], what: str) -> ValueError:
    shapes = " and ".join(str(a.shape) for a in operands)
    kinds = " and ".join(a.dtype.name for a in operands)
    return user_error(ValueError, f"{name}: shapes {shapes} {what} (dtypes {kinds})")


# ---- decorators, one per kind --------------------------------------------------------------------

def _names(body: Callable[..., Any], skip: int = 0) -> tuple[tuple[str, ...], tuple[str, ...]]:
    given = list(inspect.signature(body).parameters.values())
    operands = tuple(("*" if p.kind is p.VAR_POSITIONAL else "") + p.name for p in given
                     if p.kind is not p.KEYWORD_ONLY)
    return operands[skip:], tuple(p.name for p in given if p.kind is p.KEYWORD_ONLY)


def elementwise(*, vjp: Rule | Missing | None, ref: Callable[..., Any], samples: Any, domain: Any = "number",
                result: str | None = None, **fields: Any) -> Callable[[Callable[..., Any]], Op]:
    """An entry whose body maps scalars to a scalar; operands broadcast (undone once, in the walk)."""
    def decorate(body: Callable[..., Any]) -> Op:
        operands, params = _names(body)
        domains = (domain,) * len(operands) if isinstance(domain, str) else tuple(domain)
        shape = fields.pop("aval", None) or broadcast_aval(fields.get("name") or body.__name__, result)
        return define(body, kind=Kind.ELEMENTWISE, vjp=vjp, ref=ref, samples=samples, operands=operands,
                      params=params, domains=domains, aval=shape, **fields)
    return decorate


def reduction(*, vjp: Rule | Missing | None, ref: Callable[..., Any], samples: Any, init: Any,
              domain: str = "number", **fields: Any) -> Callable[[Callable[..., Any]], Op]:
    """An entry whose body folds an element into an accumulator along ``axes``, which stay as length 1."""
    def decorate(body: Callable[..., Any]) -> Op:
        return define(body, kind=Kind.REDUCE, vjp=vjp, ref=ref, samples=samples, operands=("x",), params=("axes",),
                      domains=(domain,), init=init, aval=reduce_aval(body.__name__), **fields)
    return decorate


def scan(*, vjp: Rule | Missing | None, ref: Callable[..., Any], samples: Any, init: Any,
         domain: str = "number", **fields: Any) -> Callable[[Callable[..., Any]], Op]:
    """An entry whose body folds elements into an accumulator along ``axis`` and keeps each partial result.

    ``exclusive`` keeps what stood before an element, ``reverse`` goes from the last to the first. The accumulator
    starts from ``init``; that of float32 is a float64.
    """
    def decorate(body: Callable[..., Any]) -> Op:
        operands, _ = _names(body, skip=1)
        return define(body, kind=Kind.SCAN, vjp=vjp, ref=ref, samples=samples, operands=operands,
                      params=("axis", "exclusive", "reverse"), defaults={"exclusive": False, "reverse": False},
                      domains=(domain,) * len(operands), init=init, aval=scan_aval(body.__name__), **fields)
    return decorate


@dataclass(frozen=True)
class Index:
    """An index map: element i of the result is operand[offset + i . strides], in elements."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    out, step = [], 1
    for n in reversed(shape):
        out.append(step)
        step *= n
    return tuple(reversed(out))


def movement(*, vjp: Rule | Missing | None, ref: Callable[..., Any], samples: Any,
             **fields: Any) -> Callable[[Callable[..., Any]], Op]:
    """An entry that only moves elements: its body maps the operand's aval and the params to an `Index`."""
    def decorate(body: Callable[..., Any]) -> Op:
        _, params = _names(body)

        def rule(x: Aval, **given: Any) -> Aval:
            return aval(x.code, body(x, **given).shape)
        return define(body, kind=Kind.MOVE, vjp=vjp, ref=ref, samples=samples, operands=("x",), params=params,
                      domains=("any",), linear=Linear.EACH, aval=rule, ulp=0.0, **fields)
    return decorate


def placement(*, vjp: Rule | Missing | None, ref: Callable[..., Any], samples: Any, aval: Callable[..., Aval],
              params: tuple[str, ...], **fields: Any) -> Callable[[Callable[..., Any]], Op]:
    """An entry that puts the operand's elements into zeros: its body says where, as the `Index` of a MOVE back."""
    def decorate(body: Callable[..., Any]) -> Op:
        return define(body, kind=Kind.PLACE, vjp=vjp, ref=ref, samples=samples, operands=("x",), params=params,
                      domains=("any",), linear=Linear.EACH, aval=aval, ulp=0.0, **fields)
    return decorate


def kernel(kind: Kind, *, vjp: Rule | Missing | None, ref: Callable[..., Any], samples: Any,
           aval: Callable[..., Any], words: Callable[..., Any], operands: tuple[str, ...], domain: Any,
           params: tuple[str, ...] = (), **fields: Any) -> Callable[[Callable[..., Any]], Op]:
    """An entry with a kernel of its own: ``body(out, *operands, *words)`` over flat arrays, as plain Python.

    With ``scratch=`` a flat int64 array of so many words, whatever is in them, comes between operands and words.
    A body returns 0, or a positive code that `errors=` of the entry turns into a sentence.
    """
    def decorate(body: Callable[..., Any]) -> Op:
        domains = (domain,) * len(operands) if isinstance(domain, str) else tuple(domain)
        return define(body, kind=kind, vjp=vjp, ref=ref, samples=samples, aval=aval, words=words,
                      operands=operands, params=params, domains=domains, **fields)
    return decorate


# ---- samples for tests ---------------------------------------------------------------------------

EDGES = (0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan)        # special points of most elementwise entries


def uniform(*shapes: tuple[int, ...], low: float = -1.5, high: float = 1.5,
            **params: Any) -> Callable[[np.random.Generator], list[tuple[tuple[np.ndarray, ...], dict[str, Any]]]]:
    """Samples drawn uniformly, one array per shape."""
    return lambda rng: [(tuple(rng.uniform(low, high, s) for s in shapes), params)]


def several(*makers: Callable[..., Any]) -> Callable[..., Any]:
    """The samples of all of them."""
    return lambda rng: [sample for make in makers for sample in make(rng)]


