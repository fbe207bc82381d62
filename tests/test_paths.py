"""Which names and attributes a recording relied on: paths read from bytecode, and the Facts they become."""

from __future__ import annotations

import contextlib
import cProfile
import gc
import importlib
import math
import sys
import types
import weakref

import numpy as np
import pytest

import jitgrad as jg
from jitgrad.frontend import watching
from jitgrad.frontend.facts import Absent, Global, describe, holds, meets
from jitgrad.frontend.paths import ARGUMENT, ATTRIBUTE, FREE, GLOBAL, LOOSE, paths_of
from jitgrad.frontend.watching import TooManyFacts, Watch

ROOTS = {GLOBAL: "", FREE: "free ", ARGUMENT: "arg ", LOOSE: "?"}


def shown(function):
    """The paths of a function as text."""
    return {ROOTS[p.root] + p.name + "".join(f".{s.key}" if s.kind == 0 else f"[{s.key!r}]" for s in p.steps)
            for p in paths_of(function.__code__)}


def module(source, name="user_module"):
    """A module of a user's, made from source."""
    made = types.ModuleType(name)
    exec(compile(source, f"/home/user/{name}.py", "exec", dont_inherit=True), vars(made))
    return made


def watched(function, *args):
    with Watch(function) as watch, contextlib.suppress(ArithmeticError):
        function(*args)
    return watch.facts()


def as_python_reads(fact):
    """Whether what Python's own reading finds is what was expected: functions check Facts by it at entry."""
    value = fact.root.value()
    try:
        for step in fact.steps:
            value = getattr(value, step.key) if step.kind == ATTRIBUTE else value[step.key]
    except (AttributeError, LookupError):
        return type(fact.expected) is Absent
    return meets(fact.expected, value)


def broken(facts):
    """What an error would name."""
    return {describe(fact) for fact in facts if not holds(fact)}


X = jg.constant(2.0)


# ---- bytecode ------------------------------------------------------------------------------------

CHAINS = {
    "self.rate": {"arg self.rate"},
    "self.a.b.c": {"arg self.a.b.c"},
    "self.a(x)": {"arg self.a", "arg x"},
    "self.a.m(x, self.b)": {"arg self.a.m", "arg x", "arg self.b"},
    'cfg["k"]["j"]': {"arg cfg['k']['j']"},
    'cfg["k"].y[0][-1][1000]': {"arg cfg['k'].y[0][-1][1000]"},
    "cfg[(1, 'a')]": {"arg cfg[(1, 'a')]"},
    "cfg[x]": {"arg cfg", "arg x"},
    "cfg[x].y": {"arg cfg", "arg x", "?.y"},
    "cfg[x.i].y": {"arg cfg", "arg x.i", "?.y"},
    "cfg[1:3].y": {"arg cfg", "?.y"},
    "g(x).y['k']": {"g", "arg x", "?.y['k']"},
    "np.linalg.norm(x)": {"np.linalg.norm", "arg x"},
    "((self.a if x else self.b).y + x.i) * (x.j + x.k) * x.l": {
        "arg self.a", "arg self.b", "?.y", "arg x.i", "arg x.j", "arg x.k", "arg x.l"},
    "(self.a or self.b).y": {"arg self.a", "arg self.b", "?.y"},
    "(self.a, 'k')": {"arg self.a"},
    "self.a + cfg['k'] * x.y": {"arg self.a", "arg cfg['k']", "arg x.y"},
    "f'{self.a:{x.y}}'": {"arg self.a", "arg x.y"},
    "'a'.join(x.y)": {"?.join", "arg x.y"},
    "[q * self.a for q in x]": {"arg self.a", "arg x"},
    "[q.u for q in self.list if q]": {"arg self.list", "?.u"},
    "{k: v.u for k, v in cfg['k'].items()}": {"arg cfg['k'].items", "?.u"},
    "sum(q * g for q in x)": {"sum", "arg x"},
    "(lambda y: y * self.a)": {"arg self.a"},
    "(lambda self: self.a)": set(),
    "getattr(self.a, 'rate', 2) + hasattr(cfg, 'k')": {
        "getattr", "hasattr", "arg self.a", "arg self.a.rate", "arg cfg", "arg cfg.k", "?.rate", "?.k"},
    "(yield self.a)": {"arg self.a"},
    "self.a @ x if x.y > 0 else -self.b.c": {"arg self.a", "arg x", "arg x.y", "arg self.b.c"},
}


