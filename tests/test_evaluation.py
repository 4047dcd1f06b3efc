"""Evaluations by the command line: rows, rates, resuming, failures, several processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from filelock import FileLock
from PIL import Image
from skimage import data

from picsnet import shipped
from picsnet.cli import main
from picsnet.evaluation.codecs import MeanPoint
from picsnet.evaluation.rows import Record
from picsnet.evaluation.summary import bootstrap
from picsnet.images import load_rgb
from tests.conftest import REPOSITORY
from tests.processes import Process
from tests.vectors import FOLDER as VECTORS

MEASURES = "[psnr,ms_ssim,colour_error,sketch_ms_ssim]"
CONFIG = """
name: small
output: {output}
dataset: {{name: samples, folder: [{photos}], resize: null}}
measures: {{names: {measures}, resamples: 50}}
logging: {{wandb: disabled}}
codecs:
  sketch alone: {{kind: sketch, ckpt: [sketch_ntc_lambda0.5, sketch_ntc_lambda1.0]}}
  WebP: {{kind: classical, codec: WEBP, points: [[0, 4], [10, 8]]}}
  mean colour: {{kind: mean-colour}}
"""
MEAN = """
name: small
output: {output}
dataset: {{name: samples, folder: [{photos}], resize: null}}
measures: {{names: [psnr], resamples: 0}}
logging: {{wandb: disabled}}
codecs: {{mean colour: {{kind: mean-colour}}}}
"""
SECONDS = ["encode_seconds", "decode_seconds"]
WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="it is no mistake on a GPU")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "animals").mkdir(parents=True)
    for name, picture in (("coffee", data.coffee()), ("animals/chelsea", data.chelsea())):
        Image.fromarray(picture).resize((224, 192)).save(folder / f"{name}.png")
    return folder


def _config(tmp_path: Path, photos: Path, measures: str = MEASURES) -> Path:
    path = tmp_path / "small.yaml"
    text = CONFIG.format(output=tmp_path / "runs", photos=photos, measures=measures)
    path.write_text(text)
    return path


def _evaluate(config: Path, *overrides: str) -> int:
    return main(["evaluate", "--config", str(config), *overrides])


def _rows(tmp_path: Path) -> pd.DataFrame:
    return pd.read_csv(tmp_path / "runs" / "small" / "rows.csv")


def _summary(tmp_path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((tmp_path / "runs/small/summary.json").read_text())
    return found


def test_a_row_for_each_picture_and_point_and_its_rate_is_the_files(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _evaluate(_config(tmp_path, photos)) == 0
    rows = _rows(tmp_path)
    assert len(rows) == 2 * 5
    assert set(rows["picture"]) == {"coffee", "animals/chelsea"}
    run = tmp_path / "runs" / "small"
    for row in rows.itertuples():
        size = (run / row.file).stat().st_size
        assert row.bytes == size
        assert row.bpp == pytest.approx(8 * size / (224 * 192))
    layers = rows.filter(like="bytes_").sum(axis=1)
    assert (layers[rows["codec"] == "sketch alone"] == rows["bytes"][layers > 0]).all()
    pictures = rows[rows["codec"] != "sketch alone"]
    assert pictures["psnr"].between(5, 40).all() and pictures["sketch_ms_ssim"].isna().all()
    sketches = rows[rows["codec"] == "sketch alone"]
    assert sketches["sketch_ms_ssim"].between(0.5, 1).all() and sketches["psnr"].isna().all()
    assert "WebP" in capsys.readouterr().out


def test_the_summary_has_means_intervals_and_compressais_shape(
    tmp_path: Path, photos: Path
) -> None:
    _evaluate(_config(tmp_path, photos))
    summary, rows = _summary(tmp_path), _rows(tmp_path)
    points = {(p["codec"], p["setting"]): p for p in summary["points"]}  # type: ignore[attr-defined]
    assert len(points) == 5
    own = rows[rows["codec"] == "mean colour"]
    point = points["mean colour", "fill"]
    assert point["measures"]["psnr"]["mean"] == pytest.approx(own["psnr"].mean())
    assert point["measures"]["psnr"]["low"] <= point["measures"]["psnr"]["mean"]
    assert point["bpp"]["mean"] == pytest.approx(own["bpp"].mean())
    (webp,) = (tmp_path / "runs/small/compressai").glob("WebP.json")
    results = json.loads(webp.read_text())["results"]
    assert results["bpp"] == sorted(results["bpp"]) and len(results["bpp"]) == 2
    assert set(results) >= {"psnr-rgb", "ms-ssim-rgb", "encoding_time", "decoding_time"}


def test_what_is_done_is_not_done_again(tmp_path: Path, photos: Path) -> None:
    config = _config(tmp_path, photos)
    _evaluate(config)
    before = _rows(tmp_path)
    _evaluate(config)
    pd.testing.assert_frame_equal(_rows(tmp_path), before)  # times too
    # A measure that is new is taken from the pictures that are there.
    _evaluate(_config(tmp_path, photos, "[psnr,edge_f]"))
    after = _rows(tmp_path)
    assert (after["encode_seconds"] == before["encode_seconds"]).all()
    assert after["edge_f"].notna().sum() == 6 and "ms_ssim" not in after


def test_another_option_or_picture_is_done_anew(tmp_path: Path, photos: Path) -> None:
    config = _config(tmp_path, photos)
    _evaluate(config)
    before = _rows(tmp_path)
    Image.fromarray(data.rocket()).resize((224, 192)).save(photos / "coffee.png")
    _evaluate(config)
    after = _rows(tmp_path)
    same = before["encode_seconds"] == after["encode_seconds"]
    assert (same == (before["picture"] == "animals/chelsea")).all()
    assert len(after) == len(before)


def test_a_broken_picture_is_named_and_the_others_go_on(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    assert _evaluate(_config(tmp_path, photos)) == 1
    assert len(_rows(tmp_path)) == 2 * 5
    assert "broken.png" in capsys.readouterr().err
    (failure,) = _summary(tmp_path)["failures"]  # type: ignore[misc,attr-defined]
    assert failure["picture"] == "broken" and failure["reason"]


def test_a_codec_that_cannot_be_had_is_one_failure(tmp_path: Path, photos: Path) -> None:
    config = _config(tmp_path, photos)
    status = _evaluate(config, "codecs.none.kind=pics", "codecs.none.decoder=sd21-hed")
    assert status == 1
    assert len(_rows(tmp_path)) == 2 * 5
    (failure,) = _summary(tmp_path)["failures"]  # type: ignore[misc,attr-defined]
    assert failure["picture"] == "*" and failure["codec"] == "none"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("codecs.WebP.kind=magic", "magic"),
        ("codecs.WebP.kind=[]", "kind is []"),
        ("codecs.WebP.qualities=[1]", "qualities"),
        ("codecs.WebP.points=[[5.5,4]]", "quality 5.5 is not a whole number"),
        ("codecs.WebP.points=[[500,4]]", "quality 500 is not a whole number from 0 to 100"),
        ("measures.names=[psnrr]", "psnrr"),
        ("dataset.folder=[/nowhere]", "/nowhere"),
        ("codecs.WebP.points=[[10,.inf]]", "codecs.WebP.points"),
        ("codecs.WebP.points=[[10,2.5]]", "downscale 2.5 is not a whole number"),
        ("codecs.WebP.points=[[10,4,1]]", "must be [[quality, downscale], ...]"),
        ("codecs.WebP.points=[[10]]", "must be [[quality, downscale], ...]"),
        ("dataset.resize=3", "dataset.resize"),
        ("devices=foo", "devices=foo"),
        pytest.param("devices=-1", "devices=-1", marks=WITHOUT_GPU),
        ("accelerator=foo", "accelerator=foo"),
        ("accelerator=tpu", "accelerator=tpu"),
        pytest.param("accelerator=gpu", "accelerator=gpu", marks=WITHOUT_GPU),
        ("strategy=foo", "strategy=foo"),
        ("measures.smallest_set=1", "measures.smallest_set"),
        ("seed=-1", "seed is -1"),
        ("nonsense=1", "nonsense"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    photos: Path,
    override: str,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _evaluate(_config(tmp_path, photos), override) in (1, 2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("picsnet: error: ") and words in line


def test_without_a_key_wandb_online_is_one_line_after_the_summary(
    mean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert _evaluate(mean, "logging.wandb=online") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("picsnet: error: ") and "logging.wandb=offline" in line
    assert list((tmp_path / "runs").rglob("summary.json"))


def test_references_that_are_not_there_are_told_before_anything_is_coded(
    tmp_path: Path, mean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["measures.references=[/nowhere]", "measures.names=[psnr,fid]"]
    assert _evaluate(mean, *overrides) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("picsnet: error: /nowhere: ")
    assert not list((tmp_path / "runs").rglob("coded.*"))


@pytest.fixture
def mean(tmp_path: Path, photos: Path) -> Path:
    """The configuration of an evaluation of the mean colour by PSNR."""
    path = tmp_path / "mean.yaml"
    path.write_text(MEAN.format(output=tmp_path / "runs", photos=photos))
    return path


def _failures(tmp_path: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = _summary(tmp_path)["failures"]  # type: ignore[assignment]
    return found


def test_something_unforeseen_is_the_pictures_failure_and_the_others_go_on(
    tmp_path: Path, photos: Path, mean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, coffee = MeanPoint.encode, load_rgb(photos / "coffee.png")

    def breaks(point: MeanPoint, picture: Any) -> Any:
        if picture.shape == coffee.shape and (picture == coffee).all():
            raise torch.OutOfMemoryError("no memory\nfor it")
        return encode(point, picture)

    monkeypatch.setattr(MeanPoint, "encode", breaks)
    assert _evaluate(mean) == 1
    assert list(_rows(tmp_path)["picture"]) == ["animals/chelsea"]
    (failure,) = _failures(tmp_path)
    assert failure["picture"] == "coffee"
    assert failure["reason"].startswith("OutOfMemoryError: no memory for it; ")
    with pytest.raises(torch.OutOfMemoryError):
        _evaluate(mean, "--debug")


def test_something_unforeseen_when_a_codec_begins_is_one_failure(
    tmp_path: Path, mean: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(point: MeanPoint, data: bytes) -> Any:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(MeanPoint, "decode", breaks)
    assert _evaluate(mean) == 1
    (failure,) = _failures(tmp_path)
    assert failure["picture"] == "*" and failure["reason"].startswith("RuntimeError: no kernel; ")
    assert "mean colour, fill: RuntimeError: no kernel" in capsys.readouterr().err


def test_a_picture_that_a_codec_cannot_code_is_no_verdict_on_the_codec(
    tmp_path: Path, photos: Path, mean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, tried = MeanPoint.encode, list[tuple[int, ...]]()

    def breaks(point: MeanPoint, picture: Any) -> Any:
        tried.append(picture.shape[:2])
        if min(picture.shape[:2]) < 32 or (picture[0, 0] == 7).all():
            raise ValueError("cannot be coded")
        return encode(point, picture)

    monkeypatch.setattr(MeanPoint, "encode", breaks)
    Image.new("RGB", (16, 16)).save(photos / "a.png")  # coded first
    Image.new("RGB", (400, 300), (7, 7, 7)).save(photos / "b.png")  # the largest
    assert _evaluate(mean) == 1
    assert {failure["picture"] for failure in _failures(tmp_path)} == {"a", "b"}
    assert set(_rows(tmp_path)["picture"]) == {"coffee", "animals/chelsea"}
    assert tried[0] == (128, 128)  # what models are loaded with is not the tiny one


def test_a_codec_that_cannot_work_is_not_tried_on_every_picture(
    tmp_path: Path, photos: Path, mean: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    tried = []

    def breaks(point: MeanPoint, picture: Any) -> Any:
        tried.append(picture)
        raise RuntimeError("no kernel")

    monkeypatch.setattr(MeanPoint, "encode", breaks)
    for number in range(5):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(photos / f"{number}.png")
    assert _evaluate(mean) == 1
    (failure,) = _failures(tmp_path)
    assert failure["picture"] == "*" and "no kernel" in failure["reason"]
    assert capsys.readouterr().err.count("error: mean colour, fill: RuntimeError: no kernel") == 1
    assert len(tried) == 3


def test_a_second_start_in_a_runs_folder_ends_in_a_line_and_changes_nothing(
    tmp_path: Path, mean: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encode, lines = MeanPoint.encode, list[str]()
    run = tmp_path / "runs" / "small"

    def beside(point: MeanPoint, picture: Any) -> Any:
        if not lines:
            before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
            capsys.readouterr()
            assert _evaluate(mean, "dataset.resize=32") == 1
            lines.extend(capsys.readouterr().err.splitlines())
            assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        return encode(point, picture)

    monkeypatch.setattr(MeanPoint, "encode", beside)
    assert _evaluate(mean, "--debug") == 0
    (line,) = lines
    assert line.startswith(f"picsnet: error: {run}: another evaluation") and "name=" in line
    assert set(_rows(tmp_path)["width"]) == {224}
    assert not [path for path in run.rglob(".*") if path.is_file()]
    assert _evaluate(mean) == 0


def _folder(tmp_path: Path, picture: str) -> Path:
    """Of what the mean colour made of a picture."""
    (found,) = (tmp_path / "runs/small/points").glob(f"*/fill/{picture}")
    return found


def test_a_decoded_picture_that_is_gone_is_made_again(tmp_path: Path, mean: Path) -> None:
    assert _evaluate(mean) == 0
    decoded = _folder(tmp_path, "coffee") / "decoded.png"
    before = decoded.read_bytes()
    decoded.unlink()
    assert _evaluate(mean) == 0
    assert decoded.read_bytes() == before


def test_what_was_killed_before_its_row_is_no_result_of_the_option_before(
    tmp_path: Path, mean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def own(kind: str) -> str:
        return f"codecs.own={{kind: classical, codec: {kind}, points: [[10, 4]]}}"

    run = tmp_path / "runs" / "small"
    assert _evaluate(mean, own("WEBP")) == 0
    (decoded,) = (run / "points" / "own").rglob("coffee/decoded.png")
    before = decoded.read_bytes()
    with monkeypatch.context() as killed:
        killed.setattr(Record, "save", lambda record, path: None)
        _evaluate(mean, own("JPEG"))
    assert decoded.read_bytes() != before
    assert _evaluate(mean, own("WEBP")) == 0
    assert decoded.read_bytes() == before


def _killed(*args: object) -> None:
    raise KeyboardInterrupt


def _tables(tmp_path: Path) -> set[str]:
    run = tmp_path / "runs" / "small"
    files = [run / "rows.csv", run / "summary.json", *(run / "compressai").glob("*")]
    return {path.name for path in files if path.is_file()}


@pytest.mark.parametrize("place", ["runner._end", "preparing.save_png"])
def test_a_run_that_is_killed_under_another_option_does_not_look_finished(
    tmp_path: Path, mean: Path, place: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert _evaluate(mean) == 0
    whole = _tables(tmp_path)
    assert len(whole) == 3
    with monkeypatch.context() as killed:
        killed.setattr(f"picsnet.evaluation.{place}", _killed)
        assert _evaluate(mean, "dataset.resize=64") == 130
    assert not _tables(tmp_path)
    assert main(["report", str(tmp_path / "runs/small"), "-o", str(tmp_path / "report")]) == 1
    assert "no finished evaluation" in capsys.readouterr().err
    assert _evaluate(mean, "dataset.resize=64") == 0
    assert _tables(tmp_path) == whole and set(_rows(tmp_path)["height"]) == {64}


def test_a_run_that_is_killed_between_rows_and_summary_has_no_summary(
    tmp_path: Path, mean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _evaluate(mean) == 0
    monkeypatch.setattr("picsnet.evaluation.runner.save_summary", _killed)
    assert _evaluate(mean, "measures.names=[psnr,colour_error]") == 130
    assert _tables(tmp_path) == {"rows.csv"}


def test_what_changes_no_picture_leaves_the_tables(
    tmp_path: Path, mean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _evaluate(mean) == 0
    whole = _tables(tmp_path)
    assert _evaluate(mean, "codecs.WebP={kind: classical, codec: WEBP, points: [[500,4]]}") == 2
    assert _tables(tmp_path) == whole
    monkeypatch.setattr("picsnet.evaluation.runner._end", _killed)
    assert _evaluate(mean) == 130
    assert _tables(tmp_path) == whole


def test_a_coded_file_of_another_size_than_its_rows_is_made_again(
    tmp_path: Path, mean: Path
) -> None:
    assert _evaluate(mean) == 0
    (coded,) = _folder(tmp_path, "coffee").glob("coded.*")
    before = coded.read_bytes()
    coded.write_bytes(before[:-1])
    assert _evaluate(mean) == 0
    assert coded.read_bytes() == before


def test_a_measure_that_fails_on_what_was_coded_before_is_told(tmp_path: Path, mean: Path) -> None:
    assert _evaluate(mean) == 0
    before = _rows(tmp_path)
    (_folder(tmp_path, "coffee") / "decoded.png").write_bytes(b"no picture")
    assert _evaluate(mean, "measures.names=[psnr,colour_error]") == 1
    (failure,) = _failures(tmp_path)
    assert failure["picture"] == "coffee" and "decoded.png" in failure["reason"]
    rows = _rows(tmp_path).set_index("picture")
    assert list(rows["psnr"]) == list(before["psnr"])
    assert rows["colour_error"].notna().to_dict() == {"coffee": False, "animals/chelsea": True}
    assert not _summary(tmp_path)["warnings"]  # it is not too small


def test_a_measure_that_fails_costs_neither_the_picture_nor_other_measures(
    tmp_path: Path, mean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(original: Any, decoded: Any) -> float:
        raise RuntimeError("no memory")

    names = "measures.names=[psnr,colour_error,ms_ssim]"
    with monkeypatch.context() as broken:
        broken.setattr("picsnet.evaluation.likeness.psnr", breaks)
        assert _evaluate(mean, names) == 1
    (failure,) = _failures(tmp_path)
    assert failure["picture"] == "*" and failure["measures"] == ["psnr"]
    assert failure["reason"].startswith("measure psnr: RuntimeError: no memory; ")
    before = _rows(tmp_path)
    assert len(before) == 2 and before["colour_error"].notna().all() and "psnr" not in before
    monkeypatch.setattr("picsnet.evaluation.likeness.colour_error", breaks)  # it is there
    assert _evaluate(mean, names) == 0
    after = _rows(tmp_path)
    pd.testing.assert_frame_equal(after.drop(columns="psnr"), before)  # times too
    assert after["psnr"].notna().all()


def test_a_value_that_was_made_with_something_else_is_not_reported(
    tmp_path: Path, mean: Path
) -> None:
    assert _evaluate(mean) == 0
    folder = _folder(tmp_path, "coffee")
    record = json.loads((folder / "row.json").read_text())
    record["made_with"]["psnr"] = "an older release"
    (folder / "row.json").write_text(json.dumps(record))
    (folder / "decoded.png").write_bytes(b"no picture")
    assert _evaluate(mean) == 1
    rows = _rows(tmp_path).set_index("picture")
    assert rows["psnr"].notna().to_dict() == {"coffee": False, "animals/chelsea": True}


def test_a_picture_that_nothing_is_known_of_has_failed(
    tmp_path: Path, mean: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Record, "save", lambda record, path: None)
    assert _evaluate(mean) == 1
    (failure,) = _failures(tmp_path)
    assert failure["picture"] == "*" and "run the same command again" in failure["reason"]


def test_an_interrupt_is_told_and_has_its_status(
    mean: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(point: MeanPoint, picture: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(MeanPoint, "encode", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    try:
        assert _evaluate(mean) == 130
        assert signal.getsignal(signal.SIGINT) == handler  # the next one is heard
    finally:
        signal.signal(signal.SIGINT, handler)
    assert "interrupted" in capsys.readouterr().err


def _process(config: Path, *overrides: str) -> Process:
    command = [sys.executable, "-m", "picsnet", "evaluate", "--config", config, *overrides]
    return Process(command, REPOSITORY)


def test_what_was_half_written_of_a_measured_row_goes(tmp_path: Path, photos: Path) -> None:
    """A row is written twice, once coded and once measured; both times a process may be killed."""
    config = _config(tmp_path, photos)
    assert _evaluate(config) == 0
    row = next((tmp_path / "runs" / "small").rglob("row.json"))
    left = row.with_name(".row.1-00.json")
    left.touch()
    assert _evaluate(config) == 0
    assert row.is_file() and not left.exists()


def test_killed_and_started_again_it_ends_with_the_same_results(
    tmp_path: Path, photos: Path
) -> None:
    config = _config(tmp_path, photos)
    run = tmp_path / "runs" / "small"
    moment = random.Random(7)
    for wanted in (1, 4):
        process = _process(config)
        while len(list(run.rglob("row.json"))) < wanted and process.poll() is None:
            time.sleep(0.02)
        time.sleep(moment.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (run / "rows.csv").exists()
    _evaluate(config)
    resumed, summary = _rows(tmp_path), _summary(tmp_path)
    run.rename(tmp_path / "resumed")
    _evaluate(config)
    pd.testing.assert_frame_equal(
        resumed.drop(columns=SECONDS), _rows(tmp_path).drop(columns=SECONDS)
    )
    for point, other in zip(summary["points"], _summary(tmp_path)["points"], strict=True):  # type: ignore[call-overload]
        assert point["measures"] == other["measures"] and point["bpp"] == other["bpp"]
    assert not [path for path in (tmp_path / "resumed").rglob(".*") if path.is_file()]


def test_two_processes_share_the_work_and_give_the_same_rows(tmp_path: Path, photos: Path) -> None:
    config = _config(tmp_path, photos)
    assert _process(config, "devices=2", "accelerator=cpu", "strategy=ddp").wait(240) == 0
    shared = _rows(tmp_path)
    (tmp_path / "runs" / "small").rename(tmp_path / "shared")
    _evaluate(config)
    pd.testing.assert_frame_equal(
        shared.drop(columns=SECONDS), _rows(tmp_path).drop(columns=SECONDS)
    )


def _launched(tmp_path: Path, config: Path) -> list[Process]:
    """Two nodes of one process each, as torchrun starts them; each in a folder of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launched = {
        "TORCHELASTIC_RUN_ID": "nodes",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    processes = []
    for rank in ("0", "1"):
        node = tmp_path / f"node{rank}"
        node.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "picsnet", "evaluate", "--config", str(config)]
        own = {"RANK": rank, "GROUP_RANK": rank, "PYTHONPATH": str(REPOSITORY)}
        processes.append(Process([*command, "accelerator=cpu"], node, os.environ | launched | own))
    return processes


