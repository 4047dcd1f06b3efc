"""Where the models that ship are. Standard library only: listing them must not load torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CARD = "card.json"
WEIGHTS = "model.safetensors"
FOLDER = Path(__file__).resolve().parent.parent / "checkpoints"
"""The repository's ``checkpoints``; picsnet is installed from its checkout (``pip install -e``)."""


def cards() -> dict[str, dict[str, Any]]:
    """Cards of all models that ship, by name."""
    return {
        path.parent.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob(f"*/{CARD}"))
    }
