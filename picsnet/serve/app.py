"""The service's pages and its API.

    POST /v1/encode  picture -> .pics, or JSON      GET /           the page
    POST /v1/decode  .pics -> PNG, or JSON          GET /healthz    alive
    POST /v1/info    .pics -> JSON                  GET /readyz     models loaded
    GET /v1/models   what is loaded, the limits     GET /metrics    Prometheus
    GET /v1/requests/NAME  where a request stands

Nothing here imports torch, or parses more of a picture than its first bytes: workers do.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import uuid
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from picsnet import __version__
from picsnet.bitstream import MAX_SKETCH_BYTES
from picsnet.contents import contents
from picsnet.errors import BitstreamError, ImageFormatError
from picsnet.images import check_format
from picsnet.samples import sample_files
from picsnet.serve.bodies import FIELD, read_body
from picsnet.serve.edge import refused
from picsnet.serve.metrics import CONTENT_TYPE, Metrics
from picsnet.serve.pool import Answer, Pool
from picsnet.serve.refusals import FAILED, GONE, STOPPING, Refusal
from picsnet.serve.settings import Limits
from picsnet.serve.vetting import vet

MAX_FILE = MAX_SKETCH_BYTES + 1024
"""Bytes of a .pics file at most, and a little."""
_PICTURES = ("image/", "application/octet-stream")
_FILES = ("application/octet-stream", "application/x-pics")
_PIECE = 2**16
"""Bytes of an answer handed on at a time: what asyncio buffers before it waits."""
_NAME = re.compile(r"[A-Za-z0-9_-]{8,64}")
_Options = TypeVar("_Options", bound="Options")


class Options(BaseModel):
    """Parameters of a request: of its query, or fields of its multipart body."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    parts: bool = Field(False, description="with JSON: pictures made on the way, as base64 PNG")


class EncodeOptions(Options):
    """Of /v1/encode."""

    mode: Literal["pics", "pic", "sketch"] | None = Field(
        None, description="what the file holds: prompt and sketch, prompt alone, sketch alone"
    )
    quality: float | None = Field(
        None, ge=0, description="of the sketch, 0 (fewest bytes) to the network's last, in eighths"
    )
    prompt: str | None = Field(None, max_length=1000, description="in place of one that is made")
    candidates: int | None = Field(
        None, ge=1, le=32, description="drawn and compared; the best is named in the file"
    )


class DecodeOptions(Options):
    """Of /v1/decode."""

    sketch_only: bool = Field(False, description="the decoded sketch in place of the picture")
    partial: bool = Field(False, description="of a damaged file, the layers that arrived whole")


class InfoOptions(Options):
    """Of /v1/info."""


