"""What other gateways ask on the admin port: which values a text holds, and what becomes of it.

Two interfaces that such gateways know already, and nothing of our own:

* Presidio's analyzer: ``POST /analyze`` and ``GET /supportedentities``, as its OpenAPI description and its server have
  them (https://microsoft.github.io/presidio/api-docs/api-docs.html, ``presidio-analyzer/app.py``).
* LiteLLM's generic guardrail: ``POST /beta/litellm_basic_guardrail_api``
  (https://docs.litellm.ai/docs/adding_provider/generic_guardrail_api, and the client in ``generic_guardrail_api.py``).

Whoever asks has no exchange for us: there is one text, or a few, and what the policy says of them. A fault is answered
with status 500 (G5), and an answer, a log and an error hold nothing of what was sent, but the text that was asked for.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Final, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cotguard.classifier.handover import Answerers, handed_over, pause
from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.channels import KINDS, view_of
from cotguard.dialects.chat.dialect import ChatCompletions
from cotguard.dialects.inbound import Contents
from cotguard.framing.json import JSONError, dumps, loads
from cotguard.gateway.moderations import Moderation
from cotguard.moderation.exchange import Exchange, ModerationFault, Outcome, RequestBlocked
from cotguard.moderation.observer import Recorder
from cotguard.moderation.request import Findings
from cotguard.moderation.view import PlainView, View
from cotguard.policy import Media, RequestTexts
from cotguard.spans import Action, ChannelKind, Span
from cotguard.taxonomy import ENTITIES
from cotguard.telemetry.metrics import Metrics

__all__ = ["ANALYZE", "GUARDRAIL", "MAX_BODY_BYTES", "PATHS", "SUPPORTED", "Analyst", "Answer", "add_analysis"]

ANALYZE: Final = "/analyze"
SUPPORTED: Final = "/supportedentities"
GUARDRAIL: Final = "/beta/litellm_basic_guardrail_api"
PATHS: Final = (ANALYZE, SUPPORTED, GUARDRAIL)

MAX_BODY_BYTES = 8 * 2**20
"""The largest body that is read."""

_LOG = logging.getLogger("cotguard.gateway")
_TURN_CHARS = 8192
_CONTENT = "content"
_FAILED = "Moderation failed."
_BLOCKED = "The policy blocks this text."
_IN_CALL = "The policy takes a value out of a tool call, which this interface cannot rewrite."
_ELSEWHERE = "The policy takes out a value that stands where this interface cannot rewrite it."
_NO_MEDIA = "The policy lets no content pass that cannot be read."


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


class _AnalyzeRequest(_Body):
    """A question to Presidio's analyzer. What would change an answer and is not done here is refused."""

    text: str | list[str]
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}([_-][A-Za-z]{2,4})?$")] | None = None
    entities: list[str] | None = None
    score_threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    correlation_id: str | None = None
    return_decision_process: bool | None = None
    context: list[str] | None = None
    allow_list: list[str] | None = None
    allow_list_match: Literal["exact"] | None = None
    ad_hoc_recognizers: Annotated[list[Any], Field(max_length=0)] | None = None


class _GuardrailRequest(_Body):
    """A question of LiteLLM's. Its releases add fields, so others are left aside."""

    model_config = ConfigDict(extra="ignore")

    input_type: Literal["request", "response"]
    texts: list[str] | None = None
    images: list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    structured_messages: list[dict[str, Any]] | None = None
    model: str | None = None
    litellm_call_id: str | None = None


_Request = TypeVar("_Request", bound=_Body)
_Found = TypeVar("_Found")


Answer = tuple[int, bytes]
"""A status, and a body of JSON."""


