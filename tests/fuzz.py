"""Files that nobody wrote: ``python -m tests.fuzz --count 100000``, or ``make fuzz``.

Mutated, truncated, spliced and random files go through all that reads a file: the container, the
text layer, the sketch's symbols and its synthesis. Each must end in a picsnet error or a picture,
within two seconds and 512 MiB. A case is a function of the seed and its number, so any can be made
again; those that fail are kept.

Memory is measured by Linux's /proc, so this runs there only.

Half of the cases have their checksums mended: what a checksum stops at the door never reaches the
decoders behind it.
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from picsnet.bitstream import MAGIC, VERSION, PicsFile, SketchLayer, layer_bytes, read, write
from picsnet.checkpoints import SketchModel
from picsnet.codec import SketchCodec
from picsnet.errors import PicsnetError
from picsnet.terminal import printable
from picsnet.textlayer import read_head, read_text
from tests.vectors import FOLDER, index, models, token_coder

SECONDS = 2.0
MEBIBYTES = 512
MAX_PIXELS = 2**20
"""Pictures of more are refused, as `picsnet decode --max-pixels` does: time and memory are those
of the picture that a file names, and a file of ten bytes may name 8192x8192."""


class Reader:
    """All that reads files, with the test vectors' models."""

    def __init__(self, known: dict[bytes, SketchModel]) -> None:
        self.codecs = {key: SketchCodec(model) for key, model in known.items()}
        self.coder = token_coder()

    def __call__(self, data: bytes) -> str:
        """Read a file as far as it goes; returns what it ended in.

        Raises:
            Exception: anything but a picsnet error is a finding.
        """
        outcome = ""
        for partial in (False, True):
            try:
                file = read(data, name="fuzz", partial=partial, max_pixels=MAX_PIXELS)
                if not partial:
                    assert sum(layer_bytes(data).values()) == len(data)
                outcome = self._contents(file)
            except PicsnetError as error:
                message = str(error)
                assert message and "\n" not in message, f"not one line: {message!r}"
                assert printable(message) == message
                outcome = outcome or type(error).__name__
            else:
                break
        return outcome

    def _contents(self, file: PicsFile) -> str:
        if file.text is not None:
            head = read_head(file.text, "fuzz")
            layer = read_text(file.text, self.coder, "fuzz")
            assert layer.head == head
            assert all(0 <= one < self.coder.size for one in layer.ids)
        if file.sketch is None:
            return "prompt"
        codec = self.codecs.get(file.sketch.fingerprint)
        if codec is None:
            return "unknown model"
        decoded = codec.decode_stream(file.sketch.stream, file.height, file.width, "fuzz")
        assert decoded.shape == (file.height, file.width)
        assert decoded.dtype == np.uint8
        return "picture"


def corpus() -> list[bytes]:
    """The files that cases start from."""
    return [(FOLDER / name).read_bytes() for name in sorted(index())]


def case(seeds: list[bytes], seed: int, number: int) -> bytes:
    """The file of a case."""
    rng = np.random.default_rng([seed, number])
    kind = rng.random()
    if kind < 0.05:
        return _random(rng)
    data = seeds[rng.integers(len(seeds))]
    if kind < 0.50:
        return _mended(rng, data, seeds)
    for _ in range(int(rng.geometric(0.5))):
        data = _mutated(rng, data, seeds)
    return data


def _random(rng: np.random.Generator) -> bytes:
    data = rng.bytes(int(rng.integers(0, 300)))
    # Mostly behind a head that is let in: bytes without one end at the first of them.
    if rng.random() < 0.8:
        data = bytes([MAGIC, VERSION << 4 | int(rng.integers(1, 4))]) + data
    return data


def _mutated(rng: np.random.Generator, data: bytes, seeds: list[bytes]) -> bytes:
    """One change somewhere: bits, bytes, a cut, a gap, a repetition, a piece of another file."""
    out = bytearray(data)
    at = int(rng.integers(0, len(out) + 1))
    length = int(min(rng.geometric(0.1), len(out) - at))
    choice = int(rng.integers(8))
    if choice == 0 and out:
        place = int(rng.integers(len(out)))
        out[place] ^= 1 << int(rng.integers(8))
    elif choice == 1 and out:
        out[int(rng.integers(len(out)))] = int(rng.choice([0, 1, 127, 128, 254, 255]))
    elif choice == 2:
        out = out[:at]
    elif choice == 3:
        del out[at : at + length]
    elif choice == 4:
        out[at:at] = rng.bytes(int(rng.geometric(0.2)))
    elif choice == 5:
        out[at:at] = out[at : at + length] * int(rng.integers(1, 4))
    elif choice == 6:
        other = seeds[rng.integers(len(seeds))]
        out = out[:at] + bytearray(other[int(rng.integers(0, len(other) + 1)) :])
    else:
        out[at : at + length] = rng.bytes(length)
    return bytes(out)


