"""The dialect Amazon Bedrock: Converse for all models, InvokeModel for those whose own format is known here.

Requests are signed by the gateway (:mod:`cotguard.http.signing`): a client's signature covers the host and the body.

A model's format is told by its identifier: a name, one with the regions it may run in before it, or an ARN that ends in
one. Of an ARN that does not (an application's inference profile, an imported model) only Converse is served.

Claude models take reasoning back only with its signature, which is sealed (:mod:`cotguard.dialects.bedrock.sealed`);
reasoning without one is left out of what they are sent.

Source: botocore ``data/bedrock-runtime``; the user guide on inference request parameters of models.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.anthropic.dialect import Anthropic, moderated, prepare
from cotguard.dialects.bedrock.claude import ClaudeStream
from cotguard.dialects.bedrock.converse import ConverseShapes, ConverseStream, NovaStream, converse_body
from cotguard.dialects.bedrock.sealed import restore
from cotguard.dialects.bedrock.stream import Exceptions
from cotguard.dialects.bedrock.text import CompletionStream, TextForm, text_body
from cotguard.dialects.contract import CUT_NOTICE, ErrorKind, Incoming, Prepared, Refused, Translator
from cotguard.dialects.request import bad, objects, read_body, string, texts, without
from cotguard.dialects.tabled import TabledDialect
from cotguard.dialects.whole import read_object
from cotguard.framing.json import dumps
from cotguard.moderation.exchange import Exchange
from cotguard.sealing.seals import Seals

__all__ = ["Bedrock"]

_REGIONS = re.compile(r"(?:us|us-gov|eu|apac|au|ca|jp|global)\.")
_UNKNOWN = "The format this model has with InvokeModel is not moderated. Use Converse or ConverseStream."
_NO_MESSAGES = "Of this model InvokeModel is served with a prompt only. Use Converse for messages."
_NO_TRACE = "guardrailConfig.trace is not supported here: a trace repeats what the guardrail masked."
_STREAMED = "application/vnd.amazon.eventstream"
_CONVERSE = ("converse", "converse-stream")


class Bedrock(TabledDialect):
    """A :class:`~cotguard.dialects.contract.Dialect`."""

    file = "bedrock/bedrock.yaml"

    def __init__(self, table: str | None = None) -> None:
        super().__init__(table)
        self._exceptions = Exceptions.of(self.table)
        self._shapes = ConverseShapes.of(self.table)
        self._claude = Anthropic().form
        self._families = self.table.pairs("families")
        self._forms: Mapping[str, TextForm] = {
            "titan": self._form("titan", "inputText", "results", "", "outputText", "completionReason"),
            "llama": self._form("llama", "prompt", "", "", "generation", "stop_reason"),
            "mistral": self._form("mistral", "prompt", "outputs", "outputs", "text", "stop_reason"),
            "deepseek": self._form("deepseek", "prompt", "choices", "choices", "text", "stop_reason"),
        }
        self._stripped = self.table.names("request", "strip")
        self._refused = self.table.names("request", "refuse")
        self._mirrors = self.table.names("request", "mirrors")

    def _form(self, name: str, prompt: str, within: str, chunk_within: str, text: str, reason: str) -> TextForm:
        whole = self.table.shape(name)
        chunk = self.table.shape("titan_stream") if name == "titan" else whole
        cut, notice = ("CONTENT_FILTERED", "") if name == "titan" else ("stop", CUT_NOTICE)
        return TextForm(prompt, whole, chunk, within, chunk_within, text, reason, cut, notice)

    # Requests.

    def prepare(self, request: Incoming) -> Prepared:
        body = without(read_body(request.body), self._stripped, self._refused)
        identifier = request.parameters["model"]
        model = _REGIONS.sub("", identifier.rpartition("/")[2], count=1)
        action = request.route.action
        if action in _CONVERSE:
            return self._converse(body, model, action, action == "converse-stream", request.seals)
        family = next((family for name, family in self._families.items() if model.startswith(name)), "refused")
        stream = action == "invoke-stream"
        if family == "anthropic":
            return replace(prepare(request, self._claude, model), stream=stream, action=family)
        if family == "nova":
            return self._converse(body, model, family, stream, request.seals)
        if family not in self._forms:
            raise Refused(400, ErrorKind.UNSUPPORTED, _UNKNOWN)
        body = without(body, self._mirrors, frozenset())
        if "messages" in body:
            raise Refused(400, ErrorKind.UNSUPPORTED, _NO_MESSAGES)
        return Prepared(
            document=body,
            model=model.replace(".", "-", 1) if family == "deepseek" else model,  # its name elsewhere
            stream=stream,
            facts=RequestFacts((), string(body, self._forms[family].prompt)),
            action=family,
        )

    def _converse(self, body: dict[str, Any], model: str, action: str, stream: bool, seals: Seals | None) -> Prepared:
        guardrail = _mapping(body, "guardrailConfig")
        if guardrail.get("trace") not in (None, "disabled"):
            raise Refused(400, ErrorKind.UNSUPPORTED, _NO_TRACE)
        messages = objects(body, "messages")
        additional = _mapping(body, "additionalModelRequestFields")
        if additional:
            body["additionalModelRequestFields"] = without(additional, self._mirrors, frozenset())
        if seals is not None and messages:
            body["messages"] = messages = restore(messages, seals, model)
        if model.startswith("anthropic.") and messages:
            body["messages"] = messages = [_without_unsigned(each) for each in messages]
        system = [text for each in messages if each.get("role") == "system" for text in _texts(each)]
        system = [text for block in objects(body, "system") for text in _block_texts(block)] + system
        asked = [each for each in messages if each.get("role") == "user"]
        return Prepared(
            document=body,
            model=model,
            stream=stream,
            facts=RequestFacts(tuple(system), "\n".join(_texts(asked[-1])) if asked else ""),
            tools=frozenset(_declared(body, additional)),
            action=action,
            seals=seals,
        )

    # Responses.

    def stream(self, prepared: Prepared, exchange: Exchange, content_type: str) -> Translator | None:
        if content_type != _STREAMED or not prepared.stream:
            return None
        if prepared.action in _CONVERSE:
            return ConverseStream(self._shapes, prepared, exchange, self._exceptions)
        if prepared.action == "nova":
            return NovaStream(self._shapes, prepared, exchange, self._exceptions)
        if prepared.action == "anthropic":
            return ClaudeStream(self._claude, self._shapes.invocation, prepared, exchange, self._exceptions)
        form = self._forms[prepared.action]
        return CompletionStream(form, self._shapes.invocation, prepared, exchange, self._exceptions)

    def body(self, data: bytes, prepared: Prepared, exchange: Exchange) -> bytes:
        value = read_object(data, prepared.reported)
        if prepared.action == "anthropic":
            return dumps(moderated(value, self._claude, prepared, exchange))
        form = self._forms.get(prepared.action)
        if form is None:
            return dumps(converse_body(value, self._shapes, prepared, exchange))
        return dumps(text_body(value, form, prepared, exchange))

    def error(self, kind: ErrorKind, message: str) -> bytes:
        return dumps({"__type": self._exceptions.kinds.get(kind.value, "InternalServerException"), "message": message})

    def upstream_error(self, status: int, data: bytes) -> bytes:
        name = self._exceptions.statuses.get(str(status), "ModelErrorException")
        return dumps(self.reported(name, f"The upstream answered with status {status}."))

    def reported(self, error: object, message: str) -> dict[str, object]:
        return {"__type": error, "message": message}


def _mapping(body: Mapping[str, object], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad(f"The field '{name}' must be an object.")
    return value


def _texts(message: dict[str, Any]) -> list[str]:
    """The texts of a message: of its blocks, those that a guardrail looks at included."""
    content = message.get("content")
    if not isinstance(content, list):
        return list(texts(content))
    return [text for block in content if isinstance(block, dict) for text in _block_texts(block)]


def _block_texts(block: dict[str, Any]) -> list[str]:
    guarded = block.get("guardContent")
    inner = guarded.get("text") if isinstance(guarded, dict) else None
    found = (block.get("text"), inner.get("text") if isinstance(inner, dict) else None)
    return [text for text in found if isinstance(text, str)]


def _without_unsigned(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return {**message, "content": [block for block in content if not _is_unsigned(block)]}


def _is_unsigned(block: object) -> bool:
    reasoning = block.get("reasoningContent") if isinstance(block, dict) else None
    text = reasoning.get("reasoningText") if isinstance(reasoning, dict) else None
    return isinstance(text, dict) and not text.get("signature")


def _declared(body: dict[str, Any], additional: dict[str, Any]) -> list[str]:
    """The names of tools: of the request's, and of those in a model's own format."""
    tools = objects(_mapping(body, "toolConfig"), "tools")
    specified = [tool.get(kind) for tool in tools for kind in ("toolSpec", "systemTool")]
    own = additional.get("tools")
    specified += own if isinstance(own, list) else []
    names = [each.get("name") for each in specified if isinstance(each, dict)]
    return [name for name in names if isinstance(name, str)]
