"""Workers and the queue before them.

    admit -> Ticket (receiving) -> submit (waiting) -> a free worker (working) -> answer or Refusal

Tickets are what is counted: one is taken before a body is read, and given back when its work has
ended, whether or not its client still waits. So bodies in memory, waiting and work are bounded
together, by queue + workers. All of it runs on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from picsnet.errors import ServiceError
from picsnet.serve.frames import Frame, pack, receive_async
from picsnet.serve.refusals import FAILED, STOPPING, Refusal
from picsnet.serve.settings import Limits, Models

Answer = tuple[dict[str, Any], dict[str, bytes]]

_STREAM_LIMIT = 2**20
_LONGEST_PAUSE = 30.0
"""Between two tries to start a worker that fails to start, seconds."""
_LAST_SECONDS = 5.0
"""In which a worker that closed its pipe has to end."""
_SHARE = 0.3
"""Of the newest request in the running mean of seconds."""


@dataclass(eq=False)
class Ticket:
    """A request's place.

    Attributes:
        name: by which its client can ask for it.
        client: its address.
        state: "receiving", "waiting", "working" or "sending".
        kind: what is usual is known by: the verb and the mode.
        since: when it came into its state, seconds of the monotonic clock.
        attended: whether its client is still there, or is being answered.
        reading: ends what is "receiving" where the service stops.
    """

    name: str
    client: str
    state: str = "receiving"
    kind: str = ""
    since: float = field(default_factory=time.monotonic)
    attended: bool = True
    reading: asyncio.Timeout | None = None
    message: dict[str, Any] = field(default_factory=dict)
    body: bytes = b""
    future: asyncio.Future[Answer] | None = None

    def become(self, state: str) -> None:
        """Go on to a state."""
        self.state, self.since = state, time.monotonic()

    def settle(self, outcome: Answer | Refusal) -> None:
        """Answer whoever still waits."""
        if self.future is None or self.future.done():
            return
        if isinstance(outcome, Refusal):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Pool:
    """A bounded queue and the processes that work it off.

    Args:
        models: that each worker loads.
        limits: of queue, time and clients.
        log: takes a line about what befell a worker.
        restarted: takes the reason for which a worker was replaced.
    """

    def __init__(
        self,
        models: Models,
        limits: Limits,
        log: Callable[[str], None],
        restarted: Callable[[str], None],
    ) -> None:
        self.limits = limits
        self.about: dict[str, Any] | None = None
        self.stopping = False
        self.failed: asyncio.Future[ServiceError] = asyncio.get_running_loop().create_future()
        self._models, self._log, self._restarted = models, log, restarted
        self._tickets: dict[str, Ticket] = {}
        self._clients: Counter[str] = Counter()
        self._waiting: deque[Ticket] = deque()
        self._wake = asyncio.Condition()
        self._usual: dict[str, float] = {}
        self._ready = 0
        self._processes: set[_Worker] = set()
        self._tasks = [asyncio.create_task(self._work(number)) for number in range(limits.workers)]
        for task in self._tasks:
            task.add_done_callback(self._see_end)

    # What can be seen from outside.

    @property
    def ready(self) -> bool:
        """Whether a worker has its models loaded and work is taken."""
        return self._ready > 0 and not self.stopping

    def count(self, state: str) -> int:
        """Requests that are "receiving", "waiting", "working" or "sending"."""
        return sum(ticket.state == state for ticket in self._tickets.values())

    @property
    def processes(self) -> list[int]:
        """Ids of the workers' processes."""
        return [worker.process.pid for worker in self._processes]

    def progress(self, name: str) -> dict[str, Any] | None:
        """Where a request stands, or None where there is none of that name.

        Returns:
            state, seconds in it; place in the queue (from 1) while it is there; usual_seconds of
            such work, where known.
        """
        ticket = self._tickets.get(name)
        if ticket is None:
            return None
        # One that was just refused, or whose client has gone, waits for nothing but its end.
        place = self._waiting.index(ticket) + 1 if ticket in self._waiting else None
        usual = self._usual.get(ticket.kind)
        return {
            "state": ticket.state,
            "seconds": round(time.monotonic() - ticket.since, 2),
            "place": place,
            "usual_seconds": None if usual is None else round(usual, 2),
        }

    # The way of a request.

    @contextlib.contextmanager
    def admit(self, name: str, client: str) -> Iterator[Ticket]:
        """A place for a request; given back at the end, or when its work ends if that is later.

        Raises:
            Refusal: 503 the places are taken or the service is stopping, 429 this client has
                enough of them, 400 the name is in use.
        """
        if self.stopping:
            raise Refusal(503, STOPPING, retry_after=self._pause())
        if len(self._tickets) >= self.limits.queue + self.limits.workers:
            raise Refusal(
                503,
                f"the queue is full ({len(self._tickets)} requests); try again later",
                retry_after=self._pause(),
            )
        most = self.limits.max_per_client
        if most and self._clients[client] >= most:
            raise Refusal(
                429,
                f"{most} requests of this client are unfinished, and that is the limit; wait for "
                "one of them",
                retry_after=self._pause(),
            )
        if name in self._tickets:
            raise Refusal(400, "a request of this X-Request-Id is unfinished; choose another")
        ticket = Ticket(name, client)
        self._tickets[name] = ticket
        self._clients[client] += 1
        try:
            yield ticket
        finally:
            ticket.attended = False
            if ticket.state != "working":
                self._release(ticket)

    async def submit(
        self, ticket: Ticket, message: dict[str, Any], body: bytes, kind: str
    ) -> Answer:
        """Have a request done. Cancelling this takes it out of the queue, if it is still there.

        Args:
            ticket: from `admit`.
            message: verb and options, for `picsnet.serve.worker`.
            body: the client's bytes.
            kind: of work, by which the usual seconds are known.

        Raises:
            Refusal: 503 it waited too long or the service stops, 504 it took too long, 500, or what
                the worker says.
        """
        if self.stopping:
            raise Refusal(503, STOPPING, retry_after=self._pause())
        loop = asyncio.get_running_loop()
        ticket.message, ticket.body, ticket.kind = message, body, kind
        ticket.future = loop.create_future()
        ticket.become("waiting")
        self._waiting.append(ticket)
        async with self._wake:
            self._wake.notify()
        timer = loop.call_later(self.limits.max_wait, self._expire, ticket)
        try:
            return await ticket.future
        finally:
            timer.cancel()
            self._unqueue(ticket)

    def _expire(self, ticket: Ticket) -> None:
        if ticket.state == "waiting":
            self._unqueue(ticket)
            text = f"waited {self.limits.max_wait:g} s in the queue, the limit; try again later"
            ticket.settle(Refusal(503, text, retry_after=self._pause()))

    def _unqueue(self, ticket: Ticket) -> None:
        with contextlib.suppress(ValueError):
            self._waiting.remove(ticket)

    def _release(self, ticket: Ticket) -> None:
        if self._tickets.pop(ticket.name, None) is not None:
            self._clients[ticket.client] -= 1
            if not self._clients[ticket.client]:
                del self._clients[ticket.client]

    def _pause(self) -> int:
        """Seconds until there may be room."""
        usual = max(self._usual.values(), default=1.0)
        ahead = len(self._tickets) / self.limits.workers
        return max(1, min(600, math.ceil(usual * ahead / 2)))

    # Workers.

    def _see_end(self, task: asyncio.Task[None]) -> None:
        """A loop that ends by a fault of this program must not end unseen."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        text = f"a worker's loop ended: {type(error).__name__}: {error}; start the service again"
        self._log(text)
        if not self.failed.done():
            self.failed.set_result(ServiceError(text))

    async def _work(self, number: int) -> None:
        pause = 1.0
        while not self.stopping:
            try:
                worker = await _Worker.start(self._models)
            except ServiceError as error:
                if self.about is None:
                    # It has never worked: nothing that waiting would mend.
                    if not self.failed.done():
                        self.failed.set_result(error)
                    return
                self._log(f"worker {number} does not start: {error}; trying again in {pause:g} s")
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            pause = 1.0
            self.about = worker.about
            self._processes.add(worker)
            self._ready += 1
            try:
                reason = await self._until_it_ends(worker)
            finally:
                self._ready -= 1
                self._processes.discard(worker)
                await worker.kill()
            if not self.stopping:
                self._restarted(reason)
                self._log(f"worker {number} was replaced: {reason}")

    async def _until_it_ends(self, worker: _Worker) -> str:
        """Feed a worker; returns why it has to be replaced."""
        while True:
            ticket = await self._next(worker)
            if ticket is None:
                return "ended"
            start = time.monotonic()
            reason = ""
            try:
                async with asyncio.timeout(self.limits.timeout):
                    ticket.settle(_read(await worker.ask(ticket.message, ticket.body)))
            except TimeoutError:
                reason = "timeout"
                text = f"took more than {self.limits.timeout:g} s, the limit, and was stopped"
                ticket.settle(Refusal(504, f"{text}; send a smaller picture or fewer candidates"))
            except Exception as error:
                # Whatever it was, the request is answered and another worker takes the next one.
                reason = "died"
                if not isinstance(error, (OSError, EOFError, ValueError)):
                    self._log(f"a worker's answer: {type(error).__name__}: {error}")
                ticket.settle(_lost(self.stopping))
            else:
                self._note(ticket.kind, time.monotonic() - start)
            finally:
                ticket.body = b""
                if ticket.attended:
                    ticket.become("sending")
                else:
                    self._release(ticket)
            if reason:
                # Stopped before the next one is taken: what was in work must not go on beside it.
                await worker.kill()
                return reason

    async def _next(self, worker: _Worker) -> Ticket | None:
        """The next request in the queue, or None when the worker ends meanwhile."""
        waiting = asyncio.create_task(self._take())
        try:
            await asyncio.wait({worker.ended, waiting}, return_when=asyncio.FIRST_COMPLETED)
            return waiting.result() if waiting.done() else None
        finally:
            waiting.cancel()

    async def _take(self) -> Ticket:
        async with self._wake:
            await self._wake.wait_for(lambda: len(self._waiting) > 0)
            ticket = self._waiting.popleft()
            ticket.become("working")
            return ticket

    def _note(self, kind: str, seconds: float) -> None:
        usual = self._usual.get(kind, seconds)
        self._usual[kind] = usual + _SHARE * (seconds - usual)

    # The end.

    def drain(self) -> int:
        """Take no more work, refuse what waits or still comes; returns how many are in work.

        What is in work has ``grace`` seconds left.
        """
        self.stopping = True
        while self._waiting:
            self._waiting.popleft().settle(Refusal(503, STOPPING, retry_after=10))
        loop = asyncio.get_running_loop()
        for ticket in self._tickets.values():
            if ticket.state == "receiving" and ticket.reading is not None:
                ticket.reading.reschedule(loop.time())
        loop.call_later(self.limits.grace, self._kill_all)
        return self.count("working")

    def _kill_all(self) -> None:
        for worker in self._processes:
            worker.kill_now()

    async def stop(self) -> None:
        """End the workers."""
        self.stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _read(frame: Frame) -> Answer | Refusal:
    message, blobs = frame
    if "error" in message:
        return Refusal(message["status"], message["error"] or FAILED)
    return message["figures"], dict(zip(message["files"], blobs, strict=True))


def _lost(stopping: bool) -> Refusal:
    return Refusal(503, STOPPING, retry_after=10) if stopping else Refusal(500, FAILED)


class _Worker:
    """A process of `picsnet.serve.worker`, and what it has loaded.

    Attributes:
        process: it.
        ended: done when it has. One for all who wait: asyncio keeps what each call of
            ``process.wait()`` leaves until then.
        about: what it tells of its models.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.ended = asyncio.create_task(process.wait())
        self.about: dict[str, Any] = {}
        self._killed = False

    @classmethod
    async def start(cls, models: Models) -> _Worker:
        """A worker with its models loaded.

        Raises:
            ServiceError: it cannot be started, or could not load them.
        """
        # A session of its own: Ctrl-C in a terminal is for the service, which lets work end.
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "picsnet.serve.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_STREAM_LIMIT,
                start_new_session=True,
                env=_environment(),
            )
        # RuntimeError is a thread that cannot be started, where asyncio needs one for it.
        except (OSError, RuntimeError) as fault:
            reason = getattr(fault, "strerror", None) or fault
            raise ServiceError(
                f"a worker cannot be started ({reason}); free memory or raise the limit of "
                "processes and files"
            ) from None
        worker = cls(process)
        try:
            message, _ = await worker.ask(dataclasses.asdict(models), None)
        except (OSError, EOFError, ValueError):
            await asyncio.wait({worker.ended}, timeout=_LAST_SECONDS)
            await worker.kill()  # where it lives, and says what makes no sense
            status = process.returncode
            raise ServiceError(
                f"a worker ended with status {status} while it loaded its models; its output is "
                "above"
            ) from None
        except asyncio.CancelledError:
            await worker.kill()
            raise
        if "error" in message:
            await worker.kill()
            error = ServiceError(message["error"])
            error.exit_status = message["exit_status"]
            raise error
        worker.about = message["about"]
        return worker

    async def ask(self, message: dict[str, Any], body: bytes | None) -> Frame:
        """Its answer to a frame.

        Raises:
            OSError, EOFError, ValueError: it has ended, or makes no sense.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(pack(message, [] if body is None else [body]))
        await self.process.stdin.drain()
        return await receive_async(self.process.stdout)

    def kill_now(self) -> None:
        """End it, whatever it does.

        Once: a second kill would take its status in place of asyncio, which then warns of a child
        that it does not know.
        """
        if not self._killed:
            self._killed = True
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    async def kill(self) -> None:
        """End it and wait until it is gone."""
        self.kill_now()
        await asyncio.wait({self.ended})


def _environment() -> dict[str, str]:
    """A worker imports what the service imported, wherever that was found."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
