"""Pages in Chromium: opened as a reader has them, and what is wrong with them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="Chromium is missing; `make browser` says why")
# Width in pixels and colour scheme.
FORMS = {
    "desk": (1280, "light"),
    "phone": (390, "dark"),
    "desk in the dark": (1280, "dark"),
    "phone by day": (390, "light"),
}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run it, without a window."""
    with sync_playwright() as playwright:
        # In a container there is no sandbox for root.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Viewer:
    """A reader of the pages of an address; `wrong` is what the console said, and what was asked for elsewhere."""

    def __init__(self, browser: Browser, address: str, pictures: str | None = None) -> None:
        self.wrong: list[str] = []
        self.address = address
        self._ours = tuple(f"{each}/" for each in (address, pictures) if each)
        self._browser = browser
        self._contexts: list[BrowserContext] = []

    def open(self, path: str, width: int = 1280, scheme: str = "light", *, with_axe: bool = False) -> Page:
        """Open a page, once it has all that it shows."""
        context = self._browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
            locale="en-GB",
            # axe-core is put into the page from outside, which the policy of pages forbids.
            bypass_csp=with_axe,
        )
        self._contexts.append(context)
        page = context.new_page()
        page.on(
            "console",
            lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on(
            "request", lambda asked: self.wrong.append(asked.url) if self._is_elsewhere(asked.url) else None
        )
        page.goto(self.address + path, wait_until="networkidle" if urlsplit(path).path != "/" else "load")
        # Swagger UI makes it.
        page.locator("main").wait_for()
        return page

    def _is_elsewhere(self, url: str) -> bool:
        return urlsplit(url).scheme not in ("data", "blob") and not url.startswith(self._ours)

    def close(self) -> None:
        """Close all that was opened."""
        for context in self._contexts:
            context.close()
        self._contexts.clear()

    def require_fit_and_accessible(self, path: str, width: int, scheme: str) -> Page:
        """Require that a page is no wider than the window and that axe-core finds nothing; return it."""
        page = self.open(path, width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        found = Axe().run(self.open(path, width, scheme, with_axe=True))
        assert found.violations_count == 0, found.generate_report()
        return page


@contextmanager
def viewing(browser: Browser, address: str, pictures: str | None = None) -> Iterator[Viewer]:
    """View pages, and require at the end that nothing was wrong and nothing was asked for elsewhere.

    Args:
        browser: to view them in.
        address: where they are.
        pictures: where the shop's pictures are.
    """
    viewer = Viewer(browser, address, pictures)
    try:
        yield viewer
    finally:
        viewer.close()
    assert viewer.wrong == []
