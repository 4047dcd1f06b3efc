"""FID and KID in a summary: which sets have them, and what is said of those that have none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from picsnet.evaluation import sets
from picsnet.evaluation.config import DatasetConfig, EvaluationConfig, MeasuresConfig
from picsnet.evaluation.rows import Row
from picsnet.evaluation.summary import save_summary, summarise
from picsnet.images import save_png

ALL = ["fid", "kid", "fid_patches", "kid_patches"]


class Moments(nn.Module):
    """(B, 3, H, W) uint8 to (B, 2)."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.float() / 255
        return torch.stack([x.mean((1, 2, 3)), x.std((1, 2, 3))], 1)


@pytest.fixture(autouse=True)
def moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A feature network that is not to be fetched."""
    monkeypatch.setattr(sets, "load_inception", lambda device="cpu": Moments())


def _rows(run: Path, count: int, side: int, codec: str = "own") -> list[Row]:
    draw = np.random.default_rng(side)
    rows = []
    for number in range(count):
        original = draw.integers(0, 256, (side, side, 3), dtype=np.uint8)
        paths = f"originals/{number}.png", f"points/{codec}/{number}/decoded.png"
        for path, pixels in zip(paths, (original, 255 - original // 2), strict=True):
            save_png(pixels, run / path)
        row = Row("mine", str(number), side, side, codec, "one", None, 9, 0.1, paths[0], "f.bin",
                  paths[1], None, None, None, None, 1.0, 1.0)  # fmt: skip
        rows.append(row)
    return rows


def _summary(run: Path, rows: list[Row], **measures: Any) -> dict[str, Any]:
    """As it is read back, by a reader that takes nothing but numbers for numbers."""
    named = {"names": ALL, "smallest_set": 2, "set_resamples": 0, **measures}
    config = EvaluationConfig(
        name="sets",
        dataset=DatasetConfig(name="mine"),
        measures=MeasuresConfig(**named),
        accelerator="cpu",
    )
    save_summary(summarise(config, rows, [], run, {}), run)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in summary.json")

    text = (run / "summary.json").read_text()
    found: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return found


def test_two_pictures_have_all_and_smaller_ones_than_a_square_none_of_squares(
    tmp_path: Path,
) -> None:
    summary = _summary(tmp_path, _rows(tmp_path, 2, 64), patch=32)
    assert set(summary["points"][0]["measures"]) == set(ALL) and not summary["left_out"]
    summary = _summary(tmp_path, _rows(tmp_path, 2, 64), patch=96)
    assert set(summary["points"][0]["measures"]) == {"fid", "kid"}
    assert set(summary["left_out"]) == {"fid_patches", "kid_patches"}
    for why in summary["left_out"].values():
        assert "squares of 96 pixels: 0," in why and "measures.patch" in why


def test_one_picture_or_square_is_no_set(tmp_path: Path) -> None:
    summary = _summary(tmp_path, _rows(tmp_path, 1, 64), patch=64)
    assert not summary["points"][0]["measures"]
    assert set(summary["left_out"]) == set(ALL)
    assert "pictures: 1," in summary["left_out"]["fid"]
    assert "squares of 64 pixels: 1," in summary["left_out"]["kid_patches"]


def test_a_picture_that_cannot_be_read_leaves_its_points_sets_out_and_is_named(
    tmp_path: Path,
) -> None:
    rows = _rows(tmp_path, 2, 64, "broken") + _rows(tmp_path, 2, 64, "whole")
    broken = tmp_path / "points/broken/1/decoded.png"
    broken.write_bytes(b"no picture")
    summary = _summary(tmp_path, rows, names=["fid", "kid"])
    points = {point["codec"]: set(point["measures"]) for point in summary["points"]}
    assert points == {"broken": set(), "whole": {"fid", "kid"}}
    assert str(broken) in summary["left_out"]["fid"] and str(broken) in summary["left_out"]["kid"]


def test_a_setting_with_too_few_pictures_is_named_and_the_others_are_known(tmp_path: Path) -> None:
    rows = _rows(tmp_path, 3, 64, "whole") + _rows(tmp_path, 2, 64, "failed on one")
    summary = _summary(tmp_path, rows, names=["fid"], smallest_set=3, references=[str(tmp_path)])
    points = {point["codec"]: set(point["measures"]) for point in summary["points"]}
    assert points == {"whole": {"fid"}, "failed on one": set()}
    assert summary["left_out"]["fid"].startswith("failed on one, one: 2 pictures")
    # What the values that there are were made with decides which runs can share a report.
    assert summary["measures"]["fid"]["made_with"] == f"measures.references=['{tmp_path}']"
    few = _summary(tmp_path, rows, names=["fid"], smallest_set=9)["left_out"]["fid"]
    assert "whole, one: 3 pictures" in few and "failed on one, one: 2 pictures" in few
    (tmp_path / "alike").mkdir()
    alike = _rows(tmp_path / "alike", 2, 64, "a") + _rows(tmp_path / "alike", 2, 64, "b")
    few = _summary(tmp_path / "alike", alike, names=["fid"], smallest_set=9)["left_out"]["fid"]
    assert few.startswith("2 pictures")


def test_a_reference_that_cannot_be_read_leaves_them_out_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "references").mkdir()
    reference = tmp_path / "references" / "broken.png"
    reference.write_bytes(b"no picture")
    rows = _rows(tmp_path, 2, 64)
    summary = _summary(tmp_path, rows, names=["kid"], references=[str(reference.parent)])
    assert not summary["points"][0]["measures"]
    assert str(reference) in summary["left_out"]["kid"]
