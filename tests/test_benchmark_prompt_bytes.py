"""The prompt benchmark: captions of its own, ratios of totals, every prompt checked."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from benchmarks import prompt_bytes
from benchmarks.prompt_bytes import TEMPLATES, WORDS, caption, train_stand_in
from picsnet.errors import DataError
from picsnet.prompt.tokens import TokenCoder
from tests.miniatures import save_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def arguments(folder: Path, out: Path) -> list[str]:
    return ["--tokenizer", str(folder), "--natural", "30", "--inverted", "40", "-q", "-o", str(out)]


def test_report_and_table(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prompt_bytes.main(arguments(folder, tmp_path)) == 0
    report = json.loads((tmp_path / "prompt_bytes.json").read_text())
    assert not report["settings"]["stand_in"]
    natural, inverted = report["results"]
    assert (natural["kind"], natural["prompts"]) == ("natural", 30)
    assert (inverted["kind"], inverted["prompts"]) == ("inverted", 40)
    assert inverted["tokens"] == 16 and inverted["plain_bytes"] == 32
    for result in (natural, inverted):
        total = sum(int(size) * times for size, times in result["sizes"].items())
        assert total / result["prompts"] == result["bytes"]
        assert result["ratio"] == pytest.approx(result["bytes"] / result["zlib_bytes"])
        assert result["met"] == (result["ratio"] <= result["target"])
        assert result["largest_excess"] <= 1
    # Pieces of words join when their text is cut again; whole words do not.
    assert inverted["lost_as_text"] > natural["lost_as_text"] == 0
    printed = capsys.readouterr().out
    assert "| natural | 30 |" in printed and "| inverted | 40 |" in printed


def test_a_prompt_that_does_not_come_back_is_an_error(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    decode = TokenCoder.decode
    monkeypatch.setattr(TokenCoder, "decode", lambda self, data: decode(self, data)[:-1])
    assert prompt_bytes.main(arguments(folder, tmp_path / "out")) == 1
    assert "comes back as" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_tokenizer_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prompt_bytes.main(arguments(tmp_path / "nowhere", tmp_path / "out")) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("prompt_bytes: error: ") and "nowhere" in last


def test_captions_are_seeded_varied_and_complete() -> None:
    names = {
        name for text in (*TEMPLATES, *WORDS.values()) for name in re.findall(r"{(\w+)}", text)
    }
    assert names == set(WORDS)
    captions = [caption(random.Random(seed)) for seed in range(300)]
    assert captions == [caption(random.Random(seed)) for seed in range(300)]
    assert len(set(captions)) > 280
    assert not any(set("{}|") & set(text) for text in captions)
    assert any(text.startswith("an ") for text in captions)


def test_the_stand_in_has_clips_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = " ".join(f"word{chr(97 + i % 26)}{chr(97 + i // 26)} " * 2 for i in range(400))
    monkeypatch.setattr(prompt_bytes, "english_texts", lambda *_: [words, "The Photo of a photo"])
    with pytest.raises(DataError, match="too little text for 9000 tokens"):
        train_stand_in(tmp_path / "large", True, size=9000)
    assert "stand-in" in train_stand_in(tmp_path, True, size=700)
    tokenizer, vocabulary = prompt_bytes.load_tokenizer(tmp_path)
    ordered = sorted(vocabulary, key=lambda token: vocabulary[token])
    assert len(ordered) == 700
    assert (ordered[0], ordered[256], ordered[320]) == ("!", "!</w>", "a</w>")
    assert ordered[-2:] == ["<|startoftext|>", "<|endoftext|>"]
    ids = tokenizer("wordab a WORDCD", add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == "wordab a wordcd" and max(ids) < 698


def test_text_for_the_stand_in_is_prose_of_this_installation() -> None:
    texts = list(prompt_bytes.english_texts(50_000, True))
    assert 50_000 <= sum(map(len, texts)) < 500_000
    assert all(text.isascii() for text in texts)
    assert " the " in "\n".join(texts)