def test_nodes_whose_copies_of_weights_are_of_other_times_share_the_work(
    tmp_path: Path, photos: Path
) -> None:
    config = tmp_path / "nodes.yaml"
    text = MEAN.replace(
        "mean colour: {{kind: mean-colour}}",
        "own: {{kind: sketch, ckpt: [model]}}, mean colour: {{kind: mean-colour}}",
    ).replace("[psnr]", "[clip_distance], clip: clip")
    config.write_text(text.format(output=tmp_path / "runs", photos=photos))
    for rank in (0, 1):
        model = tmp_path / f"node{rank}" / "model"
        shutil.copytree(VECTORS / "picsnet-context", model)
        clip = model.with_name("clip")
        shutil.copytree(shipped.FOLDER / "picsnet-mini" / "clip", clip)
        for folder in (model, clip):
            os.utime(folder / "model.safetensors", (rank, rank))
    processes = _launched(tmp_path, config)
    for process in processes:
        process.communicate(timeout=120)
    assert [process.returncode for process in processes] == [0, 0]
    rows = _rows(tmp_path)
    assert set(rows["picture"]) == {"coffee", "animals/chelsea"}
    assert rows["clip_distance"][rows["codec"] == "mean colour"].notna().tolist() == [True, True]


def test_a_second_start_on_nodes_ends_on_all_of_them(tmp_path: Path, mean: Path) -> None:
    run = tmp_path / "runs" / "small"
    run.mkdir(parents=True)
    with FileLock(run / ".lock"):
        processes = _launched(tmp_path, mean)
        told = [process.communicate(timeout=120)[1] for process in processes]
    assert all(process.returncode for process in processes)
    assert "another evaluation is at work in it" in told[0]
    assert not (run / "originals").exists()


def test_bootstrap_intervals_shrink_with_pictures_and_repeat() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    few, many = bootstrap(values, 500, 1), bootstrap(values * 25, 500, 1)
    assert few["mean"] == many["mean"] == 2.5
    assert few == bootstrap(values, 500, 1)
    assert few["low"] is not None and few["high"] is not None
    assert many["low"] is not None and many["high"] is not None
    assert many["high"] - many["low"] < few["high"] - few["low"]
    assert bootstrap([1.0], 500, 1)["low"] is None
