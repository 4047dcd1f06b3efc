"""Where results go: never over what they are made from, and to the kind of file that was named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from picsnet.cli import main

SKETCH = ["encode", "--mode", "sketch"]


@pytest.fixture
def photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The bytes of photo.png in the working folder."""
    monkeypatch.chdir(tmp_path)
    blocks = np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8)
    Image.fromarray(blocks).resize((64, 64)).save("photo.png")
    return Path("photo.png").read_bytes()


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("picsnet: error: ")
    return lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["scan.pics"],
        ["scan.pics", "-o", "."],
        ["scan.pics", "-o", "../scan.pics"],
        ["photo.png", "scan.pics", "-o", "link"],
        ["photo.png", "-o", "soft.pics"],
        ["photo.png", "-o", "hard.pics"],
    ],
)
def test_a_photograph_is_never_written_over(
    arguments: list[str], photo: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("scan.pics").write_bytes(photo)
    Path("link").symlink_to(".")
    arguments = [word.replace("..", f"../{Path.cwd().name}") for word in arguments]
    Path("soft.pics").symlink_to("photo.png")
    os.link("photo.png", "hard.pics")
    assert main([*SKETCH, *arguments]) == 2
    assert "is an input" in one_line(capsys)
    assert Path("scan.pics").read_bytes() == photo == Path("hard.pics").read_bytes()
    assert not Path("photo.pics").exists()


def test_a_file_that_is_called_a_picture_is_not_decoded_over_itself(
    photo: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SKETCH, "photo.png", "-o", "coded.pics"]) == 0
    coded = Path("coded.pics").rename("coded.png").read_bytes()
    capsys.readouterr()
    for arguments in (["coded.png"], ["coded.png", "-o", "coded.png"]):
        assert main(["decode", *arguments]) == 2
        assert "coded.png: is an input" in one_line(capsys)
    assert Path("coded.png").read_bytes() == coded


def test_parts_are_not_written_among_the_inputs(
    photo: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("photo").mkdir()
    Path("photo/original.png").write_bytes(photo)
    arguments = ["--mode", "pic", "--decoder", "picsnet-mini", "--save-parts", "."]
    assert main(["encode", ".", *arguments]) == 2
    assert "--save-parts .: photo holds inputs" in one_line(capsys)


@pytest.mark.parametrize("out", [".", "", "link", "../{}"])
def test_the_folder_of_the_inputs_keeps_its_photographs(
    out: str, photo: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether -o names it or is left out."""
    Path("link").symlink_to(".")
    assert main([*SKETCH, "photo.png"]) == 0
    capsys.readouterr()
    place = ["-o", out.format(Path.cwd().name)] if out else []
    assert main(["decode", "photo.pics", *place]) == 1
    assert "is there already" in one_line(capsys)
    assert Path("photo.png").read_bytes() == photo
    # A folder of its own may have older results, and a file that is named is meant.
    for place in (["-o", "out"], ["-o", "out"], ["-o", "photo.png"]):
        assert main(["decode", "photo.pics", *place]) == 0
    assert Path("photo.png").read_bytes() == Path("out/photo.png").read_bytes() != photo


def test_capitals_of_a_suffix_do_not_make_a_folder(photo: bytes) -> None:
    assert main([*SKETCH, "photo.png", "-o", "PHOTO.PICS"]) == 0
    assert main(["decode", "PHOTO.PICS", "-o", "BACK.PNG"]) == 0
    with Image.open("BACK.PNG") as back:
        assert (back.format, back.size) == ("PNG", (64, 64))


@pytest.mark.parametrize(
    ("verb", "out", "words"),
    [
        (["decode", "photo.pics"], "back.jpg", "-o back.jpg: results are .png files, not .jpg"),
        (["decode", "photo.pics"], "b.PICS", "-o b.PICS: results are .png files, not .pics"),
        ([*SKETCH, "photo.png"], "coded.Png", "-o coded.Png: results are .pics files, not .png"),
        (["decode", "photo.pics"], "-", "-o -: nothing is written to stdout; name a .png file"),
        ([*SKETCH, "photo.png"], "-", "-o -: nothing is written to stdout; name a .pics file"),
    ],
)
def test_a_file_of_another_kind_is_refused(
    verb: list[str], out: str, words: str, photo: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("photo.pics").write_bytes(b"")
    assert main([*verb, "-o", out]) == 2
    assert words in one_line(capsys)
    assert sorted(os.listdir()) == ["photo.pics", "photo.png"]


def test_folders_may_be_called_anything(photo: bytes) -> None:
    Path("set.jpg").mkdir()
    assert main([*SKETCH, "photo.png", "-o", "set.jpg"]) == 0
    assert main([*SKETCH, "photo.png", "-o", "new.png/"]) == 0
    assert main([*SKETCH, "photo.png", "-o", "v1.5"]) == 0
    for folder in ("set.jpg", "new.png", "v1.5"):
        assert os.listdir(folder) == ["photo.pics"]
