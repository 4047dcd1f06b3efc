"""A model hub on 127.0.0.1: as much of the protocol as huggingface_hub needs, and its mishaps."""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """What a client asked for; ``range`` is its Range header."""

    method: str
    path: str
    range: str | None


@dataclass
class _Repository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    head: str = ""
    gated: bool = False


@dataclass(frozen=True)
class _Mishap:
    after: int
    how: str


class LocalHub:
    """A hub whose repositories are copies of local folders. Use it as a context manager.

    Attributes:
        url: what HF_ENDPOINT must be.
        requests: all so far, in order.
        stalled: set while a client waits for bytes that do not come.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.stalled = threading.Event()
        self._closing = threading.Event()
        self._repositories: dict[str, _Repository] = {}
        self._mishaps: dict[str, _Mishap] = {}
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> LocalHub:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """From now on nobody answers at the address."""
        if not self._closing.is_set():
            self._closing.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def add(self, repository: str, folder: Path, gated: bool = False) -> str:
        """Commit a folder's files to a repository's main branch.

        Returns:
            The commit's hash.
        """
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        commit = hashlib.sha1(
            "".join(name + _blob_id(data) for name, data in files.items()).encode()
        ).hexdigest()
        target = self._repositories.setdefault(repository, _Repository())
        target.commits[commit] = files
        target.head, target.gated = commit, gated
        return commit

    def interrupt(self, name: str, after: int, how: str) -> None:
        """Break off the next sending of a file.

        Args:
            name: the end of its path.
            after: bytes that still arrive.
            how: "close" (the connection ends in good order), "reset" or "stall".
        """
        self.stalled.clear()
        self._mishaps[name] = _Mishap(after, how)

    def sent(self, since: int = 0) -> list[str]:
        """Names of the files whose contents were asked for, from the ``since``-th request on."""
        asked = [request.path for request in self.requests[since:] if request.method == "GET"]
        return sorted(path.split("/", 5)[5] for path in asked if "/resolve/" in path)

    def _find(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]]:
        found = self._repositories.get(repository)
        if found is None:
            raise _RefusalError(404, "RepoNotFound")
        if found.gated:
            raise _RefusalError(403, "GatedRepo")
        commit = found.head if revision == "main" else revision
        if commit not in found.commits:
            raise _RefusalError(404, "RevisionNotFound")
        return commit, found.commits[commit]

    def _mishap(self, path: str) -> _Mishap | None:
        name = next((name for name in self._mishaps if path.endswith(name)), None)
        return None if name is None else self._mishaps.pop(name)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away, some by design of a test; anything else is worth reading."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _RefusalError(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(Request(self.command, path, self.headers.get("Range")))
        parts = path.strip("/").split("/")
        try:
            if parts[:2] == ["api", "models"] and len(parts) >= 4:
                self._send_about("/".join(parts[2:4]), parts[4:])
            elif len(parts) >= 5 and parts[2] == "resolve":
                self._send_file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
            else:
                raise _RefusalError(404, "NotFound")
        except _RefusalError as refusal:
            self._head(refusal.status, 0, {"X-Error-Code": refusal.code})

    def _send_about(self, repository: str, rest: list[str]) -> None:
        verb, revision = (rest or ["revision", "main"])[:2]
        commit, files = self.hub._find(repository, revision)
        about: Any = {"id": repository, "sha": commit}
        about["siblings"] = [{"rfilename": name} for name in files]
        if verb == "tree":
            about = [
                {"type": "file", "path": name, "size": len(data), "oid": _blob_id(data)}
                for name, data in files.items()
            ]
        body = json.dumps(about).encode()
        self._head(200, len(body), {"Content-Type": "application/json"})
        self.wfile.write(body)

    def _send_file(self, repository: str, revision: str, name: str) -> None:
        commit, files = self.hub._find(repository, revision)
        if name not in files:
            raise _RefusalError(404, "EntryNotFound")
        data = files[name]
        headers = {"ETag": f'"{_blob_id(data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        wanted, status = self.headers.get("Range"), 200
        if wanted is not None:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data, status = data[start:], 206
        self._head(status, len(data), headers)
        if self.command == "HEAD":
            return
        mishap = self.hub._mishap(name)
        if mishap is None:
            self.wfile.write(data)
            return
        self.wfile.write(data[: mishap.after])
        if mishap.how == "stall":
            self.hub.stalled.set()
            self.hub._closing.wait()
        if mishap.how == "reset":  # no lingering: what is under way is dropped
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()
        self.close_connection = True

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(key, value)
        self.end_headers()


def _blob_id(data: bytes) -> str:
    """Git's."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
