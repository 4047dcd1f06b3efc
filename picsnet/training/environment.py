"""What a run's results depend on besides its configuration."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib import metadata
from pathlib import Path


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
