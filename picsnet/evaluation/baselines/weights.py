"""Networks of baselines that were trained here, out of Lightning's checkpoints."""

from __future__ import annotations

from typing import Any

import torch

from picsnet.errors import CheckpointError, ConfigError
from picsnet.ntc.hific import make_hific
from picsnet.ntc.photo import make
from picsnet.saved import averaged


def load_averaged(path: str, part: str, task: str) -> Any:
    """The averaged network of a run.

    Args:
        path: of its checkpoint.
        part: of what the run trained, with a dot at its end: the network.
        task: of the run: "photo-ntc" or "hific".

    Raises:
        CheckpointError: it is not there, or not such a run's.
        ConfigError: the library that has the network is not installed.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["config"]["task"] != task:
            raise ValueError(f"of a {saved['config']['task']} run")
        model = saved["config"]["model"]
        options = model["options"]
        network = make_hific(options) if task == "hific" else make(model["architecture"], options)
        network.load_state_dict(averaged(saved, part))
    except ConfigError:
        raise
    except Exception as error:  # what torch raises for other files has no common base
        raise CheckpointError(
            f"{path}: is no checkpoint of a {task} run ({type(error).__name__}); name the "
            "last.ckpt of one that train.py made"
        ) from None
    return network
