"""The outermost layer: every answer is counted, has the same headers, and reaches its client."""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from picsnet.serve.metrics import Metrics
from picsnet.serve.refusals import FAILED, GONE

_HEADERS = (
    # No script or style but those of this server, none inside the page, nothing from elsewhere.
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_DRAIN_SECONDS = 5.0
_DRAIN_BYTES = 2**28
_FOREIGN = (b"cross-site", b"same-site")

_VERBS = {
    "/v1/encode": "encode",
    "/v1/decode": "decode",
    "/v1/info": "info",
    "/v1/models": "models",
    "/healthz": "health",
    "/readyz": "health",
    "/metrics": "metrics",
    "/": "page",
}


def refused(
    status: int, message: str, retry_after: int | None = None
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Body and headers of an error's answer."""
    body = json.dumps({"error": " ".join(message.split())}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if retry_after is not None:
        headers.append((b"retry-after", str(retry_after).encode()))
    return body, headers


class Edge:
    """Wraps an ASGI application.

    A refusal of a body that is still coming is sent first, and the rest of the body thrown away as
    it comes, within bounds: were the connection closed on it, the client might see a reset in place
    of the answer.

    Args:
        app: to wrap.
        metrics: to count in.
        log: takes a line about what went wrong here.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, log: Callable[[str], None]) -> None:
        self._app, self._metrics, self._log = app, metrics, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        verb = _verb(scope["path"])
        start = time.perf_counter()
        try:
            if scope["method"] not in ("GET", "HEAD") and _foreign(scope):
                await exchange.refuse(403, "another site's page asks for this; use this server's")
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:
            self._log(f"{scope['method']} {verb}: {type(error).__name__}: {error}")
            for line in "".join(traceback.format_tb(error.__traceback__)).splitlines():
                self._log(line)
            if not exchange.status:
                await exchange.refuse(500, FAILED)
        finally:
            metrics = self._metrics
            status = str(exchange.status or GONE)
            metrics.requests.labels(verb, status).inc()
            metrics.seconds.labels(verb).observe(time.perf_counter() - start)
            metrics.received.labels(verb).inc(exchange.received)
            metrics.sent.labels(verb).inc(exchange.sent)


class _Exchange:
    """A request's two directions, watched."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        has_body = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
        self.whole = not has_body
        self.status = self.received = self.sent = 0
        self._receive, self._send = receive, send

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self.whole = self.whole or not message.get("more_body", False)
        else:
            self.whole = True  # nothing more will come
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            if not self.whole:
                message["headers"].append((b"connection", b"close"))
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
            if not message.get("more_body", False) and not self.whole:
                await self._send({**message, "more_body": True})
                await self._drain()
                message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def refuse(self, status: int, text: str) -> None:
        body, headers = refused(status, text)
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def _drain(self) -> None:
        most = self.received + _DRAIN_BYTES
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self.whole and self.received < most:
                    await self.receive()
        except TimeoutError:
            return


def _verb(path: str) -> str:
    """A label: one of few, whatever clients ask for."""
    if path.startswith("/v1/requests/"):
        return "progress"
    return _VERBS.get(path, "page" if path.startswith(("/static/", "/samples/")) else "other")


def _foreign(scope: Scope) -> bool:
    """Whether a browser says that another site's page made it send this."""
    return any(name == b"sec-fetch-site" and value in _FOREIGN for name, value in scope["headers"])
