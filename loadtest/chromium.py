"""A real browser: Chromium, where it is installed, driven by Playwright's Python package."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Page, async_playwright

__all__ = ["ARGUMENTS", "chromium", "log_in", "program"]

_NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def program() -> str:
    """Where the browser is. Raises ``FileNotFoundError`` where there is none."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        raise FileNotFoundError(f"none of {', '.join(_NAMES)} is installed")
    return found


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The browser, without a window. Raises what :func:`program` raises."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            await browser.close()


async def log_in(page: Page, address: str, token: str) -> None:
    """Let ``page`` show what stands behind the login page of the console, which is at ``address``."""
    await page.goto(address)
    await page.fill("#token", token)
    await page.click("button[type=submit]")
    await page.wait_for_selector("main:not([aria-busy])")
