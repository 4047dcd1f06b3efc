"""What each verb imports: an import that costs seconds must not come in unseen."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from picsnet.samples import sample_files
from tests.conftest import REPOSITORY, drawn_map

CODING = ("constriction", "numpy", "PIL", "safetensors", "torch")
ALLOWED: dict[str, tuple[str, ...]] = {
    "--help": (),
    "info": (),
    "encode --mode sketch": CODING,
    "decode --sketch-only": CODING,
}
"""Top-level packages by verb, beside picsnet and the standard library. What these import by
themselves is theirs."""

ENTRIES = {"PIL": "PIL.Image", "safetensors": "safetensors.torch"}
"""What picsnet imports of packages, where it is not the package itself."""

SLOW_PARTS = {"torch._dynamo", "torch._inductor", "torch.utils.data.datapipes"}
"""Of allowed packages, but seconds of their own. (What `import torch` brings is not counted.)"""


def imported(*arguments: str) -> set[str]:
    """Modules that a cold process imports, or tries to."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    lines = re.finditer(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\S+)$", result.stderr, re.M)
    return {line[1] for line in lines}


@functools.cache
def brought_by(packages: tuple[str, ...]) -> set[str]:
    """Modules that packages import where picsnet has no part in it."""
    names = ", ".join(ENTRIES.get(package, package) for package in ("sys", *packages))
    return imported("-c", f"import {names}")


def surplus(verb: str, modules: set[str]) -> set[str]:
    """Top-level packages, and slow parts of allowed ones, that a verb has no leave to import."""
    theirs = brought_by(ALLOWED[verb])
    packages, granted = ({name.partition(".")[0] for name in some} for some in (modules, theirs))
    allowed = {"picsnet", *ALLOWED[verb], *sys.stdlib_module_names}
    # The interpreter names what was only tried, too: code that does without what is not there.
    found = {name for name in packages - granted - allowed if importlib.util.find_spec(name)}
    return found | ((modules - theirs) & SLOW_PARTS)


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    """A folder with one file, and what making it imported."""
    folder = tmp_path_factory.mktemp("cold")
    Image.fromarray(np.stack([drawn_map(64, 80, 1)] * 3, axis=2)).save(folder / "a.png")
    target = folder / "a.pics"
    command = ["encode", "--mode", "sketch", str(folder / "a.png"), "-o", str(target)]
    return target, imported("-m", "picsnet", *command)


@pytest.mark.parametrize("verb", ALLOWED)
def test_verbs_import_what_they_may(verb: str, coded: tuple[Path, set[str]]) -> None:
    file, by_encoding = coded
    if verb.startswith("encode"):
        modules = by_encoding
    elif verb == "--help":
        modules = imported("-m", "picsnet", "--help")
    else:
        out = ["-o", str(file.with_suffix(".map.png"))] if verb.startswith("decode") else []
        modules = imported("-m", "picsnet", *verb.split(), str(file), *out)
    assert "picsnet.cli" in modules
    unexpected = surplus(verb, modules)
    assert not unexpected, f"{verb} imports {', '.join(sorted(unexpected))}"


def test_a_new_import_is_seen_and_named() -> None:
    assert surplus("info", imported("-c", "import picsnet.cli, safetensors")) == {"safetensors"}
    extra = {"picsnet.codec", "torch.nn", "torch._dynamo", "scipy.stats", "compressai.ops"}
    assert surplus("decode --sketch-only", extra) == {"compressai", "scipy", "torch._dynamo"}


@pytest.mark.parametrize("verb", ["--help", "info"])
def test_light_verbs_answer_at_once(verb: str, coded: tuple[Path, set[str]]) -> None:
    """0.07 s of processor time where this was written; the bound is loose for slower machines.

    Processor time, since what else a machine does must not count.
    """
    command = [sys.executable, "-m", "picsnet", verb, *([str(coded[0])] if verb == "info" else [])]
    spent = []
    for _ in range(3):
        before = os.times()
        subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
        spent.append(sum(os.times()[2:4]) - sum(before[2:4]))  # of children
    assert min(spent) < 1.0


@pytest.mark.parametrize("entry", ["encode.py", "decode.py", "evaluate.py", "picsnet/__main__.py"])
def test_no_garbage_is_looked_for_at_the_end(entry: str) -> None:
    """It took a fifth of a cold decode. What is registered first is called last."""
    script = (
        "import atexit, gc, runpy, sys;"
        "atexit.register(lambda: print('set aside', gc.get_freeze_count(), len(gc.get_objects())));"
        f"sys.argv = [{entry!r}, '--help']; runpy.run_path({entry!r}, run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    aside, left = map(int, result.stdout.splitlines()[-1].split()[2:])
    assert aside > 100 * left


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="torch is without triton")
def test_triton_has_nothing_to_complain_of() -> None:
    """It comes with diffusers, and writes a screenful where its objects are left at the end."""
    script = (
        "import sys, torch, triton; from picsnet.cli import process;"
        "sys.argv = ['picsnet', 'models']; process()"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_samples_are_found_without_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "skimage", raising=False)
    assert all(path.is_file() for path in sample_files().values())
    assert "skimage" not in sys.modules
