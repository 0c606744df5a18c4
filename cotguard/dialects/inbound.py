"""Requests as texts: what a client sends, whose each text is, and how it is read.

The section ``inbound`` of a dialect's table has rows of two forms:

    tools: tool_description                  # what stands in the field `tools`
    function.name: word                      # the field `name` of what stands in the field `function`
    role=assistant: assistant                # what stands in an object whose field `role` is `assistant`

A field is named by the end of its path, items of lists are transparent, and the longest row counts. Meanings:

* a kind of text (``system``, ``user``, ``assistant``, ``tool_result``, ``tool_description``): that of all texts inside,
  until another row says otherwise. What is in a tool's result or description stays that, whatever is inside.
* ``json``: a value of any shape, read as one document with its keys. A kind may stand before it;
* ``media``: a file in base64, which no detector reads; other strings there are texts. ``tokens``: lists of numbers;
* ``turns``: the conversation, which is read last, so that what is numbered while reading keeps its number as it grows;
* a check (``CHECKS``, or one of the table's): structure, which is left alone where the check holds.

Guarantees: every string of a request is structure that passed its check, media, or a text; without any row it is a text
of the user's. A text that holds a JSON document is read as one, and so is an object with keys that do not look like an
API's. Where requests are moderated, no value with a form of its own passes as structure, as a key or as a number: such
a request is refused, since the upstream would not take a placeholder there.

Limits: what leads back to the upstream's own ciphertext, and UUIDs, are not read. Values across two texts are not
found, nor those escaped in JSON within a text that is none.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cotguard.dialects.contract import ErrorKind, Refused, Restored
from cotguard.dialects.table import Check, Step, matching
from cotguard.framing.json import JSONError, dumps, loads
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.json_view import JsonView
from cotguard.moderation.view import PlainView, View
from cotguard.policy import Media, RequestTexts
from cotguard.spans import INBOUND, ChannelKind

__all__ = ["CHECKS", "NO_MEDIA", "Contents", "Inbound", "InboundText", "moderate_request"]

_JSON = "json"
_MEDIA = "media"
_TOKENS = "tokens"
_TURNS = "turns"
_OPAQUE = "opaque"
_READINGS = frozenset({_JSON, _MEDIA, _TOKENS, _TURNS})
_CHANNELS: Mapping[str, ChannelKind] = {kind.value: kind for kind in INBOUND}
_UNTRUSTED = frozenset({ChannelKind.TOOL_RESULT, ChannelKind.TOOL_DESCRIPTION})

CHECKS: Mapping[str, Check] = {
    "label": matching(r"[A-Za-z][A-Za-z_.-]{0,47}[0-9]{0,8}"),
    "handle": matching(r"[0-9]{1,8}|(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}"),
    "model": matching(r"[A-Za-z0-9][A-Za-z0-9_.:/+-]{0,191}(@([0-9]{1,8}|latest|default))?"),
    "media_type": matching(r"[a-z]{1,16}/[A-Za-z0-9.+-]{1,80}(; ?[a-z]+=[A-Za-z0-9.-]{1,32})?"),
    "decimal": matching(r"-?[0-9]{0,6}(\.[0-9]{0,6})?"),
    _OPAQUE: matching(r"[A-Za-z0-9+/_-]{100,}={0,2}"),
}
"""Structure that clients write: words of the API, names and ids, models, ciphertext of the upstream's. None of it looks
like a number of an account or an address."""

_BY_CHANCE = re.compile(r"(?:[a-z]{1,12}[_-]){0,2}[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
"""Ids among whose digits one finds anything, once in some thousand."""

_LEAST_NUMBER = 100_000
"""Smaller ones are no values with a form of their own."""

_PLAIN_KEY = re.compile(r"[a-z_][A-Za-z_-]{0,40}[0-9]{0,2}[A-Za-z_]{0,20}")
_FILE = re.compile(r"data:[^,]{0,256};base64,[A-Za-z0-9+/_=%\r\n-]*|[A-Za-z0-9+/_=\r\n-]{256,}", re.IGNORECASE)
"""A data URI, or base64. Anything shorter than a file could be is a text."""

_ADDRESS = re.compile(r"(?!https?:)[a-z0-9]{1,8}:[^ ]*", re.IGNORECASE)
"""The address of a file in a store, or a data URI that is no base64: media, which can be read all the same."""

_IN_STRUCTURE = "A name, an id, a key or a number in the request holds a value that the policy takes out."
NO_MEDIA = "The policy lets no content pass that cannot be read: send texts only."


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
class Contents:
    """What is in a request. ``words``: structure, keys and numbers, each once, with the kind of what it stands in."""

    texts: list[InboundText] = field(default_factory=list)
    words: set[tuple[ChannelKind, str]] = field(default_factory=set, repr=False)
    media: bool = False


class _Meaning(NamedTuple):
    """A row's: the kind of the texts inside, if it says so, and how they are read."""

    kind: ChannelKind | None = None
    reading: str = ""


_NO_ROW = _Meaning()


