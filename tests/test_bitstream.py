"""The container: exact bytes, exact refusals."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picsnet.bitstream import (
    MAX_SKETCH_BYTES,
    MAX_TEXT_BYTES,
    PicsFile,
    SketchLayer,
    layer_bytes,
    overhead_bytes,
    read,
    write,
)
from picsnet.errors import (
    BitstreamError,
    ChecksumError,
    ImageSizeError,
    NotPicsFileError,
    TruncatedFileError,
    UnsupportedLayerError,
    UnsupportedVersionError,
    UsageError,
)
from tests.conftest import REPOSITORY

sides = st.integers(16, 8192)
sketches = st.builds(SketchLayer, st.binary(min_size=3, max_size=3), st.binary(max_size=300))
files = st.builds(
    PicsFile, sides, sides, st.none() | st.binary(max_size=255), st.none() | sketches
).filter(lambda file: file.text is not None or file.sketch is not None)
EXAMPLE = PicsFile(768, 512, None, SketchLayer(b"\x0a\x0b\x0c", b"\xde\xad\xbe\xef"))
BOTH = PicsFile(768, 512, b"prompt", SketchLayer(b"abc", b"stream"))


@given(files)
def test_round_trip_and_accounting(file: PicsFile) -> None:
    data = write(file)
    assert read(data) == file
    parts = layer_bytes(data)
    assert sum(parts.values()) == len(data)
    assert parts["decoder"] + parts["prompt"] == len(file.text or b"")
    assert parts["sketch"] == (len(file.sketch.stream) if file.sketch else 0)
    assert len(data) - parts["prompt"] - parts["sketch"] <= 15
    assert overhead_bytes(parts) <= 16


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_bytes_of_another_kind_are_read_alike(kind: type) -> None:
    data = write(BOTH)
    file = read(kind(data))
    assert file == BOTH
    assert file.sketch is not None and type(file.text) is type(file.sketch.stream) is bytes
    assert layer_bytes(kind(data)) == layer_bytes(data)
    with pytest.raises(ChecksumError):
        read(kind(data[:-1] + b"x"))
    with pytest.raises(UsageError, match="not int"):
        read(20)  # type: ignore[arg-type]


def test_the_documents_example_is_true() -> None:
    text = (REPOSITORY / "docs" / "format.md").read_text()
    documented = re.search(r"<!-- example -->\n\s+([0-9a-f ]+)\n", text)
    assert documented is not None
    assert write(EXAMPLE) == bytes.fromhex(documented.group(1))


def test_golden_bytes() -> None:
    assert write(EXAMPLE).hex() == "f512ff05ff030a0b0cdeadbeefcd77"
    assert write(BOTH).hex() == GOLDEN_BOTH


GOLDEN_BOTH = "f513ff05ff030670726f6d70742461626373747265616de773"


@given(files, st.data())
def test_every_flipped_bit_is_noticed(file: PicsFile, data: st.DataObject) -> None:
    whole = bytearray(write(file))
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BitstreamError):
        read(bytes(whole))


@given(files, st.data())
def test_every_cut_is_noticed(file: PicsFile, data: st.DataObject) -> None:
    whole = write(file)
    with pytest.raises(BitstreamError):
        read(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=60))
def test_any_bytes_end_in_a_file_or_a_picsnet_error(data: bytes) -> None:
    for start in (b"", b"\xf5", b"\xf5\x12", b"\xf5\x13\x7f\x7f"):
        try:
            read(start + data)
        except BitstreamError as error:
            assert "\n" not in str(error)
            assert "; " in str(error) or "sides must be" in str(error)


def test_a_cut_sketch_leaves_the_text() -> None:
    data = write(BOTH)[:-4]
    with pytest.raises(ChecksumError):
        read(data)
    assert read(data, partial=True) == PicsFile(768, 512, b"prompt", None, ("sketch",))


def test_a_cut_text_leaves_nothing() -> None:
    with pytest.raises(TruncatedFileError):
        read(write(BOTH)[:9], partial=True)


def test_errors_by_kind_name_the_file() -> None:
    good = bytearray(write(EXAMPLE))

    def changed(place: int, value: int) -> bytes:
        data = bytearray(good)
        data[place] = value
        return bytes(data)

    cases: list[tuple[bytes, type[BitstreamError]]] = [
        (b"", NotPicsFileError),
        (b"\x89PNG\r\n", NotPicsFileError),
        (b"\xf5", TruncatedFileError),
        (changed(1, 0x22), UnsupportedVersionError),
        (changed(1, 0x1A), UnsupportedLayerError),
        (changed(1, 0x10), UnsupportedLayerError),
        (b"\xf5\x12\x03\x7f" + bytes(9), ImageSizeError),
        (b"\xf5\x12\xff\x7f\xff\x7f" + bytes(9), ImageSizeError),
        (b"\xf5\x12\x80\x00\x7f" + bytes(9), ImageSizeError),
        (changed(12, 0), ChecksumError),
        (bytes(good[:8]), TruncatedFileError),
    ]
    for data, kind in cases:
        with pytest.raises(kind, match=r"^holiday\.pics") as caught:
            read(data, name="holiday.pics")
        assert type(caught.value) is kind


def test_layers_beyond_their_limits_are_refused_unread() -> None:
    with pytest.raises(UnsupportedLayerError):
        write(PicsFile(64, 64, bytes(MAX_TEXT_BYTES + 1)))
    huge = b"\xf5\x12\x7f\x7f" + bytes(MAX_SKETCH_BYTES + 8)
    with pytest.raises(TruncatedFileError, match="beyond the format's"):
        read(huge)
    with pytest.raises(UnsupportedLayerError):
        write(PicsFile(64, 64))
    with pytest.raises(ImageSizeError):
        write(PicsFile(15, 64, b""))
