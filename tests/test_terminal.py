"""Nothing that comes out of a file reaches the terminal as a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picsnet.bitstream import PicsFile, SketchLayer, write
from picsnet.cli import main
from picsnet.cli.batch import run_all
from picsnet.files import InputFile
from picsnet.terminal import printable
from tests.conftest import REPOSITORY

NASTY = "a dog\x1b]0;owned\x07\x1b[2J\r\nover\u202ethere\x9b31m\udc80"


@given(st.text())
def test_only_printing_characters_come_out(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown


@given(st.text().filter(str.isprintable))
def test_what_prints_stays(text: str) -> None:
    assert printable(text) == text


def test_prompts_of_files_are_written_out(capsys: pytest.CaptureFixture[str]) -> None:
    """As decode and encode print their results."""
    pairs = [(InputFile(Path("a.pics"), Path("a.pics")), Path("a.png"))]
    status = run_all(
        pairs,
        lambda source, target: {"prompt": NASTY},
        lambda record: ["a.png: 16x16", f"  prompt: {record['prompt']}"],
        as_json=False,
        quiet=False,
    )
    out = capsys.readouterr().out
    assert status == 0
    assert out.count("\n") == 2
    assert out.replace("\n", "").isprintable()
    assert r"\x1b[2J\r\nover\u202ethere" in out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1:strict", "utf-8:strict"])
def test_a_stdout_that_lacks_letters_is_sent_escapes(encoding: str, tmp_path: Path) -> None:
    name = "\u96ea \xe9.pics"
    sketch = PicsFile(64, 64, None, SketchLayer(b"abc", b""))
    (tmp_path / name).write_bytes(write(sketch))
    shown = name.encode(encoding.partition(":")[0], errors="backslashreplace")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": encoding}

    def info(name: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "picsnet", "info", name]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)

    there, lacking = info(name), info(f"no {name}")
    assert (there.returncode, there.stderr) == (0, b"")
    assert there.stdout.startswith(shown + b": 64x64, ")
    assert (lacking.returncode, lacking.stdout) == (2, b"")
    assert lacking.stderr.startswith(b"picsnet: error: no " + shown + b": no such file")


def test_importing_and_calling_the_commands_leaves_the_streams_alone() -> None:
    script = (
        "import sys\nfrom picsnet.cli import main\n"
        "was = sys.stdout.errors, sys.stderr.errors\nmain(['models', '--json'])\n"
        "assert (sys.stdout.errors, sys.stderr.errors) == was == ('strict', 'backslashreplace')"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-c", script]
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, capture_output=True)


def test_prompts_in_json_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = [(InputFile(Path("a.pics"), Path("a.pics")), Path("a.png"))]
    run_all(pairs, lambda s, t: {"prompt": NASTY}, lambda r: [], as_json=True, quiet=False)
    assert capsys.readouterr().out.replace("\n", "").isprintable()


def test_names_of_files_in_errors_are_written_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "\x1b[2Jx.pics"
    bad.write_bytes(b"no")
    for verb in ("info", "decode"):
        assert main([verb, str(bad)]) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert err.strip().isprintable()
        assert r"\x1b[2Jx.pics" in err
