"""Audio transcriptions: forms in, streams and documents out, as the official SDK reads them; cuts and faults."""

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any

import aiohttp
import httpx2
import openai
import pytest
from aiohttp import web
from conftest import ProxyFactory, Upstream
from dialect_checks import CARRIED, LABELLED, check_cuts, documents, events, leaks, pieces
from dialect_kit import CANARY, body, policy, shadow, spellings, spoil, stream

from cotguard.detectors.contract import Detector
from cotguard.dialects.contract import CUT_NOTICE, ErrorKind, Incoming, Prepared, Refused, Upload
from cotguard.dialects.routes import Router
from cotguard.dialects.transcription import Transcription
from cotguard.http.form import read_form
from cotguard.policy import Policy

Moderation = tuple[Policy, tuple[Detector, ...]]

DIALECT = Transcription()
SOUND = bytes(range(256)) * 40 + b"\r\n--x\r\n"
FILE = Upload("file.wav", "audio/wav", SOUND)
USAGE = {"type": "tokens", "input_tokens": 5, "output_tokens": 9, "total_tokens": 14}
ANN = "known_speaker_names[]"


def prepared(*fields: tuple[str, str], file: Upload | None = FILE) -> Prepared:
    route = next(route for route in DIALECT.routes if route.action == "transcribe")
    given = fields if any(name == "model" for name, _ in fields) else (("model", "whisper-1"), *fields)
    return DIALECT.prepare(Incoming(route, {}, {}, b"", given, file))


def delta(told: str, **more: object) -> dict[str, Any]:
    return {"type": "transcript.text.delta", "delta": told, **more}


def done(told: str, **more: object) -> dict[str, Any]:
    return {"type": "transcript.text.done", "text": told, "usage": USAGE, **more}


def segment(number: int, text: str, speaker: str = "A") -> dict[str, Any]:
    times = {"start": float(number), "end": number + 0.5}
    return {"type": "transcript.text.segment", "id": f"seg_{number}", **times, "speaker": speaker, "text": text}


TOLD = ("Paris is a town ", "in France. ", "It is ", "large.")
TALK = [*map(delta, TOLD), done("".join(TOLD))]
DIARIZED = [
    delta(TOLD[0]),
    delta(TOLD[1]),
    segment(0, "Paris is a town in France."),
    delta(TOLD[2]),
    delta(TOLD[3]),
    segment(1, "It is large.", "Ann Lee"),
    done("".join(TOLD)),
]
WHISPER = {"seek": 0, "temperature": 0.0, "avg_logprob": -0.2, "compression_ratio": 1.1, "no_speech_prob": 0.01}
VERBOSE: dict[str, Any] = {
    "task": "transcribe",
    "language": "english",
    "duration": 3.5,
    "text": "".join(TOLD),
    "segments": [
        {"id": 0, "start": 0.0, "end": 1.5, "text": " Paris is a town in France.", **WHISPER},
        {"id": 1, "start": 1.5, "end": 3.5, "text": " It is large.", **WHISPER},
    ],
    "usage": {"type": "duration", "seconds": 4},
}
PLAIN = {"text": "".join(TOLD), "usage": USAGE, "languages": [{"code": "en"}]}


# --- What the SDK sees -------------------------------------------------------------------------------------------


def http(data: bytes | None, content_type: str) -> httpx2.Client:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=data, headers={"content-type": content_type})

    return httpx2.Client(transport=None if data is None else httpx2.MockTransport(answer))


def view_stream(data: bytes | None, url: str = "http://upstream") -> list[dict[str, Any]]:
    """The events of a stream as the SDK reads them, deltas joined, without what is stripped."""
    found: list[dict[str, Any]] = []
    with http(data, "text/event-stream") as used:
        sdk = openai.OpenAI(api_key="none", base_url=url + "/v1", http_client=used, max_retries=0)
        sent = sdk.audio.transcriptions.create(file=("a.wav", SOUND), model="gpt-4o-transcribe", stream=True)
        for each in sent:
            event = each.model_dump(exclude_unset=True)
            if event["type"] == "transcript.text.delta" and found and found[-1]["type"] == event["type"]:
                found[-1]["delta"] += event["delta"]
            else:
                found.append(event)
    return found


