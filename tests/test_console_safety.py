"""The console in a real browser: it holds no text, runs no script but its own, and is everybody's to use."""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote

import httpx
import pytest
from aiohttp import web
from browser_kit import (
    HOUSE,
    PAGES,
    TOKEN,
    Stage,
    Watch,
    listed,
    moderate,
    show,
    shown,
    visiting,
    write,
)
from playwright.sync_api import Browser, Dialog, Error, Page, Route
from scripted import DONE, chunk, finish, streaming
from test_console import Quiet

from cotguard.console.app import PREFIX, create_console_app
from cotguard.console.sessions import COOKIE
from cotguard.gateway.admin_access import AdminToken

Json = dict[str, Any]


# --- Planted values --------------------------------------------------------------------------------------------------

LIVE = (
    "quentin.vorobyev@zephyrhaus.org",
    "5454 5454 5454 5454",
    "AKIAQ3ZW7KPXJ5RTM2LH",
    "+44 20 7946 0958",
    "DE75 5121 0800 1245 1261 99",
    "Vx7#kelpForgeNine",
    "536-22-8145",
    "Ottoline Kvistgaard-Vosloo",
)
"""They go through the proxy; nothing of them is in what comes with cotguard."""

TYPED = (
    "marguerite.oyelaran@quillbyte.net",
    "3782 822463 10005",
    "AKIAZ4YH6MWQT2NVKX7B",
    "Rh4#plumRavineTwo",
    "Leopoldina Throckmorton-Achebe",
)
"""They are entered in the console."""

_SHORTEST = 8


def about(values: Iterable[str]) -> str:
    """A text with the values."""
    return " ".join(
        f"The {'admin password is' if '#' in value else 'record says'} {value} , noted." for value in values
    )


def traces(value: str) -> set[str]:
    """What ``value`` can be recognised by: pieces of it, of its digits, and of what it looks like backwards or encoded.

    Lower-case, as what is searched through has to be.
    """
    data = value.encode()
    forms = [value, re.sub(r"\W", "", value), re.sub(r"\D", "", value), quote(value), data.hex()]
    forms += [form[::-1] for form in forms[:3]]
    forms += [b64encode(b" " * shift + data).decode() for shift in range(3)]
    pieces = {form[at : at + _SHORTEST] for form in forms for at in range(len(form) - _SHORTEST + 1)}
    words = set(re.findall(r"[^\W\d_]{6,}", value))
    return {each.lower() for each in pieces | words} - {b64encode(b" " * 2).decode()[:_SHORTEST].lower()}


def found(values: Sequence[str], text: str) -> dict[str, set[str]]:
    """Of which values something stands in ``text``."""
    lowered = text.lower()
    seen = {value: {trace for trace in traces(value) if trace in lowered} for value in values}
    return {value: those for value, those in seen.items() if those}


def on_page(page: Page) -> str:
    """All that a page holds: its elements, its text, and what is entered in it."""
    entered = page.locator("input, textarea, select").evaluate_all("all => all.map(({value}) => value)")
    return "\n".join([page.content(), page.locator("body").inner_text(), page.title(), page.url, *map(str, entered)])


def received(watch: Watch) -> str:
    """What the console answered since this was asked last, on the page that is shown now."""
    answers = []
    for response in watch.responses:
        answers.append(f"{response.url} {response.headers}")
        if response.request.resource_type != "eventsource" and response.status == 200:
            with suppress(Error):  # of a page that was left the browser keeps nothing
                answers.append(response.text())
    watch.responses.clear()
    return "\n".join(answers)


def kept(page: Page) -> Json:
    """What a page has left in the browser beside the cookies."""
    told: Json = page.evaluate(
        """async () => ({
            local: {...localStorage}, session: {...sessionStorage}, cookie: document.cookie, state: history.state,
            databases: await indexedDB.databases(), caches: await caches.keys(),
            workers: (await navigator.serviceWorker.getRegistrations()).length,
        })"""
    )
    return told


NOTHING: Json = {"local": {}, "session": {}, "cookie": "", "state": None, "databases": [], "caches": [], "workers": 0}


