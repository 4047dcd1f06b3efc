"""The report in a browser: drawn, quiet, usable by mouse, keyboard and phone."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from picsnet.cli import main
from tests.evaluated import save_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    run = save_run(folder / "runs" / "small")
    other = save_run(folder / "runs" / "other", dataset="clic2021")
    assert main(["report", str(run), str(other), "-o", str(folder / "report")]) == 0
    return (folder / "report" / "index.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


class Page:
    """An open report, and whatever went wrong in it."""

    def __init__(self, browser: Any, address: str, width: int, dark: bool) -> None:
        self.wrong: list[str] = []
        scheme = "dark" if dark else "light"
        self.page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=width < 600
        )
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("requestfailed", lambda request: self.wrong.append(request.url))
        self.page.goto(address)
        self.page.wait_for_selector("#row-table tbody tr")

    def picture(self, selector: str) -> NDArray[np.uint8]:
        self.page.locator(selector).scroll_into_view_if_needed()
        self.page.wait_for_function(
            "[...document.querySelectorAll('#compare img')].every((i) => i.complete)"
        )
        shot = self.page.locator(selector).screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Any]:
    pages: list[Page] = []

    def make(width: int = 1280, dark: bool = False) -> Page:
        pages.append(Page(browser, address, width, dark))
        return pages[-1]

    yield make
    for page in pages:
        assert page.wrong == []
        page.page.close()


@pytest.mark.parametrize("width", [1280, 375])
def test_it_is_drawn_and_fits(opened: Any, width: int, tmp_path: Path) -> None:
    page = opened(width).page
    shot = tmp_path / "page.png"
    page.screenshot(path=shot, full_page=True)
    colours = np.unique(np.asarray(Image.open(shot).convert("RGB")).reshape(-1, 3), axis=0)
    assert len(colours) > 200
    assert page.locator("#chart-grid .chart svg").count() >= 3
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.title() == "picsnet report"  # no prompt's script has run


def test_the_divider_moves_by_mouse_and_uncovers_the_left_picture(opened: Any) -> None:
    page = opened()
    before = page.picture("#compare").astype(int)
    box = page.page.locator("#compare").bounding_box()
    y = box["y"] + box["height"] / 3
    page.page.mouse.move(box["x"] + box["width"] / 2, y)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + box["width"] * 0.8, y, steps=4)
    page.page.mouse.up()
    assert page.page.get_attribute("#divider", "aria-valuenow") == "80"
    after = page.picture("#compare").astype(int)
    width = before.shape[1]
    uncovered = slice(int(0.6 * width), int(0.7 * width))
    assert np.abs(after[:, uncovered] - before[:, uncovered]).mean() > 20
    untouched = slice(int(0.9 * width), int(0.97 * width))
    assert np.abs(after[:, untouched] - before[:, untouched]).mean() < 1
    page.page.mouse.move(box["x"] + box["width"] * 0.2, y)
    assert page.page.get_attribute("#divider", "aria-valuenow") == "80"  # let go of


def test_the_divider_moves_by_keyboard(opened: Any) -> None:
    page = opened().page
    page.focus("#divider")
    for key, value in (("ArrowRight", "52"), ("ArrowLeft", "50"), ("Home", "0"), ("End", "100")):
        page.keyboard.press(key)
        assert page.get_attribute("#divider", "aria-valuenow") == value


def test_sides_and_photographs_can_be_chosen(opened: Any) -> None:
    page = opened().page
    page.select_option("#right", label="WebP, q5")
    assert "50 bytes" in page.inner_text("#facts-right")
    page.click("#next")
    assert page.input_value("#photograph") == "1"
    assert page.inner_text("#facts-right").startswith("WebP, q5")  # the choice is kept
    page.select_option("#right", label="PICS, lambda 0.5")
    facts = page.inner_text("#facts-right")
    assert "sketch 31" in facts and "<img src=x" in facts and "\\u202e" in facts


def test_rows_sort_and_filter(opened: Any) -> None:
    page = opened().page

    def column(index: int) -> list[str]:
        cells = page.locator(f"#row-table tbody td:nth-child({index})").all_inner_texts()
        return [str(cell) for cell in cells]

    page.click("th[data-column=bytes] button")
    up = [float(cell) for cell in column(4)]
    assert len(up) == 10 and up == sorted(up)
    page.keyboard.press("Enter")
    assert [float(cell) for cell in column(4)] == up[::-1]
    assert page.get_attribute("th[data-column=bytes]", "aria-sort") == "descending"
    page.fill("#filter", "KODIM02")
    assert set(column(1)) == {"more/kodim02"} and len(column(1)) == 5
    page.select_option("#filter-codec", "WebP")
    assert len(column(1)) == 2 and page.inner_text("#row-count") == "2 rows"


def test_codecs_are_hidden_and_others_figures_shown_on_request(opened: Any) -> None:
    page = opened().page
    marks = page.locator("#chart-grid .mark").count()
    page.click("#legend button >> nth=0")
    assert page.locator("#chart-grid .mark").count() < marks
    page.click("#legend button >> nth=0")
    page.check("#foreign")
    assert page.locator("#chart-grid .mark").count() > marks
    assert "PICS (paper)" in page.inner_text("#chart-grid")
    page.locator("#chart-grid .mark").first.focus()
    assert "bpp" in page.inner_text("#tip")


def test_datasets_can_be_switched(opened: Any) -> None:
    page = opened().page
    page.select_option("#dataset", "clic2021")
    assert "clic2021" in page.inner_text("#about")
    assert "PICS (paper)" not in page.inner_text("#legend")


def test_what_was_left_out_is_said(opened: Any) -> None:
    notes = opened().page.inner_text("#notes-list")
    assert "lpips: no weights" in notes and "broken: broken.png: not a picture" in notes


def test_dark_follows_the_system_and_the_button(opened: Any) -> None:
    def ground(page: Any) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light, dark = opened().page, opened(dark=True).page
    assert ground(light) == "rgb(255, 255, 255)" and ground(dark) == "rgb(20, 20, 23)"
    light.click("#theme")
    assert ground(light) == ground(dark)


def test_a_finger_moves_the_divider_on_a_phone(opened: Any) -> None:
    page = opened(375).page
    page.locator("#compare").scroll_into_view_if_needed()
    box = page.locator("#compare").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 0.25, box["y"] + 20)
    assert 20 <= int(page.get_attribute("#divider", "aria-valuenow")) <= 30
