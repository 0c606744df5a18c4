"""The console in a real browser, in front of a real gateway under real traffic: every page tells what is so."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from operator import eq, itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from browser_kit import (
    HOUSE,
    PAGES,
    TOKEN,
    Stage,
    listed,
    log_in,
    moderate,
    show,
    shown,
    until,
    visiting,
    write,
)
from playwright.sync_api import Browser, Locator, Page
from scripted import CHAT_PATH, DONE, chunk, finish, streaming, texts

from loadtest.load import Load

TRAFFIC = Load(streams=4, tokens=240, rate=100, planted=True)


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

STATES = {"upstream_breaker", "upstream_up"}
"""Shown as words."""

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
        if metric not in STATES:
            found[metric][labels] = float(value)
    sums = page.locator("[data-total]").evaluate_all(
        "cells => cells.map(({dataset: {total, value}}) => [total, Number(value)])"
    )
    return found | {"sums": dict(sums)}


def now(page: Page, name: str) -> float:
    return float(page.locator(f"[data-now={name}]").get_attribute("data-value") or 0)


def test_live_begins_with_a_gateway(page: Page, stage: Stage) -> None:
    nothing = {"interval": 2, "columns": {}}  # before its second sample
    page.route("**/console/api/live/history", lambda route: route.fulfill(json=nothing))
    show(page, stage, "live")
    assert until(lambda: now(page, "workers"), page=page) == 1


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
    states = stage.metrics()["cotguard_upstream_breaker"]
    for labels in (dict(each) for each, value in states.items() if value):
        cell = page.locator(f"[data-metric=upstream_breaker][data-labels='{labels['pool']}|{labels['server']}']")
        assert cell.get_attribute("data-value") == labels["state"]
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


SHOWN = ("seq", "entity", "outcome", "start", "length", "score", "rule", "action", "value")


def command(*arguments: object, text: str = "") -> str:
    """What a command of cotguard's prints."""
    line = [sys.executable, "-m", "cotguard", *map(str, arguments)]
    return subprocess.run(line, input=text, capture_output=True, text=True, check=True, timeout=60).stdout


