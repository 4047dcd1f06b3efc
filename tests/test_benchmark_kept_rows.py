"""Rows kept of a measurement: damage, full disks and a second run cost none of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.kept_rows import KeptRows
from picsnet.errors import OutputError, UsageError


@dataclass
class Row:
    value: int


def keep(path: Path, count: int) -> list[int]:
    """Values of so many rows; those that are not there are measured as ten times their number."""
    with KeptRows(path, "about") as kept:
        return [kept.get(str(n), lambda n=n: Row(10 * n))["value"] for n in range(count)]  # type: ignore[misc]


@pytest.mark.parametrize("damage", ["\0\0\0\n", "3\n", '["1"]\n', '[["list"], {}]\n', "null\n"])
def test_a_damaged_line_is_measured_again(tmp_path: Path, damage: str) -> None:
    rows = tmp_path / "rows.jsonl"
    keep(rows, 3)
    first, *lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join([first, lines[0], damage, json.dumps(["2", {"value": 7}]) + "\n"]))
    assert keep(rows, 3) == [0, 10, 7]
    assert keep(rows, 4) == [0, 10, 7, 30]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tmp_path / "rows.jsonl"
    keep(rows, 3)
    before = rows.read_bytes()

    def full(self: Path, text: str, **_: str) -> None:
        self.write_bytes(text[:20].encode())
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OutputError, match="no space left"):
            keep(rows, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    assert rows.read_bytes() == before


def test_a_second_run_is_told_of_the_first(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    with KeptRows(rows, "about") as kept:
        kept.get("0", lambda: Row(1))
        with pytest.raises(UsageError, match=r"another run .* -o") as caught:
            keep(rows, 2)
        assert "\n" not in str(caught.value)
        kept.get("1", lambda: Row(2))
    assert keep(rows, 2) == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
