"""A real browser for the live page: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
INSIDE = ("http://127.0.0.1:", "ws://127.0.0.1:", "blob:", "data:")


def chromium() -> str:
    """Path of the browser; skips the test where there is none."""
    pytest.importorskip("playwright", reason="Playwright is not installed: pip install -e .[test]")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no browser here: apt-get install chromium")
    return path


class Page:
    """A page with a memory of what went wrong in it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.console: list[str] = []
        self.outside: list[str] = []
        page.on("console", lambda message: message.type in ("error", "warning") and self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("request", lambda request: self._see(request.url))
        page.on("websocket", lambda socket: self._see(socket.url))

    def _see(self, url: str) -> None:
        if not url.startswith(INSIDE):
            self.outside.append(url)

    def open(self, url: str) -> Page:
        self.page.goto(url)
        return self

    def text(self, testid: str) -> str:
        return self.page.get_by_test_id(testid).inner_text()

    def count(self, testid: str) -> int:
        return self.page.get_by_test_id(testid).count()

    def attribute(self, testid: str, name: str) -> str:
        return self.page.get_by_test_id(testid).first.get_attribute(name) or ""

    def stats(self, expression: str) -> Any:
        """Evaluate `expression` on the page's counters."""
        return self.page.evaluate(f"window.S.{expression}")

    def until(self, condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """Wait for something to be shown."""
        end_s = time.monotonic() + timeout_s
        while not (value := condition()):
            assert time.monotonic() < end_s, f"it was not shown in time; console: {self.console}"
            self.page.wait_for_timeout(50)
        return value


@contextmanager
def browser() -> Iterator[Callable[..., Page]]:
    """Yield a function that opens an empty page in a context of its own."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)

        def new_page(**context: Any) -> Page:
            size = {"width": 1480, "height": 860}
            return Page(running.new_context(**{"viewport": size, "color_scheme": "dark", **context}).new_page())

        try:
            yield new_page
        finally:
            running.close()
