"""Folders shared by processes: one manifest, nothing lost, nothing twice."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from picsnet.cli import main
from picsnet.scale.manifest import MANIFEST, PARTS, from_lines
from tests.conftest import REPOSITORY
from tests.processes import Process
from tests.vectors import FOLDER as VECTORS

MODEL = VECTORS / "picsnet-context"
OPTIONS = ["--mode", "sketch", "--sketcher", "map", "--ckpt", str(MODEL), "--device", "cpu"]


@pytest.fixture
def pictures(tmp_path: Path, maps_folder: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for number, path in enumerate(sorted(maps_folder.iterdir())[:8]):
        shutil.copy(path, folder / ("more" if number % 3 == 0 else "") / path.name)
    return folder


def encode(pictures: Path, out: Path, *options: str) -> int:
    return main(["encode", str(pictures), "-o", str(out), *OPTIONS, *options])


def manifest(out: Path) -> list[dict[str, Any]]:
    return list(from_lines((out / MANIFEST).read_bytes()))


def timeless(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    times = ("seconds", "stages")
    return [{k: v for k, v in record.items() if k not in times} for record in records]


def journalled(out: Path) -> list[dict[str, Any]]:
    return [r for path in (out / PARTS).glob("*.jsonl") for r in from_lines(path.read_bytes())]


def files(out: Path) -> dict[str, int]:
    """When each was written."""
    return {
        path.relative_to(out).as_posix(): path.stat().st_mtime_ns for path in out.rglob("*.pics")
    }


def start(command: list[str], **variables: str) -> Process:
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    return Process(command, REPOSITORY, os.environ | {"PYTHONPATH": path} | variables)


def test_the_manifest_tells_of_each_file_what_is_on_disk(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert encode(pictures, out, "--resume", "-q") == 0
    assert encode(pictures, tmp_path / "plain", "-q") == 0
    records = manifest(out)
    names = [record["output"] for record in records]
    assert names == sorted(files(out)) == sorted(files(tmp_path / "plain")) and len(names) == 8
    for record in records:
        data = (out / record["output"]).read_bytes()
        assert data == (tmp_path / "plain" / record["output"]).read_bytes()
        assert record["bytes"] == len(data) == sum(record["layers"].values())
        assert record["bpp"] == 8 * len(data) / (record["width"] * record["height"])
        assert record["status"] == "ok" and Path(record["input"]).is_file()
    assert not (tmp_path / "plain" / MANIFEST).exists() and not (out / PARTS).exists()


def test_only_what_has_changed_is_done_again(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (pictures / "bad.png").write_bytes(b"no picture")
    assert encode(pictures, out, "--resume") == 1
    assert "bad.png: not a picture" in capsys.readouterr().err
    before = files(out)
    assert len(before) == 8
    (error,) = [record for record in manifest(out) if record["status"] == "error"]
    assert error["output"] == "bad.pics" and error["error"].count("bad.png") == 1

    shutil.copy(pictures / "map01.png", pictures / "bad.png")  # mended
    shutil.copy(pictures / "map02.png", pictures / "map01.png")  # other bytes, the same name
    os.utime(pictures / "map04.png")  # another time, the same bytes
    (out / "map05.pics").write_bytes(b"damaged")
    (out / "map07.pics").unlink()
    (out / ".map08.4711-0123abcd.pics").write_bytes(b"of a process that was killed")
    assert encode(pictures, out, "--resume") == 0
    assert "9 pictures, 4 coded now, 5 before, 0 failed" in capsys.readouterr().out
    after = files(out)
    assert set(after) == {*before, "bad.pics"}
    done = {name for name in after if after[name] != before.get(name)}
    assert done == {"bad.pics", "map01.pics", "map05.pics", "map07.pics"}
    assert not list(out.glob(".*"))

    (pictures / "map01.png").write_bytes(b"no picture")
    assert encode(pictures, out, "--resume", "-q") == 1
    left = files(out)
    assert left == {name: when for name, when in after.items() if name != "map01.pics"}
    shutil.copy(pictures / "map02.png", pictures / "map01.png")
    assert encode(pictures, out, "--resume", "-q") == 0
    after = files(out)
    assert after.items() > left.items()

    # Another setting makes other files of all; another folder's stay where they are.
    assert encode(pictures / "more", out, "--resume", "--effort", "1") == 0
    assert "3 pictures, 3 coded now" in capsys.readouterr().out
    assert len(manifest(out)) == 12 and files(out).items() >= after.items()


def test_without_a_decoder_sketches_resume_too(pictures: Path, tmp_path: Path) -> None:
    some, out = pictures / "more", tmp_path / "out"
    said = ["--decoder", "none", *OPTIONS[2:], "--resume", "-q"]
    assert main(["encode", str(some), "-o", str(out), *said]) == 0
    before = files(out)
    assert len(before) == 3
    assert encode(some, out, "--resume", "-q") == 0  # which says the same in other words
    assert files(out) == before


def test_a_folder_where_another_run_writes_is_refused(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "out" / PARTS / "1-0.jsonl"
    journal.parent.mkdir(parents=True)
    with open(journal, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert encode(pictures, tmp_path / "out", "--resume") == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "another run is writing here" in line
    assert not files(tmp_path / "out")
    assert encode(pictures, tmp_path / "out", "--resume", "-q") == 0


def test_a_full_disk_is_no_pictures_failure(
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert encode(pictures, out, "--resume", "-q") == 0
    before, told = files(out), (out / MANIFEST).read_bytes()
    for path in pictures.rglob("*.png"):
        path.write_bytes(path.read_bytes() + b"changed")

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("picsnet.files.os.replace", full)
        assert encode(pictures, out, "--resume", "-q", "--workers", "1") == 1
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert "no space left" in line
    assert files(out) == before and (out / MANIFEST).read_bytes() == told
    assert encode(pictures, out, "--resume") == 0
    assert "8 pictures, 8 coded now, 0 before, 0 failed" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--resume"], "-o FOLDER"),
        (["--resume", "-o", "x", "--mode", "pic", "--save-parts", "y"], "--save-parts y"),
        (["--devices", "two", "-o", "x"], "must be a number"),
        (["--devices", "0", "-o", "x"], "1 or more"),
        (["--devices", "2", "--device", "cuda:7", "-o", "x"], "cuda:7"),
    ],
)
def test_impossible_wishes_end_in_one_line(
    options: list[str],
    words: str,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["encode", str(pictures), "--mode", "sketch", *options]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("picsnet: error: ") and words in line


def test_tasks_of_srun_share_a_folder(pictures: Path, tmp_path: Path) -> None:
    (pictures / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "shared"
    command = [sys.executable, "-m", "picsnet", "encode", str(pictures), "-o", str(out), *OPTIONS]
    job = {
        "SLURM_JOB_ID": str(10_000 + os.getpid() % 10_000),  # its port comes from it
        "SLURM_JOB_NAME": "coding",
        "SLURM_STEP_ID": "0",
        "SLURM_NTASKS": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1",
    }
    tasks = [
        start([*command, "--json"], **job, SLURM_PROCID=rank, SLURM_LOCALID=rank)
        for rank in ("0", "1")
    ]
    said = [task.communicate(timeout=120) for task in tasks]
    assert [task.returncode for task in tasks] == [1, 0], said
    assert "9 pictures, 8 coded now, 0 before, 1 failed" in said[0][1]
    shares = [{json.loads(line)["output"] for line in stdout.splitlines()} for stdout, _ in said]
    assert len(shares[0]) == len(shares[1]) == 4 and len(shares[0] | shares[1]) == 8
    assert sum("bad.png" in stderr for _, stderr in said) == 1
    assert encode(pictures, tmp_path / "alone", "--resume", "-q") == 1
    assert timeless(manifest(out)) == timeless(manifest(tmp_path / "alone"))


def test_one_of_two_processes_is_killed_and_nothing_is_lost_or_done_twice(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(24):  # enough to be in the midst of
        shutil.copy(pictures / "map01.png", pictures / f"other{number:02}.png")
    out = tmp_path / "out"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    torchrun += ["--master-port", str(20_000 + os.getpid() % 10_000), "-m", "picsnet"]
    run = start([*torchrun, "encode", str(pictures), "-o", str(out), *OPTIONS])
    while not journalled(out):
        assert run.poll() is None, run.communicate()
        time.sleep(0.01)
    (second,) = [
        process
        for process in psutil.Process(run.pid).children()
        if process.environ().get("RANK") == "1"
    ]
    second.send_signal(signal.SIGKILL)
    run.communicate(timeout=120)
    assert run.returncode != 0 and not (out / MANIFEST).exists()
    before, written = journalled(out), files(out)
    assert 0 < len(before) < 32
    assert len({record["output"] for record in before}) == len(before)

    assert encode(pictures, out, "--resume") == 0
    said = f"32 pictures, {32 - len(before)} coded now, {len(before)} before, 0 failed"
    assert said in capsys.readouterr().out
    records = manifest(out)
    assert [record["output"] for record in records] == sorted(files(out))
    assert len(records) == 32 and all(record["status"] == "ok" for record in records)
    kept = {record["output"]: record for record in records}
    assert all(kept[record["output"]] == record for record in before)  # times too
    after = files(out)
    assert all(after[record["output"]] == written[record["output"]] for record in before)
    assert encode(pictures, tmp_path / "alone", "--resume", "-q") == 0
    assert timeless(records) == timeless(manifest(tmp_path / "alone"))
