"""The service under load: mixed requests from a second process on loopback.

    python benchmarks/service.py
    python benchmarks/service.py --decoder picsnet-mini --requests 40 --concurrency 4

Starts ``picsnet serve`` on a free port, and sends it a fixed mix: photographs to code, files to
decode and to describe, and among them damaged files and pictures, bodies over the limit (announced
and not), decompression bombs, wrong types and parameters, and clients that hang up. Every request
has one answer that is right. Then a burst goes beyond the queue, and each of it has to be answered
or told to come back. Memory is what /proc says the server and its workers hold, after a quarter of
the requests and at the end. Writes ``out/service.json`` and prints a table.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from picsnet.bitstream import PicsFile, SketchLayer, read, write
from picsnet.errors import PicsnetError, ServiceError
from picsnet.files import atomic_write
from picsnet.samples import sample_files

MAX_BODY_MIB = 0.5
MAX_PIXELS = 2**20
START_SECONDS = 120.0
GONE = 0
"""In place of a status: the client hung up and expects nothing."""


class Service:
    """A running ``picsnet serve``.

    Args:
        options: of the verb, beside the port.

    Raises:
        ServiceError: it does not start.
    """

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "picsnet", "serve", "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._ready = threading.Event()
        self.address = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._ready.wait(START_SECONDS) or self.process.poll() is not None:
            self.process.kill()
            raise ServiceError(f"picsnet serve does not start: {' / '.join(self.lines)}")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))
            if found := re.search(r"ready on (http://\S+)", line):
                self.address = found[1]
                self._ready.set()
        self._ready.set()

    def workers(self) -> list[int]:
        """The processes that hold the models."""
        own = self.process.pid
        return [int(pid) for pid in Path(f"/proc/{own}/task/{own}/children").read_text().split()]

    def resident(self) -> dict[str, float]:
        """MiB that the server and its workers hold."""
        of_workers = sum(map(_resident, self.workers()))
        return {"server": _resident(self.process.pid), "workers": of_workers}

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self._reader.join(10)
        return status

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(10)


def _resident(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 2**10 if found else 0.0


@dataclass(frozen=True)
class Case:
    """A request and its right answer.

    Attributes:
        kind: of request, in words.
        verb: of the API.
        body: to send.
        status: that is right; `GONE` for clients that hang up.
        query: parameters.
        content_type: of the body.
        chunked: sent without its length.
        hang_up: "" no, "body" in its middle, "answer" when all is sent.
    """

    kind: str
    verb: str
    body: bytes
    status: int
    query: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/octet-stream"
    chunked: bool = False
    hang_up: str = ""


@dataclass
class Outcome:
    """What became of a case: its status, or `GONE`; seconds; what is wrong with the answer."""

    case: Case
    status: int
    seconds: float
    wrong: str = ""


def photographs(count: int, side: int) -> list[bytes]:
    """JPEG photographs of different small sizes, out of the samples."""
    paths = list(sample_files().values())
    if not paths:
        raise ServiceError("no sample photographs here; install scikit-image")
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        picture = Image.open(paths[number % len(paths)]).convert("RGB")
        width, height = (int(side * share) for share in rng.uniform(0.6, 1.0, 2))
        buffer = io.BytesIO()
        picture.resize((width, height)).save(buffer, format="JPEG", quality=85)
        found.append(buffer.getvalue())
    return found


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that names a huge picture, and has its rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((8, 2, 0, 0, 0))
    rows = zlib.compress(bytes(min(2**24, (3 * width + 1) * height)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def cases(
    pictures: Sequence[bytes], files: Sequence[bytes], options: dict[str, str], count: int
) -> list[Case]:
    """The mix, always the same: of ten requests some four are to be done, and six are not.

    Args:
        pictures: good photographs.
        files: good .pics files.
        options: of coding the photographs.
        count: how many requests.
    """
    rng = np.random.default_rng(7)
    huge = rng.bytes(int(1.5 * MAX_BODY_MIB * 2**20))
    fingerprint = next(one.sketch.fingerprint for one in map(read, files) if one.sketch)
    black = write(PicsFile(8192, 8192, None, SketchLayer(fingerprint, b"")))
    strange = write(PicsFile(64, 64, None, SketchLayer(b"\0\1\2", b"")))
    png_bomb, page = bomb(30000, 30000), b"<!doctype html><title>no</title>" * 20
    made = []
    for number in range(count):
        picture, file = pictures[number % len(pictures)], files[number % len(files)]
        damaged = bytearray(file)
        damaged[rng.integers(4, len(file))] ^= int(rng.integers(1, 256))
        cut = file[: int(rng.integers(1, len(file)))]
        half = picture[: len(picture) // 2]
        good = [
            Case("photograph", "encode", picture, 200, options),
            Case("file", "decode", file, 200),
            Case("file's contents", "info", file, 200),
        ]
        bad = [
            Case("damaged file", "decode", bytes(damaged), 422),
            Case("cut file", "info", cut, 422),
            Case("cut photograph", "encode", half, 422, options),
            Case("no picture", "encode", page, 415, options),
            Case("wrong type", "encode", picture, 415, options, "text/html"),
            Case("wrong parameter", "encode", picture, 400, {"quality": "much"}),
            Case("body over the limit", "encode", huge, 413, options),
            Case("same, without its length", "encode", huge, 413, options, chunked=True),
            Case("picture bomb", "encode", png_bomb, 413, options),
            Case("file bomb", "decode", black, 413),
            Case("unknown model", "decode", strange, 422),
            Case("hangs up in its body", "encode", picture, GONE, options, hang_up="body"),
            Case("hangs up waiting", "encode", picture, GONE, options, hang_up="answer"),
        ]
        made.append(good[number % 3] if number % 10 < 4 else bad[number % len(bad)])
    return [made[i] for i in rng.permutation(count)]


async def send_all(address: str, todo: Sequence[Case], concurrency: int) -> list[Outcome]:
    """Send cases, so many at once."""
    turn = asyncio.Semaphore(concurrency)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as client:

        async def one(case: Case) -> Outcome:
            async with turn:
                start = time.perf_counter()
                try:
                    if case.hang_up:
                        await _hang_up(address, case)
                        status, wrong = GONE, ""
                    else:
                        status, wrong = await _send(client, case)
                except (httpx.HTTPError, OSError) as error:
                    status, wrong = -1, f"lost: {type(error).__name__} {error}"
                return Outcome(case, status, time.perf_counter() - start, wrong)

        return list(await asyncio.gather(*map(one, todo)))


async def _send(client: httpx.AsyncClient, case: Case) -> tuple[int, str]:
    async def pieces() -> Any:
        for start in range(0, len(case.body), 2**14):
            yield case.body[start : start + 2**14]

    response = await client.post(
        f"/v1/{case.verb}",
        params=case.query,
        content=pieces() if case.chunked else case.body,
        headers={"content-type": case.content_type},
    )
    return response.status_code, _fault(case, response)


def _fault(case: Case, response: httpx.Response) -> str:
    """What is wrong with an answer beside its status."""
    if response.status_code != 200:
        error = response.json().get("error", "")
        return (
            "" if error and "\n" not in error and "Traceback" not in error else "no one-line error"
        )
    if case.verb == "encode":
        read(response.content)
        size = int(response.headers["x-picsnet-bytes"])
        return "" if size == len(response.content) else "wrong count of bytes"
    if case.verb == "decode":
        picture, file = Image.open(io.BytesIO(response.content)), read(case.body)
        expected = picture.size if file.text is not None else (file.width, file.height)
        return "" if picture.format == "PNG" and picture.size == expected else "no such picture"
    return "" if response.json()["bytes"] == len(case.body) else "wrong count of bytes"


async def _hang_up(address: str, case: Case) -> None:
    url = httpx.URL(address)
    _, writer = await asyncio.open_connection(url.host, url.port)
    query = str(httpx.QueryParams(case.query))
    head = (
        f"POST /v1/{case.verb}?{query} HTTP/1.1\r\nHost: {url.host}\r\n"
        f"Content-Type: {case.content_type}\r\nContent-Length: {len(case.body)}\r\n\r\n"
    )
    body = case.body[: len(case.body) // 2] if case.hang_up == "body" else case.body
    writer.write(head.encode() + body)
    await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def counted(address: str) -> Counter[tuple[str, str]]:
    """What the server counted, by verb and status."""
    text = httpx.get(f"{address}/metrics").text
    pattern = r'picsnet_requests_total\{status="(\d+)",verb="(\w+)"\} (\S+)'
    return Counter({(v, s): int(float(n)) for s, v, n in re.findall(pattern, text)})


def gauges(address: str) -> dict[str, float]:
    """The values of /metrics that have no labels, of one moment."""
    text = httpx.get(f"{address}/metrics").text
    return {name: float(v) for name, v in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}


def gauge(address: str, name: str) -> float:
    """A value of /metrics."""
    return gauges(address).get(name, float("nan"))


def settle(address: str, seconds: float = 60) -> None:
    """Wait until nothing is in work: those who hung up may have left something there."""
    end = time.monotonic() + seconds
    names = ("picsnet_in_work", "picsnet_queue_length", "picsnet_receiving", "picsnet_sending")
    while time.monotonic() < end:
        now = gauges(address)
        if not any(now[name] for name in names):
            return
        time.sleep(0.05)


def not_adding_up(
    before: Counter[tuple[str, str]], after: Counter[tuple[str, str]], outcomes: Sequence[Outcome]
) -> list[str]:
    """Where the server's counts are not the clients'.

    Who hangs up waiting may have been answered before that was seen.
    """
    faults = []
    for verb in ("encode", "decode", "info"):
        own = [outcome for outcome in outcomes if outcome.case.verb == verb]
        answered = Counter(str(o.status) for o in own if o.status > 0)
        gone = sum(o.status == GONE for o in own)
        seen = Counter(
            {s: n - before[v, s] for (v, s), n in after.items() if v == verb and n > before[v, s]}
        )
        spare = seen["499"] + seen["200"] - answered["200"]
        del seen["499"], seen["200"], answered["200"]
        if seen != answered or spare != gone:
            faults.append(f"{verb}: server {dict(seen)}, clients {dict(answered)}, gone {gone}")
    return faults


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Start, load, burst, stop.

    Raises:
        ServiceError: the server does not start.
    """
    options = {"mode": "sketch"} if args.decoder == "none" else {"candidates": "2"}
    limits = ("--max-body", str(MAX_BODY_MIB), "--max-pixels", str(MAX_PIXELS))
    start = time.perf_counter()
    with Service(
        "--decoder", args.decoder, *limits, "--max-per-client", "0", "--queue", str(args.queue)
    ) as service:
        starting = time.perf_counter() - start
        address = service.address
        pictures = photographs(max(2, min(10, args.requests // 20)), args.side)
        files = [
            httpx.post(
                f"{address}/v1/encode", params=options, content=picture, timeout=120,
                headers={"content-type": "image/jpeg"},
            ).content
            for picture in pictures
        ]  # fmt: skip
        todo = cases(pictures, files, options, args.requests)
        before = counted(address)
        quarter = len(todo) // 4
        outcomes = asyncio.run(send_all(address, todo[:quarter], args.concurrency))
        settle(address)
        warm = service.resident()
        clock = time.perf_counter()
        outcomes += asyncio.run(send_all(address, todo[quarter:], args.concurrency))
        seconds = time.perf_counter() - clock
        settle(address)
        done = service.resident()
        faults = not_adding_up(before, counted(address), outcomes)
        burst = _burst(address, pictures, options, args.queue)
        settle(address)
        after = service.resident()
        status = service.stop()
    wrong = [o for o in outcomes if o.status != o.case.status or o.wrong]
    return {
        "decoder": args.decoder,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "requests": len(outcomes),
        "concurrency": args.concurrency,
        "side": args.side,
        "start_seconds": starting,
        "requests_per_second": len(todo[quarter:]) / seconds,
        "lost": sum(o.status < 0 for o in outcomes),
        "let_through": sum(o.status == 200 and o.case.status != 200 for o in outcomes),
        "wrong": [f"{o.case.kind}: {o.status} {o.wrong}" for o in wrong],
        "metrics_faults": faults,
        "resident_mib": {"warm": warm, "end": done, "after_burst": after},
        "burst": burst,
        "exit_status": status,
        "rows": _rows(outcomes),
    }


def _burst(
    address: str, pictures: Sequence[bytes], options: dict[str, str], queue: int
) -> dict[str, int]:
    """Answers to three times what the queue holds, all at once."""
    count = 3 * (queue + 1)
    todo = [
        Case("photograph", "encode", pictures[i % len(pictures)], 200, options)
        for i in range(count)
    ]
    outcomes = asyncio.run(send_all(address, todo, count))
    return {str(k): v for k, v in sorted(Counter(o.status for o in outcomes).items())}


def _rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    kinds = dict.fromkeys(o.case.kind for o in sorted(outcomes, key=lambda o: o.case.status))
    rows = []
    for kind in kinds:
        own = [o for o in outcomes if o.case.kind == kind]
        seconds = sorted(o.seconds for o in own)
        rows.append(
            {
                "kind": kind,
                "count": len(own),
                "right": own[0].case.status,
                "answers": {str(k): v for k, v in Counter(o.status for o in own).items()},
                "p50_seconds": statistics.median(seconds),
                "p95_seconds": seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))],
            }
        )
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Measure, report; returns the exit status: 1 where an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--decoder", default="none")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--queue", type=int, default=16)
    parser.add_argument("--side", type=int, default=192, help="of the photographs at most, pixels")
    parser.add_argument("-o", "--output", default="out/service.json")
    args = parser.parse_args(arguments)
    try:
        result = measure(args)
        with atomic_write(Path(args.output)) as part:
            part.write_text(json.dumps(result, indent=1) + "\n")
    except PicsnetError as error:
        print(f"service.py: error: {error}", file=sys.stderr)
        return error.exit_status
    _print(result)
    return 1 if result["wrong"] or result["metrics_faults"] else 0


def _print(result: dict[str, Any]) -> None:
    print(f"decoder {result['decoder']}, {result['concurrency']} at once, {result['cores']} cores")
    for row in result["rows"]:
        answers = ", ".join(f"{n} x {'gone' if s == '0' else s}" for s, n in row["answers"].items())
        print(
            f"{row['kind']:<22} {row['count']:>3}: {answers:<12} "
            f"p50 {1000 * row['p50_seconds']:7.0f} ms, p95 {1000 * row['p95_seconds']:7.0f} ms"
        )
    print(
        f"{result['requests_per_second']:.1f} requests/s; lost {result['lost']}, let through "
        f"{result['let_through']}, wrong {len(result['wrong'])}, "
        f"metrics {'do not add up' if result['metrics_faults'] else 'add up'}"
    )
    for text in [*result["wrong"][:5], *result["metrics_faults"]]:
        print(f"  {text}")
    for name, held in result["resident_mib"].items():
        print(f"{name:<12} server {held['server']:6.1f} MiB, worker {held['workers']:7.1f} MiB")
    print(f"burst: {result['burst']}; exit status {result['exit_status']}")


if __name__ == "__main__":
    sys.exit(main())
