"""Sketchers and the cache of maps."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from picsnet.errors import DataError, SketcherError, UsageError
from picsnet.images import load_grey
from picsnet.sketch import bundled, extract_folder, load_sketcher


def disc(height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    """A bright disc on dark ground: its edge is a ring."""
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(y - 60, x - 80) < 35
    return np.where(inside[..., None], (220, 200, 60), (30, 50, 90)).astype(np.uint8)


@pytest.fixture(scope="module")
def sketcher() -> bundled.BundledSketcher:
    return bundled.BundledSketcher()


def test_edges_are_where_the_picture_has_them(sketcher: bundled.BundledSketcher) -> None:
    edges = sketcher(disc())
    assert edges.shape == (120, 160)
    assert edges.dtype == np.uint8
    y, x = np.mgrid[:120, :160]
    radius = np.hypot(y - 60, x - 80)
    ring, inside, outside = abs(radius - 35) < 2, radius < 25, radius > 45
    assert edges[ring].mean() > 120
    assert edges[inside].mean() < 25
    assert edges[outside].mean() < 25


@pytest.mark.parametrize("size", [(16, 16), (17, 300), (33, 47)])
def test_any_size(sketcher: bundled.BundledSketcher, size: tuple[int, int]) -> None:
    assert sketcher(disc(120, 300)[: size[0], : size[1]]).shape == size


def test_strips_leave_no_trace(
    sketcher: bundled.BundledSketcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 255, (100, 12, 3), np.uint8)
    tall = np.asarray(Image.fromarray(blocks).resize((96, 1200)))
    whole = sketcher(tall)
    monkeypatch.setattr(bundled, "STRIP_PIXELS", 96 * 256)
    in_strips = sketcher(tall)
    assert np.abs(whole.astype(int) - in_strips).max() <= 1


def test_weights_fit_in_two_megabytes() -> None:
    assert (bundled.SHIPPED / bundled.WEIGHTS).stat().st_size <= 2_000_000


def test_damaged_or_missing_weights_are_one_line(tmp_path: Path) -> None:
    for content in (None, b"", b"{}"):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        if content is not None:
            (folder / bundled.CARD).write_bytes(content)
        with pytest.raises(SketcherError, match=r"train\.py") as caught:
            bundled.BundledSketcher(folder=folder)
        assert "\n" not in str(caught.value)


def test_unknown_sketchers_are_named() -> None:
    for spec in ("canny", "bundled:x"):
        with pytest.raises(UsageError, match="bundled, hed"):
            load_sketcher(spec)


@pytest.fixture(scope="module")
def hed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HED's real network with random weights, in the real layout."""
    from controlnet_aux.hed import ControlNetHED_Apache2

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hed")
    network = ControlNetHED_Apache2()
    for parameter in network.parameters():
        if parameter.ndim == 1 and parameter.numel() == 1:
            torch.nn.init.normal_(parameter)
    torch.save(network.state_dict(), folder / "ControlNetHED.pth")
    return folder


def test_hed_gives_what_controlnet_aux_gives(hed_folder: Path) -> None:
    from controlnet_aux.hed import HEDdetector

    rgb = disc(128, 192)
    ours = load_sketcher(f"hed:{hed_folder}")(rgb)
    detector = HEDdetector.from_pretrained(str(hed_folder))
    theirs = detector(rgb, detect_resolution=128, image_resolution=128, output_type="np")
    assert np.array_equal(ours, theirs[..., 0])
    assert ours.std() > 0


def test_hed_keeps_the_pictures_size(hed_folder: Path) -> None:
    assert load_sketcher(f"hed:{hed_folder}")(disc(70, 101)).shape == (70, 101)


def test_hed_without_weights_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(SketcherError, match=r"hf download .* hed:FOLDER"):
        load_sketcher(f"hed:{tmp_path}")


class _Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("(_ for _ in ()).throw(SystemExit('code ran'))",)


def test_a_pickle_with_code_in_it_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    pickle.dump({"weights": _Harm()}, buffer)
    (tmp_path / "ControlNetHED.pth").write_bytes(buffer.getvalue())
    with pytest.raises(SketcherError):
        load_sketcher(f"hed:{tmp_path}")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(disc()).save(folder / "a.png")
    Image.fromarray(disc()[::-1, :100]).save(folder / "sub" / "b.jpg")
    return folder


def test_maps_are_made_once_in_the_folders_layout(photos: Path, tmp_path: Path) -> None:
    first = extract_folder(photos, "bundled", tmp_path / "cache", progress=False)
    assert (first.done, first.reused, first.failed) == (2, 0, [])
    assert [m.parent.name for m in first.maps] == [first.maps_dir.name, "sub"]
    assert load_grey(first.maps[1]).shape == (120, 100)
    times = [m.stat().st_mtime_ns for m in first.maps]
    again = extract_folder(photos, "bundled", tmp_path / "cache", progress=False)
    assert (again.done, again.reused) == (0, 2)
    assert [m.stat().st_mtime_ns for m in again.maps] == times


def test_an_interrupted_run_goes_on_and_changed_pictures_get_new_maps(
    photos: Path, tmp_path: Path
) -> None:
    first = extract_folder(photos, "bundled", tmp_path / "cache", progress=False)
    first.maps[0].unlink()
    assert extract_folder(photos, "bundled", tmp_path / "cache", progress=False).done == 1
    Image.fromarray(disc()[:, ::-1]).save(photos / "a.png")
    changed = extract_folder(photos, "bundled", tmp_path / "cache", progress=False)
    assert (changed.done, changed.reused) == (1, 1)
    assert changed.maps[0] != first.maps[0]


def test_large_pictures_are_downscaled_if_asked(photos: Path, tmp_path: Path) -> None:
    report = extract_folder(photos, "bundled", tmp_path / "c", progress=False, max_side=80)
    assert load_grey(report.maps[0]).shape == (60, 80)


def test_a_broken_picture_is_named_and_skipped(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.png").write_bytes(b"not a picture")
    report = extract_folder(photos, "bundled", tmp_path / "cache", workers=2, progress=False)
    assert report.done == 2
    assert [path.name for path, _ in report.failed] == ["broken.png"]
    assert "broken.png" in capsys.readouterr().err
    assert len(report.maps) == 2


def test_folders_without_pictures_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        extract_folder(tmp_path / "nowhere", "bundled", tmp_path / "cache")
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of its 1 pictures"):
        extract_folder(tmp_path, "bundled", tmp_path / "cache", progress=False)
