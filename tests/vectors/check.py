"""Decode the vectors here: ``python -m tests.vectors.check [--device cuda]``.

Prints one line for docs/exactness.md: what this is, whether all latents and prompts are those that
were written, and how many maps are too, bit for bit. Exit status 1 if a latent or a prompt differs
or a map is off by more than one level.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import sys

import numpy as np
import torch
from PIL import Image

from picsnet.checkpoints import load_model
from tests.vectors import FOLDER, decode, index, models


def main() -> int:
    """Decode all, print the line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    known = {key: load_model(model.name, args.device) for key, model in models().items()}
    wrong, maps, same, off = [], 0, 0, 0
    for name, expected in index().items():
        found, decoded = decode((FOLDER / name).read_bytes(), known)
        if expected.map is not None:
            maps += 1
            same += found.map == expected.map
        if dataclasses.replace(found, map=expected.map) != expected:
            wrong.append(name)
        if decoded is not None:
            stored = np.asarray(Image.open((FOLDER / name).with_suffix(".png")), dtype=int)
            off = max(off, int(np.abs(decoded - stored).max()))
    count = len(index())
    kind = torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.machine()
    versions = f"torch {torch.__version__}, numpy {np.__version__}, Python {sys.version.split()[0]}"
    print(
        f"| {args.device} ({kind}), {args.threads} threads | {versions} | "
        f"{count - len(wrong)} of {count} | {same} of {maps}, off by {off} at most |"
    )
    return int(bool(wrong) or off > 1)


if __name__ == "__main__":
    sys.exit(main())
