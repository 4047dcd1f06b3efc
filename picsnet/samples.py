"""Sample photographs: those that come with scikit-image."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

SAMPLES = ("astronaut", "camera", "chelsea", "coffee", "rocket")


def sample_files() -> dict[str, Path]:
    """Files of the samples that are on this machine, by name; scikit-image is not imported."""
    try:
        folder = Path(str(resources.files("skimage"))) / "data"
    except ModuleNotFoundError:
        return {}
    found = {name: [folder / f"{name}{kind}" for kind in (".png", ".jpg")] for name in SAMPLES}
    return {name: path for name, paths in found.items() for path in paths if path.is_file()}