def view_body(data: bytes | None, response_format: Any = "json", url: str = "http://upstream") -> dict[str, Any]:
    with http(data, "application/json") as used:
        sdk = openai.OpenAI(api_key="none", base_url=url + "/v1", http_client=used, max_retries=0)
        options: Any = {"response_format": response_format, "timestamp_granularities": ["segment", "word"]}
        response = sdk.audio.transcriptions.create(file=("a.wav", SOUND), model="whisper-1", **options)
    seen: dict[str, Any] = response.model_dump(exclude_unset=True)
    return seen


def joined(out: bytes) -> dict[str, str]:
    """What a client has of the text: from the pieces, and from the event that repeats them."""
    found: dict[str, str] = {}
    for each in documents(out):
        if each.get("type") == "transcript.text.delta":
            found["delta"] = found.get("delta", "") + each["delta"]
        elif each.get("type") == "transcript.text.done":
            found["done"] = each["text"]
    return found


@pytest.fixture(params=["no detectors", "every detector"])
def altering_nothing(request: pytest.FixtureRequest, balanced: Moderation) -> Moderation:
    return shadow(balanced[1] if request.param == "every detector" else ())


@pytest.mark.parametrize("size", [1, 97, 10**9])
@pytest.mark.parametrize("sent", [TALK, DIARIZED, [done("".join(TOLD))]], ids=["deltas", "segments", "done alone"])
def test_a_stream_looks_the_same(altering_nothing: Moderation, sent: list[dict[str, Any]], size: int) -> None:
    request = prepared((ANN, "Ann Lee"))
    out = stream(DIALECT, request, altering_nothing, events(sent, named=False), size=size)
    seen, expected = view_stream(out), view_stream(events(sent, named=False))
    assert joined(out)["delta"] == joined(out)["done"] == "".join(TOLD)
    others = [[each for each in found if each["type"] != "transcript.text.delta"] for found in (seen, expected)]
    assert others[0] == others[1]


def test_the_repeated_text_is_trimmed_where_the_upstreams_is() -> None:
    out = stream(DIALECT, prepared(), shadow(), events([delta(" So it is. "), done("So it is.")], named=False))
    assert joined(out) == {"delta": " So it is. ", "done": "So it is."}


@pytest.mark.parametrize(("document", "form"), [(PLAIN, "json"), (VERBOSE, "verbose_json")])
def test_a_body_looks_the_same(altering_nothing: Moderation, document: dict[str, Any], form: str) -> None:
    data = json.dumps(document).encode()
    assert view_body(body(DIALECT, prepared(), altering_nothing, data), form) == view_body(data, form)


def test_a_diarized_body_looks_the_same(altering_nothing: Moderation) -> None:
    segments = [segment(0, "Paris is a town in France."), segment(1, "It is large.", "Ann Lee")]
    document = {"task": "transcribe", "duration": 3.5, "text": "".join(TOLD), "segments": segments}
    data = json.dumps(document).encode()
    seen = view_body(body(DIALECT, prepared((ANN, "Ann Lee")), altering_nothing, data), "diarized_json")
    assert seen == view_body(data, "diarized_json")


# --- Nothing leaks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["Paris", "France", "large"])
def test_a_known_word_is_nowhere(word: str) -> None:
    moderation = policy("redact", word)
    for sent in (TALK, DIARIZED):
        data = events(sent, named=False)
        out = stream(DIALECT, prepared(), moderation, data)
        assert not [each for each in spellings(word) if each in out]
        found = check_cuts(DIALECT, prepared(), moderation, data, joined)
        assert found["delta"] == found["done"]
        assert word not in found["delta"]
    for document in (PLAIN, VERBOSE):
        out = body(DIALECT, prepared(), moderation, json.dumps(document).encode())
        assert not [each for each in spellings(word) if each in out]


