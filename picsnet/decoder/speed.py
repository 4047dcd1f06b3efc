"""The same picture sooner: what a pipeline is spared, and how it is laid out and compiled.

Nothing here is part of a decoder's identity. What a step of the sampler would compute again from
the same input is remembered always: bit by bit it is the same picture. All else rounds otherwise in
the last bits, and is the user's choice (`DecoderSpeed`) where no gain has been measured.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from picsnet.decoder.spec import DecoderSpeed


def make_faster(pipeline: Any, speed: DecoderSpeed, device: str) -> None:
    """Change a pipeline that is on its device already.

    Where weights are moved to the device and back with each use (accelerate's offloading), all is
    left as it is but for the VAE's batches: the moving takes longest there.

    Args:
        pipeline: Stable Diffusion's, with or without a ControlNet. Parts that another pipeline
            shares and that were changed for it are not changed twice.
        speed: how.
        device: where it is.
    """
    if speed.vae_batch:
        pipeline.vae.disable_slicing()
    else:
        pipeline.vae.enable_slicing()
    if any(hasattr(part, "_hf_hook") for part in _networks(pipeline).values()):
        return
    if speed.vae == "bf16":
        _decode_in_bf16(pipeline.vae)
    if _channels_last(speed, device):
        for name in ("unet", "controlnet", "vae"):
            if (part := _networks(pipeline).get(name)) is not None:
                part.to(memory_format=torch.channels_last)
    if speed.fuse_qkv:
        for name in ("unet", "vae"):
            _fuse(_networks(pipeline)[name])
    sketches = _take_sketches_out(pipeline)
    if speed.compile != "none":
        _compile(pipeline, speed.compile)
    if sketches is not None:
        pipeline.controlnet.register_forward_pre_hook(sketches, with_kwargs=True)


class _Sketches:
    """Gives a ControlNet the features of sketches in their place, made once for all steps.

        sketches -> controlnet_cond_embedding, once -> features, each step

    The pipeline hands the same tensor to each step; another tensor is another batch.
    """

    def __init__(self, embedding: nn.Module) -> None:
        self._embedding = embedding
        self._sketches: Tensor | None = None
        self._features: Tensor | None = None

    def __call__(
        self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        sketches = keywords["controlnet_cond"]
        if sketches is not self._sketches:
            self._sketches, self._features = sketches, self._embedding(sketches)
        return arguments, {**keywords, "controlnet_cond": self._features}


def _take_sketches_out(pipeline: Any) -> _Sketches | None:
    """Separate a ControlNet from the network that embeds its sketches."""
    network = _networks(pipeline).get("controlnet")
    # A network that swaps the channels of its input would swap those of the features.
    if network is None or network.config.controlnet_conditioning_channel_order != "rgb":
        return None
    sketches = _Sketches(network.controlnet_cond_embedding)
    network.controlnet_cond_embedding = nn.Identity()
    return sketches


def _channels_last(speed: DecoderSpeed, device: str) -> bool:
    return speed.layout == "channels_last" or (speed.layout == "auto" and device.startswith("cuda"))


def _fuse(network: Any) -> None:
    if hasattr(network, "fuse_qkv_projections") and not hasattr(network, "_picsnet_fused"):
        network.fuse_qkv_projections()
        network._picsnet_fused = True


def _decode_in_bf16(vae: Any) -> None:
    """The decoder's half alone: what it makes goes on in the pipeline's own type."""
    own = next(vae.encoder.parameters()).dtype
    if next(vae.decoder.parameters()).dtype == torch.bfloat16:
        return
    vae.decoder.to(torch.bfloat16)

    def into(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return (arguments[0].to(torch.bfloat16), *arguments[1:])

    def out(module: nn.Module, arguments: Any, pictures: Tensor) -> Tensor:
        return pictures.to(own)

    vae.decoder.register_forward_pre_hook(into)
    vae.decoder.register_forward_hook(out)


def _compile(pipeline: Any, mode: str) -> None:
    # dynamic=False: one set of kernels for each size and number of candidates, since a decoder
    # draws few of either.
    for name in ("unet", "controlnet"):
        part = getattr(pipeline, name, None)
        if part is not None and not hasattr(part, "_orig_mod"):
            setattr(pipeline, name, torch.compile(part, mode=mode, dynamic=False))
    decoder = pipeline.vae.decoder
    if not hasattr(decoder, "_orig_mod"):
        # Slices and tiles go through it in turn and are put together afterwards: in a CUDA graph
        # each would be written over the last.
        own = {"reduce-overhead": "default", "max-autotune": "max-autotune-no-cudagraphs"}
        pipeline.vae.decoder = torch.compile(decoder, mode=own.get(mode, mode), dynamic=False)


def _networks(pipeline: Any) -> dict[str, Any]:
    parts = {k: v for k, v in pipeline.components.items() if isinstance(v, nn.Module)}
    return {name: getattr(part, "_orig_mod", part) for name, part in parts.items()}
