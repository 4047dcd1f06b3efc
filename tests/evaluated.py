"""A small run's folder as `picsnet evaluate` leaves it, for what reads such folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from picsnet.evaluation.config import DatasetConfig, EvaluationConfig, MeasuresConfig
from picsnet.evaluation.preparing import Failure
from picsnet.evaluation.rows import Row, save_rows
from picsnet.evaluation.summary import save_summary, summarise
from picsnet.images import save_png

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'"
HOSTILE_PROMPT = HOSTILE + " \u202eback \x1b[31m"
SIZE = (96, 64)


def save_run(
    folder: Path,
    dataset: str = "kodak",
    codec: str = "PICS",
    other: str = "WebP",
    resize: int | None = 512,
    clip: str | None = None,
    shade: int = 30,
) -> Path:
    """Two pictures by three settings of a codec of both kinds, and of another.

    ``shade`` is in the photographs, and ``clip`` what CLIP distances are made with; else there are
    none.
    """
    rows = []
    draw = np.random.default_rng(1)
    for number, picture in enumerate(("kodim01", "more/kodim02")):
        original = _save(folder, f"originals/{picture}.png", (200, 40 + 100 * number, shade))
        for step, lmbda in enumerate((0.5, 1.0, 2.0)):
            at = f"points/{codec}/{lmbda}/{picture}"
            rows.append(
                Row(
                    dataset=dataset,
                    picture=picture,
                    width=SIZE[0],
                    height=SIZE[1],
                    codec=codec,
                    setting=f"lambda {lmbda:g}",
                    lmbda=lmbda,
                    bytes=40 + 20 * step + number,
                    bpp=8 * (40 + 20 * step + number) / (SIZE[0] * SIZE[1]),
                    original=original,
                    file=f"{at}/coded.pics",
                    decoded=_save(folder, f"{at}/decoded.png", (30, 40, 200 - 40 * step)),
                    sketch=_save(folder, f"{at}/sketch.png", (10, 10, 10)),
                    decoded_sketch=_save(folder, f"{at}/decoded_sketch.png", (90, 90, 90)),
                    prompt=HOSTILE_PROMPT,
                    seed=3,
                    encode_seconds=1.0,
                    decode_seconds=0.5,
                    layers={"header": 10, "sketch": 30 + 20 * step + number},
                    measures={
                        "psnr": 20.0 + step + float(draw.random()),
                        "ms_ssim": 0.5 + 0.1 * step + 0.02 * number,
                        "sketch_ms_ssim": 0.9,
                    },
                )
            )
        for step, quality in enumerate((5, 20)):
            at = f"points/{other}/{quality}/{picture}"
            rows.append(
                Row(
                    dataset=dataset,
                    picture=picture,
                    width=SIZE[0],
                    height=SIZE[1],
                    codec=other,
                    setting=f"q{quality}",
                    lmbda=None,
                    bytes=50 + 30 * step,
                    bpp=8 * (50 + 30 * step) / (SIZE[0] * SIZE[1]),
                    original=original,
                    file=f"{at}/coded.webp",
                    decoded=_save(folder, f"{at}/decoded.png", (90, 90, 60)),
                    sketch=None,
                    decoded_sketch=None,
                    prompt=None,
                    seed=None,
                    encode_seconds=0.1,
                    decode_seconds=0.1,
                    measures={
                        "psnr": 21.0 + step,
                        "ms_ssim": 0.55 + 0.1 * step,
                        **({"clip_distance": 0.4 - 0.1 * step} if clip else {}),
                    },
                )
            )
    rows.sort(key=lambda row: (row.codec, row.setting))
    config = EvaluationConfig(
        name=folder.name,
        dataset=DatasetConfig(name=dataset, resize=resize),
        measures=MeasuresConfig(
            names=["psnr", "ms_ssim", *(["clip_distance"] if clip else []), "sketch_ms_ssim"],
            clip=clip or "",
        ),
    )
    failures = [Failure("broken", "", "", "broken.png: not a picture")]
    summary = summarise(config, rows, failures, folder, {"lpips": f"no weights {HOSTILE}"})
    save_rows(rows, folder)
    save_summary(summary, folder)
    return folder


def _save(folder: Path, path: str, colour: tuple[int, int, int]) -> str:
    pixels: NDArray[np.uint8] = np.empty((SIZE[1], SIZE[0], 3), np.uint8)
    pixels[:] = colour
    pixels[::8] = 255 - pixels[::8]
    save_png(pixels, folder / path)
    return path