def test_unknown_fields_vanish(altering_nothing: Moderation) -> None:
    spoiled: list[Any] = [spoil(each) for each in DIARIZED]
    request = prepared((ANN, "Ann Lee"))
    out = stream(DIALECT, request, altering_nothing, events(spoiled, named=False))
    assert out == stream(DIALECT, request, altering_nothing, events(DIARIZED, named=False))
    for document in (PLAIN, VERBOSE):
        data = json.dumps(document).encode()
        told = body(DIALECT, prepared(), altering_nothing, json.dumps(spoil(document)).encode())
        assert told == body(DIALECT, prepared(), altering_nothing, data)


MIRRORS = [
    delta("so", logprobs=[{"token": CANARY, "bytes": [1]}]),
    delta("so", segment_id=CANARY),
    delta("so", text=CANARY),
    segment(3, CANARY),
    segment(3, "Paris", CANARY),
    {**segment(3, "Paris"), "id": CANARY + " "},
    {**segment(3, "Paris"), "words": [{"word": CANARY}]},
    {"type": "transcript.text.summary", "text": CANARY},
    {"type": "transcript.language", "language": CANARY},
    {"type": 7, "delta": CANARY},
    done(CANARY, logprobs=[{"token": CANARY}]),
    done("so", languages=[{"code": CANARY + " "}], language=CANARY + " "),
    done("so", usage={"type": CANARY, "note": CANARY}),
]


@pytest.mark.parametrize("mirror", MIRRORS)
def test_the_canary_in_a_field_of_an_event_stays_here(mirror: dict[str, Any]) -> None:
    for named in (True, False):
        out = stream(DIALECT, prepared(), shadow(), events([*TALK[:-1], mirror, TALK[-1]], named=named))
        assert CANARY.encode() not in out
        assert joined(out)["done"].startswith("".join(TOLD))


BODY_MIRRORS = [
    ("words", [{"word": CANARY, "start": 0.0, "end": 1.0}]),
    ("logprobs", [{"token": CANARY, "bytes": [1]}]),
    ("language", CANARY + " "),
    ("task", CANARY),
    ("x_groq", {"id": CANARY}),
    ("segments", [{**VERBOSE["segments"][0], "tokens": [CANARY], "words": [CANARY]}]),
    ("segments", [{**VERBOSE["segments"][0], "text": CANARY}]),
    ("segments", [{**segment(0, "Paris"), "speaker": CANARY}]),
    ("segments", [{**segment(0, "Paris"), "id": CANARY + " "}]),
    ("usage", {"type": CANARY, "seconds": CANARY}),
    ("languages", [{"code": CANARY + " "}]),
]


@pytest.mark.parametrize(("name", "value"), BODY_MIRRORS)
def test_the_canary_in_a_field_of_a_body_stays_here(name: str, value: object) -> None:
    out = body(DIALECT, prepared(), shadow(), json.dumps({**VERBOSE, name: value}).encode())
    assert CANARY.encode() not in out
    assert json.loads(out)["text"] == "".join(TOLD)


def test_planted_values_of_a_stream_are_labels(balanced: Moderation) -> None:
    data = events([*map(delta, pieces(CARRIED, random.Random(4))), done(CARRIED)], named=False)
    assert check_cuts(DIALECT, prepared(), balanced, data, joined) == {"delta": LABELLED, "done": LABELLED}
    assert leaks(stream(DIALECT, prepared(), balanced, data)) == []
    alone = stream(DIALECT, prepared(), balanced, events([segment(0, CARRIED), done(CARRIED)], named=False))
    assert joined(alone) == {"delta": LABELLED, "done": LABELLED}
    assert leaks(alone) == []