class Analyst:
    """Answers under what ``moderation`` returns, asked for each question: one under way keeps its own.

    ``answerers`` answer its detectors; ``key`` (16 bytes or more) keys hashes and pseudonyms.
    """

    def __init__(
        self, moderation: Callable[[], Moderation], answerers: Answerers, key: bytes, metrics: Metrics
    ) -> None:
        self._moderation = moderation
        self._answerers = answerers
        self._key = key
        self._metrics = metrics
        self._chat = ChatCompletions()

    async def answer(self, path: str, body: bytes) -> Answer:
        """The answer to a question: to ``body``, sent to one of ``PATHS``."""
        if path == SUPPORTED:
            return 200, dumps(self._supported())
        try:
            document = loads(body)
            if path == ANALYZE:
                return 200, dumps(await self._analyze(_checked(_AnalyzeRequest, document)))
            return 200, dumps(await self._guard(_checked(_GuardrailRequest, document)))
        except JSONError:
            return _error(400, "The body is not valid JSON.")
        except ValueError as error:
            return _error(400, str(error))
        except ModerationFault:
            _LOG.warning("analysis failed closed")
            return _error(500, _FAILED)

    def _supported(self) -> list[str]:
        """The entities that may be found in what a model writes."""
        moderation = self._moderation()
        found = frozenset(entity for detector in moderation.detectors for entity in detector.entities)
        return sorted(found & moderation.policy.entities_for(ChannelKind.OUTPUT) & ENTITIES)

    async def _analyze(self, asked: _AnalyzeRequest) -> list[Any]:
        """The values of a text, or of each text of a list. Raises :class:`ModerationFault` and ``ValueError``."""
        unknown = sorted(frozenset(asked.entities or ()) - frozenset(self._supported()))
        if unknown:
            raise ValueError("entities: names one that is not found here; GET /supportedentities lists those that are")
        if isinstance(asked.text, str):
            return await self._values(asked.text, asked)
        return [await self._values(text, asked) for text in asked.text]

    async def _values(self, text: str, asked: _AnalyzeRequest) -> list[dict[str, Any]]:
        recorder = Recorder()
        exchange = self._exchange(RequestFacts(), observer=recorder)
        await self._carried_out(partial(_written, exchange, 0, PlainView(ChannelKind.OUTPUT), text), exchange)
        found: dict[tuple[int, int, str], Span] = {}
        for span, action in recorder.found:  # whoever asks has the whole text, and takes values out of it by himself
            if self._is_asked_for(span, action, text, asked):
                place = span.start, span.end, span.entity
                found[place] = max(span, found.get(place, span), key=lambda each: each.score)
        return [_told(span, explained=bool(asked.return_decision_process)) for _, span in sorted(found.items())]

    def _is_asked_for(self, span: Span, action: Action, text: str, asked: _AnalyzeRequest) -> bool:
        """What is only flagged is told of if its entity is asked for: a hazard is no value to be replaced."""
        if asked.entities is None:
            wanted = action.rewrites
        else:
            wanted = action is not Action.ALLOW and span.entity in asked.entities
        return (
            wanted
            and span.score >= (asked.score_threshold or 0)
            and text[span.start : span.end] not in (asked.allow_list or ())
        )

    async def _guard(self, asked: _GuardrailRequest) -> dict[str, Any]:
        """What LiteLLM is to do with a request's or a response's texts. Raises :class:`ModerationFault`."""
        document = {"messages": asked.structured_messages or [], "tools": asked.tools or []}
        contents = self._chat.inbound.read(document)
        facts = RequestFacts.of((text.kind, text.text) for text in contents.texts)
        label = hmac.digest(self._key, (asked.litellm_call_id or "").encode("utf-8", "surrogatepass"), "sha256")
        exchange = self._exchange(facts, pseudonym_key=label)
        try:
            if asked.input_type == "request":
                return await self._carried_out(partial(_guard_request, asked, document, contents, exchange), exchange)
            return await self._carried_out(partial(_guard_response, asked, contents, exchange), exchange)
        except RequestBlocked:
            return _blocked(_BLOCKED)

    def _exchange(
        self, facts: RequestFacts, *, observer: Recorder | None = None, pseudonym_key: bytes | None = None
    ) -> Exchange:
        policy, detectors = (moderation := self._moderation()).policy, moderation.detectors
        findings = Findings(policy, detectors, pause)  # of its own: what others sent is none of this one's business
        return Exchange(
            policy, detectors, facts, self._key, exchange_key=pseudonym_key, findings=findings, observer=observer
        )

    async def _carried_out(self, call: Callable[[], _Found], exchange: Exchange) -> _Found:
        try:
            return await handed_over(call, self._answerers)
        finally:
            self._metrics.account(exchange)


def _written(exchange: Exchange, index: int, view: View, text: str) -> tuple[str, int]:
    """``text`` as it is let out, and how many characters of that a continuation could change."""
    lane = exchange.lane(index)
    lane.open(index, view)
    for at in range(0, len(text), _TURN_CHARS):
        lane.feed(index, text[at : at + _TURN_CHARS])
        pause()
    sure = "".join(emission.text for emission in lane.take())
    lane.finish()
    rest = "".join(emission.text for emission in lane.take())
    return sure + rest, len(rest)


def _told(span: Span, *, explained: bool) -> dict[str, Any]:
    """A value as Presidio's analyzer tells of it."""
    recognizer, _, rule = span.detector.partition("/")
    explanation = {
        "recognizer": recognizer,
        "pattern_name": rule or None,
        "pattern": None,
        "original_score": span.score,
        "score": span.score,
        "textual_explanation": None,
        "score_context_improvement": 0,
        "supportive_context_word": "",
        "validation_result": None,
        "regex_flags": None,
    }
    return {
        "analysis_explanation": explanation if explained else None,
        "end": span.end,
        "entity_type": span.entity,
        "score": span.score,
        "start": span.start,
    }


