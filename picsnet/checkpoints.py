"""Models as files: exported folders, Lightning checkpoints, and those that ship.

An exported model is a folder with ``model.safetensors`` and ``card.json``. Its weights are stored
in half precision, those of the exact hyper-synthesis as integers, and the coding tables as
integers: all that a receiver needs, and nothing that it would have to compute again. A Lightning
checkpoint goes through the same conversion when it is loaded, so a file written with either is read
with the other.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from picsnet import shipped
from picsnet.devices import check_device, exact_device, unseen_by_the_caller
from picsnet.entropy import FrequencyTables
from picsnet.errors import CheckpointError, ConfigError, UsageError, in_one_line, with_its_kind
from picsnet.files import atomic_write
from picsnet.ntc import build
from picsnet.ntc.base import FileNTC
from picsnet.ntc.context import Levels, SketchContext
from picsnet.ntc.fixedpoint import ACTIVATION_BITS, WEIGHT_BITS, FixedPointConv2d
from picsnet.ntc.hyperprior import SCALE_LEVELS, SketchHyperprior
from picsnet.ntc.tables import CodingTables, build_tables, orientation_table
from picsnet.saved import averaged
from picsnet.shipped import CARD, WEIGHTS

FINGERPRINT_BYTES = 3

# What a receiver computes with: these tensors make the fingerprint.
_TABLES = "tables."
_ORIENTATION = "orientation."
_RECEIVER = (
    "h_s.",
    "g_s.",
    "context.",
    "gains.log_inverse.",
    "gains.offset.",
    _TABLES,
    _ORIENTATION,
)


@dataclass(frozen=True)
class SketchModel:
    """A network ready to code, its tables and what is known about it.

    Attributes:
        name: the shipped name, or the path it was loaded from.
        network: in evaluation mode, on its device.
        tables: integer coding tables.
        fingerprint: 3 bytes that a file names its model by.
        card: architecture, options, lmbda, distortion, data, steps, revision, measurements.
    """

    name: str
    network: FileNTC
    tables: CodingTables
    fingerprint: bytes
    card: dict[str, Any]

    @property
    def quality(self) -> int:
        """The operating point that the card names by its lmbda."""
        return self.network.quality_of(float(self.card["lmbda"]))

    @property
    def device(self) -> torch.device:
        """Where the network's weights are."""
        return self.network.device


def load_model(
    spec: str | Path, device: str | torch.device = "cpu", prior: bool = True
) -> SketchModel:
    """A model by shipped name, exported folder or Lightning checkpoint.

    Args:
        spec: which.
        device: where the network is to run, as torch names it, or "auto".
        prior: False leaves out what plain coding does not need, as `picsnet.ntc.build` says; such
            a network can neither be trained nor predict its rate nor make efforts.

    Raises:
        CheckpointError: not there, damaged, or of an architecture that cannot code files.
        UsageError: ``spec`` is no name, or there is no such device.
    """
    if not isinstance(spec, str | os.PathLike):
        raise UsageError(f"a model is named by a text or a path, not {type(spec).__name__}")
    device = exact_device(check_device(str(device)))
    path = Path(spec)
    if path.suffix == ".ckpt":
        tensors, card = _from_lightning(path)
    else:
        folder = path if os.path.isdir(path) else shipped.FOLDER / str(spec)
        tensors, card = _from_export(folder, str(spec))
    return _assemble(str(spec), tensors, card, device, prior)


def find_by_fingerprint(fingerprint: bytes, device: str | torch.device = "cpu") -> SketchModel:
    """The shipped model with which a file was written, as far as reading it needs.

    Raises:
        CheckpointError: none of them is.
    """
    name = shipped.networks().get(fingerprint.hex())
    if name is not None:
        return load_model(name, device, prior=False)
    if (was := shipped.replaced().get(fingerprint.hex())) is not None:
        folder = f"checkpoints/{was['name']}"
        raise CheckpointError(
            f"was written with {was['name']} as it shipped up to {was['revision']}; in the "
            f"checkout, mkdir old && git archive {was['revision']} {folder} | tar -x -C old, and "
            f"name it: --ckpt old/{folder}"
        )
    raise CheckpointError(
        f"no shipped model has the fingerprint {fingerprint.hex()}; "
        "name the model the file was written with: --ckpt CKPT"
    )