@pytest.mark.parametrize("chain", CHAINS)
def test_chains(chain):
    made = module(f"def f(self, cfg, x, *args, k=1, **more):\n    return {chain}\n").f
    inside = {path for code in made.__code__.co_consts if isinstance(code, types.CodeType)     # until 3.12
              for path in shown(types.SimpleNamespace(__code__=code)) if path.startswith("?")}
    assert (shown(made) | inside) - {"arg self", "arg x"} == CHAINS[chain] - {"arg self", "arg x"}


STATEMENTS = {
    "self.last = x\n return self.last.y + self.other": {"arg self.other"},
    "y = self.last\n self.last = x\n return self.last": {"arg self.last"},
    "if x:\n  self.last = x\n return self.last": {"arg self.last"},
    "while x:\n  y = self.last\n  self.last = x": {"arg self.last"},
    "try:\n  self.last = x\n finally:\n  y = self.last": {"arg self.last"},
    "self.n += 1": {"arg self.n"},
    "cfg['k'] += 1": {"arg cfg['k']"},
    "cfg['k'] = 1\n return cfg['k'], cfg['j']": {"arg cfg['j']"},
    "cfg.a.b = 1": set(),
    "cfg.a[x] = 1": set(),
    "del cfg.a.b": set(),
    "cfg = 1\n return cfg.a": {"?.a"},
    "for cfg in x: y = cfg.a": {"?.a"},
    "del cfg": set(),
    "with cfg.a as y: return y.b": {"arg cfg.a", "?.b"},
    "def g():\n  nonlocal cfg\n  cfg = 1\n return cfg.a": {"?.a"},
    "def g():\n  return cfg.a + self.b\n return g": {"arg cfg.a", "arg self.b"},
    "c = cfg.a\n return c.b": {"arg cfg.a", "?.b"},
    "global G\n G = 1\n return G": set(),
    "global G\n G += 1\n return G": {"G"},
    "return args[0].a, more['m'].a, k.a": {"arg args[0].a", "arg more['m'].a", "arg k.a"},
    "class C:\n  y = cfg.a\n  z = y.b": {"arg cfg.a"},
}


@pytest.mark.parametrize("body", STATEMENTS)
def test_statements(body):
    made = module(f"def f(self, cfg, x, *args, k=1, **more):\n {body}\n")
    assert {p for p in shown(made.f) if "." in p or "[" in p or p == "G"} == STATEMENTS[body]


def test_free_variables_of_the_function_and_of_functions_inside_it():
    made = module("def make(scale, cfg):\n"
                  "  def f(x):\n    local = x\n    return (lambda y: y * scale * local) , [cfg.rate for _ in x]\n"
                  "  return f\n").make(1, 2)
    assert {p for p in shown(made) if p.startswith("free")} - {"free cfg"} == {"free scale", "free cfg.rate"}


def test_paths_are_remembered_as_long_as_their_code_lives():
    code = compile("x.y", "<user>", "eval")
    assert paths_of(code) is paths_of(code)
    from jitgrad.frontend import paths
    key = id(code)
    assert key in paths._memo
    del code
    assert key not in paths._memo


# ---- changes that a replay must notice -----------------------------------------------------------

