"""Datasets by name: folders, verified downloads, and what is said where neither is there."""

from __future__ import annotations

import hashlib
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from picsnet.errors import DataError, UsageError
from picsnet.evaluation.datasets import CATALOGUE, Source, find_dataset, resized


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("PICSNET_DATA", raising=False)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    root = tmp_path / "served"
    root.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(root))  # type: ignore[arg-type]

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", root
        running.shutdown()


def _picture(path: Path, value: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30, 3), value, np.uint8)).save(path)
    return path


def _zip(root: Path) -> str:
    """Serve two zipped pictures; returns the archive's hash."""
    archive = root / "set.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for name in ("a.png", "b.png"):
            target.write(_picture(root.parent / name), f"inner/{name}")
    return "sha256:" + hashlib.sha256(archive.read_bytes()).hexdigest()


def test_a_folder_of_ones_own_keeps_its_layout(tmp_path: Path) -> None:
    _picture(tmp_path / "mine" / "x" / "one.png")
    _picture(tmp_path / "mine" / "two.jpg")
    dataset = find_dataset("mine", [str(tmp_path / "mine")])
    assert [name for name, _ in dataset.pictures] == ["two", "x/one"]


def test_two_pictures_of_one_name_are_refused(tmp_path: Path) -> None:
    _picture(tmp_path / "mine" / "one.png")
    _picture(tmp_path / "mine" / "one.jpg")
    with pytest.raises(DataError, match="both be called one"):
        find_dataset("mine", [str(tmp_path / "mine")])
    with pytest.raises(UsageError, match="no such file"):
        find_dataset("mine", [str(tmp_path / "nowhere")])


@pytest.mark.parametrize("by_variable", [True, False])
def test_a_known_one_is_found_where_it_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_variable: bool
) -> None:
    root = tmp_path / "elsewhere" if by_variable else Path("data")
    if by_variable:
        monkeypatch.setenv("PICSNET_DATA", str(root))
    for i in range(1, 25):
        _picture(root / "kodak" / f"kodim{i:02d}.png")
    dataset = find_dataset("kodak")
    assert [name for name, _ in dataset.pictures] == [f"kodim{i:02d}" for i in range(1, 25)]
    (root / "kodak" / "kodim07.png").unlink()
    with pytest.raises(DataError, match="holds 23 pictures, but kodak has 24"):
        find_dataset("kodak")


def test_what_is_not_here_is_fetched_and_verified(server: tuple[str, Path]) -> None:
    url, root = server
    digest = _zip(root)
    known = {"tiny": Source(2, "a.png, b.png", {f"{url}/set.zip": digest})}
    dataset = find_dataset("tiny", catalogue=known)
    assert [Path(name).name for name, _ in dataset.pictures] == ["a", "b"]
    assert not list(Path("data").rglob("*.zip"))
    (root / "set.zip").unlink()  # the second time nothing is fetched
    assert len(find_dataset("tiny", catalogue=known).pictures) == 2


def test_bytes_that_are_not_the_promised_ones_are_not_kept(server: tuple[str, Path]) -> None:
    url, root = server
    _zip(root)
    known = {"tiny": Source(2, "a.png, b.png", {f"{url}/set.zip": "sha256:" + "0" * 64})}
    with pytest.raises(DataError, match="cannot be fetched") as caught:
        find_dataset("tiny", catalogue=known)
    assert "data/tiny" in str(caught.value) and "a.png, b.png" in str(caught.value)
    assert not [path for path in Path("data").rglob("*") if path.is_file()]


def test_a_download_that_breaks_off_goes_on_with_what_came_whole(
    server: tuple[str, Path],
) -> None:
    url, root = server
    digests = {}
    for name in ("a.png", "b.png"):
        data = _picture(root / name).read_bytes()
        digests[f"{url}/{name}"] = "sha256:" + hashlib.sha256(data).hexdigest()
    known = {"tiny": Source(2, "a.png, b.png", digests)}
    second = (root / "b.png").read_bytes()
    (root / "b.png").unlink()
    with pytest.raises(DataError, match="404"):
        find_dataset("tiny", catalogue=known)
    assert not Path("data/tiny").exists()
    (root / "a.png").unlink()
    (root / "b.png").write_bytes(second)
    assert len(find_dataset("tiny", catalogue=known).pictures) == 2


def test_two_that_start_together_fetch_once(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, root = server
    known = {"tiny": Source(2, "a.png, b.png", {f"{url}/set.zip": _zip(root)})}
    asked = []

    def send_head(handler: SimpleHTTPRequestHandler) -> Any:
        asked.append(handler.path)
        time.sleep(0.3)  # so that both are under way
        return original(handler)

    original = SimpleHTTPRequestHandler.send_head
    monkeypatch.setattr(SimpleHTTPRequestHandler, "send_head", send_head)
    with ThreadPoolExecutor(2) as both:
        found = both.map(lambda _: find_dataset("tiny", catalogue=known), range(2))
        assert [len(dataset.pictures) for dataset in found] == [2, 2]
    assert asked == ["/set.zip"]


def test_without_a_network_the_layout_is_stated() -> None:
    known = {"tiny": Source(2, "a.png, b.png", {"http://127.0.0.1:9/set.zip": "md5:0"})}
    with pytest.raises(DataError, match=r"data/tiny or \$PICSNET_DATA/tiny: a\.png, b\.png"):
        find_dataset("tiny", catalogue=known)
    with pytest.raises(DataError, match="name its pictures"):
        find_dataset("unknown")


def test_the_catalogue_has_a_hash_for_every_file() -> None:
    assert {name: source.count for name, source in CATALOGUE.items()} == {
        "kodak": 24,
        "clic2021": 60,
        "div2k": 100,
    }
    for source in CATALOGUE.values():
        for digest in source.files.values():
            kind, _, value = digest.partition(":")
            assert len(value) == {"sha256": 64, "md5": 32}[kind]


def test_the_shorter_side_becomes_512() -> None:
    assert resized(np.zeros((1024, 1536, 3), np.uint8), 512).shape == (512, 768, 3)
    assert resized(np.zeros((1000, 700, 3), np.uint8), 512).shape == (731, 512, 3)
    small = np.zeros((300, 200, 3), np.uint8)
    assert resized(small, 512) is small and resized(small, None) is small
