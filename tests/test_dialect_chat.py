"""Chat Completions: streams, whole bodies and requests, against lanes that hold, redact and block by simple rules."""

import json
from collections.abc import Hashable, Iterator, Sequence
from importlib.resources import files
from typing import Any

import pytest
import yaml
from dialect_kit import ask
from hypothesis import given, settings
from hypothesis import strategies as st

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.chat.dialect import ChatCompletions
from cotguard.dialects.chat.request import MAX_CHOICES
from cotguard.dialects.contract import ErrorKind, Prepared, Refused, Translator, UpstreamFault
from cotguard.dialects.memo import Memo
from cotguard.dialects.table import CHECKS, Table
from cotguard.moderation.exchange import Emission, Exchange, Lane
from cotguard.moderation.view import View

Json = dict[str, Any]

HOLD = 8
SECRET = "s3cr3t!"
BLOCK = "BL0CK!"
DIALECT = ChatCompletions()


class RuleLane(Lane):
    """Holds the last HOLD characters of each channel, redacts SECRET, is cut by BLOCK."""

    def __init__(self) -> None:
        self.cut = False
        self._held: dict[Hashable, str] = {}
        self._heads: dict[Hashable, object] = {}
        self._released: list[Emission] = []
        self.kinds: dict[Hashable, str] = {}

    def is_open(self, key: Hashable) -> bool:
        return key in self._held

    def open(self, key: Hashable, view: View, head: object = None) -> None:
        assert key not in self._held
        self._held[key] = ""
        self._heads[key] = head
        self.kinds[key] = type(view).__name__

    def feed(self, key: Hashable, raw: str) -> None:
        assert raw
        if self.cut:
            return
        text = (self._held[key] + raw).replace(SECRET, "[SECRET]")
        if BLOCK in text:
            self._pass_on(key, text[: text.index(BLOCK)])
            self.cut = True
            return
        # A replacement is never cut: what is held begins before it.
        at = max(0, len(text) - HOLD)
        inside = text.rfind("[", 0, at)
        if inside >= 0 and text[inside:].startswith("[SECRET]") and at < inside + len("[SECRET]"):
            at = inside
        self._held[key] = text[at:]
        self._pass_on(key, text[:at])

    def finish(self) -> None:
        for key, text in self._held.items():
            if not self.cut:
                self._pass_on(key, text)
            self._held[key] = ""

    def take(self) -> list[Emission]:
        released, self._released = self._released, []
        return released

    def _pass_on(self, key: Hashable, text: str) -> None:
        last = self._released[-1] if self._released else None
        if last is not None and last.key == key and self._heads[key] is None:
            last.text += text  # as the real lane joins what is adjacent
        elif text or self._heads[key] is not None:
            self._released.append(Emission(key, self._heads[key], text))
            self._heads[key] = None


class RuleExchange(Exchange):
    def __init__(self) -> None:
        self.made: dict[int, RuleLane] = {}

    def lane(self, index: int) -> RuleLane:
        return self.made.setdefault(index, RuleLane())


def opened(request: Prepared, exchange: Exchange, dialect: ChatCompletions = DIALECT) -> Translator:
    translator = dialect.stream(request, exchange, "text/event-stream")
    assert translator is not None
    return translator


def prepared(**fields: object) -> Prepared:
    return ask(DIALECT, "chat", {"model": "m", "stream": True, "messages": [], **fields})


TOOLS = [{"type": "function", "function": {"name": name}} for name in ("get_weather", "get_time")] + [
    {"type": "custom", "custom": {"name": "shell"}}
]


def choice(delta: Json, finish: object = None, index: int = 0, **more: object) -> Json:
    return {"index": index, "delta": delta, "finish_reason": finish, **more}


def chunk(*choices: Json, **more: object) -> Json:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 17, "model": "m"}
    return {**head, "choices": list(choices), **more}


def say(text: object, field: str = "content", index: int = 0) -> Json:
    return chunk(choice({field: text}, index=index))


def stop(reason: object = "stop", index: int = 0, **more: object) -> Json:
    return chunk(choice({}, reason, index), **more)


def call(index: int, name: str | None = None, arguments: str | None = None, identity: str | None = None) -> Json:
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    found: Json = {"index": index, "function": function}
    return {**found, "id": identity, "type": "function"} if identity else found


def calls(*items: Json) -> Json:
    return chunk(choice({"tool_calls": list(items)}))


def sse(*chunks: Json, done: bool = True) -> bytes:
    lines = [json.dumps(each) for each in chunks] + ["[DONE]"] * done
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def parse(data: bytes) -> list[Json]:
    """The chunks written; checks that [DONE] is last if it is there at all."""
    lines = [line.removeprefix("data: ") for line in data.decode().split("\n\n") if line]
    assert "[DONE]" not in lines[:-1]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def joined(chunks: Sequence[Json], index: int = 0) -> Json:
    """What a client has of one choice in the end."""
    found: Json = {"finish": []}

    def add(into: Json, delta: Json) -> None:
        for name, value in delta.items():
            if name == "tool_calls":
                found_calls = into.setdefault("tool_calls", {})
                for each in value:
                    add(found_calls.setdefault(each["index"], {}), each)
            elif isinstance(value, dict):
                inner = into.setdefault(name, {})
                add(inner, value)
            elif isinstance(value, str) and name not in ("id", "type"):
                before = into.get(name)
                into[name] = before + value if isinstance(before, str) else value
            elif isinstance(value, list):
                before = into.get(name)
                into[name] = [*before, *value] if isinstance(before, list) else value
            else:
                into[name] = value

    for each in chunks:
        written = each["choices"]
        for one in written:
            if one["index"] == index:
                add(found, one["delta"])
                if one["finish_reason"] is not None:
                    finish = found["finish"]
                    finish.append(one["finish_reason"])
    return found


