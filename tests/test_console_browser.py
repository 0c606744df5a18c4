"""The console in a real browser, in front of a real gateway under real traffic: every page tells what is so."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_kit import PAGES, TOKEN, Browser, Page, Stage, browsing, log_in, show, shown, staged, until, visiting

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
