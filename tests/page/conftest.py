"""A headless Chromium and an aggregator to look at; without a browser these tests say what to install."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.page.stage import Stage, cancelled_order, claimed, hostile_order, people, whole_order

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SCREENSHOTS: Final = Path(__file__).parents[2] / "build" / "screenshots"
WAIT_MS: Final = 60_000


@dataclass(slots=True)
class Shown:
    """The aggregator with its orders by hex OID."""

    stage: Stage
    settled: str
    training: str
    hostile: str


@dataclass(slots=True)
class Window:
    """A page with what it complained of and where it went."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def open(self, where: str = "#/orders", heading: str | None = None) -> Page:
        """Go somewhere and wait until it is drawn."""
        self.page.goto("about:blank")  # else another fragment of the same page would be no new page
        self.page.goto(f"{self.url}/{where}")
        self.page.wait_for_selector("main[aria-busy=false] h1", timeout=WAIT_MS)
        if heading is not None:
            self.page.get_by_role("heading", level=1, name=heading).wait_for(timeout=WAIT_MS)
        return self.page

    def keep(self, name: str) -> None:
        """A screenshot for people."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def find_browser() -> str | None:
    """The system's Chromium, if there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium, headless."""
    path = find_browser()
    if path is None:
        pytest.skip("no browser: install chromium (Debian: apt install chromium) to test the page")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Shown]:
    """An aggregator that has settled, running and hostile orders."""
    stage = Stage(tmp_path_factory.mktemp("stage"))
    try:
        stage.do(people(stage.net, stage.url))
        settled = stage.do(whole_order(stage.net))
        stage.do(cancelled_order(stage.net))
        training = stage.do(stage.net.place(train_window=3600))
        stage.do(claimed(stage.net, training))
        stage.do(stage.net.place(train_window=1800, reward=240 * 10**18))
        hostile = stage.do(hostile_order(stage.net))
        yield Shown(stage, settled, "0x" + training.hex(), hostile)
    finally:
        stage.close()


def _window(browser: Browser, shown: Shown, **settings: object) -> Iterator[Window]:
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 860}} | settings))  # type: ignore[arg-type]
    window = Window(context.new_page(), shown.stage.url)
    own = urlsplit(shown.stage.url).netloc

    def noticed(url: str) -> None:
        if urlsplit(url).netloc != own and not url.startswith("data:"):
            window.foreign.append(url)

    def said(message: ConsoleMessage) -> None:
        if message.type == "error":
            window.errors.append(message.text)

    window.page.on("console", said)
    window.page.on("pageerror", lambda error: window.errors.append(str(error)))
    window.page.on("request", lambda request: noticed(request.url))
    yield window
    context.close()


@pytest.fixture
def window(browser: Browser, shown: Shown) -> Iterator[Window]:
    """A wide window in light colours."""
    yield from _window(browser, shown, color_scheme="light")


@pytest.fixture
def dark(browser: Browser, shown: Shown) -> Iterator[Window]:
    """A wide window in dark colours."""
    yield from _window(browser, shown, color_scheme="dark")


@pytest.fixture
def phone(browser: Browser, shown: Shown) -> Iterator[Window]:
    """A phone."""
    viewport = {"width": 375, "height": 740}
    yield from _window(browser, shown, color_scheme="light", viewport=viewport, device_scale_factor=2)
