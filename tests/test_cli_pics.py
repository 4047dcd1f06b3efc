"""PIC and PICS by the command line: sender and receiver are processes of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from picsnet.cli import main
from picsnet.images import load_rgb
from tests.test_cli import photograph, picsnet


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    photograph(0).save(folder / "a.png")
    photograph(1, (150, 100)).save(folder / "b.jpg")
    (folder / "a.txt").write_text("a red house\n")
    (folder / "b.txt").write_text("two dogs on snow\n")
    return folder


@pytest.mark.parametrize("mode", ["pics", "pic"])
def test_what_the_receiver_draws_is_the_senders_reconstruction(
    mode: str, photos: Path, miniature_decoder: Path, tmp_path: Path
) -> None:
    arguments = ["--decoder", miniature_decoder, "--mode", mode, "--candidates", "3"]
    arguments += ["--tokens", "4", "--inversion-steps", "4", "--seed", "7", "--device", "cpu"]
    parts = tmp_path / "parts"
    first = picsnet(
        "encode", photos / "a.png", *arguments, "-o", tmp_path / "one.pics", "--json",
        "--save-parts", parts,
    )  # fmt: skip
    assert first.returncode == 0 and first.stderr == ""
    row = json.loads(first.stdout)
    data = (tmp_path / "one.pics").read_bytes()
    assert len(row["ids"]) == 4 and len(row["scores"]) == 3
    assert row["bytes"] == len(data) == sum(row["layers"].values())
    assert (row["layers"]["sketch"] > 0) == (mode == "pics")

    info = json.loads(picsnet("info", tmp_path / "one.pics", "--json").stdout)
    assert info["overhead_bytes"] <= 16
    assert info["candidate"] == row["candidate"] == int(np.argmax(row["scores"]))
    assert (info["candidate_bits"], info["size"]) == (2, 128)

    result = picsnet(
        "decode", tmp_path / "one.pics", "--decoder", miniature_decoder, "--device", "cpu",
        "-o", tmp_path / "back.png", "--json",
    )  # fmt: skip
    assert result.returncode == 0 and result.stderr == ""
    back = json.loads(result.stdout)
    assert back["prompt"] == row["prompt"] and (back["width"], back["height"]) == (128, 96)
    drawn = Image.open(parts / "a" / "reconstruction.png")
    expected = np.asarray(drawn.resize((128, 96), Image.Resampling.LANCZOS))
    assert np.array_equal(load_rgb(tmp_path / "back.png"), expected)

    kept = {path.name for path in (parts / "a").iterdir()}
    assert {"original.png", "prompt.txt", "candidate_02.png", "side_by_side.png"} <= kept
    assert ("decoded_sketch.png" in kept) == (mode == "pics")
    wide = Image.open(parts / "a" / "side_by_side.png")
    assert wide.width > (3 if mode == "pics" else 1.9) * drawn.width


def run(*arguments: str | Path) -> int:
    """The verb in this process: imports of diffusers are paid once."""
    return main([str(argument) for argument in arguments])


def test_the_same_inputs_and_seed_give_the_same_bytes(
    photos: Path, miniature_decoder: Path, tmp_path: Path
) -> None:
    arguments = ["--decoder", miniature_decoder, "--candidates", "2", "--device", "cpu", "-q"]
    arguments += ["--tokens", "4", "--inversion-steps", "4"]
    for name in ("one", "two"):
        assert run("encode", photos / "a.png", *arguments, "-o", tmp_path / f"{name}.pics") == 0
    assert (tmp_path / "one.pics").read_bytes() == (tmp_path / "two.pics").read_bytes()
    for seed in range(1, 6):  # one of two candidates and few steps: two seeds may well agree
        run(
            "encode",
            photos / "a.png",
            *arguments,
            "--seed",
            str(seed),
            "-o",
            tmp_path / "other.pics",
        )
        if (tmp_path / "one.pics").read_bytes() != (tmp_path / "other.pics").read_bytes():
            return
    raise AssertionError("five other seeds gave the same bytes")


def test_prompts_beside_pictures_and_a_cut_file(
    photos: Path, miniature_decoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, decoder = tmp_path / "coded", ["--decoder", miniature_decoder]
    sidecars = ["--prompts", "sidecar", "--candidates", "1", "--json"]
    assert run("encode", photos, *decoder, *sidecars, "-o", out) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["prompt"] for row in rows] == ["a red house", "two dogs on snow"]

    # The sketch alone needs no decoder.
    assert run("decode", out / "a.pics", "--sketch-only", "-o", tmp_path / "sketch.png") == 0
    assert Image.open(tmp_path / "sketch.png").size == (168, 128)

    # It is larger than its picture, and has to be allowed too.
    few = ["--max-pixels", "20000", "-o", tmp_path / "none.png"]
    assert run("decode", out / "a.pics", "--sketch-only", *few) == 1
    assert "its sketch is 168x128" in capsys.readouterr().err
    assert not (tmp_path / "none.png").exists()

    data = (out / "b.pics").read_bytes()
    (out / "b.pics").write_bytes(data[:-3])
    capsys.readouterr()
    assert run("decode", out / "b.pics", *decoder, "-o", tmp_path / "b.png") == 1
    assert "cut short" in capsys.readouterr().err
    partial = ["--partial", "-o", tmp_path / "b.png", "--json"]
    assert run("decode", out / "b.pics", *decoder, *partial) == 0
    said = capsys.readouterr()
    assert "b.pics: its sketch did not arrive whole" in said.err
    row = json.loads(said.out)
    assert row["missing"] == ["sketch"] and row["prompt"] == "two dogs on snow"
    assert load_rgb(tmp_path / "b.png").shape == (150, 100, 3)


def test_another_decoder_is_refused_in_one_line(
    photos: Path, miniature_decoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, decoder = tmp_path / "a.pics", ["--decoder", miniature_decoder]
    plain = ["--prompt", "a dog", "--candidates", "1"]
    assert run("encode", photos / "a.png", *decoder, *plain, "-o", target) == 0
    capsys.readouterr()
    others = ["--decoder-set", "steps=2", "-o", tmp_path / "x.png"]
    assert run("decode", target, *decoder, *others) == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and "--decoder-set" in errors[0]
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (["--mode", "pics", "--decoder", "none"], "needs a decoder", 2),
        (["--mode", "sketch", "--prompt", "a dog"], "holds no prompt", 2),
        (["--mode", "sketch", "--decoder", "sd21-hed"], "holds no prompt", 2),
        (["--decoder", "sd21-hde"], "did you mean sd21-hed", 2),
        (["--decoder", "sd21-hed", "--sketcher", "map"], "needs photographs", 2),
        (["--decoder", "sd21-hed", "--candidates", "99"], "1 to 32", 2),
        (["--decoder", "sd21-hed", "--prompt", "x", "--prompts", "sidecar"], "exclude", 2),
        (["--decoder", "sd21-hed", "--prompts", "no.csv"], "no.csv", 1),
        (["--decoder", "./nowhere/model", "--prompt", "x"], "no such folder", 1),
        (["--mode", "pics", "--device", "cuda:77", "--prompt", "x"], "--device cuda:77", 2),
    ],
)
def test_impossible_wishes_end_in_one_line(
    arguments: list[str], words: str, status: int, photos: Path, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    target = tmp_path / "x.pics"
    assert main(["encode", str(photos / "a.png"), "-o", str(target), *arguments]) == status
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("picsnet: error: ")
    assert words in errors[0]
    assert not target.exists()


def test_parts_of_two_pictures_are_not_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [tmp_path / folder / "same.png" for folder in ("one", "two")]
    for seed, path in enumerate(pictures):
        path.parent.mkdir()
        photograph(seed).save(path)
    # Without -o their files lie beside them, and are two.
    parts = ["--save-parts", tmp_path / "parts", "--mode", "pics"]
    assert run("encode", *pictures, *parts, "--decoder", "sd21-hed") == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and "would both be written" in errors[0]
    assert not (tmp_path / "parts").exists()


def test_prompts_from_a_table(photos: Path, tmp_path: Path) -> None:
    from picsnet.cli.prompts import user_prompts
    from picsnet.errors import DataError, UsageError
    from picsnet.files import expand_inputs

    items = expand_inputs([photos], frozenset({".png", ".jpg"}))
    table = tmp_path / "prompts.csv"
    table.write_text('file,prompt\na.png,"a house, red"\n')
    prompter = user_prompts(None, str(table), 2)
    assert prompter(items[0]) == "a house, red"
    with pytest.raises(DataError, match=r"b\.jpg: no line"):
        prompter(items[1])
    table.write_bytes(b"file,prompt\ra.png,a house\rb.jpg,a dog\r")  # as a Mac once ended lines
    assert [user_prompts(None, str(table), 2)(item) for item in items] == ["a house", "a dog"]
    for rows, words in {
        "a.png,a house, red\n": "line 2 has more columns",  # else "a house" would be sent
        'a.png,"a house\nb.jpg,a dog\n': "cannot be read",  # else one prompt of two lines
        f"a.png,{'x' * 140_000}\n": "cannot be read",
    }.items():
        table.write_text(f"file,prompt\n{rows}")
        with pytest.raises(DataError, match=words) as caught:
            user_prompts(None, str(table), 2)
        assert "\n" not in str(caught.value)
    table.write_text("name,text\na.png,x\n")
    with pytest.raises(DataError, match="columns"):
        user_prompts(None, str(table), 2)
    with pytest.raises(UsageError, match="--prompts"):
        user_prompts("one text", None, 2)


def test_models_lists_decoders_with_revision_and_licence() -> None:
    result = picsnet("models", "--json")
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    decoders = {row["name"]: row for row in rows if row["kind"] == "decoder"}
    assert {"sd21-hed", "sd15-hed", "sd-turbo-hed", "lcm-softedge"} <= set(decoders)
    paper = decoders["sd21-hed"]
    assert len(paper["pipeline"]["revision"]) == 40
    assert paper["licence"] and paper["gigabytes"] and paper["cached"] in (True, False)
    assert "thibaud/controlnet-sd21-hed-diffusers" in picsnet("models").stdout