CONFIG = """
import functools, dataclasses, math
import numpy as np
import jitgrad as jg
rate = 0.5
cfg = {"k": {"j": 2.0}, "other": 1, "sizes": [1, [2, 3]]}
names = {"a", "b"}
big = {i: float(i) for i in range(1000)}
big["obj"] = None
weight = jg.Variable(3.0)

@dataclasses.dataclass
class Settings:
    rate: float = 0.5
    deep: object = None

settings = Settings(deep=Settings(0.25))

class Slotted:
    __slots__ = ("rate",)
slotted = Slotted()
slotted.rate = 2.0

def helper(x, extra=1.0, *, more=0.0):
    return x * rate + extra + more

def scaled(scale):
    def times(x):
        return helper(x) * scale
    return times

twice, thrice = scaled(2.0), scaled(3.0)
part = functools.partial(helper, extra=2.0)

def logged(function):
    @functools.wraps(function)
    def run(*args):
        return function(*args)
    return run

@logged
def decorated(x):
    return x * cfg["k"]["j"]

cached_value = 1.5
def shift(x):
    return x + cached_value

class Model:
    bias = 1.0
    def __init__(self):
        self.w, self.layers, self.act, self.opts = jg.Variable(1.0), [Layer(0.1), Layer(0.2)], shift, {"p": 2.0}
        self.settings, self._rate, self.calls = Settings(), 0.75, 0
    @property
    def rate(self):
        return self._rate
    @property
    def chosen(self):
        return self.settings
    @classmethod
    def made(cls, x):
        return x + cls.bias
    @staticmethod
    def plain(x):
        return x + rate
    def __call__(self, x):
        return self.forward(x)
    def forward(self, x):
        for layer in self.layers:
            x = layer(x) * layer.gain
        return x
    def __matmul__(self, x):
        return x * self.bias
    def generate(self, x):
        for n in self.opts["sizes"] if "sizes" in self.opts else [1, 2]:
            yield x * n * self.bias

class Layer:
    def __init__(self, scale):
        self.scale, self.gain = scale, 1.0
    def __call__(self, x):
        return x * self.scale

class Deep(Model):
    def forward(self, x):
        return super().forward(x) * self.rate

model, deep = Model(), Deep()

def recurse(x, n):
    return x * rate if n == 0 else recurse(x, n - 1)

def counted(x):
    global rate
    rate = rate + 1
    return x * rate
"""

