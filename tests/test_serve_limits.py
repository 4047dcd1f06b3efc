"""Each limit of the service, by a real server that serves sketches alone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest
from PIL import Image

from benchmarks.service import Service, gauge, settle
from tests.conftest import REPOSITORY
from tests.test_cli import photograph
from tests.test_serve import RAW, png

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are found by /proc")
PHOTO = png(photograph(0, (64, 48)))
LIMITS = (
    "--queue", "2", "--max-body", "0.25", "--max-pixels", "2000000", "--timeout", "6",
    "--max-wait", "3", "--body-timeout", "1", "--max-connections", "8", "--max-per-client", "2",
)  # fmt: skip


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        with Service("--decoder", "none", *LIMITS) as running:
            yield running


class Sender(threading.Thread):
    """A request of its own client, as a proxy on this machine would pass it on."""

    def __init__(self, service: Service, client: str = "10.0.0.1") -> None:
        super().__init__()
        self.service, self.headers = service, {**RAW, "x-forwarded-for": client}
        self.response: httpx.Response | None = None
        self.start()

    def run(self) -> None:
        self.response = post(self.service, self.headers)

    def answer(self) -> httpx.Response:
        self.join()
        assert self.response is not None
        return self.response


def post(service: Service, headers: dict[str, str] = RAW, body: bytes = PHOTO) -> httpx.Response:
    return httpx.post(f"{service.address}/v1/encode", content=body, headers=headers, timeout=60)


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def count(service: Service, state: str) -> int:
    return int(gauge(service.address, f"picsnet_{state}"))


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


def connect(service: Service) -> socket.socket:
    host, port = service.address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def head(length: int | None) -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    kind = "Content-Type: application/octet-stream"
    return f"POST /v1/encode HTTP/1.1\r\nHost: x\r\n{kind}\r\n{size}\r\n\r\n".encode()


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


def test_a_body_that_dawdles_is_refused(service: Service) -> None:
    with connect(service) as connection:
        connection.sendall(head(1000) + b"x")
        assert status_of(connection) == 408
    settle(service.address)


def test_a_full_queue_says_when_to_come_back(service: Service) -> None:
    with stopped_worker(service):
        first = Sender(service, "10.0.0.1")
        until(lambda: count(service, "in_work") == 1)
        others = [Sender(service, "10.0.0.2"), Sender(service, "10.0.0.3")]
        until(lambda: count(service, "queue_length") == 2)
        refused = post(service, {**RAW, "x-forwarded-for": "10.0.0.4"})
        assert refused.status_code == 503 and "queue is full" in refused.json()["error"]
        assert int(refused.headers["retry-after"]) >= 1
        assert httpx.get(f"{service.address}/healthz").status_code == 200  # alive all the same
        for late in others:  # longer than --max-wait
            assert late.answer().status_code == 503
            assert "waited 3 s" in late.answer().json()["error"]
    assert first.answer().status_code == 200


def test_one_client_cannot_take_all_places(service: Service) -> None:
    with stopped_worker(service):
        senders = [Sender(service, "10.0.0.1"), Sender(service, "10.0.0.1")]
        until(lambda: count(service, "in_work") + count(service, "queue_length") == 2)
        refused = post(service, {**RAW, "x-forwarded-for": "10.0.0.1"})
        assert refused.status_code == 429 and "2 requests of this client" in refused.text
        senders.append(Sender(service, "10.0.0.2"))
        until(lambda: count(service, "queue_length") == 2)
    assert [sender.answer().status_code for sender in senders] == [200, 200, 200]
    assert post(service, {**RAW, "x-forwarded-for": "10.0.0.1"}).status_code == 200


def test_who_hangs_up_leaves_the_queue(service: Service) -> None:
    with stopped_worker(service):
        first = Sender(service)
        until(lambda: count(service, "in_work") == 1)
        with connect(service) as connection:
            connection.sendall(head(len(PHOTO)) + PHOTO)
            until(lambda: count(service, "queue_length") == 1)
        until(lambda: count(service, "queue_length") == 0)
        # In work it keeps its slot until that ends.
        with connect(service) as connection:
            connection.sendall(head(len(PHOTO)) + PHOTO[:10])
            until(lambda: count(service, "receiving") == 1)
        until(lambda: count(service, "receiving") == 0)
    assert first.answer().status_code == 200


def test_work_that_takes_too_long_is_stopped(service: Service) -> None:
    restarts = 'picsnet_worker_restarts_total{reason="timeout"}'
    pictures = Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    )
    with stopped_worker(service) as worker:
        response = post(service, body=png(pictures))
        assert response.status_code == 504 and "more than 6 s" in response.json()["error"]
        until(lambda: worker not in service.workers())  # truly
        until(lambda: httpx.get(f"{service.address}/readyz").status_code == 200)
        assert service.workers() != [worker]
    assert post(service).status_code == 200
    assert restarts in httpx.get(f"{service.address}/metrics").text
    assert any("was replaced: timeout" in line for line in service.lines)


def test_connections_beyond_the_limit_are_told_so(service: Service) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(connect(service))
        refused = httpx.get(f"{service.address}/healthz")
        assert refused.status_code == 503 and "too many connections" in refused.json()["error"]
        assert refused.headers["x-content-type-options"] == "nosniff"
    until(lambda: httpx.get(f"{service.address}/healthz").status_code == 200)


def test_what_is_no_http_is_refused_in_json(service: Service) -> None:
    with connect(service) as connection:
        connection.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400") and answer.endswith(b'HTTP request"}')


def test_a_worker_that_dies_costs_one_request_and_the_next_is_loaded(service: Service) -> None:
    (worker,) = service.workers()
    os.kill(worker, signal.SIGSTOP)
    sender = Sender(service)
    until(lambda: count(service, "in_work") == 1)
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
