"""Maps of folders: cached, resumable, and whole."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from picsnet.errors import DataError, OutputError, UsageError
from picsnet.files import beside
from picsnet.images import load_grey, load_rgb, save_png
from picsnet.sketch import ExtractionReport, extract_folder, load_sketcher


@pytest.fixture
def spec() -> str:
    return "bundled"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, size in [("a.png", (32, 48)), ("sub/b.png", (40, 24)), ("sub/c.bmp", (16, 16))]:
        path = tmp_path / "photos" / name
        save_png(rng.integers(0, 256, (*size, 3), dtype=np.uint8), path)
    return tmp_path / "photos"


def extract(
    photos: Path, spec: str, cache: Path, workers: int = 1, max_side: int | None = None
) -> ExtractionReport:
    return extract_folder(photos, spec, cache, workers, progress=False, max_side=max_side)


def files(folder: Path) -> list[str]:
    """All files, hidden ones too, but for the lock."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return sorted(str(p.relative_to(folder)) for p in found)


def test_maps_are_those_of_the_sketcher(photos: Path, spec: str, tmp_path: Path) -> None:
    report = extract(photos, spec, tmp_path / "cache")
    sketcher = load_sketcher(spec)
    assert report.maps_dir == tmp_path / "cache" / sketcher.name
    assert (report.done, report.reused, report.failed) == (3, 0, [])
    names = ["a.png", "sub/b.png", "sub/c.bmp"]
    for name, map_ in zip(names, report.maps, strict=True):
        relative = map_.relative_to(report.maps_dir).as_posix()
        assert re.fullmatch(re.escape(name) + r"--[0-9a-f]{12}\.png", relative)
        np.testing.assert_array_equal(load_grey(map_), sketcher(load_rgb(photos / name)))
    assert len(files(tmp_path / "cache")) == 3


def test_workers_make_the_same_maps(photos: Path, spec: str, tmp_path: Path) -> None:
    one = extract(photos, spec, tmp_path / "one")
    two = extract(photos, spec, tmp_path / "two", workers=2)
    assert (two.done, two.reused, two.failed) == (3, 0, [])
    assert files(tmp_path / "one") == files(tmp_path / "two")
    for left, right in zip(one.maps, two.maps, strict=True):
        difference = load_grey(left).astype(int) - load_grey(right)
        assert np.abs(difference).max() <= 1  # another number of threads may tip a level


def test_what_is_there_is_kept_and_what_is_missing_made(
    photos: Path, spec: str, tmp_path: Path
) -> None:
    first = extract(photos, spec, tmp_path / "cache")
    first.maps[1].unlink()
    for path in (first.maps[0], first.maps[2]):
        os.utime(path, (1, 1))
    second = extract(photos, spec, tmp_path / "cache")
    assert (second.done, second.reused, second.maps) == (1, 2, first.maps)
    assert [path.stat().st_mtime == 1 for path in second.maps] == [True, False, True]


def test_changed_picture_gets_a_new_map(photos: Path, spec: str, tmp_path: Path) -> None:
    first = extract(photos, spec, tmp_path / "cache")
    save_png(np.zeros((20, 20, 3), np.uint8), photos / "a.png")
    second = extract(photos, spec, tmp_path / "cache")
    assert (second.done, second.reused) == (1, 2)
    assert second.maps[0] != first.maps[0] and second.maps[1:] == first.maps[1:]
    assert load_grey(second.maps[0]).shape == (20, 20)


def test_larger_pictures_are_downscaled_first(photos: Path, spec: str, tmp_path: Path) -> None:
    full = extract(photos, spec, tmp_path / "cache")
    small = extract(photos, spec, tmp_path / "cache", max_side=24)
    assert small.done == 3 and not set(full.maps) & set(small.maps)
    assert [load_grey(path).shape for path in small.maps] == [(16, 24), (27, 16), (16, 16)]


def test_broken_picture_is_named_and_skipped(
    photos: Path, spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "sub" / "b.png").write_bytes((photos / "sub" / "b.png").read_bytes()[:500])
    (photos / "empty.jpg").write_bytes(b"")
    report = extract(photos, spec, tmp_path / "cache")
    assert report.done == 2
    assert [path for path, _ in report.failed] == [photos / "empty.jpg", photos / "sub" / "b.png"]
    assert report.failed[0][1].startswith("not a picture that can be read (the file is empty)")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("picsnet: skipped ") for line in lines)
    assert str(photos / "sub" / "b.png") in lines[1]
    assert len(files(tmp_path / "cache")) == 2