CASES = {      # expression of x, what is changed, what an error would name
    "x * rate": ("m.rate = 0.25", "the global `rate` of user_module"),
    "helper(x)": ("m.rate = -0.5", "the global `rate` of user_module"),
    "x + len(names)": ("m.names.add('c')", "the global `names` of user_module"),
    "x * abs(-1)": ("m.abs = lambda v: 7", "the global `abs` of user_module"),
    "x * cfg['k']['j']": ("m.cfg['k']['j'] = 3.0", "the global `cfg['k']['j']` of user_module"),
    "x + len(cfg['sizes'])": ("m.cfg['sizes'][1].append(4)", "the global `cfg['sizes']` of user_module"),
    "x + len(cfg)": ("m.cfg['new'] = 4", "the global `cfg` of user_module"),
    "x + sum(c for c in cfg['sizes'][1])": ("m.cfg['sizes'][1].reverse()", "the global `cfg['sizes'][1]` of user_module"),
    "x * big[7]": ("m.big[7] = 1.0", "the global `big[7]` of user_module"),
    "(lambda d: x * d[8])(big)": ("m.big[8] = 1.0", "`<dict>[8]`"),
    "x * settings.rate": ("m.settings.rate = 1.0", "the global `settings.rate` of user_module"),
    "x * settings.deep.rate": ("m.settings.deep = m.Settings(9.0)", "the global `settings.deep.rate` of user_module"),
    "x * slotted.rate": ("m.slotted.rate = 1.0", "the global `slotted.rate` of user_module"),
    "weight * x": ("m.weight = jg.Variable(3.0)", "the global `weight` of user_module"),
    "twice(x)": ("m.twice.__closure__[0].cell_contents = 2", "the free variable `scale`"),
    "part(x)": ("m.part.keywords['extra'] = 3.0", "`<partial>.keywords`"),
    "part(x) ": ("m.rate = 3.0", "the global `rate` of user_module"),
    "helper(x) ": ("m.helper.__defaults__ = (5.0,)", "`helper.__defaults__`"),
    "helper(x)  ": ("m.helper.__kwdefaults__['more'] = 5.0", "`helper.__kwdefaults__`"),
    "helper(x)   ": ("m.helper.__code__ = m.shift.__code__", "the code of `helper`"),
    "decorated(x)": ("m.cfg['k']['j'] = 2", "the global `cfg['k']['j']` of user_module"),
    "decorated(x) ": ("m.decorated.__closure__[0].cell_contents = m.shift", "the free variable `function`"),
    "[shift, helper][0](x)": ("m.cached_value = 2.5", "the global `cached_value` of user_module"),
    "model(x)": ("m.model.layers[1].scale = 0.3", "`self.scale`"),
    "model(x) ": ("m.model.layers[0].gain = 0.3", "`self.gain`"),
    "model(x)  ": ("m.model.layers.append(m.Layer(1.0))", "`self.layers`"),
    "model(x)   ": ("m.Model.forward = m.Deep.forward", "`self.forward`"),
    "model(x)    ": ("m.Model.__call__ = lambda self, x: x", "`Model.__call__`"),
    "model.forward(x)": ("m.model.forward = m.shift", "the global `model.forward` of user_module"),
    "deep(x)": ("m.Model.forward = lambda self, x: x", "`Model.forward`"),
    "deep(x) ": ("del m.Deep.forward", "`Deep.forward`"),
    "deep(x)  ": ("m.deep.__class__ = m.Model", "`self.__class__`"),
    "x * model.rate": ("m.model._rate = 0.5", "`self._rate`"),
    "x * model.rate ": ("m.Model.rate = property(lambda self: 8.0)", "`Model.rate`"),
    "x * model.chosen.rate": ("m.model.settings.rate = 0.6", "`<Settings>.rate`"),
    "x * model.bias": ("m.model.bias = 1.5", "the global `model.bias` of user_module"),
    "x * model.bias ": ("m.Model.bias = 1.5", "the global `model.bias` of user_module"),
    "model.made(x)": ("m.Model.bias = 1.5", "`cls.bias`"),
    "model.plain(x)": ("m.rate = 1.5", "the global `rate` of user_module"),
    "model @ x": ("m.Model.bias = 2.0", "`self.bias`"),
    "model.act(x)": ("m.model.act = m.helper", "the global `model.act` of user_module"),
    "x * getattr(model, '_rate')": ("m.model._rate = 0.5", "`<Model>._rate`"),
    "sum(model.generate(x))": ("m.Model.bias = 2.0", "`self.bias`"),
    "recurse(x, 3)": ("m.rate = 2.0", "the global `rate` of user_module"),
    "[q * rate for q in [x]][0]": ("m.rate = 2.0", "the global `rate` of user_module"),
    "(lambda y: y * model._rate)(x)": ("m.model._rate = 2.0", "the global `model._rate` of user_module"),
    "max([x, x * 2], key=lambda v: float(v) * settings.rate)": ("m.settings.rate = -1.0", "the global `settings.rate` of user_module"),
    "list(map(shift, [x]))[0]": ("m.cached_value = 0.0", "the global `cached_value` of user_module"),
    "counted(x)": ("pass", "the global `rate` of user_module"),
}


@pytest.mark.parametrize("expression", CASES)
def test_a_change_is_noticed(expression):
    change, name = CASES[expression]
    made = module(CONFIG + f"\ndef f(x):\n    return {expression.strip()}\n")
    facts = watched(made.f, X)
    assert change == "pass" or not broken(facts) and all(map(as_python_reads, facts))
    exec(change, {"m": made, "jg": jg})
    assert name in broken(facts)