def stream(data: bytes, request: Prepared | None = None, size: int = 10**9) -> list[Json]:
    """A whole stream, read in pieces of ``size`` bytes."""
    return parse(raw_stream(data, request, size))


def raw_stream(data: bytes, request: Prepared | None = None, size: int = 10**9) -> bytes:
    translator = opened(request or prepared(), RuleExchange())
    out = [translator.receive(data[at : at + size]) for at in range(0, len(data), size)]
    return b"".join([*out, translator.end()])


def fault(data: bytes, request: Prepared | None = None) -> tuple[ErrorKind, bytes]:
    """The fault a stream ends in, and all that the client got."""
    translator = opened(request or prepared(), RuleExchange())
    out = []

    def run() -> None:
        out.append(translator.receive(data))
        out.append(translator.end())

    with pytest.raises(UpstreamFault) as raised:
        run()
    out.append(translator.fail(raised.value.kind, str(raised.value)))
    assert translator.finished
    assert translator.receive(sse(say("more"))) == b""
    return raised.value.kind, b"".join(out)


# --- streams ---------------------------------------------------------------------------------------------------


STREAM = sse(
    chunk(choice({"role": "assistant", "content": ""})),
    *[say(word, "reasoning_content") for word in ("Let ", "me ", "use ", "s3c", "r3t", "! or ", "not. ")],
    *[say(word) for word in ("The ", "value ", "is ", "s", "3cr3", "t", "! 🌱 ", "bye")],
    stop(usage={"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}),
)
TEXTS: Json = {
    "role": "assistant",
    "reasoning_content": "Let me use [SECRET] or not. ",
    "content": "The value is [SECRET] 🌱 bye",
    "finish": ["stop"],
}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 200, 10**9])
def test_a_stream_is_the_same_however_it_is_read(size: int) -> None:
    assert joined(stream(STREAM, size=size)) == TEXTS


def test_a_stream_is_the_same_cut_at_every_position() -> None:
    for at in range(len(STREAM)):
        translator = opened(prepared(), RuleExchange())
        out = translator.receive(STREAM[:at])
        out += translator.receive(STREAM[at:]) + translator.end()
        assert joined(parse(out)) == TEXTS, at
        assert out.endswith(b"data: [DONE]\n\n")


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_delivered_text_does_not_depend_on_deltas_or_reads(data: st.DataObject) -> None:
    text = data.draw(st.lists(st.sampled_from([SECRET, "plain ", "s3cr", "3t!", "é🌱", "\n"]), max_size=12))
    whole = "".join(text)
    fields = ["reasoning", "content"]
    chunks, at = [], dict.fromkeys(fields, 0)
    while any(at[field] < len(whole) for field in fields):
        field = data.draw(st.sampled_from([each for each in fields if at[each] < len(whole)]))
        size = data.draw(st.integers(1, 6))
        chunks.append(say(whole[at[field] : at[field] + size], field))
        at[field] += size
    raw = sse(*chunks, stop())
    found = joined(stream(raw, size=data.draw(st.integers(1, len(raw)))))
    for field in fields:
        assert found.get(field, "") == whole.replace(SECRET, "[SECRET]")


