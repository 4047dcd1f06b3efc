"""The rate-distortion benchmark: rates of files, hulls, BD-rate, JSON and figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import sketch_rd
from benchmarks.sketch_rd import (
    BEST,
    OURS,
    PAPER,
    PaperPoint,
    Summary,
    at_quality_of_paper,
    code_one,
    compare,
    tables,
)
from picsnet.checkpoints import load_model
from picsnet.classical import ClassicalPoint
from picsnet.errors import UsageError
from picsnet.evaluation.edges import thinned
from tests.conftest import REPOSITORY, drawn_map
from tests.test_checkpoints import lightning_checkpoint
from tests.vectors import FOLDER as VECTORS


@pytest.fixture(scope="module")
def small_maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small_maps")
    for seed in range(2):
        Image.fromarray(drawn_map(176, 200, seed)).save(folder / f"map{seed}.png")
    return folder


class StoredMap:
    """A codec of ours that keeps every 16th pixel; big enough a loss to be measured."""

    codec = OURS

    def __init__(self, spec: str, device: str) -> None:
        self.name, self.lmbda = f"{OURS} {spec}", float(spec)
        self._step = round(16 / self.lmbda)

    def encode(self, sketch: np.ndarray) -> bytes:
        small = Image.fromarray(sketch[:: self._step, :: self._step])
        return bytes(sketch.shape) + bytes(small.size) + small.tobytes()

    def decode(self, data: bytes) -> np.ndarray:
        small = Image.frombytes("L", (data[2], data[3]), data[4:])
        return np.asarray(small.resize((data[1], data[0])))

    def container_bytes(self, data: bytes) -> int:
        return 0


def test_report_figures_and_tables(
    small_maps: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        sketch_rd,
        "load_models",
        lambda specs, device, efforts: [StoredMap(spec, device) for spec in sorted(specs)],
    )
    figure = tmp_path / "docs" / "copy.png"
    arguments = ["--maps", str(small_maps), "--ckpt", "4", "2", "8", "--codecs", "JPEG", "WEBP"]
    arguments += ["-q", "-o", str(tmp_path / "out"), "--figure", str(figure)]
    assert sketch_rd.main(arguments) == 0

    report = json.loads((tmp_path / "out" / "sketch_rd.json").read_text())
    assert report["settings"]["pictures"] == ["map0.png", "map1.png"]
    ours = [point for point in report["points"] if point["codec"] == OURS]
    assert [point["lmbda"] for point in ours] == [2, 4, 8]
    assert {point["codec"] for point in report["points"]} == {OURS, "JPEG", "WEBP"}
    assert len(report["rows"]) == 2 * len(report["points"])
    for point in report["points"]:
        rows = [row for row in report["rows"] if row["point"] == point["point"]]
        assert point["bpp"] == pytest.approx(np.mean([8 * r["bytes"] / (176 * 200) for r in rows]))
        assert point["ms_ssim"] == pytest.approx(np.mean([row["ms_ssim"] for row in rows]))
    compared = {(c["anchor"], c["metric"], c["anchor_rate"]) for c in report["bd_rate"]}
    assert (
        len(compared) == 3 * 3 * 2
    )  # JPEG, WebP and both; three measures; with container and without

    with Image.open(figure) as picture, Image.open(tmp_path / "out/sketch_rd.png") as same:
        assert picture.size == same.size and picture.width > 1000
    assert "<svg" in (tmp_path / "out" / "sketch_rd.svg").read_text()
    printed = capsys.readouterr().out
    assert "picsnet 4" in printed and "BD-rate" in printed and "| WebP |" in printed


def test_an_interrupted_run_goes_on_where_it_stopped(
    small_maps: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    coded: list[tuple[str, str]] = []
    stop_at = 7

    def counted(picture: str, sketch: Any, edges: Any, point: Any, path: Path) -> Any:
        if len(coded) == stop_at:
            raise KeyboardInterrupt
        coded.append((picture, point.name))
        return code_one(picture, sketch, edges, point, path)

    monkeypatch.setattr(sketch_rd, "code_one", counted)
    monkeypatch.setattr(sketch_rd, "load_models", lambda *_: [StoredMap("2", "cpu")])
    arguments = ["--maps", str(small_maps), "--codecs", "JPEG", "-q"]
    out = tmp_path / "out"
    rows = out / "rows.jsonl"
    assert sketch_rd.main([*arguments, "-o", str(out)]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["rows.jsonl"]
    with rows.open("a") as file:
        file.write('["half a li')  # as SIGKILL would leave it
    before, stop_at = list(coded), 1000
    assert sketch_rd.main([*arguments, "-o", str(out)]) == 0
    assert f"{len(before)} files were coded before" in capsys.readouterr().err
    report = json.loads((out / "sketch_rd.json").read_text())
    assert len(coded) == len(set(coded)) == len(report["rows"])
    assert [(row["picture"], row["point"]) for row in report["rows"]] == coded
    assert not rows.exists()


def test_a_run_holds_its_folder_until_its_rows_are_dropped(
    small_maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one that began in between would have its rows dropped."""
    from benchmarks import kept_rows, sketch_rd_figure

    rows = tmp_path / "out" / "rows.jsonl"
    refused: list[str] = []

    def begin_another(*_: Any) -> None:
        try:
            with kept_rows.KeptRows(rows, "another"):
                pass
        except UsageError as error:
            refused.append(str(error))

    monkeypatch.setattr(sketch_rd_figure, "draw", begin_another)
    monkeypatch.setattr(sketch_rd, "load_models", lambda *_: [StoredMap("2", "cpu")])
    arguments = ["--maps", str(small_maps), "--codecs", "-q", "-o", str(tmp_path / "out")]
    assert sketch_rd.main(arguments) == 0
    assert len(refused) == 1 and "another run" in refused[0]
    assert [path.name for path in rows.parent.iterdir()] == ["sketch_rd.json"]