def test_all_broken(tmp_path: Path, spec: str) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "p.png").write_text("text")
    with pytest.raises(DataError, match=r"photos: none of its 1 pictures.*p\.png"):
        extract(tmp_path / "photos", spec, tmp_path / "cache")


def test_no_folder_or_no_pictures(tmp_path: Path, spec: str) -> None:
    with pytest.raises(DataError, match="none: no such folder"):
        extract(tmp_path / "none", spec, tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: "):
        extract(tmp_path / "empty", spec, tmp_path / "cache")


def test_impossible_settings(photos: Path, spec: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0 workers"):
        extract(photos, spec, tmp_path / "cache", workers=0)
    with pytest.raises(UsageError, match="longest side of 8"):
        extract(photos, spec, tmp_path / "cache", max_side=8)
    with pytest.raises(UsageError, match="no sketcher"):
        extract(photos, "canny", tmp_path / "cache")


def test_cache_among_the_photos_is_not_sketched(photos: Path, spec: str) -> None:
    first = extract(photos, spec, photos / "maps")
    second = extract(photos, spec, photos / "maps")
    assert (second.reused, second.done, second.maps) == (3, 0, first.maps)


def test_cache_that_cannot_be_written(photos: Path, spec: str, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(OutputError, match="cache"):
        extract(photos, spec, tmp_path / "cache")


def test_processes_that_start_together_make_each_map_once(
    photos: Path, spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()  # only added to: emptying capsys's while threads write may lose a line
    monkeypatch.setattr("sys.stderr", said)
    cache = tmp_path / "cache"
    maps_dir = extract(photos, spec, tmp_path / "other").maps_dir.name
    (cache / maps_dir).mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        with FileLock(cache / maps_dir / ".lock"):
            later = [pool.submit(extract, photos, spec, cache) for _ in range(2)]
            deadline = time.monotonic() + 60
            while said.getvalue().count("another process makes maps; waiting") < 2:
                assert time.monotonic() < deadline, said.getvalue()
                time.sleep(0.02)
            assert not files(cache)
        reports = [job.result() for job in later]
    assert sorted((report.done, report.reused) for report in reports) == [(0, 3), (3, 0)]


def test_what_killed_processes_had_begun_goes_when_none_is_at_work(
    photos: Path, spec: str, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = extract(photos, spec, cache).maps
    parts = [path.with_name(beside(path.name)) for path in first]
    for part in parts:
        part.touch()
    assert extract(photos, spec, cache).reused == 3
    assert all(part.exists() for part in parts)  # nothing to make: not looked for
    first[0].unlink()
    assert extract(photos, spec, cache).done == 1
    assert not any(part.exists() for part in parts) and all(path.is_file() for path in first)


def test_progress_is_plain_lines_where_there_is_no_terminal(
    photos: Path, spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extract_folder(photos, spec, tmp_path / "cache", workers=1, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and err.endswith(": 3 of 3 maps\n") and "\r" not in err


INTERRUPTED = """
import sys
from pathlib import Path
from picsnet.sketch import extract_folder
if __name__ == "__main__":
    photos, spec, cache = sys.argv[1:]
    extract_folder(Path(photos), spec, Path(cache), workers=2, progress=False)
"""


def test_interruption_leaves_whole_maps_and_the_same_call_goes_on(
    photos: Path, spec: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    for index in range(40):
        pixels = rng.integers(0, 256, (256, 320, 3), dtype=np.uint8)
        save_png(pixels, photos / f"more{index}.png")
    script, cache = tmp_path / "script.py", tmp_path / "cache"
    script.write_text(INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(photos), spec, str(cache)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(cache.rglob("*--*.png")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C: to all its processes
        _, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert b"KeyboardInterrupt" in err and b"BrokenProcessPool" not in err
    made = [cache / name for name in files(cache)]
    assert 0 < len(made) < 43
    for path in made:
        load_grey(path)
    report = extract(photos, spec, cache)
    assert (report.reused, report.done) == (len(made), 43 - len(made))