def test_arguments_that_are_objects_are_roots_and_numbers_and_nests_are_not():
    made = module(CONFIG + "\ndef f(x, n, model, batch):\n    return model(x) * n * batch['x'] * batch['cfg'].rate\n")
    made.part = None
    facts = watched(made.f, X, 3.0, made.model, {"x": X, "cfg": made.settings})
    assert not broken(facts)
    made.settings.rate = 1.0
    made.model.layers[0].scale = 1.0
    assert broken(facts) == {"`<Settings>.rate`", "`self.scale`"}


def test_only_what_ran_counts():
    made = module(CONFIG + "\ndef f(x):\n    return x * settings.rate if x > 0 else shift(x)\n")
    facts = watched(made.f, X)
    made.cfg["k"] = made.thrice = made.big = None
    made.cached_value = 7.0                       # read by a function that did not run
    made.settings.deep = 5
    assert not broken(facts)


@pytest.mark.parametrize("value, same, other", [
    (0.0, 0.0, -0.0), (math.nan, math.nan, 0.0), (1, 1, True), (1, 1, 1.0), ("a", "a", "b"), (None, None, 0),
    ((1, (2.0, "x")), (1, (2.0, "x")), (1, (2, "x"))), ([1, 2], [1, 2], (1, 2)), ({"a": 1, "b": 2}, {"a": 1, "b": 2}, {"b": 2, "a": 1}),
    (b"x", b"x", "x"), (1j, 1j, 0j), ({1, 2}, {2, 1}, {1}), (10**30, 10**30, 10**30 + 1), ([1, [2]], [1, [2]], [1, [3]]),
])
def test_what_counts_as_the_same(value, same, other):
    made = module("def f(x):\n    return x if value is None else x\n")
    made.value = value
    facts = watched(made.f, X)
    made.value = same
    assert not broken(facts)
    made.value = other
    assert broken(facts) == {"the global `value` of user_module"}


def test_objects_are_the_same_by_identity():
    for value, equal in [(X, jg.constant(2.0)), (np.ones(2), np.ones(2)), (jg.Variable(1.0), jg.Variable(1.0)),
                         (object(), object()), ([X], [jg.constant(2.0)])]:
        made = module("def f(x):\n    return value\n")
        made.value = value
        facts = watched(made.f, X)
        assert not broken(facts)
        made.value = equal
        assert broken(facts)


def test_a_name_that_appears_and_goes():
    made = module("def f(x):\n    try:\n        return missing\n    except NameError:\n        return len([x])\n")
    facts = watched(made.f, X)
    assert not broken(facts) and not any("missing" in describe(fact) for fact in facts)
    made.len = lambda items: 5
    assert broken(facts) == {"the global `len` of user_module"}
    shadowed = watched(made.f, X)
    assert not broken(shadowed)
    del made.len
    assert broken(shadowed) == {"the global `len` of user_module"} and not broken(facts)


def test_an_attribute_or_item_that_was_not_there():
    made = module(CONFIG + "\ndef f(x):\n    if not hasattr(model, 'made'):\n        model.made = x\n"
                           "    try:\n        return x * cfg['rate'] * sizes[3]\n    except KeyError:\n        return x * settings.late\n"
                           "sizes = [1.0, 2.0, 3.0]\nSettings.__getattr__ = lambda self, name: 3.0\n"
                           "del Model.made\n")
    facts = watched(made.f, X)
    assert broken(facts) == {"the global `model.made` of user_module"}     # which the function itself made
    made.cfg["rate"] = 0.5
    made.sizes.append(4.0)
    assert broken(facts) == {f"the global `{name}` of user_module" for name in ("model.made", "cfg['rate']", "sizes[3]")}
    facts = watched(made.f, X)
    assert not broken(facts)
    del made.cfg["rate"]
    assert broken(facts) == {"the global `cfg['rate']` of user_module"}


def test_a_deleted_attribute_and_a_deleted_global():
    made = module(CONFIG + "\ndef f(x):\n    return x * settings.rate * rate\n")
    facts = watched(made.f, X)
    made.settings.__dict__.pop("rate")
    assert not broken(facts) - {"the global `settings.rate` of user_module"}       # the class has the default 0.5
    del made.Settings.rate, made.rate
    assert broken(facts) == {"the global `settings.rate` of user_module", "the global `rate` of user_module"}