def test_planted_values_of_a_body_are_labels(balanced: Moderation) -> None:
    for most in (6, 40, 10**6):
        parts = list(pieces(CARRIED, random.Random(most), most))
        document = {**VERBOSE, "text": CARRIED, "segments": [{"id": at, "text": each} for at, each in enumerate(parts)]}
        out = body(DIALECT, prepared(), balanced, json.dumps(document).encode())
        told = json.loads(out)
        assert told["text"] == LABELLED
        assert len(told["segments"]) == len(parts)
        at = 0
        for each in told["segments"]:
            at = LABELLED.index(each["text"].strip(), at) + len(each["text"].strip())
        assert at > (len(LABELLED) // 2 if most == 10**6 else 0)
        assert leaks(out) == []


@pytest.mark.parametrize("at", [1, 6, 12, 18])
def test_a_value_over_two_segments_is_a_label(balanced: Moderation, at: int) -> None:
    value = "ann.lee@example.com"
    text = f"Write to {value} about the matter, and then some more words."
    parts = text[: 9 + at], text[9 + at :]
    document = {**VERBOSE, "text": text, "segments": [{"id": 0, "text": parts[0]}, {"id": 1, "text": parts[1]}]}
    told = json.loads(body(DIALECT, prepared(), balanced, json.dumps(document).encode()))
    assert told["text"] == "Write to [EMAIL_ADDRESS] about the matter, and then some more words."
    said = "".join(each["text"] for each in told["segments"])
    assert not any(value[cut : cut + 5] in said for cut in range(len(value) - 4))
    sent = [delta(parts[0]), segment(0, parts[0]), delta(parts[1]), segment(1, parts[1]), done(text)]
    out = stream(DIALECT, prepared(), balanced, events(sent, named=False))
    assert joined(out)["done"] == told["text"]
    assert not any(value[cut : cut + 5].encode() in out for cut in range(len(value) - 4))


# --- Cuts and faults ---------------------------------------------------------------------------------------------

MAIL = "so ann.lee@example.com is it"


def test_a_block_ends_a_stream_and_a_body_with_a_notice() -> None:
    data = events([delta(MAIL), delta(CANARY), done(MAIL + CANARY)], named=False)
    expected = {"delta": "so " + CUT_NOTICE, "done": "so " + CUT_NOTICE}
    assert check_cuts(DIALECT, prepared(), policy("block"), data, joined) == expected
    out = body(DIALECT, prepared(), policy("block"), json.dumps({**VERBOSE, "text": MAIL}).encode())
    assert view_body(out)["text"] == "so " + CUT_NOTICE
    assert "segments" not in json.loads(out)


def test_withheld_text() -> None:
    out = stream(DIALECT, prepared(), policy("withhold"), events([delta(MAIL), done(MAIL)], named=False))
    found = view_stream(out)
    assert found[-1]["text"] == found[0]["delta"].strip()
    assert found[-1]["text"].startswith("so ")
    assert (b"example" in out, found[-1]["usage"]["total_tokens"]) == (False, 14)
    document = {**VERBOSE, "text": MAIL, "segments": [{"id": 0, "text": MAIL}]}
    assert b"example" not in body(DIALECT, prepared(), policy("withhold"), json.dumps(document).encode())


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (b"data: {nonsense\n\n", "could not be read"),
        (b'data: {"type": "transcript.text.delta", "delta": 7}\n\n', "wrong type"),
        (b'data: {"error": {"message": "%b", "type": "server_error"}}\n\n' % CANARY.encode(), "reported an error"),
        (b"", "ended the stream early"),
        (b"data: [DONE]\n\n", "ended the stream early"),
    ],
)
def test_a_fault_is_raised_by_the_sdk(balanced: Moderation, last: bytes, error: str) -> None:
    data = events([delta("so it goes on and on. "), delta("4111")], named=False) + last
    for size in (1, 10**9):
        out = stream(DIALECT, prepared(), balanced, data, size=size)
        with pytest.raises(openai.APIError, match=error):
            view_stream(out)
        assert joined(out) == {"delta": "so it goes on and on. "}
        assert CANARY.encode() not in out


