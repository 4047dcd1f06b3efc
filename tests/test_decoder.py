"""The diffusion decoder with a miniature pipeline in a real folder's layout."""

from __future__ import annotations

import dataclasses
import gc
import shutil
import types
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from picsnet.cli import main
from picsnet.decoder.diffusion import DiffusionDecoder, Drawing
from picsnet.decoder.identity import signature
from picsnet.decoder.spec import DecoderSettings, DecoderSpec
from picsnet.errors import ConfigError, ModelError, PromptError
from tests.conftest import drawn_map
from tests.miniatures import save_pipeline

FAST = DecoderSettings(steps=3, size=64)


def decoder(folder: Path, settings: DecoderSettings = FAST, **changes: Any) -> DiffusionDecoder:
    spec = DecoderSpec(name="miniature", pipeline=str(folder), settings=settings, **changes)
    return DiffusionDecoder(spec)


@pytest.fixture(scope="module")
def folder(miniature_decoder: Path) -> Path:
    return miniature_decoder


@pytest.fixture(scope="module")
def shared(folder: Path) -> DiffusionDecoder:
    return decoder(folder)


SKETCH = drawn_map(64, 96, 0)


def draw(of: DiffusionDecoder, *drawings: Drawing) -> list[NDArray[np.uint8]]:
    return of.draw(drawings, [(96, 64)])


def test_same_ids_sketch_and_candidate_give_the_same_picture(
    shared: DiffusionDecoder, folder: Path
) -> None:
    ids = shared.tokenize("a photo of a red dog")
    picture = draw(shared, Drawing(ids, SKETCH))[0]
    assert picture.shape == (64, 96, 3) and picture.dtype == np.uint8
    assert picture.std() > 5
    again = draw(decoder(folder), Drawing(ids, SKETCH))[0]
    assert np.array_equal(picture, again)


def test_prompt_sketch_and_candidate_all_matter(shared: DiffusionDecoder) -> None:
    base = Drawing(shared.tokenize("a dog"), SKETCH, 0)
    others = [
        dataclasses.replace(base, ids=shared.tokenize("the blue river and a house")),
        dataclasses.replace(base, sketch=drawn_map(64, 96, 5, lines=30)),
        dataclasses.replace(base, candidate=1),
        dataclasses.replace(base, sketch=None),
    ]
    picture = draw(shared, base)[0]
    for other in others:
        assert not np.array_equal(draw(shared, other)[0], picture), other


def test_ids_give_the_picture_of_their_text(shared: DiffusionDecoder, folder: Path) -> None:
    """Bit by bit what the stock pipeline draws from the text itself."""
    from diffusers import StableDiffusionControlNetPipeline, UniPCMultistepScheduler
    from torchvision.transforms.functional import adjust_sharpness

    pipe = StableDiffusionControlNetPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.scheduler = UniPCMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    sharp = adjust_sharpness(torch.tensor(SKETCH)[None].float() / 255, 2)
    control = ((sharp * 255).clamp(0, 255).floor() / 255).expand(3, -1, -1)[None]
    stock = pipe(
        "a photo of a red dog, high quality",
        image=control,
        negative_prompt=FAST.negative,
        guidance_scale=9.0,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(2),
        output_type="np",
    ).images[0]
    ids = shared.tokenize("a photo of a red dog")
    ours = draw(shared, Drawing(ids, SKETCH, 2))[0]
    assert np.array_equal(ours, np.rint(stock * 255).astype(np.uint8))


def test_a_candidate_does_not_depend_on_its_company(shared: DiffusionDecoder) -> None:
    ids = shared.tokenize("a cat")
    together = draw(shared, *(Drawing(ids, SKETCH, k) for k in range(4)))
    for k, picture in enumerate(together):
        alone = draw(shared, Drawing(ids, SKETCH, k))[0]
        # Sums of another batch may round otherwise; the noise is the same.
        assert np.abs(alone.astype(int) - picture).max() <= 1


