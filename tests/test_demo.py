"""The demonstration ends in a page whose figures are those of its files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from picsnet import demo


@pytest.fixture(autouse=True)
def _one_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SAMPLES", ("coffee",))


@pytest.mark.timeout(200)
def test_page_shows_what_was_coded(
    miniature_decoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Twice: the second run, as `make demo` has it, finds the files of one with another decoder.
    for options in (["--decoder", str(miniature_decoder)], []):
        assert demo.main(["-o", str(tmp_path), *options]) == 0
    assert str(tmp_path / "index.html") in capsys.readouterr().out
    page = (tmp_path / "index.html").read_text()
    for source in re.findall(r'src="([^"]+)"', page):
        assert (tmp_path / source).stat().st_size > 0
    size = (tmp_path / "coded" / "coffee.pics").stat().st_size
    assert f"<strong>{size} bytes</strong>" in page
    assert page.count("<figure>") == 4


def test_a_missing_model_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["-o", str(tmp_path), "--ckpt", "nothing"]) == 1
    assert "picsnet: error: nothing: no such model" in capfd.readouterr().err
