"""Where the models that ship are. Standard library only: listing them must not load torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CARD = "card.json"
WEIGHTS = "model.safetensors"
SPEC_FILE = "picsnet.yaml"
"""In the folder of a decoder: what it is made of and how it is run."""
DEFAULT = "sketch_ntc_lambda0.5"
"""The sketch model that is taken where none is named."""
EDGES = "edge_bsds500"
"""The edge detector that ships."""
FOLDER = Path(__file__).resolve().parent.parent / "checkpoints"
"""The repository's ``checkpoints``; picsnet is installed from its checkout (``pip install -e``)."""


def read_card(folder: Path) -> tuple[dict[str, Any], Path]:
    """The card of a model's folder, and the folder that has its weights.

    A folder without weights names an operating point of a network that serves several lambdas: its
    card has ``model``, the name of the folder beside it that has them, and what differs.

    Raises:
        OSError: there is no card.
        ValueError: it is no JSON object, or the model that it names is itself such a folder.
    """
    card = _object(folder / CARD)
    if "model" not in card:
        return card, folder
    source = folder.parent / str(card["model"])
    whole = _object(source / CARD)
    if "model" in whole:
        raise ValueError(f"{source / CARD}: names another model in its turn")
    shared = {key: value for key, value in whole.items() if key != "measured"}  # at its own lambda
    return {**shared, **card}, source


def _object(path: Path) -> dict[str, Any]:
    card = json.loads(path.read_text())
    if not isinstance(card, dict):
        raise ValueError(f"{path}: is no JSON object")
    return card


def cards() -> dict[str, dict[str, Any]]:
    """Cards of all models that ship, by name."""
    return {
        path.parent.name: read_card(path.parent)[0] for path in sorted(FOLDER.glob(f"*/{CARD}"))
    }


def networks() -> dict[str, str]:
    """Names of the sketch networks that ship, by fingerprint.

    Operating points of a network have its fingerprint, and a file says its own point.
    """
    whole = {n: c for n, c in cards().items() if "lmbda" in c and "model" not in c}
    return {card["fingerprint"]: name for name, card in whole.items()}


def replaced() -> dict[str, dict[str, str]]:
    """Sketch networks that shipped once, by fingerprint: name, and a revision that has them."""
    path = FOLDER / "replaced.json"
    listed = _object(path) if path.is_file() else {}
    return {fingerprint: dict(found) for fingerprint, found in listed.items()}


def sketch_models() -> list[str]:
    """Names of the sketch models that ship, by rising lambda.

    A network for several lambdas is named by its operating points. Those that ship only so that
    files of theirs can be read, whose cards have ``superseded_by``, are left out.
    """
    found = {
        name: float(card["lmbda"])
        for name, card in cards().items()
        if "lmbda" in card
        and "superseded_by" not in card
        and ("lmbdas" not in card or "model" in card)
    }
    return sorted(found, key=lambda name: found[name])


def decoders() -> list[str]:
    """Names of the decoders that ship."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{SPEC_FILE}"))
