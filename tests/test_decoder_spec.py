"""Decoders by name, file and folder, and the size at which they draw."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picsnet.decoder.geometry import pass_sizes, working_size
from picsnet.decoder.spec import DEFAULT_DECODER, PRESETS, load_spec
from picsnet.errors import ConfigError


def test_the_papers_pair_and_settings_are_the_default() -> None:
    spec = load_spec(DEFAULT_DECODER)
    assert spec.controlnet == "thibaud/controlnet-sd21-hed-diffusers"
    assert (spec.settings.scheduler, spec.settings.steps, spec.settings.guidance) == (
        "unipc",
        25,
        9,
    )
    assert spec.settings.suffix == "high quality"
    assert "bad art" in spec.settings.negative


def test_every_preset_says_what_it_is() -> None:
    for name, spec in PRESETS.items():
        assert spec.name == name
        assert spec.controlnet and spec.clip and spec.gigabytes
        assert spec.licence != "unknown"
        assert spec.revision and len(spec.revision) == 40
    few = [spec for spec in PRESETS.values() if spec.settings.steps <= 4]
    assert {spec.settings.steps for spec in few} == {1, 4}


def test_settings_can_be_overridden() -> None:
    spec = load_spec("sd15-hed", ["steps=10", "guidance=7", "suffix="])
    assert (spec.settings.steps, spec.settings.guidance, spec.settings.suffix) == (10, 7.0, "")
    assert isinstance(spec.settings.guidance, float)


def test_a_yaml_file_names_parts_beside_it(tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    path = tmp_path / "mine.yaml"
    path.write_text("pipeline: owner/name\ncontrolnet: control\nsettings: {size: 768, steps: 4}\n")
    spec = load_spec(str(path))
    assert (spec.name, spec.pipeline) == ("mine", "owner/name")
    assert spec.controlnet == str(tmp_path / "control")
    assert (spec.settings.size, spec.settings.steps) == (768, 4)


def test_a_folder_can_bring_its_settings(tmp_path: Path) -> None:
    assert load_spec(str(tmp_path)).settings.size == 512
    (tmp_path / "picsnet.yaml").write_text("settings:\n  size: 256\n")
    spec = load_spec(str(tmp_path))
    assert (spec.pipeline, spec.settings.size) == (str(tmp_path), 256)


def test_a_hub_id_may_name_its_revision() -> None:
    spec = load_spec("owner/name@abc")
    assert (spec.pipeline, spec.revision) == ("owner/name", "abc")


@pytest.mark.parametrize(
    ("source", "overrides", "words"),
    [
        ("sd21-hd", [], "did you mean sd21-hed"),
        ("nothing", [], "names: "),
        ("sd21-hed", ["stepz=3"], "nearest: steps"),
        ("sd21-hed", ["steps"], "key=value"),
        ("sd21-hed", ["steps=many"], "of type int"),
        ("sd21-hed", ["steps=0"], "1 to 1000"),
        ("sd21-hed", ["size=500", "guidance=-1"], "multiple of 64"),
        ("sd21-hed", ["size=500", "guidance=-1"], "guidance"),
        ("sd21-hed", ["first_size=200"], r"first_size is 200; .* size \(512\) halved"),
        ("sd21-hed", ["size=64", "first_size=32"], "first_size"),
        ("sd21-hed", ["last_size=768"], r"last_size is 768; .* size \(512\) doubled"),
        ("sd21-hed", ["redraw=1.5"], "redraw"),
        ("sd21-hed", ["scheduler=fast"], "one of unipc"),
        ("sd21-hed", ["steps=true"], "of type int"),
        ("sd21-hed", ["steps=["], "not valid YAML"),
        ("sd21-hed", ['suffix="good \\ud800"'], "not valid YAML"),
        ("sd21-hed", ["suffix=good \udcff"], "not valid YAML"),
        ("sd21-hed", ["negative=${a"], "not valid YAML"),
    ],
)
def test_what_cannot_work_is_named(source: str, overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load_spec(source, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n- b\n", "mapping"),
        ("pipeline: [", "not valid YAML"),
        ("controlnet: x\n", "pipeline is missing"),
        ("pipeline: a/b\ncontrol: c/d\n", "nearest: controlnet"),
        ("pipeline: a/b\nsettings: {step: 3}\n", "nearest: steps"),
        ("pipeline: a/b\nsettings: 3\n", "settings is 3; it must hold a mapping"),
        ("pipeline: a/b\nspeed: fast\n", "speed is 'fast'; it must hold a mapping"),
        ('pipeline: a/b\nsettings: {negative: "\\uDCFF"}\n', "not valid YAML"),
        ("pipeline: a/b\njudge: taste\n", "one of clip, colour"),
        ("pipeline: a/b\ncandidates: 40\n", "candidates is 40; it must be 1 to 32"),
        ("pipeline: a/b\ncandidates: many\n", "candidates"),
    ],
)
def test_a_broken_yaml_file_is_named(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_spec(str(path))
    assert "bad.yaml" in str(caught.value)


def test_working_sizes() -> None:
    assert working_size(768, 512, 512) == (768, 512)
    assert working_size(512, 768, 512) == (512, 768)
    assert working_size(1000, 1000, 256) == (256, 256)
    assert working_size(2040, 1356, 512) == (768, 512)  # 770.3 is nearer to 768 than to 776
    assert working_size(16, 16, 512) == (512, 512)
    assert working_size(8192, 16, 512) == (2048, 64)
    assert working_size(1000, 100, 512) == (2048, 208)  # 204.8


@given(st.integers(16, 8192), st.integers(16, 8192), st.integers(1, 16).map(lambda k: 64 * k))
def test_working_sizes_fit_the_decoder(width: int, height: int, size: int) -> None:
    w, h = working_size(width, height, size)
    assert w % 8 == h % 8 == 0
    assert 64 <= min(w, h) <= size <= max(w, h) <= 4 * size
    assert (w <= h) == (width <= height) or w == h
    if max(width, height) <= 3.9 * min(width, height):
        assert min(w, h) == size
        assert abs(max(w, h) - size * max(width, height) / min(width, height)) <= 4


def test_sizes_of_passes() -> None:
    assert pass_sizes(768, 512, first=0, size=256, last=0) == [(384, 256)]
    assert pass_sizes(768, 512, first=128, size=256, last=512) == [
        (192, 128),
        (384, 256),
        (768, 512),
    ]
    # A pass is never larger than the original, but for the working size.
    assert pass_sizes(600, 511, first=0, size=256, last=512) == [(304, 256)]
    assert pass_sizes(16, 16, first=128, size=256, last=512) == [(128, 128), (256, 256)]
    assert pass_sizes(9000, 6000, first=0, size=256, last=1024)[-1] == (1536, 1024)


@given(st.integers(16, 8192), st.integers(16, 8192), st.integers(0, 2), st.integers(0, 2))
def test_passes_end_at_the_working_size_or_go_on_from_it(
    width: int, height: int, before: int, after: int
) -> None:
    size = 256
    sizes = pass_sizes(width, height, first=size >> before, size=size, last=size << after)
    assert sizes[before] == working_size(width, height, size)
    assert before < len(sizes) <= before + 1 + after
    assert all(w % 8 == 0 and h % 8 == 0 for w, h in sizes)
    areas = [w * h for w, h in sizes]
    assert areas == sorted(areas)
