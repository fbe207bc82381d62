"""The demo and the command line."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jitgrad import __version__
from jitgrad.__main__ import main


def test_the_demo_learns_and_draws(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "digits.png"
    assert main(["demo", "--epochs", "25", "--output", str(path)]) == 0
    out = capsys.readouterr().out
    rows = {line.rsplit(maxsplit=3)[0].strip(): line.split()[-3:] for line in out.splitlines() if "%" in line}
    assert set(rows) == {"jitgrad", "NumPy by hand"} and str(path) in out
    for accuracy, loss, rate in rows.values():
        assert float(accuracy.rstrip("%")) >= 96.0 and float(loss) < 0.1 and float(rate.replace(",", "")) > 0
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 20_000


def test_both_trainings_are_the_same(capsys: Any) -> None:
    assert main(["demo", "--steps", "40", "--seed", "3", "--no-plot"]) == 0
    ours, by_hand = (line.split()[-3:-1] for line in capsys.readouterr().out.splitlines() if "%" in line)
    assert ours == by_hand


@pytest.mark.parametrize("package", ["sklearn", "matplotlib"])
def test_a_missing_package_is_one_sentence(package: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)
    monkeypatch.setattr(builtins, "__import__", refuse)
    assert main(["demo", "--steps", "2", "--output", str(tmp_path / "a.png")]) == 1
    assert 'pip install "jitgrad[demo]"' in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "words"), [
    (["dance"], "there is no command 'dance'"), (["demo", "--steps", "0"], "at least 1"),
    (["demo", "--output", "no/such/folder/a.png"], "no folder")])
def test_wrong_commands_exit_with_a_sentence(arguments: list[str], words: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and words in capsys.readouterr().err


def test_help_and_version_import_nothing_heavy(capsys: Any) -> None:
    assert main([]) == 2 and "demo" in capsys.readouterr().err
    code = ("import sys\nfrom jitgrad.__main__ import main\ntry:\n    main(['--version'])\nexcept SystemExit:\n    pass\n"
            "assert not {'sklearn', 'matplotlib', 'tqdm', 'numba'} & set(sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"jitgrad {__version__}"
