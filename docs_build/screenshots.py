"""``python -m docs_build.screenshots``: take the pictures of the console anew; three minutes.

A gateway of its own runs before mock servers, with callers, an audit trail and the load generator's traffic. Chromium
shows its console. All values are made up: those of the demo, and documentation's addresses. ``--whole`` takes whole
pages, to look for what is amiss below; name a folder for these.
"""

import argparse
import asyncio
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Final

import aiohttp
import uvloop
import yaml
from PIL import Image
from playwright.async_api import Page, expect

from cotguard.callers.document import KeyScope
from cotguard.callers.keys import KeyStore
from cotguard.policy.loading import load
from docs_build.pages import DOCS
from docs_build.pictures import FOLDER, LOOKS, PICTURES, SCREENS
from loadtest.chromium import chromium, log_in
from loadtest.dialects import DIALECTS
from loadtest.load import Load, poisson, stream_scheduled
from loadtest.serving import started

__all__ = ["main"]

_TOKEN: Final = "made-up-for-the-pictures"  # noqa: S105  # of a gateway that nobody else reaches
_COLOURS: Final = 128
_TOKENS: Final = 260
_SECONDS_OF_TRAFFIC: Final = 3600.0
"""More than it takes."""

_CALLERS: Final = {
    # caller: dialect, tokens a second, requests a second, planted values, the upstream's fault
    "support desk": ("chat", 45.0, 0.45, True, ""),
    "search": ("responses", 60.0, 0.35, False, ""),
    "back office": ("anthropic", 35.0, 0.3, True, ""),
    "notebooks": ("ollama", 50.0, 0.2, False, ""),
    "nightly import": ("chat", 50.0, 0.12, True, "cut"),
}
_TEXT: Final = (
    "The user is Ann Lee, ann.lee@example.com, +1 415 555 2671. Her card 4111 1111 1111 1111 was charged twice, "
    "so I return $49 to GB29 NWBK 6016 1331 9268 19. The job's key AKIAIOSFODNN7EXAMPLE has to be rotated first; "
    "the runbook is at https://wiki.example.com/import."
)
_CHANGED: Final = (
    ("[EMAIL_ADDRESS, PHONE_NUMBER, DATE_OF_BIRTH, FINANCIAL,", "[PHONE_NUMBER, DATE_OF_BIRTH, FINANCIAL,"),
    ("rules:\n", "rules:\n  - entities: [EMAIL_ADDRESS]\n    channels: [output]\n    action: mask\n\n"),
)
"""What the draft changes of the policy in force."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Take the pictures."""
    parser = argparse.ArgumentParser(prog="python -m docs_build.screenshots", description="take the console's pictures")
    parser.add_argument("--folder", type=Path, default=DOCS / FOLDER, help="where they go (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=60, help="of traffic before the first (default %(default)s)")
    parser.add_argument("--whole", action="store_true", help="whole pages instead of what a screen shows")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    uvloop.run(_take(options.folder, options.seconds, whole=options.whole))
    return 0


async def _take(folder: Path, seconds: float, *, whole: bool) -> None:
    async with _gateway() as console, chromium() as browser:
        await asyncio.sleep(seconds)
        for screen, scheme in LOOKS:
            width, height = SCREENS[screen]
            context = await browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if scheme == "dark" else "light",
                has_touch=screen == "phone",
                is_mobile=screen == "phone",
                reduced_motion="reduce",
                locale="en-GB",
                timezone_id="UTC",
                base_url=f"{console}/",
            )
            page = await context.new_page()
            page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))  # that the draft is left
            for picture in PICTURES:
                await _SHOW[picture.name](page)
                data = await page.screenshot(full_page=whole, animations="disabled")
                path = folder / picture.file(screen, scheme)
                path.write_bytes(_small(data))
                sys.stderr.write(f"{path}\n")
            await context.close()