def export(
    network: FileNTC,
    card: dict[str, Any],
    folder: str | Path,
    tables: dict[str, Tensor] | None = None,
) -> str:
    """Write a model folder; returns the fingerprint in hex.

    Args:
        network: trained, any device.
        card: must name ``architecture``, ``options`` and ``lmbda``; the fingerprint is added.
        tables: coding tables made earlier; built from the network if not given.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    tensors = pack(network, tables)
    fingerprint = fingerprint_of(tensors).hex()
    card = {**card, "fingerprint": fingerprint}
    with atomic_write(folder / WEIGHTS) as part:
        save_file(tensors, part, metadata={"format": "picsnet-sketch-1"})
        part.chmod(0o644)  # safetensors makes files that only their owner can read
    with atomic_write(folder / CARD) as part:
        part.write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")
    return fingerprint


def in_memory_model(network: FileNTC, config: dict[str, Any]) -> SketchModel:
    """The model that an export of a network in training would give, without writing it."""
    card = card_of(config)
    return _assemble("the network in training", pack(network), card, network.device)


def card_of(config: dict[str, Any]) -> dict[str, Any]:
    """What a model's card takes from the configuration of its run."""
    return {
        "architecture": config["model"]["architecture"],
        "options": config["model"]["options"],
        "lmbda": config["lmbda"],
        **({"lmbdas": config["lmbdas"]} if config.get("lmbdas") else {}),
        "distortion": config["distortion"],
        **({"edge_weight": config["edge_weight"]} if config.get("edge_weight") else {}),
        "batch_size": config["data"]["batch_size"],
        "crop": config["data"]["crop"],
        "sketcher": config["data"]["sketcher"],
        # Names, not paths: a card travels.
        "data": [
            Path(folder).name
            for key in ("photos", "maps", "shards")
            for folder in config["data"].get(key, [])
        ],
        "init_from": _origin(config["init_from"]) if config.get("init_from") else None,
    }


def _origin(init_from: str) -> str:
    """The run of a checkpoint, ``RUN/checkpoints/last.ckpt``; the name of an export."""
    path = Path(init_from)
    return path.parent.parent.name if path.suffix == ".ckpt" else path.name


def _table_prefix(part: str) -> str:
    # What reads tables alone and knows of no orientation must not read on: it would decode all that
    # follows wrongly. Under a name of its own it refuses the model.
    return _ORIENTATION if part == "orientation" else f"{_TABLES}{part}."


def table_tensors(network: FileNTC) -> dict[str, Tensor]:
    """Freshly built coding tables as tensors, under ``tables.``."""
    return {
        f"{_table_prefix(part)}{field}": torch.from_numpy(np.ascontiguousarray(array))
        for part, table in zip(CodingTables._fields, build_tables(network), strict=True)
        for field, array in table.to_arrays().items()
    }


def pack(network: FileNTC, tables: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """A network as the tensors that are stored: half floats, integers, tables.

    Args:
        network: in training or trained.
        tables: coding tables made earlier; built from the network if not given.
    """
    exact = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, FixedPointConv2d)
    }
    levels = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, Levels) and layer.bits is not None
    }
    tensors: dict[str, Tensor] = {}
    for key, value in network.state_dict().items():
        owner, _, kind = key.rpartition(".")
        value = value.detach().cpu()
        if owner in exact and kind == "weight":
            grid = exact[owner].grid_weight().detach().cpu() * 2.0**WEIGHT_BITS
            tensors[key] = grid.round().to(torch.int16)
        elif owner in levels:
            grid = levels[owner].grid().detach().cpu() * 2.0 ** (WEIGHT_BITS + ACTIVATION_BITS)
            tensors[key] = grid.round().to(torch.int32)
        elif owner in exact and kind == "bias":
            grid = exact[owner].grid_bias().detach().cpu() * 2.0 ** (WEIGHT_BITS + ACTIVATION_BITS)
            tensors[key] = grid.round().to(torch.int32)
        elif key.startswith("entropy_bottleneck."):
            # A few numbers a channel, needed only to train on from here: kept whole.
            if value.is_floating_point() and value.numel():
                tensors[key] = value.float()
        elif value.is_floating_point() and value.numel():
            tensors[key] = value.half()
    tensors |= table_tensors(network) if tables is None else tables
    return {key: value.contiguous() for key, value in sorted(tensors.items())}


