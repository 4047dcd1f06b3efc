"""Every error that a user can cause, under one base.

Each message is one line in three parts: what is wrong, in which file or setting, how to mend it.
The command line prints it as ``picsnet: error: ...`` and exits with the class's ``exit_status``.
"""

from __future__ import annotations

LONGEST_REASON = 200
"""Characters of an error of another's that a message quotes."""


class PicsnetError(Exception):
    """Base of all errors that picsnet raises on purpose."""

    exit_status = 1


class UsageError(PicsnetError):
    """The command line asks for something impossible."""

    exit_status = 2


class ConfigError(PicsnetError):
    """A configuration has unknown keys, wrong types or values that cannot work together."""

    exit_status = 2


class ImageError(PicsnetError):
    """A picture cannot be read, or is outside the sizes that picsnet codes."""


class ImageFormatError(ImageError):
    """The content is no picture in a format that is read."""


class TooManyPixelsError(ImageError):
    """A picture has more pixels than are allowed."""


class DataError(PicsnetError):
    """A folder of training or test pictures cannot be used."""


class CheckpointError(PicsnetError):
    """A checkpoint is missing, damaged, or for another architecture."""


class DivergedError(PicsnetError):
    """A training's weights have become infinite or no numbers; no further step would mend them."""


class OutputError(PicsnetError):
    """A result cannot be written (no space, no permission, in the way of something)."""


class UnwritableError(OutputError):
    """No result at all can be written to a place (no space, no rights)."""


class ServiceError(PicsnetError):
    """The service cannot start, or cannot go on."""


class SketcherError(PicsnetError):
    """An edge extractor cannot be had or cannot run."""


class ModelError(PicsnetError):
    """A pretrained model (decoder, CLIP, captioner) cannot be had, loaded or run."""


class PromptError(PicsnetError):
    """A prompt cannot be made, or cannot be sent to the decoder that it is for."""


class BitstreamError(PicsnetError):
    """A .pics file cannot be decoded. Its subclasses say why."""


class NotPicsFileError(BitstreamError):
    """The bytes do not begin as a .pics file does."""


class UnsupportedVersionError(BitstreamError):
    """The file was written by a format version that this reader does not know."""


class UnsupportedLayerError(BitstreamError):
    """The file holds a layer that this reader does not know, or lacks the one asked for."""


class ImageSizeError(BitstreamError):
    """The file names a picture size outside the limits."""


class TruncatedFileError(BitstreamError):
    """A length in the file runs past its end."""


class ChecksumError(BitstreamError):
    """The file's bytes are not those that were written: damaged or cut short."""


class FingerprintError(BitstreamError):
    """The file was written with other model weights than those at hand."""


class DecoderMismatchError(BitstreamError):
    """The file was written for another decoder, or for other settings of it."""


class CorruptStreamError(BitstreamError):
    """The entropy-coded symbols are such as no encoder writes."""


def in_one_line(error: BaseException) -> str:
    """What an error says, for a message to quote: our own whole, another's no longer than is read.

    The error's kind where it says nothing.
    """
    said = " ".join(str(error).split()) or type(error).__name__
    return said if isinstance(error, PicsnetError) else said[:LONGEST_REASON]


def with_its_kind(error: BaseException) -> str:
    """The same with the kind of an error of another's before it, where that tells more."""
    kind, said = type(error).__name__, in_one_line(error)
    return said if isinstance(error, PicsnetError) or said == kind else f"{kind}: {said}"
