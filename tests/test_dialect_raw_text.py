"""What holds for every form of raw text: completions, llama.cpp, TGI, SGLang with either kind of stream."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from dialect_kit import CANARY, ask, body, exchange, policy, shadow, spellings, spoil, stream
from planted import PLANTED, carried
from raw_text_kit import FORMS, Form, cuts, events, sse

from cotguard.detectors.contract import Detector
from cotguard.dialects.contract import CUT_NOTICE, UpstreamFault
from cotguard.policy import Policy, parse

Moderation = tuple[Policy, tuple[Detector, ...]]
EACH = pytest.mark.parametrize("form", FORMS, ids=[form.name for form in FORMS])
SEVERAL = pytest.mark.parametrize("form", [form for form in FORMS if form.name != "tgi"], ids=lambda form: form.name)
TEXT = "".join(f"{carried(planted)} " for planted in PLANTED)
MODERATED = "".join(planted.carrier.format(f"[{planted.entity}]") + " " for planted in PLANTED)
SHORT = "She is ann.lee@example.com, so I write to her. Card 4111 1111 1111 1111 it is."
SHORT_MODERATED = "She is [EMAIL_ADDRESS], so I write to her. Card [CREDIT_CARD] it is."


def said(form: Form, text: str, seed: int = 1, index: int = 0) -> list[tuple[int, str]]:
    return [(index, piece) for piece in cuts(text, seed)]


def moderated(
    form: Form, pieces: Sequence[tuple[int, str]], moderation: Moderation, choices: int = 1, size: int = 10**9
) -> bytes:
    return stream(form.dialect, form.prepared(choices), moderation, form.stream(pieces), size=size)


@EACH
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_planted_values_in_a_stream(form: Form, balanced: Moderation, seed: int) -> None:
    out = moderated(form, said(form, TEXT, seed), balanced)
    assert form.joined(out)[0] == MODERATED
    assert not [planted.value for planted in PLANTED if planted.value.encode() in out]


@EACH
def test_planted_values_in_a_whole_body(form: Form, balanced: Moderation) -> None:
    data = json.dumps(form.whole([TEXT])).encode()
    out = body(form.dialect, form.prepared(streamed=False), balanced, data)
    assert form.read_whole(json.loads(out))[0] == MODERATED
    assert not [planted.value for planted in PLANTED if planted.value.encode() in out]


@EACH
@pytest.mark.parametrize("size", [1, 7, 64, 997])
def test_the_cut_of_the_bytes_does_not_matter(form: Form, balanced: Moderation, size: int) -> None:
    pieces = said(form, SHORT)
    out = moderated(form, pieces, balanced, size=size)
    states = list(form.states(out))
    assert states[-1][0] == SHORT_MODERATED
    assert all(SHORT_MODERATED.startswith(state.get(0, "")) for state in states)
    whole = moderated(form, pieces, balanced)
    assert form.joined(whole) == states[-1]
    assert form.reasons(events(whole)) == form.reasons(events(out)) != []


@EACH
def test_what_alters_nothing_changes_nothing(form: Form, balanced: Moderation) -> None:
    pieces = said(form, SHORT)
    for moderation in (shadow(), shadow(balanced[1])):
        out = moderated(form, pieces, moderation)
        assert form.joined(out) == {0: SHORT}
        assert form.reasons(events(out)) == form.reasons(form.documents(pieces))
        data = form.whole([SHORT])
        written = json.loads(body(form.dialect, form.prepared(streamed=False), moderation, json.dumps(data).encode()))
        assert form.read_whole(written) == {0: SHORT}


@SEVERAL
def test_choices_that_interleave_keep_apart(form: Form, balanced: Moderation) -> None:
    ours, theirs = said(form, SHORT, 1, 0), said(form, "At 4111 " + SHORT, 2, 1)
    pieces = [each for pair in zip(ours, theirs, strict=False) for each in pair]
    pieces += [*ours[len(theirs) :], *theirs[len(ours) :]]
    expected = {0: SHORT_MODERATED, 1: "At 4111 " + SHORT_MODERATED}
    assert form.joined(moderated(form, pieces, balanced, 2)) == expected
    data = json.dumps(form.whole([SHORT, "At 4111 " + SHORT])).encode()
    assert form.read_whole(json.loads(body(form.dialect, form.prepared(2), balanced, data))) == expected


@SEVERAL
def test_a_choice_that_was_not_asked_for(form: Form) -> None:
    out = moderated(form, [(0, "a b c "), (1, "d e f ")], shadow())
    assert b"d e f" not in out
    assert "error" in events(out)[-1]
    with pytest.raises(UpstreamFault):
        body(form.dialect, form.prepared(), shadow(), json.dumps(form.whole(["a", "b"])).encode())


@EACH
@pytest.mark.parametrize("size", [1, 10**9])
def test_a_known_value_appears_in_no_spelling(form: Form, size: int) -> None:
    out = moderated(form, said(form, "it was the wombat who did it"), policy("redact", "wombat"), size=size)
    whole = json.dumps(form.whole(["it was the wombat who did it"])).encode()
    out += body(form.dialect, form.prepared(streamed=False), policy("redact", "wombat"), whole)
    assert not [each for each in spellings("wombat") if each in out]
    assert b"[KNOWN_VALUE]" in out


@EACH
def test_unknown_fields_vanish(form: Form, balanced: Moderation) -> None:
    documents = form.documents(said(form, SHORT))
    spoiled = sse([spoil(each) for each in documents], done=form.done)
    out = stream(form.dialect, form.prepared(), balanced, spoiled)
    assert CANARY.encode() not in out
    assert events(out) == events(stream(form.dialect, form.prepared(), balanced, sse(documents, done=form.done)))
    data = form.whole([SHORT])
    written = body(form.dialect, form.prepared(), balanced, json.dumps(spoil(data)).encode())
    assert written == body(form.dialect, form.prepared(), balanced, json.dumps(data).encode())


def plant(value: Any, path: Sequence[str]) -> Any:
    """The value with the canary at the path, in the place of what is there."""
    step, *rest = path
    planted = CANARY if not rest else None
    if step == "0":
        items = value if isinstance(value, list) else []
        first = items[0] if items else {}
        return [planted or plant(first, rest), *items[1:]]
    fields = value if isinstance(value, dict) else {}
    return {**fields, step: planted or plant(fields.get(step), rest)}


MIRRORS = [pytest.param(form, path, id=f"{form.name}-{path}") for form in FORMS for path in form.mirrors]


@pytest.mark.parametrize(("form", "path"), MIRRORS)
def test_copies_vanish(form: Form, path: str) -> None:
    """In every event and in the whole body; the client sees what it saw without them."""
    documents = form.documents([(0, "one "), (0, "two "), (0, "three")])
    lasting = [each for each in documents if not path.startswith("choices") or each["choices"]]
    final = path == "stop_type" or "finish_reason" in path or path.startswith("details")
    spoiled = [
        plant(each, path.split(".")) if each in lasting and (each is documents[-1] or not final) else each
        for each in documents
    ]
    out = stream(form.dialect, form.prepared(), shadow(), sse(spoiled, done=form.done))
    assert CANARY.encode() not in out
    assert form.joined(out) == {0: "one two three"}
    data = json.dumps(plant(form.whole(["one two three"]), path.split("."))).encode()
    written = body(form.dialect, form.prepared(), shadow(), data)
    assert CANARY.encode() not in written
    assert form.read_whole(json.loads(written)) == {0: "one two three"}


@EACH
def test_what_is_around_events_vanishes(form: Form) -> None:
    data = form.stream([(0, "one "), (0, "two "), (0, "three")])
    noise = f": {CANARY}\nid: {CANARY}\nretry: {CANARY}\n\n"
    named = f'event: sglext_ids\ndata: {{"{CANARY}": "{CANARY}"}}\n\n'
    out = stream(form.dialect, form.prepared(), shadow(), (noise + named).encode() + data + (named + noise).encode())
    assert CANARY.encode() not in out
    assert form.joined(out) == {0: "one two three"}


BLOCKED = {
    "completions": "content_filter",
    "llamacpp": "none",
    "tgi": "stop_sequence",
    "sglang": "abort",
    "sglang-incremental": "abort",
}


@EACH
@pytest.mark.parametrize("size", [1, 10**9])
def test_a_block_ends_the_choice(form: Form, size: int) -> None:
    text = "so ann.lee@example.com is at home"
    notice = CUT_NOTICE if form.name in ("llamacpp", "tgi") else ""
    out = moderated(form, said(form, text), policy("block"), size=size)
    assert form.joined(out) == {0: "so " + notice}
    assert form.reasons(events(out)) == [BLOCKED[form.name]]
    assert out.endswith(b"data: [DONE]\n\n") is form.done
    data = json.dumps(form.whole([text])).encode()
    written = json.loads(body(form.dialect, form.prepared(), policy("block"), data))
    assert form.read_whole(written) == {0: "so " + notice}
    assert CUT_NOTICE in json.dumps(written) or form.name == "completions"


@SEVERAL
def test_a_block_leaves_other_choices_alone(form: Form) -> None:
    pieces = [(0, "so ann.lee@exa"), (1, "this is "), (0, "mple.com is"), (1, "all there is"), (0, " not")]
    notice = CUT_NOTICE if form.name == "llamacpp" else ""
    out = moderated(form, pieces, policy("block"), 2)
    assert form.joined(out) == {0: "so " + notice, 1: "this is all there is"}
    usual = {"completions": "length", "llamacpp": "limit"}.get(form.name, "length")
    assert form.reasons(events(out)) == [BLOCKED[form.name], usual]


@EACH
def test_withheld_text(form: Form) -> None:
    out = moderated(form, said(form, "so ann.lee@example.com is at home"), policy("withhold"))
    joined = form.joined(out)[0]
    assert joined.startswith("so ")
    assert "ann" not in joined
    assert "home" not in joined
    assert form.reasons(events(out)) == form.reasons(form.documents([(0, "x")]))


@EACH
@pytest.mark.parametrize("size", [1, 10**9])
def test_faults_end_the_stream_with_an_error(form: Form, balanced: Moderation, size: int) -> None:
    documents = form.documents(said(form, "so it goes on and on. 4111 1111 11"))
    begun = [each for each in documents if not form.reasons([each])]
    reported = {"error": {"message": CANARY, "type": CANARY, "failed_generation": CANARY}, "error_type": CANARY}
    for end in (b"data: {nonsense\n\n", sse([reported]), b"data: [1]\n\n", b"data: \xff\n\n", b""):
        out = stream(form.dialect, form.prepared(), balanced, sse(begun[:-1]) + end, size=size)
        assert b"4111" not in out
        assert CANARY.encode() not in out
        assert form.joined(out) == {0: "so it goes on and on. "}
        assert events(out)[-1]["error"]
        assert not form.reasons(events(out))


@EACH
def test_another_form_is_no_answer(form: Form) -> None:
    """What an event or a body of another form would hold for the client is not known."""
    for other in FORMS:
        if other.name.partition("-")[0] != form.name.partition("-")[0]:
            out = stream(form.dialect, form.prepared(), shadow(), other.stream([(0, "one "), (0, "two")]))
            assert not [each for each in spellings("one ") if each in out]
            with pytest.raises(UpstreamFault):
                body(form.dialect, form.prepared(), shadow(), json.dumps(other.whole(["one"])).encode())


@EACH
@pytest.mark.parametrize("data", [b"{", b"[]", b"null", b'"x"', b"[1]", b"{}"])
def test_a_body_that_is_none(form: Form, data: bytes) -> None:
    with pytest.raises(UpstreamFault):
        body(form.dialect, form.prepared(), shadow(), data)


REASONING_ONLY = """\
version: 1
name: t
classifier: false
rules:
  - entities: [EMAIL_ADDRESS]
    channels: [reasoning]
    action: redact
