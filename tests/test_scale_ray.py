"""Folders and buckets by Ray: units, stores, and a worker that is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from picsnet.errors import DataError, OutputError, UsageError
from picsnet.files import beside
from picsnet.scale import stores
from picsnet.scale.manifest import MANIFEST, PARTS, from_lines
from picsnet.scale.ray import Workers, _check_room, _finish, _readable, encode_pictures
from picsnet.scale.settings import EncodeSettings
from picsnet.scale.stores import Store
from picsnet.scale.units import BEGUN, Job, Picture, UnitCoder
from tests.test_scale_pictures import MODEL, files, journalled, manifest, start, timeless

SETTINGS = EncodeSettings(ckpt=str(MODEL), sketcher="map")


@pytest.fixture
def coder(maps_folder: Path, tmp_path: Path) -> UnitCoder:
    digest = SETTINGS.digest()
    return UnitCoder(
        Job(SETTINGS, digest, str(maps_folder), f"file://{tmp_path / 'out'}", "7", device="cpu")
    )


def pictures(*numbers: int) -> list[Picture]:
    return [Picture(f"map{n:02}.png", f"map{n:02}.pics", "v1") for n in numbers]


def test_a_unit_that_was_done_when_its_worker_died_is_not_done_again(
    coder: UnitCoder, tmp_path: Path
) -> None:
    records = coder.code(0, pictures(1, 2))
    written = files(tmp_path / "out")
    assert [record["status"] for record in records] == ["ok", "ok"] and len(written) == 2
    assert coder.code(0, pictures(1, 2)) == records  # times too
    assert files(tmp_path / "out") == written


def test_a_picture_that_workers_die_of_is_left_out_and_the_others_are_coded(
    coder: UnitCoder, tmp_path: Path
) -> None:
    part = tmp_path / "out" / PARTS / "7-00000003"
    died = part.with_name(part.name + BEGUN)
    tried: list[str] = []

    def dies(names: list[str]) -> None:
        tried.extend(names)
        if "map02.png" in names:
            raise MemoryError  # stands for the process's end: nothing after it is done

    encode = coder.encoder.code

    def encoding(paths):  # type: ignore[no-untyped-def]
        dies([path.name for path in paths])
        return encode(paths)

    coder.encoder.encode = encoding  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(MemoryError):
            coder.code(3, pictures(1, 2, 3))
        assert died.is_file()
    records = coder.code(3, pictures(1, 2, 3))
    assert [record["status"] for record in records] == ["ok", "error", "ok"]
    assert "died twice" in records[1]["error"] and "map02.png" in records[1]["error"]
    assert tried == ["map01.png", "map02.png", "map03.png", "map01.png", "map02.png", "map01.png",
                     "map03.png"]  # fmt: skip
    assert list(from_lines(part.with_name(part.name + ".jsonl").read_bytes())) == records


def test_bytes_decide_where_a_version_is_new(coder: UnitCoder, tmp_path: Path) -> None:
    (first,) = coder.code(0, pictures(1))
    written = files(tmp_path / "out")
    again = Picture("map01.png", "map01.pics", "v2", first)
    (kept,) = coder.code(1, [again])
    assert kept == {**first, "version": "v2"} and files(tmp_path / "out") == written
    other = Picture("map02.png", "map01.pics", "v2", first)
    (new,) = coder.code(2, [other])
    assert new["key"] != first["key"] and files(tmp_path / "out") != written


def test_errors_are_records(coder: UnitCoder, tmp_path: Path) -> None:
    records = coder.code(0, [*pictures(1), Picture("gone.png", "gone.pics", "v1")])
    assert [record["status"] for record in records] == ["ok", "error"]
    assert "gone.png" in records[1]["error"] and records[1]["bytes"] is None


def test_what_was_made_of_a_picture_goes_before_its_failure_is_proved(
    coder: UnitCoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coder.code(0, pictures(1, 2))
    store, broken = coder.destination, Picture("gone.png", "map01.pics", "v2")
    with monkeypatch.context() as patch, pytest.raises(OutputError, match=r"map01\.pics"):
        patch.setattr(store._files, "rm_file", lambda path: 1 / 0)
        coder.code(1, [broken])
    assert store.read_if_there(f"{PARTS}/7-00000001.jsonl") is None
    (record,) = coder.code(1, [broken])
    assert record["status"] == "error" and set(files(tmp_path / "out")) == {"map02.pics"}


@pytest.mark.parametrize("whole", [True, False])
def test_a_store_writes_whole_files_and_tells_versions(
    whole: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if not whole:
        monkeypatch.setattr(stores, "WHOLE", frozenset())  # written beside, then renamed
    store = Store(f"memory://{tmp_path.name}/{whole}")
    assert store.files() == {} and store.read_if_there("a/b.bin") is None
    store.write("a/b.bin", b"one")
    store.write("manifest.parts/c", b"x")
    first = store.files()
    assert set(first) == {"a/b.bin", "manifest.parts/c"} and first["a/b.bin"][0] == 3
    store.write("a/b.bin", b"two")
    assert store.read("a/b.bin") == b"two" == store.fetch("a/b.bin", tmp_path / "b").read_bytes()
    assert store.files()["a/b.bin"][1] != first["a/b.bin"][1]
    store.delete_folder("manifest.parts", first)
    assert set(store.files()) == {"a/b.bin"}
    for _ in range(2):  # the second time it is gone already
        store.delete("a/b.bin")
        assert store.files() == {}
    with pytest.raises(DataError, match="nowhere"):
        store.read("nowhere")


def test_a_linked_picture_is_another_when_what_it_leads_to_is(tmp_path: Path) -> None:
    """The link's own time stays, and an uncompressed picture's size as well."""
    real = tmp_path / "real.ppm"
    real.write_bytes(b"one")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "a.ppm").symlink_to(real)
    (tmp_path / "linked" / "nowhere.ppm").symlink_to(tmp_path / "gone.ppm")
    store = Store(str(tmp_path / "linked"))
    before = store.files()
    real.write_bytes(b"two")
    os.utime(real, (1, 1))
    after = store.files()
    assert after["a.ppm"] != before["a.ppm"]
    assert after["nowhere.ppm"] == before["nowhere.ppm"]


def test_what_a_killed_worker_had_begun_goes(tmp_path: Path) -> None:
    """Or its folder of records would stay behind; other hidden files are not ours."""
    store = Store(str(tmp_path))
    store.write("a/b.pics", b"one")
    store.write("manifest.parts/c.jsonl", b"{}")
    parts = tmp_path / "manifest.parts"
    begun = [
        tmp_path / "a" / beside("d.pics"),
        parts / beside("e.jsonl"),
        parts / beside("f.begun"),
    ]
    for path in [*begun, tmp_path / "a" / ".mine.pics"]:
        path.write_bytes(b"o")
    store.tidy()
    store.delete_folder("manifest.parts", store.files())
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {"a", "a/b.pics", "a/.mine.pics"}


def test_unknown_schemes_and_missing_drivers_are_named() -> None:
    with pytest.raises(UsageError, match="nonsense"):
        Store("nonsense://x")
    if "gcsfs" not in sys.modules:
        with pytest.raises(UsageError, match="pip install gcsfs"):
            Store("gs://bucket")


@pytest.mark.usefixtures("bf16_as_elsewhere")
def test_one_of_two_workers_is_killed_and_nothing_is_lost_or_done_twice(
    maps_folder: Path, tmp_path: Path, coder: UnitCoder
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'picsnet[ray]'")
    source, out = tmp_path / "in", tmp_path / "coded"
    (source / "more").mkdir(parents=True)
    names = [f"{'more/' * (n % 2)}map{n:02}" for n in range(24)]
    for number, name in enumerate(names):
        shutil.copy(maps_folder / f"map{number % 12:02}.png", source / f"{name}.png")
    (source / "bad.png").write_bytes(b"no picture")
    command = [sys.executable, "-m", "picsnet.scale.ray", str(source), f"file://{out}"]
    command += ["--mode", "sketch", "--sketcher", "map", "--ckpt", str(MODEL), "--effort", "1"]
    run = start([*command, "--workers", "2", "--unit", "2"])
    while not list((out / PARTS).glob("*.jsonl")):
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)
    worker = next(
        process
        for process in psutil.Process(run.pid).children(recursive=True)
        if "ray::MapWorker" in " ".join(process.cmdline())
    )
    before = [record["output"] for record in journalled(out)]  # others may be half of a unit
    written = {name: files(out)[name] for name in before if name != "bad.pics"}
    worker.send_signal(signal.SIGKILL)
    assert not (out / MANIFEST).exists()
    said = run.communicate(timeout=200)
    assert run.returncode == 1, said
    assert "25 pictures, 24 coded now, 0 before, 1 failed" in said[0]
    assert "bad.png: not a picture" in said[1]
    records = manifest(out)
    assert [record["output"] for record in records] == sorted([*files(out), "bad.pics"])
    assert sum(record["status"] == "ok" for record in records) == 24
    assert not (out / PARTS).exists()
    assert {name: files(out)[name] for name in written} == written

    # The same bytes as without Ray.
    coder.job = Job(
        EncodeSettings(ckpt=str(MODEL), sketcher="map", effort=1),
        records[0]["settings"], f"file://{source}", f"file://{tmp_path / 'alone'}", "1",
    )  # fmt: skip
    (sample,) = (record for record in records if record["output"] == "map00.pics")
    fresh = UnitCoder(coder.job).code(0, [Picture("map00.png", "map00.pics", sample["version"])])
    assert timeless(fresh) == timeless([sample])
    assert json.loads(json.dumps(sample)) == sample


def test_a_picture_that_no_worker_noted_has_failed(coder: UnitCoder, tmp_path: Path) -> None:
    coder.code(0, pictures(1))
    out = Store(f"file://{tmp_path / 'out'}")
    named = {f"map{n:02}.pics": f"maps/map{n:02}.png" for n in (1, 2)}
    records = _finish(out, named, coder.job.digest)
    assert [record["status"] for record in records.values()] == ["ok", "error"]
    assert "map02.png: no record" in records["map02.pics"]["error"]
    assert manifest(tmp_path / "out") == [*records.values()]


def test_workers_that_fit_nowhere_are_refused_or_waited_for(
    maps_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [{"CPU": 8.0}, {"CPU": 2.0, "GPU": 1.0, "memory": 1e9}]
    for fits in (Workers(cpus=8), Workers(cpus=2, gpus=0.5), Workers(cpus=0)):
        _check_room(fits, nodes, None)
    for large in (Workers(cpus=9), Workers(gpus=2), Workers(cpus=4, gpus=1)):
        with pytest.raises(UsageError, match="no node of this machine has both"):
            _check_room(large, nodes, None)
    assert capsys.readouterr().err == ""
    _check_room(Workers(gpus=2), nodes, "auto")  # such a cluster may grow
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("waiting for one that has")
    with pytest.raises(UsageError, match="0 or more"):
        encode_pictures(str(maps_folder), str(tmp_path), SETTINGS, Workers(gpus=-1))


def test_of_a_workers_traceback_the_end_is_told() -> None:
    """Where Ray cannot send an error itself, it sends its traceback as text."""
    trace = "".join(f'  File "worker.py", line {n}, in call\n    self.call()\n' for n in range(40))
    wrapped = RuntimeError(f"Traceback (most recent call last):\n{trace}OSError: disk is on fire")
    said = str(_readable(wrapped))
    assert "OSError: disk is on fire); what is done stays done" in said and "\n" not in said
    assert len(said) < 450
    own = DataError("map01.png: cannot be read")
    wrapped.__cause__ = own
    assert _readable(wrapped) is own
