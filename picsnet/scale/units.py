"""Units of pictures, each coded by one worker in one go and noted in one file.

    unit -> fetched -> coded -> all its files written, earlier ones of what failed deleted
         -> DST/manifest.parts/RUN-NUMBER.jsonl

That file is the proof that a unit is done. A worker that dies leaves none, and what takes the unit
up codes it again from the beginning; one that dies behind it has lost nothing.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from picsnet.errors import PicsnetError
from picsnet.scale.encoding import Coded, Encoder
from picsnet.scale.manifest import OK, PARTS, SUFFIX, Record, coded, failed, from_lines, to_line
from picsnet.scale.settings import EncodeSettings, content_key
from picsnet.scale.stores import Store

THREADS = 8
"""Transfers at once in each worker."""
BEGUN = ".begun"


@dataclass(frozen=True)
class Picture:
    """What is to be coded.

    Attributes:
        source, target: names in their stores.
        version: of the source, as its store tells it.
        before: the record of an earlier run; None where there is none that could hold.
    """

    source: str
    target: str
    version: str
    before: Record | None = None


@dataclass(frozen=True)
class Job:
    """What all workers are told.

    Attributes:
        settings, digest: how pictures are coded, and its digest.
        source, destination: URLs.
        run: its name, in the names of its parts.
        batch: pictures whose prompts are found together.
        device: that workers code on.
        source_options, destination_options: of the file systems.
    """

    settings: EncodeSettings
    digest: str
    source: str
    destination: str
    run: str
    batch: int = 8
    device: str = "auto"
    source_options: Mapping[str, Any] = field(default_factory=dict)
    destination_options: Mapping[str, Any] = field(default_factory=dict)


class UnitCoder:
    """A worker: holds models and codes units."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.encoder = Encoder(job.settings, job.device)
        self.source = Store(job.source, job.source_options)
        self.destination = Store(job.destination, job.destination_options)

    def __call__(self, batch: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Units in, counts out.

        Args:
            batch: ``number`` of each unit, and ``pictures``: JSON of a list of `Picture`.

        Returns:
            ``pictures`` and ``failed`` of each.

        Raises:
            OutputError: the destination takes no more; no picture is at fault.
        """
        done = [
            self.code(int(number), [Picture(**one) for one in json.loads(pictures)])
            for number, pictures in zip(batch["number"], batch["pictures"], strict=True)
        ]
        return {
            "pictures": np.array([len(records) for records in done]),
            "failed": np.array([sum(r["status"] != OK for r in records) for records in done]),
        }

    def code(self, number: int, pictures: Sequence[Picture]) -> list[Record]:
        """Records of a unit's pictures, whose files are there then."""
        name = f"{PARTS}/{self.job.run}-{number:08d}"
        proof = self.destination.read_if_there(name + SUFFIX)
        if proof is not None:  # the worker died when all was done
            return list(from_lines(proof))
        begun = self.destination.read_if_there(name + BEGUN)
        if begun is None:
            self._note_begun(name, [], None)
            records = self._code(pictures)
        else:
            records = self._code_carefully(name, pictures, json.loads(begun))
        # What an earlier run made of a picture that fails now would pass for its own.
        wrong = [record["output"] for record in records if record["status"] != OK]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self.destination.delete, wrong))
        self.destination.write(name + SUFFIX, "".join(map(to_line, records)).encode())
        return records

    def _note_begun(self, name: str, fatal: list[int], at: int | None) -> None:
        note = json.dumps({"fatal": fatal, "at": at}).encode()
        self.destination.write(name + BEGUN, note)

    def _code_carefully(
        self, name: str, pictures: Sequence[Picture], begun: dict[str, Any]
    ) -> list[Record]:
        """As `_code` after a worker died in this unit: one picture after the other, and one that a
        second worker dies of is left out. Else it would end all workers, one by one."""
        fatal: list[int] = begun["fatal"] + ([] if begun["at"] is None else [begun["at"]])
        records = []
        for number, picture in enumerate(pictures):
            if number in fatal:
                why = "its worker died twice while it was coded (out of memory?)"
                known = self._known(picture, None)
                records.append(failed(f"{known['input']}: {why}; code it alone", **known))
                continue
            self._note_begun(name, fatal, number)
            records += self._code([picture])
        return records

    def _code(self, pictures: Sequence[Picture]) -> list[Record]:
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(THREADS) as pool:
            places = [Path(folder, f"{i}{Path(p.source).suffix}") for i, p in enumerate(pictures)]
            fetched = list(pool.map(self._fetch, pictures, places))
            records: dict[int, Record] = {}
            wanted: list[tuple[int, Path, str]] = []
            for number, (picture, result) in enumerate(zip(pictures, fetched, strict=True)):
                if isinstance(result, PicsnetError):
                    records[number] = failed(str(result), **self._known(picture, None))
                    continue
                path, key = result
                if (kept := self._kept(picture, key)) is not None:
                    records[number] = kept
                else:
                    wanted.append((number, path, key))
            results = self._encode([path for _, path, _ in wanted])
            files: list[tuple[str, bytes]] = []
            for (number, path, key), coding in zip(wanted, results, strict=True):
                known = self._known(pictures[number], key)
                if isinstance(coding, PicsnetError):
                    why = str(coding).replace(str(path), known["input"])
                    records[number] = failed(why, **known)
                else:
                    records[number] = coded(coding.record, coding.data, **known)
                    files.append((pictures[number].target, coding.data))
            list(pool.map(lambda file: self.destination.write(*file), files))
        return [records[number] for number in range(len(pictures))]

    def _encode(self, paths: Sequence[Path]) -> list[Coded | PicsnetError]:
        size = self.job.batch
        return [
            result
            for start in range(0, len(paths), size)
            for result in self.encoder.encode(paths[start : start + size])
        ]

    def _fetch(self, picture: Picture, place: Path) -> tuple[Path, str] | PicsnetError:
        """Where a picture lies now, and its key."""
        try:
            path = self.source.fetch(picture.source, place)
            return path, content_key(self.job.digest, path.read_bytes(), None)
        except PicsnetError as error:
            return error
        except OSError as error:
            url = f"{self.job.source}/{picture.source}"
            return PicsnetError(f"{url}: cannot be read ({error.strerror}); check your rights")

    def _kept(self, picture: Picture, key: str) -> Record | None:
        """An earlier run's record, where it is of the same bytes and its file is there."""
        before = picture.before
        if before is None or before["key"] != key:
            return None
        data = self.destination.read_if_there(picture.target)
        if data is None or hashlib.sha256(data).hexdigest() != before["sha256"]:
            return None
        return {**before, **self._known(picture, key)}

    def _known(self, picture: Picture, key: str | None) -> Record:
        return {
            "input": f"{self.job.source}/{picture.source}",
            "output": picture.target,
            "key": key,
            "settings": self.job.digest,
            "version": picture.version,
        }