def test_batches_are_halved_when_memory_runs_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = decoder(folder)
    ids = mine.tokenize("a cat")
    expected = draw(mine, *(Drawing(ids, SKETCH, k) for k in range(5)))
    pipeline = mine._pipeline(control=True)
    seen: list[int] = []
    whole = type(pipeline).__call__

    def cramped(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(kwargs["latents"]))
        if seen[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(type(pipeline), "__call__", cramped)
    pictures = draw(mine, *(Drawing(ids, SKETCH, k) for k in range(5)))
    assert seen == [5, 3, 2, 2, 1]
    for picture, other in zip(pictures, expected, strict=True):
        assert np.abs(picture.astype(int) - other).max() <= 1
    # What was learnt is kept.
    draw(mine, *(Drawing(ids, SKETCH, k) for k in range(3)))
    assert seen[5:] == [2, 1]


def test_not_even_one_picture_fits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = decoder(folder)
    pipeline = mine._pipeline(control=False)

    def full(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried ...")

    monkeypatch.setattr(type(pipeline), "__call__", full)
    with pytest.raises(ModelError, match="not enough memory on cpu"):
        draw(mine, Drawing([1], None), Drawing([2], None))


def test_other_errors_are_not_taken_for_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = decoder(folder)
    pipeline = mine._pipeline(control=False)

    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(type(pipeline), "__call__", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        draw(mine, Drawing([1], None))


def test_a_text_that_is_cut_is_no_reason_to_warn(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert len(decoder(folder).tokenize("dog " * 200)) < 75
    assert capfd.readouterr().err == ""


def test_prompts_that_do_not_fit_are_refused(shared: DiffusionDecoder) -> None:
    with pytest.raises(PromptError, match="at most"):
        draw(shared, Drawing([5] * 76, None))
    with pytest.raises(PromptError, match="ids below"):
        draw(shared, Drawing([99999], None))
    assert len(shared.tokenize("dog " * 200)) == shared.max_tokens < 75
    draw(shared, Drawing(shared.tokenize("dog " * 200), None))


def test_a_suffix_that_leaves_no_room_is_refused(folder: Path) -> None:
    """Else a file would be written that nobody can draw from."""
    full = decoder(folder, dataclasses.replace(FAST, suffix=" ".join(["dog"] * 74)))
    assert full.tokenize("a cat") == [] and full.max_tokens == 0
    over = decoder(folder, dataclasses.replace(FAST, suffix=" ".join(["dog"] * 75)))
    with pytest.raises(ConfigError, match=r"suffix takes 76 tokens .* room for 75; shorten it"):
        over.tokenize("")


def test_what_is_no_number_is_not_drawn_black(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = decoder(folder)
    pipeline = mine._pipeline(control=False)
    images = np.zeros((1, 64, 96, 3), np.float32)
    images[0, 5, 5] = np.nan

    def overflown(self: Any, *args: Any, **kwargs: Any) -> Any:
        return types.SimpleNamespace(images=images)

    monkeypatch.setattr(type(pipeline), "__call__", overflown)
    with pytest.raises(ModelError, match=r"miniature: drew what is no number \(NaN\) on cpu"):
        draw(mine, Drawing([400], None))


def test_a_callers_autocast_and_default_type_change_no_picture(folder: Path) -> None:
    # UniPC's own sums fail where another type is the default.
    mine, other = (decoder(folder, dataclasses.replace(FAST, scheduler="ddim")) for _ in range(2))
    drawing = Drawing(mine.tokenize("a cat"), SKETCH)
    expected = draw(other, drawing)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert np.array_equal(draw(mine, drawing)[0], expected)
    assert np.array_equal(draw(mine, drawing)[0], expected)  # nothing of it was kept
    kind = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        assert np.array_equal(draw(mine, drawing)[0], expected)
    finally:
        torch.set_default_dtype(kind)


def test_a_decoder_that_nobody_needs_is_let_go(folder: Path) -> None:
    mine = decoder(folder)
    assert mine.identity(control=True) == mine.identity(control=True)
    draw(mine, Drawing([400], SKETCH))
    gone = weakref.ref(mine._any_pipeline().unet)
    del mine
    gc.collect()
    assert gone() is None


def test_a_prompt_that_is_no_utf8_is_told_in_a_line(
    folder: Path, shared: DiffusionDecoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = "bad \udcff prompt"
    with pytest.raises(PromptError, match="is not UTF-8 text"):
        shared.tokenize(bad)
    for key, words in {
        "suffix": "suffix .*udcff prompt': is not",
        "negative": "negative prompt 'bad .*: is not",
    }.items():
        mine = decoder(folder, dataclasses.replace(FAST, **{key: bad}))
        with pytest.raises(PromptError, match=words):
            draw(mine, Drawing([], None))
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    arguments = ["--mode", "pic", "--decoder", str(folder), "--candidates", "1", "--device", "cpu"]
    assert main(["encode", str(tmp_path / "photo.png"), *arguments, "--prompt", bad]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("picsnet: error: prompt 'bad ")


@pytest.mark.parametrize(
    "scheduler", ["ddim", "dpmsolver", "euler", "euler-trailing", "lcm", "own"]
)
def test_schedulers(scheduler: str, folder: Path) -> None:
    settings = dataclasses.replace(FAST, scheduler=scheduler, steps=2, guidance=0.0)
    mine = decoder(folder, settings)
    pictures = [draw(mine, Drawing([400], SKETCH))[0] for _ in range(2)]
    assert np.array_equal(*pictures)
    assert pictures[0].std() > 1


# Passes.


PASSES = [(96, 64), (192, 128)]


def test_a_second_pass_redraws_the_first_one_larger(shared: DiffusionDecoder, folder: Path) -> None:
    first = draw(shared, Drawing([400], SKETCH))[0]
    enlarged = np.asarray(Image.fromarray(first).resize((192, 128), Image.Resampling.BICUBIC))
    none, some, all_steps = (
        decoder(folder, dataclasses.replace(FAST, redraw=redraw)).draw(
            [Drawing([400], SKETCH)], PASSES
        )[0]
        for redraw in (0.0, 0.34, 1.0)
    )
    assert np.array_equal(none, enlarged)
    assert some.shape == all_steps.shape == (128, 192, 3)
    away = [np.abs(picture.astype(float) - enlarged).mean() for picture in (some, all_steps)]
    assert 0 < away[0] < away[1]


def test_passes_repeat_and_hang_on_all_that_is_sent(shared: DiffusionDecoder, folder: Path) -> None:
    base = Drawing(shared.tokenize("a dog"), SKETCH, 0)
    picture = shared.draw([base], PASSES)[0]
    assert np.array_equal(decoder(folder).draw([base], PASSES)[0], picture)
    others = [
        dataclasses.replace(base, ids=shared.tokenize("the blue river and a house")),
        dataclasses.replace(base, sketch=drawn_map(64, 96, 5, lines=30)),
        dataclasses.replace(base, candidate=1),
        dataclasses.replace(base, sketch=None),
    ]
    for other in others:
        assert not np.array_equal(shared.draw([other], PASSES)[0], picture), other
    together = shared.draw([base, others[0]], PASSES)
    assert np.abs(together[0].astype(int) - picture).max() <= 1


def test_sizes_of_the_passes_follow_the_settings(folder: Path) -> None:
    mine = decoder(folder, DecoderSettings(size=128, first_size=64, last_size=256))
    assert mine.sizes(768, 512) == [(96, 64), (192, 128), (384, 256)]
    assert mine.sizes(768, 512, whole=False) == [(96, 64), (192, 128)]
    assert mine.sizes(240, 250) == [(64, 64), (128, 136)]  # the original itself is no larger


# Which decoder a file was written for.


def test_identity_is_that_of_settings_and_weights(folder: Path, tmp_path: Path) -> None:
    base = decoder(folder)
    identities = {
        "pics": base.identity(control=True),
        "pic": base.identity(control=False),
        "steps": decoder(folder, dataclasses.replace(FAST, steps=4)).identity(control=True),
        "suffix": decoder(folder, dataclasses.replace(FAST, suffix="")).identity(control=True),
        "passes": decoder(folder, dataclasses.replace(FAST, last_size=128)).identity(control=True),
        "redraw": decoder(folder, dataclasses.replace(FAST, last_size=128, redraw=0.9)).identity(
            control=True
        ),
        "weights": decoder(save_pipeline(tmp_path / "b", seed=1)).identity(control=True),
    }
    assert all(0 <= identity < 4096 for identity in identities.values())
    assert len(set(identities.values())) == len(identities)
    assert decoder(folder).identity(control=True) == identities["pics"]
    # What is of no consequence is no part of it.
    idle = decoder(folder, dataclasses.replace(FAST, redraw=0.9))
    assert idle.identity(control=True) == identities["pics"]
    typed = decoder(folder, dataclasses.replace(FAST, guidance=9, control_scale=1))
    assert typed.identity(control=True) == identities["pics"]  # as a Python caller may write them


def test_identity_survives_renaming_resaving_and_half_precision(
    folder: Path, tmp_path: Path
) -> None:
    from diffusers import StableDiffusionControlNetPipeline

    expected = decoder(folder).identity(control=True)
    shutil.copytree(folder, tmp_path / "copy")
    assert decoder(tmp_path / "copy").identity(control=True) == expected
    pipe = StableDiffusionControlNetPipeline.from_pretrained(folder, dtype=torch.float16)
    pipe.save_pretrained(tmp_path / "half", variant="fp16")
    # transformers 5 writes no vocab.json.
    assert not (tmp_path / "half" / "tokenizer" / "vocab.json").exists()
    half = decoder(tmp_path / "half", variant="fp16")
    assert half.identity(control=True) == expected


def test_a_bfloat16_copy_is_another_decoder(tmp_path: Path) -> None:
    """It keeps eight significant bits, float16 eleven; docs/format.md says so."""
    values = torch.randn(64, generator=torch.Generator().manual_seed(0)).half()
    signatures = []
    for kind in (torch.float16, torch.float32, torch.bfloat16):
        save_file({"norm.bias": values.to(kind)}, tmp_path / f"{kind}.safetensors")
        signatures.append(signature([tmp_path / f"{kind}.safetensors"]))
    half, single, brain = signatures
    assert half == single != brain


def test_a_controlnet_of_its_own_as_a_pickle(folder: Path, tmp_path: Path) -> None:
    """As thibaud's repository has it: one .bin file."""
    own = tmp_path / "control"
    own.mkdir()
    shutil.copy(folder / "controlnet" / "config.json", own)
    state = load_file(folder / "controlnet" / "diffusion_pytorch_model.safetensors")
    torch.save(state, own / "diffusion_pytorch_model.bin")
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("controlnet"))
    mine = decoder(bare, controlnet=str(own), controlnet_weights="diffusion_pytorch_model.bin")
    whole = decoder(folder)
    assert mine.identity(control=True) == whole.identity(control=True)
    drawing = Drawing([400, 401], SKETCH)
    assert np.array_equal(draw(mine, drawing)[0], draw(whole, drawing)[0])


# What is missing or broken is named.


def test_a_pipeline_without_controlnet_draws_from_prompts_only(tmp_path: Path) -> None:
    mine = decoder(save_pipeline(tmp_path / "sd", controlnet=False))
    assert draw(mine, Drawing([400], None))[0].shape == (64, 96, 3)
    with pytest.raises(ModelError, match=r"no ControlNet.*--mode pic"):
        draw(mine, Drawing([400], SKETCH))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: shutil.rmtree(f / "unet"), "unet"),
        (lambda f: (f / "model_index.json").unlink(), "no model_index.json"),
        (lambda f: shutil.rmtree(f / "tokenizer"), "tokenizer.*no vocabulary"),
        (lambda f: (f / "tokenizer" / "tokenizer_config.json").unlink(), "model_max_length"),
        (lambda f: _truncate(f / "vae" / "diffusion_pytorch_model.safetensors"), "vae"),
        (lambda f: (f / "scheduler" / "scheduler_config.json").write_text("{"), "scheduler"),
        (lambda f: (f / "unet" / "config.json").write_text("{}"), "unet"),
    ],
)
def test_a_broken_folder_is_named_in_one_line(
    damage: Any, words: str, folder: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    damage(broken)
    with pytest.raises(ModelError, match=words) as caught:
        mine = decoder(broken)
        mine.identity(control=True)
        draw(mine, Drawing([400], SKETCH))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae", "controlnet"])
def test_lost_weights_are_not_made_up(
    part: str, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A matrix has no part in the identity: nobody would be told of what chance puts there."""
    shutil.copytree(folder, tmp_path / "broken")
    (file,) = (tmp_path / "broken" / part).glob("*.safetensors")
    weights = load_file(file)
    del weights[next(name for name in weights if weights[name].dim() > 1)]
    save_file(weights, file, metadata={"format": "pt"})
    mine = decoder(tmp_path / "broken")
    assert mine.identity(control=True) == decoder(folder).identity(control=True)
    with pytest.raises(ModelError, match=rf"broken/{part}: cannot be loaded \(1 weights of "):
        draw(mine, Drawing([400], SKETCH))
    assert capfd.readouterr().err == ""


def test_weights_under_their_older_names_are_all_there(folder: Path, tmp_path: Path) -> None:
    """As Stable Diffusion's own folders have them."""
    older = tmp_path / "older"
    shutil.copytree(folder, older)
    (text,), (vae,) = ((older / part).glob("*.safetensors") for part in ("text_encoder", "vae"))
    renamed = {f"text_model.{name}": value for name, value in load_file(text).items()}
    renamed["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(renamed, text, metadata={"format": "pt"})
    renamed = {}
    for name, value in load_file(vae).items():
        for new, old in {"to_q": "query", "to_k": "key", "to_v": "value"}.items():
            name = name.replace(f".{new}.", f".{old}.")
        renamed[name.replace(".to_out.0.", ".proj_attn.")] = value
    assert any(".proj_attn." in name for name in renamed)
    save_file(renamed, vae, metadata={"format": "pt"})
    drawing = Drawing([400], SKETCH)
    assert np.array_equal(draw(decoder(older), drawing)[0], draw(decoder(folder), drawing)[0])
