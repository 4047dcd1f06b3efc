"""Reports by the command line: what is in the folder, and what is refused."""

from __future__ import annotations

import csv
import errno
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from picsnet.cli import main
from picsnet.evaluation.config import DatasetConfig, EvaluationConfig
from picsnet.evaluation.measures import MEASURES
from picsnet.evaluation.preparing import Failure
from picsnet.evaluation.rows import save_rows
from picsnet.evaluation.summary import save_summary, summarise
from picsnet.report import writing
from picsnet.report.figures import draw_figures
from picsnet.report.published import Published, load_published, same_dataset
from picsnet.report.style import styles
from tests.evaluated import HOSTILE_PROMPT, save_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return save_run(tmp_path / "runs" / "small")


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Still figures are the slow part, and most tests are of something else."""
    monkeypatch.setattr("picsnet.report.page.draw_figures", lambda *_: {})


def _report(tmp_path: Path, *arguments: str | Path) -> int:
    return main(["report", *map(str, arguments), "-o", str(tmp_path / "report")])


def _data(tmp_path: Path) -> dict[str, Any]:
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    data: dict[str, Any] = json.loads(found)
    return data


def _edit_rows(run: Path, change: Callable[[dict[str, str]], None]) -> None:
    with open(run / "rows.csv", newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    for row in rows:
        change(row)
    with open(run / "rows.csv", "w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _edit_summary(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    summary = json.loads((run / "summary.json").read_text())
    change(summary)
    (run / "summary.json").write_text(json.dumps(summary))


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
    assert set(data["figures"]["kodak"]) == {"psnr", "ms_ssim", "sketch_ms_ssim"}
    for paths in data["figures"]["kodak"].values():
        assert [Path(path).suffix for path in paths] == [".png", ".svg"]
        assert all((folder / path).is_file() for path in paths)


def test_still_figures_of_the_same_points_are_the_same_files(tmp_path: Path) -> None:
    value = {"mean": 0.3, "low": 0.2, "high": 0.4, "bpp": 0.01}
    points = [{"codec": "a$b$ <c>", "measures": {"lpips": value}}]
    measures = {"lpips": {"label": "LPIPS", "unit": "", "higher_is_better": False}}
    others = [point for point in load_published() if point.dataset == "kodak"]
    files = [
        draw_figures(points, measures, others, "Kodak", tmp_path / name)["lpips"]
        for name in ("one", "two")
    ]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    svg = files[0][1].read_text()
    assert "StableCodec, published" in svg and "a$b$ &lt;c&gt;" in svg


def test_a_mean_that_is_rounded_out_of_its_interval_is_drawn(tmp_path: Path) -> None:
    values = [{"mean": 0.3, "low": 0.3 + 1e-16, "high": 0.3 - 1e-16, "bpp": 0.01}]
    points = [{"codec": "A", "measures": {"psnr": value}} for value in values]
    measures = {"psnr": {"label": "PSNR", "unit": "dB", "higher_is_better": True}}
    assert draw_figures(points, measures, [], "Kodak", tmp_path)["psnr"][0].is_file()


def test_no_two_of_many_codecs_look_alike() -> None:
    assert len(set(styles(map(str, range(40))).values())) == 40


@pytest.mark.usefixtures("without_figures")
def test_figures_of_others_are_named_as_theirs(tmp_path: Path, run: Path) -> None:
    _report(tmp_path, run)
    published = _data(tmp_path)["published"]
    assert len(load_published()) == len(published)
    assert all(point["source"] for point in published)
    paper = [p for p in published if "2307.01944" in p["source"]]
    assert len(paper) == 30
    pics = {(p["dataset"], p["metric"]): p for p in paper if p["system"] == "PICS (Lei et al.)"}
    assert pics["clic2021", "clip_distance"]["value"] == 0.2119
    assert pics["div2k", "kid"]["bpp"] == 0.0172
    assert {p["system"] for p in published if "kodak" in p["otherwise"]} == {"StableCodec"}
    assert same_dataset("CLIC 2021", "clic2021") and not same_dataset("clic2020", "clic2021")


CLIP = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
TRAIN = "/data/clic2021/train"


def _measured(
    run: Path, pictures: int = 60, references: str = TRAIN, subset: int = 60, clip: str = CLIP
) -> None:
    """A run by the paper's protocol, or nearly."""
    listed = [references] if references else []
    options = {
        "fid": f"measures.references={listed}",
        "kid": f"measures.references={listed}, measures.kid_subset={subset}",
        "clip_distance": f"measures.clip={clip}",
    }

    def change(summary: dict[str, Any]) -> None:
        summary["dataset"] |= {
            "pictures": pictures,
            "references": references or "the originals",
        }
        for name, made_with in options.items():
            summary["measures"][name] = {**asdict(MEASURES[name]), "made_with": made_with}
            for point in summary["points"]:
                point["measures"][name] = point["measures"]["psnr"]

    _edit_summary(run, change)


