"""What a run's results depend on besides its configuration."""

from __future__ import annotations

import functools
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from picsnet.files import atomic_write

if TYPE_CHECKING:
    from omegaconf import DictConfig


@functools.cache
def describe_environment() -> dict[str, str]:
    """Versions and revision that a run depends on, to be kept beside its results."""
    packages = ("picsnet", "torch", "lightning", "compressai", "constriction", "numpy")
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    found["python"] = platform.python_version()
    found["revision"] = git_revision()
    return found


def save_description(config: DictConfig, folder: Path) -> None:
    """A run's configuration and environment, beside its results: ``config.yaml`` and
    ``environment.json``."""
    from omegaconf import OmegaConf

    with atomic_write(folder / "config.yaml") as part:
        OmegaConf.save(config, part)
    with atomic_write(folder / "environment.json") as part:
        part.write_text(json.dumps(describe_environment(), indent=1) + "\n")


def git_revision() -> str:
    """The checkout's commit, with ``-dirty`` where files differ, or ``unknown``."""
    try:
        out = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return out.stdout.strip()
