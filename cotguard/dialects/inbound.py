"""Requests as texts: what a client sends, whose each text is, and how it is read.

The section ``inbound`` of a dialect's table has rows of two forms:

    tools: tool_description                  # what stands in the field `tools`
    function.name: word                      # the field `name` of what stands in the field `function`
    role=assistant: assistant                # what stands in an object whose field `role` is `assistant`

A field is named by the end of its path, items of lists are transparent, and the longest row counts. Meanings:

* a kind of text (``system``, ``user``, ``assistant``, ``tool_result``, ``tool_description``): that of all texts inside,
  until another row says otherwise. What is in a tool's result or description stays that, whatever is inside.
* ``json``: a value of any shape, or a text that holds one, read as one document with its keys;
* ``media``: a file in base64, which no detector reads; other strings there are texts. ``tokens``: lists of numbers;
* ``turns``: the conversation, which is read last, so that what is numbered while reading keeps its number as it grows;
* a check (``CHECKS``, or one of the table's): structure, which is left alone where the check holds.

Guarantees: every string of a request is structure that passed its check, media, or a text; without any row it is a text
of the user's. An object with keys that do not look like an API's is read as JSON.

Limits: numbers outside ``json`` are not read. Values across two texts are not found.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cotguard.dialects.contract import ErrorKind, Refused, Restored
from cotguard.dialects.table import Check, Step, matching
from cotguard.framing.json import JSONError, dumps, loads
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.json_view import JsonView
from cotguard.moderation.view import PlainView, View
from cotguard.policy import Media, RequestTexts
from cotguard.spans import ChannelKind

__all__ = ["CHECKS", "Inbound", "InboundText", "moderate_request"]

_JSON = "json"
_MEDIA = "media"
_TOKENS = "tokens"
_TURNS = "turns"
_READINGS = frozenset({_JSON, _MEDIA, _TOKENS, _TURNS})
_CHANNELS: Mapping[str, ChannelKind] = {
    kind.value: kind
    for kind in (
        ChannelKind.SYSTEM,
        ChannelKind.USER,
        ChannelKind.ASSISTANT,
        ChannelKind.TOOL_RESULT,
        ChannelKind.TOOL_DESCRIPTION,
    )
}
_UNTRUSTED = frozenset({ChannelKind.TOOL_RESULT, ChannelKind.TOOL_DESCRIPTION})

CHECKS: Mapping[str, Check] = {
    "label": matching(r"[A-Za-z][A-Za-z_.-]{0,47}[0-9]{0,8}"),
    "handle": matching(r"[0-9]{1,8}|(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}"),
    "model": matching(r"[A-Za-z0-9][A-Za-z0-9_.:/+-]{0,191}(@([0-9]{1,8}|latest|default))?"),
    "media_type": matching(r"[a-z]{1,16}/[A-Za-z0-9.+-]{1,80}(; ?[a-z]+=[A-Za-z0-9.-]{1,32})?"),
    "decimal": matching(r"-?[0-9]{0,6}(\.[0-9]{0,6})?"),
    "opaque": matching(r"[A-Za-z0-9+/_-]{40,}={0,2}"),
}
"""Structure that clients write: words of the API, names and ids, models, ciphertext of the upstream's. None of it looks
like a number of an account or an address."""

_PLAIN_KEY = re.compile(r"[a-z_][A-Za-z_-]{0,40}[0-9]{0,2}[A-Za-z_]{0,20}")
_FILE = re.compile(
    r"data:[^,]{0,256},.*|[A-Za-z0-9+/_=\r\n-]{256,}|(?!https?:)[a-z0-9]{1,8}:[^ ]*", re.DOTALL | re.IGNORECASE
)
"""A data URI, base64, or the address of a file in a store. Anything shorter than a file could be is a text."""

_NO_MEDIA = "The policy lets no content pass that cannot be read: send texts only."


@dataclass(slots=True)
class InboundText:
    """A text of a request and where it stands. ``structured``: a JSON value stands there, not a string."""

    kind: ChannelKind
    path: tuple[Step, ...]
    text: str = field(repr=False)
    json: bool = False
    structured: bool = False

    def view(self) -> View:
        """The view that the text is read by."""
        return JsonView(self.kind) if self.json else PlainView(self.kind)

    def put(self, root: Any, text: str) -> None:
        """Put ``text`` where this one stands."""
        for step in self.path[:-1]:
            root = root[step]
        root[self.path[-1]] = loads(text.encode("utf-8", "surrogatepass")) if self.structured else text


@dataclass(slots=True)
class _Read:
    """What was found so far."""

    texts: list[InboundText]
    media: bool = False


class Inbound:
    """A section ``inbound``, compiled. ``ValueError`` names the row that cannot be read."""

    def __init__(self, rows: Mapping[str, str], checks: Mapping[str, Check]) -> None:
        checks = {**checks, **CHECKS}
        self._checks = checks
        self._fields: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        self._values: dict[str, dict[str, ChannelKind]] = {}
        for row, meaning in rows.items():
            if meaning not in _CHANNELS and meaning not in _READINGS and meaning not in checks:
                raise ValueError(f"inbound: {row}: {meaning!r} is neither a kind of text, nor a reading, nor a check")
            name, is_value, value = row.partition("=")
            if is_value:
                self._values.setdefault(name, {})[value] = _CHANNELS[meaning]
            else:
                names = tuple(name.split("."))
                self._fields.setdefault(names[-1], []).append((names, meaning))
        for found in self._fields.values():
            found.sort(key=lambda row: -len(row[0]))

    def read(self, document: Mapping[str, Any]) -> tuple[list[InboundText], bool]:
        """The texts of a request, and whether there is media in it."""
        read = _Read([])
        turns = [name for name in document if self._meaning((name,)) == _TURNS]
        for name in (*(name for name in document if name not in turns), *turns):
            self._read_field(document, name, (), (), ChannelKind.USER, read)
        return read.texts, read.media

    def read_fields(self, fields: Sequence[tuple[str, str]]) -> list[InboundText]:
        """The texts of a form's fields; a text's path is the place of its field, and 1."""
        read = _Read([])
        for at, (name, value) in enumerate(fields):
            self._read_value(value, self._meaning((name,)), (name,), (at, 1), ChannelKind.USER, read)
        return read.texts

    def _meaning(self, names: tuple[str, ...]) -> str:
        for row, meaning in self._fields.get(names[-1], ()):
            if names[-len(row) :] == row:
                return meaning
        return ""

    def _kind_inside(self, value: Mapping[str, Any], kind: ChannelKind) -> ChannelKind:
        if kind not in _UNTRUSTED:
            for name, kinds in self._values.items():
                said = value.get(name)
                found = kinds.get(said) if isinstance(said, str) else None
                if found is not None:
                    return found
        return kind

    def _read_object(
        self,
        value: Mapping[str, Any],
        names: tuple[str, ...],
        path: tuple[Step, ...],
        kind: ChannelKind,
        read: _Read,
    ) -> None:
        if isinstance(value, Restored):
            return
        kind = self._kind_inside(value, kind)
        if not all(map(_PLAIN_KEY.fullmatch, value)):
            _add_json(value, path, kind, read)
            return
        for name in value:
            self._read_field(value, name, names, path, kind, read)

    def _read_field(
        self,
        holder: Mapping[str, Any],
        name: str,
        names: tuple[str, ...],
        path: tuple[Step, ...],
        kind: ChannelKind,
        read: _Read,
    ) -> None:
        names = (*names, name)
        meaning = self._meaning(names)
        if meaning in _CHANNELS and kind not in _UNTRUSTED:
            kind = _CHANNELS[meaning]
        self._read_value(holder[name], meaning, names, (*path, name), kind, read)

    def _read_value(
        self,
        value: Any,
        meaning: str,
        names: tuple[str, ...],
        path: tuple[Step, ...],
        kind: ChannelKind,
        read: _Read,
    ) -> None:
        if meaning == _JSON and isinstance(value, (dict, list, str)):
            _add_json(value, path, kind, read)
        elif isinstance(value, str):
            if meaning == _MEDIA and _FILE.fullmatch(value):
                read.media = True
            elif value and not (meaning in self._checks and self._checks[meaning](value)):
                read.texts.append(InboundText(kind, path, value))
        elif isinstance(value, list):
            if meaning == _TOKENS and any(type(each) is int for each in value):
                read.media = True
            for at, each in enumerate(value):
                self._read_value(each, meaning, names, (*path, at), kind, read)
        elif isinstance(value, dict):
            self._read_object(value, names, path, kind, read)


def _add_json(value: Any, path: tuple[Step, ...], kind: ChannelKind, read: _Read) -> None:
    if not isinstance(value, str):
        text = dumps(value).decode("utf-8", "surrogatepass")
        read.texts.append(InboundText(kind, path, text, json=True, structured=True))
    elif value:
        read.texts.append(InboundText(kind, path, value, json=_is_document(value)))


def _is_document(text: str) -> bool:
    try:
        return isinstance(loads(text.encode("utf-8", "surrogatepass")), (dict, list))
    except JSONError:
        return False


def moderate_request(
    inbound: Inbound, document: dict[str, Any], fields: list[tuple[str, str]], exchange: Exchange
) -> None:
    """Let ``exchange`` read the texts of a request, and put back what the policy rewrites.

    Raises :class:`Refused`, and what :meth:`~cotguard.moderation.exchange.Exchange.read` raises.
    """
    terms = exchange.policy.request
    if terms.texts is RequestTexts.IGNORE and terms.media is Media.PASS:
        return
    texts, media = inbound.read(document)
    if media and terms.media is Media.REFUSE:
        raise Refused(400, ErrorKind.UNSUPPORTED, _NO_MEDIA)
    if terms.texts is RequestTexts.IGNORE:
        return
    of_fields = inbound.read_fields(fields)
    for text in (*texts, *of_fields):
        exchange.note(text.view(), text.text)
    for text, written in _read(texts, exchange):
        text.put(document, written)
    for text, written in _read(of_fields, exchange):
        at = text.path[0]
        if isinstance(at, int):
            fields[at] = (fields[at][0], written)


def _read(texts: Sequence[InboundText], exchange: Exchange) -> Iterator[tuple[InboundText, str]]:
    """The texts that are rewritten, with what is to stand there."""
    for text in texts:
        written = exchange.read(text.view(), text.text)
        if written != text.text:
            yield text, written