def fingerprint_of(tensors: dict[str, Tensor]) -> bytes:
    """First bytes of the SHA-256 over all that a receiver computes with."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        if key.startswith(_RECEIVER):
            array = tensors[key].numpy()
            digest.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
            digest.update(array.tobytes())
    return digest.digest()[:FINGERPRINT_BYTES]


def _unpacked_state(network: FileNTC, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {}
    for key, value in tensors.items():
        if key.startswith((_TABLES, _ORIENTATION)):
            continue
        if value.dtype == torch.int16:
            state[key] = value.float() * 2.0**-WEIGHT_BITS
        elif value.dtype == torch.int32:
            state[key] = value.float() * 2.0 ** -(WEIGHT_BITS + ACTIVATION_BITS)
        else:
            state[key] = value.float()
    # Buffers that are constants or belong to compressai's own tables keep their fresh values.
    parameters = {name for name, _ in network.named_parameters()}
    for key, value in network.state_dict().items():
        if key not in state and key not in parameters:
            state[key] = value
    return state


def _stored_tables(tensors: dict[str, Tensor]) -> CodingTables:
    def stored(part: str) -> dict[str, NDArray[np.int32]]:
        prefix = _table_prefix(part)
        return {
            key.removeprefix(prefix): value.numpy()
            for key, value in tensors.items()
            if key.startswith(prefix)
        }

    arrays = {part: stored(part) for part in CodingTables._fields}
    # Exported before senders could turn maps: they have no such table.
    arrays["orientation"] = arrays["orientation"] or orientation_table(1).to_arrays()
    return CodingTables(*map(FrequencyTables.from_arrays, arrays.values()))


@unseen_by_the_caller()
def _assemble(
    name: str,
    tensors: dict[str, Tensor],
    card: dict[str, Any],
    device: str | torch.device,
    prior: bool = True,
) -> SketchModel:
    architecture = card.get("architecture")
    try:
        network = build(str(architecture), card.get("options") or {}, prior)
    except ConfigError as error:
        raise CheckpointError(f"{name}: its card is damaged: {error}") from None
    if not isinstance(network, FileNTC):
        raise CheckpointError(
            f"{name}: architecture {architecture} has a floating-point entropy model, so its files "
            "would decode on this machine only; picsnet writes none with it"
        )
    try:
        state = _unpacked_state(network, tensors)
        if not prior:
            state = {key: state[key] for key in state if not key.startswith(network.PRIOR)}
        network.load_state_dict(state, strict=True)
        tables = _stored_tables(tensors)
        counts = tuple(len(table.lengths) for table in tables)
        if counts != (network.N, SCALE_LEVELS, 1):
            raise ValueError(f"{', '.join(map(str, counts))} coding tables")
        orientation = tables.orientation
        if orientation.offsets[0] != 0 or orientation.lengths[0] not in (1, network.ORIENTATIONS):
            raise ValueError("a coding table of orientations that it does not have")
        for layer in network.modules():
            if isinstance(layer, FixedPointConv2d):
                layer.check_exact()
    except (RuntimeError, ValueError, KeyError) as error:
        reason = in_one_line(error)
        raise CheckpointError(
            f"{name}: does not hold a {architecture} as its card says ({reason}); "
            "export it again with picsnet export"
        ) from None
    network.eval().requires_grad_(False)
    return SketchModel(name, network.to(device), tables, fingerprint_of(tensors), card)


def _from_export(folder: Path, spec: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    source = folder
    if not os.path.isdir(folder):
        raise _no_such_model(spec)
    try:
        card, source = shipped.read_card(folder)
        tensors = load_file(source / WEIGHTS)
    except FileNotFoundError as error:
        lacks = f" ({error.filename or source / WEIGHTS} is missing)"
        last = folder / "checkpoints" / "last.ckpt"
        if last.is_file():
            lacks = f" in a run's folder; its weights are {last}"
        raise _no_such_model(spec, lacks) from None
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: damaged model ({error}); fetch or export it again"
        ) from None
    lmbda = card.get("lmbda")
    if not isinstance(lmbda, int | float) or not 0 < lmbda < math.inf:
        raise CheckpointError(f"{folder / CARD}: not a picsnet model card; export the model again")
    try:
        fingerprint = fingerprint_of(tensors).hex()
    except TypeError:  # a type of numbers that numpy has not, and picsnet does not write
        fingerprint = "none"
    if fingerprint != card.get("fingerprint"):
        raise CheckpointError(
            f"{folder}: weights do not match the card's fingerprint; fetch or export it again"
        )
    return tensors, card


def _no_such_model(spec: str, lacks: str = "") -> CheckpointError:
    known = ", ".join(shipped.sketch_models()) or "none"
    return CheckpointError(
        f"{spec}: no such model{lacks}; give a .ckpt, an exported folder, or a shipped name: "
        f"{known}"
    )


def _from_lightning(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    network, card, tables = load_lightning(path)
    if not isinstance(network, FileNTC):
        raise CheckpointError(
            f"{path}: architecture {card['architecture']} has a floating-point entropy model, so "
            "its files would decode on this machine only; picsnet writes none with it"
        )
    return pack(network, tables), card


def task_of(path: Path) -> str:
    """What a training checkpoint is of: "edge" or "sketch-ntc".

    Raises:
        CheckpointError: not a training checkpoint of this project.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return str(saved["config"]["task"])
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint; train one with train.py") from None
    except Exception as error:
        raise CheckpointError(
            f"{path}: not a training checkpoint ({type(error).__name__}); "
            "use the last.ckpt of a run of train.py"
        ) from None


