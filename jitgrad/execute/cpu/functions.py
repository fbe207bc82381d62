"""Traces for the machine: a Plan with what a call has to be to run it, what it changes and what it returns.

A trace is described in tuples. **Registers** are numbered: the positional arguments, the keyword values, then what
instructions put there. A **recipe** is a sequence of instructions, all of which a call has to pass:

====================================== ================================================================================
``("tuple", src, n, first)``           an exact tuple of n items, which go to registers from ``first`` on
``("list", src, n, first)``            an exact list, likewise
``("dict", src, keys, first)``         an exact dict of these keys in this order; its values go to registers
``("is", src, obj)``                   this object
``("same", src, obj)``                 likewise, but the trace does not keep it: drop the trace before it dies
``("equal", src, obj)``                an object of the same type that is equal
``("float_key", src, x)``              an exact float with the bits of x
``("int_key", src, i)``                an exact int; i fits int64
``("global", mapping, key, dst)``      the exact dict ``mapping`` has the key; its value goes to a register
``("absent", mapping, key)``           it has not
``("cell", cell, dst)``                what a closure's cell holds
``("attr", src, name, dst)``           an attribute
``("item", src, key, dst)``            an item
``("word", address, value)``           the int64 at an address, which has to outlive the trace, has this value
``("field", obj, offset, other)``      the object ``other`` is named so many bytes behind the start of this one
``("tensor", src, i)``                 a Tensor with elements, of the aval of the plan's input i, which it is
``("array", src, i)``                  a NumPy array like that: C-contiguous, aligned, in native byte order
``("float", src, i)``                  an exact float, as the float64 or float32 that the input is
``("int", src, i)``                    an exact int as int64; one that does not fit is no match
``("variable", variable, i)``          the Tensor that a Variable holds is the input i
``("captured", array, i)``             a NumPy array that is no argument is the input i, read at each call
``("placed", src, i)``                 like "tensor", for elements that are not in this memory
``("placed_variable", variable, i)``   like "variable", likewise
====================================== ================================================================================

Each input of the plan is named by the recipe. Arguments that are one input have to be one object, and those that are
several inputs different ones (Tensors and arrays; numbers are free).

An **answer** is the returned nest in postfix: ``("result", k)``, ``("argument", register)``, ``("const", obj)``; then
``("tuple", n)``, ``("list", n)``, ``("dict", keys)`` and ``("call", function, n)`` (the function gets a list) take the
last n. An **assignment** ``(variable, k)`` puts result k into a Variable once all guards have held.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np

from jitgrad.core.aval import AVALS, Aval
from jitgrad.core.dtypes import FLOAT32, FLOAT64, INT64
from jitgrad.core.primitive import TABLE, Kind
from jitgrad.core.program import Program
from jitgrad.execute.cpu import layout, library
from jitgrad.execute.cpu.function_type import set_traces
from jitgrad.execute.cpu.plans import Plan
from jitgrad.execute.cpu.types import peek, poke

Row = tuple[Any, ...]
_KEYS = {name: getattr(layout, f"M_{name.upper()}") for name in (
    "tuple", "list", "dict", "is", "equal", "float_key", "int_key", "global", "absent", "cell", "attr", "item", "word")}
_DATA = {name: getattr(layout, f"M_{name.upper()}") for name in (
    "tensor", "array", "float", "int", "variable", "captured", "placed", "placed_variable")}
_ANSWERS = {name: getattr(layout, f"W_{name.upper()}") for name in (
    "result", "argument", "const", "tuple", "list", "dict", "call")}
_FEW = 8                       # arguments up to here are compared in pairs


class Trace:
    """One way through a function, ready to run; see the module. ``address`` names it to the machine."""

    def __init__(self, plan: Plan, recipe: Sequence[Row], *, positional: int, names: Sequence[str] = (),
                 answer: Sequence[Row], assignments: Sequence[tuple[Any, int]] = (),
                 views: Mapping[int, tuple[int, Aval, int]] = {}, elsewhere: Callable[..., Any] | None = None) -> None:
        """``positional`` arguments, then keywords ``names``. Raises ValueError for a recipe that misses an input.

        ``elsewhere`` runs the plan where its inputs are: it gets them and returns a tuple of the results, or the number
        of the guard that failed.

        ``views``: result -> the input whose memory it shares, its aval, where it begins there in bytes (see `views`).
        """
        self.plan = plan
        self.tape_plan: Plan | None = None
        self.links: list[tuple[int, Trace]] = []
        self._kept: list[Any] = [tuple(names)]
        self._struct = np.zeros(layout.E_BYTES // 8, np.int64)
        self.address = int(self._struct.ctypes.data)
        self._results = [views[k][1].id if k in views else a for k, a in enumerate(plan._outs[:-1:4].tolist())]
        inputs = _Inputs(plan, self._keep)
        rows = _Rows(inputs, self._keep, positional + len(names))
        for row in recipe:
            rows.add(*row)
        inputs.check()
        self._inputs, self._variables = inputs.kinds, inputs.variables
        n_out = peek(plan.address + layout.P_OUTPUT_COUNT)
        steps, depth = self._answer(answer, {"result": n_out, "argument": rows.registers})
        returned = [k for name, k, *_ in answer if name == "result" and not elsewhere]     # no places to share there
        assigned = self._assigned(assignments, returned)
        set_words = 1 << (2 * len(inputs.distinct) - 1).bit_length() if len(inputs.distinct) > _FEW else 0
        words = {
            layout.E_OBJECT: id(self), layout.E_POSITIONAL: positional,
            layout.E_NAMES: id(self._kept[0]) if names else 0, layout.E_ARGUMENTS: positional + len(names),
            layout.E_RECIPE: self._block(rows.keys + rows.data), layout.E_KEYS: len(rows.keys),
            layout.E_DATA: len(rows.data), layout.E_DISTINCT: self._block([inputs.distinct]),
            layout.E_DISTINCT_COUNT: len(inputs.distinct), layout.E_SET_MASK: max(set_words - 1, 0),
            layout.E_PLAN: plan.address, layout.E_INPUTS: self._block(inputs.kinds),
            layout.E_VARIABLES: self._block(inputs.variables), layout.E_VARIABLE_COUNT: len(inputs.variables),
            layout.E_ASSIGNED: self._block(assigned), layout.E_ASSIGNED_COUNT: len(assigned),
            layout.E_ANSWER: self._block(steps), layout.E_ANSWER_COUNT: len(steps), layout.E_LINKS: self._block([[0]]),
            layout.E_VIEWS: self._block([[layout.WORD * k, layout.WORD * i, a.id, a.size, a.code, offset]
                                         for k, (i, a, offset) in views.items()]),
            layout.E_VIEW_COUNT: len(views), layout.E_ELSEWHERE: self._keep(elsewhere) if elsewhere else 0}
        more = names or assigned or views or set_words or elsewhere
        plain = (not (more or peek(plan.address + layout.P_FLAGS) & layout.LONG)
                 and all(row[0] == layout.M_WORD for row in rows.keys))
        n_in = len(inputs.avals)
        end = n_in + n_out + len(plan.constants)
        for word, size in ((layout.E_OBJECTS, n_in), (layout.E_REGISTERS, rows.registers),
                           (layout.E_OWNED, 1 + rows.owned), (layout.E_SCALARS, n_in), (layout.E_OUTS, n_out),
                           (layout.E_FRESH, len(assigned)), (layout.E_STACK, depth), (layout.E_SET, set_words)):
            words[word] = layout.WORD * end
            end += size
        words[layout.E_WORDS] = end
        words[layout.E_PLAIN] = 1 + positional if plain and end <= layout.PLAIN_WORDS else 0
        for word, value in words.items():
            poke(self.address + word, value)

    @property
    def hits(self) -> int:
        """Calls that it answered."""
        return peek(self.address + layout.E_HITS)

    @property
    def used(self) -> int:
        """When it last did, in ticks of the process."""
        return peek(self.address + layout.E_USED)

    def follow_with(self, links: Sequence[tuple[int, Trace]]) -> None:
        """(number of a guard, trace): where that one of the plan's guards, in their order, fails, go on there."""
        block = np.array([len(links), *(word for number, other in links for word in (number, other.address))], np.int64)
        poke(self.address + layout.E_LINKS, int(block.ctypes.data))
        self.links, self._links = [*links], block    # the machine reads where they are at each step

    def record_with(self, plan: Plan) -> None:
        """The plan to run where a tape records: the same results, then values that the backward pass reads.

        Its guards are those of the trace's plan. Raises ValueError for one of other inputs or results.
        """
        results = plan._outs[:-1:4].tolist()[:len(self._results)]
        given = [FLOAT64 if kind == layout.M_SINGLE else a
                 for a, (kind, _) in zip(self.plan._avals.tolist(), self._inputs, strict=False)]
        if (plan._avals[:-1].tolist() != given or results != self._results
                or len(plan.guards) != len(self.plan.guards)):
            raise ValueError("a trace is recorded with a plan of its inputs, results and guards")
        plan.recordable()
        self._keep(plan)                             # one before may be running, in another thread
        self.tape_plan = plan
        poke(self.address + layout.E_TAPE_PLAN, plan.address)

    def _assigned(self, assignments: Sequence[tuple[Any, int]], returned: list[int]) -> list[list[int]]:
        """Variable, offset of its result, whether the answer or a Variable before has that result too, and the offset
        of its input, -1 if it is not read."""
        taken, read = {*returned}, {row[0]: row[1] for row in self._variables}
        out = []
        for variable, k in assignments:
            if not 0 <= k < len(self._results) or self._results[k] != variable._value._aval:
                raise ValueError(f"a trace cannot assign result {k} to {variable!r}")
            out.append([self._keep(variable), layout.WORD * k, int(k in taken), read.get(id(variable), -1)])
            taken.add(k)
        return out

    def _keep(self, obj: Any) -> int:
        self._kept.append(obj)
        return id(obj)

    def _block(self, rows: Sequence[Sequence[int]]) -> int:
        block = np.array([word for row in rows for word in row] or [0], np.int64)
        self._kept.append(block)
        return int(block.ctypes.data)

    def _answer(self, answer: Sequence[Row], known: dict[str, int]) -> tuple[list[list[int]], int]:
        """Instructions, and how many items wait at most."""
        steps, depth, most = [], 0, 0
        for at, (name, *rest) in enumerate(answer):
            words = [rest[0], 0]
            if name in known:
                words[0] = layout.WORD * rest[0]
                if not 0 <= rest[0] < known[name]:
                    raise ValueError(f"a trace's answer has no {name} {rest[0]}")
            elif name == "const":
                words = [self._keep(rest[0]), 0]
            elif name == "dict":
                words = [len(rest[0]), self._keep(tuple(rest[0]))]
            elif name == "call":
                words = [rest[1], self._keep(rest[0])]
            taken = 0 if name in known or name == "const" else words[0]
            if taken > depth:
                raise ValueError(f"a trace's answer has no {taken} objects for a {name}")
            depth += 1 - taken
            most = max(most, depth)
            last = name == "result" and rest[0] not in {other[1] for other in answer[1 + at:] if other[0] == name}
            steps.append([layout.W_TAKEN if last else _ANSWERS[name], *words])
        if depth != 1:
            raise ValueError(f"a trace's answer leaves {depth} objects, not one")
        return steps, most


