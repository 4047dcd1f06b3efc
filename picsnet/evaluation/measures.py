"""What is measured, in words: names, units, directions, and the weights that each needs."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Measure:
    """A measure of likeness.

    Attributes:
        name: column in ``rows.csv``, key in ``summary.json``.
        label: for people.
        unit: or empty.
        higher_is_better: else lower is.
        scope: "picture" (decoded against original), "sketch" (decoded sketch against the one that
            was coded), or "set" (all decoded pictures against a set of references).
        weights: that it needs, in words; empty if none.
    """

    name: str
    label: str
    unit: str
    higher_is_better: bool
    scope: str
    weights: str


_ALL = (
    Measure("psnr", "PSNR", "dB", True, "picture", ""),
    Measure("ms_ssim", "MS-SSIM", "", True, "picture", ""),
    Measure("lpips", "LPIPS (AlexNet)", "", False, "picture", "torchvision's AlexNet"),
    Measure("dists", "DISTS", "", False, "picture", "torchvision's VGG16"),
    Measure("clip_distance", "CLIP distance", "", False, "picture", "a CLIP model"),
    Measure("clip_distance_2", "CLIP distance, 2nd backbone", "", False, "picture", "another CLIP"),
    Measure("colour_error", "colour error", "ΔE", False, "picture", ""),
    Measure("edge_f", "edge F of the picture's sketch", "", True, "picture", ""),
    Measure("sketch_ms_ssim", "MS-SSIM of the sketch", "", True, "sketch", ""),
    Measure("sketch_edge_f", "edge F of the sketch", "", True, "sketch", ""),
    Measure("fid", "FID", "", False, "set", "torch-fidelity's Inception"),
    Measure("kid", "KID", "", False, "set", "torch-fidelity's Inception"),
    Measure("fid_patches", "FID, patches", "", False, "set", "torch-fidelity's Inception"),
    Measure("kid_patches", "KID, patches", "", False, "set", "torch-fidelity's Inception"),
)

MEASURES: dict[str, Measure] = {measure.name: measure for measure in _ALL}
"""By name, in the order in which they are shown."""

OPTIONS: dict[str, tuple[str, ...]] = {
    "lpips": ("lpips_net",),
    "clip_distance": ("clip",),
    "clip_distance_2": ("clip_2",),
    "edge_f": ("sketcher",),
    "fid": ("references",),
    "kid": ("references", "kid_subset"),
    "fid_patches": ("references", "patch"),
    "kid_patches": ("references", "patch", "kid_subset"),
}
"""Of `picsnet.evaluation.config.MeasuresConfig`: those that values of a measure depend on."""

_LPIPS_NETWORKS = {"alex": "AlexNet", "vgg": "VGG16", "squeeze": "SqueezeNet"}


def with_lpips_network(measure: Measure, network: str | None) -> Measure:
    """A measure in words that say which network LPIPS is of; the others as they are.

    Args:
        measure: any.
        network: ``measures.lpips_net``, or None where it is not known.
    """
    if measure.name != "lpips":
        return measure
    if network is None:
        return replace(measure, label="LPIPS")
    name = _LPIPS_NETWORKS[network]
    return replace(measure, label=f"LPIPS ({name})", weights=f"torchvision's {name}")
