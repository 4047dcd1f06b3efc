"""The service under load from another process: 200 mixed requests, none lost, none let through."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

from benchmarks import service
from benchmarks.service import Case, Outcome, not_adding_up
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def test_none_is_lost_none_let_through_and_memory_is_flat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    target = tmp_path / "service.json"
    assert service.main(["--requests", "200", "--side", "96", "-o", str(target)]) == 0
    result = json.loads(target.read_text())
    assert result["requests"] == 200 and result["wrong"] == []
    assert result["lost"] == result["let_through"] == 0
    assert result["metrics_faults"] == []
    right = Counter()
    for row in result["rows"]:
        right[row["right"]] += row["count"]
        assert row["answers"] == {str(row["right"]): row["count"]}
    assert min(right[status] for status in (200, 400, 413, 415, 422, service.GONE)) >= 8
    held = result["resident_mib"]
    assert held["end"]["server"] < held["warm"]["server"] + 8
    assert held["end"]["workers"] < held["warm"]["workers"] + 8
    # Three times what the queue holds: each is answered or told to come back.
    assert set(result["burst"]) == {"200", "503"} and sum(result["burst"].values()) == 51
    assert result["burst"]["200"] >= 17 and result["exit_status"] == 0
    printed = capsys.readouterr().out
    assert "lost 0, let through 0, wrong 0, metrics add up" in printed


def test_what_does_not_add_up_is_found() -> None:
    case = Case("photograph", "encode", b"", 200)
    gone = Case("hangs up", "encode", b"", service.GONE, hang_up="body")
    sent = [Outcome(case, 200, 0.1), Outcome(gone, service.GONE, 0.1)]
    before = Counter({("encode", "200"): 5})
    seen = before + Counter({("encode", "200"): 1, ("encode", "499"): 1})
    assert not_adding_up(before, seen, sent) == []
    # The answer may have been ready before the hanging up was seen.
    assert not_adding_up(before, before + Counter({("encode", "200"): 2}), sent) == []
    assert not_adding_up(before, before + Counter({("encode", "200"): 1}), sent) != []
    assert not_adding_up(before, seen + Counter({("encode", "500"): 1}), sent) != []


def test_a_wrong_answer_is_found() -> None:
    case = Case("cut file", "info", b"", 422)
    assert service._fault(case, httpx.Response(422, json={"error": "one line"})) == ""
    assert service._fault(case, httpx.Response(422, json={"error": "a\nb"})) != ""
    assert service._fault(case, httpx.Response(422, json={})) != ""
