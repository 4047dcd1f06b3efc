"""The service by its API: a real server process with a miniature decoder."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from benchmarks.service import Service, bomb, gauge, gauges
from picsnet.bitstream import PicsFile, SketchLayer, read, write
from picsnet.cli import main
from picsnet.contents import contents
from tests.conftest import REPOSITORY
from tests.test_cli import photograph

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are found by /proc")
RAW = {"content-type": "application/octet-stream"}
JSON = {"accept": "application/json"}
FORM = "multipart/form-data; boundary=x"


def png(picture: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind)
    return buffer.getvalue()


PHOTO = png(photograph(0))


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def until_counted(service: Service, *senders: object, **expected: int) -> None:
    """Until so many are in each of these states; else what the senders got is told."""
    end = time.monotonic() + 30
    while True:
        now = gauges(service.address)
        counts = {state: int(now[f"picsnet_{state}"]) for state in expected}
        if counts == expected:
            return
        assert time.monotonic() < end, (counts, senders, service.lines[-5:])
        time.sleep(0.01)


@pytest.fixture(scope="module")
def service(miniature_decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        patch.chdir(folder)
        with Service(
            "--decoder", str(miniature_decoder), "--prompt-from", "none", "--max-candidates", "4",
            "--max-pixels", "90000", "--decoder-set", "size=128", "--decoder-set", "steps=1",
        ) as running:  # fmt: skip
            yield running
    assert list(folder.iterdir()) == []  # whatever clients called their files


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.address, timeout=60) as one:
        yield one


@pytest.fixture(scope="module")
def coded(service: Service) -> bytes:
    response = httpx.post(
        f"{service.address}/v1/encode?candidates=1&prompt=a dog", content=PHOTO, headers=RAW
    )
    return response.content


def test_a_photograph_becomes_a_file_and_comes_back(client: httpx.Client, coded: bytes) -> None:
    response = client.post("/v1/encode?candidates=2&prompt=a dog", content=PHOTO, headers=RAW)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/octet-stream"
    file = read(response.content)
    assert (file.width, file.height) == (128, 96) and file.sketch and file.text
    assert response.headers["x-picsnet-bytes"] == str(len(response.content))
    bpp = 8 * len(response.content) / (128 * 96)
    assert float(response.headers["x-picsnet-bpp"]) == pytest.approx(bpp, abs=1e-6)

    back = client.post("/v1/decode", content=response.content, headers=RAW)
    assert back.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(back.content)).size == (128, 96)
    told = client.post("/v1/decode?parts=1", files={"file": coded}, headers=JSON).json()
    assert told["prompt"] == "a dog" and told["missing"] == []
    assert Image.open(io.BytesIO(base64.b64decode(told["decoded_sketch"]))).mode == "L"

    sketch = client.post("/v1/decode?sketch_only=1", content=coded, headers=RAW)
    assert Image.open(io.BytesIO(sketch.content)).size == (168, 128)  # as it was coded
    cut = client.post("/v1/decode?partial=1", content=coded[:-2], headers={**RAW, **JSON}).json()
    assert cut["missing"] == ["sketch"] and cut["prompt"] == "a dog"


def test_a_form_and_json_say_all_that_was_made(client: httpx.Client) -> None:
    fields = {"candidates": "3", "prompt": "a red house", "parts": "true"}
    files = {"file": ("../../etc/evil\x00.png", PHOTO, "image/png")}
    row = client.post("/v1/encode", data=fields, files=files, headers=JSON).json()
    data = base64.b64decode(row["pics"])
    assert row["bytes"] == len(data) == sum(row["layers"].values())
    assert row["prompt"] == "a red house" and len(row["scores"]) == 3
    assert row["candidate"] == int(np.argmax(row["scores"]))
    for part in ("original", "sketch", "decoded_sketch"):
        Image.open(io.BytesIO(base64.b64decode(row[part]))).load()
    told = client.post("/v1/info", content=data, headers=RAW).json()
    assert told == json.loads(json.dumps(contents(data)))


def test_a_file_that_a_form_sends_as_text_is_taken_byte_for_byte(
    client: httpx.Client, coded: bytes
) -> None:
    """As ``curl -F 'file=<photo.pics'`` does, and libraries that are given no file name."""
    told = client.post("/v1/info", files={"file": (None, coded)})
    assert told.status_code == 200 and told.json() == json.loads(json.dumps(contents(coded)))
    wrong = client.post("/v1/encode", files={"file": PHOTO, "mode": (None, "größer")})
    assert wrong.status_code == 400 and "mode 'größer'" in wrong.json()["error"]


def test_modes_and_qualities(client: httpx.Client) -> None:
    def bytes_of(query: str) -> bytes:
        response = client.post(f"/v1/encode?{query}", content=PHOTO, headers=RAW)
        assert response.status_code == 200, response.text
        return response.content

    assert read(bytes_of("mode=pic&candidates=1")).sketch is None
    low, high = bytes_of("mode=sketch&quality=0"), bytes_of("mode=sketch&quality=5")
    assert len(low) < len(high) and read(high).text is None
    back = client.post("/v1/decode", content=high, headers={**RAW, **JSON}).json()
    assert back["kind"] == "sketch" and (back["width"], back["height"]) == (128, 96)


def test_what_is_loaded_and_how_it_is(client: httpx.Client, miniature_decoder: Path) -> None:
    models = client.get("/v1/models").json()
    assert models["modes"] == ["pics", "pic", "sketch"]
    assert models["limits"]["candidates"] == 4 and models["limits"]["pixels"] == 90000
    assert models["sketch_model"]["quality"]["most"] == 5
    assert models["decoder"]["name"] == miniature_decoder.name  # and not its path
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    for path in ("/", "/healthz", "/readyz"):  # as some load balancers ask
        asked = client.head(path)
        assert (asked.status_code, asked.content) == (200, b"")
    assert "/v1/encode" in client.get("/v1/openapi.json").json()["paths"]
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


def test_metrics_count_requests_seconds_and_bytes(client: httpx.Client, coded: bytes) -> None:
    def value(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.M)
        return float(found[1]) if found else 0.0

    names = [
        'picsnet_requests_total{status="200",verb="info"}',
        'picsnet_received_bytes_total{verb="info"}',
        'picsnet_sent_bytes_total{verb="info"}',
        'picsnet_request_seconds_count{verb="info"}',
    ]
    before = [value(name) for name in names]
    answer = client.post("/v1/info", content=coded, headers=RAW).content
    after = [value(name) for name in names]
    assert np.subtract(after, before).tolist() == [1, len(coded), len(answer), 1]
    assert value("picsnet_in_work") == value("picsnet_queue_length") == 0
    client.get("/no/such/place")
    assert value('picsnet_requests_total{status="404",verb="other"}') >= 1
    assert "/no/such" not in client.get("/metrics").text


def wrong_requests() -> dict[str, tuple[str, dict[str, Any], int, str]]:
    small, torn = png(photograph(0, (8, 8))), bytearray(PHOTO[: len(PHOTO) // 2])
    strange = write(PicsFile(64, 64, None, SketchLayer(b"\0\1\2", b"")))
    raw: dict[str, Any] = {"content": PHOTO, "headers": RAW}
    return {
        "empty": ("encode", {**raw, "content": b""}, 400, "empty"),
        "text": ("encode", {**raw, "content": b"hello there"}, 415, "none of PNG"),
        "type": ("encode", {"content": PHOTO, "headers": {"content-type": "a/b"}}, 415, "a/b"),
        "torn": ("encode", {**raw, "content": bytes(torn)}, 422, "not a picture"),
        "small": ("encode", {**raw, "content": small}, 422, "16 to 8192"),
        "pixels": ("encode", {**raw, "content": png(photograph(0, (400, 300)))}, 413, "90000"),
        "bomb": ("encode", {**raw, "content": bomb(30000, 30000)}, 413, "too many pixels"),
        "small bomb": ("encode", {**raw, "content": bomb(9000, 9000)}, 413, "9000x9000"),
        "postscript": ("encode", {**raw, "content": b"%!PS-Adobe-3.0 EPSF-3.0\n"}, 415, "none of"),
        "quality": ("encode?quality=much", raw, 400, "quality 'much'"),
        "high": ("encode?quality=5.5", raw, 400, "0 to 5"),
        "nan": ("encode?quality=nan", raw, 400, "quality"),
        "mode": ("encode?mode=best", raw, 400, "mode 'best'"),
        "candidates": ("encode?candidates=5", raw, 400, "at most 4"),
        "no candidates": ("encode?candidates=0", raw, 400, "candidates"),
        "prompt": ("encode?mode=sketch&prompt=dog", raw, 400, "a sketch file has none"),
        "long": (f"encode?prompt={'a' * 1001}", raw, 400, "1000"),
        "unknown": ("encode?qualty=1", raw, 400, "no such parameter"),
        "twice": (
            "encode?mode=pics",
            {"files": {"file": PHOTO}, "data": {"mode": "pic"}},
            400,
            "give it once",
        ),
        "twice in the query": ("encode?mode=pics&mode=pic", raw, 400, "mode: given more than once"),
        "twice in the body": (
            "encode",
            {"files": [("file", PHOTO), ("mode", (None, b"pics")), ("mode", (None, b"pic"))]},
            400,
            "mode: given more than once",
        ),
        "two files": (
            "encode",
            {"files": [("file", (None, b"hello")), ("file", PHOTO)]},
            400,
            "one file a request",
        ),
        "field": ("encode", {"files": {"photo": PHOTO}}, 400, "send it as file"),
        "boundary": (
            "encode",
            {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
            400,
            "malformed",
        ),
        "garbage": (
            "encode",
            {"content": b"--x\r\nno header\x00\r\n", "headers": {"content-type": FORM}},
            400,
            "malformed",
        ),
        "unfinished": (
            "encode",
            {
                "content": b"--x\r\nContent-Disposition: form-data",
                "headers": {"content-type": FORM},
            },
            400,
            "",
        ),
        "request id": ("info", {**raw, "headers": {**RAW, "x-request-id": "a b"}}, 422, "not a"),
        "bad id": ("encode", {**raw, "headers": {**RAW, "x-request-id": "a b"}}, 400, "letters"),
        "not pics": ("decode", raw, 422, "not a .pics file"),
        "stranger": ("decode", {**raw, "content": strange}, 422, "model 000102"),
        "no file": ("decode", {"data": {"partial": "true"}}, 415, "urlencoded"),
    }


@pytest.mark.parametrize("name", wrong_requests())
def test_errors_are_one_line_of_json(name: str, client: httpx.Client) -> None:
    verb, request, status, words = wrong_requests()[name]
    response = client.post(f"/v1/{verb}", **request)
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert words in error and "\n" not in error
    assert "Traceback" not in error and str(REPOSITORY.parent) not in error


def test_files_for_others_and_too_large_ones_are_refused_before_they_wait(
    service: Service, client: httpx.Client, coded: bytes
) -> None:
    whole = read(coded)
    assert whole.sketch is not None and whole.text is not None
    others = bytes((whole.text[0], whole.text[1] ^ 1)) + whole.text[2:]
    huge = write(PicsFile(8192, 8192, None, SketchLayer(whole.sketch.fingerprint, b"")))
    plain = write(PicsFile(128, 96, whole.text, None))
    # Of a small picture, but its sketch is said to be of working size 384.
    large = write(
        PicsFile(128, 96, bytes((5 << 4 | whole.text[0] & 15,)) + whole.text[1:], whole.sketch)
    )
    worker = service.workers()[0]
    os.kill(worker, signal.SIGSTOP)  # nothing that waited would be answered
    try:
        for data, query, status, words in (
            (write(PicsFile(128, 96, others, whole.sketch)), "", 422, "was written for decoder"),
            (huge, "", 413, "90000"),
            (plain, "?sketch_only=1", 422, "holds no sketch"),
            (large, "?sketch_only=1", 413, "its sketch is 512x384"),
            (coded[:-1], "", 422, "get it again"),
        ):
            response = client.post(f"/v1/decode{query}", content=data, headers=RAW)
            assert response.status_code == status and words in response.json()["error"]
        response = client.post("/v1/encode", content=b"hello there", headers=RAW)
        assert response.status_code == 415
    finally:
        os.kill(worker, signal.SIGCONT)


def test_other_methods_and_places(client: httpx.Client) -> None:
    response = client.get("/v1/encode")
    assert response.status_code == 405 and response.headers["allow"] == "POST"
    assert "error" in response.json()
    for path in ("/nothing", "/static/page.py", "/static/..%2fapp.py", "/samples/..%2f..%2fx"):
        assert client.get(path).status_code == 404, path


def test_pages_of_other_sites_cannot_use_it(client: httpx.Client) -> None:
    headers = {**RAW, "sec-fetch-site": "cross-site"}
    response = client.post("/v1/encode", content=PHOTO, headers=headers)
    assert response.status_code == 403 and "another site" in response.json()["error"]
    assert client.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_the_page_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    texts = [page.text]
    for path in re.findall(r'(?:src|href)="(static/[^"]+)"', page.text):
        asset = client.get(f"/{path}")
        assert asset.status_code == 200 and asset.headers["x-content-type-options"] == "nosniff"
        texts.append(asset.text)
    assert len(texts) == 5
    addresses = set(re.findall(r"(?:https?:)?//[\w.]+", " ".join(texts)))
    assert {a for a in addresses if "." in a} <= {"http://www.w3.org"}  # SVG's name
    assert not re.search(r"<script>|<style|\sstyle=|\son\w+=", page.text)
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "content-security-policy" in client.get("/nothing").headers
    names = client.get("/samples").json()
    assert "astronaut" in names
    assert Image.open(io.BytesIO(client.get("/samples/rocket").content)).format == "JPEG"


def test_a_request_can_be_followed_by_its_name(service: Service, client: httpx.Client) -> None:
    worker = service.workers()[0]
    query = "/v1/encode?mode=sketch"
    answers: dict[str, int] = {}

    def send(name: str) -> None:
        headers = {**RAW, "x-request-id": name}
        answer = httpx.post(service.address + query, content=PHOTO, headers=headers, timeout=60)
        assert answer.headers["x-request-id"] == name
        answers[name] = answer.status_code

    def state(name: str) -> dict[str, Any]:
        told: dict[str, Any] = client.get(f"/v1/requests/{name}").json()
        return told

    os.kill(worker, signal.SIGSTOP)
    threads = []
    try:
        for name, wanted in (("first-one", "working"), ("second-1", "waiting")):
            threads.append(threading.Thread(target=send, args=(name,)))
            threads[-1].start()
            until(lambda: state(name)["state"] == wanted)  # noqa: B023
        assert state("second-1")["place"] == 1 and state("first-one")["seconds"] >= 0
        assert state("first-one")["usual_seconds"] > 0  # others were done before
        again = client.post(query, content=PHOTO, headers={**RAW, "x-request-id": "second-1"})
        assert again.status_code == 400 and "choose another" in again.json()["error"]
        assert gauge(service.address, "picsnet_queue_length") == 1
    finally:
        os.kill(worker, signal.SIGCONT)
        for thread in threads:
            thread.join()
    assert answers == {"first-one": 200, "second-1": 200}
    assert state("first-one") == {"state": "unknown"}


def test_what_cannot_work_ends_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, words in (
        (["--port", "70000"], "--port 70000"),
        (["--workers", "0"], "--workers 0"),
        (["--timeout", "nan"], "--timeout nan"),
        (["--max-candidates", "33"], "1 to 32"),
        (["--host", "no.such.host.invalid"], "--host"),
        (["--ckpt", "no-such-model", "--port", "0", "--host", "0.0.0.0"], "no-such-model"),
    ):
        assert main(["serve", "--decoder", "none", *arguments]) in (1, 2)
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-1].startswith("picsnet: error: ") and words in lines[-1]
    assert lines[0].startswith("picsnet: warning: listening on 0.0.0.0, beyond this machine")
    monkeypatch.delitem(sys.modules, "picsnet.serve.server")
    monkeypatch.setitem(sys.modules, "fastapi", None)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "picsnet.serve.app")
    assert main(["serve"]) == 1
    assert "pip install 'picsnet[serve]'" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    port = service.address.rsplit(":", 1)[1]
    assert main(["serve", "--port", port]) == 1
    assert f"--port {port}: cannot listen on 127.0.0.1" in capsys.readouterr().err


def test_stopping_lets_work_end_and_refuses_what_waits(service: Service) -> None:
    (worker,) = service.workers()
    answers: dict[str, httpx.Response] = {}

    def send(name: str) -> None:
        answers[name] = httpx.post(
            f"{service.address}/v1/encode?mode=sketch", content=PHOTO, headers=RAW, timeout=60
        )

    os.kill(worker, signal.SIGSTOP)
    try:
        threads = []
        for name, state in (("first", "in_work"), ("second", "queue_length")):
            threads.append(threading.Thread(target=send, args=(name,)))
            threads[-1].start()
            until_counted(service, answers, **{state: 1})
        service.process.send_signal(signal.SIGTERM)
        threads[1].join()
    finally:
        os.kill(worker, signal.SIGCONT)
    threads[0].join()
    assert answers["second"].status_code == 503
    assert "stopping" in answers["second"].json()["error"]
    assert answers["first"].status_code == 200
    service.process.wait(60)  # it has been told once, and is not told again while it ends
    assert service.stop() == 0
    assert service.lines[-2:] == [
        "picsnet: stopping: 1 in work may end, 1 that wait are refused",
        "picsnet: stopped",
    ]
    assert not any("Traceback" in line for line in service.lines)