def test_a_reloaded_module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "reloaded_settings.py").write_text("rate = 0.5\ndef act(x):\n    return x * rate\n")
    settings = importlib.import_module("reloaded_settings")
    made = module("import reloaded_settings\ndef f(x):\n    return reloaded_settings.act(x)\n")
    facts = watched(made.f, X)
    assert not broken(facts)
    (tmp_path / "reloaded_settings.py").write_text("rate = 1.25\ndef act(x):\n    return x * rate\n")
    importlib.reload(settings)
    assert "the global `reloaded_settings.act` of user_module" in broken(facts)
    assert "the global `rate` of reloaded_settings" in broken(facts)
    del sys.modules["reloaded_settings"]


# ---- values and functions of the recording itself --------------------------------------------------

def test_what_the_recording_makes_leaves_no_facts():
    made = module(CONFIG + "\ndef f(x):\n    scale = 2.0\n    def inner(y):\n        return y * scale * local.rate\n"
                           "    local = Settings(3.0)\n    return inner(x), local, Layer(2.0)(x)\n")
    with Watch(made.f) as watch:
        kept = made.f(X)
    named = [describe(fact) for fact in watch.facts()]
    assert kept[1].rate == 3.0 and not any("scale" in name or "local" in name or name == "`self.rate`" for name in named)


def test_older_objects_inside_those_that_the_recording_makes():
    made = module(CONFIG + "\nclass State:\n    def __init__(self, settings):\n        self.settings = settings\n"
                           "    def rate(self):\n        return self.settings.rate\n"
                           "def f(x):\n    return x * State(settings).rate() + State(other).settings.rate\nother = Settings()\n")
    facts = watched(made.f, X)
    assert not broken(facts)
    made.settings.rate = made.other.rate = 4.0
    assert broken(facts) == {"`settings.rate`"} and sum(not holds(fact) for fact in facts) == 2


def test_objects_in_a_long_list():
    made = module(CONFIG + "\nparts = [Layer(float(i)) for i in range(500)]\ndef f(x):\n    return sum(part.gain for part in parts)\n")
    facts = watched(made.f, X)
    made.parts[400].gain = 2.0
    assert broken(facts) == {"`<Layer>.gain`"}


def test_evaluated_text_is_watched():
    made = module("rate = 2.0\ndef f(x):\n    return eval('x * rate', globals(), {'x': x})\n")
    facts = watched(made.f, X)
    made.rate = 3.0
    assert broken(facts) == {"the global `rate` of user_module"}


def test_facts_hold_objects_weakly():
    made = module(CONFIG + "\ndef f(model, x):\n    return model(x)\n")
    other = made.Model()
    facts = watched(made.f, other, X)
    gone = weakref.ref(other)
    del other
    gc.collect()
    assert gone() is None and not broken(facts)


def test_a_nonlocal_counter_asks_for_another_recording():
    made = module("def make():\n    n = 0\n    def f(x):\n        nonlocal n\n        n += 1\n        return x * n\n    return f\n").make()
    assert broken(watched(made, X)) == {"the free variable `n`"}


def test_attributes_written_before_they_are_read_are_no_facts():
    made = module("class M:\n    last = None\n    def step(self, x):\n        self.last = x * 2\n        return self.last + 1\n")
    model = made.M()
    assert not broken(watched(model.step, X))


def test_no_code_of_a_user_runs_when_facts_are_found_or_read():
    made = module("""
class Loud:
    ran = 0
    def __getattr__(self, name):
        Loud.ran += 1
        raise AttributeError(name)
    @property
    def live(self):
        Loud.ran += 1
        return 1
    @property
    def __class__(self):
        Loud.ran += 1
        return dict
    def __eq__(self, other):
        Loud.ran += 1
        return True
    __hash__ = None
loud = Loud()
holder = [loud]
def f(x, never):
    return x if not never else loud.live + loud.other + holder[0].live + sum(holder)
""")
    facts = watched(made.f, X, False)
    assert not broken(facts) and len(facts) > 2 and made.Loud.ran == 0


