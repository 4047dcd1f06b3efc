"""What README says to type."""

from __future__ import annotations

import re
import shlex

import pytest

from picsnet.checkpoints import load_weights
from picsnet.config import NTCRunConfig, load_config
from picsnet.ntc import build
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "README.md").read_text().replace("\\\n", "")
TRAININGS = re.findall(r"^    python train\.py --config (.*)$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("command", TRAININGS)
def test_trainings_begin(command: str) -> None:
    name, *overrides = shlex.split(command, comments=True)
    config = load_config(name, overrides)
    assert isinstance(config, NTCRunConfig)
    network = build(config.model.architecture, config.model.options)
    if config.init_from and not config.init_from.startswith("runs/"):  # of a training before
        load_weights(network, config.init_from)


def test_there_are_trainings() -> None:
    assert len(TRAININGS) >= 4
