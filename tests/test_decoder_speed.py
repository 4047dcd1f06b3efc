"""Drawing faster: the same pictures, whatever is switched on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from picsnet.decoder.diffusion import DiffusionDecoder, Drawing
from picsnet.decoder.spec import DecoderSettings, DecoderSpec, DecoderSpeed, load_spec
from picsnet.errors import ConfigError
from tests.conftest import drawn_map

SETTINGS = DecoderSettings(steps=3, size=64)
SKETCHES = [drawn_map(64, 96, seed) for seed in (0, 5)]
DRAWINGS = [Drawing([400, 401], SKETCHES[0], 0), Drawing([420], SKETCHES[1], 1)]
CHOICES = {
    "channels_last": DecoderSpeed(layout="channels_last"),
    "fuse_qkv": DecoderSpeed(fuse_qkv=True),
    "vae_bf16": DecoderSpeed(vae="bf16"),
    "vae_batch": DecoderSpeed(vae_batch=True),
    "together": DecoderSpeed("channels_last", True, "bf16", True),
}


def decoder(folder: Path, speed: DecoderSpeed, **settings: Any) -> DiffusionDecoder:
    own = dataclasses.replace(SETTINGS, **settings)
    return DiffusionDecoder(DecoderSpec("miniature", str(folder), settings=own, speed=speed))


def apart(pictures: list[NDArray[np.uint8]], others: list[NDArray[np.uint8]]) -> float:
    """Mean absolute difference, levels of 255."""
    return float(
        np.mean([np.abs(a.astype(int) - b) for a, b in zip(pictures, others, strict=True)])
    )


@pytest.fixture(scope="module")
def plain(miniature_decoder: Path) -> list[NDArray[np.uint8]]:
    return decoder(miniature_decoder, DecoderSpeed()).draw(DRAWINGS, [(96, 64)])


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_pictures_stay_within_a_level(
    name: str, plain: list[NDArray[np.uint8]], miniature_decoder: Path
) -> None:
    fast = decoder(miniature_decoder, CHOICES[name])
    pictures = fast.draw(DRAWINGS, [(96, 64)])
    assert apart(pictures, plain) <= 1
    assert apart(pictures, plain[::-1]) > 5  # the measure sees a difference where there is one
    # It was switched on.
    pipeline = fast._pipeline(control=True)
    weight = pipeline.unet.conv_in.weight
    channels_last = weight.is_contiguous(memory_format=torch.channels_last)
    attention = pipeline.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1
    assert channels_last == (fast.spec.speed.layout == "channels_last")
    assert attention.fused_projections == fast.spec.speed.fuse_qkv
    assert (pipeline.vae.decoder.conv_in.weight.dtype == torch.bfloat16) == (
        fast.spec.speed.vae == "bf16"
    )
    assert pipeline.vae.use_slicing != fast.spec.speed.vae_batch


def test_compiled_networks_draw_the_same(
    plain: list[NDArray[np.uint8]], miniature_decoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced and run as graphs; what a compiler makes of the graphs takes minutes."""
    compile_, modes, graphs = torch.compile, [], []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    def traced(module: Any, mode: str, dynamic: bool) -> Any:
        modes.append(mode)
        return compile_(module, backend=backend, dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", traced)
    fast = decoder(miniature_decoder, DecoderSpeed(compile="reduce-overhead"))
    assert apart(fast.draw(DRAWINGS, [(96, 64)]), plain) <= 0.1
    # U-Net, ControlNet, and the VAE's decoder, which no CUDA graph may hold.
    expected = ["reduce-overhead", "reduce-overhead", "default"]
    assert modes == expected
    traced_once = len(graphs)
    assert traced_once >= 3
    fast.draw(DRAWINGS[::-1], [(96, 64)])
    assert len(graphs) == traced_once  # nothing is compiled again for other pictures
    # The pipeline without sketches shares what was compiled.
    fast.load(control=False)
    assert fast._pipeline(False).unet is fast._pipeline(True).unet
    assert modes == expected


def test_sketches_and_prompts_are_looked_at_once(miniature_decoder: Path) -> None:
    mine = decoder(miniature_decoder, DecoderSpeed(), steps=4)
    mine.load(control=True)
    pipeline = mine._pipeline(control=True)
    hooks = list(pipeline.controlnet._forward_pre_hooks.values())
    seen: dict[str, Any] = {"sketches": 0, "prompts": [], "controlnet": 0}
    embedding = hooks[0]._embedding
    embedding.register_forward_hook(lambda *_: seen.update(sketches=seen["sketches"] + 1))
    pipeline.controlnet.register_forward_hook(
        lambda *_: seen.update(controlnet=seen["controlnet"] + 1)
    )
    pipeline.text_encoder.register_forward_hook(lambda m, a, o: seen["prompts"].append(len(o[0])))
    same = [dataclasses.replace(DRAWINGS[0], candidate=k) for k in range(3)]
    first = mine.draw(same, [(96, 64)])
    assert seen == {"sketches": 1, "controlnet": 4, "prompts": [1, 1]}  # and the negative one
    # Others are not taken for those; and those again give the same pictures.
    other = mine.draw([dataclasses.replace(DRAWINGS[0], sketch=SKETCHES[1])], [(96, 64)])
    fresh = decoder(miniature_decoder, DecoderSpeed(), steps=4)
    assert np.array_equal(
        other[0], fresh.draw([dataclasses.replace(DRAWINGS[0], sketch=SKETCHES[1])], [(96, 64)])[0]
    )
    assert not np.array_equal(other[0], first[0])
    assert seen == {"sketches": 2, "controlnet": 8, "prompts": [1, 1, 1]}
    assert np.array_equal(mine.draw(same, [(96, 64)])[2], first[2])


def test_speed_is_no_part_of_the_identity(miniature_decoder: Path) -> None:
    identities = {
        decoder(miniature_decoder, speed).identity(control=True)
        for speed in (DecoderSpeed(), *CHOICES.values(), DecoderSpeed(compile="max-autotune"))
    }
    assert len(identities) == 1


def test_speed_from_a_file_and_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "fast.yaml"
    file.write_text("pipeline: a/b\nspeed: {compile: reduce-overhead, vae_batch: true}\n")
    assert load_spec(str(file)).speed == DecoderSpeed(compile="reduce-overhead", vae_batch=True)
    spec = load_spec(str(file), ["steps=7", "compile=none", "fuse_qkv=true"])
    assert spec.settings.steps == 7
    assert spec.speed == DecoderSpeed(vae_batch=True, fuse_qkv=True)
    assert load_spec("sd21-hed").speed == DecoderSpeed()
    for override, words in (
        ("compile=fast", "compile 'fast'; one of none"),
        ("fuse_qkv=3", "fuse_qkv is 3; it must be of type bool"),
        ("steps=true", "steps is True; it must be of type int"),
    ):
        with pytest.raises(ConfigError, match=f"--decoder-set: {words}"):
            load_spec("sd21-hed", [override])
    file.write_text("pipeline: a/b\nspeed: {layuot: auto}\n")
    with pytest.raises(ConfigError, match=r"unknown key layuot \(nearest: layout\)"):
        load_spec(str(file))