def test_errors_have_the_dialects_shape() -> None:
    sent = {"error": {"message": CANARY, "type": "invalid_request_error", "code": "model_not_found", "param": CANARY}}
    told = json.loads(DIALECT.upstream_error(404, json.dumps(sent).encode()))["error"]
    assert (told["type"], told["code"]) == ("invalid_request_error", "model_not_found")
    assert CANARY not in json.dumps(told)
    assert json.loads(DIALECT.error(ErrorKind.NOT_FOUND, "No."))["error"]["code"] == "not_found"


# --- Forms -------------------------------------------------------------------------------------------------------


def test_fields_are_checked() -> None:
    request = prepared(
        ("prompt", "names: Ann"),
        ("stream", "True"),
        ("include[]", "logprobs"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
        ("chunking_strategy[type]", "server_vad"),
    )
    assert request.stream
    assert (request.model, request.facts.user) == ("whisper-1", "names: Ann")
    assert request.fields == [
        ("model", "whisper-1"),
        ("prompt", "names: Ann"),
        ("stream", "True"),
        ("timestamp_granularities[]", "segment"),
        ("chunking_strategy[type]", "server_vad"),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        [("file_url", "http://x")],
        [("model[]", "m")],
        [("file", "x")],
        [("stream", "perhaps")],
        [("model", "a"), ("model", "b")],
        [("response_format", "text")],
        [("response_format", "srt")],
        [("response_format", "vtt")],
        [("response_format", "json"), ("response_format", "text")],
    ],
)
def test_other_fields_are_refused(fields: Sequence[tuple[str, str]]) -> None:
    with pytest.raises(Refused):
        prepared(*fields)


def test_a_form_without_a_file_is_refused() -> None:
    with pytest.raises(Refused):
        prepared(file=None)


@pytest.mark.parametrize("path", ["/v1/audio/speech", "/v1/audio/transcriptions/x"])
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(Refused) as refused:
        Router([DIALECT]).find("POST", path)
    assert refused.value.kind is ErrorKind.UNSUPPORTED


def part(disposition: str, data: bytes, *headers: str) -> bytes:
    lines = [f"Content-Disposition: form-data; {disposition}", *headers]
    return b"--b\r\n" + "\r\n".join(lines).encode() + b"\r\n\r\n" + data + b"\r\n"


FORM = "multipart/form-data; boundary=b"
END = b"--b--\r\n"
MODEL = part('name="model"', b"m")
UPLOAD = part('name="file"; filename="a/../my talk.MP3"', SOUND, "Content-Type: audio/mpeg; x=1")


async def test_a_form_is_read() -> None:
    fields, file = await read_form(FORM, b"preamble\r\n" + MODEL + UPLOAD + part('name="k[]"', "é".encode()) + END)
    assert fields == [("model", "m"), ("k[]", "é")]
    assert file == Upload("file.MP3", "audio/mpeg", SOUND)
    _, plain = await read_form(FORM, part('name="file"; filename="x"', b"", "Content-Type: text/html") + END)
    assert plain == Upload("file", "application/octet-stream", b"")


BAD_FORMS = {
    "no boundary": ("multipart/form-data", MODEL + END),
    "another boundary": ("multipart/form-data; boundary=c", MODEL + END),
    "a boundary too long": (f"multipart/form-data; boundary={'b' * 71}", MODEL + END),
    "no end": (FORM, MODEL),
    "cut short": (FORM, UPLOAD[:-20]),
    "empty": (FORM, b""),
    "two files": (FORM, UPLOAD + UPLOAD + END),
    "a file elsewhere": (FORM, part('name="model"; filename="m"', b"x") + END),
    "no name": (FORM, part("x=1", b"m") + END),
    "a broken name": (FORM, part('name="model', b"m") + END),
    "no disposition": (FORM, b"--b\r\nX-Name: model\r\n\r\nm\r\n" + END),
    "a wrong name": (FORM, part('name="a b"', b"m") + END),
    "not UTF-8": (FORM, part('name="model"', b"\xff") + END),
    "encoded": (FORM, part('name="model"', b"bQ==", "Content-Transfer-Encoding: base64") + END),
    "compressed": (FORM, part('name="model"', b"m", "Content-Encoding: gzip") + END),
    "nested": (FORM, part('name="model"', b"--c--\r\n", "Content-Type: multipart/mixed; boundary=c") + END),
    "too many parts": (FORM, MODEL * 65 + END),
}


