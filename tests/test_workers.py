"""Sketches coded by several workers: the same files, in order, whatever fails or stops them."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from picsnet import devices
from picsnet.bitstream import PicsFile, read, write
from picsnet.cli import batch, main
from picsnet.cli.batch import AHEAD, run_all
from picsnet.devices import share_cores
from picsnet.errors import DataError
from picsnet.files import InputFile
from tests.conftest import REPOSITORY, drawn_map

NAMES = ("a", "b", "c", "d", "e")
BROKEN = "c"


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps, the first many times as large as the others, and a broken one among them."""
    folder = tmp_path_factory.mktemp("in")
    for seed, name in enumerate(NAMES):
        side = 640 if seed == 0 else 64
        Image.fromarray(drawn_map(side, side, seed)).save(folder / f"{name}.png")
    (folder / f"{BROKEN}.png").write_text("dear diary")
    return folder


def encode(maps: Path, out: Path, *options: str) -> int:
    command = ["encode", "--mode", "sketch", "--sketcher", "map", str(maps), "-o", str(out)]
    return main([*command, "--json", *options])


def test_files_and_order_do_not_depend_on_workers(
    maps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for workers in ("1", "3"):
        out = tmp_path / workers
        assert encode(maps, out / "pics", "--workers", workers) == 1
        heard = capsys.readouterr()
        (line,) = heard.err.splitlines()
        assert f"{BROKEN}.png" in line
        rows = [json.loads(row) for row in heard.out.splitlines()]
        assert [Path(row["input"]).stem for row in rows] == [n for n in NAMES if n != BROKEN]
        assert main(["decode", str(out / "pics"), "-o", str(out), "--workers", workers]) == 0
        capsys.readouterr()
    one, three = (sorted((tmp_path / w).rglob("*.p*")) for w in ("1", "3"))
    assert len(one) == 8  # four files and their pictures
    for first, second in zip(one, three, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_stages_say_where_time_went(
    maps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "a.pics"
    assert encode(maps / "a.png", target) == 0
    row = json.loads(capsys.readouterr().out)
    assert list(row["stages"]) == ["load", "sketch", "transform", "code", "write"]
    assert row["stages"]["transform"] > 0 and row["stages"]["code"] > 0
    assert row["seconds"] == pytest.approx(sum(row["stages"].values()), abs=0.002)
    assert main(["decode", str(target), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert list(row["stages"]) == ["code", "transform", "write"]


def test_decoding_beside_a_photograph_leaves_it_alone(
    maps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without -o photo.png becomes photo.pics, and that would become photo.png."""
    for name in ("a", "b"):
        assert encode(maps / "a.png", tmp_path / f"{name}.pics") == 0
    photograph = (maps / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(photograph)
    assert main(["decode", str(tmp_path), "-q"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "a.png: is there already" in line and "-o" in line
    assert (tmp_path / "a.png").read_bytes() == photograph and (tmp_path / "b.png").is_file()
    assert main(["decode", str(tmp_path / "a.pics"), "-o", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").read_bytes() != photograph


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["encode", "--mode", "sketch", "IN", "--workers", "0"], "--workers 0: must be at least 1"),
        (["encode", "--mode", "pic", "IN", "--workers", "2"], "is for --mode sketch"),
        (["decode", "IN", "--workers", "-1"], "--workers -1: must be at least 1"),
    ],
)
def test_workers_that_cannot_be(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "a.pics" if arguments[0] == "decode" else "a.png"
    (tmp_path / name).write_bytes(b"")
    assert main([str(tmp_path / name) if a == "IN" else a for a in arguments]) == 2
    assert words in capsys.readouterr().err


def test_drawing_goes_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompted = PicsFile(width=64, height=64, text=b"\x01\x02\x03", sketch=None)
    (tmp_path / "a.pics").write_bytes(b"broken")
    (tmp_path / "b.pics").write_bytes(write(prompted))
    assert main(["decode", str(tmp_path), "--workers", "2"]) == 2
    assert "b.pics is drawn from a prompt" in capsys.readouterr().err


# The runner by itself.


def pairs(count: int) -> list[tuple[InputFile, Path]]:
    names = [Path(str(i)) for i in range(count)]
    return [(InputFile(name, name), name) for name in names]


def run(
    count: int, work: Callable[[Path, Path], batch.Record], workers: int, silent: bool = True
) -> int:
    return run_all(pairs(count), work, lambda record: [record["line"]], False, silent, workers)


def test_workers_work_at_the_same_time() -> None:
    together = threading.Barrier(3)

    def work(source: Path, target: Path) -> batch.Record:
        together.wait(timeout=60)  # passes only when three are here
        return {"line": source.name}

    assert run(6, work, workers=3) == 0


def test_a_slow_first_input_holds_up_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    others = threading.Semaphore(0)

    def work(source: Path, target: Path) -> batch.Record:
        if source.name == "0":
            for _ in range(9):
                assert others.acquire(timeout=60)
        else:
            others.release()
        return {"line": source.name}

    assert run(10, work, workers=2, silent=False) == 0
    assert capsys.readouterr().out.split() == [str(i) for i in range(10)]


def test_what_waits_is_bounded() -> None:
    begun = itertools.count()
    count = 10 * AHEAD
    results = batch._in_order(list(range(count)), lambda item: next(begun), 2)
    next(results)
    results.close()
    assert next(begun) <= 2 * AHEAD


def test_an_error_of_ours_ends_the_run_and_no_worker_is_left() -> None:
    begun: list[str] = []

    def work(source: Path, target: Path) -> batch.Record:
        begun.append(source.name)
        raise ZeroDivisionError if source.name == "0" else DataError(source.name)

    before = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError):
        run(10 * AHEAD, work, workers=2)
    assert len(begun) <= 2 * AHEAD
    assert set(threading.enumerate()) <= before


def test_ctrl_c_leaves_whole_files_only(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for i in range(400):  # enough to be at it when the signal comes, on a busy machine too
        Image.fromarray(drawn_map(160, 160, i % 20)).save(folder / f"{i:03d}.png")
    command = ["encode", "--mode", "sketch", "--sketcher", "map", str(folder), "-o", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "picsnet", *command, "--workers", "2"],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert "000.pics" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, heard = process.communicate(timeout=60)
    assert process.returncode == 130
    assert heard.splitlines() == ["picsnet: interrupted; what was written is whole"]
    files = list(out.iterdir())
    assert 1 <= len(files) < 400
    for path in files:
        assert read(path.read_bytes(), name=path.name).sketch is not None


# How many workers.


@pytest.mark.parametrize(
    ("device", "processes", "asked", "workers", "each"),
    [
        ("cpu", 1, None, 4, 4),
        ("cpu", 2, None, 2, 8),  # the other has half of the memory
        ("cpu", 8, None, 1, 16),
        ("cpu", 8, 3, 3, 5),
        ("cuda", 1, None, 1, 16),
        ("cuda", 1, 2, 2, 8),
    ],
)
def test_processes_share_memory_and_a_gpu_has_one_worker(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    processes: int,
    asked: int | None,
    workers: int,
    each: int,
) -> None:
    given: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(device == "cuda"))
    monkeypatch.setattr(devices, "_physical_bytes", lambda: 16 * 2**30)
    for name in (device, "auto"):
        assert share_cores(100, asked, device=name, processes=processes) == workers
    assert given == [each, each]


@pytest.mark.parametrize(
    ("threads", "gigabytes", "inputs", "asked", "workers", "each"),
    [
        (2, 24, 100, None, 2, 1),
        (2, 24, 1, None, 1, 2),  # one picture has all cores
        (16, 8, 100, None, 2, 8),  # large pictures need memory
        (16, 1, 100, None, 1, 16),
        (8, 24, 100, 3, 3, 2),
        (2, 24, 100, 5, 5, 1),
    ],
)
def test_cores_are_shared(
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    gigabytes: int,
    inputs: int,
    asked: int | None,
    workers: int,
    each: int,
) -> None:
    given: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setattr(devices, "_physical_bytes", lambda: gigabytes * 2**30)
    assert share_cores(inputs, asked) == workers
    assert given == [each]