default: allow
"""


@EACH
@pytest.mark.parametrize(
    ("prompt", "text", "expected"),
    [
        (
            "Hello",
            "<think>a@example.com, so</think>Ask b@example.com",
            "<think>[EMAIL_ADDRESS], so</think>Ask b@example.com",
        ),
        (
            "Hello <think>\n",
            "a@example.com, so</think>Ask b@example.com",
            "[EMAIL_ADDRESS], so</think>Ask b@example.com",
        ),
        ("<think>x</think>Hello", "a@example.com and b@example.com", "a@example.com and b@example.com"),
    ],
)
def test_a_prompt_may_leave_a_thought_open(
    form: Form, balanced: Moderation, prompt: str, text: str, expected: str
) -> None:
    request = form.request(1, streamed=True)
    name = next(name for name in ("prompt", "inputs", "text") if name in request)
    reasoning = parse(REASONING_ONLY, "t.yaml", None), balanced[1]
    prepared = ask(form.dialect, form.action, {**request, name: prompt})
    out = stream(form.dialect, prepared, reasoning, form.stream(said(form, text)))
    assert form.joined(out) == {0: expected}


@EACH
def test_nothing_is_read_after_the_end(form: Form) -> None:
    pieces = [(0, "one "), (0, "two")]
    later = form.stream([(0, CANARY)])
    translator = form.dialect.stream(form.prepared(), exchange(shadow()), "text/event-stream")
    assert translator is not None
    out = translator.receive(form.stream(pieces) + later) + translator.end()
    assert CANARY.encode() not in out
    assert form.joined(out) == {0: "one two"}
    assert translator.finished


@EACH
def test_only_event_streams_are_streams(form: Form) -> None:
    for content_type in ("application/json", "application/x-ndjson", "text/plain"):
        assert form.dialect.stream(form.prepared(), exchange(shadow()), content_type) is None