class _Inputs:
    """The plan's inputs, as a recipe names them."""

    def __init__(self, plan: Plan, keep: Callable[[Any], int]) -> None:
        self._keep = keep
        self.avals = [AVALS[a] for a in plan._avals[:-1].tolist()]
        self.kinds = [[-1, 0] for _ in self.avals]
        self.distinct: list[int] = []                # offsets of arguments that are objects with elements
        self.variables: list[list[int]] = []

    def take(self, name: str, source: Any, i: int) -> int:
        """Input i comes from there; the second word of its instruction."""
        if not 0 <= i < len(self.avals):
            raise ValueError(f"a trace's plan has no input {i}")
        aval = self.avals[i]
        code = _DATA[name]
        if name == "float" and aval is AVALS[FLOAT32]:
            code = layout.M_SINGLE
        elif name in ("float", "int") and aval is not AVALS[FLOAT64 if name == "float" else INT64]:
            raise ValueError(f"a Python {name} is no input of {aval!r}")
        self.kinds[i] = [code, 0]
        if name in ("array", "captured"):
            self.kinds[i][1] = self.described(aval)
        if name in ("tensor", "array", "placed"):
            self.distinct.append(layout.WORD * i)
        if name in ("variable", "placed_variable"):
            self.variables.append([self._keep(source), layout.WORD * i])
        return aval.id if name in ("tensor", "variable", "placed", "placed_variable") else self.kinds[i][1]

    def described(self, aval: Any) -> int:
        kind = peek(id(aval.dtype) + layout.DESCR_KIND) & layout.DESCR_MASK
        block = np.array([aval.id, aval.nbytes, aval.size, aval.code, id(aval.dtype), kind, aval.ndim, *aval.shape],
                         np.int64)
        self._keep(block)
        return int(block.ctypes.data)

    def check(self) -> None:
        missed = [i for i, (kind, _) in enumerate(self.kinds) if kind < 0]
        if missed:
            raise ValueError(f"a trace's recipe does not say where the inputs {missed} come from")


