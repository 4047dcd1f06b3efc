"""The summary of an evaluation's rows: over which pictures its means and rates are."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from picsnet.evaluation.config import DatasetConfig, EvaluationConfig, MeasuresConfig
from picsnet.evaluation.preparing import Failure
from picsnet.evaluation.rows import Row, save_rows
from picsnet.evaluation.summary import in_compressai_shape, markdown, save_summary, summarise
from picsnet.images import save_png
from picsnet.report.comparing import OTHER_PICTURES, bd_rates
from picsnet.report.loading import load_runs

SETTINGS = ("q1", "q2", "q3")
PICTURES = {"easy": (50, 35.0), "middling": (100, 28.0), "hard": (300, 18.0)}


def _row(picture: str, codec: str, setting: str, size: int, **measures: float) -> Row:
    return Row(
        dataset="mine",
        picture=picture,
        width=64,
        height=64,
        codec=codec,
        setting=setting,
        lmbda=None,
        bytes=size,
        bpp=8 * size / 64**2,
        original=f"originals/{picture}.png",
        file="coded",
        decoded="decoded.png",
        sketch=None,
        decoded_sketch=None,
        prompt=None,
        seed=None,
        encode_seconds=1.0,
        decode_seconds=1.0,
        measures=measures,
    )


def _codec(codec: str, *, without: str = "") -> list[Row]:
    return [
        _row(picture, codec, setting, size * (step + 1), psnr=quality + 3 * step)
        for step, setting in enumerate(SETTINGS)
        for picture, (size, quality) in PICTURES.items()
        if picture != without
    ]


def _summary(
    tmp_path: Path,
    rows: list[Row],
    *names: str,
    left_out: dict[str, str] | None = None,
    failures: Sequence[Failure] = (),
) -> dict[str, Any]:
    config = EvaluationConfig(
        name="small",
        dataset=DatasetConfig(name="mine"),
        measures=MeasuresConfig(names=list(names), resamples=0),
    )
    return summarise(config, rows, failures, tmp_path, left_out or {})


def test_a_measures_rate_is_over_the_pictures_that_have_it(tmp_path: Path) -> None:
    rows = [
        _row("large", "A", "q", 300, psnr=20.0, ms_ssim=0.5),
        _row("tiny", "A", "q", 100, psnr=30.0),
    ]
    summary = _summary(tmp_path, rows, "psnr", "ms_ssim")
    (point,) = summary["points"]
    psnr, ms_ssim = point["measures"]["psnr"], point["measures"]["ms_ssim"]
    assert point["pictures"] == psnr["pictures"] == 2 and ms_ssim["pictures"] == 1
    assert psnr["bpp"] == pytest.approx(point["bpp"]["mean"]) == pytest.approx(8 * 200 / 64**2)
    assert ms_ssim["bpp"] == pytest.approx(8 * 300 / 64**2)
    assert psnr["of"] != ms_ssim["of"]
    # CompressAI's shape has one rate a point: that of all of its pictures.
    results = in_compressai_shape("A", [point], "mine")["results"]
    assert results["psnr-rgb"] == [25.0] and "ms-ssim-rgb" not in results


def test_curves_of_other_pictures_have_no_bd_rate(tmp_path: Path) -> None:
    whole, lacking = _codec("whole"), _codec("lacking", without="hard")
    summary = _summary(tmp_path, [*whole, *lacking, *_codec("again", without="hard")], "psnr")
    rates = {
        (rate["codec"], rate["anchor"]): rate
        for rate in bd_rates(summary["points"], summary["measures"])
    }
    for pair in (("lacking", "whole"), ("whole", "again")):
        assert rates[pair]["percent"] is None
        assert rates[pair]["reason"] == OTHER_PICTURES
    assert rates["lacking", "again"]["percent"] == pytest.approx(0)


def test_a_curve_one_point_of_which_lacks_a_picture_has_no_bd_rate(tmp_path: Path) -> None:
    rows = [r for r in _codec("B") if (r.picture, r.setting) != ("hard", "q2")]
    summary = _summary(tmp_path, [*_codec("A"), *rows], "psnr")
    rates = bd_rates(summary["points"], summary["measures"])
    assert [rate["reason"] for rate in rates] == [OTHER_PICTURES] * 2


def test_sketches_of_other_sizes_have_no_bd_rate(tmp_path: Path) -> None:
    rows = []
    for codec, side in (("small", 200), ("large", 400), ("alike", 400)):
        save_png(np.zeros((side, side), np.uint8), tmp_path / f"{codec}.png")
        rows += [
            replace(_row("a", codec, setting, size, sketch_ms_ssim=quality), sketch=f"{codec}.png")
            for setting, size, quality in (("q1", 100, 0.5), ("q2", 200, 0.7), ("q3", 300, 0.9))
        ]
    summary = _summary(tmp_path, rows, "sketch_ms_ssim")
    rates = {
        (rate["codec"], rate["anchor"]): rate
        for rate in bd_rates(summary["points"], summary["measures"])
    }
    assert rates["small", "large"]["percent"] is None
    assert rates["small", "large"]["reason"] == OTHER_PICTURES
    assert rates["alike", "large"]["percent"] == pytest.approx(0)


def test_pictures_that_are_too_small_are_counted_once(tmp_path: Path) -> None:
    rows = [
        _row("large", "A", setting, 300, psnr=20.0, colour_error=3.0, ms_ssim=0.5)
        for setting in SETTINGS
    ]
    rows += [
        _row(name, "A", setting, 300, psnr=20.0) for setting in SETTINGS for name in ("s", "t")
    ]
    rows += [
        replace(
            _row(name, "sketch", "q", 9, **measures),
            decoded=None,
            sketch="sketch.png",
            decoded_sketch="decoded_sketch.png",
        )
        for name, measures in (("large", {"sketch_ms_ssim": 0.9}), ("s", {}))
    ]
    names = ("psnr", "colour_error", "ms_ssim", "sketch_ms_ssim")
    left_out = {"colour_error": "cannot be had today"}  # and two have no value of another day
    assert _summary(tmp_path, rows, *names, left_out=left_out)["warnings"] == [
        "ms_ssim: 2 of 3 pictures are too small for it and not in its means",
        "sketch_ms_ssim: 1 of 2 pictures are too small for it and not in its means",
    ]


def test_a_measure_that_all_pictures_are_too_small_for_is_told_of(tmp_path: Path) -> None:
    summary = _summary(tmp_path, [_row("small", "A", "q", 9, psnr=20.0)], "psnr", "ms_ssim")
    (warning,) = summary["warnings"]
    assert warning.startswith("ms_ssim: 1 of 1 pictures")


def test_pictures_that_another_measure_failed_on_are_counted_too(tmp_path: Path) -> None:
    rows = [_row("small", "A", "q", 9)]
    failures = [Failure("*", "A", "q", "measure psnr: no memory", ("psnr",))]
    (warning,) = _summary(tmp_path, rows, "psnr", "ms_ssim", failures=failures)["warnings"]
    assert warning.startswith("ms_ssim: 1 of 1 pictures")


def test_codecs_that_are_no_more_have_no_file(tmp_path: Path) -> None:
    for codecs in (("A", "an older name"), ("A",), ()):
        rows = [row for codec in codecs for row in _codec(codec)]
        save_summary(_summary(tmp_path, rows, "psnr"), tmp_path)
        files = [json.loads(path.read_text()) for path in (tmp_path / "compressai").iterdir()]
        assert sorted(file["name"] for file in files) == sorted(codecs)


def test_rows_are_read_as_they_were_whatever_their_texts_hold(tmp_path: Path) -> None:
    texts = ("plain", "a\rb", 'c, "d"\ne', "f\r\ng", "12")
    rows = [
        replace(_row(text, "A", "q", 9 + i, psnr=20.5 + i), prompt=text, seed=i or None, lmbda=None)
        for i, text in enumerate(texts)
    ]
    path = save_rows([*rows, _row("without", "A", "q", 9)], tmp_path)
    save_summary(_summary(tmp_path, rows, "psnr"), tmp_path)
    (run,) = load_runs([tmp_path])
    assert [row["picture"] for row in run.rows] == [*texts, "without"]
    assert [row["prompt"] for row in run.rows] == [*texts, None]
    assert [row["seed"] for row in run.rows] == [None, 1, 2, 3, 4, None]
    frame = pd.read_csv(path)
    # Another's reader changes a lone carriage return, but has the same lines and types.
    assert len(frame) == 6 and frame["bytes"].dtype == int
    assert frame["psnr"].dtype == frame["seed"].dtype == frame["lmbda"].dtype == float
    assert frame["psnr"].isna().tolist() == [False] * 5 + [True]


@pytest.mark.parametrize(("net", "label"), [("alex", "LPIPS (AlexNet)"), ("vgg", "LPIPS (VGG16)")])
def test_lpips_is_called_by_the_network_that_it_was_made_with(
    tmp_path: Path, net: str, label: str
) -> None:
    rows = [_row("one", "A", "q", 9, lpips=0.3)]
    config = EvaluationConfig(
        name="small",
        dataset=DatasetConfig(name="mine"),
        measures=MeasuresConfig(names=["lpips"], lpips_net=net, resamples=0),
    )
    assert summarise(config, rows, [], tmp_path, {})["measures"]["lpips"]["label"] == label
    # Values that stay of an earlier start may be another network's.
    earlier = summarise(config, rows, [], tmp_path, {"lpips": "cannot be fetched"})
    assert earlier["measures"]["lpips"]["label"] == "LPIPS"


def test_the_table_tells_small_values_apart(tmp_path: Path) -> None:
    rows = [
        replace(row, measures={"psnr": 0.0022 if row.codec == "A" else 0.0025})
        for row in _codec("A") + _codec("B")
    ]
    table = markdown(_summary(tmp_path, rows, "psnr"))
    assert "| 0.0022 |" in table and "| 0.0025 |" in table


def test_names_keep_to_their_cells_in_the_table(tmp_path: Path) -> None:
    rows = [_row("one", "a|b", "c\\|d\n\x1b[2Je", 9, psnr=20.0)]
    head, rule, line = markdown(_summary(tmp_path, rows, "psnr")).split("\n")
    cells = re.findall(r"((?:\\.|[^|\\])+)\|", line)  # a backslash takes the next one with it
    assert len(cells) == head.count("|") - 1 == rule.count("|") - 1
    assert [cell.strip() for cell in cells[:2]] == [r"a\|b", r"c\\\|d\\n\\x1b[2Je"]
