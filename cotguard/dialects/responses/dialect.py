"""The dialect OpenAI Responses, with the extensions of the servers that speak it.

The rows are in ``responses.yaml``; what a table cannot say is in the modules beside this one: requests
(``request``), shapes that clients require (``format``), streams (``stream``) and their
items (``items``). Here: whole responses, errors, and the :class:`~cotguard.dialects.contract.Dialect` itself.
"""

from typing import Any

from cotguard.dialects.channels import view_of
from cotguard.dialects.chat.format import error_object
from cotguard.dialects.contract import UPSTREAM_REPORTED, ErrorKind, Incoming, Prepared, UpstreamFault
from cotguard.dialects.responses.format import Format, listed
from cotguard.dialects.responses.request import Switches, prepare, tool_of
from cotguard.dialects.responses.sealed import original_of, seal
from cotguard.dialects.responses.stream import ResponseStream
from cotguard.dialects.table import Text
from cotguard.dialects.tabled import TabledDialect
from cotguard.dialects.whole import UNREADABLE, moderate, read_object
from cotguard.framing.json import dumps
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.view import View

__all__ = ["Responses"]


class Responses(TabledDialect):
    """A :class:`~cotguard.dialects.contract.Dialect`."""

    file = "responses/responses.yaml"

    def __init__(self, table: str | None = None) -> None:
        super().__init__(table)
        self._form = Format(self.table)
        self._switches = Switches(self.table)

    def prepare(self, request: Incoming) -> Prepared:
        return prepare(request, self._switches)

    def stream(self, prepared: Prepared, exchange: Exchange, content_type: str) -> ResponseStream | None:
        return ResponseStream(self._form, prepared, exchange) if content_type == "text/event-stream" else None

    def body(self, data: bytes, prepared: Prepared, exchange: Exchange) -> bytes:
        response = read_object(data, prepared.reported)
        output = response.get("output")
        if not isinstance(output, list):
            if response.get("error"):
                raise UpstreamFault(ErrorKind.UPSTREAM_ERROR, UPSTREAM_REPORTED)
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, UNREADABLE)
        items = [item for item in output if isinstance(item, dict) and tool_of(item, prepared.tools)]
        lane = exchange.lane(0)
        model = "" if any(item.get("type") == "reasoning" for item in items) else prepared.model

        def view(text: Text) -> View:
            return view_of(text.channel, model)

        # An item of a type without rows has its id at most.
        copied = moderate({**response, "output": items}, self._form.response, lane, view)
        if prepared.seals is not None and not lane.cut:
            for item, issued in zip(items, copied["output"], strict=True):
                if original := original_of(item):
                    issued["encrypted_content"] = seal(original, issued, prepared.seals, prepared.model)
        written = [_with_required(item) for item in copied["output"] if "type" in item]
        while lane.cut and written and not self._has_text(written[-1]):
            written.pop()  # a call without arguments is one too
        fields: dict[str, Any] = self._form.completed(copied, response) | {"output": written}
        if lane.cut:
            if written and "status" in written[-1]:
                written[-1]["status"] = "incomplete"
            fields |= {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}
        return dumps(fields)

    def _has_text(self, item: dict[str, Any]) -> bool:
        copied = self._form.item(item)
        return copied is not None and bool(copied.texts)

    def error(self, kind: ErrorKind, message: str) -> bytes:
        return dumps(error_object(kind, message))

    def reported(self, error: object, message: str) -> dict[str, object]:
        return self._form.reported(error, message)


def _with_required(item: dict[str, Any]) -> dict[str, Any]:
    """An item with the fields that clients require and that only repeat or annotate its texts."""
    if item["type"] == "message":
        for part in listed(item.get("content")):
            if part["type"] == "output_text":
                part |= {"annotations": [], "logprobs": []}
    return item
