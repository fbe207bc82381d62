"""A Program: single-assignment rows in numpy columns, with a grammar, a printer, a signature and a file form.

Grammar (executable as `verify`): values are numbered 0, 1, 2...; each is an input, a constant, or an output of
exactly one row; the outputs of row r are ``first_out[r] .. first_out[r] + outs``, consecutive; row r's operands are
``operands[first_operand[r] : first_operand[r + 1]]`` and are defined before it; their avals are those of the row's
form.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jitgrad.core import backend
from jitgrad.core.aval import AVALS, Aval, aval
from jitgrad.core.dtypes import CODES, NAMES
from jitgrad.core.form import COLUMNS, FORMS, Form, form
from jitgrad.core.primitive import BY_NAME, Kind

_FORMAT = 1


class Program:
    """Rows (``op``, ``attr`` into the table of forms, operands) over values with avals; see the module."""

    __slots__ = ("attr", "avals", "constants", "first_operand", "first_out", "inputs", "lines", "op", "operands",
                 "results")

    def __init__(self, *, attr: np.ndarray, first_out: np.ndarray, first_operand: np.ndarray, operands: np.ndarray,
                 avals: np.ndarray, inputs: np.ndarray, constants: Mapping[int, Any], results: np.ndarray,
                 lines: Sequence[str] = ()) -> None:
        self.attr = attr.astype(np.int32)
        self.op = COLUMNS.op.take(attr, mode="clip").astype(np.uint16)      # a number that is no form: see `verify`
        self.first_out = first_out.astype(np.int32)
        self.first_operand = first_operand.astype(np.int32)
        self.operands = operands.astype(np.int32)
        self.avals = avals.astype(np.int32)
        self.inputs = inputs.astype(np.int32)
        self.constants = dict(constants)
        self.results = results.astype(np.int32)
        self.lines = tuple(lines)

    @classmethod
    def build(cls, rows: Sequence[tuple[Form, tuple[int, ...], int]], avals: Sequence[Aval], inputs: Sequence[int],
              constants: Mapping[int, Any], results: Sequence[int], lines: Sequence[str] = ()) -> Program:
        """From rows given as (form, operand ids, first output id, which does not matter where there is none)."""
        counts = [len(ids) for _, ids, _ in rows]
        return cls(
            attr=np.array([made.id for made, _, _ in rows], np.int32),
            first_out=np.array([first if made.outs else 0 for made, _, first in rows], np.int32),
            first_operand=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
            operands=np.array([i for _, ids, _ in rows for i in ids], np.int32),
            avals=np.array([a.id for a in avals], np.int32), inputs=np.array(inputs, np.int32),
            constants=constants, results=np.array(results, np.int32), lines=lines)

    def __len__(self) -> int:
        return len(self.attr)

    def row(self, r: int) -> tuple[Form, tuple[int, ...], tuple[int, ...]]:
        """Row r as (form, operand ids, output ids)."""
        made = FORMS[self.attr[r]]
        operands = self.operands[self.first_operand[r]: self.first_operand[r + 1]]
        first = int(self.first_out[r])
        return made, tuple(operands.tolist()), tuple(range(first, first + len(made.outs)))

    def rows(self) -> list[tuple[Form, tuple[int, ...], tuple[int, ...]]]:
        """All rows."""
        return [self.row(r) for r in range(len(self))]

    def aval(self, value: int) -> Aval:
        """Dtype and shape of a value."""
        return AVALS[self.avals[value]]

    @property
    def nbytes(self) -> int:
        """Bytes of the columns and constants."""
        columns = (self.op, self.attr, self.first_out, self.first_operand, self.operands, self.avals, self.inputs,
                   self.results)
        return sum(c.nbytes for c in columns) + sum(AVALS[t._aval].nbytes for t in self.constants.values())

    # ---- grammar ----

    def verify(self) -> None:
        """Raise ValueError, naming the row, where the columns are no Program."""
        n = len(self.avals)
        if any(not 0 <= a < len(AVALS) for a in self.avals.tolist()):
            raise ValueError("a value has an aval that is not")
        defined = np.zeros(n, bool)
        for value in (*self.inputs.tolist(), *self.constants):
            if not 0 <= value < n or defined[value]:
                raise ValueError(f"value {value} is defined twice, or there is no such value")
            defined[value] = True
        for value, t in self.constants.items():
            if t._aval != self.avals[value]:
                raise ValueError(f"constant {value} is {AVALS[t._aval]!r}, declared {self.aval(value)!r}")
        if len(self.first_operand) != len(self) + 1 or len(self.first_out) != len(self):
            raise ValueError("the row columns differ in length")
        if (self.first_operand[0] != 0 or self.first_operand[-1] != len(self.operands)
                or (np.diff(self.first_operand) < 0).any()):
            raise ValueError("the row columns do not divide the operands among the rows")
        if any(not 0 <= f < len(FORMS) for f in self.attr.tolist()) or (self.op != COLUMNS.op[self.attr]).any():
            raise ValueError("a row has a form that is not, or another op than its form")
        for r in range(len(self)):
            made, operands, outs = self.row(r)
            where = f"row {r} ({made.prim.name})"
            if any(not 0 <= i < n or not defined[i] for i in operands):
                raise ValueError(f"{where} reads a value that is not defined before it: {operands}")
            if [self.avals[i] for i in operands] != [a.id for a in made.avals]:
                raise ValueError(f"{where} has operands unlike its form {made!r}")
            if any(not 0 <= i < n or defined[i] for i in outs):
                raise ValueError(f"{where} defines a value again")
            if [self.avals[i] for i in outs] != [a.id for a in made.outs]:
                raise ValueError(f"{where} has outputs unlike its form {made!r}")
            defined[list(outs)] = True
        if not defined.all():
            raise ValueError(f"value {int(np.argmin(defined))} is not defined")
        for value in self.results.tolist():
            if not -1 <= value < n:
                raise ValueError(f"result {value} is not defined")

    # ---- reading ----

    def show(self) -> str:
        """A table: value, op, operands, params, shape, bytes and, where recorded, the source line.

        Programs that rows hold stand below it, as tables of their own.
        """
        def name(value: int) -> str:
            return "-" if value < 0 else f"%{value}"
        out = [f"{'value':>8}  {'op':<16} {'operands':<24} {'type':<20} {'bytes':>10}"]
        for value in self.inputs.tolist():
            a = self.aval(value)
            out.append(f"{name(value):>8}  {'input':<16} {'':<24} {a!r:<20} {a.nbytes:>10}")
        for value in self.constants:
            a = self.aval(value)
            content = _content(self.constants[value])
            out.append(f"{name(value):>8}  {'constant':<16} {content:<24} {a!r:<20} {a.nbytes:>10}")
        for r, (made, operands, outs) in enumerate(self.rows()):
            params = ", ".join(f"{k}={_brief(v)}" for k, v in made.params.items())
            given = " ".join(map(name, operands)) + (f"  {params}" if params else "")
            for k, value in enumerate(outs or (-1,)):
                kind, size = (repr(self.aval(value)), str(self.aval(value).nbytes)) if outs else ("", "")
                line = f"  {self.lines[r]}" if self.lines and k == 0 else ""
                out.append(f"{name(value):>8}  {made.prim.name if k == 0 else '':<16} {given if k == 0 else '':<24} "
                           f"{kind:<20} {size:>10}{line}".rstrip())
        out.append("results: " + " ".join(map(name, self.results.tolist())))
        for made, _, outs in self.rows():
            for place, program in programs_in(made.params):
                where = f"{place} of {made.prim.name} {' '.join(map(name, outs[:1]))}".rstrip()
                out += [f"{where}:", *(f"    {line}" for line in program.show().splitlines())]
        return "\n".join(out)

    def __repr__(self) -> str:
        return f"<Program: {len(self.inputs)} inputs, {len(self)} rows, {len(self.results)} results>"

    def signature(self) -> str:
        """A digest of structure, avals and params (by name); constants by content.

        Equal Programs agree across processes.
        """
        import hashlib  # it loads OpenSSL, which most programs do without

        digest = hashlib.sha256()
        digest.update(json.dumps(self._rows_as_data(), sort_keys=True, default=Program.signature).encode())
        first_out = np.where(COLUMNS.outputs.take(self.attr, mode="clip") > 0, self.first_out, 0)
        for column in (first_out, self.operands, self.inputs, self.results):
            digest.update(column.tobytes())
        for value in sorted(self.constants):
            digest.update(str(value).encode() + self.constants[value].numpy().tobytes())
        return digest.hexdigest()

    # ---- files ----

    def _rows_as_data(self) -> dict[str, Any]:
        forms: dict[int, int] = {}
        for f in self.attr.tolist():
            forms.setdefault(f, len(forms))
        kinds: dict[int, int] = {}
        for a in self.avals.tolist():
            kinds.setdefault(a, len(kinds))
        return {
            "format": _FORMAT, "avals": [[NAMES[AVALS[a].code], list(AVALS[a].shape)] for a in kinds],
            "values": [kinds[a] for a in self.avals.tolist()], "rows": [forms[f] for f in self.attr.tolist()],
            "forms": [[FORMS[f].prim.name, [[NAMES[a.code], list(a.shape)] for a in FORMS[f].avals],
                       _encode(FORMS[f].params)] for f in forms]}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz with op names (never codes) and no pickles.

        Refuses Programs whose rows hold Programs or Python rules.
        """
        for made, _, _ in self.rows():
            if made.prim.kind is Kind.HIGHER:
                raise ValueError(f"save: the row {made.prim.name!r} holds a Program or a Python rule and cannot be "
                                 "saved")
        columns: dict[str, Any] = {
            "first_out": self.first_out, "first_operand": self.first_operand, "operands": self.operands,
            "inputs": self.inputs, "results": self.results, "constants": np.array(sorted(self.constants), np.int32),
            "table": np.frombuffer(json.dumps(self._rows_as_data()).encode(), np.uint8)}
        columns.update({f"constant_{v}": t.numpy() for v, t in self.constants.items()})
        buffer = io.BytesIO()
        np.savez(buffer, **columns)          # complete in memory first: a failure leaves an old file whole
        temporary = f"{os.fspath(path)}.{os.getpid()}.part"
        try:
            with open(temporary, "wb") as file:
                file.write(buffer.getvalue())
            os.replace(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.remove(temporary)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Program:
        """Read what `save` wrote; the Program is verified. ValueError for a file that is no whole Program."""
        import zipfile  # needed here only, and as long to import as the rest of this package's core
        import zlib

        name = os.fspath(path)
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
                program = cls._read({key: data[key] for key in data.files})
            program.verify()
        except FileNotFoundError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, OSError, EOFError, zipfile.BadZipFile, zlib.error,
                NotImplementedError) as error:      # zipfile's own, where a damaged byte names a method it has not
            raise ValueError(f"load: {name} is not a Program that this jitgrad can read: {error}") from error
        return program

    @classmethod
    def _read(cls, data: Mapping[str, np.ndarray]) -> Program:
        table = json.loads(data["table"].tobytes())
        if table.get("format") != _FORMAT:
            raise ValueError(f"it has format {table.get('format')}, expected {_FORMAT}")
        forms = []
        for name, avals, params in table["forms"]:
            if name not in BY_NAME:
                raise ValueError(f"there is no op named {name!r}")
            forms.append(form(BY_NAME[name], [_aval_of(a) for a in avals], _decode(params)))
        constants = {}
        for v in data["constants"].tolist():
            array = data[f"constant_{v}"]
            constants[v] = backend.current().tensor(np.ascontiguousarray(array).reshape(array.shape),
                                                    aval(CODES[array.dtype], array.shape))
        kinds = [_aval_of(a).id for a in table["avals"]]
        return cls(attr=np.array([forms[i].id for i in table["rows"]], np.int32), first_out=data["first_out"],
                   first_operand=data["first_operand"], operands=data["operands"],
                   avals=np.array([kinds[i] for i in table["values"]], np.int32), inputs=data["inputs"],
                   constants=constants, results=data["results"])