def _mended(rng: np.random.Generator, data: bytes, seeds: list[bytes]) -> bytes:
    """A whole file with valid checksums whose contents were changed."""
    file = read(data)
    width, height, text, sketch = file.width, file.height, file.text, file.sketch
    if rng.random() < 0.3:
        # Mostly small, sometimes beyond what is let in.
        top = 9 if rng.random() < 0.9 else 13
        width, height = (int(2 ** rng.uniform(4, top)) for _ in range(2))
    if text is not None and rng.random() < 0.7:
        text = _mutated(rng, text, [seed for seed in seeds if len(seed) < 200])[:255]
    if sketch is not None:
        fingerprint, stream = sketch.fingerprint, sketch.stream
        if rng.random() < 0.05:
            fingerprint = rng.bytes(3)
        for _ in range(int(rng.geometric(0.6)) - 1):
            stream = _mutated(rng, stream, seeds)
        if rng.random() < 0.1:
            stream = rng.bytes(int(rng.integers(0, 400)))
        sketch = SketchLayer(fingerprint, stream)
    return write(PicsFile(width, height, text, sketch))


@dataclass(frozen=True)
class Finding:
    """A case that did not end as it should.

    Attributes:
        number: of the case.
        why: what went wrong.
    """

    number: int
    why: str


@dataclass
class Tally:
    """What a run of cases came to.

    Attributes:
        outcomes: how many cases ended in what.
        findings: those that should not have.
        slowest: seconds, and the number of the case.
        most: MiB that a case took at its peak, over what the process had before it.
    """

    outcomes: collections.Counter[str]
    findings: list[Finding]
    slowest: tuple[float, int]
    most: float


def run(numbers: range, seed: int) -> Tally:
    """Cases one after the other, in this process."""
    torch.set_num_threads(1)
    seeds, reader = corpus(), Reader(models())
    for data in seeds:
        reader(data)  # what is loaded or compiled at first use is not a case's own
    tally = Tally(collections.Counter(), [], (0.0, -1), 0.0)
    for number in numbers:
        data = case(seeds, seed, number)
        before = _memory_now()
        # This process's own time: another's load on the machine is no finding.
        start = time.process_time()
        try:
            tally.outcomes[reader(data)] += 1
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of the coder's is no Exception
            tally.findings.append(Finding(number, f"{type(error).__name__}: {error}"[:300]))
        seconds = time.process_time() - start
        tally.slowest = max(tally.slowest, (seconds, number))
        if seconds > SECONDS:
            tally.findings.append(Finding(number, f"took {seconds:.1f} s"))
        most = _memory_peak() - before
        if most > MEBIBYTES:
            tally.findings.append(Finding(number, f"took {most:.0f} MiB"))
        tally.most = max(tally.most, most)
    return tally


def _memory_now() -> float:
    """MiB that this process holds; `_memory_peak` counts from here on.

    getrusage's peak is that of the process's whole life: behind one large allocation, whoever made
    it, all later ones would hide.
    """
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back (Linux, proc(5))
    return _status("VmRSS")


def _memory_peak() -> float:
    """The most MiB that this process held since `_memory_now`."""
    return _status("VmHWM")


def _status(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def _run_chunk(job: tuple[int, int, int]) -> Tally:
    start, stop, seed = job
    return run(range(start, stop), seed)


def _chunks(count: int, seed: int, size: int = 2000) -> Iterator[tuple[int, int, int]]:
    for start in range(0, count, size):
        yield start, min(start + size, count), seed


def main() -> int:
    """Run many, print a summary, keep what failed; exit status 1 if anything did."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=Path("out/fuzz"))
    args = parser.parse_args()
    start = time.perf_counter()
    whole = Tally(collections.Counter(), [], (0.0, -1), 0.0)
    jobs = list(_chunks(args.count, args.seed))
    context = multiprocessing.get_context("spawn")
    # A fresh process for every chunk: what one leaks does not slow the next.
    with context.Pool(args.workers, maxtasksperchild=1) as pool:
        for part in tqdm(pool.imap_unordered(_run_chunk, jobs), total=len(jobs), unit="chunk"):
            whole.outcomes += part.outcomes
            whole.findings += part.findings
            whole.slowest = max(whole.slowest, part.slowest)
            whole.most = max(whole.most, part.most)
    args.output.mkdir(parents=True, exist_ok=True)
    seeds = corpus()
    for finding in whole.findings:
        path = args.output / f"seed{args.seed}-case{finding.number}.pics"
        path.write_bytes(case(seeds, args.seed, finding.number))
        print(f"{path}: {finding.why}", file=sys.stderr)
    report = {
        "count": args.count,
        "seed": args.seed,
        "outcomes": dict(whole.outcomes.most_common()),
        "findings": [vars(finding) for finding in whole.findings],
        "slowest_seconds": round(whole.slowest[0], 3),
        "slowest_case": whole.slowest[1],
        "most_mebibytes": round(whole.most, 1),
        "seconds": round(time.perf_counter() - start, 1),
    }
    (args.output / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return int(bool(whole.findings))


if __name__ == "__main__":
    sys.exit(main())
