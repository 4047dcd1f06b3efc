"""Each limit of the service, by a real server that serves sketches alone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.types import Message

from benchmarks.service import Service, settle
from picsnet.bitstream import PicsFile, SketchLayer, write
from picsnet.cli import main
from picsnet.errors import ImageError
from picsnet.serve.app import make_app
from picsnet.serve.edge import Edge
from picsnet.serve.engine import Engine
from picsnet.serve.metrics import Metrics
from picsnet.serve.pool import Pool, _Worker
from picsnet.serve.refusals import Refusal
from picsnet.serve.settings import Limits, Models
from tests.conftest import REPOSITORY
from tests.test_cli import photograph
from tests.test_serve import RAW, png, until, until_counted

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are found by /proc")
PHOTO = png(photograph(0, (64, 48)))
LIMITS = (
    "--queue", "2", "--max-body", "0.25", "--max-pixels", "2000000", "--body-timeout", "4",
    "--max-connections", "16", "--max-per-client", "2", "--max-connections-per-client", "12",
    "--write-timeout", "2",
)  # fmt: skip


@contextlib.contextmanager
def serving(*limits: str) -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        with Service("--decoder", "none", *LIMITS, *limits) as running:
            yield running


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """What is in work or waits stays there, however slow the machine that tests."""
    with serving("--timeout", "200", "--max-wait", "100") as running:
        yield running


@pytest.fixture(scope="module")
def hasty() -> Iterator[Service]:
    """It waits for nothing for long."""
    with serving("--timeout", "16", "--max-wait", "3") as running:
        yield running


class Sender(threading.Thread):
    """A request of its own client, as a proxy on this machine would pass it on."""

    def __init__(self, service: Service, client: str) -> None:
        super().__init__()
        self.service, self.headers = service, {**RAW, "x-forwarded-for": client}
        self.response: httpx.Response | None = None
        self.start()

    def __repr__(self) -> str:
        answer = self.response and (self.response.status_code, self.response.text)
        return f"{self.headers['x-forwarded-for']}: {answer}"

    def run(self) -> None:
        self.response = post(self.service, self.headers)

    def answer(self) -> httpx.Response:
        self.join()
        assert self.response is not None
        return self.response


def post(service: Service, headers: dict[str, str] = RAW, body: bytes = PHOTO) -> httpx.Response:
    return httpx.post(f"{service.address}/v1/encode", content=body, headers=headers, timeout=300)


@contextlib.contextmanager
def stopped_worker(service: Service) -> Iterator[int]:
    """What is given to it stays in work."""
    (worker,) = service.workers()
    os.kill(worker, signal.SIGSTOP)
    try:
        yield worker
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGCONT)
        settle(service.address)


def connect(service: Service, source: str = "127.0.0.1") -> socket.socket:
    host, port = service.address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30, source_address=(source, 0))


def head(length: int | None) -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    kind = "Content-Type: application/octet-stream"
    return f"POST /v1/encode HTTP/1.1\r\nHost: x\r\n{kind}\r\n{size}\r\n\r\n".encode()


def kept_open(connection: socket.socket) -> bool:
    """Whether the server has its side of it open."""
    port = f":{connection.getsockname()[1]:04X}"
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()]
    return any(row[2].endswith(port) and row[3] == "01" for row in rows)  # established


def status_of(connection: socket.socket) -> int:
    return int(connection.makefile("rb").readline().split()[1])


def test_a_body_over_the_limit_is_refused_before_it_is_read(service: Service) -> None:
    with connect(service) as connection:
        connection.sendall(head(2**40))
        assert status_of(connection) == 413
    # Without its length, and without an end: refused while it comes.
    with connect(service) as connection:
        connection.sendall(head(None))
        chunk = b"4000\r\n" + bytes(2**14) + b"\r\n"
        for _ in range(17):  # 272 KiB
            connection.sendall(chunk)
        assert status_of(connection) == 413
    form = httpx.post(
        f"{service.address}/v1/encode", files={"file": bytes(2**19)}, data={"mode": "sketch"}
    )
    assert form.status_code == 413 and "0.25 MiB" in form.json()["error"]


@pytest.mark.parametrize("decoder", ["none", "miniature"])
def test_the_least_limit_of_pixels_lets_it_start(decoder: str, miniature_decoder: Path) -> None:
    name = str(miniature_decoder) if decoder == "miniature" else decoder
    settings = ("size=128", "steps=1") if decoder == "miniature" else ()
    engine = Engine(Models(None, name, settings, prompt_from="none", max_pixels=256))
    asked = {"quality": None, "mode": "sketch", "parts": False}
    _, files = engine.encode(png(photograph(0, (16, 16))), asked)
    figures, _ = engine.decode(
        files["pics"], {"sketch_only": True, "partial": False, "parts": False}
    )
    assert (figures["width"], figures["height"]) == (16, 16)
    with pytest.raises(ImageError, match="272 pixels"):
        engine.encode(png(photograph(0, (17, 16))), asked)


def test_a_body_that_dawdles_is_refused(service: Service) -> None:
    with connect(service) as connection:
        connection.sendall(head(1000) + b"x")
        assert status_of(connection) == 408
    settle(service.address)


def test_a_full_queue_says_when_to_come_back(service: Service) -> None:
    with stopped_worker(service):
        first = Sender(service, "10.0.0.1")
        until_counted(service, first, in_work=1)
        others = [Sender(service, "10.0.0.2"), Sender(service, "10.0.0.3")]
        until_counted(service, first, *others, queue_length=2)
        refused = post(service, {**RAW, "x-forwarded-for": "10.0.0.4"})
        assert refused.status_code == 503 and "queue is full" in refused.json()["error"]
        assert int(refused.headers["retry-after"]) >= 1
        assert httpx.get(f"{service.address}/healthz").status_code == 200  # alive all the same
    assert [sender.answer().status_code for sender in (first, *others)] == [200, 200, 200]


def test_who_waits_too_long_is_told_so(hasty: Service) -> None:
    with stopped_worker(hasty):
        first = Sender(hasty, "10.0.0.1")
        until_counted(hasty, first, in_work=1)
        late = Sender(hasty, "10.0.0.2")
        assert late.answer().status_code == 503
        assert "waited 3 s" in late.answer().json()["error"]
    first.answer()


def test_one_client_cannot_take_all_places(service: Service) -> None:
    with stopped_worker(service):
        senders = [Sender(service, "10.0.1.1"), Sender(service, "10.0.1.1")]
        until_counted(service, *senders, in_work=1, queue_length=1)
        refused = post(service, {**RAW, "x-forwarded-for": "10.0.1.1"})
        assert refused.status_code == 429 and "2 requests of this client" in refused.text
        senders.append(Sender(service, "10.0.1.2"))
        until_counted(service, *senders, queue_length=2)
    assert [sender.answer().status_code for sender in senders] == [200, 200, 200]
    assert post(service, {**RAW, "x-forwarded-for": "10.0.1.1"}).status_code == 200


def test_who_hangs_up_leaves_the_queue(service: Service) -> None:
    with stopped_worker(service):
        first = Sender(service, "10.0.2.1")
        until_counted(service, first, in_work=1)
        with connect(service) as connection:
            connection.sendall(head(len(PHOTO)) + PHOTO)
            until_counted(service, queue_length=1)
        until_counted(service, queue_length=0)
        # In work it keeps its slot until that ends.
        with connect(service) as connection:
            connection.sendall(head(len(PHOTO)) + PHOTO[:10])
            until_counted(service, receiving=1)
        until_counted(service, receiving=0)
    assert first.answer().status_code == 200


def test_work_that_takes_too_long_is_stopped(hasty: Service) -> None:
    restarts = 'picsnet_worker_restarts_total{reason="timeout"}'
    pictures = Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    )
    with stopped_worker(hasty) as worker:
        response = post(hasty, body=png(pictures))
        assert response.status_code == 504 and "more than 16 s" in response.json()["error"]
        until(lambda: worker not in hasty.workers())  # truly
        until(lambda: httpx.get(f"{hasty.address}/readyz").status_code == 200)
        assert hasty.workers() != [worker]
    assert post(hasty).status_code == 200
    assert restarts in httpx.get(f"{hasty.address}/metrics").text
    assert any("was replaced: timeout" in line for line in hasty.lines)


def test_connections_beyond_the_limit_are_told_so(service: Service) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(16):
            stack.enter_context(connect(service, f"127.0.0.{2 + number % 2}"))
        refused = httpx.get(f"{service.address}/healthz")
        assert refused.status_code == 503 and "too many connections" in refused.json()["error"]
        assert refused.headers["x-content-type-options"] == "nosniff"
    until(lambda: httpx.get(f"{service.address}/healthz").status_code == 200)


def test_one_address_cannot_take_all_connections(service: Service) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(connect(service, "127.0.0.2"))
        with connect(service, "127.0.0.2") as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert status_of(connection) == 429
        until(lambda: httpx.get(f"{service.address}/healthz").status_code == 200)


def test_who_does_not_read_loses_its_connection(service: Service) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = service.address.removeprefix("http://").split(":")
        connection.connect((host, int(port)))
        # More than sockets buffer.
        connection.sendall(b"GET /static/page.js HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        until(lambda: not kept_open(connection), 10)


async def _never(*_: object) -> None:
    """Stands for a worker that is still loading."""
    await asyncio.Event().wait()


def test_a_place_is_kept_until_the_answer_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picsnet.serve.pool._Worker.start", _never)
    file = write(PicsFile(64, 64, None, SketchLayer(b"\0\1\2", b"")))
    scope = {
        "type": "http", "method": "POST", "path": "/v1/info", "raw_path": b"/v1/info",
        "query_string": b"", "headers": [], "client": ("10.0.0.1", 1), "scheme": "http",
    }  # fmt: skip

    async def play() -> None:
        limits, metrics = Limits(queue=0, max_per_client=0), Metrics()
        pool = Pool(Models(), limits, print, print)
        app = make_app(lambda: pool, limits, metrics)
        sending, reading = asyncio.Event(), asyncio.Event()
        statuses = []

        async def receive() -> Message:
            return {"type": "http.request", "body": file, "more_body": False}

        async def send(message: Message) -> None:
            statuses.append(message.get("status"))
            sending.set()
            await reading.wait()

        async def at_once(message: Message) -> None:
            statuses.append(message.get("status"))

        first = asyncio.create_task(app(scope, receive, send))
        await sending.wait()
        assert statuses == [200] and pool.count("sending") == 1
        await app(scope, receive, at_once)
        assert statuses[1] == 503
        reading.set()
        await first
        assert pool.count("sending") == 0
        statuses.clear()
        await app(scope, receive, at_once)
        assert statuses[0] == 200
        await pool.stop()

    asyncio.run(play())


def test_a_body_that_still_comes_is_refused_where_the_service_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("picsnet.serve.pool._Worker.start", _never)
    scope = {
        "type": "http", "method": "POST", "path": "/v1/info", "raw_path": b"/v1/info",
        "query_string": b"", "headers": [], "client": ("10.0.0.1", 1), "scheme": "http",
    }  # fmt: skip

    async def play() -> list[Message]:
        limits, metrics = Limits(), Metrics()
        pool = Pool(Models(), limits, print, print)
        app = make_app(lambda: pool, limits, metrics)
        reading, sent = asyncio.Event(), []

        async def receive() -> Message:
            reading.set()
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Message) -> None:
            sent.append(message)

        request = asyncio.create_task(app(scope, receive, send))
        await reading.wait()
        assert pool.count("receiving") == 1
        pool.drain()
        await asyncio.wait_for(request, 5)
        assert pool.count("receiving") == 0
        await pool.stop()
        return sent

    start, end = asyncio.run(play())
    assert start["status"] == 503 and "the server is stopping" in end["body"].decode()


@pytest.mark.parametrize("how", ["waited too long", "hung up", "stopping"])
def test_who_has_just_left_the_queue_has_no_place_in_it(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picsnet.serve.pool._Worker.start", _never)

    async def play() -> list[Any]:
        pool = Pool(
            Models(), Limits(max_wait=0.05 if how == "waited too long" else 60), print, print
        )
        places = []
        with pool.admit("request-1", "10.0.0.1") as ticket:
            work = asyncio.create_task(pool.submit(ticket, {}, b"", "encode sketch"))
            await asyncio.sleep(0)
            if how == "hung up":
                work.cancel()
            elif how == "stopping":
                places.append((pool.progress("request-1") or {})["place"])
                pool.drain()
            while not work.done():
                places.append((pool.progress("request-1") or {})["place"])
                await asyncio.sleep(0)
            places.append((pool.progress("request-1") or {})["place"])
        assert pool.progress("request-1") is None
        await asyncio.gather(work, return_exceptions=True)
        await pool.stop()
        return places

    places = asyncio.run(play())
    assert places[0] == 1 and places[-1] is None and set(places) == {1, None}


def test_a_fault_of_the_server_is_json_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("picsnet.serve.pool._Worker.start", _never)

    async def play() -> httpx.Response:
        limits, metrics = Limits(), Metrics()
        pool = Pool(Models(), limits, print, print)
        monkeypatch.setattr(pool, "progress", lambda name: 1 // 0)
        app = Edge(make_app(lambda: pool, limits, metrics), metrics, print)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://x"
        ) as client:
            answer = await client.get("/v1/requests/request-1")
        await pool.stop()
        return answer

    answer = asyncio.run(play())
    assert answer.status_code == 500
    assert answer.json() == {"error": "the server could not do this; its log says why"}
    assert answer.headers["x-content-type-options"] == "nosniff"
    told = capsys.readouterr().out
    assert "GET progress: ZeroDivisionError" in told and "in <lambda>" in told


def test_requests_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    start = asyncio.create_subprocess_exec

    async def echo(*command: str, **options: Any) -> asyncio.subprocess.Process:
        return await start(sys.executable, "-c", _ECHO, **options)

    monkeypatch.setattr("asyncio.create_subprocess_exec", echo)

    def futures() -> int:
        gc.collect()
        return sum(issubclass(type(one), asyncio.Future) for one in gc.get_objects())

    async def play() -> list[int]:
        pool = Pool(Models(), Limits(), print, print)
        counts = []
        for number in range(101):
            with pool.admit("request-1", "10.0.0.1") as ticket:
                await pool.submit(ticket, {}, b"", "encode sketch")
            if number % 50 == 0:
                counts.append(futures())
        await pool.stop()
        return counts

    first, *rest = asyncio.run(play())
    assert max(rest) < first + 10


_ECHO = """
import sys
from picsnet.serve.frames import pack, receive
sys.stdout.buffer.write(pack({"about": {}}))
sys.stdout.flush()
receive(sys.stdin.buffer)
while receive(sys.stdin.buffer):
    sys.stdout.buffer.write(pack({"figures": {}, "files": []}))
    sys.stdout.flush()