class _Rows:
    """Instructions of a recipe: those that look at the call, and those that take data."""

    def __init__(self, inputs: _Inputs, keep: Callable[[Any], int], registers: int) -> None:
        self._inputs, self._keep = inputs, keep
        self.keys: list[list[int]] = []
        self.data: list[list[int]] = []
        self.registers, self.owned = registers, 0

    def add(self, name: str, *rest: Any) -> None:
        if name in _DATA:
            self._take(name, *rest)
            return
        if name == "field":
            self.keys.append([layout.M_WORD, self._keep(rest[0]) + rest[1], self._keep(rest[2]), 0])
            return
        words = [self._first(name, rest[0]), 0, 0]
        if name == "same":
            self.keys.append([_KEYS["is"], words[0], id(rest[1]), 0])
            return
        if name == "word":
            words[1] = int(rest[1])
        elif name in ("tuple", "list"):
            words[1:] = rest[1], self._registers(rest[2], rest[1], owned=name == "list")
        elif name == "dict":
            words[1:] = self._keep(tuple(rest[1])), self._registers(rest[2], len(rest[1]), owned=True)
        elif name == "float_key":
            (words[1],) = struct.unpack("<q", struct.pack("<d", rest[1]))
        elif name == "int_key":
            words[1] = int(rest[1])
        elif name == "cell":
            words[2] = self._registers(rest[1], 1, owned=True)
        else:
            words[1] = self._keep(rest[1])
            if name in ("global", "attr", "item"):
                words[2] = self._registers(rest[2], 1, owned=True)
        self.keys.append([_KEYS[name], *words])

    def _first(self, name: str, first: Any) -> int:
        if name in ("global", "absent", "cell"):
            return self._keep(first)
        return int(first) if name == "word" else self._register(first)

    def _register(self, number: int) -> int:
        """Offset of a register that has something by now."""
        if not 0 <= number < self.registers:
            raise ValueError(f"a trace's recipe reads register {number} before anything is in it")
        return layout.WORD * number

    def _registers(self, first: int, n: int, *, owned: bool) -> int:
        self.registers = max(self.registers, first + n)
        self.owned += n if owned else 0
        return layout.WORD * first

    def _take(self, name: str, source: Any, i: int) -> None:
        first = self._keep(source) if name in ("variable", "captured", "placed_variable") else self._register(source)
        if 0 <= i < len(self._inputs.kinds) and self._inputs.kinds[i][0] >= 0:
            if name not in ("tensor", "array", "placed") or self._inputs.kinds[i][0] != _DATA[name]:
                raise ValueError(f"a trace's recipe names input {i} twice")
            self.data.append([layout.M_SAME, first, 0, layout.WORD * i])
        else:
            word = self._inputs.take(name, source, i)
            self.data.append([self._inputs.kinds[i][0], first, word, layout.WORD * i])


def views(program: Program, inputs: Container[int]) -> dict[int, tuple[int, Aval, int]]:
    """Results that lie in the memory of an input among those at ``inputs``: that input, aval, and where in bytes."""
    lies = {v: (i, 0) for i, v in enumerate(program.inputs.tolist()) if i in inputs}
    for r in np.flatnonzero(np.array([p.kind is Kind.MOVE for p in TABLE])[program.op]).tolist():
        made, (x,), (out,) = program.row(r)
        struct = library.realise(made)
        if x in lies and peek(struct + layout.F_FLAGS) & layout.VIEW:
            i, offset = lies[x]
            lies[out] = i, offset + peek(peek(struct + layout.F_PARAMS))
    results = program.results.tolist()
    return {k: (lies[v][0], program.aval(v), lies[v][1]) for k, v in enumerate(results) if v in lies}


def install(function: Any, traces: Sequence[Trace]) -> None:
    """The traces of a `function_type.Function`, which tries up to `layout.MAX_TRACES` of them, the first first."""
    set_traces(function, tuple(traces), tuple(t.address for t in traces))