def make_app(pool: Callable[[], Pool], limits: Limits, metrics: Metrics) -> FastAPI:
    """The application.

    Args:
        pool: gives the workers; they are there once the event loop runs.
        limits: of requests.
        metrics: to show.
    """
    app = FastAPI(
        title="picsnet",
        version=__version__,
        description="Text and sketch image codec for ultra-low rates.",
        openapi_url="/v1/openapi.json",
        # FastAPI's pages for it load scripts from elsewhere, which the headers forbid.
        docs_url=None,
        redoc_url=None,
    )
    _answer_errors(app)
    _serve_page(app)

    @app.post("/v1/encode", openapi_extra=_body(_PICTURES), responses=_answers("a .pics file"))
    async def encode(request: Request, options: Annotated[EncodeOptions, Query()]) -> Response:
        """Code a picture to a .pics file; with `Accept: application/json`, to JSON."""

        async def ask(ticket_submit: _Submit) -> Response:
            body, fields = await read_body(request, limits.max_body, limits.body_timeout, _PICTURES)
            _check_picture(body)
            asked = _settled(_merged(EncodeOptions, request, options, fields), pool(), limits)
            figures, files = await ticket_submit(
                {"verb": "encode", **asked}, body, f"encode {asked['mode']}"
            )
            if not _wants_json(request):
                return _file(files["pics"], figures)
            return _json(figures, files)

        return await _admitted(request, pool(), ask)

    @app.post("/v1/decode", openapi_extra=_body(_FILES), responses=_answers("a PNG picture"))
    async def decode(request: Request, options: Annotated[DecodeOptions, Query()]) -> Response:
        """Decode a .pics file to PNG; with `Accept: application/json`, to JSON."""

        async def ask(ticket_submit: _Submit) -> Response:
            body, fields = await read_body(
                request, min(MAX_FILE, limits.max_body), limits.body_timeout, _FILES
            )
            asked = _merged(DecodeOptions, request, options, fields)
            kind = await asyncio.to_thread(
                vet, body, _about(pool()), limits.max_pixels, asked.sketch_only, asked.partial
            )
            figures, files = await ticket_submit(
                {"verb": "decode", **asked.model_dump()}, body, f"decode {kind}"
            )
            if not _wants_json(request):
                return Response(files["picture"], media_type="image/png", headers=_UNSTORED)
            return _json(figures, files)

        return await _admitted(request, pool(), ask)

    @app.post("/v1/info", openapi_extra=_body(_FILES))
    async def info(request: Request, options: Annotated[InfoOptions, Query()]) -> Response:
        """What is in a .pics file, byte by byte, without decoding it."""

        async def ask(_: _Submit) -> Response:
            body, fields = await read_body(
                request, min(MAX_FILE, limits.max_body), limits.body_timeout, _FILES
            )
            _merged(InfoOptions, request, options, fields)
            try:
                record = await asyncio.to_thread(contents, body, "the file")
            except BitstreamError as error:
                raise Refusal(422, str(error)) from None
            return JSONResponse(record, headers=_UNSTORED)

        return await _admitted(request, pool(), ask, named=False)

    @app.get("/v1/models")
    async def models() -> Response:
        """What is loaded, what it can do, and the limits."""
        about = _about(pool())
        return JSONResponse(
            {
                "version": __version__,
                "sketch_model": about["sketch_model"],
                "decoder": about["decoder"],
                "modes": _modes(about),
                "limits": {
                    "bytes": limits.max_body,
                    "pixels": limits.max_pixels,
                    "candidates": limits.max_candidates,
                    "seconds": limits.timeout,
                    "queue": limits.queue,
                },
            },
            headers=_UNSTORED,
        )

    @app.get("/v1/requests/{name}")
    async def progress(name: str) -> Response:
        """Where a request stands that was sent with the header `X-Request-Id: NAME`."""
        found = pool().progress(name)
        # No error: it may have ended, or not begun, between two questions.
        return JSONResponse(found or {"state": "unknown"}, headers=_UNSTORED)

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> Response:
        """The process answers, and can work or mend itself; else 503."""
        if pool().failed.done():
            raise Refusal(503, "the workers have failed; the server ends, and its log says why")
        return JSONResponse({"status": "alive"}, headers=_UNSTORED)

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz")
    async def readyz() -> Response:
        """Models are loaded and work is taken; else 503."""
        if not pool().ready:
            raise _loading()
        return JSONResponse({"status": "ready"}, headers=_UNSTORED)

    @app.get("/metrics")
    async def show_metrics() -> Response:
        """Counters, for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE, headers=_UNSTORED)

    return app


_UNSTORED = {"cache-control": "no-store"}
_Submit = Callable[[dict[str, Any], bytes, str], Awaitable[Answer]]


async def _admitted(
    request: Request,
    pool: Pool,
    ask: Callable[[_Submit], Awaitable[Response]],
    named: bool = True,
) -> Response:
    """Take a place, then read, wait and work; a client that goes away gives its place back.

    The answer keeps the place until its client has taken it, so that answers in memory are bounded
    as bodies are. What is done at once is not named: nobody asks where it stands.
    """
    name = (named and request.headers.get("x-request-id")) or uuid.uuid4().hex
    if not _NAME.fullmatch(name):
        raise Refusal(400, "X-Request-Id: must be 8 to 64 letters, digits, - and _")
    client = request.client.host if request.client else ""
    with contextlib.ExitStack() as place:
        ticket = place.enter_context(pool.admit(name, client))

        async def submit(message: dict[str, Any], body: bytes, kind: str) -> Answer:
            work = asyncio.ensure_future(pool.submit(ticket, message, body, kind))
            gone = asyncio.ensure_future(_until_gone(request))
            try:
                await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    raise Refusal(GONE, "the client went away")
                return work.result()
            finally:
                work.cancel()
                gone.cancel()
                # It leaves the queue before the place is given back.
                await asyncio.gather(work, gone, return_exceptions=True)

        try:
            async with asyncio.timeout(None) as ticket.reading:
                response = await ask(submit)
        except TimeoutError:  # `Pool.drain`: nobody waits for the rest of a body
            raise Refusal(503, STOPPING, retry_after=10) from None
        if named:
            response.headers["x-request-id"] = name
        ticket.become("sending")
        return _Taken(response, place.pop_all())


class _Taken(Response):
    """An answer that is sent as fast as its client takes it, and then gives its place back.

    Args:
        answer: to send.
        place: closed when all but a transport's buffer has been taken, or the client has gone.
    """

    def __init__(self, answer: Response, place: contextlib.ExitStack) -> None:
        super().__init__(answer.body, answer.status_code)
        self.raw_headers = answer.raw_headers
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            head = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **head})
            # Each waits for what stands before it.
            for start in range(0, len(self.body), _PIECE):
                piece = bytes(self.body[start : start + _PIECE])
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _check_picture(body: bytes) -> None:
    """What is no picture need not wait to be told so."""
    try:
        check_format(body, "the picture")
    except ImageFormatError as error:
        raise Refusal(415, str(error)) from None


# Options.


def _merged(
    kind: type[_Options], request: Request, options: _Options, fields: Sequence[tuple[str, str]]
) -> _Options:
    """Options of the query with those of the body; each may be given once."""
    names = [name for name, _ in (*request.query_params.multi_items(), *fields)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Refusal(400, f"{twice[:40]}: given more than once; give it once")
    given = options.model_dump(exclude_unset=True)
    try:
        return kind.model_validate({**given, **dict(fields)})
    except ValidationError as error:
        raise Refusal(400, _first(error.errors())) from None


def _settled(options: EncodeOptions, pool: Pool, limits: Limits) -> dict[str, Any]:
    """All options, as far as they can be checked before the picture is seen."""
    about = _about(pool)
    modes = _modes(about)
    mode = options.mode or modes[0]
    if mode not in modes:
        raise Refusal(400, f"mode {mode}: this server draws nothing; use mode sketch")
    if options.quality is not None:
        _check_quality(options.quality, mode, about["sketch_model"])
    candidates = options.candidates
    if mode == "sketch":
        for name, value in (("prompt", options.prompt), ("candidates", candidates)):
            if value is not None:
                raise Refusal(
                    400, f"{name}: a sketch file has none; use mode pics, or leave it out"
                )
    elif candidates is None:
        candidates = min(about["decoder"]["candidates"], limits.max_candidates)
    elif candidates > limits.max_candidates:
        raise Refusal(400, f"candidates {candidates}: at most {limits.max_candidates} here")
    return {**options.model_dump(), "mode": mode, "candidates": candidates}


def _check_quality(quality: float, mode: str, model: dict[str, Any]) -> None:
    if mode == "pic":
        raise Refusal(400, "quality: is of the sketch, and mode pic sends none; leave it out")
    if model["quality"] is None:
        raise Refusal(400, f"quality: {model['name']} has one; leave it out")
    if quality > model["quality"]["most"]:
        raise Refusal(400, f"quality {quality:g}: must be 0 to {model['quality']['most']:g}")


def _about(pool: Pool) -> dict[str, Any]:
    if pool.about is None:
        raise _loading()
    return pool.about


def _loading() -> Refusal:
    return Refusal(503, "the models are not loaded; try again in a moment", retry_after=2)


def _modes(about: dict[str, Any]) -> list[str]:
    return ["sketch"] if about["decoder"] is None else ["pics", "pic", "sketch"]


# Answers.


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "").lower()


def _json(figures: dict[str, Any], files: dict[str, bytes]) -> Response:
    encoded = {name: base64.b64encode(data).decode() for name, data in files.items()}
    return JSONResponse({**figures, **encoded}, headers=_UNSTORED)


def _file(data: bytes, figures: dict[str, Any]) -> Response:
    return Response(
        data,
        media_type="application/octet-stream",
        headers={
            **_UNSTORED,
            "content-disposition": 'attachment; filename="picture.pics"',
            "x-picsnet-bytes": str(figures["bytes"]),
            "x-picsnet-bpp": f"{figures['bpp']:.6f}",
            "x-picsnet-size": f"{figures['width']}x{figures['height']}",
            "x-picsnet-layers": ", ".join(f"{k}={v}" for k, v in figures["layers"].items()),
        },
    )


def _error(status: int, message: str, retry_after: int | None = None) -> Response:
    body, headers = refused(status, message, retry_after)
    return Response(body, status, headers={k.decode(): v.decode() for k, v in headers})


def _answer_errors(app: FastAPI) -> None:
    """Every error is JSON with one line."""

    @app.exception_handler(Refusal)
    async def refuse(_: Request, refusal: Refusal) -> Response:
        return _error(refusal.status, refusal.message, refusal.retry_after)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return _error(400, _first(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        response = _error(error.status_code, str(error.detail))
        response.headers.update(error.headers or {})
        return response

    # Starlette raises it again behind the answer, and `Edge` logs it.
    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> Response:
        return _error(500, FAILED)


def _first(errors: Any) -> str:
    """The first of what pydantic found, in one line, with what was given cut short."""
    error = errors[0]
    name = str(error["loc"][-1])[:40]
    if error["type"] == "extra_forbidden":
        return f"{name!r}: no such parameter; see /v1/openapi.json"
    return f"{name} {str(error.get('input'))[:40]!r}: {error['msg']}"


# The page.

_STATIC = {
    "look.css": ("picsnet.report", "text/css"),
    "look.js": ("picsnet.report", "text/javascript"),
    "page.css": ("picsnet.serve", "text/css"),
    "page.js": ("picsnet.serve", "text/javascript"),
}


def _serve_page(app: FastAPI) -> None:
    """The page, its style and script, and sample photographs: read once."""
    page = _resource("picsnet.serve", "page.html")
    static = {name: (_resource(package, name), kind) for name, (package, kind) in _STATIC.items()}
    samples = sample_files()

    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(page, media_type="text/html", headers={"cache-control": "no-cache"})

    @app.get("/static/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in static:
            raise Refusal(404, "no such file")
        data, kind = static[name]
        return Response(data, media_type=kind, headers={"cache-control": "no-cache"})

    @app.get("/samples", include_in_schema=False)
    async def names() -> Response:
        return JSONResponse(sorted(samples))

    @app.get("/samples/{name}", include_in_schema=False)
    async def sample(name: str) -> Response:
        if name not in samples:
            raise Refusal(404, "no such sample")
        path = samples[name]
        kind = "image/png" if path.suffix == ".png" else "image/jpeg"
        data = await asyncio.to_thread(path.read_bytes)
        return Response(data, media_type=kind, headers={"cache-control": "max-age=3600"})


def _resource(package: str, name: str) -> bytes:
    return (resources.files(package) / name).read_bytes()


def _body(kinds: tuple[str, ...]) -> dict[str, Any]:
    """How OpenAPI speaks of a body that is read in pieces."""
    binary = {"type": "string", "format": "binary"}
    raw = [kind + "*" if kind.endswith("/") else kind for kind in kinds]
    form = {"type": "object", "properties": {FIELD: binary}, "required": [FIELD]}
    content: dict[str, Any] = {kind: {"schema": binary} for kind in raw}
    content["multipart/form-data"] = {"schema": form}
    return {"requestBody": {"required": True, "content": content}}


def _answers(what: str) -> dict[int | str, dict[str, Any]]:
    statuses = {
        400: "a malformed request, or parameters that cannot work",
        408: "the body did not arrive in time",
        413: "too many bytes or pixels",
        415: "no picture in a known format, or an unknown Content-Type",
        422: "a picture or file that cannot be coded",
        429: "this client has enough unfinished requests",
        503: "the queue is full, or the service starts or stops; see Retry-After",
        504: "the work took too long and was stopped",
    }
    error = {
        "application/json": {
            "schema": {"type": "object", "properties": {"error": {"type": "string"}}}
        }
    }
    return {
        200: {"description": what},
        **{code: {"description": text, "content": error} for code, text in statuses.items()},
    }
