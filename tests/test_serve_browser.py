"""The service's page in a browser: a photograph to a file and back, by mouse, keys and phone."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from benchmarks.service import Service, gauge
from picsnet.bitstream import read
from tests.conftest import REPOSITORY
from tests.test_cli import photograph
from tests.test_report_browser import CHROMIUM
from tests.test_report_browser import browser as browser  # the fixture
from tests.test_serve import RAW, png

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
    pytest.mark.skipif(sys.platform != "linux", reason="workers are found by /proc"),
]
PHOTO = {"name": "a photo.png", "mimeType": "image/png", "buffer": png(photograph(0))}
HOSTILE = "<img src=x onerror=document.title='run'>"


@pytest.fixture(scope="module")
def service(miniature_decoder: Path) -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        with Service(
            "--decoder", str(miniature_decoder), "--prompt-from", "none", "--max-candidates", "2",
            "--max-body", "1", "--decoder-set", "size=128", "--decoder-set", "steps=1",
        ) as running:  # fmt: skip
            yield running


class Page:
    """An open page, and whatever went wrong in it."""

    def __init__(self, browser: Any, service: Service, width: int, dark: bool) -> None:
        self.wrong: list[str] = []
        scheme = "dark" if dark else "light"
        self.page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=width < 600
        )
        self.page.on("console", lambda message: self.note(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.goto(service.address)
        self.page.wait_for_selector("#mode option", state="attached")

    def note(self, text: str) -> None:
        # The browser notes every status from 400 on; what the page says of it is tested.
        if "the server responded with a status of 4" not in text:
            self.wrong.append(text)

    def code(self, file: dict[str, Any] | None = None) -> None:
        self.page.set_input_files("#file", [PHOTO if file is None else file])
        self.done()

    def done(self) -> None:
        self.page.wait_for_selector("#work", state="hidden", timeout=60_000)
        assert self.page.locator("#error").is_hidden(), self.page.inner_text("#error")

    def parts(self) -> list[str]:
        return [str(text).strip() for text in self.page.locator("#strip button").all_inner_texts()]


@pytest.fixture
def opened(browser: Any, service: Service) -> Iterator[Any]:
    pages: list[Page] = []

    def make(width: int = 1280, dark: bool = False) -> Page:
        pages.append(Page(browser, service, width, dark))
        return pages[-1]

    yield make
    for page in pages:
        assert page.wrong == []
        page.page.close()


@contextlib.contextmanager
def stopped_worker(service: Service) -> Iterator[None]:
    (worker,) = service.workers()
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def pixels(shot: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(np.int64)


@pytest.mark.parametrize("width", [1280, 375])
def test_a_photograph_is_coded_and_all_of_it_is_shown(
    opened: Any, width: int, tmp_path: Path
) -> None:
    one = opened(width)
    page = one.page
    page.fill("#prompt", "a red house")
    one.code()
    assert one.parts() == ["original", "sketch", "decoded sketch", "reconstruction"]
    assert page.inner_text("#result-title") == "a photo.png"
    assert page.inner_text("#prompt-text") == "a red house"
    with page.expect_download() as waiting:
        page.click("#download")
    assert waiting.value.suggested_filename == "a photo.pics"
    waiting.value.save_as(tmp_path / "a.pics")
    data = (tmp_path / "a.pics").read_bytes()
    assert (read(data).width, read(data).height) == (128, 96)
    bpp = 8 * len(data) / (128 * 96)
    said = f"{len(data)} bytes, {bpp:.5f} bits per pixel of 128 x 96"
    assert page.inner_text("#rate") == said
    cells = page.locator("#layers td.number").all_inner_texts()
    assert sum(map(int, cells[:-1])) == int(cells[-1]) == len(data)
    with page.expect_download() as waiting:
        page.click("#download-picture")
    waiting.value.save_as(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (128, 96)
    assert page.evaluate("[...document.images].every((i) => i.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert len(np.unique(pixels(page.screenshot(full_page=True)) @ [65536, 256, 1])) > 200


def test_the_divider_uncovers_the_original(opened: Any) -> None:
    one = opened()
    one.code()
    page = one.page
    page.locator("#compare").scroll_into_view_if_needed()
    before = pixels(page.locator("#compare").screenshot())
    box = page.locator("#compare").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 30, steps=4)
    page.mouse.up()
    assert page.get_attribute("#divider", "aria-valuenow") == "80"
    after = pixels(page.locator("#compare").screenshot())
    width = before.shape[1]
    uncovered = slice(int(0.6 * width), int(0.7 * width))
    assert np.abs(after[:, uncovered] - before[:, uncovered]).mean() > 10
    page.keyboard.press("Home")
    assert page.get_attribute("#divider", "aria-valuenow") == "0"
    page.click("#strip button:has-text('decoded sketch')")
    assert "Right: decoded sketch" in page.inner_text("#sides")


def test_a_file_is_decoded_and_its_prompt_is_only_text(opened: Any, service: Service) -> None:
    coded = httpx.post(
        f"{service.address}/v1/encode",
        params={"candidates": 1, "prompt": HOSTILE},
        content=PHOTO["buffer"],
        headers=RAW,
    ).content
    one = opened()
    one.code({"name": "<b>x</b>.pics", "mimeType": "", "buffer": coded})
    page = one.page
    assert page.inner_text("#result-title") == "<b>x</b>.pics"
    # The vocabulary's decoder puts spaces of its own between tokens.
    assert "<img" in page.inner_text("#prompt-text").replace(" ", "")
    assert page.locator("img[src=x]").count() == 0 and page.title() == "picsnet"
    assert sorted(one.parts()) == ["decoded sketch", "reconstruction"]


def test_a_dropped_photograph_and_options(opened: Any) -> None:
    one = opened()
    page = one.page
    page.select_option("#mode", "sketch")
    assert page.locator("#candidates").is_hidden() and page.locator("#prompt").is_hidden()
    transfer = page.evaluate_handle(
        """(bytes) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([Uint8Array.from(bytes)], "dropped.png"));
          return transfer;
        }""",
        list(PHOTO["buffer"]),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    page.wait_for_selector("#strip button")
    one.done()
    assert one.parts() == ["original", "sketch", "decoded sketch"]
    first = page.inner_text("#rate")
    page.focus("#quality")
    page.keyboard.press("End")
    assert page.inner_text("#quality-value") == "5"
    page.click("#again")
    page.wait_for_function("(first) => document.querySelector('#rate').innerText !== first",
                           arg=first)  # fmt: skip
    one.done()
    assert int(page.inner_text("#rate").split()[0]) > int(first.split()[0])
    page.select_option("#mode", "pic")
    assert page.locator("#quality").is_hidden()


def test_a_sample_is_coded_by_keyboard_alone(opened: Any) -> None:
    one = opened()
    page = one.page
    page.wait_for_selector("#samples button")
    page.focus("#theme")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "file"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#result")
    one.done()
    assert page.inner_text("#result-title") == "astronaut.png"
    assert "512 x 512" in page.inner_text("#rate")


def test_errors_are_one_line(opened: Any) -> None:
    page = opened().page
    for name, data, words in (
        ("notes.txt", b"hello there", "none of PNG"),
        ("broken.pics", b"\xf5\x13\x40", "cut short"),
        ("large.png", bytes(2**21), "at most 1 MiB are allowed"),
    ):
        page.set_input_files("#file", [{"name": name, "mimeType": "", "buffer": data}])
        page.wait_for_selector("#error:not([hidden])")
        page.wait_for_function(
            "(words) => document.querySelector('#error').innerText.includes(words)", arg=words
        )
        assert "\n" not in page.inner_text("#error")
    page.set_input_files("#file", [PHOTO])
    page.wait_for_selector("#error", state="hidden")


def test_waiting_shows_the_place_and_can_be_cancelled(opened: Any, service: Service) -> None:
    first, second = opened(), opened(375)
    with stopped_worker(service):
        first.page.set_input_files("#file", [PHOTO])
        first.page.wait_for_function(
            "() => document.querySelector('#status').innerText.startsWith('Working on a photo.png')"
        )
        second.page.set_input_files("#file", [PHOTO])
        second.page.wait_for_function(
            "() => document.querySelector('#status').innerText === 'Waiting: place 1 in the queue'"
        )
        second.page.click("#cancel")
        second.page.wait_for_selector("#work", state="hidden")
        while gauge(service.address, "picsnet_queue_length"):
            pass
        assert second.page.locator("#error").is_hidden()
    first.done()
    assert "reconstruction" in first.parts()


def test_dark_follows_the_system_and_the_button(opened: Any) -> None:
    page = opened(dark=True).page
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(20, 20, 23)"
    page.click("#theme")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