@pytest.mark.parametrize("size", [40, 700, 10**9])
def test_the_short_way_writes_what_the_long_way_does(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    copies = [chunk(choice({"reasoning": each, "reasoning_details": [details(each)]})) for each in "ab s3cr3t! cd"]
    arguments = [calls(call(0, arguments=each)) for each in '{"a": "s3cr3t!"}']
    other = [say(each, index=index) for each in "interleaved" for index in (0, 1)]
    chunks = [*copies, calls(call(0, "get_time", "", "call_a")), *arguments, *other]
    # Shapes that differ from the remembered one in one place each: nothing but the text may be taken over.
    chunks += [say("x"), say("y") | {"usage": USAGE}, say("z") | {"choices": [choice({"content": "z"}, native=1)]}]
    data = sse(*chunks, chunk(choice({"content": "!", "refusal": "no"})), stop(), stop(index=1))
    request = prepared(tools=TOOLS, n=2)
    taken: list[str | None] = []
    short = Memo.text

    def counted(memo: Memo, block: bytes) -> str | None:
        taken.append(short(memo, block))
        return taken[-1]

    monkeypatch.setattr(Memo, "text", counted)
    written = raw_stream(data, request, size)
    assert sum(text is not None for text in taken) > 30
    monkeypatch.setattr(Memo, "text", lambda memo, block: None)
    assert raw_stream(data, request, size) == written


def test_roles_pass_at_once_and_only_once_while_text_is_held() -> None:
    translator = opened(prepared(), RuleExchange())
    first = parse(translator.receive(sse(chunk(choice({"role": "assistant", "content": "Hi"})), done=False)))
    assert [each["choices"] for each in first] == [[choice({"role": "assistant"})]]
    assert translator.receive(sse(chunk(choice({"role": "assistant", "content": "!"})), done=False)) == b""
    assert joined(parse(translator.receive(sse(stop())))) == {"content": "Hi!", "finish": ["stop"]}


def test_adjacent_text_of_one_read_is_one_chunk() -> None:
    out = stream(sse(*[say("word ") for _ in range(20)], stop()))
    assert [each["choices"] for each in out] == [
        [choice({"content": "word " * 20})],
        [choice({}, "stop")],
    ]


def test_text_on_the_finish_chunk_comes_before_the_finish() -> None:
    out = stream(sse(say("Hello "), chunk(choice({"content": "there"}, "stop"))))
    assert [each["choices"] for each in out] == [[choice({"content": "Hello there"})], [choice({}, "stop")]]


def test_a_repeated_finish_and_what_comes_after_it_are_dropped() -> None:
    out = stream(sse(say("Hi"), stop(), stop("length"), say("late"), chunk(choice({"role": "assistant"}))))
    assert joined(out) == {"content": "Hi", "finish": ["stop"]}


def test_nothing_follows_done() -> None:
    translator = opened(prepared(), RuleExchange())
    out = translator.receive(sse(say("Hi"), stop()) + sse(say("late"), stop()))
    assert translator.finished
    assert out.count(b"[DONE]") == 1
    assert b"late" not in out
    assert translator.receive(sse(say("late"))) == translator.end() == b""


def test_done_without_a_finish_reason_releases_what_is_held() -> None:
    assert raw_stream(sse(say("Hi"))) == raw_stream(sse(say("Hi")), size=1)
    assert joined(stream(sse(say("Hi")))) == {"content": "Hi", "finish": []}


def test_a_stream_that_closes_after_the_finish_is_complete() -> None:
    assert raw_stream(sse(say("Hi"), stop(), done=False)).endswith(b"data: [DONE]\n\n")


def test_an_interrupted_stream_ends_in_an_error_without_held_text() -> None:
    kind, out = fault(sse(say("decided text and held"), done=False))
    assert kind is ErrorKind.UPSTREAM_INTERRUPTED
    delivered, error = parse(out)
    assert joined([delivered])["content"] == "decided text and held"[:-HOLD]
    assert error == {
        "error": {
            "message": "The upstream ended the stream early.",
            "type": "server_error",
            "param": None,
            "code": "upstream_interrupted",
        }
    }


@pytest.mark.parametrize("size", [1, 10**9])
def test_choices_interleave_and_finish_on_their_own(size: int) -> None:
    chunks = [chunk(choice({"role": "assistant"}, index=each)) for each in (0, 1)]
    chunks += [say(letter, index=each) for letter in f"A {SECRET} text" for each in (1, 0)]
    out = stream(sse(*chunks, stop(index=1), stop("length")), prepared(n=2), size)
    for index, finish in enumerate(("length", "stop")):
        assert joined(out, index) == {"role": "assistant", "content": "A [SECRET] text", "finish": [finish]}


def test_a_block_ends_its_choice_and_no_other() -> None:
    data = sse(say(f"one {BLOCK} two"), say("more"), stop(), say("fine", index=1), stop("length", 1))
    out = stream(data, prepared(n=2))
    assert joined(out, 0) == {"content": "one ", "finish": ["content_filter"]}
    assert joined(out, 1) == {"content": "fine", "finish": ["length"]}


def test_a_block_of_the_only_choice_ends_the_stream_at_once() -> None:
    translator = opened(prepared(), RuleExchange())
    out = translator.receive(sse(say("one "), say(BLOCK), done=False))
    assert translator.finished
    assert out.endswith(b"data: [DONE]\n\n")
    assert joined(parse(out)) == {"content": "one ", "finish": ["content_filter"]}


def test_a_block_waits_for_choices_that_have_not_begun() -> None:
    translator = opened(prepared(n=2), RuleExchange())
    translator.receive(sse(say(BLOCK), done=False))
    assert not translator.finished
    out = translator.receive(sse(say("hello", index=1), stop(index=1), done=False))
    assert joined(parse(out), 1) == {"content": "hello", "finish": ["stop"]}
    assert translator.finished


@pytest.mark.parametrize("chunks", [(), (chunk(),), (chunk(choice({})),)], ids=["none", "no choice", "no text"])
def test_a_stream_without_a_finish_is_interrupted(chunks: Sequence[Json]) -> None:
    assert fault(sse(*chunks, done=False))[0] is ErrorKind.UPSTREAM_INTERRUPTED


USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


@pytest.mark.parametrize(
    "chunks",
    [
        (say("Hi"), stop(), chunk(usage=USAGE)),
        (say("Hi"), stop(usage=USAGE)),
        (say("Hi"), stop(), chunk(choice({"role": "assistant", "content": ""}), usage=USAGE)),
        (say("Hi") | {"usage": {**USAGE, "total_tokens": 1}}, stop() | {"usage": USAGE}),
        (say("Hi") | {"usage": USAGE}, stop()),
        (chunk(usage=USAGE), say("Hi"), stop()),
    ],
    ids=["own chunk", "finish chunk", "after finish", "continuous", "first", "before"],
)
def test_usage_is_kept_wherever_it_comes(chunks: Sequence[Json]) -> None:
    out = stream(sse(*chunks))
    assert [each["usage"] for each in out if "usage" in each] == [USAGE]
    assert joined(out) == {"content": "Hi", "finish": ["stop"]}


@pytest.mark.parametrize(
    ("reason", "written"),
    [
        *[(each, each) for each in ("stop", "length", "content_filter", "error", "abort")],
        ("eos", "stop"),
        (SECRET, "stop"),
        (7, "stop"),
        ("tool_calls", "stop"),
    ],
)
def test_finish_reasons_are_from_a_fixed_set(reason: object, written: str) -> None:
    assert joined(stream(sse(say("Hi"), stop(reason))))["finish"] == [written]


def test_a_stop_string_is_named_only_if_it_was_asked_for() -> None:
    data = sse(chunk(choice({"content": "Hi"}, "stop", stop_reason="END", matched_stop=SECRET)))
    assert b"END" not in raw_stream(data)
    out = raw_stream(data, prepared(stop=["END"]))
    assert b'"stop_reason":"END"' in out
    assert SECRET.encode() not in out


# --- what is stripped --------------------------------------------------------------------------------------------

CANARY = "canary-word"
MIRRORS: Json = {
    "logprobs": {"content": [{"token": CANARY, "bytes": list(CANARY.encode()), "top_logprobs": []}]},
    "text": CANARY,
    "token_id": 4711,
    "token_ids": [4711],
    "prompt_logprobs": [{"1": CANARY}],
    "prompt_text": CANARY,
    "provider_specific_fields": {"reasoning_content": CANARY},
    "annotations": [{"type": "url_citation", "url_citation": {"title": CANARY, "url": CANARY}}],
    "citations": [CANARY],
    "native_finish_reason": CANARY,
    "stop_reason": CANARY,
    "content_filter_results": {CANARY: CANARY},
    "__verbose": {"content": CANARY},
    "signature": CANARY,
    "data": CANARY,
    "obfuscation": CANARY,
    "images": [{"type": "image_url", "image_url": {"url": CANARY}}],
    "extra_content": {"google": {"thought_signature": CANARY}},
    "hidden_states": [[0.25]],
    CANARY: 1,
}


def objects(value: object) -> Iterator[Json]:
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(each)


RICH = [
    chunk(choice({"role": "assistant", "content": None})),
    chunk(
        choice(
            {
                "reasoning": "Thinking.",
                "reasoning_details": [{"type": "reasoning.text", "text": "Thinking.", "index": 0}],
            }
        )
    ),
    chunk(choice({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": " More."}]}]})),
    chunk(choice({"content": [{"type": "text", "text": "An answer."}]})),
    calls(call(0, "get_weather", "{}", "call_1")),
    stop("tool_calls", usage={**USAGE, "prompt_tokens_details": {"cached_tokens": 1}}),
]


def test_unknown_and_mirroring_keys_vanish_from_everywhere() -> None:
    spoiled = json.loads(json.dumps(RICH))
    for found in list(objects(spoiled)):
        found.update({name: value for name, value in MIRRORS.items() if name not in found})
    request = prepared(tools=TOOLS)
    out = raw_stream(sse(*spoiled), request)
    assert CANARY.encode() not in out
    assert b"4711" not in out
    assert parse(out) == stream(sse(*RICH), request)


def test_strings_in_place_of_numbers_and_enums_vanish() -> None:
    bad = "two words " + CANARY
    head = {"id": bad, "created": bad, "model": bad + "\n", "system_fingerprint": bad, "service_tier": [bad]}
    usage = {"prompt_tokens": bad, "prompt_tokens_details": {"cached_tokens": [bad]}, "completion_tokens": 1e300}
    data = sse(
        {**chunk(choice({"role": bad, "channel": bad, "content": "Hi"})), **head},
        {**chunk(choice({}, "stop")), **head, "usage": usage, "x_groq": {"id": bad}},
    )
    out = raw_stream(data)
    assert CANARY.encode() not in out
    assert [each.get("usage") for each in parse(out)] == [None, None]


def test_named_events_other_than_errors_are_dropped() -> None:
    extra = f"event: sglext_ids\ndata: {json.dumps(say(CANARY))}\n\n".encode()
    assert raw_stream(extra + sse(say("Hi"), extra_stop := stop()) + extra) == raw_stream(sse(say("Hi"), extra_stop))


def test_the_envelope_is_the_first_good_one() -> None:
    empty = {"id": "", "model": "", "created": 0, "object": "", "choices": []}
    out = stream(
        sse(empty, say("Hi"), {**say(" you"), "id": "chatcmpl-2", "created": 18}, {**stop(), "object": "x.done"})
    )
    heads = {(each["id"], each["model"], each["created"], each["object"]) for each in out}
    assert heads == {("chatcmpl-1", "m", 17, "chat.completion.chunk")}


# --- copies and parts ----------------------------------------------------------------------------------------------


def details(text: str, **more: object) -> Json:
    return {"type": "reasoning.text", "text": text, "index": 0, "format": "anthropic-claude-v1", **more}


def test_copies_of_a_text_follow_its_decisions() -> None:
    chunks = [
        chunk(choice({"content": "", "reasoning": each, "reasoning_details": [details(each)]}))
        for each in ("My ", "s3cr", "3t! is ", "out.")
    ]
    exchange = RuleExchange()
    translator = opened(prepared(), exchange)
    out = parse(translator.receive(sse(*chunks, stop())))
    assert list(exchange.made[0].kinds) == [("reasoning",)]
    for each in out[1:-1]:
        (written,) = each["choices"]
        delta = written["delta"]
        assert delta["reasoning_details"] == [details(delta["reasoning"])]
    assert joined(out)["reasoning"] == "My [SECRET] is out."


def test_a_field_that_differs_is_moderated_apart_from_then_on() -> None:
    chunks = [
        chunk(choice({"reasoning": mine, "reasoning_details": [details(other)]}))
        for mine, other in (("One ", "One "), ("two ", "zwei s3c"), ("three", "three"), (" four", "r3t! vier"))
    ]
    out = joined(stream(sse(*chunks, stop())))
    assert out["reasoning"] == "One two three four"
    parts = out["reasoning_details"]
    assert "".join(each["text"] for each in parts).endswith("zwei s3cthreer3t! vier")


def test_neither_version_of_a_text_hides_in_the_other() -> None:
    data = sse(chunk(choice({"reasoning": "nothing", "reasoning_content": f"a {SECRET} b"})), stop())
    out = joined(stream(data))
    assert out["reasoning"] == "nothing"
    assert out["reasoning_content"] == "a [SECRET] b"


@pytest.mark.parametrize("size", [1, 10**9])
def test_content_may_switch_between_string_and_parts(size: int) -> None:
    data = sse(
        chunk(choice({"role": "assistant", "content": ""})),
        chunk(choice({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm s3c"}]}]})),
        chunk(
            choice({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "r3t!."}], "closed": True}]})
        ),
        chunk(choice({"content": [{"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "So "}]})),
        say("be it"),
        stop(),
    )
    thinking, answer = "", ""
    for each in stream(data, size=size):
        for one in each["choices"]:
            content = one["delta"].get("content") or ""
            parts: list[Json] = content if isinstance(content, list) else [{"type": "text", "text": content}]
            for part in parts:
                answer += part["text"] if part["type"] == "text" else ""
                thinking += "".join(inner["text"] for inner in part.get("thinking", ()))
    assert (thinking, answer) == ("Hm [SECRET].", "So be it")


def test_other_texts_of_the_table_are_moderated() -> None:
    parts: Json = {
        "refusal": f"I can't. {SECRET}",
        "audio": {"id": "audio_1", "data": "UklGRg==", "transcript": f"Said {SECRET}"},
        "thinking_blocks": [{"type": "thinking", "thinking": f"Block {SECRET}", "signature": "c2ln"}],
        "reasoning_items": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": f"Sum {SECRET}"}]}],
    }
    found = joined(stream(sse(chunk(choice(parts)), stop())))
    assert found["refusal"] == "I can't. [SECRET]"
    assert found["audio"] == {"transcript": "Said [SECRET]"}
    blocks, items = found["thinking_blocks"], found["reasoning_items"]
    assert "".join(each["thinking"] for each in blocks) == "Block [SECRET]"
    assert "".join(each["summary"][0]["text"] for each in items) == "Sum [SECRET]"
    assert all(each.keys() == {"type", "thinking"} for each in blocks)


# --- tool calls ----------------------------------------------------------------------------------------------------


def tool_calls(*chunks: Json, finish: str = "tool_calls") -> Json:
    return joined(stream(sse(*chunks, stop(finish)), prepared(tools=TOOLS)))


def test_tool_calls_keep_head_order_and_arguments() -> None:
    chunks = [calls(call(0, "get_weather", "", "call_a"))]
    chunks += [calls(call(0, arguments=each)) for each in ('{"ci', 'ty": "', "Ber", 'n"}')]
    chunks += [calls(call(1, "get_time", "{}", "call_b"))]
    assert tool_calls(*chunks) == {
        "tool_calls": {
            0: {
                "index": 0,
                "id": "call_a",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city": "Bern"}'},
            },
            1: {
                "index": 1,
                "id": "call_b",
                "type": "function",
                "function": {"name": "get_time", "arguments": "{}"},
            },
        },
        "finish": ["tool_calls"],
    }


def test_a_call_without_arguments_is_announced() -> None:
    found = tool_calls(calls(call(0, "get_time", None, "call_a")))
    assert found["tool_calls"] == {
        0: {"index": 0, "id": "call_a", "type": "function", "function": {"name": "get_time", "arguments": ""}}
    }


def test_undeclared_calls_are_dropped_and_the_rest_numbered_anew() -> None:
    found = tool_calls(
        calls(call(0, SECRET, "", "call_a")),
        calls(call(0, arguments=SECRET)),
        calls(call(1, "get_time", "", "call_b"), call(0, arguments=SECRET)),
        calls(call(1, arguments="{}")),
    )
    assert SECRET not in json.dumps(found)
    assert found["tool_calls"] == {
        0: {"index": 0, "id": "call_b", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    }
    assert found["finish"] == ["tool_calls"]


@pytest.mark.parametrize("reason", ["tool_calls", "function_call"])
def test_with_no_call_left_the_finish_reason_is_stop(reason: str) -> None:
    assert tool_calls(calls(call(0, "rm_rf", "{}", "call_a")), finish=reason) == {"finish": ["stop"]}


def test_a_name_in_pieces_is_held_until_it_is_declared() -> None:
    chunks = [calls(call(0, "get_", None, "call_a")), calls(call(0, "time", None)), calls(call(0, None, "{}"))]
    assert stream(sse(chunks[0]), prepared(tools=TOOLS)) == []
    found = tool_calls(*chunks)["tool_calls"]
    assert found[0]["function"] == {"name": "get_time", "arguments": "{}"}


def test_a_name_that_is_unfinished_when_arguments_begin_drops_its_call() -> None:
    chunks = [calls(call(0, "get_", None, "call_a")), calls(call(0, None, "{")), calls(call(0, "time", "}"))]
    assert tool_calls(*chunks) == {"finish": ["stop"]}


def test_a_name_that_changes_is_a_fault_and_a_repeated_one_is_not() -> None:
    request = prepared(tools=TOOLS)
    first = calls(call(0, "get_time", "", "call_a"))
    assert tool_calls(first, calls(call(0, "get_time", "{}")))["finish"] == ["tool_calls"]
    kind, out = fault(sse(first, calls(call(0, SECRET, "{}"))), request)
    assert kind is ErrorKind.UPSTREAM_INVALID
    assert SECRET.encode() not in out


def test_calls_under_one_index_are_told_apart_by_their_ids() -> None:
    found = tool_calls(calls(call(0, "get_time", "{}", "call_a")), calls(call(0, "get_weather", '{"a":1}', "call_b")))
    calls_found = found["tool_calls"]
    assert [each["function"]["arguments"] for each in calls_found.values()] == ["{}", '{"a":1}']


def test_custom_and_legacy_calls() -> None:
    custom = {"index": 0, "id": "call_a", "type": "custom", "custom": {"name": "shell", "input": f"ls {SECRET}"}}
    legacy = [{"name": "get_time", "arguments": ""}, {"arguments": '{"a":'}, {"arguments": "1}"}]
    found = tool_calls(calls(custom))["tool_calls"]
    assert found == {0: {**custom, "custom": {"name": "shell", "input": "ls [SECRET]"}}}
    chunks = [chunk(choice({"function_call": each})) for each in legacy]
    assert tool_calls(*chunks, finish="function_call") == {
        "function_call": {"name": "get_time", "arguments": '{"a":1}'},
        "finish": ["function_call"],
    }


def test_views_fit_the_texts() -> None:
    exchange = RuleExchange()
    translator = opened(prepared(tools=TOOLS), exchange)
    translator.receive(sse(*RICH[1:4], done=False))
    custom = {"index": 1, "id": "call_b", "type": "custom", "custom": {"name": "shell", "input": "x"}}
    translator.receive(sse(calls(call(0, "get_time", "{}", "call_a"), custom), done=False))
    assert exchange.made[0].kinds == {
        ("reasoning",): "PlainView",
        ("content",): "MarkerView",
        ("tool", 0): "JsonView",
        ("tool", 1): "PlainView",
    }


def test_a_blocked_call_never_ends_as_a_call() -> None:
    found = tool_calls(calls(call(0, "get_time", '{"a": "', "call_a")), calls(call(0, arguments=f'{BLOCK}"}}')))
    assert found["finish"] == ["content_filter"]
    assert BLOCK not in json.dumps(found)


# --- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (
            {"message": SECRET, "type": "server_error", "code": "rate_limit_exceeded"},
            "server_error",
            "rate_limit_exceeded",
        ),
        ({"message": SECRET, "code": 502, "metadata": {"raw": SECRET}}, "upstream_error", 502),
        ({"message": "m", "type": SECRET, "code": SECRET, "failed_generation": SECRET}, "upstream_error", None),
        (SECRET, "upstream_error", None),
        ({"type": [SECRET], "code": True}, "upstream_error", None),
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_an_error_is_rebuilt_from_type_and_code(error: object, kind: str, code: object, named: bool) -> None:
    data = sse(say("Hi"), done=False) + b"event: error\n" * named + sse({**stop(), "error": error})
    found, out = fault(data)
    assert found is ErrorKind.UPSTREAM_ERROR
    message = "The upstream reported an error."
    assert parse(out)[-1] == {"error": {"message": message, "type": kind, "param": None, "code": code}}
    assert SECRET.encode() not in out
    assert b"[DONE]" not in out


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '"text"',
        "null",
        json.dumps({"choices": "x"}),
        json.dumps({"choices": ["x"]}),
        json.dumps(chunk({"index": 0, "delta": "x"})),
        json.dumps(chunk({"index": "0", "delta": {}})),
        json.dumps(chunk({"index": True, "delta": {}})),
        json.dumps(chunk(choice({}, index=1))),
        json.dumps(chunk(choice({}, index=-1))),
        json.dumps(say(7)),
        json.dumps(say({"text": "x"})),
        json.dumps(say(["x"])),
        json.dumps(say(True, "reasoning")),
        json.dumps(say("x", "reasoning_details")),
        json.dumps(say([{"type": "text", "text": 7}])),
        json.dumps(say("x", "tool_calls")),
        json.dumps(say(["x"], "tool_calls")),
        json.dumps(say("x", "function_call")),
        json.dumps(say([{"index": 0, "function": {"name": "get_time", "arguments": {}}}], "tool_calls")),
        json.dumps(say([{"index": 0, "function": "x"}], "tool_calls")),
    ],
)
def test_what_cannot_be_read_fails_closed(line: str) -> None:
    good = sse(say("decided text and held"), done=False)
    for start in (good, good * 2):
        kind, out = fault(start + f"data: {line}\n\n".encode() + sse(stop()), prepared(tools=TOOLS))
        assert kind is ErrorKind.UPSTREAM_INVALID
        assert b"[DONE]" not in out
        assert parse(out)[-1]["error"]["code"] == "upstream_invalid"
        delivered = joined(parse(out)[:-1])["content"]
        assert ("decided text and held" * 2).startswith(delivered)


def test_keep_alive_is_a_comment() -> None:
    assert opened(prepared(), RuleExchange()).keep_alive().startswith(b":")


# --- whole bodies --------------------------------------------------------------------------------------------------


def whole(*choices: Json, request: Prepared | None = None, **more: object) -> Json:
    response = {"id": "chatcmpl-1", "object": "chat.completion", "created": 17, "model": "m", "choices": list(choices)}
    found: Json = json.loads(DIALECT.body(json.dumps(response | more).encode(), request or prepared(), RuleExchange()))
    return found


def answer(message: Json, finish: str = "stop", index: int = 0) -> Json:
    return {"index": index, "message": message, "finish_reason": finish}


def test_a_body_goes_through_the_same_channels() -> None:
    message: Json = {
        "role": "assistant",
        "content": f"It is {SECRET}.",
        "refusal": None,
        "annotations": [],
        "reasoning": f"Think {SECRET}",
        "reasoning_details": [{"type": "reasoning.summary", "summary": f"Think {SECRET}", "index": 0}],
        "logprobs": {"content": [{"token": SECRET}]},
    }
    assert whole(answer(message), usage=USAGE, service_tier="default", citations=[SECRET]) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 17,
        "model": "m",
        "service_tier": "default",
        "choices": [
            answer(
                {
                    "role": "assistant",
                    "content": "It is [SECRET].",
                    "refusal": None,
                    "reasoning": "Think [SECRET]",
                    "reasoning_details": [{"type": "reasoning.summary", "summary": "Think [SECRET]", "index": 0}],
                }
            )
        ],
        "usage": USAGE,
    }


def test_a_body_keeps_lists_of_parts_and_calls() -> None:
    item = {
        "id": "call_a",
        "type": "function",
        "function": {"name": "get_time", "arguments": '{"zone": "Europe/Bern"}'},
    }
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Long enough to be released."}]},
        {"type": "text", "text": "And an answer."},
    ]
    message: Json = {"role": "assistant", "content": parts, "tool_calls": [item, {**item, "id": "call_b"}]}
    found = whole(answer(message, "tool_calls"), request=prepared(tools=TOOLS))["choices"]
    assert found[0]["message"]["tool_calls"] == message["tool_calls"]
    assert found[0]["finish_reason"] == "tool_calls"
    written = found[0]["message"]["content"]
    assert "".join(part["text"] for part in written if part["type"] == "text") == "And an answer."
    thoughts = [part["thinking"][0]["text"] for part in written if part["type"] == "thinking"]
    assert "".join(thoughts) == "Long enough to be released."


def test_a_blocked_body_has_no_calls() -> None:
    item = {"id": "call_a", "type": "function", "function": {"name": "get_time", "arguments": f'{{"a": "{BLOCK}"}}'}}
    message: Json = {"role": "assistant", "content": "Hello", "tool_calls": [item]}
    found = whole(answer(message, "tool_calls"), request=prepared(tools=TOOLS))["choices"]
    assert found[0]["finish_reason"] == "content_filter"
    assert "tool_calls" not in found[0]["message"]


def test_choices_of_a_body_are_separate() -> None:
    found = whole(
        answer({"role": "assistant", "content": "second"}, index=1),
        answer({"role": "assistant", "content": BLOCK}),
        request=prepared(n=2),
    )["choices"]
    assert found == [
        answer({"role": "assistant", "content": "second"}, index=1),
        answer({"role": "assistant"}, "content_filter"),
    ]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"{", ErrorKind.UPSTREAM_INVALID),
        (b"[]", ErrorKind.UPSTREAM_INVALID),
        (b"{}", ErrorKind.UPSTREAM_INVALID),
        (b'{"choices": [{"index": 0}]}', ErrorKind.UPSTREAM_INVALID),
        (b'{"choices": [{"index": 1, "message": {}}]}', ErrorKind.UPSTREAM_INVALID),
        (b'{"choices": [{"message": {"content": 5}}]}', ErrorKind.UPSTREAM_INVALID),
        (b'{"choices": [{"message": {}}, {"message": {}}]}', ErrorKind.UPSTREAM_INVALID),
        (b'{"choices": [], "error": {"message": "x"}}', ErrorKind.UPSTREAM_ERROR),
    ],
)
def test_a_body_that_cannot_be_read_fails_closed(data: bytes, kind: ErrorKind) -> None:
    with pytest.raises(UpstreamFault) as raised:
        DIALECT.body(data, prepared(), RuleExchange())
    assert raised.value.kind is kind


def test_a_repeated_choice_index_fails_closed() -> None:
    with pytest.raises(UpstreamFault):
        whole(answer({"content": "a"}), answer({"content": "b"}), request=prepared(n=2))


# --- requests ------------------------------------------------------------------------------------------------------


def refused(body: object) -> Refused:
    with pytest.raises(Refused) as raised:
        ask(DIALECT, "chat", body)
    assert raised.value.status == 400
    return raised.value


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], ""),
        ([{"role": "system", "content": "Be kind."}], ""),
        ([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}, {"role": "tool"}], "Hi"),
        ([{"role": "user", "content": "Hi"}, {"role": "user", "content": "Hey"}], "Hey"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}, {"text": "b"}]}], "a\nb"),
        ([{"role": "user", "content": None}], ""),
    ],
)
def test_the_last_user_message(messages: list[dict[str, object]], expected: str) -> None:
    assert prepared(messages=messages).facts.user == expected