@pytest.mark.parametrize(
    ("otherwise", "drawn", "said"),
    [
        ({}, {"fid", "kid", "clip_distance"}, ""),
        ({"references": ""}, {"clip_distance"}, "against: training set (here the originals)"),
        ({"references": "/train/div2k"}, {"clip_distance"}, "set (here /train/div2k)"),
        ({"references": "/train/clic2021/valid"}, {"clip_distance"}, "(here /train/clic2021/valid"),
        ({"subset": 50}, {"fid", "clip_distance"}, "KID's subsets: 60 (here 50)"),
        ({"clip": "clip-l"}, {"fid", "kid"}, f"network: {CLIP} (here clip-l)"),
        ({"pictures": 59}, set(), "pictures: 60 (here 59)"),
        ({"resize": None}, set(), "shorter side: at most 512 pixels (here as it is)"),
    ],
)
def test_figures_of_others_are_drawn_where_they_were_measured_alike(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    otherwise: dict[str, Any],
    drawn: set[str],
    said: str,
) -> None:
    stills: list[Published] = []

    def draw(*given: Any) -> dict[str, list[Path]]:
        stills.extend(given[2])
        return {}

    monkeypatch.setattr("picsnet.report.page.draw_figures", draw)
    options = dict(otherwise)
    run = save_run(tmp_path / "clic", dataset="CLIC 2021", resize=options.pop("resize", 512))
    _measured(run, **options)
    assert _report(tmp_path, run) == 0
    data = _data(tmp_path)
    paper = [p for p in data["published"] if p["dataset"] == "clic2021"]
    assert {p["metric"] for p in paper if p["on"]} == drawn == {p.metric for p in stills}
    for point in paper:
        assert bool(point["on"]) != bool(point["otherwise"]) and not point["beside"]
    assert not said or any(said in p["otherwise"].get("CLIC 2021", "") for p in paper)
    assert data["runs"][0]["references"] == (options.get("references", TRAIN) or "the originals")


@pytest.mark.usefixtures("without_figures")
def test_figures_on_other_datasets_are_for_measures_of_pictures_alone(tmp_path: Path) -> None:
    run = save_run(tmp_path / "kodak")
    _measured(run, 2, "/data/clic2021/train")
    assert _report(tmp_path, run) == 0
    published = _data(tmp_path)["published"]
    assert {p["metric"] for p in published if p["beside"]} == {"clip_distance"}
    assert not any(p["on"] for p in published)


@pytest.mark.usefixtures("without_figures")
def test_what_is_not_stated_or_not_measured_is_not_drawn(tmp_path: Path, run: Path) -> None:
    assert _report(tmp_path, run) == 0
    data = _data(tmp_path)
    theirs = [p for p in data["published"] if p["dataset"] == "kodak"]
    assert {p["otherwise"]["kodak"] for p in theirs} == {
        "not measured here; pictures: not stated; shorter side: not stated; network: not stated"
    }
    assert {p["label"] for p in theirs} == {"LPIPS"} and data["runs"][0]["references"] is None

    def add(summary: dict[str, Any]) -> None:
        measure = {**asdict(MEASURES["lpips"]), "made_with": "measures.lpips_net=alex"}
        summary["measures"]["lpips"] = measure
        summary["points"][0]["measures"]["lpips"] = summary["points"][0]["measures"]["psnr"]

    _edit_summary(run, add)
    assert _report(tmp_path, run) == 0
    (how,) = {p["otherwise"]["kodak"] for p in _data(tmp_path)["published"] if p["otherwise"]}
    assert how == (
        "pictures: not stated (here 2); shorter side: not stated (here at most 512 pixels); "
        "network: not stated (here alex)"
    )


