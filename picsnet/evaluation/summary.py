"""The summary of a run: means with confidence intervals, and files in CompressAI's shape.

``summary.json``::

    {"name": "eval_kodak",
     "dataset": {"name": "kodak", "pictures": 24, "resize": 512, "references": "..."},
     "left_out": {"lpips": "why"},            measures that could not be had
     "warnings": ["..."],
     "failures": [{"picture", "codec", "setting", "reason", "measures"}],
     "measures": {"psnr": {"label", "unit", "higher_is_better", "scope", "weights",
                           "made_with"}},            options; null if of an earlier start
     "points": [{"codec", "setting", "lmbda", "pictures",
                 "bytes", "layers": {name: mean bytes},
                 "encode_seconds", "decode_seconds" (medians),
                 "bpp": {"mean", "low", "high"},
                 "measures": {"psnr": {"mean", "low", "high", "pictures", "bpp", "of"}}}]}

``low`` and ``high`` bound a 95 % bootstrap interval over pictures; null where there is none. A
measure may be of fewer ``pictures`` than its point: its ``bpp`` is the mean over just these, and is
what it is drawn against; ``of`` is the same for the same pictures, by name, and sizes of sketches.
``compressai/NAME.json`` has one codec each: ``{"name", "description", "results": {"bpp": [...],
"psnr-rgb": [...], "ms-ssim-rgb": [...], "encoding_time": [...], "decoding_time": [...], ...}}``,
one entry a setting, as CompressAI's ``compressai.utils.bench`` and ``plot`` read. There is one rate
for all measures there, so those that some of a point's pictures lack are left out.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from picsnet.evaluation.config import EvaluationConfig, MeasuresConfig
from picsnet.evaluation.measures import MEASURES, OPTIONS, Measure, with_lpips_network
from picsnet.evaluation.preparing import Failure
from picsnet.evaluation.rows import Row
from picsnet.evaluation.tables import COMPRESSAI, SUMMARY
from picsnet.files import IMAGE_SUFFIXES, atomic_write, expand_inputs, slug
from picsnet.terminal import printable

_COMPRESSAI_NAMES = {"psnr": "psnr-rgb", "ms_ssim": "ms-ssim-rgb"}
_SETS = ("fid", "kid", "fid_patches", "kid_patches")


def summarise(
    config: EvaluationConfig,
    rows: Sequence[Row],
    failures: Sequence[Failure],
    run: Path,
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """The summary of a run's rows.

    Args:
        config: of the run.
        rows: all that are done; those of a point follow each other.
        failures: all jobs that are not, or could not be measured.
        run: its folder, where the pictures are that FID and KID compare.
        left_out: measures of pairs that could not be had, and why.

    Raises:
        DataError: the references that the configuration names cannot be read.
    """
    points = [
        _point(list(some), config)
        for _, some in groupby(rows, key=lambda row: (row.codec, row.setting))
    ]
    left_out = dict(left_out)
    warnings: list[str] = []
    wanted = [name for name in config.measures.names if name in _SETS]
    if wanted and rows:
        reasons, warnings = _add_sets(points, rows, wanted, config, run)
        left_out |= reasons
    for point in points:
        _add_pictures(point, rows, config.measures.patch, run)
    for name in config.measures.names:
        if name not in left_out and MEASURES[name].scope != "set":
            warnings += _too_small(name, rows, failures)
    measured = {name for point in points for name in point["measures"]}
    return {
        "name": config.name,
        "dataset": {
            "name": config.dataset.name,
            "pictures": len({row.picture for row in rows}),
            "resize": config.dataset.resize,
            "references": ", ".join(config.measures.references) or "the originals",
        },
        "left_out": left_out,
        "warnings": warnings,
        "failures": [asdict(failure) for failure in failures],
        "measures": {
            # Sets are measured at each start: those that are here are of these options.
            name: _about(
                measure, config.measures, known=measure.scope == "set" or name not in left_out
            )
            for name, measure in MEASURES.items()
            if name in measured
        },
        "points": points,
    }


def _about(measure: Measure, config: MeasuresConfig, known: bool) -> dict[str, Any]:
    """A measure in words. Values of one that cannot be had now are of who knows which weights."""
    measure = with_lpips_network(measure, config.lpips_net if known else None)
    options = OPTIONS.get(measure.name, ())
    made_with = ", ".join(f"measures.{key}={getattr(config, key)}" for key in options)
    return {
        "label": measure.label,
        "unit": measure.unit,
        "higher_is_better": measure.higher_is_better,
        "scope": measure.scope,
        "weights": measure.weights,
        "made_with": made_with if known else None,
    }


def _too_small(name: str, rows: Sequence[Row], failures: Sequence[Failure]) -> list[str]:
    """Pictures that have no value of a measure that was taken of them."""
    of_sketches = MEASURES[name].scope == "sketch"
    coded = [row for row in rows if (row.decoded_sketch if of_sketches else row.decoded)]
    taken = [row for row in coded if not _failed(row, name, failures)]
    lack = {row.picture for row in taken if name not in row.measures}
    count = len({row.picture for row in taken})
    few = f"{name}: {len(lack)} of {count} pictures are too small for it and not in its means"
    return [few] if lack else []


def _failed(row: Row, name: str, failures: Sequence[Failure]) -> bool:
    """Whether a measure could not be taken of a picture that was coded."""
    return any(
        (one.codec, one.setting) == (row.codec, row.setting)
        and one.picture in (row.picture, "*")
        and (not one.measures or name in one.measures)
        for one in failures
    )


def save_summary(summary: Mapping[str, Any], run: Path) -> None:
    """One file a codec in CompressAI's shape, less earlier codecs', and ``summary.json``, last."""
    by_codec: dict[str, list[dict[str, Any]]] = {}
    for point in summary["points"]:
        by_codec.setdefault(point["codec"], []).append(point)
    for codec, points in by_codec.items():
        with atomic_write(run / COMPRESSAI / f"{slug(codec)}.json") as part:
            shaped = in_compressai_shape(codec, points, summary["dataset"]["name"])
            part.write_text(json.dumps(shaped, indent=1) + "\n", encoding="utf-8")
    written = {f"{slug(codec)}.json" for codec in by_codec}
    for path in (run / COMPRESSAI).glob("*.json"):
        if path.name not in written:
            path.unlink(missing_ok=True)
    with atomic_write(run / SUMMARY) as part:
        part.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def in_compressai_shape(
    codec: str, points: Sequence[Mapping[str, Any]], dataset: str
) -> dict[str, Any]:
    """A codec's points, by rising rate, as CompressAI's tools write and plot them."""
    ordered = sorted(points, key=lambda point: point["bpp"]["mean"])
    common = [
        name
        for name in MEASURES
        if all(
            name in point["measures"] and point["measures"][name]["pictures"] == point["pictures"]
            for point in ordered
        )
    ]
    results: dict[str, list[Any]] = {
        "bpp": [point["bpp"]["mean"] for point in ordered],
        **{
            _COMPRESSAI_NAMES.get(name, name): [
                point["measures"][name]["mean"] for point in ordered
            ]
            for name in common
        },
        "encoding_time": [point["encode_seconds"] for point in ordered],
        "decoding_time": [point["decode_seconds"] for point in ordered],
    }
    settings = ", ".join(point["setting"] for point in ordered)
    return {
        "name": codec,
        "description": f"{codec} on {dataset}: {settings}; rates are those of files on disk",
        "results": results,
    }


def _point(rows: list[Row], config: EvaluationConfig) -> dict[str, Any]:
    first = rows[0]
    interval = partial(bootstrap, resamples=config.measures.resamples, seed=config.seed)
    measures = {}
    for name in config.measures.names:
        values = [row.measures[name] for row in rows if name in row.measures]
        if values:
            measures[name] = interval(values)
    return {
        "codec": first.codec,
        "setting": first.setting,
        "lmbda": first.lmbda,
        "pictures": len(rows),
        "bytes": statistics.fmean(row.bytes for row in rows),
        "layers": {
            name: statistics.fmean(row.layers[name] for row in rows) for name in first.layers
        },
        "encode_seconds": statistics.median(row.encode_seconds for row in rows),
        "decode_seconds": statistics.median(row.decode_seconds for row in rows),
        "bpp": interval([row.bpp for row in rows]),
        "measures": measures,
    }


def _add_pictures(point: dict[str, Any], rows: Sequence[Row], patch: int, run: Path) -> None:
    """To each measure of a point: of how many pictures it is, of which, and their mean rate."""
    own = [row for row in rows if _is_of(row, point)]
    for name, value in point["measures"].items():
        some = [row for row in own if _has(row, name, patch)]
        # Codecs sketch at sizes of their own, which measures of sketches depend on.
        maps = MEASURES[name].scope == "sketch"
        what = sorted([row.picture, _map_size(run, row) if maps else ""] for row in some)
        value["pictures"] = len(some)
        value["bpp"] = statistics.fmean(row.bpp for row in some)
        value["of"] = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:12]


def _map_size(run: Path, row: Row) -> str:
    """Of a row's sketch, as far as its file tells."""
    try:
        with Image.open(run / str(row.sketch)) as sketch:
            return f"{sketch.width}x{sketch.height}"
    except OSError:
        return "unknown"


