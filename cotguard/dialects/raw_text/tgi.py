"""The form of TGI's own routes: ``/generate``, ``/generate_stream``, and ``/``, which does either.

1. An event holds one token. Texts of special tokens are not shown by clients, nor are they part of the whole text:
   they are dropped.
2. The last event repeats the whole text, as it was delivered here, and says why it ended.
3. No finish reason says that the text was cut, so a notice says it in the text.

Clients want a number, an id and a log-probability with every token, and a count where the text is cut: none would fit
a moderated text, so all are 0.

Source: ``docs/openapi.json`` and ``router/src`` of huggingface/text-generation-inference.
"""

from typing import Any

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.contract import CUT_NOTICE, UPSTREAM_REPORTED, ErrorKind, Prepared
from cotguard.dialects.raw_text.stream import RawStream, invalid, opening_kind
from cotguard.dialects.request import bad, flag, string, without
from cotguard.dialects.stream import Outgoing
from cotguard.dialects.table import HOLE, Table
from cotguard.dialects.whole import moderate
from cotguard.framing.sse import ServerSentEvents
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.markers import MarkerView

__all__ = ["Tgi", "TgiStream"]

_CUT_REASON = "stop_sequence"


class Tgi:
    """Requests and whole responses of the form."""

    name = "tgi"

    def __init__(self, table: Table) -> None:
        self.result = table.shape("tgi")
        self.token = table.shape("tgi_token")
        self._stripped = table.names("tgi_request", "strip")
        self._refused = table.names("tgi_request", "refuse")
        self._error_types = table.names("enums", "tgi_error_type")

    def prepare(self, body: dict[str, Any], action: str) -> Prepared:
        given = {} if body.get("parameters") is None else body["parameters"]
        if not isinstance(given, dict):
            raise bad("The field 'parameters' must be an object.")
        parameters = without(given, self._stripped, self._refused)
        # `/` would put the prompt before the text by default.
        sent = {**body, "parameters": {**parameters, "return_full_text": False}}
        return Prepared(
            document=sent,
            model="",
            stream=action == "generate_stream" or flag(body, "stream"),
            facts=RequestFacts((), string(body, "inputs")),
            action=self.name,
        )

    def stream(self, prepared: Prepared, exchange: Exchange) -> "TgiStream":
        return TgiStream(self, prepared, exchange)

    def results(self, results: list[dict[str, Any]], prepared: Prepared, exchange: Exchange) -> list[dict[str, Any]]:
        if len(results) != 1 or not isinstance(results[0].get("generated_text"), str):
            raise invalid()
        lane = exchange.lane(0)
        kind = opening_kind(prepared)
        written = moderate(results[0], self.result, lane, lambda _: MarkerView(kind))
        details = _details(written)
        if isinstance(details, dict):
            details |= {"prefill": [], "tokens": []}
        if lane.cut:
            written["generated_text"] += CUT_NOTICE
            if isinstance(details, dict):
                details["finish_reason"] = _CUT_REASON
        return [written]

    def reported(self, error: object, message: str) -> dict[str, object]:
        """The upstream's error document with ``message`` for its text, and its type if that is known."""
        kind = error.get("error_type") if isinstance(error, dict) else None
        known = isinstance(kind, str) and kind in self._error_types
        return {"error": message, "error_type": kind if known else "upstream_error"}


class TgiStream(RawStream):
    """A :class:`~cotguard.dialects.contract.Translator`."""

    def __init__(self, form: Tgi, prepared: Prepared, exchange: Exchange) -> None:
        super().__init__(ServerSentEvents(), prepared, exchange, repeats=True)
        self._form = form

    def take(self, name: str, document: dict[str, Any]) -> None:
        if document.get("error") or name == "error":
            raise self.upstream_failed(Outgoing("", self._form.reported(document, UPSTREAM_REPORTED)))
        if not isinstance(document.get("token"), dict):
            raise invalid()
        self.choices[0] = None
        event = self._form.token.copy(document)
        token = event.root["token"]
        if token.get("special") is not True:
            for text in event.texts:
                self.feed_text(0, text.text)
        if document.get("generated_text") is not None:
            last = self._form.result.copy(document).root
            if self.finish(0):
                self._write_last(event.root.get("index") or 0, "", _details(last))

    def delta(self, index: int) -> Outgoing:
        return Outgoing("", {"index": 0, "token": _token(HOLE), "generated_text": None, "details": None})

    def _write_last(self, at: float, notice: str, details: object) -> None:
        token = _token(notice, special=not notice)
        whole = self.said(0) + notice
        self.write(Outgoing("", {"index": at, "token": token, "generated_text": whole, "details": details}))
        self.complete()

    def was_cut(self, lane: int) -> None:
        self._write_last(0, CUT_NOTICE, {"finish_reason": _CUT_REASON, "generated_tokens": 0, "seed": None})

    def upstream_done(self) -> None:
        """No part of this form: the last event is known by itself."""

    def fault(self, kind: ErrorKind, message: str) -> Outgoing:
        return Outgoing("", {"error": message, "error_type": kind.value})


def _details(result: dict[str, Any]) -> Any:
    """The details with a seed: clients want one, which may be null where it is no number that all parsers read."""
    details = result.get("details")
    if isinstance(details, dict):
        details.setdefault("seed", None)
    return details


def _token(text: str, *, special: bool = False) -> dict[str, Any]:
    return {"id": 0, "text": text, "logprob": 0, "special": special}
