"""Random functions under changes of what they read: a replay must do what plain Python does, bit for bit."""

from __future__ import annotations

import pytest

import jitgrad as jg
import random_functions
from jitgrad.frontend.facts import describe, holds
from jitgrad.frontend.watching import Watch
from random_functions import counters, load, make, run, told

SEEDS = range(300)
STATEMENTS = ("if ", "elif ", "else:", "while ", "break", "for i", "for part", "for u", "for w", "return ", "raise ", "try:",
              "with jg.GradientTape", ".assign(", ".assign_add(", ".assign_sub(", "def h", "lambda", "float(", "risky(",
              "slope(", "power(", "MODEL.gain", "model.rate", "getattr(", "jg.asarray(ARRAY)", "CFG['act']", "scaled(")


def plain(function, namespace):
    return function


def data(args, namespace):
    """The numbers that a call reads: those of the arguments, of the Variables and of the arrays."""
    return [told(args[:-1]), [told(namespace[name]) for name in random_functions.STATE]]


class Restoring:
    """Gives the Variables their values back after each call, so that calls on the same numbers come often."""

    def __init__(self, function, namespace):
        self.function, self.namespace = function, namespace

    def __call__(self, *args):
        variables = [(v, v.numpy().copy()) for v in (self.namespace["V0"], self.namespace["V1"])]
        try:
            return self.called(*args)
        finally:
            for v, value in variables:
                v.assign(value)

    def called(self, *args):
        return self.function(*args)


class Remembering(Restoring):
    """Compares each call with earlier ones on the same numbers whose Facts all hold: it must do what they did, and
    nothing to Python's own objects."""

    def __init__(self, function, namespace):
        super().__init__(function, namespace)
        self.calls, self.hits = [], 0

    def called(self, *args):
        before = data(args, self.namespace)
        kept = args[-1], args[0] if type(args[0]) is jg.Variable else None
        like = [(facts, did) for seen, objects, facts, did in self.calls
                if seen == before and all(a is b for a, b in zip(objects, kept, strict=True)) and all(map(holds, facts))]
        out, raised, counted = None, None, counters(self.namespace)
        with Watch(self.function) as watch:
            try:
                out = self.function(*args)
            except Exception as error:
                raised = error
        did = told(out), repr(raised), data(args, self.namespace)[1]
        for facts, earlier in like:
            self.hits += 1
            assert earlier == did and counted == counters(self.namespace), "these hold: " + ", ".join(map(describe, facts))
        self.calls.append((before, kept, watch.facts(), did))
        if raised is not None:
            raise raised
        return out


def test_a_seed_says_everything(tmp_path):
    for seed in range(20):
        case = make(seed)
        assert make(seed) == case != make(seed + 1)
        path = tmp_path / f"case_{seed}.py"
        assert run(case, path, plain) == run(case, path, plain)


def test_the_cases_hold_what_users_write_and_the_changes_matter(tmp_path):
    """Else the tests below would show nothing: every statement occurs, and without the changes most results differ."""
    bodies, raised, calls, wrong = [], 0, 0, 0
    for seed in SEEDS:
        case, path = make(seed), tmp_path / f"case_{seed}.py"
        bodies.append(case.source[case.source.index("def h0"):])
        done = [out for out, _, _ in run(case, path, plain)]
        unchanged = case._replace(calls=tuple(call._replace(changes=()) for call in case.calls))
        wrong += done != [out for out, _, _ in run(unchanged, path, plain)]
        raised += sum(isinstance(out[0], type) and issubclass(out[0], Exception) for out in done)
        calls += len(done)
    assert not [s for s in STATEMENTS if sum(s in body for body in bodies) < 5]
    assert 0.02 < raised / calls < 0.2 and wrong > 0.8 * len(SEEDS)


@pytest.mark.parametrize("counting", [False, True])
def test_where_all_facts_hold_a_function_does_the_same(tmp_path, counting):
    hits, calls = 0, 0
    for seed in SEEDS:
        case, made = make(seed, counting=counting), []

        def remember(function, namespace, made=made):
            made.append(Remembering(function, namespace))
            return made[0]

        path = tmp_path / f"case_{seed}.py"
        assert run(case, path, remember) == run(case, path, Restoring)
        hits, calls = hits + made[0].hits, calls + len(case.calls)
    assert hits > 0.1 * calls


@pytest.mark.parametrize("seed", SEEDS)
def test_a_function_does_what_plain_python_does(tmp_path, seed):
    case = make(seed)
    path = tmp_path / f"case_{seed}.py"
    expected = run(case, path, plain)
    done = run(case, path, lambda function, namespace: jg.function(function))
    for n, (here, there) in enumerate(zip(done, expected, strict=True)):
        assert here == there, f"call {n}: {case.calls[n]}"
    assert load(case, path)["f"].__code__.co_filename == str(path)
