"""Datasets by name: where their pictures are on this machine, or a verified download."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from picsnet.errors import DataError, in_one_line
from picsnet.files import IMAGE_SUFFIXES, expand_inputs

VARIABLE = "PICSNET_DATA"
HERE = Path("data")
"""Under the working directory: where datasets are looked for, and fetched to."""


@dataclass(frozen=True)
class Dataset:
    """Photographs to evaluate on.

    Attributes:
        name: of the dataset.
        pictures: (name, path) each; the name is the path in the dataset, without suffix.
    """

    name: str
    pictures: list[tuple[str, Path]]


@dataclass(frozen=True)
class Source:
    """A dataset that is known by name.

    Attributes:
        count: of its pictures.
        layout: of its folder, in words.
        files: URL to hash (``sha256:...`` or ``md5:...``) of what is fetched: pictures, or zips of
            them.
    """

    count: int
    layout: str
    files: Mapping[str, str]


# As they have been at r0k.us since 1999; several public projects pin the same hashes.
_KODAK = (
    "a56e27cbf5f843c048b6af1d6e090760e9c92fadba88b7dee0205918a37523bd",
    "4f4b74a79237e311d72cad958237b5f7088d8bce1c82305ebefe1a70e3022dfd",
    "e25ca1ff2f0c0cb5fdfd5f9b0a0bb21ac4c3de3c84a67f35b09a85d3306249db",
    "e3b946107c5d3441c022f678d0c3caf1e224d81b1604ba840a4f88e562de61aa",
    "10349e963c5c813d327852f82c1795fa4148d69fedffc4c589bee458e3ac3d53",
    "363510303b715d4cbc384e1ce227e466b613a09e1b71ae985882bf8e7fbd9b18",
    "b77d3f006f42414bb242222e0482e750c0fb9e5ee8d4bed2f6f11c5605fe54a4",
    "ba23983c76b4832ee0e8af0592664756841a16779acd69f792e268fb6d13d6e7",
    "6a4361c2fc194feb4edaa9f9a4a0620fb9943e460ac7fdf037fb0f6dd6607a7d",
    "9dfb70f5867c29ff9ed6313683f19b3d867849e40fbc0c4c54a4a89df341cf23",
    "7936814b58b5387fce2e4e2488b4ec830dadd95fa9520f358ddb30990b50f2b6",
    "d78c37c2f04f23761ed2367dd77e2db584ddd4c3950833fecf89f199a8126980",
    "bc34a3ce58dea09dce1704c997171602de90cb34d0c8503a988b77f473d39b08",
    "55a94550ff18f3246c4074fd32b77b0c74447c26b6ad274d564d999c0450ba6e",
    "7538cbb80cb9103606c48b806eae57d56c885c7f90b9b3be70a41160f9cbb683",
    "a89c7268ccd4718ba424a99fc4643c572cf692ca6eae887185ceb4e9f11d2e54",
    "37afcc89fbdcb76d9518e04b2fc011027e2f4cd14b3b2f83cefd721641a47c5b",
    "1a9258c365988961d87a0598725b609139c303ad48a5aad6c503c3b1a87849aa",
    "b7450b264b1b0a411390d8931b112c27905a992520fc90569dc4b920aa32bbdc",
    "3b46c71e3b92a563820ba32936be8330c586c41f938efd94be938386aae4328a",
    "ac958597c82073f6bb65129c68f72b651db5b9efd82e11547d07350214bc268b",
    "1cee58eb1f2d9c7ebb254d208a03c783ce6cf2c4d8c2cf45e235dd23b4ce1b29",
    "e3111a2fd4da24af15d6459ef9eacfe54106b38e27b4a21821b75c3f5d2d5baf",
    "1071c68372cc5a01435c2c225a5cf7d4bb803846ec08bb6b3d6721b156d7cb96",
)

CATALOGUE: dict[str, Source] = {
    "kodak": Source(
        count=24,
        layout="kodim01.png to kodim24.png",
        files={
            f"https://r0k.us/graphics/kodak/kodak/kodim{i:02d}.png": f"sha256:{digest}"
            for i, digest in enumerate(_KODAK, 1)
        },
    ),
    # The test set, 60 pictures, is what the paper evaluates on (its repository's scripts). The hash
    # is NeuralCompression's.
    "clic2021": Source(
        count=60,
        layout="the 60 PNG files of professional_test_2021.zip",
        files={
            "https://storage.googleapis.com/clic2021_public/professional_test_2021.zip": (
                "md5:4476b708ea4c492505dd70061bebe202"
            )
        },
    ),
    # The hash is TensorFlow Datasets'.
    "div2k": Source(
        count=100,
        layout="0801.png to 0900.png of DIV2K_valid_HR.zip",
        files={
            "https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_valid_HR.zip": (
                "sha256:20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc"
            )
        },
    ),
}


def find_dataset(
    name: str, folder: Sequence[str] = (), catalogue: Mapping[str, Source] = CATALOGUE
) -> Dataset:
    """The pictures of a dataset.

    Args:
        name: "kodak", "clic2021", "div2k", or any name for pictures of your own.
        folder: folders, files or globs. Empty: ``$PICSNET_DATA/NAME``, then ``data/NAME``, then a
            download into the latter, whose checksums are verified.
        catalogue: of datasets by name.

    Raises:
        DataError: it is not here and cannot be fetched, or its folder lacks pictures.
        UsageError: a named folder is not there.
    """
    if folder:
        return _listed(name, folder)
    source = catalogue.get(name)
    places = [Path(root) / name for root in [os.environ.get(VARIABLE), HERE] if root]
    for place in places:
        if os.path.isdir(place):
            return _complete(name, place, source)
    if source is None:
        raise DataError(
            f"dataset {name}: is not one that picsnet knows ({', '.join(catalogue)}), and there is "
            f"no {places[-1]}; name its pictures: 'dataset.folder=[FOLDER]'"
        )
    return _complete(name, _fetch(name, source, HERE / name), source)


def _listed(name: str, patterns: Sequence[str]) -> Dataset:
    items = expand_inputs(patterns, IMAGE_SUFFIXES)
    named: dict[str, Path] = {}
    for item in items:
        key = item.relative.with_suffix("").as_posix()
        if named.setdefault(key, item.path) != item.path:
            raise DataError(
                f"{named[key]} and {item.path} would both be called {key}; rename one, or name one "
                "folder that holds both"
            )
    return Dataset(name, list(named.items()))


def _complete(name: str, folder: Path, source: Source | None) -> Dataset:
    dataset = _listed(name, [str(folder)])
    if source is not None and len(dataset.pictures) != source.count:
        raise DataError(
            f"{folder}: holds {len(dataset.pictures)} pictures, but {name} has {source.count} "
            f"({source.layout}); complete it, or name it as your own: dataset.name=MINE "
            f"'dataset.folder=[{folder}]'"
        )
    return dataset


def _fetch(name: str, source: Source, folder: Path) -> Path:
    """Fetch, verify, unpack beside and rename: the folder is whole or not there.

    The processes of an evaluation start together: one fetches, the others find it.
    """
    import requests
    from filelock import FileLock

    lock = folder.with_name(f".{folder.name}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            try:
                if not folder.is_dir():
                    _download(source, folder)
            finally:
                lock.unlink(missing_ok=True)  # a waiting process sees that, and looks again
    except (OSError, ValueError, requests.RequestException) as error:
        reason = in_one_line(error)
        raise DataError(
            f"dataset {name}: is not here and cannot be fetched ({reason}); put its "
            f"{source.count} pictures into {folder} or ${VARIABLE}/{name}: {source.layout}, from "
            f"{next(iter(source.files)).rsplit('/', 1)[0]}"
        ) from None
    return folder


def _download(source: Source, folder: Path) -> None:
    """A file that came whole stays for the next attempt; pooch keeps no broken ones."""
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    part = folder.with_name(f".{folder.name}.part")
    try:
        part.mkdir(parents=True, exist_ok=True)
        for url, digest in source.files.items():
            unpack = pooch.Unzip(extract_dir=".") if url.endswith(".zip") else None
            pooch.retrieve(
                url,
                digest,
                fname=url.rsplit("/", 1)[-1],
                path=part,
                processor=unpack,
                progressbar=True,
            )
        for archive in part.glob("*.zip"):
            archive.unlink()
        part.rename(folder)
    finally:
        if part.is_dir() and not any(part.glob("*")):
            part.rmdir()


def resized(picture: NDArray[np.uint8], short_side: int | None) -> NDArray[np.uint8]:
    """The paper's resize: the shorter side to a number of pixels, the shape kept.

    Args:
        picture: (H, W, 3) uint8.
        short_side: pixels, 512 in the paper. None leaves it as it is; so does a picture that is
            smaller, since enlarging would only make bits per pixel look lower.
    """
    height, width = picture.shape[:2]
    if short_side is None or min(height, width) <= short_side:
        return picture
    scale = short_side / min(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