def test_a_request_is_read_for_what_the_response_needs() -> None:
    found = prepared(
        messages=[
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hello"},
            {"role": "developer", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}, {}]},
        ],
        tools=TOOLS,
        functions=[{"name": "old"}],
        stop=["END", 7],
        n=3,
        stream_options={"include_usage": True},
    )
    assert found.model == "m"
    assert found.stream
    assert found.facts == RequestFacts(("Be kind.", "Be\nbrief."), "Hello")
    assert found.tools == {"get_weather", "get_time", "shell", "old"}
    assert found.stops == {"END"}
    assert found.choices == 3
    assert found.usage_requested
    assert "Be kind" not in repr(found)


def test_unknown_fields_pass_and_switches_that_leak_do_not() -> None:
    kept = {"model": "m", "messages": [{"role": "user", "content": "é"}], "temperature": 0.5, "x_new": {"a": [1]}}
    switches: Json = {"logprobs": True, "top_logprobs": 5, "return_token_ids": True, "echo": True, "store": True}
    assert ask(DIALECT, "chat", kept | switches).document == kept


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"include_usage": True, "include_obfuscation": True}, {"include_usage": True, "include_obfuscation": False}),
        ({"include_usage": False}, {"include_usage": False}),
        ({"unknown": 1}, None),
        (None, None),
    ],
)
def test_stream_options_are_rebuilt(options: object, kept: object) -> None:
    assert prepared(stream_options=options).document.get("stream_options") == kept