def test_trusted_modules_give_one_fact():
    made = module("import jitgrad as jg, numpy as np, math\ndef f(x):\n    return jg.sin(x) + np.linalg.norm([1.0]) * math.pi + jg.random.normal(()) * 0\n")
    assert sorted(describe(fact) for fact in watched(made.f, X)) == sorted(
        ["the code of `f`", *(f"the global `{name}` of user_module" for name in ("jg", "np", "math"))])


def test_a_module_that_goes_by_the_name_of_a_trusted_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    (tmp_path / "colorsys.py").write_text("rate = 0.5\nclass Act:\n    rate = 1.0\n    def __call__(self, x):\n        return x * self.rate\n")
    shadow = importlib.import_module("colorsys")
    made = module("import colorsys\nact = colorsys.Act()\ndef f(x):\n    return act(x) * colorsys.rate\n")
    facts = watched(made.f, X)
    shadow.rate, shadow.Act.rate = 1.0, 2.0
    assert broken(facts) == {"the global `colorsys.rate` of user_module", "`self.rate`"}
    del sys.modules["colorsys"]


def test_tensors_need_no_facts_beyond_themselves():
    made = module(CONFIG + "\ndef f(x):\n    return x.shape[0] + weight.shape[0] + len(weight.name)\n")
    made.weight = jg.Variable([1.0, 2.0], name="w")
    facts = watched(made.f, jg.ones(2))
    assert sorted(describe(fact) for fact in facts) == ["the code of `f`", "the global `len` of user_module",
                                                        "the global `weight` of user_module"]


def test_objects_with_a_version_are_told():
    made = module("import jitgrad as jg\nclass Scale(jg.nn.Layer):\n    def call(self, x):\n        return self.inner(x) * self.rate\n"
                  "layer, sgd = Scale(), jg.nn.optimizers.SGD()\nlayer.rate, layer.inner = 2.0, jg.nn.layers.Dense(2)\n"
                  "def f(x):\n    with jg.GradientTape() as tape:\n        y = jg.sum(layer(x))\n"
                  "    w = layer.trainable_variables\n    sgd.apply_gradients(zip(tape.gradient(y, w), w))\n")
    with Watch(made.f) as watch:
        made.f(jg.ones((2, 2)))
    facts = watch.facts()
    assert {id(v) for v in watch.versioned} >= {id(made.layer), id(made.layer.inner), id(made.sgd)}
    assert not broken(facts)
    made.layer.rate = 3.0
    assert broken(facts) == {"`self.rate`"}


def test_too_many_facts(monkeypatch):
    monkeypatch.setattr(watching, "MOST_FACTS", 3)
    made = module(CONFIG + "\ndef f(x):\n    return model(x)\n")
    with Watch(made.f) as watch:
        made.f(X)
    with pytest.raises(TooManyFacts, match="more than 3"):
        watch.facts()


def test_facts_are_merged_and_in_order():
    made = module(CONFIG + "\ndef f(x):\n    for _ in range(100):\n        x = helper(x) * rate + model(x)\n    return x\n")
    first, second = ([describe(fact) for fact in watched(made.f, X)] for _ in range(2))
    assert first == second and len({*first}) > len(first) * 0.8
    names = [name for name in first if name.startswith("the global")]
    assert len(names) == len({*names})


def test_generators_that_started_before():
    made = module("rate = 2.0\ndef gen(x):\n    while True:\n        yield x * rate\ndef f(g):\n    return next(g)\n")
    made.next = next
    running = made.gen(X)
    next(running)
    facts = watched(made.f, running)
    made.rate = 3.0
    assert broken(facts) == {"the global `rate` of user_module"}


