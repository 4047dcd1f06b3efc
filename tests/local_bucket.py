"""A bucket on this machine: as much of S3 as boto3 needs to put, ask for and get files."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class LocalBucket:
    """What was put, and what was asked for.

    Attributes:
        files: by ``/BUCKET/KEY``.
        log: (method, path), in order.
        endpoint: its URL.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.log: list[tuple[str, str]] = []
        self.endpoint = ""


@contextmanager
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalBucket]:
    """The bucket, with an environment in which boto3 finds it and nothing else."""
    bucket = LocalBucket()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_PUT(self) -> None:
            bucket.log.append(("PUT", self.path))
            bucket.files[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
            self._send(200, b"")

        def _answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            bucket.log.append((self.command, path))
            data = bucket.files.get(path)
            if data is None:
                self._send(404, b"<Error><Code>NoSuchKey</Code></Error>" if body else b"")
                return
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if asked is None:
                self._send(200, data, body)
                return
            start = int(asked[1])
            stop = min(len(data), int(asked[2]) + 1 if asked[2] else len(data))
            self._send(206, data[start:stop], body, f"bytes {start}-{stop - 1}/{len(data)}")

        def _send(self, status: int, data: bytes, body: bool = True, part: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", '"0"')
            if part:
                self.send_header("Content-Range", part)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    bucket.endpoint = f"http://127.0.0.1:{server.server_port}"
    for name, value in {
        "AWS_ENDPOINT_URL": bucket.endpoint,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/credentials",
        # Checksums as headers and trailers are S3's own; stores like it ask for none.
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }.items():
        monkeypatch.setenv(name, value)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield bucket
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
