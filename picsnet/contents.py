"""What is in a .pics file, byte by byte, without decoding it; numpy only where it has a prompt."""

from __future__ import annotations

from typing import Any

from picsnet.bitstream import layer_bytes, overhead_bytes, read


def contents(data: bytes, name: str = "<bytes>") -> dict[str, Any]:
    """Size, rate, bytes by layer, and what the file was written for.

    Args:
        data: the file.
        name: of the file, for messages.

    Raises:
        BitstreamError: it is not whole.
    """
    file = read(data, name=name)
    layers = layer_bytes(data)
    return {
        "width": file.width,
        "height": file.height,
        "bytes": len(data),
        "bpp": 8 * len(data) / (file.width * file.height),
        "layers": layers,
        "overhead_bytes": overhead_bytes(layers),
        "model": file.sketch.fingerprint.hex() if file.sketch else None,
        **_head(file.text, name),
    }


def _head(text: bytes | None, name: str) -> dict[str, Any]:
    if text is None:
        return {"decoder": None, "size": None, "candidate_bits": None, "candidate": None}
    from picsnet.textlayer import read_head

    head = read_head(text, name)
    return {
        "decoder": f"{head.decoder:03x}",
        "size": head.size,
        "candidate_bits": head.candidate_bits,
        "candidate": head.candidate,
    }
