"""Random Python functions over Tensors, as source text, with calls of them and changes between the calls.

`make` writes a module: settings, Variables, a NumPy array, a class, closures, helpers, and a function ``f`` whose body
is drawn at random from the statements that users write. `run` executes a case in a namespace of its own and tells
everything that can be told apart from outside, so that two ways of running ``f`` are compared bit for bit.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import jitgrad as jg

LENGTH = 3                       # of the vectors


class Call(NamedTuple):
    """Statements to run in the module first, and the arguments of ``f`` as an expression there."""

    changes: tuple[str, ...]
    arguments: str


class Case(NamedTuple):
    """The source of a module with a function ``f``, and the calls to make in order."""

    source: str
    calls: tuple[Call, ...]


MODULE = '''\
import numpy as np
import jitgrad as jg

RATE, COUNT, MODE, LIMIT = {rate}, {count}, "a", {limit}
CFG = {{"k": {{"j": {rate2}}}, "sizes": [1, 2], "act": jg.tanh}}
ARRAY = np.array({array}, {array_dtype!r})
GIVEN = np.array({given}, {dtype!r})
V0 = jg.Variable({v0}, dtype={dtype!r})
V1 = jg.Variable({v1}, dtype={dtype!r})


class Part:
    def __init__(self, rate):
        self.rate = rate

    def __call__(self, x):
        return x * self.rate


class Model:
    shift = {shift}

    def __init__(self):
        self.rate, self.flag, self.sizes, self.act, self._gain = {rate}, True, [2, 1], jg.sin, {rate2}
        self.parts = [Part(0.5), Part(-0.25)]

    @property
    def gain(self):
        return self._gain * 2

    def bend(self, x):
        return self.act(x * self.rate) + self.shift


MODEL = Model()


def closure(scale):
    calls = 0

    def scaled(x):
        return x * scale

    def counted(x):
        nonlocal calls
        calls += 1
        return x * calls

    def rescale(value):
        nonlocal scale
        scale = value

    return scaled, counted, rescale


scaled, counted, rescale = closure({rate2})


def risky(x, s):
    if s > LIMIT:
        raise ValueError("too much")
    return x * s


def pieces(x, n):
    for i in range(n):
        yield x * (i + RATE)


def power(x, n=2):
    return x if n <= 0 else x * power(jg.tanh(x), n - 1)


def slope(function, x):
    with jg.GradientTape() as tape:
        tape.watch(x)
        y = jg.sum(function(x))
    g = tape.gradient(y, x)
    return jg.zeros_like(x) if g is None else jg.tanh(g)
'''


_SIZES = "CFG['sizes']"


class Writer:
    """Writes one function body; names in scope by what they hold."""

    def __init__(self, draw: random.Random, helpers: list[str], counting: bool, returns: bool = True) -> None:
        self.draw, self.helpers, self.counting, self.returns = draw, helpers, counting, returns
        self.lines: list[str] = []
        self.depth = 1
        self.made = 0
        self.vectors: list[str] = []
        self.scalars: list[str] = []
        self.numbers: list[str] = []
        self.integers: list[str] = []
        self.loops = 0

    def put(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    def fresh(self, letter: str) -> str:
        self.made += 1
        return f"{letter}{self.made}"

    def choose(self, *options: Any) -> Any:
        return self.draw.choice(options)

    def literal(self) -> str:
        return repr(self.choose(0.5, -0.75, 1.25, 2.0, 0.1))

    # ---- expressions ----

    def vector(self, depth: int = 2) -> str:
        if depth <= 0 or self.draw.random() < 0.2:
            return self.choose(*self.vectors, *self.vectors, "V0", "jg.asarray(ARRAY)")
        v, deeper = self.vector, depth - 1
        return self.choose(
            lambda: f"({v(deeper)} {self.choose('+', '-', '*')} {v(deeper)})",
            lambda: f"{v(deeper)} / (1.0 + {self.vectors[0]} * {self.vectors[0]})",
            lambda: f"jg.{self.choose('sin', 'tanh', 'abs', 'cos', 'relu', 'sigmoid', 'negative', 'flip')}({v(deeper)})",
            lambda: f"jg.exp(-jg.abs({v(deeper)}))",
            lambda: f"jg.{self.choose('maximum', 'minimum', 'add')}({v(deeper)}, {v(deeper)})",
            lambda: f"jg.where({v(deeper)} > {self.number(0)}, {v(deeper)}, {v(deeper)})",
            lambda: f"({v(deeper)} * {self.scalar(deeper)})",
            lambda: f"({self.number(1)} * {v(deeper)})",
            lambda: f"({v(deeper)} + {self.number(1)})",
            lambda: f"{v(deeper)} ** 2",
            lambda: f"scaled({v(deeper)})",
            lambda: f"MODEL.bend({v(deeper)})",
            lambda: f"MODEL.parts[{self.choose(0, -1)}]({v(deeper)})",
            lambda: f"CFG['act']({v(deeper)})",
            lambda: f"power({v(deeper)}, {self.integer()})",
            lambda: f"power({v(deeper)})",
            lambda: f"sum([q * {self.number(0)} for q in ({v(deeper)}, {v(deeper)})])",
            lambda: f"(lambda q: q * {self.number(0)} + {self.choose(*self.vectors)})({v(deeper)})",
            lambda: f"slope({self.choose('scaled', 'MODEL.bend', 'jg.sin', 'lambda q: q * q * RATE')}, {v(deeper)} + 0.0)",
            lambda: f"{self.choose('scaled', *self.helpers)}({v(deeper)})",
            lambda: f"{self.choose('scaled', *self.helpers)}({v(deeper)})",
        )()

    def scalar(self, depth: int = 1) -> str:
        if depth <= 0 and self.scalars and self.draw.random() < 0.6:
            return self.choose(*self.scalars)
        return self.choose(
            lambda: f"jg.{self.choose('sum', 'mean', 'max', 'min')}({self.vector(depth)})",
            lambda: f"{self.choose(*self.vectors)}[{self.choose(0, 1, -1)}]",
            lambda: f"jg.sin({self.scalar(depth - 1)})" if depth > 0 else "V1 * 1.0",
            lambda: f"(V1 * {self.number(0)})",
        )()

    def number(self, depth: int = 1) -> str:
        simple = [*self.numbers, self.literal(), "RATE", "MODEL.rate", "MODEL.gain", "Model.shift", "MODEL.shift",
                  "CFG['k']['j']", "MODEL.parts[0].rate", "LIMIT"]
        if depth <= 0 or self.draw.random() < 0.5:
            return self.choose(*simple)
        return self.choose(lambda: f"({self.number(0)} {self.choose('+', '*', '-')} {self.number(0)})",
                           lambda: f"len({self.choose('MODEL.sizes', 'MODEL.parts', _SIZES)})",
                           lambda: f"float({self.integer()})",
                           lambda: "sum(part.rate for part in MODEL.parts)",
                           lambda: f"getattr(MODEL, 'rate', {self.literal()})")()

    def integer(self) -> str:
        return self.choose(*self.integers, *self.integers, "1", "2", "COUNT", "len(MODEL.sizes)", "CFG['sizes'][0]")

    def condition(self) -> str:
        return self.choose(
            lambda: f"{self.scalar()} > {self.number(0)}",
            lambda: f"{self.scalar(0)} < {self.scalar(0)}",
            lambda: f"bool(jg.any({self.vector(1)} > {self.number(0)}))",
            lambda: f"MODE == {self.choose('a', 'b')!r}",
            lambda: "MODEL.flag",
            lambda: f"{self.integer()} % 2 == 0",
            lambda: f"{self.number(0)} < {self.number(0)}",
            lambda: f"not {self.scalar()} > 0 or {self.number(0)} > 0.5",
        )()

    # ---- statements ----

    def assign(self) -> None:
        kind = self.draw.random()
        if kind < 0.65:
            old = [v for v in self.vectors if v[0] == "v"]
            expression = f"jg.{self.choose('tanh', 'sin')}({self.vector(3)})"
            name = self.choose(*old) if old and self.draw.random() < 0.6 else self.fresh("v")
            self.put(f"{name} = {expression}")
            self.keep(self.vectors, name)
        elif kind < 0.85:
            name, expression = self.fresh("s"), self.scalar(2)
            self.put(f"{name} = {expression}")
            self.keep(self.scalars, name)
        else:
            name, expression = self.fresh("p"), self.number(1)
            self.put(f"{name} = {expression}")
            self.keep(self.numbers, name)

    def keep(self, scope: list[str], name: str) -> None:
        if name not in scope:
            scope.append(name)

    def block(self, statements: int) -> None:
        """An indented block, whose names end with it."""
        saved = [list(names) for names in (self.vectors, self.scalars, self.numbers, self.integers)]
        self.depth += 1
        for _ in range(statements):
            self.statement()
        self.depth -= 1
        self.vectors, self.scalars, self.numbers, self.integers = saved

    def branch(self) -> None:
        self.put(f"if {self.condition()}:")
        self.block(self.choose(1, 2))
        if self.draw.random() < 0.3:
            self.put(f"elif {self.condition()}:")
            self.block(1)
        if self.draw.random() < 0.5:
            self.put("else:")
            self.block(1)

    def early(self) -> None:
        self.put(f"if {self.condition()}:")
        self.depth += 1
        self.put(f"return {self.result()}" if self.draw.random() < 0.7
                 else f"raise {self.choose('ValueError', 'KeyError')}({self.choose('early', 'late')!r})")
        self.depth -= 1

    def loop(self) -> None:
        if self.loops >= 2:
            return self.assign()
        self.loops += 1
        name = self.fresh("v")
        self.put(f"{name} = {self.vector(1)}")
        self.keep(self.vectors, name)
        self.choose(self.while_loop, self.for_range, self.for_parts, self.for_pieces, self.for_list)(name)
        self.loops -= 1
        return None

    def while_loop(self, name: str) -> None:
        turns = self.fresh("k")
        self.put(f"{turns} = 0")
        self.put(f"while {turns} < 4 and jg.{self.choose('sum', 'max', 'mean')}({name}) {self.choose('<', '>')} "
                 f"{self.number(0)}:")
        self.put(f"    {turns} += 1")
        self.put(f"    {name} = jg.tanh({self.vector(1)} + {name} * {self.number(0)})")
        if self.draw.random() < 0.3:
            self.put(f"    if {self.condition()}:")
            self.put("        break")
        self.block(self.choose(0, 1))

    def for_range(self, name: str) -> None:
        turn = self.fresh("i")
        self.put(f"for {turn} in range({self.integer()}):")
        self.put(f"    {name} = jg.sin({name} + {turn} * {self.number(0)})")
        self.integers.append(turn)
        self.block(1)
        self.integers.remove(turn)

    def for_parts(self, name: str) -> None:
        self.put("for part in MODEL.parts:")
        self.put(f"    {name} = part({name}) + {self.choose('part.rate', self.vector(1))}")

    def for_pieces(self, name: str) -> None:
        piece = self.fresh("u")
        self.put(f"for {piece} in pieces({name}, {self.integer()}):")
        self.put(f"    {name} = jg.tanh({name} + {piece})")

    def for_list(self, name: str) -> None:
        items = self.fresh("l")
        self.put(f"{items} = [{self.vector(1)}]")
        self.put(f"for w in ({self.vector(1)}, {name}):")
        self.put(f"    {items}.append(jg.sin(w * {self.number(0)}))")
        self.put(f"{name} = jg.{self.choose('sum', 'max', 'mean')}(jg.stack({items}), axis=0)")

    def gradient(self) -> None:
        tape, x, y, g = self.fresh("tape"), self.choose(*self.vectors), self.fresh("y"), self.fresh("g")
        self.put(f"with jg.GradientTape() as {tape}:")
        self.depth += 1
        self.put(f"{tape}.watch({x})")
        inner = self.fresh("w")
        self.put(f"{inner} = {x} * V0 + V1 * {self.number(0)}")
        if self.draw.random() < 0.4:
            self.put(f"if {self.condition()}:")
            self.put(f"    {inner} = {inner} * {self.vector(1)}")
        self.put(f"{y} = jg.sum(jg.sin({inner} * {self.vector(1)}))")
        self.depth -= 1
        self.put(f"{g} = {tape}.gradient({y}, [{x}, V0, V1])")
        self.put(f"{g} = [jg.zeros(()) if q is None else jg.tanh(q) for q in {g}]")
        if self.draw.random() < 0.5:
            self.put(f"V0.assign_sub({self.number(0)} * {g}[1])")
        if self.draw.random() < 0.3:
            self.put(f"V1.assign_add({g}[2] * 0.5)")
        name = self.fresh("v")
        self.put(f"{name} = {g}[0] + {self.vector(1)}")
        self.keep(self.vectors, name)

    def effect(self) -> None:
        options = [lambda: f"V0.assign(jg.tanh({self.vector(2)}))",
                   lambda: f"V0.assign_add({self.number(0)} * jg.sin({self.vector(1)}))",
                   lambda: f"V1.assign(jg.tanh({self.scalar(1)}))",
                   lambda: f"V1.assign_sub({self.number(0)})"]
        if self.counting:
            options += [lambda: "MODEL.count = getattr(MODEL, 'count', 0) + 1"]
        self.put(self.choose(*options)())

    def attempt(self) -> None:
        name = self.fresh("v")
        self.put("try:")
        self.put(f"    {name} = risky({self.vector(1)}, {self.choose(self.scalar(0), self.number(0))})")
        self.put("except ValueError:")
        self.put(f"    {name} = {self.vector(1)}")
        self.keep(self.vectors, name)

    def nested(self) -> None:
        name, made = self.fresh("h"), self.fresh("v")
        local = self.choose(*self.vectors)
        self.put(f"def {name}(q, scale={self.number(0)}):")
        self.put(f"    return jg.sin(q * scale + {local} * {self.number(0)})")
        self.put(f"{made} = {name}({self.vector(1)})")
        self.keep(self.vectors, made)

    def read(self) -> None:
        """A number leaves the machine and comes back."""
        name = self.fresh("p")
        self.put(f"{name} = {self.choose('float(', 'round(2 * float(', '1.0 * int(2 * ')}{self.scalar(0)})")
        self.lines[-1] += ")" * (self.lines[-1].count("(") - self.lines[-1].count(")"))
        self.keep(self.numbers, name)

    def raises(self) -> None:
        name = self.fresh("v")
        self.put(f"{name} = risky({self.vector(1)}, {self.scalar(0)})")
        self.keep(self.vectors, name)

    def count(self) -> None:
        name = self.fresh("v")
        self.put(f"{name} = counted({self.vector(1)})")
        self.keep(self.vectors, name)

    def statement(self) -> None:
        kinds = [(self.assign, 8), (self.branch, 4), (self.early, 1.5 if self.returns else 0), (self.loop, 2), (self.gradient, 1.5),
                 (self.effect, 1.5), (self.attempt, 1), (self.nested, 1), (self.read, 0.5), (self.raises, 0.4),
                 (self.count, 0.5 if self.counting else 0)]
        if self.depth > 3:
            kinds = kinds[:1]
        self.draw.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]()

    def result(self) -> str:
        """Any nest, in which everything in scope counts."""
        whole, scalar = " + ".join([*self.vectors, *self.scalars]), " + ".join([self.scalar(0), *self.numbers])
        one, each = self.choose(*self.vectors), ", ".join(self.vectors)
        return self.choose(f"{whole} + {scalar}", f"({whole}, {scalar})", f"[{scalar}, {one}, {whole}]", f"({each}, {scalar})",
                           f"{{'a': {whole}, 'b': ({scalar}, {self.number(1)}), 'c': None}}",
                           f"({whole}, {self.number(0)}, MODE, [{scalar}])")


def helper(draw: random.Random, name: str, helpers: list[str]) -> list[str]:
    writer = Writer(draw, helpers, counting=False, returns=False)
    writer.vectors = ["x"]
    for _ in range(draw.randint(0, 2)):
        writer.statement()
    return [f"def {name}(x):", *writer.lines, f"    return jg.tanh({' + '.join([*writer.vectors, writer.vector(2)])})", "", ""]


def numbers(draw: random.Random, count: int) -> str:
    return repr([round(draw.uniform(-1.5, 1.5), 2) for _ in range(count)])


def changes(draw: random.Random, dtype: str, body: str) -> str:
    """One change, mostly of what the body reads, from few values, so that old ones come back."""
    value, item = draw.choice([0.5, -0.75, 1.25]), draw.randrange(LENGTH)
    flip, act = draw.choice(["True", "False"]), draw.choice(["tanh", "sin", "cos"])
    options = [
        ("RATE", f"RATE = {value}"), ("COUNT", f"COUNT = {draw.randint(1, 3)}"), ("MODE =", f"MODE = {draw.choice('ab')!r}"),
        ("LIMIT", f"LIMIT = {value}"), ("risky", f"LIMIT = {value}"), ("['j']", f"CFG['k']['j'] = {value}"),
        (_SIZES, f"{_SIZES}.append(1)"), (_SIZES, f"{_SIZES}.reverse()"), (_SIZES, f"del {_SIZES}[1:]"),
        ("CFG['act']", f"CFG['act'] = jg.{act}"), ("CFG", "CFG = dict(CFG)"), ("ARRAY", f"ARRAY[{item}] = {value}"),
        ("ARRAY", f"ARRAY[:] = {numbers(draw, LENGTH)}"), ("y", f"GIVEN[{item}] = {value}"),
        ("V0", f"V0.assign({numbers(draw, LENGTH)})"), ("V0", f"V0 = jg.Variable({numbers(draw, LENGTH)}, dtype={dtype!r})"),
        ("V1", f"V1.assign({value})"), ("MODEL.rate", f"MODEL.rate = {value}"), ("model.rate", f"MODEL.rate = {value}"),
        ("'rate'", f"MODEL.rate = {value}"), ("MODEL.bend", f"MODEL.rate = {value}"), ("MODEL.flag", f"MODEL.flag = {flip}"),
        ("MODEL.sizes", "MODEL.sizes.append(3)"), ("MODEL.sizes", "MODEL.sizes.pop()"), ("MODEL.gain", f"MODEL._gain = {value}"),
        ("MODEL.gain", f"Model.gain = property(lambda self: {value})"), ("MODEL.parts", f"MODEL.parts[0].rate = {value}"),
        ("MODEL.parts", f"MODEL.parts[-1].rate = {value}"), ("MODEL.parts", "MODEL.parts.reverse()"),
        ("MODEL.parts", f"MODEL.parts = [Part({value}), Part(1.0)]"), ("MODEL.parts", f"MODEL.parts.append(Part({value}))"),
        ("MODEL.parts", "del MODEL.parts[2:]"), ("shift", f"Model.shift = {value}"), ("MODEL.shift", f"MODEL.shift = {value}"),
        ("MODEL.bend", f"MODEL.act = jg.{act}"), ("MODEL.bend", f"Model.bend = lambda self, x: x * {value}"),
        ("MODEL", "MODEL = Model()"), ("scaled", f"rescale({value})"), ("scaled", "scaled = closure(2.0)[0]"),
        ("h0(", "h0 = closure(0.5)[0]"), ("h0(", "h0 = MODEL.bend"), ("power(", f"power.__defaults__ = ({draw.randint(1, 3)},)"),
    ]
    read = [change for needle, change in options if needle in body]
    return draw.choice(read) if read and draw.random() < 0.9 else draw.choice(options)[1]


def arguments(draw: random.Random, dtype: str) -> str:
    length = LENGTH if draw.random() < 0.97 else LENGTH + 1        # an error now and then
    first = draw.choice([f"jg.constant({pool(draw, length)}, {dtype!r})"] * 4 + ["V0", "jg.asarray(GIVEN)"])
    second = draw.choice(["GIVEN", "GIVEN", f"jg.constant({pool(draw, LENGTH)}, {dtype!r})"])
    batch = f"{{'u': jg.constant({pool(draw, LENGTH)}, {dtype!r}), 'v': [{draw.choice([0.5, 2.0])}, {draw.choice('ab')!r}]}}"
    return f"{first}, {second}, {draw.choice([0.25, 0.25, -1.5])}, {draw.choice([1, 1, 2])}, {batch}, MODEL"


def pool(draw: random.Random, count: int) -> str:
    return repr([[0.3, -1.2, 0.8, 0.5], [-0.6, 0.4, 1.1, -0.2]][draw.random() < 0.4][:count])


def make(seed: int, calls: int = 8, counting: bool = False) -> Case:
    """The case of a seed. With ``counting`` the function changes what it reads: an attribute, a free variable."""
    draw = random.Random(seed)
    dtype = draw.choice(["float32", "float64"])
    lines = MODULE.format(
        rate=draw.choice([0.5, -0.75]), count=draw.randint(1, 3), limit=draw.choice([0.5, 1.25]), rate2=1.25, shift=0.1,
        array=numbers(draw, LENGTH), array_dtype=dtype, given=numbers(draw, LENGTH), dtype=dtype,
        v0=numbers(draw, LENGTH), v1=round(draw.uniform(-1, 1), 2)).splitlines()
    lines += ["", "", *helper(draw, "h0", []), *helper(draw, "h1", ["h0"])]
    writer = Writer(draw, ["h0", "h1"], counting)
    writer.vectors, writer.numbers, writer.integers = ["x", "y", "batch['u']"], ["p", "batch['v'][0]", "model.rate"], ["n"]
    writer.put("y = jg.asarray(y)")
    for _ in range(draw.randint(2, 5)):
        writer.statement()
    lines += ["def f(x, y, p, n, batch, model):", *writer.lines, f"    return {writer.result()}", ""]
    bodies = "\n".join(lines[lines.index("def h0(x):"):])
    body, made = bodies[0 if "h0(" in "".join(writer.lines) else bodies.index("def f("):], []
    given = [arguments(draw, dtype) for _ in range(3)]       # few, so that calls come back to what was seen
    for n in range(calls):
        change = tuple(changes(draw, dtype, body) for _ in range(draw.choice([0, 1, 1, 2]) if n else 0))
        made.append(Call(change, draw.choice(given)))
    return Case("\n".join(lines), tuple(made))


# ---- running ---------------------------------------------------------------------------------------

def told(value: Any) -> Any:
    """A value as something that is equal when every bit is."""
    if isinstance(value, (jg.Tensor, jg.Variable, np.ndarray, np.generic)):
        array = np.asarray(value)
        kind = type(value).__name__
        return kind, array.dtype.str, array.shape, array.tobytes()
    if isinstance(value, dict):
        return dict, [(key, told(v)) for key, v in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [told(v) for v in value]
    return type(value), struct.pack("d", value) if isinstance(value, float) else repr(value)


def load(case: Case, path: Path) -> dict[str, Any]:
    """The module of a case in a namespace of its own, its source in a real file."""
    if not path.exists():
        path.write_text(case.source)
    namespace: dict[str, Any] = {"__name__": path.stem}
    exec(compile(case.source, str(path), "exec", dont_inherit=True), namespace)
    return namespace


STATE = ("V0", "V1", "ARRAY", "GIVEN")


def run(case: Case, path: Path, wrap: Callable[[Any, dict[str, Any]], Any]) -> list[Any]:
    """For each call: what it returned or raised, and the state it left."""
    namespace = load(case, path)
    function = wrap(namespace["f"], namespace)
    out = []
    for call in case.calls:
        for change in call.changes:
            try:
                exec(change, namespace)
            except IndexError:                   # the list was as short as that already
                pass
        given = eval(f"({call.arguments},)", namespace)
        try:
            result: Any = told(function(*given))
        except Exception as error:               # whatever it is, both ways must raise it
            result = type(error), str(error)
        out.append((result, [told(namespace[name]) for name in STATE], counters(namespace)))
    return out


def counters(namespace: dict[str, Any]) -> tuple[Any, ...]:
    """What a case with counters changes in Python's own objects."""
    return getattr(namespace["MODEL"], "count", None), namespace["counted"].__closure__[0].cell_contents
