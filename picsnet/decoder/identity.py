"""Which decoder a file was written for: twelve bits from its settings and weights.

Equal for the same weights in float32 or float16, in a re-saved copy, or under another name; another
for a fine-tuned copy, a bfloat16 one (it rounds more coarsely than float16), another vocabulary or
other settings. The rule is in docs/format.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from picsnet.decoder.spec import DecoderSettings
from picsnet.errors import ModelError, in_one_line

_NOISE_KEYS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
_FLOW_KEYS = ("use_flow_sigmas", "flow_shift")
_PASS_KEYS = ("first_size", "last_size", "redraw")
_CODED_KEYS = ("scaling_factor", "shift_factor")


def identify(
    settings: DecoderSettings,
    scheduler: Path,
    vocabulary: dict[str, int],
    components: dict[str, list[Path]],
) -> int:
    """A decoder's identity.

    Args:
        settings: how it is run.
        scheduler: its scheduler_config.json.
        vocabulary: token to id.
        components: name to files of weights; for the VAE, its config.json comes along.

    Returns:
        0..4095.

    Raises:
        ModelError: a file cannot be read.
    """
    digest = hashlib.sha256()

    def add(name: str, value: object) -> None:
        digest.update(f"{name} {json.dumps(value, sort_keys=True)}\n".encode())

    values = dataclasses.asdict(settings)
    for field in dataclasses.fields(settings):
        if isinstance(field.default, float):
            # 9 draws what 9.0 draws, and -0.0 what 0.0 does; JSON spells them apart.
            values[field.name] = float(values[field.name]) + 0.0
    if not (settings.first_size or settings.last_size):
        # As it was before there were passes, so that older files keep their decoder.
        for key in _PASS_KEYS:
            del values[key]
    add("settings", values)
    noise = _selected(scheduler, _NOISE_KEYS)
    if _json(scheduler).get("use_flow_sigmas"):
        noise |= _selected(scheduler, _FLOW_KEYS)
    add("scheduler", noise)
    add("vocabulary", sorted(vocabulary.items(), key=lambda item: (item[1], item[0])))
    for name, files in sorted(components.items()):
        for config in (file for file in files if file.suffix == ".json"):
            add(f"{name} config", _selected(config, _CODED_KEYS))
        add(name, signature([file for file in files if file.suffix != ".json"]))
    return int.from_bytes(digest.digest()[:2], "big") >> 4


def signature(files: list[Path]) -> str:
    """SHA-256 over the biases and norms of some files of weights, in hex.

    All tensors of one dimension, as little-endian float16, each hashed by itself and the hashes
    sorted: names differ between versions of the libraries, and float32 from float16 between
    variants. They are a thousandth of the weights, and any training changes them.

    Raises:
        ModelError: a file is damaged.
    """
    hashes = []
    for file in files:
        try:
            for tensor in _vectors(file):
                values = tensor.to(torch.float16).contiguous().numpy().astype("<f2")
                hashes.append(hashlib.sha256(values.tobytes()).hexdigest())
        except Exception as error:  # what damage raises has no common base, least in a pickle
            reason = in_one_line(error)
            raise ModelError(f"{file}: damaged weights ({reason}); fetch them again") from None
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()


def _vectors(file: Path) -> list[torch.Tensor]:
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as tensors:
            names = [n for n in tensors.keys() if len(tensors.get_slice(n).get_shape()) == 1]  # noqa: SIM118
            found = [tensors.get_tensor(name) for name in names]
    else:
        # A pickle: only tensors may come out of it.
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        found = [value for value in state.values() if value.dim() == 1]
    return [value for value in found if value.is_floating_point()]


def _selected(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    values = _json(path)
    return {key: values[key] for key in keys if values.get(key) is not None}


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); fetch it again") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path}: not what it should be; fetch it again")
    return values
