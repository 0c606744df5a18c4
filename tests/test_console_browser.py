"""The console in a real browser, in front of a real gateway under real traffic: every page tells what is so."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from browser_kit import PAGES, TOKEN, Stage, browsing, log_in, show, shown, staged, until, visiting
from playwright.sync_api import Browser, Locator, Page
from scripted import DONE, chunk, finish, streaming

from loadtest.load import Load

TRAFFIC = Load(streams=4, tokens=240, rate=100, planted=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


@pytest.fixture(scope="module")
def stage(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("stage")) as stage:
        yield stage


@pytest.fixture
def page(browser: Browser, stage: Stage) -> Iterator[Page]:
    with visiting(browser, stage) as (page, _):
        yield page


def test_every_page_while_streams_are_under_way(browser: Browser, stage: Stage) -> None:
    with visiting(browser, stage, token="") as (page, watch), stage.traffic(TRAFFIC):
        page.goto(f"{stage.admin}/console/")
        assert page.url.endswith("/console/login")
        log_in(page, stage, TOKEN)
        for name in PAGES:
            page.get_by_role("navigation").get_by_role("link", name=name.capitalize()).click()
            shown(page, name.capitalize())
            assert page.locator("nav [aria-current=page]").inner_text() == name.capitalize()
            page.wait_for_load_state("load")
        page.get_by_role("button", name="Log out").click()
        page.get_by_label("Token").wait_for()
        show_again = page.goto(f"{stage.admin}/console/loaded")
        assert show_again is not None
        assert page.url.endswith("/console/login")
        assert len({request.url for request in watch.requests}) > 40  # pages, styles, scripts, questions


# --- Live ------------------------------------------------------------------------------------------------------------

COUNTED = {
    "requests": ("cotguard_requests_total", ("dialect", "status", "outcome")),
    "decisions": ("cotguard_decisions_total", ("entity", "channel", "action", "outcome")),
    "failures": ("cotguard_failures_total", ("kind", "mode")),
    "upstream_requests": ("cotguard_upstream_requests_total", ("pool", "server", "outcome")),
    "upstream_outstanding": ("cotguard_upstream_outstanding_requests", ("pool", "server")),
    "events": ("cotguard_held_characters_count", ()),
    "active": ("cotguard_active_streams", ()),
}

Counts = dict[str, dict[str, float]]


def counted(stage: Stage) -> Counts:
    """What /metrics says of what the page shows, labels as the page writes them; and the sums."""
    told = stage.metrics()
    found: Counts = {}
    for metric, (name, labels) in COUNTED.items():
        samples = {"|".join(dict(each)[label] for label in labels): value for each, value in told[name].items()}
        found[metric] = samples
    return found | {"sums": {metric: sum(found[metric].values()) for metric in ("requests", "decisions", "failures")}}


def read(page: Page) -> Counts:
    """The same from the page."""
    found: Counts = {metric: {} for metric in COUNTED}
    cells = page.locator("[data-metric]").evaluate_all(
        "cells => cells.map(({dataset: {metric, labels, value}}) => [metric, labels, value])"
    )
    for metric, labels, value in cells:
        if metric in found:
            found[metric][labels] = float(value)
    sums = page.locator("[data-total]").evaluate_all(
        "cells => cells.map(({dataset: {total, value}}) => [total, Number(value)])"
    )
    return found | {"sums": dict(sums)}


def now(page: Page, name: str) -> float:
    return float(page.locator(f"[data-now={name}]").get_attribute("data-value") or 0)


def test_live_moves_with_the_traffic(page: Page, stage: Stage) -> None:
    show(page, stage, "live")
    with stage.traffic(TRAFFIC):
        seen = until(lambda: (now(page, "active"), now(page, "requests"), now(page, "events")), all, page)
    assert min(seen) > 0
    assert until(lambda: now(page, "active"), lambda active: active == 0, page) == 0


def test_live_tells_the_numbers_of_the_metrics(page: Page, stage: Stage) -> None:
    show(page, stage, "live")
    with stage.traffic(TRAFFIC):
        until(lambda: now(page, "active"), page=page)
    stage.faults(Load(streams=2, tokens=20, rate=0, fault="malformed"))
    stage.faults(Load(streams=3, tokens=20, rate=0, fault="cut"))
    told = until(lambda: counted(stage), lambda told: not told["active"][""], page)
    assert until(lambda: read(page), lambda seen: seen == told, page) == told
    assert told["sums"]["requests"] == stage.sent
    assert min(told["sums"].values()) > 0
    assert len(told["decisions"]) > 6


# --- Exchanges -------------------------------------------------------------------------------------------------------

MAIL = "ann.lee@example.com"
STREAM = [
    chunk({"reasoning_content": f"Her address is {MAIL}, and she calls from 203.0.113.77."}),
    chunk({"content": f"I write to {MAIL}. The card is 4111 1111 1111 1111."}),
    finish(),
    DONE,
]

Record = dict[str, Any]


def command(*arguments: object, text: str = "") -> str:
    """What a command of cotguard's prints."""
    line = [sys.executable, "-m", "cotguard", *map(str, arguments)]
    return subprocess.run(line, input=text, capture_output=True, text=True, check=True, timeout=60).stdout


