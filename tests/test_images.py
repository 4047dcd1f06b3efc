"""Pictures come in as a person sees them, and what is no picture is named."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from picsnet.errors import ImageError, ImageFormatError, OutputError, TooManyPixelsError
from picsnet.images import check_format, decode_rgb, load_grey, load_rgb, save_png
from picsnet.serve.worker import _refusal

RED, WHITE = [255, 0, 0], [255, 255, 255]


def quadrants() -> NDArray[np.uint8]:
    """24 rows of 32: red, green over blue, white."""
    pixels = np.zeros((24, 32, 3), np.uint8)
    pixels[:12, :16], pixels[:12, 16:] = RED, [0, 255, 0]
    pixels[12:, :16], pixels[12:, 16:] = [0, 0, 255], WHITE
    return pixels


@pytest.mark.parametrize("name", ["p.png", "p.bmp", "p.tif", "p.ppm", "p.PNG"])
def test_rgb_is_read_as_it_is(tmp_path: Path, name: str) -> None:
    Image.fromarray(quadrants()).save(tmp_path / name)
    pixels = load_rgb(tmp_path / name)
    assert pixels.dtype == np.uint8 and pixels.flags.writeable
    np.testing.assert_array_equal(pixels, quadrants())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    # What a camera that is held in this way would store, so that undoing it gives the quadrants.
    store: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(store[orientation](quadrants()))
    Image.fromarray(stored).save(tmp_path / "p.png", exif=exif)
    np.testing.assert_array_equal(load_rgb(tmp_path / "p.png"), quadrants())


def test_damaged_exif_does_not_hide_the_picture(tmp_path: Path) -> None:
    Image.fromarray(quadrants()).save(tmp_path / "p.jpg", exif=b"Exif\0\0junk that is no TIFF")
    assert load_rgb(tmp_path / "p.jpg").shape == (24, 32, 3)


def test_transparency_shows_white_in_pictures_and_black_in_maps(tmp_path: Path) -> None:
    alpha = np.full((24, 32, 1), 255, np.uint8)
    alpha[:12, :16] = 0
    Image.fromarray(np.concatenate([quadrants(), alpha], axis=2)).save(tmp_path / "rgba.png")
    rgb = load_rgb(tmp_path / "rgba.png")
    assert rgb[0, 0].tolist() == WHITE and rgb[0, 31].tolist() == [0, 255, 0]
    assert load_grey(tmp_path / "rgba.png")[0, 0] == 0


def test_half_transparency_is_blended(tmp_path: Path) -> None:
    Image.new("LA", (20, 20), (0, 128)).save(tmp_path / "la.png")
    assert load_rgb(tmp_path / "la.png")[3, 3].tolist() == [127, 127, 127]


def test_palette_with_transparent_entry(tmp_path: Path) -> None:
    palette = Image.fromarray(quadrants()).quantize(4)
    red = palette.getpixel((0, 0))
    palette.save(tmp_path / "p.png", transparency=red)
    rgb = load_rgb(tmp_path / "p.png")
    assert rgb[0, 0].tolist() == WHITE and rgb[23, 0].tolist() == [0, 0, 255]
    palette.save(tmp_path / "opaque.gif")
    np.testing.assert_array_equal(load_rgb(tmp_path / "opaque.gif"), quadrants())


def test_one_bit_and_grey(tmp_path: Path) -> None:
    black_and_white = quadrants()[..., 0] > 0
    Image.fromarray(black_and_white).save(tmp_path / "1.png")
    expected = black_and_white.astype(np.uint8) * 255
    np.testing.assert_array_equal(load_grey(tmp_path / "1.png"), expected)
    np.testing.assert_array_equal(load_rgb(tmp_path / "1.png")[..., 1], expected)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    deep = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    path = tmp_path / f"deep{suffix}"
    Image.fromarray(deep).save(path)
    expected = np.rint(deep / 257).astype(np.uint8)
    np.testing.assert_array_equal(load_grey(path), expected)
    np.testing.assert_array_equal(load_rgb(path)[..., 2], expected)


def png(colour_type: int, row: bytes, size: tuple[int, int], transparent: bytes = b"") -> bytes:
    """A 16-bit PNG of equal rows, of kinds that Pillow does not write; its size may be a lie."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", *size, 16, colour_type, 0, 0, 0)
    body = zlib.compress((b"\0" + row) * 20)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(b"tRNS", transparent) if transparent else b"")
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )


def test_sixteen_bit_rgb_png(tmp_path: Path) -> None:
    (tmp_path / "deep.png").write_bytes(png(2, struct.pack(">3H", 65535, 32768, 0) * 20, (20, 20)))
    assert load_rgb(tmp_path / "deep.png")[5, 5].tolist() == [255, 128, 0]


