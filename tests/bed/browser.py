"""A real Chromium, and what a page complains of in it: errors of scripts, anything the content policy stopped, dialogs,
requests to anybody but the server of the page. Whatever a test is about, there must be none of these."""

import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Dialog, Page, async_playwright, expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TIMEOUT_MS = 10_000
_STATUS = "Failed to load resource: the server responded"  # 401, 502: Chromium says so, and tests mean them
_NOBODY = "net::ERR_CONNECTION_REFUSED"


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Without its sandbox: that one refuses to run as root, and it shows our own page to nobody."""
    expect.set_options(timeout=TIMEOUT_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Complaints:
    url: str
    found: list[str] = field(default_factory=list)

    def listen(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.found.append(f"error: {error}"))
        page.on("request", lambda request: self._request(request.url))
        page.on("dialog", self._dialog)

    def _console(self, message: ConsoleMessage) -> None:
        if not message.text.startswith(_STATUS) and _NOBODY not in message.text:
            self.found.append(f"{message.type}: {message.text}")

    def _request(self, url: str) -> None:
        if urlsplit(url).netloc != urlsplit(self.url).netloc and not url.startswith("data:image/svg+xml,"):
            self.found.append(f"asked {url}")

    async def _dialog(self, dialog: Dialog) -> None:
        self.found.append(f"dialog: {dialog.message}")
        await dialog.dismiss()


@contextlib.asynccontextmanager
async def visit(browser: Browser, url: str, **context: Any) -> AsyncIterator[Page]:
    """A page in a profile of its own; left, it must not have complained."""
    complaints = Complaints(url)
    opened = await browser.new_context(**context)
    opened.set_default_timeout(TIMEOUT_MS)
    try:
        page = await opened.new_page()
        complaints.listen(page)
        await page.goto(url)
        yield page
        assert not complaints.found
    finally:
        await opened.close()