@pytest.mark.usefixtures("without_figures")
def test_bd_rates_are_there_both_ways(tmp_path: Path, run: Path) -> None:
    _report(tmp_path, run)
    rates = {
        (r["measure"], r["scale"], r["codec"], r["anchor"]): r for r in _data(tmp_path)["bd_rates"]
    }
    assert set(rates) == {
        (*measure, codec, anchor)
        for measure in (("psnr", "values"), ("ms_ssim", "values"), ("ms_ssim", "dB"))
        for codec, anchor in (("PICS", "WebP"), ("WebP", "PICS"))
    }
    for scale in ("values", "dB"):
        ours = rates["ms_ssim", scale, "PICS", "WebP"]["percent"]
        theirs = rates["ms_ssim", scale, "WebP", "PICS"]["percent"]
        assert (1 + ours / 100) * (1 + theirs / 100) == pytest.approx(1, abs=0.02)


@pytest.mark.usefixtures("without_figures")
def test_without_bjontegaard_one_line_says_so(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "bjontegaard", None)
    other = save_run(tmp_path / "runs" / "other", dataset="clic2021")
    assert _report(tmp_path, run, other) == 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "bjontegaard is not installed" in line
    data = _data(tmp_path)
    assert data["bd_rates"] == [] and data["bd_note"] in line


@pytest.mark.usefixtures("without_figures")
def test_texts_out_of_files_cannot_end_the_script(tmp_path: Path, run: Path) -> None:
    _report(tmp_path, run)
    text = (tmp_path / "report" / "index.html").read_text()
    assert "<img src=x" not in text and text.count("</script>") == 2
    assert {row["prompt"] for row in _data(tmp_path)["rows"] if "prompt" in row} == {HOSTILE_PROMPT}


@pytest.mark.usefixtures("without_figures")
def test_pictures_may_be_fewer_or_lossless(tmp_path: Path, run: Path) -> None:
    assert _report(tmp_path, run, "--pictures", "1", "--lossless") == 0
    data = _data(tmp_path)
    assert len(data["gallery"]) == 1 and len(data["rows"]) == 10
    assert data["gallery"][0]["original"].endswith(".png")
    assert not list((tmp_path / "report").rglob("*.webp"))


@pytest.mark.usefixtures("without_figures")
def test_pictures_of_one_content_are_one_file(tmp_path: Path, run: Path) -> None:
    _report(tmp_path, run)
    (photo, other) = _data(tmp_path)["gallery"]
    sketches = {item["sketch"] for item in photo["items"] + other["items"] if "sketch" in item}
    assert len(sketches) == 1  # the small run's sketches are all alike


@pytest.mark.usefixtures("without_figures")
def test_names_of_pictures_stay_in_the_folder_and_in_the_address(tmp_path: Path, run: Path) -> None:
    (run / "a #1?%41.png").write_bytes((run / "originals" / "kodim01.png").read_bytes())
    (tmp_path / "runs" / "out.png").write_bytes((run / "originals/more/kodim02.png").read_bytes())
    names = {"kodim01": "a #1?%41.png", "more/kodim02": "../out.png"}
    _edit_rows(run, lambda row: row.update(original=names[row["picture"]]))
    assert _report(tmp_path, run) == 0
    for photo in _data(tmp_path)["gallery"]:
        assert re.fullmatch(r"pictures/[\w./-]+\.webp", photo["original"])
        assert ".." not in photo["original"]
        assert (tmp_path / "report" / photo["original"]).is_file()