"""


def test_what_is_no_http_is_refused_in_json(service: Service) -> None:
    with connect(service) as connection:
        connection.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400") and answer.endswith(b'HTTP request"}')


def test_a_worker_that_dies_costs_one_request_and_the_next_is_loaded(service: Service) -> None:
    (worker,) = service.workers()
    os.kill(worker, signal.SIGSTOP)
    sender = Sender(service, "10.0.3.1")
    until_counted(service, sender, in_work=1)
    os.kill(worker, signal.SIGKILL)
    answer = sender.answer()
    assert answer.status_code == 500
    assert answer.json() == {"error": "the server could not do this; its log says why"}
    until(lambda: service.workers() not in ([], [worker]))
    assert httpx.get(f"{service.address}/readyz").status_code == 503
    assert service.stop() == 0  # while models are loading, too
    assert any("was replaced: died" in line for line in service.lines)
    assert not any("Traceback" in line for line in service.lines)


def test_it_stops_though_nobody_reads_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    command = [sys.executable, "-m", "picsnet", "serve", "--port", "0", "--decoder", "none"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    address = process.stderr.readline().split()[3].rstrip(",")
    process.stderr.close()

    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{address}/healthz").status_code == 200
        return False

    try:
        until(answers)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()


def test_a_worker_that_cannot_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    start, tries = asyncio.create_subprocess_exec, 0

    async def flaky(*command: str, **options: Any) -> asyncio.subprocess.Process:
        nonlocal tries
        tries += 1
        if tries == 2:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return await start(sys.executable, "-c", _WORKER, **options)

    monkeypatch.setattr("asyncio.create_subprocess_exec", flaky)
    lines: list[str] = []

    async def play() -> None:
        pool = Pool(Models(), Limits(), lines.append, print)
        for number in range(2):
            async with asyncio.timeout(10):
                while not (pool.ready and tries == 1 + 2 * number):
                    await asyncio.sleep(0.01)
            os.kill(pool.processes[0], signal.SIGKILL)
        assert not pool.failed.done()
        await pool.stop()

    asyncio.run(play())
    assert any("cannot be started (Resource temporarily unavailable)" in line for line in lines)
    assert any(line.endswith("trying again in 1 s") for line in lines)


_WORKER = """
import sys, time
from picsnet.serve.frames import pack
sys.stdout.buffer.write(pack({"about": {}}))
sys.stdout.flush()
time.sleep(60)
"""


def test_work_that_outlasts_the_grace_is_told_when_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = asyncio.create_subprocess_exec

    async def idle(*command: str, **options: Any) -> asyncio.subprocess.Process:
        return await start(sys.executable, "-c", _WORKER, **options)

    monkeypatch.setattr("asyncio.create_subprocess_exec", idle)

    async def play() -> Refusal:
        pool = Pool(Models(), Limits(grace=0), print, print)
        with pool.admit("request-1", "10.0.0.1") as ticket:
            work = asyncio.create_task(pool.submit(ticket, {}, b"", "encode sketch"))
            async with asyncio.timeout(10):
                while not pool.count("working"):
                    await asyncio.sleep(0.01)
            pool.drain()
            with pytest.raises(Refusal) as refusal:
                await work
        await pool.stop()
        return refusal.value

    refusal = asyncio.run(play())
    assert (refusal.status, refusal.retry_after) == (503, 10)


def test_a_worker_that_is_killed_twice_is_told_so_once() -> None:
    kills = []

    class Process:
        def kill(self) -> None:
            kills.append(1)

        async def wait(self) -> int:
            return -9

    async def play() -> None:
        worker = _Worker(Process())  # type: ignore[arg-type]
        worker.kill_now()  # the grace is over
        await worker.kill()

    asyncio.run(play())
    assert kills == [1]


def test_a_first_worker_that_cannot_be_started_ends_the_service(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("asyncio.create_subprocess_exec", fail)
    assert main(["serve", "--port", "0", "--decoder", "none", "--quiet"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("picsnet: error: a worker cannot be started (Cannot allocate memory);")


def test_a_fault_that_ends_a_worker_s_loop_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fault(*_: object) -> None:
        raise KeyError("about")

    monkeypatch.setattr("picsnet.serve.pool._Worker.start", fault)
    lines: list[str] = []

    async def play() -> int:
        limits, metrics = Limits(), Metrics()
        pool = Pool(Models(), limits, lines.append, print)
        await asyncio.wait_for(asyncio.shield(pool.failed), 10)
        app = make_app(lambda: pool, limits, metrics)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://x"
        ) as client:
            return (await client.get("/healthz")).status_code

    assert asyncio.run(play()) == 503
    assert lines == ["a worker's loop ended: KeyError: 'about'; start the service again"]