def first_sample(stage: Stage) -> str:
    """The first event of the live numbers, as it comes."""
    with httpx.stream(
        "GET", f"{stage.admin}{PREFIX}/api/live", cookies={COOKIE: stage.session(TOKEN)}, timeout=20
    ) as response:
        lines = response.iter_lines()
        return "\n".join([next(lines), next(lines)])


def left_behind(stage: Stage) -> str:
    """What the gateway has logged, counted and recorded."""
    metrics = httpx.get(f"{stage.admin}/metrics", headers={"authorization": f"Bearer {TOKEN}"}).text
    files = [path for path in stage.trail.rglob("*") if path.is_file()]
    assert len(files) > 1
    return "\n".join([stage.log, metrics, *(path.read_bytes().decode(errors="replace") for path in files)])


def recorded(stage: Stage) -> list[Json]:
    """The records of the trail."""
    return [json.loads(line) for path in stage.trail.glob("*.jsonl") for line in path.read_text().splitlines()]


def speaking(text: str) -> list[bytes]:
    """A stream whose channels all say ``text``, a few characters at a time."""
    pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "note", "arguments": ""}}
    said = json.dumps({"text": text})
    return [
        *(chunk({"reasoning_content": piece}) for piece in pieces),
        *(chunk({"content": piece}) for piece in pieces),
        chunk({"tool_calls": [call]}),
        *(
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": said[at : at + 9]}}]})
            for at in range(0, len(said), 9)
        ),
        finish(reason="tool_calls"),
        DONE,
    ]


def failing(status: int, body: str) -> Any:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    return handler


def test_traces_are_found() -> None:
    for value in (*LIVE, *TYPED):
        for seen in (value, value[:9], value[::-1], b64encode(b"xy" + value.encode()).decode(), quote(value)):
            assert found([value], f"so: {seen}!")
    assert not found([*LIVE, *TYPED], HOUSE)


def test_no_page_holds_anything_of_what_went_through(browser: Browser, stage: Stage) -> None:
    text = about(LIVE)
    messages = [{"role": role, "content": f"{role}: {text}"} for role in ("system", "user", "assistant", "user")]
    stage.scripted.handler = streaming(speaking(text))
    answer = stage.post(messages=messages)
    stage.post(messages=messages, stream=False)
    for handler in (
        streaming([chunk({"content": text}), b"data: {" + text.encode() + b"\n\n"]),
        streaming([b'data: {"error": {"message": ' + json.dumps(text).encode() + b"}}\n\n"]),
        failing(500, text),
        failing(200, text),
    ):
        stage.scripted.handler = handler
        stage.post(messages=messages)
    stage.post(messages=messages, path="/v1/nothing")
    assert {*found(LIVE, json.dumps(messages))} == {*LIVE}
    assert found(LIVE, answer.text).keys() < {*LIVE}  # some have no rule

    planted = (*LIVE, stage.keys["app"].split("_", 2)[2])  # what stands before is the key's name
    with visiting(browser, stage) as (page, watch):
        for name in PAGES:
            show(page, stage, name)
            if name == "live":
                page.locator("[data-labels='EMAIL_ADDRESS|reasoning|redact|redacted']").wait_for()
            if name == "exchanges":
                for request in listed(page):
                    page.locator(f"a[data-open='{request}']").click()
                    dialog = page.locator(f"dialog[data-request='{request}']")
                    dialog.wait_for()
                    for button in dialog.locator("button[data-recurrences]").all():
                        button.click()
                    assert not found(planted, on_page(page))
                    page.keyboard.press("Escape")
            assert not found(planted, on_page(page))
            told = received(watch)
            assert "csrf" in told
            assert not found(planted, told)
            assert kept(page) == NOTHING
        assert [each.get("name") for each in page.context.cookies()] == [COOKIE]
    assert not found(planted, first_sample(stage))
    assert not found(planted, left_behind(stage))


