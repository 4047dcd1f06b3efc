"""Which decoder is meant where none is named: of those on this machine, without the network."""

from __future__ import annotations

from collections.abc import Iterator

from picsnet.decoder.files import controlnet_files, pipeline_files
from picsnet.decoder.spec import DEFAULT_DECODER, PRESETS, DecoderSpec, load_spec
from picsnet.hub import cached
from picsnet.shipped import decoders


def default_decoder() -> str:
    """The decoder to encode with: the paper's pair where its files are there, else what ships."""
    if on_this_machine(PRESETS[DEFAULT_DECODER]):
        return DEFAULT_DECODER
    return next(iter(decoders()), DEFAULT_DECODER)


def default_is_present() -> bool:
    """Whether `default_decoder` can be had without the network."""
    return bool(decoders()) or on_this_machine(PRESETS[DEFAULT_DECODER])


def on_this_machine(spec: DecoderSpec) -> bool:
    """Whether all files of a preset are in the hub's cache."""
    parts = [cached(spec.pipeline, revision=spec.revision, patterns=pipeline_files(spec))]
    if spec.controlnet is not None:
        files = controlnet_files(spec)
        parts.append(cached(spec.controlnet, revision=spec.controlnet_revision, patterns=files))
    return all(part is not None for part in parts)


def present_decoders() -> Iterator[DecoderSpec]:
    """Decoders that a file may be for: what ships, then the presets that were fetched."""
    yield from (load_spec(name) for name in decoders())
    yield from (spec for spec in PRESETS.values() if on_this_machine(spec))
