"""Requests of the Gemini API, read and rewritten.

Google's servers take a field under its JSON name and under its name in the proto file (``generationConfig``,
``generation_config``), and an object where a list of one is meant (proto3's JSON mapping; the examples of Vertex AI).
Objects that are rewritten here get the JSON names first; what is only read is found under either.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.contract import ErrorKind, Incoming, Refused
from cotguard.dialects.request import bad, integer, read_body, texts, without
from cotguard.dialects.table import Table

__all__ = ["MAX_CANDIDATES", "Asked", "Rules"]

MAX_CANDIDATES = 8


class Asked:
    """A request's body as it goes upstream, and what it says. Raises :class:`Refused`."""

    def __init__(self, body: dict[str, Any], choices: int) -> None:
        self.body = body
        self.choices = choices
        self.facts = _facts(body)
        self.tools = frozenset(_declared(body))


class Rules:
    """Which switches of a request are taken out or refused."""

    def __init__(self, table: Table) -> None:
        self._refused = table.names("request", "refuse")
        self._stripped_config = table.names("request", "strip_config")
        self._refused_config = table.names("request", "refuse_config")
        self._modalities = table.names("request", "modalities")

    def read(self, request: Incoming) -> Asked:
        """The request, checked and rewritten."""
        if any(character in value for value in request.parameters.values() for character in "/:"):
            raise bad("The path names no model.")
        streamed = request.route.action == "stream"
        if request.query.get("alt", "json") not in (("json", "sse") if streamed else ("json",)):
            raise Refused(400, ErrorKind.UNSUPPORTED, "The query parameter 'alt' asks for a form that is not served.")
        body = without(_named(read_body(request.body)), frozenset(), self._refused)
        if "store" in body:
            body["store"] = False
        choices = 1
        config = body.get("generationConfig")
        if config is not None:
            if not isinstance(config, dict):
                raise bad("The field 'generationConfig' must be an object.")
            config = without(_named(config), self._stripped_config, self._refused_config)
            body["generationConfig"] = config
            choices = integer(config, "candidateCount", 1, MAX_CANDIDATES, default=1)
            modalities = _listed(config.get("responseModalities"))
            if not all(isinstance(each, str) and each.upper() in self._modalities for each in modalities):
                raise Refused(400, ErrorKind.UNSUPPORTED, "Only text can be moderated: ask for no other modality.")
        return Asked(body, choices)


def _named(value: Mapping[str, Any]) -> dict[str, Any]:
    """An object with its fields under their JSON names."""
    named: dict[str, Any] = {}
    for name, each in value.items():
        first, *rest = name.split("_")
        json_name = first + "".join(word[:1].upper() + word[1:] for word in rest)
        if json_name in named:
            raise bad("A field of the request is there twice, under two names.")
        named[json_name] = each
    return named


def _listed(value: object) -> list[Any]:
    """A list; of one, where the value is no list; empty for null."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _objects(value: object) -> Iterator[dict[str, Any]]:
    for each in _listed(value):
        if not isinstance(each, dict):
            raise bad("A field of the request holds something else than objects.")
        yield each


def _facts(body: Mapping[str, Any]) -> RequestFacts:
    instruction = body.get("systemInstruction")
    system = [instruction] if isinstance(instruction, str) else [_text(each) for each in _objects(instruction)]
    user = ""
    for content in _objects(body.get("contents")):
        if content.get("role") in (None, "", "user"):
            user = _text(content) or user
    return RequestFacts(tuple(text for text in system if text), user)


def _text(content: Mapping[str, Any]) -> str:
    return "".join(texts(_listed(content.get("parts"))))


def _declared(body: Mapping[str, Any]) -> Iterator[str]:
    for tool in _objects(body.get("tools")):
        for spelling in ("functionDeclarations", "function_declarations"):
            for function in _objects(tool.get(spelling)):
                name = function.get("name")
                if isinstance(name, str):
                    yield name
