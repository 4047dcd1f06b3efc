"""``picsnet models``: what ships, and which decoders can be had from a hub."""

from __future__ import annotations

import argparse
import json
from typing import Any

from picsnet import shipped
from picsnet.decoder.spec import PRESETS, DecoderSpec, load_spec

NAME = "models"
HELP = "list the models that ship and the decoders that have a name"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--json", action="store_true", help="one JSON object a model")


def run(args: argparse.Namespace) -> int:
    """Print a line for each card and each preset."""
    for name, card in shipped.cards().items():
        size = sum(path.stat().st_size for path in (shipped.FOLDER / name).iterdir())
        if args.json:
            print(json.dumps({"kind": "shipped", "name": name, "bytes": size, **card}))
            continue
        print(
            f"{name:<28} {size / 2**20:5.1f} MiB  {card['architecture']}, "
            f"{_about(card)}, fingerprint {card['fingerprint']}"
        )
    for name in shipped.decoders():
        _print_shipped(name, args.json)
    for spec in PRESETS.values():
        record = _describe(spec)
        if args.json:
            print(json.dumps(record))
            continue
        print(
            f"{spec.name:<28} {spec.gigabytes:5.1f} GB   decoder, {spec.settings.steps} steps, "
            f"licence {spec.licence}; {'on this machine' if record['cached'] else 'not fetched'}"
        )
        for what in ("pipeline", "controlnet"):
            part = record[what]
            print(f"{'':<30}{what} {part['id']} at {part['revision'] or 'main (not pinned)'}")
        print(f"{'':<30}CLIP for inversion and choice: {spec.clip}")
    return 0


def _about(card: dict[str, Any]) -> str:
    if "lmbda" not in card:
        return "edges"
    if "model" in card:
        return f"lambda {card['lmbda']:g} of {card['model']}"
    if "superseded_by" in card:
        return f"lambda {card['lmbda']:g}, for files from before {card['superseded_by']}"
    if "lmbdas" in card:
        lambdas = card["lmbdas"]
        return f"lambda {lambdas[0]:g} to {lambdas[-1]:g} on {card['distortion']}"
    return f"lambda {card['lmbda']:g} on {card['distortion']}"


def _print_shipped(name: str, as_json: bool) -> None:
    spec = load_spec(name)
    size = sum(p.stat().st_size for p in (shipped.FOLDER / name).rglob("*") if p.is_file())
    settings = spec.settings
    if as_json:
        record = {"kind": "shipped decoder", "name": name, "bytes": size, "licence": spec.licence}
        print(json.dumps({**record, "steps": settings.steps, "size": settings.size}))
        return
    print(
        f"{name:<28} {size / 2**20:5.1f} MiB  decoder, {settings.steps} steps at "
        f"{settings.size} pixels, licence {spec.licence}"
    )


def _describe(spec: DecoderSpec) -> dict[str, Any]:
    from picsnet.decoder.choice import on_this_machine

    return {
        "kind": "decoder",
        "name": spec.name,
        "pipeline": {"id": spec.pipeline, "revision": spec.revision, "variant": spec.variant},
        "controlnet": {"id": spec.controlnet, "revision": spec.controlnet_revision},
        "clip": spec.clip,
        "licence": spec.licence,
        "gigabytes": spec.gigabytes,
        "steps": spec.settings.steps,
        "cached": on_this_machine(spec),
    }
