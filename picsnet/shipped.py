"""Where the models that ship are. Standard library only: listing them must not load torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CARD = "card.json"
WEIGHTS = "model.safetensors"
SPEC_FILE = "picsnet.yaml"
"""In the folder of a decoder: what it is made of and how it is run."""
FOLDER = Path(__file__).resolve().parent.parent / "checkpoints"
"""The repository's ``checkpoints``; picsnet is installed from its checkout (``pip install -e``)."""


def cards() -> dict[str, dict[str, Any]]:
    """Cards of all models that ship, by name."""
    return {
        path.parent.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob(f"*/{CARD}"))
    }


def decoders() -> list[str]:
    """Names of the decoders that ship."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{SPEC_FILE}"))