def test_a_closure_that_no_path_leads_to_is_found():
    made = module(CONFIG + "\nbox = iter([scaled(4.0)])\ndef f(x):\n    return next(box)(x)\n")
    function = module(CONFIG).scaled(5.0)
    made.box = iter([function])
    facts = watched(made.f, X)
    function.__closure__[0].cell_contents = 6.0
    assert "the free variable `scale`" in broken(facts)


# ---- profilers -------------------------------------------------------------------------------------

def test_a_profile_function_survives_and_is_called():
    made, seen = module(CONFIG + "\ndef f(x):\n    return helper(x)\n"), []

    def profile(frame, event, arg):
        seen.append((event, frame.f_code.co_name))

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        facts = watched(made.f, X)
        still = sys.getprofile()
    finally:
        sys.setprofile(before)
    assert still is profile and ("call", "helper") in seen and ("return", "helper") in seen
    assert any(describe(fact) == "the global `rate` of user_module" for fact in facts)


def test_a_trace_function_survives():
    made, seen = module(CONFIG + "\ndef f(x):\n    return helper(x)\n"), []

    def trace(frame, event, arg):
        seen.append(frame.f_code.co_name)
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        watched(made.f, X)
        still = sys.gettrace()
    finally:
        sys.settrace(before)
    assert still is trace and "helper" in seen


def test_cprofile_goes_on_afterwards():
    made, profiler = module(CONFIG + "\ndef f(x):\n    return helper(x)\n"), cProfile.Profile()
    with profiler:
        facts = watched(made.f, X)
        made.shift(X)
    profiled = {entry.code.co_name for entry in profiler.getstats() if not isinstance(entry.code, str)}
    assert "shift" in profiled and any("rate" in describe(fact) for fact in facts)


def test_watches_nest_and_end_with_exceptions():
    made = module(CONFIG + "\ndef f(x):\n    return helper(x)\n")

    def outer(x):
        inner.extend(watched(made.f, x))
        return made.shift(x)

    inner, before = [], sys.getprofile()
    with Watch(outer) as watch:
        outer(X)
    assert {describe(fact) for fact in inner} <= {describe(fact) for fact in watch.facts()} and inner
    with pytest.raises(ZeroDivisionError), Watch(made.f):
        made.f(X * (1 / 0))
    assert sys.getprofile() is before


def test_a_profile_function_set_inside_stays():
    def profile(frame, event, arg):
        pass

    before = sys.getprofile()
    try:
        with Watch(None):
            sys.setprofile(profile)
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(before)


def test_global_roots_tell_where_they_were_found():
    made = module("rate = 1.0\ndef f(x):\n    return x * rate + len([])\n")
    roots = {fact.root.name: fact.root.name in fact.root.namespace for fact in watched(made.f, X)
             if isinstance(fact.root, Global)}
    assert roots == {"rate": True, "len": False}


def test_properties_cached_by_functools_and_dataclass_fields():
    made = module("import functools, dataclasses\nbase = 2.0\nclass M:\n    @functools.cached_property\n    def once(self):\n"
                  "        return base\n    @functools.lru_cache\n    def cached(self):\n        return base * 2\n"
                  "@dataclasses.dataclass(frozen=True, slots=True)\nclass C:\n    rate: float = 1.0\n"
                  "m, c = M(), C()\ndef f(x):\n    return x * m.once * m.cached() * c.rate\n")
    facts = watched(made.f, X)
    made.base = 3.0
    assert "the global `base` of user_module" in broken(facts)
    object.__setattr__(made.c, "rate", 2.0)
    assert "the global `c.rate` of user_module" in broken(facts)


def test_partials_of_partials():
    made = module(CONFIG + "\ndeep_part = functools.partial(functools.partial(helper, more=1.0), extra=2.0)\ndef f(x):\n    return deep_part(x)\n")
    facts = watched(made.f, X)
    assert not broken(facts)
    made.rate = 9.0
    assert broken(facts) == {"the global `rate` of user_module"}
