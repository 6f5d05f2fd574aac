"""Chromium without a network, for the tests that look at a page as a reader sees it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, FloatRect, Page, Route, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@dataclass
class Opened:
    """A page and what went wrong while it was opened."""

    page: Page
    requests: list[str] = field(default_factory=list)  # other than for the file itself
    errors: list[str] = field(default_factory=list)

    def texts(self, selector: str) -> list[str]:
        """What a reader sees of each element."""
        return [text.strip() for text in self.page.locator(selector).all_inner_texts()]

    def box(self, selector: str) -> FloatRect:
        """The only element's place: x, y, width and height in pixels."""
        (box,) = self.boxes(selector)
        return box

    def boxes(self, selector: str) -> list[FloatRect]:
        """The places of all elements that are drawn."""
        return [box for element in self.page.locator(selector).all() if (box := element.bounding_box())]

    def ask(self, script: str) -> Any:
        """What JavaScript says."""
        return self.page.evaluate(script)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; the test is skipped where there is none, but fails in CI."""
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        reason = f"none of {', '.join(NAMES)} is on the PATH; install Chromium to look at the report"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, file: Path, scheme: Literal["light", "dark"], width: int) -> Iterator[Opened]:
    """The file in a window `width` pixels wide; requests for anything else are noted and not answered."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    view = Opened(context.new_page())

    def answer(route: Route) -> None:
        if route.request.url == file.as_uri():
            route.continue_()
        else:
            view.requests.append(route.request.url)
            route.abort()

    view.page.route(lambda url: not url.startswith("data:"), answer)
    view.page.on("console", lambda message: view.errors.append(message.text))
    view.page.on("pageerror", lambda error: view.errors.append(str(error)))
    view.page.goto(file.as_uri())
    yield view
    context.close()