def _guard_request(
    asked: _GuardrailRequest, document: dict[str, Any], contents: Contents, exchange: Exchange
) -> dict[str, Any]:
    """Requests are treated as the proxy treats them: the policy's section ``request`` says how."""
    terms = exchange.policy.request
    if terms.media is Media.REFUSE and (asked.images or contents.media):
        return _blocked(_NO_MEDIA)
    known = {text.text: text for text in contents.texts}
    written = _read(asked, contents, exchange)
    if terms.texts is not RequestTexts.MODERATE:
        return {"action": "NONE"}
    if not all(exchange.is_plain(kind, word) for kind, word in sorted(contents.words)):
        return _blocked(_ELSEWHERE)
    texts = asked.texts or []
    for text, rewritten in written.items():
        place = known.get(text)
        if place is None or rewritten == text or text in texts:
            continue
        if place.path[0] != "tools":
            return _blocked(_ELSEWHERE)
        place.put(document, rewritten)
    changed = {
        "texts": [written[text] for text in texts],
        "tools": document["tools"],
    }
    if changed["texts"] == texts and all(text == rewritten for text, rewritten in written.items()):
        return {"action": "NONE"}
    return {"action": "GUARDRAIL_INTERVENED", **{name: value for name, value in changed.items() if value}}


def _read(asked: _GuardrailRequest, contents: Contents, exchange: Exchange) -> dict[str, str]:
    """What may go upstream for each text of a request; nothing where the policy ignores them."""
    if exchange.policy.request.texts is RequestTexts.IGNORE:
        return {}
    given = asked.texts if asked.input_type == "request" and asked.texts else []
    views: dict[str, Callable[[], View]] = {text: partial(PlainView, ChannelKind.USER) for text in given}
    views |= {text.text: text.view for text in contents.texts}
    if exchange.policy.asks_origins:
        for text, view in views.items():
            exchange.note(view(), text)
    return {text: exchange.read(view(), text) for text, view in views.items()}


def _guard_response(asked: _GuardrailRequest, contents: Contents, exchange: Exchange) -> dict[str, Any]:
    """``stream_holdback_chars`` says of each text how much of its end a continuation could change.

    So LiteLLM may ask again and again while a stream grows (``incremental_diff``) and sends nothing too early.
    """
    _read(asked, contents, exchange)
    texts = asked.texts or []
    written = [
        _written(exchange, index, view_of(_CONTENT, asked.model or ""), text) for index, text in enumerate(texts)
    ]
    for index, call in enumerate(asked.tool_calls or [], start=len(texts)):
        function = call.get("function")
        arguments = function.get("arguments") if isinstance(function, Mapping) else None
        if isinstance(arguments, str):
            _written(exchange, index, view_of("arguments"), arguments)
    taken_out = {verdict.kind for verdict in exchange.tally if verdict.outcome in _TAKEN_OUT}
    if any(exchange.lane(index).cut for index in range(len(texts))):
        return _blocked(_BLOCKED)
    if KINDS["arguments"] in taken_out:
        return _blocked(_IN_CALL)
    let_out = [text for text, _ in written]
    answer = {"stream_holdback_chars": [held for _, held in written]}
    if let_out == texts:
        return {"action": "NONE", **answer}
    return {"action": "GUARDRAIL_INTERVENED", "texts": let_out, **answer}


_TAKEN_OUT = frozenset({Outcome.REDACTED, Outcome.WITHHELD, Outcome.BLOCKED})


def _blocked(reason: str) -> dict[str, Any]:
    return {"action": "BLOCKED", "blocked_reason": reason}


def add_analysis(
    app: web.Application, answer: Callable[[str, bytes], Awaitable[Answer]], limit: int = MAX_BODY_BYTES
) -> None:
    """Add the routes to the admin port's application, which ``answer`` answers. Bodies have at most ``limit`` bytes."""

    async def ask(request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            return _response(_error(415, "Send application/json."))
        body = bytearray()
        async for data in request.content.iter_any():
            body += data
            if len(body) > limit:
                return _response(_error(413, f"The body is larger than {limit} bytes."))
        return _response(await answer(request.path, bytes(body)))

    async def supported(request: web.Request) -> web.Response:
        return _response(await answer(request.path, b""))

    app.router.add_post(ANALYZE, ask)
    app.router.add_get(SUPPORTED, supported)
    app.router.add_post(GUARDRAIL, ask)


def _checked(model: type[_Request], document: object) -> _Request:
    """A body. Raises ``ValueError`` that says what is wrong with it."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise ValueError("; ".join(_problems(model, error))) from None


def _problems(model: type[BaseModel], error: ValidationError) -> Sequence[str]:
    """What is wrong with a body. Names that it brings itself are not told again."""
    told: dict[str, None] = {}
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if name not in model.model_fields:
            known = ", ".join(model.model_fields)
            told[f"write an object with these fields: {known}"] = None
        elif name == "ad_hoc_recognizers":
            told[f"{name}: recognizers of a client's are not run; add rules to the policy"] = None
        else:
            told[f"{name}: {problem['msg']}"] = None
    return list(told)


def _error(status: int, message: str) -> Answer:
    return status, dumps({"error": message})


def _response(answer: Answer) -> web.Response:
    status, body = answer
    return web.Response(status=status, body=body, content_type="application/json")