def records(stage: Stage, *asked: object) -> list[Record]:
    """What ``cotguard audit query`` finds, the oldest first."""
    lines = command("audit", "query", stage.trail, "--jsonl", "--limit", 10_000, *asked).splitlines()
    return sorted(map(json.loads, lines), key=lambda record: int(record["seq"]))


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
    one = next(each for each in exchanges if each["request_id"] == opened)
    caller, route, failed = one["caller"], one["route"], exchanges[0]["outcome"]
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
        assert until(page.locator("tr[data-request]").count, partial(eq, rows), page) == rows
        assert listed(page) == wanted
        assert f"{label.lower()}=" in page.url
        page.get_by_role("button", name="Clear").click()
        page.get_by_text("50 exchanges, the newest first; there are older ones").wait_for()

    assert listed(page) == those()
    page.locator(f"a[data-open='{opened}']").click()
    dialog = page.locator(f"dialog[data-request='{opened}']")
    dialog.wait_for()
    mine = [each for each in decisions if each["request_id"] == opened]
    assert shown_decisions(dialog) == [
        {
            name: str(each[name])
            for name in ("seq", "entity", "outcome", "start", "length", "score", "rule", "action", "value")
        }
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


# --- Playground ------------------------------------------------------------------------------------------------------

TEXTS = {
    "reasoning": [
        f"🙂 Her address is {MAIL}, her card 4111 1111 1111 1111; she calls from 203.0.113.77.",
        "The key AKIAIOSFODNN7EXAMPLE was revoked, and the admin password is hunter2!Blue, he typed.",
        f"I mail {MAIL}. She paid to 1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2, and bo@example.com knows.",
    ],
    "output": ["Call +1 415 555 2671 or write to ａｎｎ＠example．com.", "Nothing is here.\n\n<b>At all.</b>"],
}


def scanned(stage: Stage, channel: str) -> list[Record]:
    """What ``cotguard scan`` makes of the texts."""
    lines = "\n".join(json.dumps({"id": number, "text": text}) for number, text in enumerate(TEXTS[channel]))
    arguments = ("--policy", stage.policy, "--bundle", "none", "--channel", channel, "--jsonl")
    return [json.loads(line) for line in command("scan", *arguments, text=lines).splitlines()]


def spans(side: Locator) -> list[tuple[int, int, str]]:
    """The spans that are marked in a text, each once."""
    marks = side.locator("mark[data-span]").evaluate_all(
        "marks => marks.map(({dataset: {span, start, end, entity}}) => [span, Number(start), Number(end), entity])"
    )
    return sorted((start, end, entity) for _, start, end, entity in {tuple(mark) for mark in marks})


@pytest.mark.parametrize("channel", TEXTS)
def test_the_playground_finds_what_scan_finds(page: Page, stage: Stage, channel: str) -> None:
    show(page, stage, "playground")
    page.get_by_label("Channel").select_option(channel)
    for text, told in zip(TEXTS[channel], scanned(stage, channel), strict=True):
        page.get_by_role("textbox", name="Text").fill(text)
        result = moderate(page)
        raw, delivered = (result.locator(f".channel [data-side={side}] .text") for side in ("raw", "delivered"))
        assert spans(raw) == sorted((each["start"], each["end"], each["entity"]) for each in told["spans"])
        blocked = "1BvBM" in text
        assert text.startswith(raw.text_content() or "-") if blocked else raw.text_content() == text
        assert delivered.text_content() == told["redacted"]
        assert result.locator("[data-blocked]").count() == blocked


def test_a_marked_value_tells_how_it_was_decided(page: Page, stage: Stage) -> None:
    show(page, stage, "playground")
    page.get_by_role("button", name="Fill in an example").click()
    result = moderate(page)
    result.get_by_role("button", name=f"EMAIL_ADDRESS: {MAIL}").press("Enter")
    about = result.locator("[data-about=EMAIL_ADDRESS]")
    for words in (MAIL, "patterns/email", "Decided by rule 3"):
        about.get_by_text(words).first.wait_for()
    page.get_by_role("button", name="Clear everything").click()
    assert not result.text_content()
    assert page.get_by_role("textbox", name="Text").input_value() == ""


class Standing(NamedTuple):
    """A channel of the player after a step."""

    received: int
    released: int
    written: int
    raw: str
    delivered: str
    held: int
    why: list[str]


def standing(player: Locator) -> list[Standing]:
    """How the channels stand."""
    found = player.locator(".playing").evaluate_all(
        """channels => channels.map((channel) => {
            const {received, released, written} = channel.dataset;
            const text = (side) => channel.querySelector(`[data-side=${side}]`).textContent;
            const held = channel.querySelector("[data-held]")?.dataset.held ?? 0;
            const why = [...channel.querySelectorAll("[data-why]")].map(({dataset}) => dataset.why);
            const counts = [received, released, written].map(Number);
            return [...counts, text("received"), text("delivered"), Number(held), why];
        })"""
    )
    return [Standing(*each) for each in found]


def unlabelled(text: str) -> str:
    """``text`` without what is another one in each exchange."""
    return re.sub(r"\[(PHONE_NUMBER)_\w+\]", r"[\1]", text)


def test_a_recorded_stream_is_played_step_by_step(page: Page, stage: Stage, tmp_path: Path) -> None:
    load = Load(streams=1, tokens=120, rate=0, planted=True)
    request: Record = {**load.body(0)}
    recorded = httpx.post(stage.load_url + CHAT_PATH, json=request).text
    (tmp_path / "recorded.sse").write_text(recorded, encoding="utf-8")
    show(page, stage, "playground")
    page.get_by_role("tab", name="Recorded stream").click()
    page.get_by_label("Dialect").select_option("chat_completions")
    page.get_by_label("Or a file").set_input_files(tmp_path / "recorded.sse")
    page.get_by_text("recorded.sse:").wait_for()
    result = moderate(page)
    read = itemgetter((0, "reasoning_content"), (0, "content"))
    raw, final = read(texts(recorded)), read(texts(stage.post(**request).text))
    sides = result.locator(".channel")
    whole = [str(each) for each in sides.locator("[data-side=delivered] .text").all_text_contents()]
    assert [*map(unlabelled, whole)] == [*map(unlabelled, final)]  # what a client of the proxy gets
    assert sides.locator("[data-side=raw] .text").all_text_contents() == [*raw]

    player = result.locator(".player")
    forward = player.get_by_role("button", name="Step forward")
    before, waited = [Standing(0, 0, 0, "", "", 0, [])] * 2, set()
    assert standing(player) == before
    steps, events = 0, recorded.count("data: ")  # the last ends it
    while forward.is_enabled():
        forward.evaluate("button => button.click()")
        steps += 1
        after = standing(player)
        for was, now, text, delivered in zip(before, after, raw, whole, strict=True):
            assert now.raw == text[: now.received]
            assert now.delivered == delivered[: now.written]
            assert min(now.received - was.received, now.released - was.released, now.written - was.written) >= 0
            assert now.held == now.received - now.released
            assert bool(now.why) == bool(now.held)
            waited.update(now.why)
        said = player.locator(".stepsaid").text_content() or ""
        assert said.startswith(f"Step {steps} of {events}: {sum(each.held for each in after)} character")
        before = after
    assert steps == events
    assert [each.delivered for each in before] == whole
    assert "patterns" in waited

    player.get_by_label("Speed").select_option("60")
    player.get_by_role("button", name="Play").click()  # from the start
    until(lambda: standing(player), lambda now: now != before, page)
    assert until(lambda: standing(player), lambda now: now == before, page) == before
    player.get_by_role("button", name="Step back").click()
    player.get_by_text(f"Step {steps - 1} of").wait_for()


def test_a_prompt_is_sent_to_the_upstream_that_is_chosen(page: Page, stage: Stage) -> None:
    stage.scripted.handler = streaming(STREAM)
    before = stage.metrics()["cotguard_requests_total"]
    show(page, stage, "playground")
    page.get_by_role("tab", name="Prompt").click()
    page.get_by_label("Upstream", exact=True).select_option("scripted")
    page.get_by_label("Model").fill("m-3")
    page.get_by_role("textbox", name="System prompt").fill("You are Bert.")
    page.get_by_role("textbox", name="Prompt", exact=True).fill("Who is she?")
    result = moderate(page)
    sent = json.loads(stage.scripted.bodies[-1])
    assert (sent["model"], [each["content"] for each in sent["messages"]]) == ("m-3", ["You are Bert.", "Who is she?"])
    sides = {
        each.get_attribute("data-kind"): each.locator("[data-side=delivered] .text").text_content()
        for each in result.locator(".channel").all()
    }
    assert sides["reasoning"] == "Her address is [EMAIL_ADDRESS], and she calls from 203.0.113.77."
    assert sides["output"] == "I write to [EMAIL_ADDRESS]. The card is *******************."
    assert MAIL not in (result.locator("[data-wire]").text_content() or "")
    assert stage.metrics()["cotguard_requests_total"] == before


# --- Policy ----------------------------------------------------------------------------------------------------------

DRAFT = HOUSE.replace("action: flag", "action: redact")
SEEN = "She calls from 203.0.113.77 today."
GONE = "She calls from [IP_ADDRESS] today."


def in_force(stage: Stage) -> str:
    """The digest of what decides now, as metrics tell it."""
    told = {dict(labels)["digest"] for labels, value in stage.metrics()["cotguard_policy_info"].items() if value}
    return told.pop() if len(told) == 1 else ""


@pytest.fixture
def house(stage: Stage) -> Iterator[str]:
    """The digest of the policy that the stage has before and after the test."""
    digest = in_force(stage)
    stage.scripted.handler = streaming([chunk({"content": SEEN}), finish(), DONE])
    yield digest
    stage.policy.write_text(HOUSE, encoding="utf-8")
    assert until(lambda: in_force(stage), lambda now: now == digest) == digest


def decided(stage: Stage) -> tuple[str, str]:
    """What a new exchange is decided by, and what comes of it."""
    answer = stage.post()
    return answer.headers["x-cotguard-policy"], texts(answer.text)[0, "content"]


def agree(page: Page, action: str) -> None:
    """Press a button, and agree to what it asks."""
    page.get_by_role("button", name=action).click()
    page.get_by_role("dialog").get_by_role("button", name=action).click()
    page.get_by_text("is in force now").wait_for()


def shown_digest(page: Page) -> str | None:
    return page.locator("[data-card=in-force] [data-digest]").get_attribute("data-digest")


def test_a_draft_is_completed_and_its_mistakes_are_told(page: Page, stage: Stage, house: str) -> None:
    show(page, stage, "policy")
    draft = page.get_by_label("Draft", exact=True)
    assert draft.input_value() == HOUSE
    wrong = HOUSE.replace("action: flag", "action: flog")
    line = 1 + wrong[: wrong.index("flog")].count("\n")
    state = write(page, wrong, problems=1)
    assert page.locator(".gutter .wrong").all_inner_texts() == [str(line)]
    state.get_by_role("button", name=f"Line {line}").click()
    assert draft.evaluate("text => text.value.slice(text.selectionStart)").startswith("flog")
    write(page, HOUSE)
    assert page.locator(".gutter .wrong").count() == 0

    draft.press("Control+End")
    draft.press_sequentially("mo")
    words = page.get_by_role("listbox", name="Suggestions").get_by_role("option")
    words.filter(has_text="mode").click()
    words.filter(has_text="shadow").wait_for()
    assert words.evaluate_all("all => all.map((each) => each.dataset.word)") == ["enforce", "shadow"]
    draft.press("ArrowDown")
    draft.press("ArrowDown")
    draft.press("Enter")
    assert draft.input_value() == HOUSE + "mode: shadow"
    page.get_by_role("button", name="Undo all changes").click()
    assert draft.input_value() == HOUSE


def test_a_draft_is_compared(page: Page, stage: Stage, house: str, tmp_path: Path) -> None:
    show(page, stage, "policy")
    write(page, DRAFT)
    assert page.locator("#draft-state [data-digest]").get_attribute("data-digest") != house
    page.get_by_label("Text 1", exact=True).fill(SEEN)
    with page.expect_response("**/console/api/compare") as answered:
        page.get_by_role("button", name="Compare").click()
    told = answered.value.json()
    compared = page.get_by_role("region", name="Comparison")
    compared.locator("[data-differing]").wait_for()
    (tmp_path / "draft.yaml").write_text(DRAFT, encoding="utf-8")
    own = compared.locator("article").first
    for side, policy in (("active", stage.policy), ("draft", tmp_path / "draft.yaml")):
        scanned = command("scan", "--policy", policy, "--bundle", "none", text=SEEN)
        assert own.locator(f"[data-side={side}] .text").first.text_content() == scanned
    differing = compared.locator("article[data-same=false]")
    assert compared.locator("[data-differing]").get_attribute("data-differing") == str(differing.count())
    assert compared.locator("article").count() == len(told["rows"]) > 20
    for article in differing.all():
        assert "IP_ADDRESS" in (article.text_content() or "")


def test_a_draft_is_tried_on_live_traffic(page: Page, stage: Stage, house: str) -> None:
    show(page, stage, "policy")
    write(page, DRAFT)
    card = page.locator("[data-card=trial]")
    with stage.traffic(TRAFFIC):
        card.get_by_label("Minutes").fill("1")
        card.get_by_role("button", name="Start").click()
        page.locator("[data-card=trial][data-running=true]").wait_for()
        assert [decided(stage) for _ in range(3)] == [(house, SEEN)] * 3  # nobody is answered by the draft
        until(lambda: card.get_attribute("data-exchanges"), lambda told: int(told or 0) > 4, page)

    def counts() -> dict[tuple[str, ...], tuple[str, ...]]:
        rows = [row.locator("td").all_inner_texts() for row in card.locator("tbody tr").all()]
        return {tuple(row[:4]): tuple(row[4:]) for row in rows}

    flagged = ("IP_ADDRESS", "output", "flag", "flagged")
    told = until(counts, lambda told: told.get(flagged, ("",))[0] == "3", page)
    assert told[flagged] == ("3", "0", "\N{MINUS SIGN}3")
    assert told["IP_ADDRESS", "output", "redact", "redacted"] == ("0", "3", "+3")
    assert told["EMAIL_ADDRESS", "output", "redact", "redacted"][2] == "0"
    card.get_by_role("button", name="Stop").click()
    page.locator("[data-card=trial][data-running=false]").wait_for()
    assert decided(stage) == (house, SEEN)


def test_a_draft_is_put_in_force_and_rolled_back(page: Page, stage: Stage, house: str) -> None:
    show(page, stage, "policy")
    assert shown_digest(page) == house
    assert page.get_by_role("button", name="Apply").is_disabled()
    state = write(page, DRAFT)
    digest = state.locator("[data-digest]").get_attribute("data-digest")
    page.locator("[data-kind=added]", has_text="IP_ADDRESS").first.wait_for()
    with stage.traffic(TRAFFIC):
        agree(page, "Apply")
        assert until(lambda: shown_digest(page), lambda now: now == digest, page) == digest
        assert decided(stage) == (digest, GONE)
        assert in_force(stage) == digest
        assert stage.policy.read_text(encoding="utf-8") == DRAFT
        agree(page, "Roll back")
        assert until(lambda: shown_digest(page), lambda now: now == house, page) == house
        assert decided(stage) == (house, SEEN)
        assert in_force(stage) == house
        assert stage.policy.read_text(encoding="utf-8") == HOUSE
    written = [each for each in records(stage, "--type", "event") if each["event"] == "policy_written"]
    assert [str(digest) in str(each["detail"]) for each in written] == [True, False]


def test_who_was_overtaken_overwrites_nothing(browser: Browser, stage: Stage, house: str) -> None:
    other = HOUSE.replace("action: flag", "action: mask")
    with visiting(browser, stage) as (page, watch):
        show(page, stage, "policy")
        write(page, DRAFT)
        stage.policy.write_text(other, encoding="utf-8")
        assert until(lambda: in_force(stage), lambda now: now != house, page) != house
        page.get_by_role("button", name="Apply").click()
        page.get_by_role("dialog").get_by_role("button", name="Apply").click()
        page.get_by_text("Somebody else changed this policy meanwhile").wait_for()
        watch.expect(409)
        assert stage.policy.read_text(encoding="utf-8") == other
        page.get_by_role("button", name="Load what is in force").click()
        until(lambda: shown_digest(page), lambda now: now == in_force(stage), page)
        assert page.get_by_label("Draft", exact=True).input_value() == DRAFT
        page.locator("#draft-state[data-problems='0']").wait_for()
        until(page.get_by_role("button", name="Apply").is_enabled, page=page)
        agree(page, "Apply")
        assert decided(stage)[1] == GONE


# --- Rights ----------------------------------------------------------------------------------------------------------


def test_who_may_view_sees_no_more(browser: Browser, stage: Stage) -> None:
    with visiting(browser, stage, stage.keys["viewer"]) as (page, _):
        show(page, stage, "live")
        assert page.get_by_role("navigation").get_by_role("link").all_inner_texts() == [
            "Live",
            "Exchanges",
            "Policy",
            "Loaded",
        ]
        for name in ("live", "exchanges", "loaded", "policy"):
            show(page, stage, name)
            assert page.get_by_role("alert").filter(has_text="right").count() == 0
        assert page.locator("textarea").count() == 0
        assert page.get_by_role("button").all_inner_texts() == ["Log out"]
        page.get_by_text('Writing drafts needs the right "try".').wait_for()
        show(page, stage, "playground")
        page.get_by_role("alert").filter(has_text='This page needs the right "try"; you have "view".').wait_for()
        assert page.locator("textarea").count() == 0


def test_who_may_try_applies_nothing(browser: Browser, stage: Stage) -> None:
    with visiting(browser, stage, stage.keys["author"]) as (page, _):
        show(page, stage, "playground")
        page.get_by_role("textbox", name="Text").fill(MAIL)
        assert moderate(page).locator(".channel [data-side=delivered] .text").text_content() == "[EMAIL_ADDRESS]"
        show(page, stage, "policy")
        write(page, DRAFT)
        page.get_by_text('Putting a draft in force needs the right "change".').wait_for()
        page.get_by_text('Starting one needs the right "change".').wait_for()
        for name in ("Apply", "Start", "Stop", "Roll back"):
            assert page.get_by_role("button", name=name, exact=True).count() == 0


def test_whose_role_has_no_right_does_not_get_in(browser: Browser, stage: Stage) -> None:
    with visiting(browser, stage, token="") as (page, watch):
        page.goto(f"{stage.admin}/console/login")
        page.get_by_label("Token").fill(stage.keys["app"])
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("alert").filter(has_text="Your role has no right in the console.").wait_for()
        watch.expect(403)
        page.goto(f"{stage.admin}/console/live")
        assert page.url.endswith("/console/login")
