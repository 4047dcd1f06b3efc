"""Reports by the command line: what is in the folder, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from picsnet.cli import main
from picsnet.report.loading import load_published
from tests.evaluated import HOSTILE_PROMPT, save_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return save_run(tmp_path / "runs" / "small")


def _report(tmp_path: Path, *arguments: str | Path) -> int:
    return main(["report", *map(str, arguments), "-o", str(tmp_path / "report")])


def _data(tmp_path: Path) -> dict[str, Any]:
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    data: dict[str, Any] = json.loads(found)
    return data


def test_everything_the_page_names_is_in_the_folder(tmp_path: Path, run: Path) -> None:
    assert _report(tmp_path, run) == 0
    folder, data = tmp_path / "report", _data(tmp_path)
    assert len(data["gallery"]) == 2 and len(data["rows"]) == 10 and len(data["points"]) == 5
    for photo in data["gallery"]:
        assert len(photo["items"]) == 5
        paths = [photo["original"]]
        for item in photo["items"]:
            paths += [item[key] for key in ("decoded", "sketch", "decoded_sketch") if key in item]
        assert len(paths) == 1 + 3 * 3 + 2
        for path in paths:
            with Image.open(folder / path) as picture:
                assert picture.size == (96, 64)
    text = (folder / "index.html").read_text()
    addresses = re.findall(r"https?://[^\s\"'<]+", text)
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}  # a name, not a fetch
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".png", ".svg"}
    assert (folder / "figures" / "kodak_psnr.png").is_file()


def test_figures_of_others_are_named_as_theirs(tmp_path: Path, run: Path) -> None:
    _report(tmp_path, run)
    published = _data(tmp_path)["published"]
    assert all(point["source"] for point in published)
    paper = [p for p in published if "2307.01944" in p["source"]]
    assert len(paper) == 30
    pics = {(p["dataset"], p["metric"]): p for p in paper if p["system"] == "PICS (paper)"}
    assert pics["clic2021", "clip_distance"]["value"] == 0.2119
    assert pics["div2k", "kid"]["bpp"] == 0.0172
    assert len(load_published()) == len(published)


def test_bd_rates_are_there_both_ways(tmp_path: Path, run: Path) -> None:
    _report(tmp_path, run)
    rates = {(r["measure"], r["codec"], r["anchor"]): r for r in _data(tmp_path)["bd_rates"]}
    assert set(rates) == {
        (measure, codec, anchor)
        for measure in ("psnr", "ms_ssim")
        for codec, anchor in (("PICS", "WebP"), ("WebP", "PICS"))
    }
    ours, theirs = rates["ms_ssim", "PICS", "WebP"], rates["ms_ssim", "WebP", "PICS"]
    assert (1 + ours["percent"] / 100) * (1 + theirs["percent"] / 100) == pytest.approx(1, abs=0.02)


def test_texts_out_of_files_cannot_end_the_script(tmp_path: Path, run: Path) -> None:
    _report(tmp_path, run)
    text = (tmp_path / "report" / "index.html").read_text()
    assert "<img src=x" not in text and text.count("</script>") == 2
    assert {row["prompt"] for row in _data(tmp_path)["rows"] if "prompt" in row} == {HOSTILE_PROMPT}


def test_pictures_may_be_fewer_or_lossless(tmp_path: Path, run: Path) -> None:
    assert _report(tmp_path, run, "--pictures", "1", "--lossless") == 0
    data = _data(tmp_path)
    assert len(data["gallery"]) == 1 and len(data["rows"]) == 10
    assert data["gallery"][0]["original"].endswith(".png")
    assert not list((tmp_path / "report").rglob("*.webp"))


def test_runs_on_other_datasets_share_a_report(tmp_path: Path, run: Path) -> None:
    other = save_run(tmp_path / "runs" / "other", dataset="clic2021")
    assert _report(tmp_path, run, other) == 0
    assert _data(tmp_path)["datasets"] == ["kodak", "clic2021"]


def test_a_picture_that_is_gone_is_named(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    next(run.rglob("decoded.png")).unlink()
    assert _report(tmp_path, run) == 0
    assert "decoded.png: is gone" in capsys.readouterr().err


def test_a_report_is_replaced_and_anything_else_is_not(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _report(tmp_path, run) == 0
    (tmp_path / "report" / "stale").write_text("x")
    assert _report(tmp_path, run) == 0
    assert not (tmp_path / "report" / "stale").exists()
    (tmp_path / "report" / "picsnet-report.json").unlink()
    assert _report(tmp_path, run) == 2
    assert "no report" in capsys.readouterr().err
    assert (tmp_path / "report" / "index.html").is_file()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("damage", ["absent", "empty", "not json", "twice", "same points"])
def test_mistakes_are_one_line(
    tmp_path: Path, run: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run]
    if damage == "absent":
        runs = [tmp_path / "nowhere"]
    elif damage == "empty":
        (run / "rows.csv").unlink()
    elif damage == "not json":
        (run / "summary.json").write_text("{")
    elif damage == "twice":
        runs = [run, run]
    else:
        runs = [run, save_run(tmp_path / "runs" / "again")]
    assert _report(tmp_path, *runs) in (1, 2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("picsnet: error: ")
    assert not (tmp_path / "report").exists()
