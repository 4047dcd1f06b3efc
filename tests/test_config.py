"""Configurations: every shipped one loads, every mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from picsnet.checkpoints import load_model
from picsnet.config import EdgeRunConfig, NTCRunConfig, PhotoNTCRunConfig, load_config, to_dict
from picsnet.errors import ConfigError
from picsnet.ntc import build
from tests.conftest import REPOSITORY

SHIPPED = sorted((REPOSITORY / "configs").glob("*.yaml"))
DATA = "data.maps=[somewhere]"


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize("path", [p for p in SHIPPED if "lambda" in p.name], ids=lambda p: p.stem)
def test_every_sketch_configuration_loads_and_builds(path: Path) -> None:
    config = load_config(str(path), [DATA])
    assert isinstance(config, NTCRunConfig)
    assert f"lambda{config.lmbda}" in path.stem == config.name
    if config.model.architecture != "cheng2020-attn-sketch":
        build(config.model.architecture, config.model.options)


def test_the_range_configuration_trains_the_network_that_ships() -> None:
    config = load_config("sketch_ntc_range.yaml", [DATA])
    assert isinstance(config, NTCRunConfig)
    card = load_model("sketch_ntc_range").card
    assert config.model.architecture == card["architecture"]
    assert config.model.options == card["options"]


def test_the_edge_configuration_loads_by_name() -> None:
    assert isinstance(load_config("edge_bsds500"), EdgeRunConfig)
    assert isinstance(load_config("edge_bsds500.yaml"), EdgeRunConfig)


def test_children_win_over_parents_and_overrides_over_both() -> None:
    config = load_config("sketch_ntc_lambda2.0.yaml", [DATA, "optim.lr=5e-5"])
    assert isinstance(config, NTCRunConfig)
    assert (config.lmbda, config.optim.lr) == (2.0, 5e-5)
    assert to_dict(config)["lmbda"] == 2.0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optm.lr=1"], ["unknown key optm", "nearest known: optim"]),
        (["optim.learning=1"], ["unknown key optim.learning"]),
        (["data.batchsize=1"], ["nearest known: data.batch_size"]),
        (["optim.lr=fast"], ["optim.lr"]),
        (["optim=3"], ["optim must be a mapping"]),
        (["lmbda=-1", "data.crop=100"], ["lmbda is -1", "data.crop is 100"]),
        (["edge_weight=-0.1"], ["edge_weight is -0.1; it must be 0 or more"]),
        (["data.empty_probability=0.5", "data.stroke_probability=0.5"], ["less than 1 together"]),
        (["data.stroke_probability=-0.1"], ["0 or more each"]),
        (["trainer.precision=16-mixed"], ["auto, bf16-mixed, 32-true"]),
        (["data.crop=128"], ["five scales"]),
        (["model.options={lambdas: [0.25, 0.5]}"], ["the run is for [0.5]"]),
        (
            ["data.batch_size=0", "data.workers=-1", "data.val_count=0", "trainer.log_every=0"],
            ["batch_size is 0", "workers is -1", "val_count is 0", "log_every is 0; it must be 1"],
        ),
        (
            ["data.maps=[a,b,a/c/../d]"],
            ["a/d lies in ", "/a, so that its pictures are there twice"],
        ),
        (["data.maps=[a,b,./a]"], ["are there twice"]),
        (["optim.clip_norm=0", "optim.warmup_steps=-1"], ["clip_norm is 0", "warmup_steps is -1"]),
        (["distortion=psnr"], ["ms-ssim, mse"]),
        (["data.photos=[a]"], ["one of the three"]),
        (["lr"], ["key=value"]),
        (["data.maps=[x"], ["'data.maps=[x' cannot be read", "come in pairs"]),
        (["data.maps=x"], ["data.maps is a list; write 'data.maps=[x]'"]),
        (["optim.only=context", "lmbdas=0.5"], ["'optim.only=[context]'", "'lmbdas=[0.5]'"]),
        (["lmbdas=[1,2]"], ["lmbda is 0.5, outside the run's lmbdas, [1.0, 2.0]"]),
        (["lmbda=.inf"], ["lmbda is inf"]),
        (["optim.lr=.inf", "optim.aux_lr=-1"], ["optim.lr is inf", "aux_lr is -1.0; it must be"]),
        (["optim.min_lr_ratio=-3"], ["min_lr_ratio is -3.0; it must be 0 to 1"]),
        (["trainer.max_hours=-1"], ["max_hours is -1.0; it must be 0 or more"]),
    ],
)
def test_mistakes_are_named_all_at_once(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("sketch_ntc_lambda0.5.yaml", [DATA, *overrides])
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "override", "words"),
    [
        ("edge_bsds500.yaml", "data.crop=100", "multiple of 16"),
        ("edge_bsds500.yaml", "data.val_count=-1", "val_count is -1"),
        ("mini_vae.yaml", "data.crop=60", "multiple of 8"),
        ("mini_vae.yaml", "optim.only=[vae]", "mini-vae trains all"),
        ("mini_clip.yaml", "data.crop=90", "model.image_size, 96"),
        ("mini_diffusion.yaml", "data.crop=100", "multiple of 32"),
        ("mini_diffusion.yaml", "data.pool=-1", "pool is -1"),
    ],
)
def test_mistakes_of_other_tasks_are_named_too(name: str, override: str, words: str) -> None:
    data = [] if name.startswith("edge") else ["data.pack=somewhere"]
    load_config(name, data)
    with pytest.raises(ConfigError, match=words):
        load_config(name, [*data, override])


def test_lambda_is_required_never_defaulted() -> None:
    with pytest.raises(ConfigError, match="lmbda"):
        load_config("sketch_ntc.yaml", [DATA, "name=x"])


def test_no_pictures_is_a_mistake_with_its_mend() -> None:
    with pytest.raises(ConfigError, match=r"photos=\[FOLDER\]"):
        load_config("sketch_ntc_lambda0.5.yaml")


def test_shipped_configurations_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("sketch_ntc_range", [DATA]).name == "sketch_ntc_range"
    (tmp_path / "configs").mkdir()
    own = tmp_path / "configs" / "sketch_ntc_range.yaml"
    own.write_text("task: edge\nname: mine\ndata: {root: there}\n")
    assert load_config("sketch_ntc_range").name == "mine"  # what lies here comes first


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        ([], 1000),  # from random weights
        (["init_from=last.ckpt"], 0),  # trained ones are past it
        (["init_from=last.ckpt", "distortion_warmup=40"], 40),
        (["distortion_warmup=0"], 0),
    ],
)
@pytest.mark.parametrize(
    ("name", "data"),
    [("sketch_ntc_lambda0.5.yaml", DATA), ("photo_ntc_cheng2020.yaml", "data.pack=photos.tar")],
)
def test_mse_leads_in_where_weights_begin_at_random(
    name: str, data: str, overrides: list[str], steps: int
) -> None:
    config = load_config(name, [data, *overrides])
    assert isinstance(config, NTCRunConfig | PhotoNTCRunConfig)
    assert config.distortion_warmup == steps


def test_a_name_too_long_for_a_file_is_unknown_as_others_are() -> None:
    with pytest.raises(ConfigError, match="no configuration 'aaa"):
        load_config("a" * 300)


def test_unknown_names_point_to_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"did you mean sketch_ntc_lambda0\.5\.yaml"):
        load_config("sketch_ntc_lamda0.5.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not valid YAML"),
        ("- a\n- b", "mapping"),
        ("task: dance\nname: x", "task"),
        ("inherits: nothing.yaml", "which is not at"),
        ("inherits: loop.yaml", "inherits from itself"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(str(path))
    assert str(path) in str(caught.value)
