"""Models from a hub, for real: a hub on 127.0.0.1, and the client in processes of its own, since it
reads its settings at import."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from picsnet.errors import ModelError
from picsnet.hub import cached, resolve
from tests.conftest import REPOSITORY
from tests.local_hub import LocalHub

PIPELINE = "miniature/pipeline"
PATTERNS = ["model_index.json", "*/*.json", "tokenizer/*", "*/*.safetensors"]

CALLS = """
import json, sys
from picsnet import hub
from picsnet.errors import ModelError

for name, options in json.loads(sys.argv[1]):
    try:
        if name == "resolve":
            options = {"what": "the model", "option": "--model", **options}
        print(json.dumps({"folder": str(getattr(hub, name)(**options))}))
    except ModelError as error:
        print(json.dumps({"error": str(error)}))
"""


class Client:
    """A user's machine: a cache, and processes that run picsnet.hub with it."""

    def __init__(self, home: Path, url: str) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        self.environment = {k: v for k, v in kept.items() if not k.startswith(("HF_", "HUGGING"))}
        self.environment |= {"HF_HOME": str(home), "HF_ENDPOINT": url}
        self.environment["HF_HUB_DISABLE_UPDATE_CHECK"] = "1"  # it would ask a package index
        self.snapshots = home / "hub"

    def command(self, *calls: tuple[str, dict[str, Any]]) -> list[str]:
        return [sys.executable, "-c", CALLS, json.dumps(calls)]

    def start(self, command: list[str], offline: bool = False) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**self.environment, "HF_HUB_OFFLINE": str(int(offline))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def calls(self, *calls: tuple[str, dict[str, Any]], offline: bool = False) -> list[Any]:
        """Answers to some calls, made by one process."""
        process = self.start(self.command(*calls), offline)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        return [json.loads(line) for line in output.splitlines()]

    def resolve(self, source: str, offline: bool = False, **options: Any) -> Any:
        (answer,) = self.calls(("resolve", {"source": source, **options}), offline=offline)
        return answer


def wait_for(folder: Path, name: str) -> None:
    end = time.monotonic() + 30
    while not any(path.is_file() for path in folder.rglob(name)):
        assert time.monotonic() < end, f"no {name}"
        time.sleep(0.05)


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        yield hub


@pytest.fixture
def client(tmp_path: Path, hub: LocalHub) -> Client:
    return Client(tmp_path / "home", hub.url)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of 24 MiB: the client writes, and resumes, in steps of 10."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "config.json").write_text("{}")
    (folder / "weights.bin").write_bytes(np.random.default_rng(0).bytes(24 * 2**20))
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    (folder / "unet").mkdir(parents=True)
    for name in ("config.json", "unet/config.json", "unet/weights.bin", "weights.bin"):
        (folder / name).write_text(name)
    return folder


