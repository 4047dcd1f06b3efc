"""Miniature models of the real classes, saved in the layouts that users' folders have.

Weights are random but seeded. What they lack in size they have in structure: CLIP's byte-level BPE
with its two halves of single characters, start and end tokens at the end of the vocabulary, an
8x autoencoder, a U-Net with cross-attention and a ControlNet for it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

TEXT = (
    "a the of in on and with at to two photo picture painting man woman dog cat horse bird boat "
    "house tree sky sea river hill street window door car red blue green yellow white black brown "
    "grey pink pale dark light warm cold small large old young standing sitting running left right "
    "above below near front behind high quality low blurry water snow grass stone wood"
)
WORDS = TEXT.split()

WIDTH = 32
"""Of the text tower; the U-Net's cross-attention takes it."""


def save_tokenizer(folder: Path, words: list[str] | None = None) -> Path:
    """A CLIPTokenizer whose vocabulary has CLIP's order: characters, characters at a word's end,
    merges by rank, start, end."""
    from transformers import CLIPTokenizer

    alphabet = _byte_characters()
    vocabulary = alphabet + [c + "</w>" for c in alphabet]
    merges: list[str] = []
    for word in words if words is not None else WORDS:
        symbols = [*word[:-1], word[-1] + "</w>"]
        while len(symbols) > 1:
            merged = symbols[0] + symbols[1]
            if f"{symbols[0]} {symbols[1]}" not in merges:
                merges.append(f"{symbols[0]} {symbols[1]}")
                if merged not in vocabulary:
                    vocabulary.append(merged)
            symbols = [merged, *symbols[2:]]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    vocab_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocab_file.write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    merges_file.write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    tokenizer = CLIPTokenizer(str(vocab_file), str(merges_file), model_max_length=77)
    tokenizer.save_pretrained(folder)
    return folder


def vocabulary_size(folder: Path) -> int:
    """How many tokens the vocabulary of a tokenizer's folder has."""
    return len(json.loads((folder / "vocab.json").read_text()))


def save_clip(folder: Path, seed: int = 0) -> Path:
    """A CLIPModel with both towers, tokenizer and image processor."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    save_tokenizer(folder)
    size = vocabulary_size(folder)
    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config={
            "vocab_size": size,
            "hidden_size": WIDTH,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 77,
            "bos_token_id": size - 2,
            "eos_token_id": size - 1,
            "pad_token_id": size - 1,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
        },
        projection_dim=24,
    )
    CLIPModel(config).eval().save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    return folder


def save_pipeline(folder: Path, seed: int = 0, controlnet: bool = True) -> Path:
    """A Stable Diffusion pipeline's folder, with a ControlNet in it where asked for."""
    from diffusers import (
        AutoencoderKL,
        ControlNetModel,
        PNDMScheduler,
        StableDiffusionControlNetPipeline,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    save_tokenizer(folder / "tokenizer")
    size = vocabulary_size(folder / "tokenizer")
    torch.manual_seed(seed)
    parts = {
        "tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        "text_encoder": CLIPTextModel(
            CLIPTextConfig(
                vocab_size=size,
                hidden_size=WIDTH,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=77,
                bos_token_id=size - 2,
                eos_token_id=size - 1,
                pad_token_id=size - 1,
            )
        ),
        "vae": AutoencoderKL(
            block_out_channels=(16, 16, 16, 16),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=8,
            layers_per_block=1,
            latent_channels=4,
        ),
        "unet": UNet2DConditionModel(
            sample_size=64,
            block_out_channels=(32, 64),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=WIDTH,
            attention_head_dim=8,
            norm_num_groups=8,
            layers_per_block=1,
        ),
        "scheduler": PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            skip_prk_steps=True,
        ),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    if controlnet:
        net = ControlNetModel.from_unet(
            parts["unet"], conditioning_embedding_out_channels=(8, 8, 16, 16)
        )
        # A new ControlNet's outputs are zero: with those, a sketch would change nothing.
        for block in (*net.controlnet_down_blocks, net.controlnet_mid_block):
            torch.nn.init.normal_(block.weight, std=1.0)
        torch.nn.init.normal_(net.controlnet_cond_embedding.conv_out.weight, std=1.0)
        StableDiffusionControlNetPipeline(**parts, controlnet=net).save_pretrained(folder)
    else:
        StableDiffusionPipeline(**parts).save_pretrained(folder)
    return folder


def _byte_characters() -> list[str]:
    """The 256 printable characters that stand for bytes in GPT-2's and CLIP's BPE."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) for b in own] + [chr(256 + i) for i in range(256 - len(own))]