def load_lightning(
    path: Path,
) -> tuple[torch.nn.Module, dict[str, Any], dict[str, Tensor] | None]:
    """The averaged network of a training checkpoint, the card of its export, its coding tables.

    Raises:
        CheckpointError: missing, damaged, or not a checkpoint of a sketch NTC.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        config = saved["config"]
        model = config["model"]
        network = build(model["architecture"], model["options"])
        network.load_state_dict(averaged(saved), strict=True)
        card = card_of(config) | {
            "steps": saved["batches_seen"],
            "environment": saved.get("environment", {}),
        }
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such checkpoint; train one, or use a shipped name"
        ) from None
    except Exception as error:
        # torch.load raises what the damage suggests: pickle, zip, runtime and key errors alike.
        raise CheckpointError(
            f"{path}: not a checkpoint of a sketch NTC ({with_its_kind(error)}); "
            "use the last.ckpt of a run of train.py"
        ) from None
    return network, card, saved.get("tables")


def load_weights(network: torch.nn.Module, spec: str | Path) -> None:
    """Start a network from trained weights: a checkpoint, an exported folder or a shipped name.

    Raises:
        CheckpointError: they cannot be had, or are of another architecture.
    """
    path = Path(spec)
    if path.suffix == ".ckpt":
        source, card, _ = load_lightning(path)
    else:
        model = load_model(spec)
        source, card = model.network, model.card
    try:
        if isinstance(network, SketchContext) and isinstance(
            source, SketchHyperprior | SketchContext
        ):
            network.start_from(source)
        else:
            network.load_state_dict(source.state_dict(), strict=True)
    except (RuntimeError, ValueError) as error:
        reason = in_one_line(error)
        # Lambdas are the configuration's own.
        options = ", ".join(f"{k}: {v}" for k, v in card["options"].items() if k != "lambdas")
        raise CheckpointError(
            f"init_from {spec}: does not fit the network of this run ({reason}); give this run its "
            f"network: model.architecture={card['architecture']} 'model.options={{{options}}}'"
        ) from None
