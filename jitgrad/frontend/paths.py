"""The constant paths that a function reads, `self.rate` or `cfg["k"]`, found in its bytecode."""

from __future__ import annotations

import dis
import opcode
import weakref
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

ATTRIBUTE, ITEM = range(2)               # kinds of a Step
GLOBAL, FREE, ARGUMENT, LOOSE = range(4)      # where a Path starts; LOOSE: at some value that bytecode does not tell


class Step(NamedTuple):
    """One attribute or one constant subscript."""

    kind: int
    key: Any


class Path(NamedTuple):
    """A chain of steps from a global name, a free variable, an argument, or a value that could be anything."""

    root: int
    name: str
    steps: tuple[Step, ...]


_OPS = dis.opmap
_JUMPS = frozenset(dis.hasjrel) | frozenset(dis.hasjabs) | frozenset(getattr(dis, "hasjump", ()))
_QUIET = frozenset(_OPS[name] for name in ("CACHE", "NOP", "NOT_TAKEN") if name in _OPS)
_EXTENDED = _OPS["EXTENDED_ARG"]
_LOOKUP = next((i for i, (name, _) in enumerate(getattr(opcode, "_nb_ops", ())) if name == "NB_SUBSCR"), -1)
_FLAGGED = 1 if "LOAD_METHOD" not in opcode.opmap or opcode.opmap["LOAD_METHOD"] > 255 else 0
_KEYS = (str, int, float, bytes, type(None), bool)
_GETTERS = {"getattr", "hasattr"}
_memo: dict[int, tuple[weakref.ref[CodeType], tuple[Path, ...]]] = {}


def paths_of(code: CodeType) -> tuple[Path, ...]:
    """Every path that the code, or a function inside it, may read: a value used as it stands ends a path.

    An argument that is stored to is no root, nor is what the code has surely written before it reads. Free names of
    functions inside are names of this one; their own globals and arguments count when they run.

    >>> for path in paths_of((lambda x: x * model.cfg["rate"]).__code__):
    ...     print(path.name, [step.key for step in path.steps])
    x []
    model ['cfg', 'rate']
    """
    found = _memo.get(id(code))
    if found is None or found[0]() is not code:
        key = id(code)
        found = _memo[key] = (weakref.ref(code, lambda _: _memo.pop(key, None)), tuple(_Reader(code).paths()))
    return found[1]


def _instructions(code: CodeType) -> Iterator[tuple[int, int, int]]:
    """(offset, op code, argument): `dis.get_instructions` at a tenth of its cost."""
    units, extended = code.co_code, 0
    for at in range(0, len(units), 2):
        op, arg = units[at], units[at + 1] | extended
        if op == _EXTENDED:
            extended = arg << 8
        else:
            extended = 0
            if op not in _QUIET:
                yield at, op, arg


def _first_protected(code: CodeType) -> int:
    """Offset of the first instruction inside a `try` or `with`: a variable-length number of 6-bit digits."""
    table, value = code.co_exceptiontable, 0
    for at, byte in enumerate(table):
        value = value << 6 | byte & 63
        if not byte & 64:
            return 2 * value if at < len(table) else 0
    return len(code.co_code)


def _nested(code: CodeType) -> Iterator[CodeType]:
    return (const for const in code.co_consts if isinstance(const, CodeType))


def _stored(code: CodeType) -> set[str]:
    """Local names that the code, or a function inside it, stores to or deletes."""
    found = set()
    for _, op, arg in _instructions(code):
        kind = _KINDS.get(op)
        if kind in ("store", "store deref"):
            found.add(_local(code, arg))
        elif kind in ("store load", "store store"):
            found.add(_local(code, arg >> 4))
            if kind == "store store":
                found.add(_local(code, arg & 15))
    for inner in _nested(code):
        found |= _stored(inner) & set(inner.co_freevars)
    return found


def _local(code: Any, index: int) -> str:
    return code._varname_from_oparg(index)


_KINDS: dict[int, str] = {_OPS[name]: kind for kind, names in {
    "load": "LOAD_FAST LOAD_FAST_CHECK LOAD_FAST_BORROW LOAD_DEREF LOAD_CLASSDEREF LOAD_FROM_DICT_OR_DEREF",
    "load load": "LOAD_FAST_LOAD_FAST LOAD_FAST_BORROW_LOAD_FAST_BORROW",
    "store": "STORE_FAST DELETE_FAST LOAD_FAST_AND_CLEAR",
    "store deref": "STORE_DEREF DELETE_DEREF",
    "store load": "STORE_FAST_LOAD_FAST",
    "store store": "STORE_FAST_STORE_FAST",
    "global": "LOAD_GLOBAL",
    "name": "LOAD_NAME LOAD_FROM_DICT_OR_GLOBALS",
    "store name": "STORE_NAME STORE_GLOBAL DELETE_NAME DELETE_GLOBAL",
    "attribute": "LOAD_ATTR",
    "method": "LOAD_METHOD",
    "super": "LOAD_SUPER_ATTR",
    "set attribute": "STORE_ATTR DELETE_ATTR",
    "const": "LOAD_CONST",
    "small": "LOAD_SMALL_INT",
    "item": "BINARY_SUBSCR",
    "binary": "BINARY_OP",
    "set item": "STORE_SUBSCR DELETE_SUBSCR",
    "copy": "COPY",
}.items() for name in names.split() if name in _OPS and _OPS[name] < 256}


