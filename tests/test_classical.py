"""Classical codecs at ultra-low rates."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from picsnet import classical
from picsnet.classical import CODECS, ClassicalPoint, available_codecs, grid, why_missing
from picsnet.errors import DataError, UsageError
from tests.conftest import drawn_map

# A low and a high quality; JPEG 2000's is a rate.
LOW_HIGH = {
    "AVIF": (0, 40),
    "JPEG": (1, 40),
    "JPEG2000": (0.05, 0.8),
    "JXL": (0, 60),
    "WEBP": (0, 40),
}


def usable(codec: str) -> str:
    """The codec, or a skip that says why Pillow lacks it."""
    reason = why_missing(codec)
    if reason is not None:
        pytest.skip(f"{codec}: {reason}")
    return codec


@pytest.mark.parametrize("downscale", [1, 2, 4, 8])
@pytest.mark.parametrize("codec", CODECS)
def test_a_map_comes_back_in_its_size_and_likeness(codec: str, downscale: int) -> None:
    point = ClassicalPoint(usable(codec), LOW_HIGH[codec][1], downscale)
    sketch = drawn_map(131, 203, seed=5)  # not a multiple of anything
    decoded = point.decode(point.encode(sketch))
    assert decoded.shape == sketch.shape and decoded.dtype == np.uint8
    other = drawn_map(131, 203, seed=6)
    assert _error(decoded, sketch) < 0.8 * _error(decoded, other)


@pytest.mark.parametrize("codec", CODECS)
def test_rate_and_likeness_rise_with_quality(codec: str) -> None:
    usable(codec)
    sketch = drawn_map(192, 256, seed=2)
    files, errors = [], []
    for quality in LOW_HIGH[codec]:
        point = ClassicalPoint(codec, quality)
        files.append(len(point.encode(sketch)))
        errors.append(_error(point.decode(point.encode(sketch)), sketch))
    assert files[0] < files[1]
    assert errors[0] > errors[1]


@pytest.mark.parametrize("codec", CODECS)
def test_downscaling_saves_bytes(codec: str) -> None:
    usable(codec)
    sketch = drawn_map(256, 256, seed=2, lines=30)
    quality = 0.1 if codec == "JPEG2000" else LOW_HIGH[codec][0]
    full = len(ClassicalPoint(codec, quality, 1).encode(sketch))
    small = len(ClassicalPoint(codec, quality, 4).encode(sketch))
    # JPEG 2000 is told a rate for the original's pixels: it hits it at any scale.
    assert small < (1.3 * full if codec == "JPEG2000" else full)


def test_a_downscaled_file_pays_for_the_original_size() -> None:
    sketch = drawn_map(131, 203, seed=5)
    data = ClassicalPoint("JPEG", 1, 2).encode(sketch)
    assert data[:4] == (203).to_bytes(2, "big") + (131).to_bytes(2, "big")
    assert data[4:6] == b"\xff\xd8"


def test_jpeg2000_hits_the_rate_it_is_told() -> None:
    usable("JPEG2000")
    sketch = drawn_map(512, 768, seed=3, lines=60)
    for downscale in (1, 2, 4):
        size = len(ClassicalPoint("JPEG2000", 0.0125, downscale).encode(sketch))
        assert size * 8 / sketch.size == pytest.approx(0.0125, rel=0.15)


def test_jpeg2000_codestream_carries_no_comment() -> None:
    usable("JPEG2000")
    data = ClassicalPoint("JPEG2000", 0.1).encode(drawn_map(192, 256, seed=2))
    assert data.startswith(b"\xff\x4f\xff\x51")
    assert b"OpenJPEG" not in data


@pytest.mark.parametrize("downscale", [1, 2])
def test_container_bytes_are_what_surrounds_the_coded_picture(downscale: int) -> None:
    usable("AVIF")
    point = ClassicalPoint("AVIF", 0, downscale)
    data = point.encode(drawn_map(192, 256, seed=2))
    box = data.index(b"mdat") - 4  # the last box: its length, its name, the coded picture
    assert int.from_bytes(data[box : box + 4], "big") == len(data) - box
    size_field = 4 if downscale > 1 else 0
    assert point.container_bytes(data) + (len(data) - box - 8) + size_field == len(data)


@pytest.mark.parametrize("downscale", [1, 2])
def test_jpeg_is_decoded_without_its_wrapping(downscale: int) -> None:
    point = ClassicalPoint("JPEG", 1, downscale)
    data = point.encode(drawn_map(192, 256, seed=2))
    begin = 6 if downscale > 1 else 2  # the size to show it at, and what each JPEG begins with
    assert data[begin + 4 : begin + 8] == b"JFIF"
    bare = data[:begin] + data[begin + point.container_bytes(data) :]
    assert b"JFIF" not in bare and data[begin + point.container_bytes(data)] == 0xFF
    assert np.array_equal(point.decode(bare), point.decode(data))


@pytest.mark.parametrize("size", [(16, 16), (17, 200)])
@pytest.mark.parametrize("codec", CODECS)
def test_the_smallest_pictures_can_be_coded(codec: str, size: tuple[int, int]) -> None:
    """OpenJPEG refuses to halve a picture more often than it can be."""
    usable(codec)
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for point in classical.picture_grid(codec):
        assert point.decode_picture(point.encode_picture(rgb)).shape == rgb.shape
    for downscale in (1, 2, 4, 8):
        point = ClassicalPoint(codec, LOW_HIGH[codec][0], downscale)
        assert point.decode(point.encode(rgb[..., 0])).shape == size


@pytest.mark.parametrize("codec", CODECS)
def test_damaged_bytes_are_refused(codec: str) -> None:
    for downscale in (1, 2):
        point = ClassicalPoint(usable(codec), LOW_HIGH[codec][0], downscale)
        for data in (b"", b"no picture at all"):
            with pytest.raises(DataError, match=codec):
                point.decode(data)


def test_unknown_codecs_and_scales_are_refused() -> None:
    with pytest.raises(ValueError, match="BPG"):
        ClassicalPoint("BPG", 1)
    with pytest.raises(ValueError, match="downscale 3"):
        ClassicalPoint("JPEG", 1, 3)


@pytest.mark.parametrize("quality", [0, -0.1, float("nan"), float("inf")])
def test_jpeg2000_is_told_a_rate(quality: float) -> None:
    with pytest.raises(ValueError, match=f"quality {quality:g} of JPEG2000 is no rate"):
        ClassicalPoint("JPEG2000", quality)


def test_grid_covers_ultra_low_rates() -> None:
    sketch = drawn_map(512, 768, seed=7, lines=80)
    for codec in available_codecs():
        # The container of AVIF alone comes to 0.0055 bits per pixel.
        points = grid([codec])
        lowest = next(point for point in points if point.downscale == 8)
        highest = [point for point in points if point.downscale == 4][-1]
        assert 8 * len(lowest.encode(sketch)) / sketch.size < 0.009
        assert 8 * len(highest.encode(sketch)) / sketch.size > 0.03
    assert {point.codec for point in grid()} == set(CODECS)
    assert len({point.name for point in grid()}) == len(grid())


def test_a_codec_that_pillow_lacks_is_left_out_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    classical.available_codecs()  # Pillow registers its formats once
    monkeypatch.delitem(Image.SAVE, "AVIF", raising=False)
    assert "AVIF" not in available_codecs()
    assert "install" in (why_missing("AVIF") or "")
    with pytest.raises(UsageError, match="AVIF"):
        ClassicalPoint("AVIF", 0).encode(drawn_map(64, 64, seed=1))


def _error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean((a.astype(float) - b.astype(float)) ** 2))


@pytest.mark.parametrize("codec", available_codecs())
def test_photographs_come_back_in_colour_and_size(codec: str) -> None:
    from picsnet.classical import picture_grid

    rgb = np.zeros((120, 203, 3), np.uint8)
    rgb[:, :100] = (200, 40, 30)
    rgb[:, 100:] = (30, 60, 190)
    for point in picture_grid(codec)[-2:]:
        data = point.encode_picture(rgb)
        back = point.decode_picture(data)
        assert back.shape == rgb.shape
        left, right = back[:, :60].mean((0, 1)), back[:, 140:].mean((0, 1))
        assert left[0] > left[2] + 60 and right[2] > right[0] + 60
        with pytest.raises(DataError):
            point.decode_picture(data[: len(data) // 3])
