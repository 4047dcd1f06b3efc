"""What W&B is given: read back from the file of an offline run, and taken by a server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from skimage import data

from picsnet.cli import main
from tests import processes
from tests.conftest import REPOSITORY
from tests.fake_wandb import fake_wandb
from tests.test_training import environment, train

CONFIG = """
name: small
output: {output}
dataset: {{name: samples, folder: [{photos}], resize: null}}
measures: {{names: [psnr, sketch_edge_f], resamples: 20}}
logging: {{wandb: offline, project: trials, group: study 1, pictures: 1}}
codecs:
  sketch alone: {{kind: sketch, ckpt: [sketch_ntc_lambda0.5]}}
  mean colour: {{kind: mean-colour}}
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the offline file of an evaluation holds."""
    folder = tmp_path_factory.mktemp("tracked")
    (folder / "photos").mkdir()
    for name in ("coffee", "chelsea"):
        picture = Image.fromarray(getattr(data, name)())
        picture.resize((128, 96)).save(folder / "photos" / f"{name}.png")
    config = folder / "small.yaml"
    config.write_text(CONFIG.format(output=folder / "runs", photos=folder / "photos"))
    assert main(["evaluate", "--config", str(config)]) == 0
    return read_back(folder / "runs" / "small")


def read_back(folder: Path) -> list[dict[str, Any]]:
    """The records in the file of the offline run that is somewhere in a folder."""
    (file,) = folder.rglob("run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def _of(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in records if record["type"] == kind]


def _merged(records: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return {key: value for one in _of(records, kind) for key, value in one["update"].items()}


def test_the_run_has_its_study_kind_and_configuration(records: list[dict[str, Any]]) -> None:
    run = _of(records, "run")[0]
    assert run["project"] == "trials" and run["display_name"] == "small"
    assert run["run_group"] == "study 1" and run["job_type"] == "evaluation"
    assert run["config"]["update"]["dataset"]["name"] == "samples"


def test_rate_against_each_measure_is_a_custom_chart(records: list[dict[str, Any]]) -> None:
    config = _merged(records, "config")
    charts = {key: value for key, value in config.items() if key.startswith("_wandb.visualize.")}
    assert set(charts) == {"_wandb.visualize.rd/psnr", "_wandb.visualize.rd/sketch_edge_f"}
    panel = charts["_wandb.visualize.rd/psnr"]["panel_config"]
    assert panel["panelDefId"] == "wandb/lineseries/v0"
    assert panel["stringSettings"] == {"title": "PSNR on samples", "xname": "bits per pixel"}


def test_means_can_be_sorted_by_and_tables_are_whole(records: list[dict[str, Any]]) -> None:
    summary = _merged(records, "summary")
    assert 5 < summary["mean colour/fill/psnr"] < 30
    assert 0 < summary["sketch alone/lambda 0.5/bpp"] < 1
    assert summary["points.nrows"] == 2 and summary["rows.nrows"] == 4
    assert summary["pictures.nrows"] == 2  # one photograph by two codecs
    assert summary["pictures.ncols"] > summary["rows.ncols"]


def test_results_dataset_and_models_are_artifacts(records: list[dict[str, Any]]) -> None:
    found = {one["name"]: one for one in _of(records, "artifact") if one["type"] != "run_table"}
    assert {one["type"] for one in found.values()} == {"evaluation", "dataset", "model"}
    files = {
        name: {entry["path"] for entry in one["manifest"]["contents"]}
        for name, one in found.items()
    }
    assert files["evaluation-small"] == {"rows.csv", "summary.json"}
    assert files["dataset-samples"] == {"dataset.json"}
    (model,) = (name for name in files if name.startswith("model-"))
    assert files[model] == {"card.json", "model.safetensors"}


def test_a_picture_that_cannot_be_read_is_missing_in_the_table(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(data.coffee()).resize((128, 96)).save(tmp_path / "photos" / "coffee.png")
    config = tmp_path / "small.yaml"
    text = CONFIG.format(output=tmp_path / "runs", photos=tmp_path / "photos")
    config.write_text("\n".join(line for line in text.splitlines() if "sketch alone" not in line))
    command = ["evaluate", "--config", str(config), "measures.names=[psnr]"]
    assert main([*command, "logging.wandb=disabled"]) == 0
    (decoded,) = (tmp_path / "runs").rglob("decoded.png")
    decoded.write_bytes(b"no picture")
    assert main(command) == 0
    summary = _merged(read_back(tmp_path / "runs" / "small"), "summary")
    assert summary["pictures.nrows"] == 1


def test_a_workspace_is_described_without_an_account(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["wandb-workspace", "team/picsnet", "--dry-run"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["project"] == "team/picsnet"
    shown = {
        name
        for panels in found["sections"].values()
        for panel in panels
        for name in (panel["shows"] if isinstance(panel["shows"], list) else [panel["shows"]])
    }
    logged = {"rd/psnr_table", "points", "pictures", "rows", "rd/distortion", "train/loss", "maps"}
    assert logged <= shown


@pytest.mark.parametrize(
    ("project", "words"), [("nonsense", "ENTITY/PROJECT"), ("team/picsnet", "WANDB_API_KEY")]
)
def test_a_workspace_without_account_or_name_is_one_line(
    tmp_path: Path,
    project: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert main(["wandb-workspace", project]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("picsnet: error: ") and words in line


def test_a_training_run_has_its_study_lambda_and_model(tmp_path: Path, maps_folder: Path) -> None:
    overrides = ["trainer.max_steps=2", "trainer.val_every=2", "logging.tensorboard=true"]
    # Names of W&B's artifacts have neither spaces nor slashes.
    overrides += ["logging.wandb=offline", "logging.group=study 1", "name=first try/a"]
    done = train(maps_folder, tmp_path, *overrides)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "first try" / "a"
    records = read_back(folder)
    run = _of(records, "run")[0]
    assert run["run_group"] == "study 1" and run["job_type"] == "training"
    assert run["tags"] == ["lambda 0.002"]
    assert run["config"]["update"]["lmbda"] == 0.002
    (model,) = (one for one in _of(records, "artifact") if one["type"] == "model")
    assert [entry["path"] for entry in model["manifest"]["contents"]] == ["last.ckpt"]
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
    assert list((folder / "csv").rglob("metrics.csv"))


def test_with_a_key_a_server_gets_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(data.coffee()).resize((128, 96)).save(tmp_path / "photos" / "coffee.png")
    config = tmp_path / "small.yaml"
    config.write_text(CONFIG.format(output=tmp_path / "runs", photos=tmp_path / "photos"))
    with fake_wandb() as server:
        online = {"WANDB_BASE_URL": server.address, "WANDB_API_KEY": "a" * 40}
        command = [sys.executable, "-m", "picsnet", "evaluate", "--config", str(config)]
        done = processes.run(
            [*command, "logging.wandb=auto"], REPOSITORY, {**environment(), **online}
        )
        assert done.returncode == 0, done.stderr
    first = server.variables("UpsertBucket")[0]
    assert first["project"] == "trials" and first["groupName"] == "study 1"
    assert first["jobType"] == "evaluation"
    history = {key for line in server.streams["wandb-history.jsonl"] for key in line}
    assert {"rd/psnr_table", "points", "rows", "pictures"} <= history
    summary = server.streams["wandb-summary.json"][-1]
    assert 5 < summary["mean colour/fill/psnr"] < 30
    created = {one["input"]["artifactTypeName"] for one in server.variables("CreateArtifact")}
    assert {"evaluation", "dataset", "model"} <= created
    assert {"rows.csv", "summary.json", "dataset.json"} <= set(server.uploads)
    assert any(body[:3] == b"\xff\xd8\xff" for body in server.uploads.values())  # pictures


def test_a_workspace_is_saved_on_a_server(tmp_path: Path) -> None:
    with fake_wandb() as server:
        online = {"WANDB_BASE_URL": server.address, "WANDB_API_KEY": "a" * 40}
        done = processes.run(
            [sys.executable, "-m", "picsnet", "wandb-workspace", "team/picsnet"],
            REPOSITORY,
            {**environment(), **online, "WANDB_DIR": str(tmp_path)},
        )
    assert done.returncode == 0, done.stderr
    assert "team/picsnet" in done.stdout
    (view,) = (variables for name, variables in server.calls if name == "UpsertView2")
    assert "rd/psnr_table" in json.dumps(view) and "rd/distortion" in json.dumps(view)