def test_nothing_stays_of_what_is_entered(browser: Browser, stage: Stage, tmp_path: Path) -> None:
    text = about(TYPED)
    draft = HOUSE.replace("rules:", "rules:\n  - entities: [KNOWN_VALUE]\n    action: redact")
    draft += f"known_values:\n  values: [{json.dumps(TYPED[-1])}]\n"
    (tmp_path / "entered.sse").write_bytes(b"".join(speaking(text)))
    stage.scripted.handler = streaming(speaking(text))
    with visiting(browser, stage) as (page, watch):
        show(page, stage, "playground")
        page.get_by_text("Try a draft in its place").click()
        page.get_by_label("Draft").fill(draft)
        page.get_by_role("textbox", name="Text").fill(text)
        moderate(page)
        page.get_by_role("tab", name="Recorded stream").click()
        page.get_by_label("Dialect").select_option("chat_completions")
        page.get_by_label("Or a file").set_input_files(tmp_path / "entered.sse")
        page.get_by_text("entered.sse:").wait_for()
        moderate(page)
        page.get_by_role("tab", name="Prompt").click()
        page.get_by_label("Upstream", exact=True).select_option("scripted")
        page.get_by_role("textbox", name="Prompt", exact=True).fill(text)
        page.get_by_role("textbox", name="System prompt", exact=True).fill(text)
        moderate(page)
        assert {*found(TYPED, on_page(page))} == {*TYPED}
        assert {*found(TYPED, received(watch))} == {*TYPED}
        assert kept(page) == NOTHING
        page.reload()
        shown(page, "Playground")
        assert not found(TYPED, on_page(page))
        page.get_by_role("textbox", name="Text").fill(text)
        moderate(page)
        show(page, stage, "loaded")
        page.go_back()
        shown(page, "Playground")
        assert not found(TYPED, on_page(page))
        page.get_by_role("textbox", name="Text").fill(text)
        moderate(page)
        page.get_by_role("button", name="Clear everything").click()
        assert not found(TYPED, on_page(page))

        show(page, stage, "policy")
        write(page, draft)
        page.get_by_label("Text 1", exact=True).fill(text)
        page.get_by_role("button", name="Compare").click()
        page.locator("[data-differing]").wait_for()
        write(page, draft.replace("action: flag", f"action: {TYPED[2]}"), problems=1)
        assert found(TYPED, on_page(page))
        assert kept(page) == NOTHING
        received(watch)
        page.on("dialog", lambda dialog: dialog.accept())  # the draft would be lost
        for name in PAGES:
            show(page, stage, name)
            assert not found(TYPED, on_page(page))
            assert not found(TYPED, received(watch))
            assert kept(page) == NOTHING
    assert not found(TYPED, first_sample(stage))
    assert not found(TYPED, left_behind(stage))


# --- Markup ----------------------------------------------------------------------------------------------------------

MARKUP = (
    "<img src=x onerror=window.__xss=1>",
    "<script>window.__xss=1</script>",
    '"><svg onload=window.__xss=1>',
    "'><iframe srcdoc='<script>parent.__xss=1</script>'>",
)
ALL = " ".join(MARKUP)


def harmless(page: Page, *texts: str) -> None:
    """``texts`` are on the page, as text, and there is nothing that they could have made."""
    assert page.evaluate("window.__xss === undefined")
    assert page.locator("img, iframe, object, embed, base, svg:not(.heldchart), [onerror], [onload]").count() == 0
    assert page.locator("script").count() == 1
    shown = "\n".join([page.locator("body").inner_text(), *page.locator("option").all_inner_texts()])
    for text in texts:
        assert text in shown


def unfold(page: Page) -> None:
    """Open all that can be folded."""
    page.locator("details").evaluate_all("all => all.forEach((each) => { each.open = true; })")


@pytest.fixture
def page(browser: Browser, stage: Stage) -> Iterator[Page]:
    """Somebody whose name is markup."""
    with visiting(browser, stage, stage.token(f"ann {MARKUP[0]}")) as (page, watch):

        def told(dialog: Dialog) -> None:
            watch.problems.append(f"dialog: {dialog.message}")
            dialog.dismiss()

        page.on("dialog", told)
        yield page