class Inbound:
    """A section ``inbound``, compiled. ``ValueError`` names the row that cannot be read."""

    def __init__(self, rows: Mapping[str, str], checks: Mapping[str, Check]) -> None:
        self._checks = {**checks, **CHECKS}
        self._fields: dict[str, list[tuple[tuple[str, ...], _Meaning]]] = {}
        self._values: dict[str, dict[str, ChannelKind]] = {}
        for row, told in rows.items():
            meaning = self._read_meaning(row, told)
            name, is_value, value = row.partition("=")
            if not is_value:
                names = tuple(name.split("."))
                self._fields.setdefault(names[-1], []).append((names, meaning))
            elif meaning.kind is not None and not meaning.reading:
                self._values.setdefault(name, {})[value] = meaning.kind
            else:
                raise ValueError(f"inbound: {row}: {told!r} is no kind of text")
        for found in self._fields.values():
            found.sort(key=lambda row: -len(row[0]))

    def _read_meaning(self, row: str, told: str) -> _Meaning:
        first, _, rest = told.partition(" ")
        kind = _CHANNELS.get(first)
        reading = told if kind is None else rest
        if reading not in _READINGS and reading not in self._checks and (kind is None or reading):
            raise ValueError(f"inbound: {row}: {told!r} is neither a kind of text, nor a reading, nor a check")
        return _Meaning(kind, reading)

    def read(self, document: Mapping[str, Any]) -> Contents:
        """What is in a request's document."""
        read = Contents()
        turns = [name for name in document if self._meaning((name,)).reading == _TURNS]
        ordered = {name: document[name] for name in (*(name for name in document if name not in turns), *turns)}
        self._read_object(ordered, (), (), ChannelKind.USER, read)
        return read

    def read_fields(self, fields: Sequence[tuple[str, str]]) -> Contents:
        """What is in a form's fields; a text's path is the place of its field, and 1."""
        read = Contents()
        meanings = [self._meaning((name,)) for name, _ in fields]
        for at in sorted(range(len(fields)), key=lambda at: meanings[at].reading == _TURNS):
            name, value = fields[at]
            self._read_value(value, meanings[at], (name,), (at, 1), ChannelKind.USER, read)
        return read

    def _meaning(self, names: tuple[str, ...]) -> _Meaning:
        for row, meaning in self._fields.get(names[-1], ()):
            if names[-len(row) :] == row:
                return meaning
        return _NO_ROW

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
        read: Contents,
    ) -> None:
        if isinstance(value, Restored):
            return
        if path:
            kind = self._kind_inside(value, kind)
            if not all(map(_PLAIN_KEY.fullmatch, value)):
                _add_json(value, path, kind, read)
                return
        for name, each in value.items():
            read.words.add((kind, name))
            inner = (*names, name)
            meaning = self._meaning(inner)
            inside = kind if meaning.kind is None or kind in _UNTRUSTED else meaning.kind
            self._read_value(each, meaning, inner, (*path, name), inside, read)

    def _read_value(
        self,
        value: Any,
        meaning: _Meaning,
        names: tuple[str, ...],
        path: tuple[Step, ...],
        kind: ChannelKind,
        read: Contents,
    ) -> None:
        reading = meaning.reading
        if isinstance(value, str):
            self._read_string(value, reading, path, kind, read)
        elif value is None or isinstance(value, bool):
            pass
        elif reading == _JSON:
            _add_json(value, path, kind, read)
        elif isinstance(value, list):
            if reading == _TOKENS and any(type(each) is int for each in value):
                read.media = True
                return
            for at, each in enumerate(value):
                self._read_value(each, meaning, names, (*path, at), kind, read)
        elif isinstance(value, dict):
            self._read_object(value, names, path, kind, read)
        elif abs(value) >= _LEAST_NUMBER:
            read.words.add((kind, str(value)))

    def _read_string(self, value: str, reading: str, path: tuple[Step, ...], kind: ChannelKind, read: Contents) -> None:
        if reading == _MEDIA and _FILE.fullmatch(value):
            read.media = True
        elif reading in self._checks and self._checks[reading](value):
            if reading != _OPAQUE and not _BY_CHANCE.fullmatch(value):
                read.words.add((kind, value))
        elif value:
            read.media |= reading == _MEDIA and _ADDRESS.fullmatch(value) is not None
            read.texts.append(InboundText(kind, path, value, json=_is_document(value)))


def _add_json(value: Any, path: tuple[Step, ...], kind: ChannelKind, read: Contents) -> None:
    text = dumps(value).decode("utf-8", "surrogatepass")
    read.texts.append(InboundText(kind, path, text, json=True, structured=True))


def _is_document(text: str) -> bool:
    if text.lstrip()[:1] not in ("{", "["):
        return False
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
    body, form = inbound.read(document), inbound.read_fields(fields)
    if (body.media or form.media) and terms.media is Media.REFUSE:
        raise Refused(400, ErrorKind.UNSUPPORTED, NO_MEDIA)
    if terms.texts is RequestTexts.IGNORE:
        return
    if exchange.policy.asks_origins:
        for text in (*body.texts, *form.texts):
            exchange.note(text.view(), text.text)
    if terms.texts is RequestTexts.MODERATE:
        words = sorted(body.words | form.words)
        if not all(exchange.is_plain(kind, word) for kind, word in words):
            raise Refused(400, ErrorKind.BAD_REQUEST, _IN_STRUCTURE)
    for text, written in _read(body.texts, exchange):
        text.put(document, written)
    for text, written in _read(form.texts, exchange):
        at = text.path[0]
        if isinstance(at, int):
            fields[at] = (fields[at][0], written)


def _read(texts: Sequence[InboundText], exchange: Exchange) -> Iterator[tuple[InboundText, str]]:
    """The texts that are rewritten, with what is to stand there."""
    for text in texts:
        written = exchange.read(text.view(), text.text)
        if written != text.text:
            yield text, written