@pytest.mark.parametrize("kind", BAD_FORMS)
async def test_a_bad_form_is_refused(kind: str) -> None:
    with pytest.raises(Refused) as refused:
        await read_form(*BAD_FORMS[kind])
    assert refused.value.status == 400


# --- The gateway -------------------------------------------------------------------------------------------------


async def test_the_sdk_through_the_gateway(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    forms: list[tuple[list[tuple[str, str]], Upload | None]] = []
    text = "Ask ann.lee@example.com in Paris. Card 4111 1111 1111 1111"

    async def handler(request: web.Request) -> web.StreamResponse:
        forms.append(await read_form(request.headers["Content-Type"], upstream.bodies[-1]))
        if ("stream", "true") in forms[-1][0]:
            sent = events([*map(delta, pieces(text, random.Random(5))), done(text)], named=False)
            return web.Response(body=sent, content_type="text/event-stream")
        return web.json_response({**VERBOSE, "text": text, "segments": [{"id": 0, "text": text}]})

    upstream.handler = handler
    url = (await make_proxy()).url
    expected = "Ask [EMAIL_ADDRESS] in Paris. Card [CREDIT_CARD]"
    seen = await asyncio.to_thread(view_stream, None, url)
    assert [each.get("delta", each.get("text")) for each in seen] == [expected, expected]
    told = await asyncio.to_thread(view_body, None, "verbose_json", url)
    assert (told["text"], [each["text"] for each in told["segments"]]) == (expected, [expected])
    assert set(upstream.paths) == {"/v1/audio/transcriptions"}
    assert [file for _, file in forms] == [Upload("file.wav", "audio/x-wav", SOUND)] * 2
    assert forms[1][0] == [
        ("model", "whisper-1"),
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "segment"),
    ]


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of the SDK's method
async def test_a_translation_through_the_gateway(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response({"text": "Ask ann.lee@example.com now"})

    upstream.handler = handler
    url = (await make_proxy()).url

    def use() -> str:
        with openai.OpenAI(api_key="none", base_url=url + "/v1", max_retries=0) as sdk:
            return sdk.audio.translations.create(file=("a.mp3", SOUND), model="whisper-1").text

    assert await asyncio.to_thread(use) == "Ask [EMAIL_ADDRESS] now"
    assert upstream.paths == ["/v1/audio/translations"]


@pytest.mark.parametrize(
    ("headers", "data", "status"),
    [
        ({"Content-Type": "application/json"}, b"{}", 415),
        ({"Content-Type": FORM}, MODEL + UPLOAD + END + b"x" * 200_000, 413),
        ({"Content-Type": FORM, "Content-Encoding": "gzip"}, MODEL + UPLOAD + END, 415),
        ({"Content-Type": FORM}, MODEL + END, 400),
        ({"Content-Type": FORM}, MODEL, 400),
        ({"Content-Type": FORM}, MODEL + UPLOAD + part('name="response_format"', b"srt") + END, 400),
    ],
)
async def test_what_is_not_such_a_form_never_reaches_the_upstream(
    upstream: Upstream, make_proxy: ProxyFactory, headers: dict[str, str], data: bytes, status: int
) -> None:
    proxy = await make_proxy(max_request_bytes=100_000)
    url = proxy.url + "/v1/audio/transcriptions"
    async with aiohttp.ClientSession() as session, session.post(url, data=data, headers=headers) as response:
        assert response.status == status
        assert "code" in (await response.json())["error"]
    async with (
        aiohttp.ClientSession() as session,
        session.post(proxy.url + "/v1/chat/completions", data=data, headers={"Content-Type": FORM}) as response,
    ):
        assert response.status == 415
    assert upstream.paths == []