@pytest.mark.parametrize(
    "fields",
    [
        {"api_base": "http://evil"},
        {"base_url": "http://evil"},
        {"provider": {"order": ["x"]}},
        {"extra_body": {"echo": True}},
        {"modalities": ["text", "audio"]},
        {"audio": {"voice": "x"}},
        {"input_ids": [1]},
    ],
)
def test_what_changes_who_answers_or_how_is_unsupported(fields: Json) -> None:
    found = refused({"model": "m", "messages": [], **fields})
    assert found.kind is ErrorKind.UNSUPPORTED
    assert "evil" not in found.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        {"stream": "true"},
        {"model": 5},
        {"messages": {}},
        {"messages": ["x"]},
        {"tools": {}},
        {"tools": ["x"]},
        {"n": 0},
        {"n": MAX_CHOICES + 1},
        {"n": True},
        {"n": "2"},
        {"stream": True, "stream_options": []},
        {"stream": True, "stream_options": {"include_usage": "yes"}},
    ],
)
def test_what_is_no_request_is_a_bad_request(body: object) -> None:
    assert refused(body).kind is ErrorKind.BAD_REQUEST


# --- errors --------------------------------------------------------------------------------------------------------


def test_errors_have_the_shape_sdks_expect() -> None:
    assert json.loads(DIALECT.error(ErrorKind.NOT_FOUND, "No such path.")) == {
        "error": {"message": "No such path.", "type": "invalid_request_error", "param": None, "code": "not_found"}
    }


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>" + SECRET.encode(), json.dumps({"error": {"message": SECRET, "type": SECRET}}).encode(), b"[1]"],
)
def test_an_upstream_error_body_is_never_copied(data: bytes) -> None:
    assert json.loads(DIALECT.upstream_error(429, data)) == {
        "error": {
            "message": "The upstream answered with status 429.",
            "type": "upstream_error",
            "param": None,
            "code": None,
        }
    }