def test_a_pinned_pipeline_is_fetched_once_and_is_whole(
    hub: LocalHub, client: Client, miniature_decoder: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(miniature_decoder, source)
    (source / "all.ckpt").write_bytes(b"nobody wants this")
    pinned = hub.add(PIPELINE, source)
    (source / "model_index.json").write_text("something newer")
    hub.add(PIPELINE, source)
    wanted: dict[str, Any] = {"revision": pinned, "patterns": PATTERNS}

    folder = client.resolve(PIPELINE, **wanted)["folder"]
    # With the hub still there it is not asked; then without it, told so or not.
    asked = len(hub.requests)
    again: tuple[str, dict[str, Any]] = ("resolve", {"source": PIPELINE, **wanted})
    look: tuple[str, dict[str, Any]] = ("cached", {"source": f"{PIPELINE}@{pinned}"})
    whole, part = client.calls(again, look)
    assert [request for request in hub.requests[asked:] if PIPELINE in request.path] == []
    assert whole["folder"] == folder and part["folder"] == "None"  # all.ckpt is not there
    hub.stop()
    assert client.resolve(PIPELINE, **wanted)["folder"] == folder
    assert client.resolve(PIPELINE, offline=True, **wanted)["folder"] == folder
    assert not list(Path(folder).rglob("*.ckpt"))

    from diffusers import StableDiffusionControlNetPipeline

    pipeline = StableDiffusionControlNetPipeline.from_pretrained(
        folder, safety_checker=None, local_files_only=True
    )
    stored = pipeline.unet.conv_in.weight.detach().numpy()
    original = type(pipeline.unet).from_pretrained(miniature_decoder / "unet").conv_in.weight
    np.testing.assert_array_equal(stored, original.detach().numpy())


@pytest.mark.parametrize(
    ("how", "ranges"), [("close", [None, "bytes=10485760-"]), ("reset", [None, None])]
)
def test_goes_on_after_a_cut_connection(
    hub: LocalHub, client: Client, large: Path, how: str, ranges: list[str | None]
) -> None:
    hub.add("owner/large", large)
    hub.interrupt("weights.bin", after=15 * 2**20, how=how)
    folder = Path(client.resolve("owner/large")["folder"])
    asked = [r.range for r in hub.requests if r.method == "GET" and "weights.bin" in r.path]
    assert asked == ranges  # a reset connection takes with it what was fetched of that file
    assert (folder / "weights.bin").read_bytes() == (large / "weights.bin").read_bytes()
    assert hub.sent().count("config.json") == 1


def test_an_interrupted_download_is_not_taken_for_a_model(
    hub: LocalHub, client: Client, large: Path
) -> None:
    hub.add("owner/large", large)
    hub.interrupt("weights.bin", after=15 * 2**20, how="stall")
    process = client.start(client.command(("resolve", {"source": "owner/large"})))
    assert hub.stalled.wait(60)
    wait_for(client.snapshots, "config.json")
    process.kill()
    process.communicate(timeout=60)

    asked = len(hub.requests)
    get, look = ("resolve", {"source": "owner/large"}), ("cached", {"source": "owner/large"})
    found, failed = client.calls(look, get, offline=True)
    assert found["folder"] == "None"
    assert "not all of it" in failed["error"] and "HF_HUB_OFFLINE is set" in failed["error"]
    fetched, found = client.calls(get, look)
    assert hub.sent(asked) == ["weights.bin"]
    weights = Path(fetched["folder"]) / "weights.bin"
    assert weights.read_bytes() == (large / "weights.bin").read_bytes()
    assert found == fetched


def test_other_files_than_last_time_are_fetched(hub: LocalHub, client: Client, small: Path) -> None:
    hub.add("owner/model", small)
    client.resolve("owner/model", patterns=["config.json", "*.safetensors"])
    assert hub.sent() == ["config.json"]
    more: dict[str, Any] = {"patterns": ["config.json", "unet/*"]}
    assert "error" in client.resolve("owner/model", offline=True, **more)
    asked = len(hub.requests)
    fetched = client.resolve("owner/model", **more)
    assert hub.sent(asked) == ["unet/config.json", "unet/weights.bin"]
    assert client.resolve("owner/model", offline=True, **more) == fetched


def test_errors_are_one_line_that_says_why_and_what_to_do(
    hub: LocalHub, client: Client, small: Path, tmp_path: Path
) -> None:
    hub.add("owner/model", small)
    hub.add("owner/gated", small, gated=True)
    absent = "0" * 40
    cases: list[tuple[dict[str, Any], str]] = [
        ({"source": "owner/none"}, "no folder of that name, and no such repository"),
        ({"source": "owner/gated"}, "gated: accept its terms"),
        ({"source": "owner/model", "revision": absent}, f"no revision {absent}"),
        ({"source": "owner/model@v9"}, "no revision v9"),
        ({"source": "owner--x/model"}, "Cannot have -- or .. in repo_id"),
    ]
    answers = client.calls(*(("resolve", case) for case, _ in cases))
    for (case, reason), answer in zip(cases, answers, strict=True):
        repository, _, revision = case["source"].partition("@")
        command = f"hf download {repository}"
        if revision := revision or case.get("revision", ""):
            command += f" --revision {revision}"
        assert re.fullmatch(
            rf"{repository}: the model is not in the cache, .*{re.escape(reason)}.*; fetch it "
            rf"beforehand with: {command}, or name a local folder with --model",
            answer["error"],
        ), answer["error"]

    (answer,) = client.calls(("resolve", {"source": "owner/model", "patterns": ["*.onnx"]}))
    assert "has no *.onnx, so it is not the model" in answer["error"]
    hub.stop()
    nowhere = Client(tmp_path / "empty", hub.url)
    assert f"no connection to {hub.url}" in nowhere.resolve("owner/model")["error"]
    assert "HF_HUB_OFFLINE is set" in nowhere.resolve("owner/model", offline=True)["error"]


@pytest.mark.parametrize(
    ("patterns", "files"),
    [
        (["weights.bin"], ["weights.bin"]),
        (["config.json", "unet/*"], ["config.json", "unet/config.json", "unet/weights.bin"]),
    ],
)
def test_the_command_in_the_error_fetches_what_is_missing(
    hub: LocalHub, client: Client, small: Path, patterns: list[str], files: list[str]
) -> None:
    commit = hub.add("owner/model", small)
    wanted: dict[str, Any] = {"revision": commit, "patterns": patterns}
    error = client.resolve("owner/model", offline=True, **wanted)["error"]
    command = shlex.split(error.partition("beforehand with: ")[2].partition(", or name")[0])
    assert command[0] == "hf"
    process = client.start([sys.executable, "-m", "huggingface_hub.cli.hf", *command[1:]])
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert hub.sent() == files
    folder = client.resolve("owner/model", offline=True, **wanted)["folder"]
    assert folder.endswith(commit)


def test_a_cache_without_lists_of_files(hub: LocalHub, client: Client, small: Path) -> None:
    """As other programs leave it. Nobody can say whether it is whole, so the hub is asked; without
    one, it must do."""
    hub.add("owner/model", small)
    some: dict[str, Any] = {"source": "owner/model", "patterns": ["unet/*"]}
    fetched = client.resolve(**some)
    weights = Path(fetched["folder"]) / "unet" / "weights.bin"
    (lists,) = client.snapshots.rglob("trees")
    shutil.rmtree(lists)
    weights.unlink()
    found, taken = client.calls(("cached", some), ("resolve", some), offline=True)
    assert found["folder"] == "None" and taken == fetched and not weights.exists()
    assert client.resolve(**some) == fetched and weights.exists()
    # Where files are named, each is looked for.
    shutil.rmtree(lists)
    named = {"source": "owner/model", "patterns": ["unet/config.json"]}
    lacking = {"source": "owner/model", "patterns": ["unet/config.json", "weights.bin"]}
    found, failed = client.calls(("cached", named), ("resolve", lacking), offline=True)
    assert found == fetched and "error" in failed


def test_a_folder_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "model").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for source in (str(tmp_path), "~/owner/model", "owner/model", "./owner"):
        folder = resolve(source, what="the model", option="--model", patterns=["*.json"])
        assert folder == Path(source).expanduser() == cached(source)


