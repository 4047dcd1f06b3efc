"""Measures of one picture against another, by maintained libraries.

Each measure is a function of two pictures that `load` makes, or a reason why it cannot be had.
Pictures are compared as 8-bit sRGB values, (H, W, 3) uint8, of one size.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picsnet.errors import PicsnetError, in_one_line
from picsnet.evaluation.config import MeasuresConfig
from picsnet.evaluation.edges import edge_agreement, thinned
from picsnet.evaluation.fetched import fetched
from picsnet.metrics import MS_SSIM_SHORTEST_SIDE, colour_error, map_ms_ssim
from picsnet.weights import stamp_weights

Pixels = NDArray[np.uint8]
Compare = Callable[[Pixels, Pixels], float | None]
"""(original, decoded) to a value; None where pictures are too small for it."""

KEPT_SKETCHES = 256

PSNR_OF_EQUALS = 100.0
"""dB for identical pictures, whose PSNR has no bound: a file of numbers cannot hold infinity."""


@dataclass(frozen=True)
class Likeness:
    """A measure that can be taken.

    Attributes:
        name: of `picsnet.evaluation.measures`.
        made_with: what its values depend on besides the pictures: library, weights, options.
        compare: takes it.
    """

    name: str
    made_with: str
    compare: Compare


def load(
    config: MeasuresConfig, scope: str, device: str = "cpu"
) -> tuple[list[Likeness], dict[str, str]]:
    """The measures of a configuration that work on pairs.

    Args:
        config: names and weights.
        scope: "picture" or "sketch"; maps are (H, W) uint8.
        device: where networks run.

    Returns:
        Those that can be had, and for the others why not.
    """
    made, left_out = [], {}
    for name in config.names:
        if name not in _MAKERS[scope]:
            continue
        try:
            made_with, compare = _MAKERS[scope][name](config, device)
        except (PicsnetError, OSError) as error:
            left_out[name] = in_one_line(error)
        else:
            made.append(Likeness(name, made_with, compare))
    return made, left_out


TORCHVISION = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
"""Files of its networks' weights."""


def psnr(original: Pixels, decoded: Pixels) -> float:
    """PSNR of all three channels together, dB, by torchmetrics; 100 for identical pictures."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    value = float(peak_signal_noise_ratio(_planes(decoded), _planes(original), data_range=255.0))
    return min(value, PSNR_OF_EQUALS)


def ms_ssim(original: Pixels, decoded: Pixels) -> float | None:
    """MS-SSIM (Wang et al. 2003), mean of the three channels, by pytorch_msssim.

    That is what CompressAI's tools report. None for pictures with sides under 161 pixels.
    """
    import torch
    from pytorch_msssim import ms_ssim as library

    if min(original.shape[:2]) < MS_SSIM_SHORTEST_SIDE:
        return None
    with torch.inference_mode():
        return float(library(_planes(original), _planes(decoded), data_range=255))


def _planes(picture: Pixels) -> Any:
    import torch

    return torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None]


def _version(package: str) -> str:
    from importlib.metadata import version

    return f"{package} {version(package)}"


def _make_psnr(config: MeasuresConfig, device: str) -> tuple[str, Compare]:
    return _version("torchmetrics"), psnr


def _make_ms_ssim(config: MeasuresConfig, device: str) -> tuple[str, Compare]:
    return _version("pytorch-msssim"), ms_ssim


def _make_colour_error(config: MeasuresConfig, device: str) -> tuple[str, Compare]:
    return "CIELAB 1976, 16x16", colour_error


def _make_lpips(config: MeasuresConfig, device: str) -> tuple[str, Compare]:
    """LPIPS 0.1 (Zhang et al. 2018); values in -1..1 as its authors feed them."""
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    with fetched(TORCHVISION[config.lpips_net], "torchvision"):
        metric = LearnedPerceptualImagePatchSimilarity(
            net_type=config.lpips_net,  # type: ignore[arg-type]
            normalize=True,
        )
    made_with = f"{_version('torchmetrics')}, {config.lpips_net}"
    return made_with, _on_unit_planes(metric.to(device), device)


def _make_dists(config: MeasuresConfig, device: str) -> tuple[str, Compare]:
    """DISTS (Ding et al. 2020)."""
    from torchmetrics.functional.image.dists import DISTSNetwork

    with fetched(TORCHVISION["vgg"], "torchvision"):
        network = DISTSNetwork()  # the metric around it would load these 500 MB for each picture
    return _version("torchmetrics"), _on_unit_planes(network.to(device), device)


def _on_unit_planes(metric: Any, device: str) -> Compare:
    import torch

    metric.eval()

    def compare(original: Pixels, decoded: Pixels) -> float:
        a, b = (_planes(picture).to(device) / 255 for picture in (original, decoded))
        with torch.inference_mode():
            return float(metric(b, a))  # a torchmetrics metric gives the value of this pair alone

    return compare


def _clip_maker(key: str) -> Callable[[MeasuresConfig, str], tuple[str, Compare]]:
    def make(config: MeasuresConfig, device: str) -> tuple[str, Compare]:
        """1 - cosine similarity of the two pictures' CLIP features (paper, section 4)."""
        from picsnet.clip import Clip

        source = getattr(config, key)
        clip = Clip.from_pretrained(source, device, option=f"measures.{key}")

        def compare(original: Pixels, decoded: Pixels) -> float:
            return 1 - clip.image_similarities(original, [decoded])[0]

        # Its release, which may prepare pictures otherwise, and its files where they are here.
        stamp = "; ".join([_version("transformers"), *stamp_weights([source])])
        return f"{source} {hashlib.sha256(stamp.encode()).hexdigest()[:16]}", compare

    return make


