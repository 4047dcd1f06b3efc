"""The service as a process: sockets, signals, connections."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from picsnet.errors import ServiceError
from picsnet.serve.app import make_app
from picsnet.serve.edge import Edge, refused
from picsnet.serve.metrics import Metrics
from picsnet.serve.pool import Pool
from picsnet.serve.settings import Limits, Models
from picsnet.terminal import printable

HEAD_SECONDS = 15.0
"""In which the head of a request has to arrive."""
_KEEP_ALIVE = 15
_BACKLOG = 256


def serve(models: Models, limits: Limits, host: str, port: int, quiet: bool = False) -> None:
    """Serve until a signal says to stop.

    Args:
        models: that the workers load.
        limits: of requests.
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        quiet: say nothing but warnings and errors.

    Raises:
        ServiceError: the port cannot be had, or the models cannot be loaded.
    """
    listener = _listen(host, port)
    with contextlib.closing(listener):
        try:
            asyncio.run(_serve(models, limits, listener, host, quiet))
        except KeyboardInterrupt:  # before the handlers were in place
            return


async def _serve(
    models: Models, limits: Limits, listener: socket.socket, host: str, quiet: bool
) -> None:
    def say(text: str) -> None:
        if not quiet:
            _print(text)

    if not _is_loopback(host):
        _print(
            f"warning: listening on {host}, beyond this machine: whoever reaches it can use it; "
            "put a proxy with TLS and a password before it (docs/service.md)"
        )
    metrics = Metrics()
    pool = Pool(models, limits, _print, lambda reason: metrics.restarts.labels(reason).inc())
    metrics.watch(pool)
    app = Edge(make_app(lambda: pool, limits, metrics), metrics, _print)
    server = _Server(_config(app, metrics, limits), pool, say)
    address = _address(listener)
    say(f"listening on {address}, loading models")
    telling = asyncio.create_task(_tell_when_ready(pool, lambda: say(f"ready on {address}")))
    failing = asyncio.create_task(_stop_on_failure(pool, server))
    try:
        await server.serve([listener])
    finally:
        telling.cancel()
        failing.cancel()
        await pool.stop()
    if pool.failed.done():
        raise pool.failed.result()
    say("stopped")


async def _tell_when_ready(pool: Pool, tell: Callable[[], None]) -> None:
    while not pool.ready:
        await asyncio.sleep(0.05)
    tell()


async def _stop_on_failure(pool: Pool, server: uvicorn.Server) -> None:
    await asyncio.shield(pool.failed)
    server.should_exit = True


class _Server(uvicorn.Server):
    """uvicorn's, which on a signal refuses what waits, and ends well when that is done."""

    def __init__(self, config: uvicorn.Config, pool: Pool, say: Callable[[str], None]) -> None:
        super().__init__(config)
        self._pool, self._say = pool, say

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal is not raised again in the end: stopping is no failure."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.getsignal(number) for number in signals}
        for number in signals:
            # signal.signal, which Windows has too.
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._stop))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self) -> None:
        if self.should_exit:
            self.force_exit = True
            return
        waiting = self._pool.count("waiting") + self._pool.count("receiving")
        working = self._pool.drain()
        self.should_exit = True
        self._say(f"stopping: {working} in work may end, {waiting} that wait are refused")


def _config(app: ASGIApp, metrics: Metrics, limits: Limits) -> uvicorn.Config:
    logger = logging.getLogger("uvicorn.error")
    logger.handlers = [_Lines()]
    logger.propagate = False
    logger.setLevel(logging.ERROR)
    # The refusal's way is that of any answer, so it is counted and reaches its client.
    full = Edge(_refusal(503, "too many connections are open; try again later"), metrics, _print)
    greedy = Edge(
        _refusal(429, "too many connections of this client are open; close some"), metrics, _print
    )
    return uvicorn.Config(
        app,
        http=_protocol(limits, full, greedy),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=True,
        timeout_keep_alive=_KEEP_ALIVE,
        # The pool ends work after its grace; this is for answers that nobody fetches.
        timeout_graceful_shutdown=int(limits.grace) + 5,
        backlog=_BACKLOG,
    )


def _refusal(status: int, text: str) -> ASGIApp:
    body, headers = refused(status, text, 5)

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [*headers, _CLOSE]})
        await send({"type": "http.response.body", "body": body})

    return refuse


_CLOSE = (b"connection", b"close")


def _protocol(limits: Limits, full: ASGIApp, greedy: ASGIApp) -> type[H11Protocol]:
    most, most_of_one = limits.max_connections, limits.max_connections_per_client
    of_address: Counter[str] = Counter()

    class Protocol(H11Protocol):
        """A connection, which has to ask for something before long, and to take the answer.

        Those beyond a limit are told so; far beyond it they are closed at once.
        """

        _timer: asyncio.TimerHandle | None = None
        _watch: asyncio.TimerHandle | None = None
        _address = ""
        _unsent = 0
        _resumed = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._address = self.client[0] if self.client else ""
            of_address[self._address] += 1
            own = of_address[self._address] if most_of_one else 0
            # One address's, with those that are told so, must leave room for others.
            if len(self.connections) > 2 * most or own > 1.5 * most_of_one:
                transport.abort()
                return
            if own > most_of_one:
                self.app = greedy
            elif len(self.connections) > most:
                self.app = full
            self._arm()
            self._taken = self.loop.time()
            self._check_taken()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._arm()
            else:
                self._disarm()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            if self._watch is not None:
                self._watch.cancel()
            of_address[self._address] -= 1
            if not of_address[self._address]:
                del of_address[self._address]
            super().connection_lost(exc)

        def resume_writing(self) -> None:
            """The client has taken some."""
            self._resumed = True
            super().resume_writing()

        def send_400_response(self, msg: str) -> None:
            """One line of JSON, as all errors."""
            body = json.dumps({"error": "this is no valid HTTP request"}).encode()
            head = (
                "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            if self.cycle is None or not self.cycle.response_started:
                self.transport.write(head.encode() + body)
            self.transport.close()

        def _arm(self) -> None:
            if self._timer is None:
                self._timer = self.loop.call_later(HEAD_SECONDS, self._close_silent)

        def _disarm(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _check_taken(self) -> None:
            """Close on a client that does not read: asyncio would keep its answer for ever."""
            unsent, now = self.transport.get_write_buffer_size(), self.loop.time()
            if not unsent or unsent < self._unsent or self._resumed:
                self._taken = now
            elif now - self._taken >= limits.write_timeout:
                self.transport.abort()
                return
            self._unsent, self._resumed = unsent, False
            pause = min(1.0, limits.write_timeout / 4)
            self._watch = self.loop.call_later(pause, self._check_taken)

        def _close_silent(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Protocol


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ServiceError(f"--host {host}: {reason}; name an address of this machine") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise ServiceError(
            f"--port {port}: cannot listen on {host} ({reason}); stop what does, or name another"
        ) from None
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Lines(logging.Handler):
    """What uvicorn reports, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().strip()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        _print(text)


def _print(text: Any) -> None:
    # Whoever read this may be gone; the service is not, and must still be told to stop.
    with contextlib.suppress(OSError):
        print(f"picsnet: {printable(str(text))}", file=sys.stderr, flush=True)
