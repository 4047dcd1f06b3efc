"""The mini decoder's networks by their configurations: diffusers' and transformers' own classes."""

from __future__ import annotations

from typing import Any

from picsnet.config import CLIPModelConfig, DiffusionModelConfig, VAEModelConfig
from picsnet.mini.blocks import encoder_options
from picsnet.mini.tokenizer import LENGTH

IMAGE_MEAN, IMAGE_STD = 0.5, 0.5
"""Of CLIP's pictures in 0..1, all channels alike."""

LATENT_SIDE = 32
"""Of the latents at the trained size, 256 pixels."""


def make_vae(model: VAEModelConfig) -> Any:
    """An AutoencoderTiny whose encoder is linear."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(
        **encoder_options(model.encoder_width, model.latent_channels),
        decoder_block_out_channels=[model.width] * 4,
        num_decoder_blocks=list(model.blocks),
    )


def make_clip(model: CLIPModelConfig, vocabulary: int) -> Any:
    """A CLIPModel; start and end are the last two tokens of the vocabulary."""
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": vocabulary,
        "hidden_size": model.text_width,
        "intermediate_size": 4 * model.text_width,
        "num_hidden_layers": model.text_layers,
        "num_attention_heads": model.text_width // 32,
        "max_position_embeddings": LENGTH,
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
        "pad_token_id": vocabulary - 1,
    }
    vision = {
        "hidden_size": model.image_width,
        "intermediate_size": 4 * model.image_width,
        "num_hidden_layers": model.image_layers,
        "num_attention_heads": model.image_width // 32,
        "image_size": model.image_size,
        "patch_size": model.patch_size,
    }
    return CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=model.projection)
    )


def make_diffusion(
    model: DiffusionModelConfig, latent_channels: int, text_width: int
) -> tuple[Any, Any]:
    """A UNet2DConditionModel and a ControlNetModel for it."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    plain = len(model.channels) - 1
    unet = UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=tuple(model.channels),
        down_block_types=(*["DownBlock2D"] * plain, "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", *["UpBlock2D"] * plain),
        layers_per_block=model.layers,
        cross_attention_dim=text_width,
        attention_head_dim=model.heads,  # their number: the name is diffusers' old mistake
        norm_num_groups=model.groups,
    )
    controlnet = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=tuple(model.sketch_channels)
    )
    return unet, controlnet


def make_scheduler() -> Any:
    """UniPC on flow matching's noise levels: few steps, the first of them at pure noise."""
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=FLOW_SHIFT
    )


FLOW_SHIFT = 3.0
"""Of the sampler's noise levels towards noise, where places and colours are decided."""
