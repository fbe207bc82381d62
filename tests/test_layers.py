"""The house keeps its order: layers, sizes, one list of op names, documented names whose examples run."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import jitgrad as jg
from jitgrad.core.primitive import BY_NAME
from jitgrad.ops import scalar

PACKAGE = Path(jg.__file__).parent
ORDER = ["core", "ops", "transform", "plan", "execute", "frontend", "nn", "interop"]
BELOW_ALL = {"config", "_version"}
SIDE = {"random": "ops", "linalg": "ops", "testing": "interop", "demo": "interop", "__main__": "interop",
        "commands": "interop"}     # files at the top, by layer
MOST_LINES = 450
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def layer_of(module: str) -> int | None:
    """Where a module stands in the order; None for one that any layer may import, len(ORDER) for the package itself."""
    parts = module.split(".")[1:]
    if not parts or not {SIDE.get(parts[0], parts[0])} & {*ORDER, *BELOW_ALL}:
        return len(ORDER)                # a name of the public API
    if parts[0] in BELOW_ALL:
        return None
    return ORDER.index(SIDE.get(parts[0], parts[0]))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything a file imports, wherever the statement stands."""
    package = ["jitgrad", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            whole = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{whole}.{alias.name}"
                yield node.lineno, inner if whole == "jitgrad" else whole


def test_layers_import_only_what_stands_before_them() -> None:
    wrong = []
    for path in FILES:
        top = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if top in ("__init__", *BELOW_ALL):
            continue
        mine = ORDER.index(SIDE.get(top, top))
        for line, module in imported(path):
            if module == "jitgrad" or module.startswith("jitgrad."):
                theirs = layer_of(module)
                if theirs is not None and theirs > mine and mine < ORDER.index("interop"):   # interop uses the API
                    wrong.append(f"{name_of(path)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_only_the_machine_imports_compilers() -> None:
    wrong = [f"{name_of(path)}:{line} imports {module}" for path in FILES for line, module in imported(path)
             if module.split(".")[0] in ("numba", "llvmlite")
             and not name_of(path).startswith(("execute/", "interop/numba"))]
    assert not wrong, "\n".join(wrong)


def test_a_warm_import_stays_light() -> None:
    code = ("import sys, jitgrad; heavy = {'numba', 'scipy', 'optree', 'sklearn', 'matplotlib'} & set(sys.modules); "
            "sys.exit(f'import jitgrad imports {heavy}' if heavy else 0)")
    for _ in range(2):                  # the first process fills the object cache
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_short_and_well_named(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES
    assert path.stem not in ("utils", "helpers", "misc")


def test_op_names_are_listed_once() -> None:
    wrong = []
    for path in FILES:
        if name_of(path).startswith(("ops/", "interop/")):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            items = node.elts if isinstance(node, ast.List | ast.Tuple | ast.Set) else \
                node.keys if isinstance(node, ast.Dict) else []
            names = [i.value for i in items if isinstance(i, ast.Constant) and i.value in BY_NAME
                     and not hasattr(scalar, i.value)]       # nodes of the scalar language have names of their own
            if len(names) >= 4:
                wrong.append(f"{name_of(path)}:{node.lineno} lists {', '.join(names)}")
    assert not wrong, "\n".join(wrong)


def test_groups_of_names_are_exported_once() -> None:
    """Each group that comes whole exports functions of its own."""
    groups = [importlib.import_module(node.module) for node in ast.parse((PACKAGE / "__init__.py").read_text()).body
              if isinstance(node, ast.ImportFrom) and node.module and node.names[0].name == "*"]
    exported = [(name, group) for group in groups for name in group.__all__]
    names = [name for name, _ in exported]
    assert len(groups) > 5 and sorted(names) == sorted(set(names))
    for name, group in exported:
        assert inspect.isfunction(getattr(group, name)) and getattr(group, name).__module__ == group.__name__, name
        assert getattr(jg, name) is getattr(group, name)


def test_the_namespace_holds_nothing_of_others() -> None:
    """No imported module, no feature of a `from __future__`: dtypes are NumPy's, all else is written here."""
    for name in [n for n in vars(jg) if not n.startswith("_")]:
        thing = getattr(jg, name)
        home = thing.__name__ if inspect.ismodule(thing) else getattr(thing, "__module__", type(thing).__module__)
        assert home.startswith(("jitgrad", "numpy")), name


# ---- documentation -------------------------------------------------------------------------------

def modules() -> list[ModuleType]:
    found = [jg]
    for info in pkgutil.walk_packages(jg.__path__, "jitgrad."):
        if ".native" not in info.name and not info.name.endswith("__main__") and ".cuda" not in info.name:
            found.append(importlib.import_module(info.name))
    return found


def public() -> Iterator[tuple[str, Any]]:
    """What users reach by name, and the methods written for it."""
    nn = jg.nn
    for module in (jg, nn, jg.random, jg.linalg, nn.activations, nn.initializers, nn.layers, nn.losses, nn.metrics,
                   nn.optimizers, jg.testing):
        inside = "jitgrad" if hasattr(module, "__path__") else module.__name__      # a package re-exports
        for name in [n for n in dir(module) if not n.startswith("_")]:
            thing = getattr(module, name)
            if not callable(thing) or not (getattr(thing, "__module__", "") or "jitgrad").startswith(inside):
                continue
            yield f"{module.__name__}.{name}", thing
            if inspect.isclass(thing):
                for method, found in vars(thing).items():
                    if not method.startswith("_") and (inspect.isfunction(found) or isinstance(found, property)):
                        yield f"{module.__name__}.{name}.{method}", found


def test_public_names_are_documented() -> None:
    bare = sorted(name for name, thing in public() if not inspect.getdoc(thing))
    assert not bare, ", ".join(bare)


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for module in modules() for test in finder.find(module, extraglobs={"jg": jg})]
    parser = doctest.DocTestParser()
    found += [parser.get_doctest(prim.doc, {"jg": jg}, f"table.{name}", None, 0) for name, prim in BY_NAME.items()]
    return [test for test in found if test.examples]


def test_examples_run() -> None:
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS, verbose=False)
    for example in examples():
        runner.run(example, out=said.append)
    assert runner.tries > 0 and runner.failures == 0, "".join(said)