def _aval_of(data: Sequence[Any]) -> Aval:
    return aval(CODES[np.dtype(data[0])], tuple(data[1]))


def _encode(value: Any) -> Any:
    """Params as JSON that keeps tuples apart from lists."""
    if isinstance(value, dict):
        return {k: _encode(v) for k, v in value.items()}
    return {"tuple": [_encode(v) for v in value]} if isinstance(value, tuple) else value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"tuple"}:
            return tuple(_decode(v) for v in value["tuple"])
        return {k: _decode(v) for k, v in value.items()}
    return value


def _content(t: Any) -> str:
    return f"{t.numpy()[()]!s}"[:24] if AVALS[t._aval].ndim == 0 else "..."


def _brief(value: Any) -> str:
    if isinstance(value, tuple) and any(True for _ in programs_in(value)):
        return f"({', '.join(map(_brief, value))})"
    return f"<{len(value)} rows>" if isinstance(value, Program) else str(value)


def programs_in(value: Any, place: str = "") -> Iterator[tuple[str, Program]]:
    """The Programs that a row's params hold, and where each stands there."""
    if isinstance(value, Program):
        yield place, value
    elif isinstance(value, dict | tuple):
        names = value if isinstance(value, dict) else getattr(value, "_fields", range(len(value)))
        for name, item in zip(names, value.values() if isinstance(value, dict) else value, strict=True):
            yield from programs_in(item, f"{place}[{name}]" if isinstance(name, int) else f"{place}.{name}".lstrip("."))
