"""Processes that share a folder, as threads: what they agree on, and what one tells of another."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from picsnet.errors import OutputError, PicsnetError
from picsnet.files import InputFile
from picsnet.scale import settings
from picsnet.scale.manifest import LOCK, MANIFEST, Journal, Outcome, from_lines, merge_folder
from picsnet.scale.settings import EncodeSettings
from picsnet.scale.sharding import Notebook, OrphanedError, Pair, encode_shares
from tests.vectors import FOLDER as VECTORS

SETTINGS = EncodeSettings(ckpt=str(VECTORS / "picsnet-context"), sketcher="map")


class Ranks:
    """What the processes of a run tell each other."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count, timeout=20)
        self.said: list[Any] = [None] * count

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.said[rank] = value
        self.barrier.wait()
        everything = [*self.said]
        self.barrier.wait()
        return everything


class Rank:
    """As much of a Fabric as sharing needs."""

    device = "cpu"

    def __init__(self, ranks: Ranks, rank: int) -> None:
        self.ranks, self.global_rank, self.local_rank = ranks, rank, rank
        self.world_size, self.is_global_zero = len(ranks.said), rank == 0

    def broadcast(self, value: Any) -> Any:
        return self.ranks.exchange(self.global_rank, value)[0]

    def all_reduce(self, flags: torch.Tensor, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "sum"
        everything = self.ranks.exchange(self.global_rank, flags)
        if len({len(one) for one in everything}) > 1:
            raise RuntimeError("of unequal lengths")  # gloo waits, or mixes them up
        return torch.stack(everything).sum(0)


def pairs(folder: Path, *names: str) -> list[Pair]:
    for name in names:
        (folder / name).write_bytes(name.encode(errors="surrogateescape"))
    return [
        (InputFile(folder / name, Path(name)), folder / "out" / f"{name}.pics") for name in names
    ]


def copies(
    some: list[Pair], coded_by: EncodeSettings, device: str, first: bool, notebook: Notebook
) -> None:
    """Stands for coding."""
    for item, target in some:
        target.write_bytes(item.path.read_bytes())
        record = {"width": 8, "height": 8, "layers": {}, "seconds": 0.0}
        notebook.note((item, target), notebook.key(item), record)


def unprompted(item: InputFile) -> None:
    """No prompt is given."""


def share(
    lists: Sequence[Sequence[Pair]],
    out: Path,
    code: Any,
    coded_by: EncodeSettings = SETTINGS,
    prompter: Any = unprompted,
) -> list[Any]:
    """What each process returns or raises."""
    ranks = Ranks(len(lists))

    def run(number: int) -> Outcome | PicsnetError | None:
        fabric: Any = Rank(ranks, number)
        try:
            return encode_shares(fabric, lists[number], out, coded_by, prompter, code)
        except PicsnetError as error:
            return error

    with ThreadPoolExecutor(len(lists)) as pool:
        return list(pool.map(run, range(len(lists))))


def test_the_first_process_says_what_there_is(tmp_path: Path) -> None:
    late = pairs(tmp_path, "a", "aa", "b", "c", "d")  # "aa" came when the first had listed
    known = [pair for pair in late if pair[0].path.name != "aa"]
    outcome, other = share([known, late], tmp_path / "out", copies)
    assert other is None and (outcome.pictures, outcome.failed) == (4, [])
    written = sorted(path.name for path in (tmp_path / "out").glob("*.pics"))
    assert written == ["a.pics", "b.pics", "c.pics", "d.pics"]


def test_the_decoder_that_the_first_machine_chooses_is_everybodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = iter(["sd21-hed", "picsnet-mini"])  # each machine that is asked has another one
    monkeypatch.setattr("picsnet.decoder.choice.default_decoder", lambda: next(there))
    used: list[EncodeSettings] = []

    def code(some: list[Pair], coded_by: EncodeSettings, *rest: Any) -> None:
        used.append(coded_by)
        copies(some, coded_by, *rest)

    some = pairs(tmp_path, "a", "b")
    share([some, some], tmp_path / "out", code, EncodeSettings(mode="pics"))
    chosen = EncodeSettings(mode="pics", decoder="sd21-hed")
    assert used == [chosen, chosen]
    records = from_lines((tmp_path / "out" / MANIFEST).read_bytes())
    assert [record["settings"] for record in records] == [chosen.digest()] * 2


def test_a_picture_that_nothing_is_known_of_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def code(some: list[Pair], *rest: Any) -> None:
        copies([pair for pair in some if pair[0].path.name != "b"], *rest)

    some = pairs(tmp_path, "a", "b", "c")
    (outcome,) = share([some], tmp_path / "out", code)
    (record,) = outcome.failed
    assert outcome.lost == [record] and record["output"] == "b.pics"
    assert "b: no record; run the same command again" in record["error"]
    lines = (tmp_path / "out" / MANIFEST).read_bytes()
    assert [one["status"] for one in from_lines(lines)] == ["ok", "error", "ok"]
    (outcome,) = share([some], tmp_path / "out", copies)
    assert (outcome.before, outcome.failed) == (2, [])
    monkeypatch.setattr(settings, "__version__", "another")  # old records tell nothing then
    (outcome,) = share([some], tmp_path / "out", code)
    assert [record["output"] for record in outcome.lost] == ["b.pics"]


def breaks(
    some: list[Pair], coded_by: EncodeSettings, device: str, first: bool, notebook: Notebook
) -> None:
    """Stands for coding: pictures of junk fail."""
    for item, target in some:
        if item.path.read_bytes() == b"junk":
            wrong = PicsnetError(f"{item.path}: not a picture")
            with contextlib.suppress(OutputError):
                notebook.note_failure((item, target), notebook.key(item), wrong)
        else:
            copies([(item, target)], coded_by, device, first, notebook)


def test_what_was_made_of_a_picture_goes_when_it_fails_and_nothing_else(tmp_path: Path) -> None:
    some, out = pairs(tmp_path, "a", "b", "c", "d", "e"), tmp_path / "out"
    share([some, some], out, breaks)
    (tmp_path / "other.pics").write_bytes(b"a link's")
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.pics")}
    for name in "bd":
        (tmp_path / name).write_bytes(b"junk")
    (out / "d.pics").unlink()
    (out / "d.pics").symlink_to(tmp_path / "other.pics")
    outcome, _ = share([some, some], out, breaks)
    assert [record["output"] for record in outcome.failed] == ["b.pics", "d.pics"]
    after = {path: path.stat().st_mtime_ns for path in out.glob("*.pics")}
    assert after == {path: when for path, when in before.items() if path.stem in "ace"}
    assert (tmp_path / "other.pics").read_bytes() == b"a link's"
    for name in "bd":
        (tmp_path / name).write_bytes(name.encode())
    outcome, _ = share([some, some], out, breaks)
    assert (outcome.before, outcome.failed) == (3, [])


def test_what_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some, out = pairs(tmp_path, "a"), tmp_path / "out"
    share([some], out, breaks)
    (tmp_path / "a").write_bytes(b"junk")

    def forbidden(path: Path, missing_ok: bool = False) -> None:
        if path.name == "a.pics":
            raise PermissionError(13, "Permission denied")
        os.unlink(path)

    monkeypatch.setattr(Path, "unlink", forbidden)
    (outcome,) = share([some], out, breaks)
    (record,) = outcome.failed
    assert "a: not a picture; and " in record["error"] and "\n" not in record["error"]
    assert record["error"].endswith("a.pics, which an earlier run made of it, cannot be removed "
                                    "(Permission denied); delete it")  # fmt: skip


def test_a_process_without_its_launcher_removes_nothing(tmp_path: Path) -> None:
    (pair,) = pairs(tmp_path, "a")
    pair[1].parent.mkdir()
    pair[1].write_bytes(b"the next run's")
    notebook = Notebook(tmp_path / "out", Journal(tmp_path / "out", "1", 0), "", unprompted, 1)
    with pytest.raises(OrphanedError):
        notebook.note_failure(pair, None, PicsnetError("broken"))
    assert pair[1].read_bytes() == b"the next run's"


def test_a_second_run_is_refused_from_the_first_look_to_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, some, others = tmp_path / "out", pairs(tmp_path, "a", "b"), pairs(tmp_path, "c")
    share([some], out, copies)
    refused: list[str] = []

    def intrude() -> None:
        refused.append(str(*share([others], out, copies)))

    def looked_at(item: InputFile) -> None:
        intrude()  # what is done is read, and no process has begun a journal

    def merge(*given: Any) -> Any:
        monkeypatch.undo()
        intrude()  # all journals are closed
        return merge_folder(*given)

    share([some], out, copies, prompter=looked_at)
    monkeypatch.setattr("picsnet.scale.sharding.merge_folder", merge)
    share([some], out, copies)
    assert len(refused) == 3
    assert all(line.startswith(f"{out}: another run is writing here") for line in refused)
    assert sorted(path.name for path in out.iterdir()) == ["a.pics", "b.pics", MANIFEST]
    (out / LOCK).touch()  # of a process that was killed
    (outcome,) = share([others], out, copies)
    assert outcome.failed == [] and not (out / LOCK).exists()


def test_a_folder_that_cannot_be_locked_ends_the_run_in_all_processes(tmp_path: Path) -> None:
    some = pairs(tmp_path, "a", "b")
    (tmp_path / "out" / LOCK).mkdir(parents=True)
    first, second = share([some, some], tmp_path / "out", copies)
    assert isinstance(first, OutputError) and second is None
    assert f"{LOCK}: cannot be written" in str(first)


def test_a_problem_of_another_process_is_the_first_ones_too(tmp_path: Path) -> None:
    def code(
        some: list[Pair], coded_by: EncodeSettings, device: str, first: bool, notebook: Notebook
    ) -> None:
        copies(some, coded_by, device, first, notebook)
        if not first:
            raise OutputError("disk full")

    some = pairs(tmp_path, "a", "b", "c")
    first, second = share([some, some], tmp_path / "out", code)
    assert isinstance(second, OutputError)
    assert isinstance(first, PicsnetError) and "another process had a problem" in str(first)
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_names_that_are_not_utf_8_are_noted(tmp_path: Path) -> None:
    some = pairs(tmp_path, os.fsdecode(b"caf\xe9"), "n\N{LATIN SMALL LETTER E WITH ACUTE}e")
    for before in (0, 2):
        (outcome,) = share([some], tmp_path / "out", copies)
        assert (outcome.before, outcome.failed) == (before, [])
    records = from_lines((tmp_path / "out" / MANIFEST).read_bytes())
    assert {record["input"] for record in records} == {item.path.as_posix() for item, _ in some}
