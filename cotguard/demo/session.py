"""One question, asked directly and through cotguard at the same time, and what each client got to read."""

import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cotguard.config.settings import Settings
from cotguard.demo.server import MODEL, PLANTED, QUESTION, SYSTEM_PROMPT, TOKENS_PER_SECOND, create_server
from cotguard.gateway.app import Gateway, create_app
from cotguard.telemetry.metrics import Metrics

__all__ = ["NEXT", "Reply", "planted_in", "run"]

NEXT = "cotguard serve --upstream http://127.0.0.1:8000 --policy balanced"

_PLACEHOLDER = re.compile(r"\[[A-Z][A-Z_]+(?:[_:][0-9A-Za-z]+)?\]")
_FRAMES_PER_SECOND = 15
_TIMEOUT_SECONDS = 60
_INTERRUPTED = 130
_MESSAGES = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": QUESTION}]


@dataclass(slots=True)
class Reply:
    """What a client has read so far."""

    reasoning: str = ""
    answer: str = ""

    @property
    def planted(self) -> int:
        """How many times planted values stand in it."""
        return planted_in(f"{self.reasoning}\n{self.answer}")


def planted_in(text: str) -> int:
    """How many times planted values stand in ``text``; case, spaces and punctuation do not hide them."""
    plain = _plain(text)
    return sum(plain.count(_plain(value)) for value in PLANTED.values())


def _plain(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def run(fast: bool = False) -> int:
    """Run the demo; with ``fast`` as fast as it can. Returns an exit status: 0 when no planted value came through."""
    console = Console(highlight=False)
    live = console.is_terminal and not console.is_dumb_terminal and sys.stdout.isatty()
    rate = TOKENS_PER_SECOND if live and not fast else None
    try:
        return asyncio.run(_session(console, live, rate))
    except KeyboardInterrupt:
        return _INTERRUPTED
    except ExceptionGroup as failures:  # of the two clients
        faults, others = failures.split((aiohttp.ClientError, TimeoutError, ValueError))
        if others or not faults:
            raise
        for fault in faults.exceptions:
            console.print(f"The demo failed: {fault!r}", markup=False)
        return 1


async def _session(console: Console, live: bool, rate: float | None) -> int:
    raw, moderated = Reply(), Reply()
    metrics = Metrics()
    console.print("One question to one model, asked directly and through cotguard. All values are made up.")
    console.print(f"Question: {QUESTION}\n", markup=False, soft_wrap=True)
    console.print("Compiling the detectors takes a few seconds.\n")
    async with _serving(create_server(rate)) as upstream:
        settings = Settings(upstream=upstream, policy="balanced")
        async with (
            _serving(create_app(Gateway(settings, metrics=metrics))) as proxy,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)) as client,
            asyncio.TaskGroup() as group,
        ):
            asking = [group.create_task(_ask(client, upstream, raw)), group.create_task(_ask(client, proxy, moderated))]
            if live:
                with Live(console=console, auto_refresh=False, transient=True) as screen:
                    while not all(task.done() for task in asking):
                        screen.update(_columns(console, raw, moderated, console.height - 1), refresh=True)
                        await asyncio.sleep(1 / _FRAMES_PER_SECOND)
    # The proxy has stopped: its account is complete.
    if live:
        console.print(_columns(console, raw, moderated))
    else:
        _print_plain(console, raw, moderated)
    console.print(_summary(metrics))
    console.print(f"Planted values: {raw.planted} in the raw text, {moderated.planted} in what cotguard delivered.")
    console.print(f"Next, before your own model server:\n  {NEXT}", markup=False, soft_wrap=True)
    complete = raw.planted >= len(PLANTED) and moderated.reasoning and moderated.answer
    return 0 if complete and not moderated.planted else 1


@asynccontextmanager
async def _serving(app: web.Application) -> AsyncIterator[str]:
    """``app`` on a free loopback port; gives its URL."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def _ask(client: aiohttp.ClientSession, server: str, reply: Reply) -> None:
    """Ask the question and add what arrives to ``reply``. Raises ``ValueError`` when the server reports an error."""
    body = {"model": MODEL, "messages": _MESSAGES, "stream": True}
    async with client.post(f"{server}/v1/chat/completions", json=body) as response:
        if response.status != 200:
            raise ValueError(f"status {response.status}: {await response.text()}")
        async for line in response.content:
            if not line.startswith(b"data:") or (data := line[5:].strip()) == b"[DONE]":
                continue
            event = json.loads(data)
            if "error" in event:
                raise ValueError(f"the stream ended with an error: {event['error']}")
            for choice in event.get("choices", ()):
                delta = choice.get("delta", {})
                reply.reasoning += delta.get("reasoning_content") or ""
                reply.answer += delta.get("content") or ""


def _columns(console: Console, raw: Reply, moderated: Reply, height: int | None = None) -> RenderableType:
    """Both replies side by side; with ``height`` the last lines that fit."""
    width = max(20, console.width // 2 - 4)  # a panel's border and padding
    columns = [_styled(reply, side).wrap(console, width) for reply, side in ((raw, "raw"), (moderated, "moderated"))]
    rows = max(map(len, columns))
    skip = max(0, rows - (height - 2)) if height else 0
    panels = []
    for lines, title, colour in zip(
        columns, ("straight from the model", "through cotguard"), ("red", "green"), strict=True
    ):
        text = Text("\n").join(lines[skip:])
        panels.append(Panel(text, title=title, border_style=colour, height=rows - skip + 2))
    grid = Table.grid(expand=True)
    grid.add_column(ratio=1)
    grid.add_column(ratio=1)
    grid.add_row(*panels)
    return grid


def _styled(reply: Reply, side: str) -> Text:
    text = Text()
    for heading, part, style in (("reasoning", reply.reasoning, "italic"), ("answer", reply.answer, "")):
        if not part:
            continue
        if text:
            text.append("\n\n")
        text.append(f"{heading}\n", style="bold")
        body = Text(part, style=style)
        if side == "raw":
            body.highlight_words(PLANTED.values(), "bold red")
        else:
            body.highlight_regex(_PLACEHOLDER, "black on green")
        text.append_text(body)
    return text


def _print_plain(console: Console, raw: Reply, moderated: Reply) -> None:
    parts = (
        ("raw reasoning", raw.reasoning),
        ("moderated reasoning", moderated.reasoning),
        ("raw answer", raw.answer),
        ("moderated answer", moderated.answer),
    )
    for title, text in parts:
        console.print(f"--- {title}\n{text}\n", markup=False, soft_wrap=True)


def _summary(metrics: Metrics) -> Table:
    """What cotguard found, per channel and action, from its own metrics."""
    found: Counter[tuple[str, str, str]] = Counter()
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name == "cotguard_decisions_total":
                labels = sample.labels
                found[labels["channel"], labels["entity"], labels["action"]] += int(sample.value)
    table = Table(title="What cotguard found", title_justify="left")
    for name in ("channel", "entity", "action"):
        table.add_column(name)
    table.add_column("count", justify="right")
    for (channel, entity, action), count in sorted(
        found.items(), key=lambda item: (item[0][0] != "reasoning", item[0])
    ):
        table.add_row(channel, entity, action, str(count))
    return table