def test_sixteen_bit_grey_png_with_a_transparent_level(tmp_path: Path) -> None:
    row = struct.pack(">2H", 1000, 1001) * 10
    deep = png(0, row, (20, 20), transparent=struct.pack(">H", 1000))
    (tmp_path / "deep.png").write_bytes(deep)
    assert load_rgb(tmp_path / "deep.png")[0, :2, 0].tolist() == [255, 4]


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_floats_by_their_range(tmp_path: Path, white: float) -> None:
    values = np.linspace(0, white, 400, dtype=np.float32).reshape(20, 20)
    values[3, 3] = np.nan
    Image.fromarray(values).save(tmp_path / "f.tif")
    grey = load_grey(tmp_path / "f.tif")
    assert grey[0, 0] == 0 and grey[19, 19] == 255 and grey[3, 3] == 0
    assert abs(int(grey[10, 0]) - 128) <= 1


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk(tmp_path: Path, suffix: str) -> None:
    # Pillow marks its CMYK JPEGs as Adobe's and inverts them, as Photoshop does.
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / f"p{suffix}")
    red, green, blue = load_rgb(tmp_path / f"p{suffix}")[16, 16].astype(int)
    assert red > 240 and green < 15 and blue < 15


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_first_of_several_frames(tmp_path: Path, suffix: str) -> None:
    first, second = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 20), "blue")
    path = tmp_path / f"p{suffix}"
    first.save(path, save_all=True, append_images=[second])
    red, _, blue = load_rgb(path)[10, 10]
    assert red > 240 and blue < 15  # WebP is lossy


def test_largest_and_smallest_sides(tmp_path: Path) -> None:
    for size in [(8192, 16), (16, 8192)]:
        Image.new("L", size).save(tmp_path / "p.png")
        assert load_grey(tmp_path / "p.png").shape == size[::-1]


def test_largest_picture_is_no_bomb(tmp_path: Path) -> None:
    Image.new("1", (8192, 8192)).save(tmp_path / "p.png")
    assert load_grey(tmp_path / "p.png").shape == (8192, 8192)


@pytest.mark.parametrize("size", [(8193, 16), (15, 200), (12_000, 12_000), (90_000, 90_000)])
def test_sizes_outside_the_limits(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(png(0, b"\0" * 40, size))
    with pytest.raises(ImageError, match=r"p\.png: .*sides must be 16 to 8192.*resize") as caught:
        load_rgb(path)
    assert "\n" not in str(caught.value)


def jpeg() -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


def whole_png() -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.png", b"", "empty"),
        ("text.png", b"this is a text file\n" * 50, "no known picture format"),
        ("cut.jpg", jpeg()[: len(jpeg()) // 2], "truncated"),
        ("cut.png", whole_png()[: len(whole_png()) // 2], "truncated"),
        ("header.png", whole_png()[:40], "not a picture"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ImageError, match=says) as caught:
        load_rgb(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        load_rgb(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        load_rgb(tmp_path)


def test_saved_png_comes_back(tmp_path: Path) -> None:
    save_png(quadrants(), tmp_path / "new" / "rgb.png")
    np.testing.assert_array_equal(load_rgb(tmp_path / "new" / "rgb.png"), quadrants())
    grey = np.arange(400, dtype=np.uint16).astype(np.uint8).reshape(20, 20)
    save_png(grey, tmp_path / "grey.png")
    np.testing.assert_array_equal(load_grey(tmp_path / "grey.png"), grey)
    with Image.open(tmp_path / "grey.png") as file:
        assert (file.format, file.mode) == ("PNG", "L")


def test_png_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "p.png").mkdir()
    with pytest.raises(OutputError, match=r"p\.png"):
        save_png(quadrants(), tmp_path / "p.png")
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_strangers_picture_is_read_as_a_file_is(kind: str, tmp_path: Path) -> None:
    data = encoded(Image.linear_gradient("L").convert("RGB"), kind)
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(data)
    check_format(data, "it")
    assert np.array_equal(decode_rgb(data, "it"), load_rgb(path))


def test_a_strangers_picture_is_refused_by_its_header() -> None:
    data = encoded(Image.new("RGB", (64, 32)), "PNG")
    assert decode_rgb(data, "it", max_pixels=2048).shape == (32, 64, 3)
    with pytest.raises(TooManyPixelsError, match="it: is 64x32, 2048 pixels, and at most 2047"):
        decode_rgb(data[:60], "it", max_pixels=2047)  # its pixels are not even there
    with pytest.raises(ImageError, match="it: not a picture that can be read"):
        decode_rgb(data[:-40], "it")
    with pytest.raises(ImageError, match="it is empty"):
        decode_rgb(b"", "it")


def test_a_strangers_picture_is_not_blamed_for_memory_that_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(_: object) -> None:
        raise MemoryError

    data = encoded(Image.new("RGB", (64, 32)), "PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(MemoryError) as fault:
        decode_rgb(data, "it")
    assert _refusal(fault.value)["status"] == 500


def test_formats_whose_readers_do_more_are_not_read() -> None:
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n", encoded(Image.new("RGB", (64, 64)), "PDF"), b"text"):
        with pytest.raises(ImageFormatError, match="it: its content is none of PNG"):
            decode_rgb(data, "it")
        with pytest.raises(ImageFormatError, match="none of PNG"):
            check_format(data, "it")
