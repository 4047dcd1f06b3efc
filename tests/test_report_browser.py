"""The report in a browser: drawn, quiet, usable by mouse, keyboard and phone."""

from __future__ import annotations

import io
import json
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


CLIP = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


def _named_figures(points: Any, measures: Any, *rest: Any) -> dict[str, list[Path]]:
    """Still figures are slow, and no page shows them before somebody follows a link."""
    return {name: [Path(f"{name}.png"), Path(f"{name}.svg")] for name in measures}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    run = save_run(folder / "runs" / "small", clip=CLIP)
    other = save_run(folder / "runs" / "other", dataset="clic2021")
    alike = folder / "runs" / "div2k"
    save_run(alike, dataset="div2k", clip=CLIP)
    summary = json.loads((alike / "summary.json").read_text())
    summary["dataset"]["pictures"] = 100  # as the paper's
    (alike / "summary.json").write_text(json.dumps(summary))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("picsnet.report.page.draw_figures", _named_figures)
        assert main(["report", str(run), str(other), str(alike), "-o", str(folder / "report")]) == 0
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

    def picture(self, selector: str) -> NDArray[np.int64]:
        """A screenshot of an element, (H, W, 3)."""
        self.page.locator(selector).scroll_into_view_if_needed()
        self.page.wait_for_function(
            "[...document.querySelectorAll('#compare img')].every((i) => i.complete)"
        )
        return _pixels(self.page.locator(selector).screenshot())


def _pixels(shot: bytes) -> NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(np.int64)


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
def test_it_is_drawn_and_fits(opened: Any, width: int) -> None:
    page = opened(width).page
    page.check("#foreign")
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    pixels = _pixels(page.screenshot(full_page=True))
    assert len(np.unique(pixels @ [65536, 256, 1])) > 200
    assert page.locator("#chart-grid .chart svg").count() >= 3
    assert page.locator("#chart-grid a:has-text('SVG')").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_hostile_prompt_is_only_text(opened: Any) -> None:
    page = opened().page
    assert page.title() == "picsnet report"  # no prompt's script has run
    assert page.locator("img[src=x]").count() == 0
    assert "<img src=x onerror=" in page.inner_text("#facts-right")
    assert "\\u202eback \\u001b[31m" in page.inner_text("#facts-right")
    assert "</script>" in page.inner_text("#row-table") and "</script>" in page.inner_text("#notes")


def test_the_divider_moves_by_mouse_and_uncovers_the_left_picture(opened: Any) -> None:
    page = opened()
    before = page.picture("#compare")
    box = page.page.locator("#compare").bounding_box()
    y = box["y"] + box["height"] / 3
    page.page.mouse.move(box["x"] + box["width"] / 2, y)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + box["width"] * 0.8, y, steps=4)
    page.page.mouse.up()
    assert page.page.get_attribute("#divider", "aria-valuenow") == "80"
    after = page.picture("#compare")
    width = before.shape[1]
    uncovered = slice(int(0.6 * width), int(0.7 * width))
    assert np.abs(after[:, uncovered] - before[:, uncovered]).mean() > 20
    untouched = slice(int(0.9 * width), int(0.97 * width))
    assert np.abs(after[:, untouched] - before[:, untouched]).mean() < 1
    page.page.mouse.move(box["x"] + box["width"] * 0.2, y)
    assert page.page.get_attribute("#divider", "aria-valuenow") == "80"  # let go of


