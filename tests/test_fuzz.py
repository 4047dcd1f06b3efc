"""A short run of `tests.fuzz`; the long one is `make fuzz`."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picsnet.bitstream import PicsFile, SketchLayer, read, write
from picsnet.codec import SketchCodec
from tests import fuzz
from tests.fuzz import Reader, case, corpus, run
from tests.vectors import models

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by /proc")


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(models())


def test_every_case_ends_in_an_error_of_ours_or_a_picture() -> None:
    tally = run(range(3000), seed=20261124)
    assert tally.findings == []
    assert sum(tally.outcomes.values()) == 3000
    # Cases reach all that can go wrong, and get past it.
    for outcome, least in {
        "picture": 500,
        "prompt": 100,
        "ChecksumError": 300,
        "TruncatedFileError": 30,
        "CorruptStreamError": 20,
        "ImageSizeError": 20,
        "NotPicsFileError": 20,
        "UnsupportedVersionError": 5,
        "UnsupportedLayerError": 2,
        "unknown model": 5,
    }.items():
        assert tally.outcomes[outcome] >= least, outcome


def test_a_case_is_the_same_again() -> None:
    seeds = corpus()
    first = [case(seeds, 3, number) for number in range(200)]
    assert first == [case(seeds, 3, number) for number in range(200)]
    assert first != [case(seeds, 4, number) for number in range(200)]


def test_the_run_finds_what_is_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that falls over, dawdles or hoards is found out."""
    monkeypatch.setattr(fuzz, "SECONDS", 0.0)
    assert len(run(range(5), seed=1).findings) == 5
    monkeypatch.setattr(fuzz, "SECONDS", 2.0)
    with monkeypatch.context() as patch:
        known = set(corpus())
        patch.setattr(
            fuzz.Reader,
            "__call__",
            lambda self, data: "" if data in known else f"{np.ones(80 * 2**20).sum()}",
        )
        patch.setattr(fuzz, "SECONDS", 60.0)
        # However much the process held at once before: that must not hide what cases take.
        np.ones(120 * 2**20)
        findings = run(range(10), seed=1).findings
        seeds = corpus()
        assert [finding.number for finding in findings] == [
            number for number in range(10) if case(seeds, 1, number) not in known
        ]
        assert all(re.fullmatch(r"took 6\d\d MiB", finding.why) for finding in findings)
    intact = {file.sketch.stream for file in map(read, corpus()) if file.sketch is not None}

    def fragile(self: SketchCodec, stream: bytes, *rest: object) -> np.ndarray:
        if stream in intact:
            return whole(self, stream, *rest)
        raise ZeroDivisionError("planted")

    whole = SketchCodec.decode_stream
    monkeypatch.setattr(SketchCodec, "decode_stream", fragile)
    findings = run(range(100), seed=1).findings
    assert findings
    assert {finding.why for finding in findings} == {"ZeroDivisionError: planted"}


def test_failing_cases_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "run", lambda numbers, seed: dataclasses.replace(_failed(), most=1))
    monkeypatch.setattr(fuzz.multiprocessing, "get_context", lambda kind: _InProcess())
    monkeypatch.setattr("sys.argv", ["fuzz", "--count", "10", "-o", str(tmp_path)])
    assert fuzz.main() == 1
    assert (tmp_path / "seed1-case7.pics").read_bytes() == case(corpus(), 1, 7)
    assert '"why": "planted"' in (tmp_path / "report.json").read_text()


def _failed() -> fuzz.Tally:
    return fuzz.Tally(fuzz.collections.Counter(), [fuzz.Finding(7, "planted")], (0.1, 7), 0)


class _InProcess:
    def Pool(self, *args: object, **kwargs: object) -> _InProcess:  # noqa: N802
        return self

    def __enter__(self) -> _InProcess:
        return self

    def __exit__(self, *args: object) -> None:
        pass

    imap_unordered = staticmethod(map)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(16, 300),
    st.integers(16, 300),
    st.none() | st.binary(max_size=60),
    st.none() | st.tuples(st.integers(0, 1), st.binary(max_size=80)),
)
def test_any_contents_behind_valid_checksums(
    reader: Reader, width: int, height: int, text: bytes | None, sketch: tuple[int, bytes] | None
) -> None:
    known = sorted(reader.codecs)
    layer = None if sketch is None else SketchLayer(known[sketch[0]], sketch[1])
    if text is None and layer is None:
        return
    assert reader(write(PicsFile(width, height, text, layer)))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100), st.integers(1, 3))
def test_any_bytes_behind_a_head(reader: Reader, rest: bytes, mask: int) -> None:
    assert reader(bytes([0xF5, 1 << 4 | mask]) + rest)
