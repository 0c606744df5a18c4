"""Recorded streams and bodies of many servers: the SDK sees the same with the dialect between as without it (G4).

The recordings lie outside the repository; without them these tests are skipped.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import openai
import pytest
from dialect_kit import ask, body, policy, spellings, stream
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from cotguard.detectors.contract import Detector
from cotguard.dialects.chat.dialect import ChatCompletions
from cotguard.dialects.contract import ErrorKind, Prepared, UpstreamFault
from cotguard.moderation.exchange import Exchange
from cotguard.policy import Policy, parse

SHARED = Path(__file__).resolve().parents[2] / "shared"
FORMATS = ("chat-completions", "tgi openai-compat")
DIALECT = ChatCompletions()

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="no recordings beside the repository")


def recordings() -> Iterator[Path]:
    manifest = SHARED / "fixtures" / "MANIFEST.tsv"
    if not manifest.is_file():
        return
    for line in manifest.read_text("utf-8").splitlines()[1:]:
        name, _, kind = line.split("\t")[:3]
        if kind.startswith(FORMATS):
            yield from sorted((SHARED / "fixtures").rglob(name))
    yield from sorted((SHARED / "captures").glob("*.sse"))


def load(path: Path) -> tuple[bytes, bool]:
    """A recording as a response body, and whether it is a stream."""
    data = path.read_bytes()
    if path.suffix == ".txt":
        lines = [line for line in data.split(b"\n") if line.strip()]
        return b"".join(b"data: " + line + b"\n\n" for line in lines) + b"data: [DONE]\n\n", True
    if path.suffix == ".json":
        body = json.loads(data)
        if isinstance(body, list):  # parsed chunks
            chunks = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in body)
            return chunks + b"data: [DONE]\n\n", True
        return data, False
    return data, True


RECORDINGS = [(path, *load(path)) for path in recordings()]
CHATS = [(path, data, streamed) for path, data, streamed in RECORDINGS if b'"choices"' in data]
STREAMS = [pytest.param(data, id=path.name) for path, data, streamed in CHATS if streamed]
BODIES = [pytest.param(data, id=path.name) for path, data, streamed in CHATS if not streamed]


@dataclass
class Seen:
    """What a user of the SDK has of one choice. ``order``: fields in the order of their first text."""

    texts: dict[str, str] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    calls: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    finish: str | None = None

    def add(self, name: str, value: object) -> None:
        """Take a text field in any of its forms."""
        if isinstance(value, list):
            for part in value:
                kind = part.get("type")
                inner = part.get("text") or part.get("summary") or part.get("thinking")
                self.add(f"{name}:{'thinking' if kind == 'thinking' else 'text'}", inner)
        elif isinstance(value, str) and value:
            if name not in self.texts:
                self.order.append(name)
            self.texts[name] = self.texts.get(name, "") + value


FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "content", "refusal")


def sdk(data: bytes, *, streamed: bool) -> openai.OpenAI:
    content_type = "text/event-stream" if streamed else "application/json"

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=data, headers={"content-type": content_type})

    client = httpx2.Client(transport=httpx2.MockTransport(answer))
    return openai.OpenAI(api_key="none", base_url="http://upstream", http_client=client, max_retries=0)


def take_calls(seen: Seen, calls: Sequence[object]) -> None:
    for position, call in enumerate(calls):
        index = getattr(call, "index", None)
        at = index if isinstance(index, int) else position
        identity, name, arguments = seen.calls.get(at, ("", "", ""))
        function = getattr(call, "function", None)
        seen.calls[at] = (
            identity or getattr(call, "id", None) or "",
            name or getattr(function, "name", None) or "",
            arguments + (getattr(function, "arguments", None) or ""),
        )


def view_stream(data: bytes) -> tuple[dict[int, Seen], object, bool]:
    """Choices, last usage, and whether the SDK raised."""
    seen: dict[int, Seen] = {}
    usage: object = None
    failed = False
    try:
        chunks: openai.Stream[ChatCompletionChunk]
        with sdk(data, streamed=True).chat.completions.create(model="m", messages=[], stream=True) as chunks:
            for chunk in chunks:
                if chunk.usage is not None:
                    usage = chunk.usage.model_dump(exclude_none=True)
                for choice in chunk.choices:
                    mine = seen.setdefault(choice.index, Seen())
                    delta = choice.delta.model_dump(warnings=False)
                    for name in FIELDS:
                        mine.add(name, delta.get(name))
                    take_calls(mine, choice.delta.tool_calls or [])
                    mine.finish = mine.finish or choice.finish_reason
    except openai.APIError:
        failed = True
    return seen, usage, failed


def view_body(data: bytes) -> tuple[dict[int, Seen], object]:
    completion: ChatCompletion = sdk(data, streamed=False).chat.completions.create(model="m", messages=[])
    seen: dict[int, Seen] = {}
    for choice in completion.choices:
        mine = seen[choice.index] = Seen(finish=choice.finish_reason)
        message = choice.message.model_dump(warnings=False)
        for name in FIELDS:
            mine.add(name, message.get(name))
        take_calls(mine, choice.message.tool_calls or [])
    return seen, completion.usage and completion.usage.model_dump(exclude_none=True)


def request(seen: dict[int, Seen], *, streamed: bool) -> Prepared:
    """The request that such a response may answer: with its tools, its number of choices."""
    names = {name for mine in seen.values() for _, name, _ in mine.calls.values()}
    tools = [{"type": "function", "function": {"name": name}} for name in sorted(names)]
    fields = {"model": "m", "messages": [], "stream": streamed, "tools": tools, "n": max(seen, default=0) + 1}
    return ask(DIALECT, "chat", fields)


SHADOW = "version: 1\nname: t\nmode: shadow\nrules:\n  - entities: [ALL]\n    action: redact\n"
NewExchange = Callable[[Prepared], Exchange]


@pytest.fixture(params=["no detectors", "every detector"])
def new_exchange(request: pytest.FixtureRequest, balanced: tuple[Policy, tuple[Detector, ...]]) -> NewExchange:
    """Exchanges that alter nothing: without detectors, and with all of them and their holds."""
    detectors = balanced[1] if request.param == "every detector" else ()
    policy = parse(SHADOW, "t.yaml", None)
    return lambda prepared: Exchange(policy, detectors, prepared.facts, b"k" * 16)


def moderate(data: bytes, prepared: Prepared, new_exchange: NewExchange, size: int) -> bytes:
    """A stream with the dialect between, read in pieces of ``size`` bytes."""
    translator = DIALECT.stream(prepared, new_exchange(prepared), "text/event-stream")
    assert translator is not None
    out = b""
    try:
        for at in range(0, len(data), size):
            out += translator.receive(data[at : at + size])
        out += translator.end()
    except UpstreamFault as fault:
        out += translator.fail(fault.kind, str(fault))
    return out


@pytest.mark.parametrize("data", STREAMS)
@pytest.mark.parametrize("size", [97, 997, 10**9])
def test_a_recorded_stream_looks_the_same(data: bytes, new_exchange: NewExchange, size: int) -> None:
    seen, usage, failed = view_stream(data)
    assert seen
    for mine in seen.values():
        mine.finish = {"eos": "stop"}.get(mine.finish or "", mine.finish)
    found, found_usage, found_failed = view_stream(moderate(data, request(seen, streamed=True), new_exchange, size))
    assert (found_usage, found_failed) == (usage, failed)
    if failed:  # what was on hold at the fault stays here
        for index, mine in found.items():
            assert all(seen[index].texts[name].startswith(text) for name, text in mine.texts.items())
    else:
        assert found == seen


@pytest.mark.parametrize("data", BODIES)
def test_a_recorded_body_looks_the_same(data: bytes, new_exchange: NewExchange) -> None:
    seen, usage = view_body(data)
    for mine in seen.values():
        mine.finish = {"eos": "stop"}.get(mine.finish or "", mine.finish)
    prepared = request(seen, streamed=False)
    out = DIALECT.body(data, prepared, new_exchange(prepared))
    assert view_body(out) == (seen, usage)


CANARY = "canary-word"


def spoil(value: object, depth: int = 0) -> object:
    """The same JSON with an unknown key, and a text where structure was, in every object."""
    if isinstance(value, dict):
        spoiled = {name: spoil(each, depth + 1) for name, each in value.items()}
        return spoiled | {f"x_{depth}": CANARY, "logprobs": {"content": [{"token": CANARY}]}, "text_": [CANARY]}
    if isinstance(value, list):
        return [spoil(each, depth + 1) for each in value]
    return value


@pytest.mark.parametrize("data", STREAMS)
def test_unknown_keys_in_a_recorded_stream_vanish(data: bytes, new_exchange: NewExchange) -> None:
    lines = []
    for line in data.replace(b"\r", b"").split(b"\n"):
        body = line.removeprefix(b"data:").strip()
        spoiled = json.dumps(spoil(json.loads(body))).encode() if body.startswith(b"{") else None
        lines.append(line if spoiled is None else b"data: " + spoiled)
    prepared = request(view_stream(data)[0], streamed=True)
    out = moderate(b"\n".join(lines), prepared, new_exchange, 10**9)
    assert CANARY.encode() not in out
    assert view_stream(out) == view_stream(moderate(data, prepared, new_exchange, 10**9))


def joined(seen: dict[int, Seen]) -> str:
    return " ".join(
        text for mine in seen.values() for text in (*mine.texts.values(), *(call[2] for call in mine.calls.values()))
    )


def a_word(seen: dict[int, Seen]) -> str:
    """The longest plain word of a recording."""
    return max(re.findall("[A-Za-z]{5,}", joined(seen)), key=len, default="")


@pytest.mark.parametrize("data", STREAMS)
def test_a_known_value_of_a_recorded_stream_appears_nowhere(data: bytes) -> None:
    seen, _, failed = view_stream(data)
    word = a_word(seen)
    prepared = request(seen, streamed=True)
    if not word:
        pytest.skip("no word in it")
    moderation = policy("redact", word)
    whole = stream(DIALECT, prepared, moderation, data)
    assert not any(spelling in whole for spelling in spellings(word))
    texts = joined(view_stream(whole)[0])
    assert word not in texts
    assert failed or "[KNOWN_VALUE]" in texts
    for size in (1, 5, 331):
        assert joined(view_stream(stream(DIALECT, prepared, moderation, data, size=size))[0]) == texts


@pytest.mark.parametrize("data", BODIES)
def test_a_known_value_of_a_recorded_body_appears_nowhere(data: bytes) -> None:
    seen, _ = view_body(data)
    word = a_word(seen)
    if not word:
        pytest.skip("no word in it")
    out = body(DIALECT, request(seen, streamed=False), policy("redact", word), data)
    assert not any(spelling in out for spelling in spellings(word))
    assert "[KNOWN_VALUE]" in joined(view_body(out)[0])


def test_there_are_recordings_of_both_kinds() -> None:
    assert len(STREAMS) >= 20
    assert len(BODIES) >= 10


def test_a_recorded_error_keeps_its_code_and_loses_its_text(new_exchange: NewExchange) -> None:
    path = next((SHARED / "fixtures").rglob("pydantic-ai__groq__test_tool_use_failed_error_streaming.0.sse"))
    prepared = request({0: Seen()}, streamed=True)
    translator = DIALECT.stream(prepared, new_exchange(prepared), "text/event-stream")
    assert translator is not None
    with pytest.raises(UpstreamFault) as raised:
        translator.receive(path.read_bytes())
    assert raised.value.kind is ErrorKind.UPSTREAM_ERROR
    *_, last = translator.fail(raised.value.kind, str(raised.value)).strip().split(b"\n\n")
    error = json.loads(last.removeprefix(b"data: "))["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "tool_use_failed")
    assert b"invalid_param" not in last
