"""An evaluation as a W&B run: charts of rate and distortion, tables with pictures, artifacts.

Works from what the run's folder holds, so it can be done again; the same folder is the same W&B
run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from picsnet import shipped
from picsnet.errors import ImageError
from picsnet.evaluation.config import EvaluationConfig
from picsnet.evaluation.rows import Row
from picsnet.evaluation.tables import ROWS, SUMMARY
from picsnet.files import atomic_write, slug
from picsnet.images import load_rgb
from picsnet.training.wandb_run import beginning, wandb_id, wandb_mode

SHOWN_SIDE = 384
"""Longest side of pictures in W&B's tables, pixels, as JPEG: hundreds of them are sent."""
_PICTURES = ("original", "sketch", "decoded_sketch", "decoded")


def track(
    config: EvaluationConfig, rows: Sequence[Row], summary: Mapping[str, Any], run: Path
) -> None:
    """Log a finished evaluation to W&B.

    Args:
        config: of the run; ``logging.wandb`` says whether and where, ``logging.group`` the study.
        rows: all of it.
        summary: what ``summary.json`` holds.
        run: the run's folder.

    Raises:
        ConfigError: W&B does not begin a run.
    """
    settings = config.logging
    mode = wandb_mode(settings.wandb)
    if mode == "disabled":
        return
    import wandb

    with beginning():
        begun = wandb.init(
            mode="online" if mode == "online" else "offline",
            project=settings.project,
            name=config.name,
            id=wandb_id(run),
            resume="allow" if mode == "online" else None,
            group=settings.group,
            job_type="evaluation",
            dir=str(run),
            config=asdict(config),
        )
    with begun as logged:
        logged.log(_charts(summary))
        logged.log({"points": _points_table(summary), "rows": _rows_table(rows)})
        if settings.pictures:
            logged.log({"pictures": _pictures_table(rows, run, settings.pictures)})
        for point in summary["points"]:
            for name, value in {**point["measures"], "bpp": point["bpp"]}.items():
                logged.summary[f"{point['codec']}/{point['setting']}/{name}"] = value["mean"]
        for artifact in _artifacts(config, rows, run):
            logged.log_artifact(artifact)


def _charts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A custom chart a measure: rate across, measure up, a line a codec."""
    import wandb

    charts = {}
    for name, measure in summary["measures"].items():
        points = [point for point in summary["points"] if name in point["measures"]]
        codecs = list(dict.fromkeys(point["codec"] for point in points))
        curves = [
            sorted(
                (point["measures"][name]["bpp"], point["measures"][name]["mean"])
                for point in points
                if point["codec"] == codec
            )
            for codec in codecs
        ]
        charts[f"rd/{name}"] = wandb.plot.line_series(
            xs=[[x for x, _ in curve] for curve in curves],
            ys=[[y for _, y in curve] for curve in curves],
            keys=codecs,
            title=f"{measure['label']} on {summary['dataset']['name']}",
            xname="bits per pixel",
        )
    return charts


def _points_table(summary: Mapping[str, Any]) -> Any:
    import wandb

    names = list(summary["measures"])
    columns = ["codec", "setting", "lmbda", "bytes", "bpp", *names]
    columns += ["encode_seconds", "decode_seconds"]
    lines = [
        [
            *(point[key] for key in ("codec", "setting", "lmbda", "bytes")),
            point["bpp"]["mean"],
            *(point["measures"].get(name, {}).get("mean") for name in names),
            point["encode_seconds"],
            point["decode_seconds"],
        ]
        for point in summary["points"]
    ]
    return wandb.Table(columns=columns, data=lines)


_ROW_KEYS = ("picture", "codec", "setting", "lmbda", "bytes", "bpp", "prompt", "seed")


def _rows_table(rows: Sequence[Row]) -> Any:
    import wandb

    names = _measure_names(rows)
    lines = [
        [*(getattr(row, key) for key in _ROW_KEYS), *(row.measures.get(name) for name in names)]
        for row in rows
    ]
    return wandb.Table(columns=[*_ROW_KEYS, *names], data=lines)


def _pictures_table(rows: Sequence[Row], run: Path, count: int) -> Any:
    import wandb

    names = _measure_names(rows)
    shown = set(list(dict.fromkeys(row.picture for row in rows))[:count])
    table = wandb.Table(columns=[*_ROW_KEYS, *names, *_PICTURES])
    originals: dict[str, Any] = {}
    for row in rows:
        if row.picture not in shown:
            continue
        pictures = []
        for kind in _PICTURES:
            path = getattr(row, kind)
            if kind == "original":
                path = originals.setdefault(path, _picture(run / path))
                pictures.append(path)
            else:
                pictures.append(None if path is None else _picture(run / path))
        table.add_data(
            *(getattr(row, key) for key in _ROW_KEYS),
            *(row.measures.get(name) for name in names),
            *pictures,
        )
    return table


def _picture(path: Path) -> Any:
    """As the table shows it; None for a file that was damaged since, which measuring it tells."""
    import wandb

    try:
        small = Image.fromarray(load_rgb(path))
    except ImageError:
        return None
    small.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
    return wandb.Image(small, file_type="jpg")


def _measure_names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.measures))


def _artifacts(config: EvaluationConfig, rows: Sequence[Row], run: Path) -> list[Any]:
    """The results; which pictures they are of, by hash; and the models of ours that made them."""
    import wandb

    results = wandb.Artifact(f"evaluation-{slug(config.name)}", type="evaluation")
    for name in (ROWS, SUMMARY):
        results.add_file(str(run / name))
    dataset = wandb.Artifact(f"dataset-{slug(config.dataset.name)}", type="dataset")
    originals = {row.picture: run / row.original for row in rows}
    hashes = {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in originals.items()
    }
    manifest = run / "dataset.json"
    with atomic_write(manifest) as part:
        part.write_text(json.dumps({"name": config.dataset.name, "sha256": hashes}, indent=1))
    dataset.add_file(str(manifest))
    return [results, dataset, *_models(config)]


def _with_weights(ckpt: str) -> Path:
    """Where a model's weights are: an operating point's are in its network's folder."""
    path = Path(ckpt) if os.path.exists(ckpt) else shipped.FOLDER / ckpt
    return shipped.read_card(path)[1] if path.is_dir() else path


def _models(config: EvaluationConfig) -> list[Any]:
    import wandb

    named = [ckpt for codec in config.codecs.values() for ckpt in getattr(codec, "ckpt", [])]
    artifacts = []
    for path in dict.fromkeys(_with_weights(ckpt) for ckpt in named):
        # A run's checkpoints are all called last.ckpt: its folder tells them apart.
        name = path.parent.parent.name if path.suffix == ".ckpt" else path.name
        artifact = wandb.Artifact(f"model-{slug(name)}", type="model")
        if path.is_dir():
            artifact.add_dir(str(path))
        else:
            artifact.add_file(str(path))
        artifacts.append(artifact)
    return artifacts