def _small(png: bytes) -> bytes:
    """The same with few colours, which is all that pages of text and lines have."""
    found = BytesIO()
    with Image.open(BytesIO(png)) as image:
        few = image.convert("RGB").quantize(_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        few.save(found, "PNG", optimize=True)
    return found.getvalue()


# The gateway and its traffic


@asynccontextmanager
async def _gateway() -> AsyncIterator[str]:
    """The address of the console of a gateway that is in use."""
    with ExitStack() as stack:
        servers = [stack.enter_context(started("loadtest.upstream")).urls[0] for _ in range(2)]
        config, keys = _written(Path(stack.enter_context(tempfile.TemporaryDirectory())), servers)
        server = stack.enter_context(started("cotguard", "serve", "--config", str(config)))
        traffic = [asyncio.create_task(_traffic(server.urls[0], caller, key)) for caller, key in keys.items()]
        yield f"{server.urls[-1]}/console"
        for task in traffic:
            task.cancel()
        await asyncio.gather(*traffic, return_exceptions=True)


def _written(folder: Path, servers: Sequence[str]) -> tuple[Path, Mapping[str, str]]:
    """The gateway's configuration, and the keys of its callers."""
    config = {
        "upstreams": {
            "local": {"servers": servers, "health": {"path": "/sent", "every": 2}},
            "import": {"servers": servers[1:], "breaker": None},
        },
        "routes": [
            {"name": "import", "models": ["*:cut"], "upstream": "import", "policy": "strict"},
            {"name": "support", "upstream": "local"},
        ],
        "policy": str(folder / "support.yaml"),
        "keys": str(folder / "keys.db"),
        "callers_file": str(folder / "callers.yaml"),
        "audit_dir": str(folder / "audit"),
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "admin_token": _TOKEN,
    }
    balanced = Path(load("balanced").file).read_text(encoding="utf-8")
    (folder / "support.yaml").write_text(balanced.replace("name: balanced", "name: support"), encoding="utf-8")
    (folder / "callers.yaml").write_text("roles: {team: {}}\n", encoding="utf-8")
    (folder / "cotguard.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with KeyStore(str(folder / "keys.db"), create=True) as store:
        return folder / "cotguard.yaml", {caller: store.create(caller, "team", KeyScope())[1] for caller in _CALLERS}


async def _traffic(url: str, caller: str, key: str) -> None:
    dialect, rate, requests, planted, fault = _CALLERS[caller]
    load = Load(0, _TOKENS, rate, planted, fault, dialect)
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {key}"}, connector=aiohttp.TCPConnector(limit=0), raise_for_status=True
    ) as client:
        await stream_scheduled(client, url, load, poisson(requests, _SECONDS_OF_TRAFFIC, seed=len(caller)))


# What is to be seen


async def _login(page: Page) -> None:
    await page.goto("login")
    await page.locator("#token").blur()


async def _live(page: Page) -> None:
    await log_in(page, "login", _TOKEN)
    told = "[data-now=first_{}_p50][data-value]:not([data-value=''])"  # it is where an answer has just begun
    await page.wait_for_selector(f"main:has({told.format('upstream')}):has({told.format('delivered')})")


async def _charts(page: Page) -> None:
    await page.select_option("#span", "300")
    await _to(page, "[aria-labelledby=hour]")


async def _totals(page: Page) -> None:
    await _to(page, "[aria-labelledby=since]")


async def _exchanges(page: Page) -> None:
    await page.goto("exchanges")
    await page.wait_for_selector("tr[data-request]")


async def _exchange(page: Page) -> None:
    none = page.locator("[data-label=decisions][data-value='0']")
    await page.locator("tr[data-request]", has_not=none).first.locator("a").click()
    await page.wait_for_selector("dialog[data-request]")


async def _text(page: Page) -> None:
    await page.goto("playground")
    await page.get_by_role("textbox", name="Text", exact=True).fill(_TEXT)
    await page.get_by_role("button", name="Moderate").click()
    await page.locator(".hit").first.click()
    await _to(page, ".result")


async def _stream(page: Page) -> None:
    await page.goto("playground")
    await page.get_by_role("tab", name="Recorded stream").click()
    await page.get_by_label("Dialect").select_option("chat_completions")
    await page.get_by_label("Response of an upstream").fill(_recorded())
    await page.get_by_role("button", name="Moderate").click()
    slider = page.get_by_label("Step", exact=True)
    await slider.evaluate("(slider) => { slider.value = slider.max / 3; slider.dispatchEvent(new Event('input')); }")
    while not await page.locator("mark.held").count():
        await page.get_by_role("button", name="Step forward").click()
    await _to(page, ".player")


def _recorded() -> str:
    """A stream as an upstream sends it, of the text above."""
    chat = DIALECTS["chat"]
    words = _TEXT.replace(" ", "\n ").split("\n")
    said = [*(chat.token("reasoning", word) for word in words), *(chat.token("answer", word) for word in words[:9])]
    return b"".join([chat.opening, *said, chat.closing]).decode()


async def _policy(page: Page) -> None:
    await page.goto("policy")
    draft = page.locator("#draft")
    await expect(draft).to_have_value(re.compile("name: support"))
    text = await draft.input_value()
    for before, after in _CHANGED:
        if before not in text:
            raise ValueError(f"the policy has no {before!r} now")
        text = text.replace(before, after)
    await draft.fill(text)
    await page.wait_for_selector("#draft-state .good")
    await page.evaluate("scrollTo(0, 0)")


async def _draft(page: Page) -> None:
    await page.locator("#draft").evaluate("(draft) => { draft.scrollTop = 520; }")
    await _to(page, "[data-card=draft]")


async def _compare(page: Page) -> None:
    await page.get_by_role("textbox", name="Text 1", exact=True).fill(_TEXT)
    await page.get_by_role("button", name="Compare").click()
    await page.wait_for_selector("[data-differing]")
    await _to(page, "[data-card=compare] .compared")


async def _trial(page: Page) -> None:
    card = page.locator("[data-card=trial]")
    start = card.get_by_role("button", name="Start")
    if await start.is_enabled():
        await start.click()
    await expect(card).to_have_attribute("data-exchanges", re.compile(r"\d\d"), timeout=60_000)
    await _to(page, "[data-card=trial]")


async def _apply(page: Page) -> None:
    await _to(page, "[data-card=apply]")
    await page.locator("[data-card=apply]").get_by_role("button", name="Apply").click()
    await page.wait_for_selector("dialog[open]")


async def _loaded(page: Page) -> None:
    await page.goto("loaded")
    await page.wait_for_selector("main:not([aria-busy]) .loaded")


async def _to(page: Page, selector: str) -> None:
    """Scroll there, with a little of what stands above it."""
    await page.locator(selector).first.evaluate(
        "(part) => scrollTo(0, part.getBoundingClientRect().top + scrollY -"
        " (matchMedia('(max-width: 600px)').matches ? document.querySelector('.bar').offsetHeight + 8 : 12))"
    )


_SHOW: Final[Mapping[str, Callable[[Page], Awaitable[None]]]] = {
    "login": _login,
    "live": _live,
    "charts": _charts,
    "totals": _totals,
    "exchanges": _exchanges,
    "exchange": _exchange,
    "text": _text,
    "stream": _stream,
    "policy": _policy,
    "draft": _draft,
    "compare": _compare,
    "trial": _trial,
    "apply": _apply,
    "loaded": _loaded,
}
"""How each picture comes to be, one after the other in the same tab."""


if __name__ == "__main__":
    sys.exit(main())
