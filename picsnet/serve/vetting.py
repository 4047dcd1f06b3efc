"""Files looked at before they wait: what cannot be decoded here is refused at once."""

from __future__ import annotations

from typing import Any

from picsnet.bitstream import read
from picsnet.decoder.geometry import working_size
from picsnet.errors import BitstreamError
from picsnet.serve.refusals import Refusal
from picsnet.textlayer import read_head

NAME = "the file"


def vet(
    data: bytes, about: dict[str, Any], max_pixels: int, sketch_only: bool, partial: bool
) -> str:
    """What decoding a file will give: "picture" or "sketch".

    Args:
        data: the file.
        about: what the workers have loaded, as `picsnet.serve.engine.Engine.about` says.
        max_pixels: pictures of more are refused, and sketches where they are what is wanted.
        sketch_only: the client wants the sketch.
        partial: layers that arrived whole are enough.

    Raises:
        Refusal: 413 too many pixels; 422 damaged, or for models that are not here.
    """
    try:
        file = read(data, name=NAME, partial=partial)
        head = None if file.text is None else read_head(file.text, NAME)
    except BitstreamError as error:
        raise Refusal(422, str(error)) from None
    _check_pixels(file.width, file.height, max_pixels, f"{NAME}:")
    if file.sketch is not None and file.sketch.fingerprint.hex() not in about["readable"]:
        raise Refusal(
            422,
            f"{NAME}: its sketch was written with model {file.sketch.fingerprint.hex()}, which is "
            "not here; see /v1/models",
        )
    if sketch_only or head is None:
        if file.sketch is None:
            raise Refusal(422, f"{NAME}: holds no sketch; decode it without sketch_only")
        if head is not None:
            # The file says it, not the decoder: it may be 4096x1024 for a picture of 64x16.
            size = working_size(file.width, file.height, head.size)
            _check_pixels(*size, max_pixels, f"{NAME}: its sketch")
        return "sketch"
    decoder = about["decoder"]
    if decoder is None:
        raise Refusal(422, f"{NAME}: this server draws nothing; ask for sketch_only")
    mode = "pics" if file.sketch is not None or "sketch" in file.missing else "pic"
    here = (decoder["identities"][mode], decoder["size"])
    if (f"{head.decoder:03x}", head.size) != here:
        raise Refusal(
            422,
            f"{NAME}: was written for decoder {head.decoder:03x} at size {head.size}, and this "
            f"server has {here[0]} at {here[1]}; ask for sketch_only, or decode it elsewhere",
        )
    return "picture"


def _check_pixels(width: int, height: int, most: int, what: str) -> None:
    if width * height > most:
        raise Refusal(413, f"{what} is {width}x{height}; at most {most} pixels are allowed")
