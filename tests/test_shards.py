"""Maps in shards: written whole or not at all, gone on with, read back by us and by litdata."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from picsnet.buckets import FolderStore, open_store
from picsnet.cli import main
from picsnet.errors import DataError, OutputError, PicsnetError, UsageError
from picsnet.files import atomic_write, beside
from picsnet.holding import held
from picsnet.images import load_grey
from picsnet.shards import OpenShard, ShardReader, is_grey_png, read_set
from picsnet.sketch.shards import check_output, write_shards
from tests.conftest import drawn_map
from tests.local_bucket import serve

SHARD_BYTES = 30_000


def pack(maps: Path, out: Path | str, **about: Any) -> Any:
    store = check_output(str(out), SHARD_BYTES)
    return write_shards(sorted(maps.glob("*.*")), store, SHARD_BYTES, about, progress=False)


def unpacked(url: str) -> list[bytes]:
    found = []
    for shard in read_set(url).shards:

        def read(offset: int, length: int, shard: Any = shard) -> bytes:
            return bytes(shard.store.read(shard.name, offset, length))

        reader = ShardReader(shard, read)
        found += [reader.png(item) for item in range(shard.count)]
    return found


def sketch(*arguments: object) -> int:
    return main(["sketch", *map(str, arguments)])


def test_maps_come_back_in_the_order_of_their_paths(
    maps_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shards"
    assert sketch(maps_folder, "--sketcher", "map", "--shards", out, "--shard-mb", 0.03) == 0
    assert "12 maps in" in capsys.readouterr().out
    files = [path.read_bytes() for path in sorted(maps_folder.iterdir())]
    assert unpacked(str(out)) == unpacked(f"file://{out}") == unpacked(f"local:{out}") == files
    found = read_set(str(out))
    assert len(found.shards) > 2 and found.count == 12
    assert found.about["sketcher"] == "map" and found.about["revision"]
    names = (out / found.about["names"]).read_text().splitlines()
    assert names == [path.name for path in sorted(maps_folder.iterdir())]


def test_litdata_opens_what_we_write(maps_folder: Path, tmp_path: Path) -> None:
    import litdata

    pack(maps_folder, tmp_path / "shards")
    dataset = litdata.StreamingDataset(str(tmp_path / "shards"))
    files = [path.read_bytes() for path in sorted(maps_folder.iterdir())]
    assert [bytes(dataset[index]) for index in range(len(dataset))] == files


def test_photographs_are_sketched_and_packed_and_a_broken_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out, maps = tmp_path / "photos", tmp_path / "shards", tmp_path / "maps"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(photos / f"{name}.png")
    (photos / "broken.jpg").write_bytes(b"no picture")
    options = [photos, "-o", maps, "--shards", out, "--workers", 1, "--max-side", 32]
    assert sketch(*options) == 1
    printed = capsys.readouterr()
    assert "broken.jpg" in printed.err and "3 maps in 1 shards" in printed.out
    (folder,) = maps.iterdir()
    assert unpacked(str(out)) == [path.read_bytes() for path in sorted(folder.glob("*.png"))]
    about = read_set(str(out)).about
    assert about["sketcher"] == folder.name and about["max_side"] == 32
    assert sketch(*options) == 1
    assert "0 maps made, 3 there" in (said := capsys.readouterr().out) and "1 of them there" in said


def test_killed_it_leaves_whole_shards_and_no_index_and_the_same_call_goes_on(
    maps_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pack(maps_folder, tmp_path / "whole")
    out = tmp_path / "out"
    check_output(str(out), SHARD_BYTES)
    child = os.fork()
    if child == 0:
        puts: list[str] = []

        def put(self: FolderStore, source: Path, name: str) -> None:
            puts.append(name)
            with atomic_write(self.root / name) as part:
                data = source.read_bytes()
                part.write_bytes(data[: len(data) // 2])
                if len(puts) == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                part.write_bytes(data)

        monkeypatch.setattr(FolderStore, "put", put)
        pack(maps_folder, out)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    before = {path.name: path.read_bytes() for path in out.glob("[!.]*")}
    assert len(before) == 2 and "index.json" not in before
    (begun,) = out.glob(".maps-*")
    others = out / ".maps-of.1-0123456-.bin"
    others.touch()
    report = pack(maps_folder, out)
    assert others.exists() and not begun.exists()
    assert {path.name for path in out.glob(".*")} == {others.name}
    assert (report.shards, report.written) == (whole.shards, whole.shards - 2)
    for path in (tmp_path / "whole").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()
    assert pack(maps_folder, out).written == 0


def test_where_another_process_packs_nothing_of_its_is_touched(
    maps_folder: Path, tmp_path: Path
) -> None:
    begun = tmp_path / beside("maps-00000-0123456789ab.bin")
    begun.touch()
    with held(tmp_path / ".lock", OutputError("unexpected"), ""):
        with pytest.raises(OutputError, match=r"another process packs maps here.*wait") as caught:
            pack(maps_folder, tmp_path)
        assert str(tmp_path) in str(caught.value) and begun.exists()
    pack(maps_folder, tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_another_set_at_the_same_place_replaces_it_and_names_what_is_left_over(
    maps_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(maps_folder.iterdir())[3:]:
        (few / path.name).write_bytes(path.read_bytes())
    options = ["--sketcher", "map", "--shards", tmp_path / "out", "--shard-mb", 0.03]
    sketch(maps_folder, *options)
    old = read_set(str(tmp_path / "out")).shards
    capsys.readouterr()
    assert sketch(few, *options) == 0
    assert old[0].name in capsys.readouterr().out and (tmp_path / "out" / old[0].name).is_file()
    assert len(unpacked(str(tmp_path / "out"))) == 9


def test_other_pictures_become_grey_png_and_broken_ones_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    Image.fromarray(drawn_map(40, 50, 1)).save(maps / "a.jpg")
    Image.fromarray(drawn_map(40, 50, 2)).convert("RGB").save(maps / "b.png")
    (maps / "c.png").write_bytes((maps / "b.png").read_bytes()[:-200])
    (maps / "d.png").write_bytes(b"")
    report = pack(maps, tmp_path / "out")
    assert [path.name for path, _ in report.failed] == ["c.png", "d.png"]
    assert "c.png" in capsys.readouterr().err
    for data, path in zip(unpacked(str(tmp_path / "out")), ("a.jpg", "b.png"), strict=True):
        (tmp_path / "one.png").write_bytes(data)
        np.testing.assert_array_equal(load_grey(tmp_path / "one.png"), load_grey(maps / path))


def test_damage_to_a_png_is_seen_wherever_it_is(maps_folder: Path) -> None:
    data = (maps_folder / "map00.png").read_bytes()
    assert is_grey_png(data)
    for place in range(0, len(data), 37):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        assert not is_grey_png(bytes(changed))
    assert not is_grey_png(data[:-1]) and not is_grey_png(data + b"\0")


def spoil(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    elif how == "short":
        path.write_bytes(data[:-5])
    elif how == "table":
        path.write_bytes(data[:6] + b"\xff" + data[7:])
    elif how == "map":
        path.write_bytes(data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])


@pytest.mark.parametrize("how", ["gone", "short", "table", "map"])
def test_damaged_or_missing_shard_is_one_line(maps_folder: Path, tmp_path: Path, how: str) -> None:
    pack(maps_folder, tmp_path)
    shard = read_set(str(tmp_path)).shards[1]
    spoil(tmp_path / shard.name, how)
    with pytest.raises(DataError) as caught:
        opened = OpenShard(shard, tmp_path / shard.name)
        for item in range(shard.count):
            opened.png(item)
    message = str(caught.value)
    assert shard.name in message and "\n" not in message
    assert ("cannot be read" if how == "gone" else "damaged") in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index["picsnet"].update(version=9), "of version 9"),
        (lambda index: index["picsnet"].update(count=5), "cannot be"),
        (lambda index: index["chunks"][0].update(filename="../up.bin"), "cannot be"),
        (lambda index: index["chunks"][0].update(chunk_size=-1), "cannot be"),
        (lambda index: index["chunks"][0].pop("sha256"), "no index of maps"),
        (lambda index: index["chunks"].clear(), "cannot be"),
    ],
)
def test_damaged_index_is_one_line(
    maps_folder: Path, tmp_path: Path, change: Any, message: str
) -> None:
    pack(maps_folder, tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    change(index)
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=message):
        read_set(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"chunks": []}'])
def test_index_that_is_rubbish_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(DataError, match=r"index\.json: no index of maps"):
        read_set(str(tmp_path))


def test_what_cannot_be_asked_for(
    maps_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"index\.json: cannot be read"):
        read_set(str(tmp_path))
    with pytest.raises(UsageError, match="no store of this kind"):
        open_store("ftp://somewhere/maps")
    with pytest.raises(UsageError, match="MB"):
        check_output(str(tmp_path), 0)
    (tmp_path / "index.json").write_text("{}")
    with pytest.raises(OutputError, match="in the way"):
        pack(maps_folder, tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of 1 maps"):
        pack(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setitem(sys.modules, "litdata", None)
    with pytest.raises(UsageError, match=r"pip install 'picsnet\[shards\]'"):
        check_output(str(tmp_path), 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["."],
        [".", "--sketcher", "map"],
        *([".", "--shards", "x", "--shard-mb", size] for size in ("0", "nan", "inf")),
    ],
)
def test_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert sketch(*arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_bucket_takes_shards_and_gives_them_back(
    maps_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serve(monkeypatch) as bucket:
        options = ["--sketcher", "map", "--shard-mb", 0.03]
        assert sketch(maps_folder, *options, "--shards", "s3://maps/some/") == 0
        pack(maps_folder, tmp_path)
        here = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        assert {name.removeprefix("/maps/some/") for name in bucket.files} == set(here)
        shards = {name for name in here if name.endswith(".bin")}
        assert all(bucket.files[f"/maps/some/{name}"] == here[name] for name in shards)
        files = [path.read_bytes() for path in sorted(maps_folder.iterdir())]
        assert unpacked("s3://maps/some") == files
        # An interrupted run: what is there is not sent again.
        gone = f"/maps/some/{min(shards)}"
        del bucket.files[gone], bucket.files["/maps/some/index.json"]
        bucket.log.clear()
        assert sketch(maps_folder, *options, "--shards", "s3://maps/some") == 0
        sent = [path for method, path in bucket.log if method == "PUT"]
        assert sent[0] == gone and not any(path.endswith(".bin") for path in sent[1:])
        del bucket.files[gone]
        with pytest.raises(PicsnetError, match=rf"s3://maps/some/{min(shards)}: cannot be read"):
            unpacked("s3://maps/some")
        with pytest.raises(PicsnetError, match=r"s3://maps/none/index\.json: cannot be read"):
            read_set("s3://maps/none")
