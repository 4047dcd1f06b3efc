"""Models of transformers and diffusers from their folders: whole, quietly, or in a line why not."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from picsnet.devices import one_at_a_time, unseen_by_the_caller
from picsnet.errors import ModelError, with_its_kind


@contextlib.contextmanager
def loading(folder: Path, option: str) -> Iterator[None]:
    """Loads from a folder as if nobody saw it; whatever goes wrong is one line.

    Args:
        folder: that is loaded from.
        option: which names another.

    Raises:
        ModelError: the libraries raised something.
    """
    try:
        with quiet(), unseen_by_the_caller():
            yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ModelError(
            f"{folder}: cannot be loaded ({with_its_kind(error)}); fetch it again, or name "
            f"another: {option}"
        ) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' bars, and their notes on parts that are left out on purpose."""
    from transformers.utils import logging as transformers_logging

    # What is of transformers alone must not wait for diffusers to be imported.
    loggers = [logging.getLogger(library) for library in ("diffusers", "transformers")]
    with one_at_a_time:
        levels = [logger.level for logger in loggers]
        bars = transformers_logging.is_progress_bar_enabled()
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        transformers_logging.disable_progress_bar()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            if bars:
                transformers_logging.enable_progress_bar()


def load_whole(
    kind: Any, folder: Path, dtype: torch.dtype = torch.float32, variant: str | None = None
) -> Any:
    """A model of transformers or diffusers with all its weights.

    The libraries would make up lost ones.

    Raises:
        ModelError: weights are missing, or of other shapes.
    """
    options = {"variant": variant} if variant else {}
    model, info = kind.from_pretrained(
        folder, dtype=dtype, local_files_only=True, output_loading_info=True, **options
    )
    lost = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if lost:
        raise ModelError(f"{len(lost)} weights of {kind.__name__} are not in it, {lost[0]} for one")
    return model
