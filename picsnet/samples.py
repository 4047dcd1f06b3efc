"""Sample photographs: those that come with scikit-image."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

SAMPLES = ("astronaut", "camera", "chelsea", "coffee", "rocket")


def sample_files() -> dict[str, Path]:
    """Files of the samples that are on this machine, by name; scikit-image is not imported."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        return {}
    folder = Path(spec.origin).parent / "data"
    found = {name: [folder / f"{name}{kind}" for kind in (".png", ".jpg")] for name in SAMPLES}
    return {name: path for name, paths in found.items() for path in paths if path.is_file()}
