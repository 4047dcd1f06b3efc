"""The command line in processes of its own: nothing but files passes from sender to receiver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from picsnet.errors import BitstreamError
from picsnet.images import load_grey
from tests import processes
from tests.conftest import REPOSITORY, drawn_map


def picsnet(*arguments: str | Path, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    return processes.run([sys.executable, "-m", "picsnet", *arguments], cwd)


def one_line(result: subprocess.CompletedProcess[str], status: int = 1) -> str:
    assert result.returncode == status, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("picsnet: error: ")
    return lines[0]


def photograph(seed: int, size: tuple[int, int] = (96, 128)) -> Image.Image:
    blocks = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(blocks).resize(size[::-1], Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "sub").mkdir()
    photograph(0).save(folder / "a.png")
    photograph(1, (150, 70)).save(folder / "sub" / "b.jpg")
    return folder


@pytest.fixture(scope="module")
def coded(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("coded")
    result = picsnet("encode", "--mode", "sketch", photos, "-o", out)
    assert result.returncode == 0, result.stderr
    return out


def test_folders_go_in_and_folders_come_out(coded: Path, tmp_path: Path) -> None:
    assert sorted(p.relative_to(coded).as_posix() for p in coded.rglob("*.pics")) == [
        "a.pics",
        "sub/b.pics",
    ]
    result = picsnet("decode", coded, "-o", tmp_path, "--json")
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["width"], row["height"]) for row in rows] == [(128, 96), (70, 150)]
    assert load_grey(tmp_path / "sub" / "b.png").shape == (150, 70)
    assert load_grey(tmp_path / "a.png").any()


def test_rate_is_the_size_of_the_file(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "one.pics"
    result = picsnet("encode", "--mode", "sketch", photos / "a.png", "-o", target, "--json")
    row = json.loads(result.stdout)
    assert row["bytes"] == target.stat().st_size == sum(row["layers"].values())
    assert row["bpp"] == pytest.approx(8 * target.stat().st_size / (96 * 128))
    info = json.loads(picsnet("info", target, "--json").stdout)
    assert info["bytes"] == row["bytes"]
    assert info["layers"] == row["layers"]


def test_root_scripts_are_the_verbs(photos: Path, tmp_path: Path) -> None:
    for script, arguments in (
        (
            "encode.py",
            [
                "--mode",
                "sketch",
                "--ckpt",
                "sketch_ntc_lambda1.0",
                str(photos / "a.png"),
                "-o",
                "x.pics",
            ],
        ),
        ("decode.py", ["x.pics", "-o", "x.png", "--sketch-only"]),
    ):
        result = subprocess.run(
            [sys.executable, REPOSITORY / script, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
    assert load_grey(tmp_path / "x.png").shape == (96, 128)


def test_maps_can_be_coded_as_they_are(tmp_path: Path) -> None:
    Image.fromarray(drawn_map(64, 64, 0)).save(tmp_path / "map.png")
    result = picsnet("encode", "--mode", "sketch", "--sketcher", "map", tmp_path / "map.png")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "map.pics").is_file()


def test_a_broken_picture_is_named_and_the_others_are_coded(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    photograph(2).save(folder / "good.png")
    (folder / "bad.png").write_text("dear diary")
    result = picsnet("encode", "--mode", "sketch", folder, "-o", tmp_path / "out")
    assert "bad.png" in one_line(result)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.pics"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"text", "not a .pics file"),
        (None, "checksum"),
        (b"\xf5\x12\x7f", "cut short"),
    ],
)
def test_damaged_files_are_one_line_and_leave_nothing(
    coded: Path, tmp_path: Path, content: bytes | None, words: str
) -> None:
    bad = tmp_path / "bad.pics"
    data = bytearray((coded / "a.pics").read_bytes())
    data[len(data) // 2] ^= 4
    bad.write_bytes(bytes(data) if content is None else content)
    for verb in (["decode", bad, "-o", tmp_path / "out"], ["info", bad]):
        line = one_line(picsnet(*verb))
        assert words in line
        assert "bad.pics" in line
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_cut_file_is_refused(coded: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pics"
    bad.write_bytes((coded / "a.pics").read_bytes()[:-3])
    assert "damaged or cut short" in one_line(picsnet("decode", bad))
    assert not (tmp_path / "bad.png").exists()


def test_usage_mistakes(photos: Path, tmp_path: Path) -> None:
    assert "no such file" in one_line(
        picsnet("encode", "--mode", "sketch", tmp_path / "nothing.png"), 2
    )
    assert "no files of these kinds" in one_line(picsnet("encode", "--mode", "sketch", tmp_path), 1)
    line = one_line(picsnet("encode", "--mode", "sketch", photos, "-o", tmp_path / "one.pics"), 2)
    assert "names one file for 2 inputs" in line
    assert picsnet("encode").returncode == 2
    for option, words in {
        ("--quality", "nan"): "must be 0 to 5",
        ("--quality", "6"): "must be 0 to 5",
        ("--effort", "10"): "must be 0 to 9",
    }.items():
        arguments = ["encode", "--mode", "sketch", photos, *option, "-o", tmp_path / "out"]
        assert words in one_line(picsnet(*arguments), 2)
    arguments = ["encode", "--mode", "pic", "--quality", "1", photos, "-o", tmp_path / "out"]
    assert "--mode pic sends none" in one_line(picsnet(*arguments), 2)
    assert not (tmp_path / "out").exists()
    assert "no CUDA device" in one_line(
        picsnet("encode", "--mode", "sketch", photos, "--device", "cuda", "-o", tmp_path), 2
    )


def test_two_inputs_for_one_output_are_refused(tmp_path: Path) -> None:
    photograph(1).save(tmp_path / "a.png")
    photograph(2).save(tmp_path / "a.jpg")
    assert "would both be written" in one_line(
        picsnet("encode", "--mode", "sketch", tmp_path, "-o", tmp_path / "o"), 2
    )


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 rubbish"])
def test_bad_checkpoints_are_one_line(photos: Path, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.ckpt"
    if content is not None:
        path.write_bytes(content)
    line = one_line(
        picsnet("encode", "--mode", "sketch", "--ckpt", path, photos / "a.png", "-o", tmp_path)
    )
    assert "model.ckpt" in line


def test_unknown_models_list_those_that_ship(photos: Path) -> None:
    line = one_line(
        picsnet("encode", "--mode", "sketch", "--ckpt", "sketch_ntc_lambda9", photos / "a.png")
    )
    assert "sketch_ntc_lambda0.5" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission_to_write(photos: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "no permission" in one_line(
        picsnet("encode", "--mode", "sketch", photos / "a.png", "-o", tmp_path / "o.pics")
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev")
def test_a_full_disk_is_one_line_and_leaves_nothing(photos: Path, tmp_path: Path) -> None:
    """A file size limit stands in for a full disk: the write fails part way."""
    target = tmp_path / "o.pics"
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from picsnet.cli import main;"
        f"import torch; resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20));"
        f"sys.exit(main(['encode', '--mode', 'sketch', {str(photos / 'a.png')!r},"
        f" '-o', {str(target)!r}]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert "o.pics: cannot be written" in one_line(result)
    assert list(tmp_path.iterdir()) == []


def test_help_and_info_load_no_torch(coded: Path) -> None:
    for arguments in (["--help"], ["info", str(coded / "a.pics")], ["models"]):
        script = (
            "import sys\nfrom picsnet.cli import main\n"
            f"try:\n main({arguments!r})\nexcept SystemExit: pass\n"
            "heavy = {'torch', 'numpy', 'lightning', 'wandb', 'compressai'} & set(sys.modules)\n"
            "assert not heavy, heavy"
        )
        result = subprocess.run(
            [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr


def test_decoding_loads_no_training_code(coded: Path, tmp_path: Path) -> None:
    script = (
        "import sys\nfrom picsnet.cli import main\n"
        f"assert main(['decode', {str(coded / 'a.pics')!r}, '-o', {str(tmp_path)!r}]) == 0\n"
        "heavy = {'lightning', 'pytorch_lightning', 'wandb', 'diffusers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_models_lists_what_ships() -> None:
    result = picsnet("models", "--json")
    names = {json.loads(line)["name"] for line in result.stdout.splitlines()}
    assert {"edge_bsds500", "sketch_ntc_lambda0.5"} <= names


def test_errors_keep_their_traceback_with_debug(tmp_path: Path) -> None:
    (tmp_path / "bad.pics").write_bytes(b"")
    result = picsnet("decode", tmp_path / "nowhere.pics", "--debug")
    assert "Traceback" in result.stderr
    assert issubclass(BitstreamError, Exception)