def _make_edge_f(config: MeasuresConfig, device: str) -> tuple[str, Compare]:
    from picsnet.sketch import load_sketcher

    sketcher = load_sketcher(config.sketcher, device)
    kept: OrderedDict[bytes, NDArray[np.bool_]] = OrderedDict()  # every point meets all originals

    def of(original: Pixels) -> NDArray[np.bool_]:
        key = hashlib.sha256(original.tobytes()).digest()
        if key not in kept:
            kept[key] = thinned(sketcher(original))
            if len(kept) > KEPT_SKETCHES:
                kept.popitem(last=False)
        return kept[key]

    def compare(original: Pixels, decoded: Pixels) -> float:
        return edge_agreement(of(original), thinned(sketcher(decoded)))

    return sketcher.name, compare


def _make_sketch_ms_ssim(config: MeasuresConfig, device: str) -> tuple[str, Compare]:
    def compare(sketch: Pixels, decoded: Pixels) -> float | None:
        small = min(sketch.shape) < MS_SSIM_SHORTEST_SIDE
        return None if small else map_ms_ssim(sketch, decoded)

    return _version("pytorch-msssim"), compare


def _make_sketch_edge_f(config: MeasuresConfig, device: str) -> tuple[str, Compare]:
    def compare(sketch: Pixels, decoded: Pixels) -> float:
        return edge_agreement(thinned(sketch), thinned(decoded))

    return "thinned, above 0.5, within 2 pixels", compare


_MAKERS: dict[str, dict[str, Callable[[MeasuresConfig, str], tuple[str, Compare]]]] = {
    "picture": {
        "psnr": _make_psnr,
        "ms_ssim": _make_ms_ssim,
        "lpips": _make_lpips,
        "dists": _make_dists,
        "clip_distance": _clip_maker("clip"),
        "clip_distance_2": _clip_maker("clip_2"),
        "colour_error": _make_colour_error,
        "edge_f": _make_edge_f,
    },
    "sketch": {
        "sketch_ms_ssim": _make_sketch_ms_ssim,
        "sketch_edge_f": _make_sketch_edge_f,
    },
}
