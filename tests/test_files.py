"""Inputs are found, outputs appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from PIL import Image

from picsnet.cli import main
from picsnet.errors import DataError, OutputError, UsageError
from picsnet.files import BEGUN, atomic_write, expand_inputs, read_file
from tests.conftest import REPOSITORY

SUFFIXES = frozenset({".png"})


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_folders_keep_their_layout_and_order(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "a.png", "b/1.png", "b/notes.txt", ".hidden/3.png"):
        touch(tmp_path / name)
    found = expand_inputs([tmp_path], SUFFIXES)
    assert [item.relative.as_posix() for item in found] == ["a.png", "b/1.png", "b/2.PNG"]


def test_globs_files_and_repeats(tmp_path: Path) -> None:
    one, two = touch(tmp_path / "one.png"), touch(tmp_path / "two.png")
    found = expand_inputs([str(tmp_path / "*.png"), one], SUFFIXES)
    assert [item.path for item in found] == [one, two]
    assert found[1].relative == Path("two.png")


def test_a_named_file_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    assert expand_inputs([touch(tmp_path / "photo.dat")], SUFFIXES)[0].relative == Path("photo.dat")


def test_nothing_found_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        expand_inputs([tmp_path / "nowhere"], SUFFIXES)
    with pytest.raises(DataError, match=r"\.png"):
        expand_inputs([tmp_path], SUFFIXES)
    with pytest.raises(DataError, match="cannot be read"):
        read_file(tmp_path / "nothing")


EVALUATION = str(REPOSITORY / "configs" / "eval_kodak.yaml")
LONG = "a" * 300
"""No file's name can be as long; pathlib's questions about it raise."""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["encode", "--mode", "sketch", LONG], 2),
        (["encode", "--mode", "sketch", "photo.png", LONG], 2),
        (["encode", "--mode", "sketch", "photo.png", "-o", LONG], 1),
        (["encode", "--mode", "sketch", "photo.png", "--ckpt", LONG], 1),
        (["encode", "--mode", "sketch", "photo.png", "--ckpt", f"{LONG}.ckpt"], 1),
        (["encode", "--mode", "sketch", "photo.png", "--sketcher", f"hed:{LONG}"], 1),
        (["encode", "--mode", "pics", "photo.png", "--decoder", LONG], 2),
        (["encode", "--mode", "pics", "photo.png", "--decoder", f"{LONG}.yaml"], 2),
        (["encode", "--mode", "pics", "photo.png", "--decoder", "~nobody-of-this-name/x/y"], 1),
        (["encode", "--mode", "pics", "photo.png", "--prompts", LONG], 1),
        (["decode", LONG], 2),
        (["info", LONG], 2),
        (["sketch", LONG, "-o", "maps"], 1),
        (["sketch", LONG, "--sketcher", "map", "--shards", "shards"], 1),
        (["export", LONG, "-o", "model"], 1),
        (["evaluate", "--config", EVALUATION, f"dataset.folder=[{LONG}]"], 2),
        (["evaluate", "--config", EVALUATION, f"dataset.name={LONG}"], 1),
        (["report", LONG], 1),
    ],
)
def test_a_name_that_is_too_long_is_told_in_a_line(
    arguments: list[str],
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32)).save("photo.png")
    assert main(arguments) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("picsnet: error: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_a_place_that_is_closed_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(0)
    with pytest.raises(UsageError, match=r"cannot be read .Permission denied"):
        expand_inputs([tmp_path / "closed" / "photo.png"], SUFFIXES)


def test_atomic_write_replaces_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.bin"
    for content in (b"first", b"second"):
        with atomic_write(target) as part:
            part.write_bytes(content)
            assert not target.exists() or target.read_bytes() == b"first"
        assert target.read_bytes() == content
    assert os.listdir(target.parent) == ["file.bin"]


@pytest.mark.parametrize("letter", ["a", "\u96ea"])
def test_names_may_be_as_long_as_names_can_be(tmp_path: Path, letter: str) -> None:
    name = letter * (250 // len(letter.encode())) + ".pics"
    with atomic_write(tmp_path / name) as part:
        part.write_bytes(b"x")
        assert BEGUN.fullmatch(part.name)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    target = touch(tmp_path / "file.bin")
    with pytest.raises(type(error)), atomic_write(target) as part:
        part.write_bytes(b"half")
        raise error
    assert target.read_bytes() == b"x"
    assert os.listdir(tmp_path) == ["file.bin"]


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "no space left"), (errno.EACCES, "no permission"), (errno.EIO, "cannot be")],
)
def test_what_stops_a_write_is_told_in_a_line(tmp_path: Path, number: int, words: str) -> None:
    target = tmp_path / "file.bin"
    with pytest.raises(OutputError, match=words) as caught, atomic_write(target) as part:
        part.write_bytes(b"half")
        raise OSError(number, os.strerror(number))
    assert str(target) in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_something_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="in the way"), atomic_write(tmp_path / "folder") as part:
        part.write_bytes(b"x")
    touch(tmp_path / "file")
    with pytest.raises(OutputError, match="in the way"), atomic_write(tmp_path / "file" / "x"):
        pass
