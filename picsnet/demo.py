"""``make demo``: sample photographs to .pics files and back, and a page that shows them.

The photographs come with scikit-image. Encoding and decoding run as two processes of the command
line, so that nothing but the files passes between them.
"""

from __future__ import annotations

import argparse
import html
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from picsnet import shipped
from picsnet.decoder.spec import MINI
from picsnet.errors import PicsnetError
from picsnet.files import atomic_write
from picsnet.samples import SAMPLES
from picsnet.terminal import escape_what_cannot_be_written, print_error


@dataclass(frozen=True)
class Picture:
    """One row of the page; paths are relative to the page."""

    title: str
    images: dict[str, str]
    prompt: str
    width: int
    height: int
    size: int
    layers: dict[str, int]
    bpp: float
    encode_seconds: float
    decode_seconds: float


def main(arguments: list[str] | None = None) -> int:
    """Run the demonstration; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m picsnet.demo", description=__doc__)
    parser.add_argument("-o", "--output", default="out/demo", help="folder (default: %(default)s)")
    parser.add_argument("--ckpt", default=shipped.DEFAULT, help="sketch model")
    parser.add_argument("--decoder", default=MINI, help="default: %(default)s")
    args = parser.parse_args(arguments)
    folder = Path(args.output)
    try:
        page = run(folder, args.ckpt, args.decoder)
    except PicsnetError as error:
        print_error(error)
        return error.exit_status
    except subprocess.CalledProcessError as error:
        return int(error.returncode)  # the verb has said why
    print(f"look at {page.resolve()}")
    return 0


def run(folder: Path, ckpt: str, decoder: str) -> Path:
    """Code the samples and write the page; returns its path."""
    originals = save_samples(folder / "original")
    models = ["--ckpt", ckpt, "--decoder", decoder]
    coded, parts = str(folder / "coded"), str(folder / "parts")
    encoded = _verb("encode", *models, str(originals), "-o", coded, "--save-parts", parts)
    decoded = _verb("decode", coded, "--decoder", decoder, "-o", str(folder / "decoded"))
    seconds = {Path(row["output"]).stem: row["seconds"] for row in decoded}
    pictures = [_picture(row, seconds) for row in encoded]
    page = folder / "index.html"
    with atomic_write(page) as part:
        part.write_text(render(pictures, ckpt, decoder), encoding="utf-8")
    for picture in pictures:
        print(
            f"{picture.title}: {picture.size} bytes, {picture.bpp:.4f} bpp, "
            f"{picture.encode_seconds + picture.decode_seconds:.1f} s"
        )
    return page


def save_samples(folder: Path) -> Path:
    """scikit-image's photographs as PNG files."""
    import numpy as np
    from skimage import data

    from picsnet.images import save_png

    for name in SAMPLES:
        path = folder / f"{name}.png"
        if not path.is_file():
            save_png(np.asarray(getattr(data, name)()), path)
    return folder


def _verb(verb: str, *arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "picsnet", verb, *arguments, "--json"]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in result.stdout.splitlines()]


def _picture(row: dict[str, Any], seconds: dict[str, float]) -> Picture:
    name = Path(row["input"]).stem
    return Picture(
        title=name,
        images={
            "original": f"original/{name}.png",
            "sketch": f"parts/{name}/sketch.png",
            "decoded sketch": f"parts/{name}/decoded_sketch.png",
            "decoded photograph": f"decoded/{name}.png",
        },
        prompt=row["prompt"],
        width=row["width"],
        height=row["height"],
        size=row["bytes"],
        layers=row["layers"],
        bpp=row["bpp"],
        encode_seconds=row["seconds"],
        decode_seconds=seconds[name],
    )


_STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #777; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem;
  max-width: 1200px; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2.5rem 0 .25rem; }
p.figures { margin: 0 0 .75rem; color: var(--quiet); font-variant-numeric: tabular-nums; }
p.figures strong { color: CanvasText; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: .75rem; }
figure { margin: 0; } figcaption { font-size: .85rem; color: var(--quiet); }
img { width: 100%; height: auto; display: block; border: 1px solid var(--line); }
"""


def render(pictures: list[Picture], ckpt: str, decoder: str) -> str:
    """The page: for each picture what went in, what came out, the prompt, bytes and bpp."""
    rows = "\n".join(_render_row(picture) for picture in pictures)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>picsnet demo</title><style>{_STYLE}</style></head><body>
<h1>picsnet: photographs as a prompt and a sketch</h1>
<p>Sketch model {html.escape(ckpt)}, decoder {html.escape(decoder)}. Bytes are the size of the .pics
file on disk, all of it; bpp is 8 x bytes / (width x height) of the original. The decoded photograph
was made from the file alone, in another process.</p>
{rows}
</body></html>
"""


def _render_row(p: Picture) -> str:
    layers = ", ".join(f"{html.escape(name)} {size}" for name, size in p.layers.items())
    figures = (
        f"<strong>{p.size} bytes</strong> ({layers}), <strong>{p.bpp:.4f} bpp</strong>, "
        f"{p.width} x {p.height}, coded in {p.encode_seconds:.1f} s, "
        f"decoded in {p.decode_seconds:.1f} s"
    )
    cells = "".join(
        f'<figure><a href="{html.escape(path)}"><img src="{html.escape(path)}" '
        f'alt="{html.escape(p.title)}: {label}" width="{p.width}" height="{p.height}"></a>'
        f"<figcaption>{label}</figcaption></figure>"
        for label, path in p.images.items()
    )
    return (
        f'<h2>{html.escape(p.title)}</h2><p class="figures">{figures}</p>'
        f'<p>Prompt: {html.escape(p.prompt)}</p><div class="row">{cells}</div>'
    )


if __name__ == "__main__":
    escape_what_cannot_be_written()
    sys.exit(main())