def _has(row: Row, name: str, patch: int) -> bool:
    """Whether a row's picture is in the mean of a measure, or in the set that it is of."""
    if MEASURES[name].scope != "set":
        return name in row.measures
    whole = not name.endswith("_patches") or min(row.width, row.height) >= patch
    return row.decoded is not None and whole


def bootstrap(values: Sequence[float], resamples: int, seed: int) -> dict[str, float | None]:
    """Mean and 95 % percentile bootstrap interval over pictures.

    Args:
        values: one a picture.
        resamples: how often; below 10, or of fewer than 2 values, gives no interval.
        seed: of the draws.
    """
    mean = statistics.fmean(values)
    if resamples < 10 or len(values) < 2:
        return {"mean": mean, "low": None, "high": None}
    from scipy.stats import bootstrap as scipy_bootstrap

    found = scipy_bootstrap(
        (np.asarray(values),),
        np.mean,
        n_resamples=resamples,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return {"mean": mean, "low": float(found.low), "high": float(found.high)}


def _add_sets(
    points: Sequence[dict[str, Any]],
    rows: Sequence[Row],
    wanted: Sequence[str],
    config: EvaluationConfig,
    run: Path,
) -> tuple[dict[str, str], list[str]]:
    """FID and KID into the points; what is left out and why, and warnings."""
    from picsnet.devices import check_device
    from picsnet.errors import ModelError
    from picsnet.evaluation.sets import load_inception

    device = check_device("auto" if config.accelerator in ("auto", "gpu", "cuda") else "cpu")
    try:
        network = load_inception(device)
    except ModelError as error:
        return {name: str(error) for name in wanted}, []
    return add_set_measures(points, rows, wanted, config, run, network, device)


def add_set_measures(
    points: Sequence[dict[str, Any]],
    rows: Sequence[Row],
    wanted: Sequence[str],
    config: EvaluationConfig,
    run: Path,
    network: Any,
    device: str,
) -> tuple[dict[str, str], list[str]]:
    """FID and KID of every point with pictures, into its measures.

    Args:
        points: of the summary; changed.
        rows: of the run.
        wanted: names of measures.
        config: of the run.
        run: its folder.
        network: (B, 3, H, W) uint8 to (B, D) features.
        device: where it is.

    Returns:
        Measures that are left out and why; warnings.
    """
    import torch

    from picsnet.errors import PicsnetError
    from picsnet.evaluation.sets import features_of_set, fid, kid, with_interval

    settings = config.measures
    originals = [run / path for path in dict.fromkeys(row.original for row in rows)]
    references = (
        [item.path for item in expand_inputs(settings.references, IMAGE_SUFFIXES)]
        if settings.references
        else originals
    )
    left_out: dict[str, str] = {}
    lacking: dict[str, dict[str, list[str]]] = {}  # settings by measure and reason
    warnings: list[str] = []
    drawn = [
        point
        for point in points  # but codecs of sketches
        if any(_is_of(row, point) and row.decoded for row in rows)
    ]
    for patch in (None, settings.patch):
        names = [name for name in wanted if name.endswith("_patches") == (patch is not None)]
        if not names:
            continue
        try:
            truth = torch.cat(features_of_set(references, network, device, patch))
        except PicsnetError as error:
            left_out |= dict.fromkeys(names, f"references: {error}")
            continue
        for point in drawn:
            own = [run / row.decoded for row in rows if _is_of(row, point) and row.decoded]
            setting = f"{point['codec']}, {point['setting']}"
            try:
                found = features_of_set(own, network, device, patch)
            except PicsnetError as error:
                for name in names:
                    lacking.setdefault(name, {}).setdefault(str(error), []).append(setting)
                continue
            count = min(len(truth), sum(map(len, found)))
            for name in names:
                if name.startswith("fid") and (why := _too_few_for_fid(count, truth, settings)):
                    lacking.setdefault(name, {}).setdefault(why, []).append(setting)
                    continue
                distance: Callable[..., float] = (
                    fid
                    if name.startswith("fid")
                    else partial(kid, subset=settings.kid_subset, seed=config.seed)
                )
                interval = with_interval(
                    truth, found, distance, settings.set_resamples, config.seed
                )
                point["measures"][name] = asdict(interval)
                warnings += _set_warnings(name, count, truth, settings)
    for name, reasons in lacking.items():
        left_out[name] = "; ".join(
            why if len(some) == len(drawn) > 1 else f"{' and '.join(some)}: {why}"
            for why, some in reasons.items()
        )
    return left_out, list(dict.fromkeys(warnings))


def _is_of(row: Row, point: Mapping[str, Any]) -> bool:
    return (row.codec, row.setting) == (point["codec"], point["setting"])


def _too_few_for_fid(count: int, truth: Any, settings: MeasuresConfig) -> str:
    if count >= settings.smallest_set:
        return ""
    return (
        f"{count} pictures or squares are too few: the covariance of {truth.shape[1]} features has "
        f"no full rank, and FID would say little; measures.smallest_set={count} reports it all the "
        "same, as the paper did on 60 and 100 pictures"
    )


def _set_warnings(name: str, count: int, truth: Any, settings: MeasuresConfig) -> list[str]:
    if name.startswith("fid") and count < truth.shape[1]:
        return [
            f"{name}: of {count} pictures or squares, fewer than its {truth.shape[1]} features; "
            "compare it only with figures of as many"
        ]
    if name.startswith("kid") and count < settings.kid_subset:
        return [f"{name}: subsets of {count} in place of {settings.kid_subset}, there are no more"]
    return []


def markdown(summary: Mapping[str, Any]) -> str:
    """The points as a Markdown table: bytes, rate, means, seconds."""
    names = list(summary["measures"])
    head = ["codec", "setting", "bytes", "bpp"]
    head += [summary["measures"][name]["label"] for name in names] + ["encode, s", "decode, s"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for point in summary["points"]:
        cells = [
            _text_cell(point["codec"]),
            _text_cell(point["setting"]),
            f"{point['bytes']:.0f}",
            f"{point['bpp']['mean']:.4f}",
            *(_cell(point["measures"].get(name)) for name in names),
            f"{point['encode_seconds']:.2f}",
            f"{point['decode_seconds']:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _text_cell(text: str) -> str:
    """A name as its cell shows it: in it, a bar would end the cell and a line feed the table."""
    return printable(text).replace("\\", "\\\\").replace("|", "\\|")


def _cell(value: Mapping[str, float] | None) -> str:
    if value is None:
        return ""
    mean = value["mean"]
    # KID of codecs that matter is in the thousandths.
    digits = 2 if abs(mean) >= 10 else 3 if abs(mean) >= 0.1 else 4
    return f"{mean:.{digits}f}"