def test_the_divider_moves_by_keyboard_and_covers_the_left_picture(opened: Any) -> None:
    page = opened()
    before = page.picture("#compare")
    page.page.focus("#divider")
    for key, value in (("ArrowRight", "52"), ("ArrowLeft", "50"), ("End", "100"), ("Home", "0")):
        page.page.keyboard.press(key)
        assert page.page.get_attribute("#divider", "aria-valuenow") == value
    after = page.picture("#compare")
    covered = slice(before.shape[1] // 5, before.shape[1] // 3)
    assert np.abs(after[:, covered] - before[:, covered]).mean() > 20


def test_sides_and_photographs_can_be_chosen(opened: Any) -> None:
    page = opened().page
    page.select_option("#right", label="WebP, q5")
    assert "50 bytes" in page.inner_text("#facts-right")
    page.click("#next")
    assert page.input_value("#photograph") == "1"
    assert page.inner_text("#facts-right").startswith("WebP, q5")  # the choice is kept
    page.select_option("#right", label="PICS, lambda 0.5")
    assert "sketch 31" in page.inner_text("#facts-right")
    page.select_option("#left", label="sketch")
    assert "96 x 64" in page.inner_text("#facts-left")
    page.click("#strip button:has-text('decoded sketch of PICS, lambda 2')")
    assert page.inner_text("#facts-right").startswith("decoded sketch of PICS, lambda 2")
    assert page.locator("#strip button[aria-pressed=true]").count() == 1
    assert page.locator("#strip img:not([loading=lazy])").count() == 0


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


def test_series_are_hidden_and_others_figures_shown_on_request(opened: Any) -> None:
    page = opened().page
    marks = page.locator("#chart-grid .mark").count()
    page.click("#legend button >> nth=0")
    assert page.locator("#chart-grid .mark").count() < marks
    page.click("#legend button >> nth=0")
    assert "Lei et al." not in page.inner_text("main")
    assert page.locator("#chart-grid .chart svg").count() == 4
    page.check("#foreign")
    assert page.locator("#chart-grid .mark").count() > marks
    theirs = page.locator(
        "#chart-grid .mark[aria-label^='PICS (Lei et al.), published, on clic2021']"
    )
    assert theirs.count() == 1  # of CLIP distance: FID and KID are never on other datasets
    page.click("#sources summary")
    assert "2307.01944" in page.inner_text("#sources-table")
    page.click("#legend button:has-text('PICS (Lei et al.)')")
    assert theirs.count() == 0 and "PICS (Lei et al.)" not in page.inner_text("#chart-grid")


def test_points_are_told_of_by_pointer_and_by_keys(opened: Any) -> None:
    page = opened().page
    mark = page.locator("#chart-grid .mark >> nth=1")
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.mouse.move(box["x"] - 5, box["y"] - 5)  # near is enough
    assert page.inner_text("#tip").startswith("PICS, lambda 1\n")
    page.mouse.move(2, 2)
    assert page.locator("#tip").is_hidden()
    page.focus("#chart-grid .chart >> nth=0 >> [tabindex='0'].mark")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#tip").startswith("PICS, lambda 2\n")
    page.keyboard.press("End")
    assert page.inner_text("#tip").startswith("WebP, q20\n")
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_means_say_of_how_many_pictures_they_are(opened: Any) -> None:
    page = opened().page
    assert page.inner_text("#means-table th >> nth=2") == "pictures"
    assert page.inner_text("#means-table tbody tr >> nth=0 >> td >> nth=2") == "2"


def test_bd_rates_are_tables(opened: Any) -> None:
    page = opened().page
    page.select_option("#bd-measure", label="MS-SSIM, in dB")
    assert "against WebP" in page.inner_text("#bd-table")
    assert page.locator("#bd-table td:has-text('%')").count() == 2


def test_datasets_can_be_switched(opened: Any) -> None:
    page = opened().page
    assert "StableCodec" in page.inner_text("#otherwise-table")
    page.select_option("#dataset", "clic2021")
    assert "clic2021" in page.inner_text("#about")
    # The paper's figures are on this dataset, and nothing was measured that is as theirs.
    assert "published" not in page.inner_text("#legend")
    assert "CLIP distance" not in page.inner_text("#chart-grid")
    assert "not measured here" in page.inner_text("#otherwise-table")
    page.select_option("#dataset", "div2k")  # they show without being asked for
    assert "PICS (Lei et al.), published" in page.inner_text("#legend")
    assert "CLIP distance" in page.inner_text("#chart-grid")
    assert "CLIP distance" not in page.inner_text("#otherwise-table")


def test_what_was_left_out_is_said(opened: Any) -> None:
    notes = opened().page.inner_text("#notes-list")
    assert "lpips: no weights" in notes and "broken: broken.png: not a picture" in notes


def test_dark_follows_the_system_and_the_button(opened: Any) -> None:
    def ground(page: Any) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    page = opened(dark=True).page
    assert ground(page) == "rgb(20, 20, 23)"
    page.emulate_media(color_scheme="light")
    page.wait_for_function("document.documentElement.dataset.theme === 'light'")
    assert ground(page) == "rgb(255, 255, 255)"
    page.click("#theme")
    assert ground(page) == "rgb(20, 20, 23)"


def test_a_finger_moves_the_divider_and_reads_points_on_a_phone(opened: Any) -> None:
    page = opened(375).page
    page.locator("#compare").scroll_into_view_if_needed()
    box = page.locator("#compare").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 0.25, box["y"] + 20)
    assert 20 <= int(page.get_attribute("#divider", "aria-valuenow")) <= 30
    mark = page.locator("#chart-grid .mark >> nth=0")
    mark.scroll_into_view_if_needed()
    box = mark.bounding_box()
    page.touchscreen.tap(box["x"] + 12, box["y"])
    assert page.inner_text("#tip").startswith("PICS, lambda 0.5")
    edges = page.evaluate("(({ left, right }) => [left, right])(tip.getBoundingClientRect())")
    assert 0 <= edges[0] < edges[1] <= 375


def test_a_report_of_no_pictures_says_so(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picsnet.report.page.draw_figures", lambda *_: {})
    run = save_run(tmp_path / "run")
    assert main(["report", str(run), "-o", str(tmp_path / "report"), "--pictures", "0"]) == 0
    page = Page(browser, (tmp_path / "report" / "index.html").as_uri(), 1280, False)
    assert "no pictures" in page.page.inner_text("#gallery")
    assert page.page.locator("#compare").is_hidden() and page.wrong == []
    page.page.close()