@pytest.mark.usefixtures("without_figures")
def test_runs_on_other_datasets_share_a_report(tmp_path: Path, run: Path) -> None:
    other = save_run(tmp_path / "runs" / "other", dataset="clic2021")
    assert _report(tmp_path, run, other) == 0
    assert _data(tmp_path)["datasets"] == ["kodak", "clic2021"]


@pytest.mark.usefixtures("without_figures")
def test_pictures_that_are_gone_are_named(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    next(run.rglob("decoded.png")).unlink()
    (run / "originals" / "kodim01.png").write_bytes(b"no picture")
    assert _report(tmp_path, run) == 0
    lines = capsys.readouterr().err
    assert "decoded.png: is gone" in lines and "kodim01.png: is no picture" in lines
    gallery = {photo["picture"]: photo for photo in _data(tmp_path)["gallery"]}
    assert gallery["kodim01"]["original"] is None and len(gallery["kodim01"]["items"]) == 5


@pytest.mark.usefixtures("without_figures")
def test_many_lines_about_pictures_are_kept_short(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in run.rglob("decoded*.png"):
        path.unlink()
    assert _report(tmp_path, run) == 0
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 6 and "11 more" in lines[-1]
    assert len(_data(tmp_path)["notes"]) == 16


@pytest.mark.usefixtures("without_figures")
def test_means_that_are_not_finite_are_told_of_and_not_drawn(tmp_path: Path, run: Path) -> None:
    def change(summary: dict[str, Any]) -> None:
        measures = summary["points"][0]["measures"]
        measures["psnr"]["mean"], measures["ms_ssim"]["high"] = float("inf"), float("nan")

    _edit_summary(run, change)
    assert _report(tmp_path, run) == 0
    data = _data(tmp_path)
    measures = data["points"][0]["measures"]
    assert "psnr" not in measures and measures["ms_ssim"]["low"] is None
    assert any("psnr of PICS, lambda 0.5" in line for line in data["runs"][0]["warnings"])


@pytest.mark.usefixtures("without_figures")
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


@pytest.mark.usefixtures("without_figures")
def test_a_full_disk_leaves_the_old_report(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(data: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert _report(tmp_path, run) == 0
    before = (tmp_path / "report" / "index.html").read_bytes()
    monkeypatch.setattr(writing, "render", full)
    assert _report(tmp_path, run) == 1
    assert "No space left" in capsys.readouterr().err
    assert (tmp_path / "report" / "index.html").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report", "runs"]


@pytest.mark.parametrize("place", ["runs/small", "runs", "."])
def test_no_run_is_replaced_by_its_report(
    tmp_path: Path, run: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / place / "picsnet-report.json").write_text("{}")  # even if it looks like one
    assert main(["report", str(run), "-o", str(tmp_path / place)]) == 2
    assert "would be replaced" in capsys.readouterr().err
    assert (run / "rows.csv").is_file()


def _lacking_column(run: Path) -> None:
    text = (run / "rows.csv").read_text()
    (run / "rows.csv").write_text(text.replace("setting", "sitting", 1))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no rows": lambda run: (run / "rows.csv").unlink(),
    "no JSON": lambda run: (run / "summary.json").write_text("{"),
    "another JSON": lambda run: (run / "summary.json").write_text("[]"),
    "no points": lambda run: _edit_summary(run, lambda summary: summary.pop("points")),
    "no rate": lambda run: _edit_summary(run, lambda summary: summary["points"][0].pop("bpp")),
    "an earlier version's": lambda run: _edit_summary(
        run, lambda summary: summary["points"][0]["measures"]["psnr"].pop("of")
    ),
    "no column": _lacking_column,
    "no text": lambda run: (run / "rows.csv").write_bytes(b"\xff\xfe\x00"),
    "no number": lambda run: _edit_rows(run, lambda row: row.update(bytes="many")),
    "a file in the way": lambda run: (run.parents[1] / "report").write_text("mine"),
}


@pytest.mark.parametrize("damage", [*DAMAGES, "absent", "twice", "same points"])
def test_mistakes_are_one_line(
    tmp_path: Path, run: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [run]
    if damage == "absent":
        runs = [tmp_path / "nowhere"]
    elif damage == "twice":
        runs = [run, run]
    elif damage == "same points":
        runs = [run, save_run(tmp_path / "runs" / "again")]
    else:
        DAMAGES[damage](run)
    assert _report(tmp_path, *runs) in (1, 2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("picsnet: error: ")
    assert not (tmp_path / "report").is_dir()


OTHERWISE: dict[str, tuple[dict[str, Any], str]] = {
    "size": (
        {"clip": "clip-h", "resize": None},
        "at most 512 pixels on the shorter side; as they are",
    ),
    "pictures": ({"clip": "clip-h", "shade": 90}, "kodim01 is another picture"),
    "weights": ({"clip": "clip-l"}, "measures.clip=clip-h; measures.clip=clip-l"),
}


@pytest.mark.parametrize("what", OTHERWISE)
@pytest.mark.usefixtures("without_figures")
def test_runs_of_one_name_that_cannot_be_compared_are_refused(
    tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options, said = OTHERWISE[what]
    run = save_run(tmp_path / "runs" / "small", clip="clip-h")
    same = save_run(tmp_path / "runs" / "same", codec="A", other="B", clip="clip-h")
    assert _report(tmp_path, run, same) == 0
    other = save_run(tmp_path / "runs" / "other", codec="C", other="D", **options)
    capsys.readouterr()
    assert _report(tmp_path, run, same, other) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "small and other" in line and said in line and "dataset.name=" in line
    # Under another name it is another dataset, though its rows were made before that.
    _edit_summary(other, lambda summary: summary["dataset"].update(name="kodak otherwise"))
    assert _report(tmp_path, run, same, other) == 0
    assert len({row["dataset"] for row in _data(tmp_path)["rows"]}) == 2


@pytest.mark.usefixtures("without_figures")
def test_a_curve_is_not_of_one_runs_pictures_here_and_anothers_there(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def limit(folder: Path, codec: str, settings: tuple[str, ...]) -> Path:
        """Leave one picture and some settings, as ``dataset.limit=1`` would."""
        save_run(folder, codec=codec, other="other")
        with open(folder / "rows.csv", newline="", encoding="utf-8") as lines:
            rows = [row for row in csv.DictReader(lines) if row["picture"] == "kodim01"]
        rows = [row for row in rows if row["setting"] in settings]
        with open(folder / "rows.csv", "w", newline="", encoding="utf-8") as lines:
            writer = csv.DictWriter(lines, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        _edit_summary(
            folder,
            lambda summary: summary.update(
                points=[p for p in summary["points"] if p["setting"] in settings]
            ),
        )
        return folder

    _edit_summary(run, lambda summary: summary["points"].pop(0))  # lambda 0.5
    fewer = limit(tmp_path / "runs" / "fewer", "PICS", ("lambda 0.5",))
    assert _report(tmp_path, run, fewer) == 2
    assert "both have PICS on kodak, of other pictures (2; 1)" in capsys.readouterr().err
    apart = limit(tmp_path / "runs" / "apart", "A", ("lambda 0.5",))
    assert _report(tmp_path, run, apart) == 0


@pytest.mark.usefixtures("without_figures")
def test_a_measure_has_one_name_in_a_report(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_run(tmp_path / "runs" / "other", dataset="clic2021")
    _edit_summary(other, lambda summary: summary["measures"]["psnr"].update(label="PSNR of luma"))
    assert _report(tmp_path, run, other) == 2
    assert "psnr is measured otherwise (PSNR; PSNR of luma)" in capsys.readouterr().err


@pytest.mark.usefixtures("without_figures")
def test_a_run_that_failed_throughout_is_on_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "failed"
    config = EvaluationConfig(name="failed", dataset=DatasetConfig(name="kodak"))
    summary = summarise(config, [], [Failure("*", "WebP", "q5", "no space")], folder, {})
    save_rows([], folder)
    save_summary(summary, folder)
    assert _report(tmp_path, folder) == 0
    data = _data(tmp_path)
    assert data["datasets"] == ["kodak"]
    assert data["runs"][0]["failures"][0]["reason"] == "no space"