@pytest.mark.parametrize(
    "source", ["", "./none", "/none/at-all", "~/none", "../x", "a/b/c", "gpt2", "a/b@", "a b/c"]
)
def test_what_is_neither_folder_nor_id(source: str) -> None:
    with pytest.raises(ModelError) as caught:
        resolve(source, what="the CLIP model", option="--clip")
    message = str(caught.value)
    assert message.startswith(f"{source}: no such folder, and no hub id (OWNER/NAME")
    assert message.endswith("name the CLIP model with --clip") and "\n" not in message
    assert cached(source) is None


def test_a_file_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net.ckpt").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="a file, not a folder"):
        resolve("models/net.ckpt", what="the model", option="--model")


def test_two_revisions_are_one_too_many() -> None:
    with pytest.raises(ModelError, match="names revision v1, but v2 was given as well"):
        resolve("owner/model@v1", what="the model", option="--model", revision="v2")


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.ENOSPC, "no space left in"), (errno.EROFS, "no permission to write the model to")],
)
def test_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    def fail(*args: object, local_files_only: bool, **options: object) -> None:
        raise FileNotFoundError if local_files_only else OSError(number, os.strerror(number))

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *args, **options: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=rf"owner/model: {reason} .*{tmp_path}.*HF_HOME"):
        resolve("owner/model", what="the model", option="--model")
