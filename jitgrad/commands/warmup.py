"""``jitgrad warmup``: build what programs need into the object cache, before they ask."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

import jitgrad as jg
from jitgrad.core.aval import aval
from jitgrad.core.dtypes import CODES, DTYPES
from jitgrad.core.form import Form, form
from jitgrad.core.primitive import FIXED, TABLE, Kind, Primitive, takes
from jitgrad.core.sizes import bytes_in_words
from jitgrad.execute.cpu import cache, library

INDICES = tuple(d for d in DTYPES if d.kind == "i")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, 1 where nothing can be kept."""
    argparse.ArgumentParser(prog="jitgrad warmup", description=(
        "Build the machine code of Tensors and tapes, and the kernels of every operation in every dtype it takes, into "
        "the object cache. What is there stays.")).parse_args(argv)
    problem = cache.problem()
    if problem:
        print(f"jitgrad: nothing built now could be kept: {problem}", file=sys.stderr)
        return 1
    began = time.perf_counter()
    programs()                          # imports jitgrad.nn too, which may have entries of its own
    forms = [*wanted()]
    for made in tqdm(forms, desc="kernels", unit="", leave=False, disable=None):    # None: only on a terminal
        library.realise(made)
    objects = "1 object" if cache.built == 1 else f"{cache.built} objects"
    print(f"built {objects} in {cache.seconds:.1f} s, {time.perf_counter() - began:.1f} s in all; "
          f"{len(cache.entries())} objects, {bytes_in_words(cache.size())} in {cache.folder()}")
    return 0


def wanted() -> Iterator[Form]:
    """Every entry at its samples, in every dtype that it takes: kernels know no shapes, so others need no more."""
    for prim in TABLE:
        if prim.kind is Kind.HIGHER or prim.samples is None:
            continue
        for arrays, params in prim.samples(np.random.default_rng(0)):
            shapes = [np.shape(a) for a in arrays]
            for dtypes in combinations(prim, len(shapes)):
                for given in choices(params):
                    try:
                        yield form(prim, [aval(CODES[d], s) for d, s in zip(dtypes, shapes, strict=True)], given)
                    except (TypeError, ValueError):      # the shape rule's: these do not go together
                        continue


def combinations(prim: Primitive, count: int) -> Iterator[tuple[np.dtype[Any], ...]]:
    """Dtypes of the operands: data share one, indices have either, conditions are bool."""
    domains = prim.domains if len(prim.domains) == count else prim.domains * count
    data = [d for d in DTYPES if takes(prim, d)] if {*domains} - {*FIXED} else [DTYPES[0]]
    for own, index in itertools.product(data, INDICES if "index" in domains else INDICES[:1]):
        yield tuple(index if domain == "index" else DTYPES[0] if domain == "bool" else own for domain in domains)


def choices(params: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The params, with every dtype where they name one."""
    for name in [d.name for d in DTYPES] if "dtype" in params else [None]:
        yield params if name is None else {**params, "dtype": name}


def programs() -> None:
    """A gradient to second order, an optimizer's step, a recorded function: what is not of one operation alone."""
    x, w = jg.Variable(np.ones((3, 2), np.float32)), jg.Variable(np.ones((2, 2), np.float32))
    with jg.GradientTape() as outer:
        with jg.GradientTape() as tape:
            y = jg.sum(jg.tanh(x @ w))
        g = tape.gradient(y, [x, w])
    outer.gradient(g, [x, w])
    jg.nn.optimizers.Adam().apply_gradients(zip(g, [x, w], strict=True))
    jg.function(lambda v: v * 2.0)(x)