def test_rows_of_other_code_or_maps_are_measured_anew(
    small_maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import kept_rows

    rows = tmp_path / "rows.jsonl"
    sketch = drawn_map(176, 200, seed=1)
    maps, points = [("a.png", sketch)], [StoredMap("2", "cpu")]
    calls: list[str] = []

    def counted(*arguments: Any) -> Any:
        calls.append("coded")
        return code_one(*arguments)

    def measured(about: str, pictures: Any = maps) -> int:
        calls.clear()
        with kept_rows.KeptRows(rows, about) as kept:
            sketch_rd.code(pictures, points, kept, quiet=True)
        return len(calls)

    monkeypatch.setattr(sketch_rd, "code_one", counted)
    assert [measured("one"), measured("one"), measured("another")] == [1, 0, 1]
    assert measured("another", [("a.png", 255 - sketch)]) == 1
    monkeypatch.setattr(points[0], "weights", "others", raising=False)
    assert measured("another") == 1


def test_a_model_is_known_by_its_encoder_too() -> None:
    model = load_model(VECTORS / "picsnet-context")
    before = sketch_rd.ModelPoint(model, model.quality, 0).weights
    with torch.no_grad():
        next(model.network.g_a.parameters()).add_(1)
    assert sketch_rd.ModelPoint(model, model.quality, 0).weights != before


def test_rate_is_the_size_of_the_file_on_disk(tmp_path: Path) -> None:
    sketch = drawn_map(176, 200, seed=1)
    point = ClassicalPoint("JPEG", 5, 2)
    row = code_one("a.png", sketch, thinned(sketch), point, tmp_path / "coded")
    assert row.bytes == (tmp_path / "coded").stat().st_size
    assert row.bpp == row.bytes * 8 / (176 * 200)
    assert 0 < row.ms_ssim < 1
    assert 0 < row.edge_f < 1
    assert row.encode_ms > 0 and row.decode_ms > 0


def test_bd_rate_compares_with_the_hull_of_each_codec() -> None:
    def summary(codec: str, rate: float, decibels: float) -> Summary:
        quality = 1 - 10 ** (-decibels / 10)
        return Summary(
            codec=codec,
            point=f"{codec} {rate}",
            lmbda=None,
            bpp=rate,
            bare_bpp=rate / 2,
            bytes=1.0,
            ms_ssim=quality,
            ms_ssim_db=decibels,
            edge_f=decibels / 10,
            encode_ms=1.0,
            decode_ms=1.0,
        )

    ours = [summary(OURS, rate, q) for rate, q in ((0.005, 4.0), (0.01, 6.0), (0.02, 8.0))]
    anchor = [summary("AVIF", rate, q) for rate, q in ((0.01, 4.0), (0.02, 6.0), (0.04, 8.0))]
    worse = summary("AVIF", 0.021, 4.5)
    results = {(r["metric"], r["anchor_rate"]): r for r in compare([*ours, *anchor, worse])}
    assert results["ms_ssim_db", "bpp"]["percent"] == pytest.approx(-50)
    assert results["ms_ssim", "bpp"]["percent"] == pytest.approx(-50)
    assert results["edge_f", "bpp"]["percent"] == pytest.approx(-50)
    assert results["ms_ssim_db", "bare_bpp"]["percent"] == pytest.approx(0, abs=1e-6)
    assert {r["anchor"] for r in compare([*ours, *anchor])} == {"AVIF"}
    # With two classical codecs, their best together is an opponent, too; the paper's is not in it.
    jpeg = [summary("JPEG", rate, q) for rate, q in ((0.005, 4.0), (0.1, 6.0), (0.2, 8.0))]
    paper = [summary(PAPER, rate, q) for rate, q in ((0.001, 4.0), (0.002, 6.0), (0.004, 8.0))]
    best = {
        r["anchor"]: r["percent"]
        for r in compare([*ours, *anchor, *jpeg, *paper])
        if (r["metric"], r["anchor_rate"]) == ("ms_ssim", "bpp")
    }
    assert set(best) == {"AVIF", "JPEG", PAPER, BEST}
    assert best["AVIF"] < best[BEST] < 0 < best[PAPER]
    (needed,) = at_quality_of_paper([*ours, *paper], rate=0.002)
    assert needed["bpp"] == pytest.approx(0.01)
    assert needed["bytes_at_512x512"] == pytest.approx(0.01 * 512 * 512 / 8)
    assert at_quality_of_paper([*ours, *paper], rate=0.01) == []
    # Ours begins with more than the paper's network has there: so few are enough.
    (needed,) = at_quality_of_paper([*ours[1:], *paper], rate=0.0015)
    assert needed["bytes_at_512x512"] is None
    assert needed["end"] == {"ms_ssim_db": ours[1].ms_ssim_db, "bpp": ours[1].bpp}
    report = {"points": [], "bd_rate": [], "prediction": None, "at_the_papers_quality": [needed]}
    assert "picsnet has " in tables(report) and "its fewest." in tables(report)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--maps", "EMPTY"], "name another folder"),
        (["--maps", "SMALL"], "too small for MS-SSIM"),
        (["--maps", "SMALL", "--codecs", "--ckpt", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders: dict[str, Any] = {name: tmp_path / name.lower() for name in ("EMPTY", "SMALL")}
    for folder in folders.values():
        folder.mkdir()
    Image.fromarray(drawn_map(160, 200, seed=1)).save(folders["SMALL"] / "map.png")
    given = [str(folders.get(argument, argument)) for argument in arguments]
    # Without models of its own, a run with classical codecs alone still finds the mistake.
    assert sketch_rd.main([*given, "-q", "-o", str(tmp_path / "out")]) != 0
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("sketch_rd: error: ") and message in last
    assert not (tmp_path / "out").exists()


def test_the_papers_network_goes_through_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec = lightning_checkpoint(tmp_path / "last.ckpt", "cheng2020-attn-sketch", {"N": 8})
    point = PaperPoint(str(spec))
    assert point.lmbda == 0.5
    sketch = drawn_map(176, 200, seed=1)
    row = code_one("a.png", sketch, thinned(sketch), point, tmp_path / "coded")
    assert row.bytes == (tmp_path / "coded").stat().st_size > 10
    decoded = point.decode((tmp_path / "coded").read_bytes())
    assert decoded.shape == sketch.shape and decoded.dtype == np.uint8


def test_it_runs_as_a_file(small_maps: Path, tmp_path: Path) -> None:
    script = REPOSITORY / "benchmarks" / "sketch_rd.py"
    arguments = ["--maps", small_maps, "--ckpt", "sketch_ntc_lambda0.5", "--codecs", "-q"]
    command = [sys.executable, script, *arguments, "--limit", "1", "-o", "out"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "out" / "sketch_rd.png").stat().st_size > 10_000


def test_our_points_are_the_networks_lambdas(
    small_maps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A network for a range has a point at each; rates go up with them, and are as predicted."""
    arguments = ["--maps", str(small_maps), "--codecs", "-q", "-o", str(tmp_path / "out")]
    arguments += ["--ckpt", "sketch_ntc_range", "--efforts", "0", "1"]
    assert sketch_rd.main(arguments) == 0
    report = json.loads((tmp_path / "out" / "sketch_rd.json").read_text())
    points = [(point["codec"], point["lmbda"]) for point in report["points"]]
    assert points == [
        (codec, lmbda)
        for codec in (OURS, f"{OURS}, effort 1")
        for lmbda in (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0)
    ]
    rates = [point["bpp"] for point in report["points"][:6]]
    assert rates == sorted(set(rates))
    assert report["prediction"]["files"] == 12
    assert report["prediction"]["excess_bytes"] < 4
    assert "likelihoods" in capsys.readouterr().out