def test_an_upstream_error_keeps_known_types_and_codes() -> None:
    body = {"error": {"message": SECRET, "type": "invalid_request_error", "code": "context_length_exceeded"}}
    found = json.loads(DIALECT.upstream_error(400, json.dumps(body).encode()))["error"]
    assert (found["type"], found["code"]) == ("invalid_request_error", "context_length_exceeded")


# --- the table -----------------------------------------------------------------------------------------------------


def shipped() -> Json:
    table = yaml.safe_load(files("cotguard.dialects").joinpath("chat/chat_completions.yaml").read_text("utf-8"))
    assert isinstance(table, dict)
    return table


def with_rows(section: str, **rows: object) -> str:
    table = shipped()
    found = table[section]
    found.update({path.replace("__", "."): meaning for path, meaning in rows.items()})
    return yaml.safe_dump(table, sort_keys=False)


def test_a_provider_with_new_fields_is_new_rows() -> None:
    dialect = ChatCompletions(with_rows("message", musings="reasoning", hints__queries="other", hints__count="number"))
    data = sse(
        chunk(choice({"musings": f"Let me see {SECRET}", "hints": {"count": 2, "queries": f"about {SECRET}"}})),
        stop(),
    )
    exchange = RuleExchange()
    out = joined(parse(opened(prepared(), exchange, dialect).receive(data)))
    assert out["musings"] == "Let me see [SECRET]"
    assert out["hints"] == {"count": 2, "queries": "about [SECRET]"}
    assert list(exchange.made[0].kinds) == [("reasoning",), ("other", "hints")]
    assert b"musings" not in raw_stream(data)
    assert b"hints" not in raw_stream(data)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({"musings": "thoughts"}, "message: musings: 'thoughts' is neither"),
        ({"a..b": "reasoning"}, "message: 'a..b' is not a path"),
        ({"a[b": "reasoning"}, "message: 'a\\[b' is not a path"),
        ({"a[][]": "reasoning"}, "is not a path"),
    ],
)
def test_a_bad_row_is_named(rows: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ChatCompletions(with_rows("message", **rows))


@pytest.mark.parametrize("text", ["[]", "enums: {}", "enums: {role: user}", "enums: []"])
def test_a_table_without_its_sections_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"section|list of names"):
        ChatCompletions(text)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("id", ["chatcmpl-1", "call_0:a.b", "x" * 96], ["", "a b", "-a", "x" * 97, "é", "a\n", "\0", 5, None]),
        ("model", ["openai/gpt-oss:20b", "a b@1"], ["", "a\nb", "\0", "<x>", ["a"]]),
        ("word", ["fp_1", "default"], ["", "a b", "a:b", None, "x" * 65]),
        ("number", [0, -1.5, 2**53, None], [True, "1", 2**53 + 2, float("inf"), float("nan"), [1]]),
        ("boolean", [True, False], [0, "true", None]),
        ("index", [0, 1023], [-1, 1024, True, 1.0, "0", None]),
        ("name", ["anything at all"], ["x" * 257, None, {}]),
    ],
)
def test_checks(name: str, good: Sequence[object], bad: Sequence[object]) -> None:
    assert [CHECKS[name](each) for each in (*good, *bad)] == [True] * len(good) + [False] * len(bad)


def test_a_typed_item_has_its_own_rows_and_the_general_ones() -> None:
    table = Table("enums: {}\nrows: {'a[x].t': text, 'a[].n': number, 'a[y].u': text}", ["text"])
    items = [
        {"type": "x", "t": "one", "n": 1, "u": "no"},
        {"type": "y", "u": "two"},
        {"type": "z", "t": "no"},
        {"n": 1},
    ]
    found = table.shape("rows").read({"a": items, "b": "no"})
    assert found.structure == found.empties == {}
    assert [(each.text, each.path, each.fragment) for each in found.places] == [
        ("one", ("a", 0, "t"), {"a": [{"type": "x", "n": 1, "t": "\0"}]}),
        ("two", ("a", 1, "u"), {"a": [{"type": "y", "u": "\0"}]}),
    ]
