"""A W&B server on this machine that takes what the client sends, and keeps it."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "team"


class FakeWandb:
    """What came.

    Attributes:
        address: of the server.
        calls: (operation, variables) of each GraphQL request.
        streams: lines that were streamed to a run, by file.
        uploads: what was put, by name.
    """

    def __init__(self) -> None:
        self.address = ""
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.streams: dict[str, list[Any]] = {}
        self.uploads: dict[str, bytes] = {}

    def variables(self, operation: str) -> list[dict[str, Any]]:
        """Variables of all requests of an operation."""
        return [variables for name, variables in self.calls if name == operation]

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL answer."""
        upload = {"uploadUrl": f"{self.address}/upload/", "uploadHeaders": []}
        if operation == "Viewer":
            return {"viewer": {"id": "u", "entity": ENTITY, "username": "u", "flags": "{}"}}
        if operation == "UpsertBucket":
            project = {"id": "p", "name": variables["project"], "entity": {"name": ENTITY}}
            bucket = {"id": "b", "name": variables["name"], "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if operation == "CreateRunFiles":
            files = [
                {"name": name, "uploadUrl": f"{self.address}/upload/{name}"}
                for name in variables["files"]
            ]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if operation == "CreateArtifact":
            artifact = {"id": "a", "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
            return {"createArtifact": {"artifact": artifact}}
        if operation == "CreateArtifactManifest":
            manifest = {"id": "m", "file": {"id": "f", **upload}}
            return {"createArtifactManifest": {"artifactManifest": manifest}}
        if operation == "UpdateArtifactManifest":
            return {"updateArtifactManifest": {"artifactManifest": {"id": "m", "file": upload}}}
        if operation == "CreateArtifactFiles":
            edges = [
                {
                    "node": {
                        "storagePath": f"s/{file['name']}",
                        "uploadUrl": f"{self.address}/upload/{file['name']}",
                        "uploadHeaders": [],
                        "uploadMultipartUrls": None,
                        "artifact": {"id": "a"},
                    }
                }
                for file in variables["input"]["artifactFiles"]
            ]
            return {"createArtifactFiles": {"files": {"edges": edges}}}
        if operation == "CommitArtifact":
            return {"commitArtifact": {"artifact": {"id": "a", "digest": "d"}}}
        if operation == "UpsertView2":
            return {"upsertView": {"view": {"id": "v", "name": "view"}, "inserted": True}}
        if operation == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        return {"project": {"artifact": None}, "entity": {"organization": None}}


@contextmanager
def fake_wandb() -> Iterator[FakeWandb]:
    """Run one while it is needed."""
    kept = FakeWandb()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body

        def _reply(self, content: Any) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self._reply({})

        def do_PUT(self) -> None:
            kept.uploads[self.path.removeprefix("/upload/")] = self._body()
            self._reply({})

        def do_POST(self) -> None:
            body = self._body()
            if self.path.endswith("/file_stream"):
                for name, part in (json.loads(body).get("files") or {}).items():
                    kept.streams.setdefault(name, []).extend(map(_loaded, part["content"]))
                self._reply({"limits": {}})
            elif self.path.startswith("/graphql"):
                asked = json.loads(body)
                (operation,) = re.findall(r"(?:query|mutation)\s+(\w+)", asked["query"])[:1]
                variables = asked.get("variables") or {}
                kept.calls.append((operation, variables))
                self._reply({"data": kept.answer(operation, variables)})
            else:
                self._reply({})

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield kept
        server.shutdown()


def _loaded(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line