def test_what_models_and_callers_write_is_text(page: Page, stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "<img src=x onerror=window.__xss=1>.sse"
    file.write_bytes(b"".join(speaking(f"{ALL} to ann.lee@example.com {ALL}")))
    show(page, stage, "playground")
    harmless(page, MARKUP[0])  # his name
    page.get_by_role("textbox", name="Text").fill(f"{ALL} <a title='ann.lee@example.com'>{ALL}")
    moderate(page)
    harmless(page, ALL)
    page.get_by_role("tab", name="Recorded stream").click()
    page.get_by_label("Dialect").select_option("chat_completions")
    page.get_by_label("Or a file").set_input_files(file)
    page.get_by_text(".sse:").wait_for()
    harmless(page, file.name)
    result = moderate(page)
    for mark in result.locator(".hit").all():
        mark.click()
    for _ in range(9):
        result.get_by_role("button", name="Step forward").click()
    result.get_by_text("What the client gets").click()
    harmless(page, ALL)
    assert result.locator(".channel").count() == 3


def test_what_an_upstream_writes_is_text(page: Page, stage: Stage) -> None:
    show(page, stage, "playground")
    page.get_by_role("tab", name="Prompt").click()
    page.get_by_label("Upstream", exact=True).select_option("scripted")
    page.get_by_role("textbox", name="Prompt", exact=True).fill(ALL)
    page.get_by_label("Model").fill(ALL)
    error = b'data: {"error": {"message": ' + json.dumps(ALL).encode() + b', "type": "<b>", "code": "<b>"}}\n\n'
    for handler in (
        failing(500, ALL),
        failing(200, ALL),
        streaming([error]),
        streaming([chunk({"content": "a"}), error]),
        streaming([f"data: {ALL}\n\n".encode()]),
        streaming(speaking(ALL)),
    ):
        stage.scripted.handler = handler
        moderate(page)
        unfold(page)
        harmless(page)
    harmless(page, ALL)


def test_names_that_clients_choose_are_text(page: Page, stage: Stage) -> None:
    stage.scripted.handler = streaming(speaking("I mail ann.lee@example.com now."))
    token = stage.token(MARKUP[2])
    opened = stage.post(token, model=ALL).headers["x-cotguard-request-id"]  # such a model is not named anywhere
    stage.scripted.handler = failing(500, ALL)
    stage.post(token)
    caller = next(each["caller"] for each in recorded(stage) if each.get("request_id") == opened)
    show(page, stage, "exchanges")
    page.get_by_label("Caller").select_option(caller)
    page.get_by_text("2 exchanges, the newest first").wait_for()
    harmless(page, caller, MARKUP[2])
    page.locator(f"a[data-open='{opened}']").click()
    page.locator(f"dialog[data-request='{opened}']").wait_for()
    harmless(page, caller)
    page.goto(f"{stage.admin}{PREFIX}/exchanges?{httpx.QueryParams({'model': ALL, 'request': ALL, 'since': ALL})}")
    page.locator("dialog[data-request]").wait_for()
    harmless(page, ALL)


def test_drafts_and_what_is_wrong_with_them_is_text(page: Page, stage: Stage) -> None:
    show(page, stage, "policy")
    quoted = json.dumps(MARKUP[0])
    wrong = f"version: 1\nname: {quoted}\n{quoted}: 1\nrules:\n  - entities: [{quoted}]\n    action: {quoted}\n"
    page.get_by_label("Draft", exact=True).fill(wrong)
    page.locator("#draft-state li").first.wait_for()
    harmless(page, MARKUP[0])
    write(page, HOUSE + f"description: {quoted}\nnotice: {quoted}\n")
    page.get_by_label("Text 1", exact=True).fill(ALL)
    page.get_by_role("button", name="Compare").click()
    page.locator("[data-differing]").wait_for()
    unfold(page)
    harmless(page, MARKUP[0], ALL)


@pytest.mark.parametrize("name", PAGES)
def test_nothing_that_a_gateway_tells_is_parsed(page: Page, stage: Stage, name: str) -> None:
    """Whatever else may become text on a page, from a forged record to an entity of somebody's detector."""

    def marked(value: Any) -> Any:
        if isinstance(value, str):
            return value if re.match(r"20\d\d-", value) else f"{value} {ALL}"  # times are read
        if isinstance(value, list):
            return [marked(each) for each in value]
        return {each: marked(those) for each, those in value.items()} if isinstance(value, dict) else value

    def answer(route: Route) -> None:
        asked = route.request
        about = json.dumps(unmarked(json.loads(asked.post_data))) if asked.post_data else None
        response = route.fetch(url=unquote(asked.url).replace(f" {ALL}", ""), post_data=about)
        route.fulfill(response=response, json=marked(response.json()))

    def unmarked(about: Json) -> Json:
        return {each: value.removesuffix(f" {ALL}") if each == "policy" else value for each, value in about.items()}

    stage.scripted.handler = streaming(speaking("I mail ann.lee@example.com now."))
    stage.post()
    show(page, stage, name)
    page.route(re.compile(r"/console/api/(?!session|live)"), answer)
    sample = first_sample(stage).removeprefix("event: sample\ndata: ")
    event = f"event: sample\ndata: {json.dumps(marked(json.loads(sample)))}\n\n"
    page.route("**/console/api/live", lambda route: route.fulfill(body=event, content_type="text/event-stream"))
    page.reload()
    page.locator("main:not([aria-busy])").wait_for()
    if name == "live":
        page.locator("[data-metric=requests]").first.wait_for()
    if name == "exchanges":
        page.locator("tr[data-request] a").first.click()
        page.locator("dialog[data-request]").wait_for()
        page.locator("dialog button[data-recurrences]").first.click()
        page.locator("dialog .recurring li").first.wait_for()
    if name == "playground":
        page.get_by_role("button", name="Fill in an example").click()
        moderate(page)
    if name == "policy":
        write(page, HOUSE)
        page.get_by_role("button", name="Compare").click()
        page.locator("[data-differing]").wait_for()
    unfold(page)
    harmless(page, ALL)


# --- Strangers -------------------------------------------------------------------------------------------------------


def test_no_path_answers_a_stranger(stage: Stage) -> None:
    routes = create_console_app(Quiet(), AdminToken(TOKEN), "").router.routes()
    paths = {route.resource.canonical for route in routes if route.resource is not None}
    assert {"/api/apply", "/api/exchanges/{id}", "/live", "/static/vendor/uplot.js"} <= paths
    public = {"/login", "/static/style.css", "/static/icon.svg"}
    with httpx.Client(base_url=f"{stage.admin}{PREFIX}", cookies={COOKIE: "0" * 43}) as client:
        for path in sorted(paths - public):
            url = re.sub(r"\{\w+\}", "1", path)
            for method in ("GET", "HEAD", "POST", "DELETE", "PUT", "OPTIONS"):
                answer = client.request(method, url, json={} if method == "POST" else None)
                assert (answer.status_code, answer.content) == (
                    401,
                    b"" if method == "HEAD" else b'{"error":"Log in."}',
                )
            moved = client.get(url, headers={"accept": "text/html"})
            assert (moved.status_code, moved.headers["location"], moved.content) == (303, f"{PREFIX}/login", b"")
        for path in public:
            assert client.get(path).status_code == 200
            assert client.delete(path).status_code == 405 or path == "/login"


# --- Layout ----------------------------------------------------------------------------------------------------------

NARROW = {"width": 390, "height": 844}


def fill_page(page: Page, stage: Stage, name: str) -> None:
    """Have on a page what there is to see."""
    show(page, stage, name)
    if name == "live":
        page.locator("[data-metric=requests]").first.wait_for()
    elif name == "exchanges":
        page.locator("tr[data-request]").first.wait_for()
    elif name == "playground":
        page.get_by_role("button", name="Fill in an example").click()
        moderate(page).locator(".hit").first.click()
    elif name == "policy":
        write(page, HOUSE.replace("action: flag", "action: flog"), problems=1)
        write(page, HOUSE.replace("action: flag", "action: redact"))
        page.get_by_role("button", name="Compare").click()
        page.locator("[data-differing]").wait_for()
    unfold(page)


@pytest.mark.parametrize("name", PAGES)
def test_a_narrow_window_shows_all(browser: Browser, stage: Stage, name: str) -> None:
    with visiting(browser, stage, viewport=NARROW) as (page, _):
        fill_page(page, stage, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
        if name == "exchanges":
            page.locator("tr[data-request] a").first.click()
            page.locator("dialog[data-request]").wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
            assert page.locator("dialog").evaluate("dialog => dialog.scrollWidth <= dialog.clientWidth")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_what_is_what(browser: Browser, stage: Stage, name: str) -> None:
    with visiting(browser, stage) as (page, _):
        fill_page(page, stage, name)
        assert page.locator("h1").all_inner_texts() == [name.capitalize()]
        for role in ("banner", "navigation", "main"):
            assert page.get_by_role(role).count() == 1
        unnamed = page.locator(
            "input:not([type=hidden]), select, textarea, button, summary, [role=region]"
        ).evaluate_all(
            """all => all.filter(({labels, ariaLabel, ariaLabelledByElements, textContent}) =>
                !(labels?.length || ariaLabel || ariaLabelledByElements?.length || textContent.trim()))
                .map(({outerHTML}) => outerHTML)"""
        )
        assert unnamed == []
        twice = page.evaluate(
            """() => {
                const all = [...document.querySelectorAll("[id]")].map(({id}) => id);
                return all.filter((id, place) => all.indexOf(id) !== place);
            }"""
        )
        assert twice == []


REACHABLE = "a[href], button, input, select, textarea, summary, [tabindex]"


@pytest.mark.parametrize("name", PAGES)
def test_the_keyboard_reaches_everything(browser: Browser, stage: Stage, name: str) -> None:
    with visiting(browser, stage) as (page, _):
        fill_page(page, stage, name)
        page.locator(REACHABLE).evaluate_all(
            """all => {
                const reached = all.filter((each) => each.tabIndex >= 0 && !each.disabled && each.checkVisibility());
                reached.forEach((each, number) => { each.dataset.reachable = number; });
            }"""
        )
        wanted = {str(each) for each in range(page.locator("[data-reachable]").count())}
        page.evaluate("document.activeElement.blur()")
        seen: list[str | None] = []
        unseen = []
        while len(seen) < 2 * len(wanted) and not wanted <= {*seen}:
            page.keyboard.press("Tab")
            number, visible, what = page.evaluate(
                """() => {
                    const at = document.activeElement;
                    const outlined = [at, at.parentElement].some((each) =>
                        getComputedStyle(each).outlineStyle !== "none");
                    return [at.dataset.reachable ?? null, outlined, at.outerHTML.slice(0, 200)];
                }"""
            )
            seen.append(number)
            if number is not None and not visible:
                unseen.append(what)
        assert wanted <= {*seen}, wanted - {*seen}
        assert unseen == []


CONTRASTS = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
    const over = (colors) => {  // those of an element and of what it stands on, the last first
        canvas.clearRect(0, 0, 1, 1);
        for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
        return canvas.getImageData(0, 0, 1, 1).data;
    };
    const luminance = (color) => {
        const [r, g, b] = [...color].slice(0, 3).map((part) => part / 255)
            .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const faint = new Map();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const {parentElement: element, textContent} = walker.currentNode;
        if (!textContent.trim() || !element.checkVisibility() || element.closest("[disabled], .unseen")) continue;
        const grounds = [];
        for (let at = element; at; at = at.parentElement) grounds.unshift(getComputedStyle(at).backgroundColor);
        const color = getComputedStyle(element).color;
        const [one, other] = [luminance(over(grounds)), luminance(over([...grounds, color]))].sort((a, b) => b - a);
        const contrast = (one + 0.05) / (other + 0.05);
        if (contrast < 4.5) faint.set(`${element.tagName}.${element.className}`, contrast);
    }
    return Object.fromEntries(faint);
}"""


@pytest.mark.parametrize("name", PAGES)
def test_text_is_told_from_its_ground(browser: Browser, stage: Stage, name: str) -> None:
    with visiting(browser, stage) as (page, _):
        fill_page(page, stage, name)
        schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)
            assert (scheme, page.evaluate(CONTRASTS)) == (scheme, {})
