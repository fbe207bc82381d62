"""The command line: what each command says, how it fails, and that it needs no terminal."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import jitgrad as jg
from jitgrad import __version__, config
from jitgrad.__main__ import COMMANDS, main
from jitgrad.commands import info, ops
from jitgrad.core.primitive import BY_NAME, Kind, missing
from jitgrad.core.sizes import bytes_in_words
from jitgrad.execute.cpu import cache


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, without a terminal or a standard input."""
    return subprocess.run([sys.executable, "-m", "jitgrad", *arguments], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, env={**os.environ, **environment})


# ---- the way in ----------------------------------------------------------------------------------

def test_every_command_is_listed_and_helps(capsys: Any) -> None:
    assert main([]) == 2
    listed = capsys.readouterr().err
    assert len(listed.splitlines()) < 24
    for name, (_, what) in COMMANDS.items():
        assert f"  {name} " in listed and what in listed
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0 and f"jitgrad {name}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [
    ["info", "more"], ["cache", "drop"], ["ops", "exponential"], ["ops", "--html"], ["ops", "exp", "log"],
    ["warmup", "everything"]])
def test_bad_arguments_exit_with_status_2(arguments: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    told = capsys.readouterr()
    assert stop.value.code == 2 and told.out == "" and f"jitgrad {arguments[0]}: error: " in told.err


def test_an_interrupt_is_one_sentence(monkeypatch: Any, capsys: Any) -> None:
    def interrupted(_: Any) -> int:
        raise KeyboardInterrupt
    monkeypatch.setattr(info, "main", interrupted)
    assert main(["info"]) == 130
    assert capsys.readouterr().err.strip() == "jitgrad: info was interrupted"


def test_a_reader_that_stops_early_is_no_error() -> None:
    made = subprocess.Popen([sys.executable, "-m", "jitgrad", "ops", "--markdown"], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)
    assert made.stdout is not None and made.stderr is not None
    made.stdout.readline()
    made.stdout.close()
    assert made.stderr.read() == b"" and made.wait() == 0
    made.stderr.close()


# ---- info ----------------------------------------------------------------------------------------

def test_info_tells_what_runs_here(tmp_path: Path) -> None:
    done = process("info", JITGRAD_DEBUG_NANS="inf", JITGRAD_TURBO="on")
    assert done.returncode == 0 and done.stderr == ""
    for words in (f"jitgrad   {__version__}", "numpy", "llvmlite", sys.executable, cache.folder(), "vectors", "threads",
                  "JITGRAD_DEBUG_NANS=inf (", "JITGRAD_TURBO=on (jitgrad knows no such switch)", "numba-cuda"):
        assert words in done.stdout
    import llvmlite
    import numpy
    for package in (numpy, llvmlite):
        assert re.search(rf"{package.__name__} +{re.escape(package.__version__)}$", done.stdout, flags=re.M)


def test_every_switch_that_is_read_is_known() -> None:
    package = Path(jg.__file__).parent
    read = {name for path in package.rglob("*.py") for name in re.findall(r"JITGRAD_[A-Z0-9_]+", path.read_text())}
    assert read - {"JITGRAD_"} == set(config.SWITCHES)


def test_info_imports_nothing_heavy() -> None:
    code = ("import sys\nfrom jitgrad.__main__ import main\nmain(['info'])\n"
            "sys.exit(({'numba', 'scipy', 'optree', 'tqdm'} & set(sys.modules) or 0))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_info_without_blas_packages_or_a_sound_cache(monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JITGRAD_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr(info, "PACKAGES", ("numpy", "no-such-package"))
    monkeypatch.setattr(info.blas, "described", lambda: None)
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    assert "no-such-package not installed" in said and "jitgrad's own kernel" in said
    assert f"problem   {tmp_path / 'file'}: " in said


GPU = "#!/bin/sh\necho 'NVIDIA Something, 80 MiB, 580.1'\necho 'NVIDIA Other'\n"


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for the driver's tool")
@pytest.mark.parametrize(("script", "devices"), [
    (GPU, "NVIDIA Something (80 MiB, driver 580.1), NVIDIA Other"), ("#!/bin/sh\nexit 9\n", None), ("#!/bin/sh\nexec sleep 60\n", None),
    ("not a program", None)])
def test_info_asks_the_driver_and_never_waits_for_it(script: str, devices: str | None, tmp_path: Path,
                                                     monkeypatch: Any) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(script)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(info, "PATIENCE", 0.3)
    monkeypatch.setattr(info.glob, "glob", lambda _: [])
    assert list(info.cuda())[-1] == f"devices   {devices or 'none found'}"


# ---- cache ---------------------------------------------------------------------------------------

@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.setenv("JITGRAD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_room", {})
    return tmp_path / "cache"


def test_cache_tells_what_it_holds_and_clears_it(folder: Path, capsys: Any) -> None:
    for n in range(3):
        cache.fetch("kernel", str(n), lambda: b"x" * 1000)
    old = time.time() - 3 * 86400
    os.utime(next(folder.glob("*.obj")), (old, old))
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert main(["cache"]) == 0
    said = capsys.readouterr().out
    for words in (str(folder), f"objects   3, {size / 1000:.1f} kB", "the latest less than a minute ago",
                  "the oldest 3 days ago"):
        assert words in said
    assert main(["cache", "clear"]) == 0
    said = capsys.readouterr().out
    assert "removed 3 files" in said and str(folder) in said
    assert list(folder.iterdir()) == []
    assert main(["cache", "clear"]) == 0
    assert "removed 0 files" in capsys.readouterr().out


def test_cache_says_what_could_not_be_removed(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    cache.fetch("kernel", "0", lambda: b"x")
    monkeypatch.setattr(cache, "clear", lambda: 0)
    assert main(["cache", "clear"]) == 1
    assert "1 file could not be removed" in capsys.readouterr().out


def test_sizes_in_words() -> None:
    assert [bytes_in_words(n) for n in (0, 999, 1000, 12_345_678, 3_200_000_000)] == [
        "0 bytes", "999 bytes", "1.0 kB", "12.3 MB", "3.2 GB"]


# ---- warmup --------------------------------------------------------------------------------------

PROGRAM = """
import jitgrad as jg
from jitgrad.execute.cpu import cache
for dtype in ("float32", "float64"):
    x, n = jg.Variable([[0.5, 1.5], [2.5, 3.5]], dtype=dtype), jg.constant([1, 0])
    model = jg.nn.Sequential([jg.nn.layers.Dense(3, activation="tanh"), jg.nn.layers.Dense(2)])
    with jg.GradientTape(persistent=True) as outer:
        with jg.GradientTape() as tape:
            y = jg.nn.losses.sparse_categorical_crossentropy(n, model(jg.astype(x, "float32")), from_logits=True)
            z = jg.sum(jg.take(jg.softmax(x) * jg.exp(-x / 2.0) ** 2, [1, 1], axis=0) @ x)
            z = z + jg.max(jg.where(x > 1, x, 0.0))
        g = tape.gradient([y, z], [x, *model.trainable_variables])
    outer.gradient(g[0], x), outer.jacobian(g[0], x)
    jg.nn.optimizers.Adam().apply_gradients(zip(g[1:], model.trainable_variables, strict=True))
print(cache.built, int(jg.sum(jg.arange(5)) // 2))
"""


@pytest.fixture(scope="module")
def warm(tmp_path_factory: Any) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A cache that was empty, and the warmup that filled it."""
    place = tmp_path_factory.mktemp("warm") / "cache"
    return place, process("warmup", JITGRAD_CACHE_DIR=str(place))


def test_warmup_fills_the_cache_and_says_what_it_did(warm: Any) -> None:
    place, done = warm
    assert done.returncode == 0 and len(done.stderr.splitlines()) == 1 and "once for this machine" in done.stderr
    (said,) = done.stdout.splitlines()
    built, kept = map(int, re.findall(r"(\d+) objects", said))
    assert built == kept == len(list(place.glob("*.obj"))) > 3 * len(BY_NAME) and str(place) in said
    seconds = re.findall(r"([\d.]+) s", said)
    assert len(seconds) == 2 and float(seconds[0]) > 0


def test_what_is_there_is_left_alone(warm: Any) -> None:
    place, _ = warm
    before = {path.name: path.stat().st_ino for path in place.iterdir()}
    done = process("warmup", JITGRAD_CACHE_DIR=str(place))
    assert done.stdout.startswith("built 0 objects in 0.0 s") and done.stderr == ""
    gone = sorted(place.glob("kernel_exp*"))[0]
    gone.unlink()
    assert process("warmup", JITGRAD_CACHE_DIR=str(place)).stdout.startswith("built 1 object in")
    after = {path.name: path.stat().st_ino for path in place.iterdir()}
    assert {name: n for name, n in after.items() if name != gone.name} == {
        name: n for name, n in before.items() if name != gone.name} and after.keys() == before.keys()


def test_a_program_after_it_builds_nothing(warm: Any) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True,
                          env={**os.environ, "JITGRAD_CACHE_DIR": str(warm[0]), "JITGRAD_MACHINE_CODE": "hot"})
    assert done.stdout.split() == ["0", "5"] and done.stderr == ""


def test_warmup_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JITGRAD_CACHE_DIR", str(tmp_path / "file"))
    assert main(["warmup"]) == 1
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("jitgrad: nothing built now could be kept: ") and str(tmp_path) in told.err


# ---- ops -----------------------------------------------------------------------------------------

def test_ops_lists_every_entry(capsys: Any) -> None:
    assert main(["ops"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [p.name for p in BY_NAME.values() if p.kind not in (Kind.HIGHER, Kind.EFFECT)]
    assert [line.partition("(")[0] for line in lines[1: len(names) + 1]] == names
    assert any(line.split()[0] == "softmax" for line in lines[len(names) + 1:] if line)


@pytest.mark.parametrize(("name", "words"), [
    ("exp", ["exp(x)", "float32, float64", "derivative: yes", "2 ulp", "tested at: 0, -0, 1, -1, inf, -inf, nan"]),
    ("add", ["behind +", "operands broadcast", "yes, linear", "correctly rounded"]),
    ("argmax", ["derivative: none", "-> int64", "error: exact"]), ("bitwise_and", ["error: exact"]),
    ("cumulative_sum", ["shape: that of x", "4 ulp of the sum of magnitudes"]),
    ("cast", ["-> dtype"]), ("where", ["condition bool"]), ("less", ["-> bool"]),
    ("matmul", ["ta=False", "linear in each operand", "jitgrad.matmul(", "16 ulp of the sum of magnitudes"]),
    ("gather", ["indices int32 or int64", "IndexError: an index is out of range"]),
    ("softmax", ["jitgrad.softmax(x, axis=-1)"])])
def test_one_operation_in_words(name: str, words: list[str], capsys: Any) -> None:
    assert main(["ops", name]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0] == name and "`" not in said
    for word in words:
        assert word in said


def test_a_name_that_is_none_brings_near_ones(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["ops", "sofmax"])
    assert "there is no operation 'sofmax'; there is softmax" in capsys.readouterr().err


def test_the_page_of_operations(capsys: Any) -> None:
    assert main(["ops", "--markdown"]) == 0
    page = capsys.readouterr().out
    sections = re.findall(r"^### (.*)$", page, flags=re.M)
    assert len(sections) == len(set(sections)) and set(sections) == {*ops.entries(), *ops.composites()}
    rows = [line for line in page.splitlines() if line.startswith("| [`")]
    assert len(rows) == len(ops.entries())
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 7 and "|  |" not in row for row in rows)
    assert all(hasattr(jg, name) for name in sections)


def test_a_missing_derivative_is_said() -> None:
    ruleless = dataclasses.replace(BY_NAME["exp"], vjp=missing)
    assert ops.derivative(ruleless) == "missing: a gradient raises LookupError"