class _Reader:
    """Follows the value on top of the stack through one code object, as long as a path leads to it."""

    def __init__(self, code: CodeType) -> None:
        self.code = code
        stored = _stored(code)
        count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
        self.arguments = {name for name in code.co_varnames[:count] if name not in stored}
        self.free = set(code.co_freevars)
        self.named = {code.co_names[arg] for _, op, arg in _instructions(code) if _KINDS.get(op) == "store name"} \
            if not code.co_flags & 1 else set()       # a class body or a module: its own names come first
        self.found: dict[Path, None] = {}
        self.written: set[Path] = set()
        self.top: Path | None = None
        self.key: tuple[Any, ...] = ()       # a constant above `top`, as a tuple of one
        self.under: Path | None = None       # what lies below `top`, if it was not found before
        self.below = ""                      # or the global name that does

    def paths(self) -> dict[Path, None]:
        labels, straight = set(dis.findlabels(self.code.co_code)), True    # type: ignore[arg-type]
        protected = _first_protected(self.code)
        for at, op, arg in _instructions(self.code):
            straight = straight and at < protected and at not in labels and op not in _JUMPS
            if at in labels:
                self.push(None)
            self.step(_KINDS.get(op), arg, straight)
        self.push(None)
        for inner in _nested(self.code):
            for path in paths_of(inner):
                if path.root == FREE:
                    self.push(self.rooted(path.name)._replace(steps=path.steps))
                    self.push(None)
        if _GETTERS & {*self.code.co_names}:      # the names they are given may be any constant here
            for const in self.code.co_consts:
                if isinstance(const, str) and const.isidentifier():
                    self.found[Path(LOOSE, "", (Step(ATTRIBUTE, const),))] = None
        return self.found

    def push(self, path: Path | None, key: tuple[Any, ...] = ()) -> None:
        """A new value on top; the one that was there is used as it stands."""
        top = self.top
        self.under, self.below = None, top.name if top is not None and top.root == GLOBAL and not top.steps else ""
        if top is not None and (top.root != LOOSE or top.steps) and top not in self.found and not self.own(top):
            self.found[top] = None
            self.under = top
        self.top, self.key = path, key

    def own(self, path: Path) -> bool:
        """Whether the code itself has written what the path leads to."""
        return any(path.root == w.root and path.name == w.name and path.steps[:len(w.steps)] == w.steps
                   for w in self.written)

    def rooted(self, name: str) -> Path:
        """The path of a local name, which tells nothing for one that is neither argument nor free."""
        if name in self.free:
            return Path(FREE, name, ())
        return Path(ARGUMENT, name, ()) if name in self.arguments else Path(LOOSE, "", ())

    def extend(self, kind: int, key: Any) -> None:
        path = self.top or Path(LOOSE, "", ())
        self.top, self.key = path._replace(steps=(*path.steps, Step(kind, key))), ()

    def drop(self, straight: bool, kind: int, key: tuple[Any, ...]) -> None:
        """A store to an attribute or item of the value on top, which is not read by it."""
        if straight and key and self.top is not None and self.top.root != LOOSE:
            self.written.add(self.top._replace(steps=(*self.top.steps, Step(kind, key[0]))))
        self.top, self.key = None, ()

    def step(self, kind: str | None, arg: int, straight: bool) -> None:
        """One instruction."""
        code = self.code
        if kind in ("attribute", "method"):
            if self.key:
                self.push(None)
            self.extend(ATTRIBUTE, code.co_names[arg >> _FLAGGED if kind == "attribute" else arg])
        elif kind == "item" or kind == "binary" and arg == _LOOKUP:
            self.subscript()
        elif kind in ("const", "small"):
            const = code.co_consts[arg] if kind == "const" else arg
            if self.below in _GETTERS and isinstance(const, str) and self.top is not None and not self.key:
                self.found[self.top._replace(steps=(*self.top.steps, Step(ATTRIBUTE, const)))] = None
            if self.top is None or self.key or not _constant(const):
                self.push(None)
            self.key = (const,) if _constant(const) else ()
        elif kind == "copy":
            if arg > 2:
                self.push(None)
        elif kind == "set attribute":
            self.drop(straight, ATTRIBUTE, (code.co_names[arg],) if not self.key else ())
        elif kind == "set item":
            if not self.key and self.top is not None:
                if self.under is not None and (self.under.steps or self.under.root != ARGUMENT):
                    del self.found[self.under]       # stored to at a key that is on top
                self.push(None)
            self.drop(straight, ITEM, self.key)
        elif not self.load(kind, arg) and not self.store(kind, arg, straight):
            self.push(None)
            if kind == "super":
                self.extend(ATTRIBUTE, code.co_names[arg >> 2])

    def subscript(self) -> None:
        if self.key:
            self.extend(ITEM, self.key[0])
        else:
            self.push(None)

    def load(self, kind: str | None, arg: int) -> bool:
        """The instructions that put a named value on the stack."""
        code = self.code
        if kind == "load":
            self.push(self.rooted(_local(code, arg)))
        elif kind == "load load":
            self.push(self.rooted(_local(code, arg >> 4)))
            self.push(self.rooted(_local(code, arg & 15)))
        elif kind == "store load":
            self.push(None)
            self.push(self.rooted(_local(code, arg & 15)))
        elif kind == "global":
            self.push(Path(GLOBAL, code.co_names[arg >> 1], ()))
        elif kind == "name" and code.co_names[arg] not in self.named:
            self.push(Path(GLOBAL, code.co_names[arg], ()))
        else:
            return False
        return True

    def store(self, kind: str | None, arg: int, straight: bool) -> bool:
        """The instructions that rebind a global or free name."""
        if kind == "store name":
            path = Path(GLOBAL, self.code.co_names[arg], ())
        elif kind == "store deref":
            path = self.rooted(_local(self.code, arg))
        else:
            return False
        self.push(None)
        if straight and path.root != LOOSE:
            self.written.add(path)
        return True


def _constant(key: Any) -> bool:
    return isinstance(key, _KEYS) or isinstance(key, tuple) and all(map(_constant, key))
