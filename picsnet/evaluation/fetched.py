"""Weights that libraries fetch into torch's folder by themselves: what is wrong, in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from picsnet.errors import ModelError, in_one_line

PLACE = "$TORCH_HOME/hub/checkpoints"


@contextlib.contextmanager
def fetched(file: str, origin: str) -> Iterator[None]:
    """Around what fetches a file of weights where it is not there yet, and loads it.

    A file that is there is never fetched again, whatever is in it, and the loaders say of a damaged
    one what the damage suggests: UnpicklingError, RuntimeError, IndexError, OSError, ...

    Args:
        file: its name in torch's folder.
        origin: whose it is.

    Raises:
        ModelError: it cannot be fetched, or is damaged.
    """
    import torch

    try:
        yield
    except (ImportError, MemoryError):  # nothing that the file is to blame for
        raise
    except Exception as error:
        reason = in_one_line(error)
        path = Path(torch.hub.get_dir()) / "checkpoints" / file
        if path.is_file():
            raise ModelError(
                f"{path}: holds no weights that can be loaded ({reason}); delete it, and it is "
                "fetched again"
            ) from None
        if not isinstance(error, (OSError, RuntimeError)):  # the latter where its hash is wrong
            raise
        raise ModelError(
            f"its weights cannot be fetched ({reason}); put {origin}'s {file} into {PLACE}"
        ) from None
