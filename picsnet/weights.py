"""Which weights options name, and what changes when they do."""

from __future__ import annotations

import os
from collections.abc import Iterable

from picsnet import shipped
from picsnet.decoder.spec import PRESETS, load_spec
from picsnet.stamps import stamps


def stamp_weights(
    names: Iterable[str | None], sketcher: str | None = None, decoder: str | None = None
) -> list[str]:
    """What changes when weights on this machine do that options name.

    Only what names weights is to be given: other options' words may be folders' names by chance.

    Args:
        names: folders, files, names of models that ship, hub ids; None where an option is not set.
        sketcher: as `picsnet.sketch.load_sketcher` takes it, or None.
        decoder: as `picsnet.decoder.spec.load_spec` takes it, or None where there is none. One that
            this machine would choose is to be chosen before.

    Raises:
        ConfigError: there is no such decoder.
    """
    named = [*names, _of_sketcher(sketcher or "")]
    if decoder is not None:
        spec = load_spec(decoder)
        named += [_of_decoder(decoder), spec.pipeline, spec.controlnet, spec.clip]
    return stamps(os.path.expanduser(name) for name in named if name)


def _of_sketcher(sketcher: str) -> str:
    if sketcher == "bundled":
        return str(shipped.FOLDER / shipped.EDGES)
    return sketcher.partition("hed:")[2]


def _of_decoder(decoder: str) -> str | None:
    """A decoder's own file or folder; a preset's name is none, whatever folder is called so."""
    return None if decoder in PRESETS or decoder in shipped.decoders() else decoder