def records(stage: Stage, *asked: object) -> list[Record]:
    """What ``cotguard audit query`` finds, the oldest first."""
    lines = command("audit", "query", stage.trail, "--jsonl", "--limit", 10_000, *asked).splitlines()
    return sorted(map(json.loads, lines), key=lambda record: int(record["seq"]))


def listed(page: Page) -> list[str]:
    """The exchanges that the page lists, with those on its further pages."""
    rows, older = page.locator("tr[data-request]"), page.get_by_role("button", name="Show older")
    while older.is_visible():
        before = rows.count()
        older.click()
        assert until(rows.count, lambda count: count > before, page) > before
    return [str(each) for each in rows.evaluate_all("rows => rows.map(({dataset}) => dataset.request)")]


def test_exchanges_are_those_of_the_trail(page: Page, stage: Stage) -> None:
    stage.scripted.handler = streaming(STREAM)
    opened = [stage.post(model="m-1").headers["x-cotguard-request-id"] for _ in range(3)][1]
    stage.post(stage.keys["viewer"], model="m-2", stream=False)
    stage.faults(Load(streams=50, tokens=10, rate=0))
    stage.faults(Load(streams=2, tokens=10, rate=0, dialect="anthropic"))
    stage.faults(Load(streams=1, tokens=20, rate=0, fault="malformed"))
    told = records(stage)
    exchanges = [each for each in told if each["type"] == "exchange"][::-1]
    decisions = [each for each in told if each["type"] == "decision"]

    def those(**wanted: str) -> list[str]:
        return [each["request_id"] for each in exchanges if wanted.items() <= each.items()]

    show(page, stage, "exchanges")
    assert listed(page) == those()
    assert len(exchanges) == stage.sent
    caller, route = (next(each[name] for each in exchanges if each["request_id"] == opened) for name in ("caller", "route"))
    failed = exchanges[0]["outcome"]
    found = {each["request_id"] for each in decisions if each["entity"] == "IP_ADDRESS"}
    for label, value, wanted in (
        ("Caller", caller, those(caller=caller)),
        ("Route", route, those(route=route)),
        ("Model", "m-2", those(model="m-2")),
        ("Outcome", failed, those(outcome=failed)),
        ("Entity", "IP_ADDRESS", [each for each in those() if each in found]),
    ):
        page.get_by_label(label).select_option(value)
        rows = min(len(wanted), 50)
        assert 0 < len(wanted) < len(exchanges)
        assert until(page.locator("tr[data-request]").count, lambda count, rows=rows: count == rows, page) == rows
        assert listed(page) == wanted
        assert f"{label.lower()}=" in page.url
        page.get_by_role("button", name="Clear").click()
        page.get_by_text(f"50 exchanges, the newest first; there are older ones").wait_for()

    assert listed(page) == those()
    page.locator(f"a[data-open='{opened}']").click()
    dialog = page.locator(f"dialog[data-request='{opened}']")
    dialog.wait_for()
    mine = [each for each in decisions if each["request_id"] == opened]
    assert shown_decisions(dialog) == [
        {name: str(each[name]) for name in ("seq", "entity", "outcome", "start", "length", "score", "rule", "action", "value")}
        for each in mine
    ]
    assert len(mine) == 4
    repeated = next(each for each in mine if each["entity"] == "EMAIL_ADDRESS")
    same = [each for each in decisions if each["value"] == repeated["value"]]
    row = dialog.locator(f"tr[data-seq='{repeated['seq']}']")
    assert row.locator("[data-recurrences]").get_attribute("data-recurrences") == str(len(same))
    row.locator("button[data-recurrences]").click()
    recurring = dialog.locator(f"tr[data-value-of='{repeated['value']}']")
    said = f"{len(same)} decisions in {len({each['request_id'] for each in same})} exchanges"
    recurring.get_by_text(said).wait_for()
    assert recurring.locator("li").count() == min(len(same), 100)
    other = recurring.locator("[data-open]").first.get_attribute("data-open")
    recurring.locator("[data-open]").first.click()
    page.locator(f"dialog[data-request='{other}']").wait_for()
    page.go_back()
    page.locator(f"dialog[data-request='{opened}']").wait_for()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    show(page, stage, "exchanges", f"?request={opened}")
    dialog.wait_for()


def shown_decisions(dialog: Locator) -> list[dict[str, str]]:
    """The decisions in an opened exchange."""
    found: list[dict[str, str]] = dialog.locator("tr[data-seq]").evaluate_all(
        """rows => rows.map((row) => {
            const field = (name) => row.querySelector(`[data-field=${name}]`);
            return {
              seq: row.dataset.seq, entity: row.dataset.entity, outcome: row.dataset.outcome,
              start: field("offset").dataset.value, length: field("length").dataset.value,
              score: field("score").dataset.value, rule: field("rule").dataset.value,
              action: field("action").textContent, value: row.querySelector("[data-digest]").dataset.digest,
            };
        })"""
    )
    return found
