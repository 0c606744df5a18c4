"""What the gateway asks of a dialect. Everything here is sans-IO: bytes and objects in, bytes out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Any, NamedTuple, Protocol

from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.definitions import Tool
from cotguard.dialects.reported import Reported
from cotguard.moderation.exchange import Exchange
from cotguard.sealing.seals import Seals

__all__ = [
    "CUT_NOTICE",
    "UPSTREAM_REPORTED",
    "Dialect",
    "ErrorKind",
    "Incoming",
    "Prepared",
    "Refused",
    "Restored",
    "Route",
    "Translator",
    "Undelivered",
    "Upload",
    "UpstreamFault",
]

CUT_NOTICE = "[The rest of this response was removed by policy.]"
"""What tells of a policy block in a dialect that has no reason for it: at the end of the text."""

UPSTREAM_REPORTED = "The upstream reported an error."
"""What is told of an error that the upstream reported, beside its type and code."""


class ErrorKind(StrEnum):
    """Why an exchange ends in an error. The value is the ``code`` clients see and the label metrics carry."""

    BAD_REQUEST = "bad_request"
    BLOCKED = "blocked_by_policy"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    RATE_LIMITED = "rate_limited"
    UNSUPPORTED = "unsupported"
    NOT_FOUND = "not_found"
    TOO_LARGE = "too_large"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_INVALID = "upstream_invalid"
    UPSTREAM_INTERRUPTED = "upstream_interrupted"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    MODERATION_FAILED = "moderation_failed"
    OVERLOADED = "overloaded"
    SHUTTING_DOWN = "shutting_down"


class Refused(Exception):  # noqa: N818  # not an error of ours: an answer to the client
    """The client's request is refused. ``message`` is constant text: it never quotes the request's values.

    ``retry_after``: the seconds after which the same request may be accepted, where time alone can change that.
    """

    def __init__(self, status: int, kind: ErrorKind, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.retry_after = retry_after


class UpstreamFault(Exception):  # noqa: N818  # named beside ModerationFault: whose fault it is
    """The upstream sent something that cannot be read as the dialect, or ended early. ``message`` is constant text."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Route(NamedTuple):
    """A method and path that a dialect serves. ``path`` may hold ``{name}`` where a segment, or part of one, varies.

    ``action`` is the dialect's word for what is asked; ``upstream`` the path it goes to, if another than ``path``.
    ``query``: the parameters that are passed on; a request with any other is refused.
    ``lookup``: the answer holds no generated text, only structure, and is copied through the table.
    ``refused``: why the path is not served, as the client is told; empty where it is.
    ``signed``: the service that wants requests signed (AWS Signature Version 4); empty where none does.
    ``multipart``: the request is a form.
    """

    method: str
    path: str
    action: str
    upstream: str = ""
    query: frozenset[str] = frozenset()
    lookup: bool = False
    refused: str = ""
    signed: str = ""
    multipart: bool = False


@dataclass(frozen=True, slots=True)
class Upload:
    """A file in a form: its name and content type as they are written anew, its bytes as they came."""

    filename: str
    content_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request on one of a dialect's routes: what the route's braces matched, the query, the decoded body.

    Of a form, there are its fields and its file instead of a body.
    """

    route: Route
    parameters: Mapping[str, str]
    query: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    fields: Sequence[tuple[str, str]] = field(default=(), repr=False)
    file: Upload | None = None
    seals: Seals | None = field(default=None, repr=False)
    """Those of the exchange, unless nothing is sealed."""


class Restored(dict[str, Any]):
    """An object of a request's document that the upstream wrote and that must go back to it unchanged.

    It is not moderated again.
    """


@dataclass(slots=True)
class Prepared:
    """A request that may go upstream: its document, and what the response side needs to know."""

    document: dict[str, Any] = field(repr=False)
    """What the body that goes upstream is written from. Empty once it is sent: a stream lasts longer, and may be one of
    thousands."""
    model: str
    stream: bool
    facts: RequestFacts = field(repr=False)
    tools: frozenset[str] = frozenset()
    """Names of the tools the client declared; the model may call no other."""
    stops: frozenset[str] = field(default=frozenset(), repr=False)
    """Stop strings the client asked for; no other may be echoed."""
    usage_requested: bool = False
    choices: int = 1
    """How many choices were asked for; the upstream may send no other."""
    action: str = ""
    """The route's."""
    query: Mapping[str, str] | None = None
    """The upstream's query parameters, if others than the client's."""
    upstream: str = ""
    """The upstream's path, if another than the route's."""
    fields: list[tuple[str, str]] | None = field(default=None, repr=False)
    """If a form goes upstream instead of the body, what is in it beside ``file``."""
    file: Upload | None = None
    """None again once it is sent."""
    reported: Reported | None = None
    """Where what the upstream reports of the response is noted, if anybody wants to know."""
    seals: Seals | None = field(default=None, repr=False)
    """The request's: they seal what the response signs. Without them it is stripped."""


class Undelivered(Enum):
    """What of a translator's bytes has not reached the client and never will."""

    NOTHING = auto()
    LAST = auto()
    """Those that it returned last, and those that it has not returned yet."""
    ALL = auto()


class Translator(Protocol):
    """One streaming response: upstream bytes (content decoding done) in, bytes for the client out.

    ``receive``, ``end`` raise :class:`UpstreamFault` on undecodable input and let moderation errors through; the
    caller then sends ``fail(...)`` and stops. Nothing that is held is ever in the output of ``fail``.
    """

    @property
    def content_type(self) -> str:
        """Of what is written."""
        ...

    @property
    def finished(self) -> bool:
        """The response is complete as the dialect sees it (``[DONE]`` written, cut, or failed): read no further."""
        ...

    def receive(self, data: bytes) -> bytes: ...

    def end(self) -> bytes:
        """Upstream closed the body. Complete streams return their last bytes; others raise :class:`UpstreamFault`."""
        ...

    def fail(self, kind: ErrorKind, message: str, undelivered: Undelivered = Undelivered.NOTHING) -> bytes:
        """The dialect's error shape for a stream under way, of whose bytes some may not have been delivered."""
        ...

    def keep_alive(self) -> bytes:
        """Bytes that mean nothing and keep the connection open while text is held."""
        ...


class Dialect(Protocol):
    """One wire format."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str:
        """What people call it."""
        ...

    @property
    def servers(self) -> str:
        """Who speaks it, for people."""
        ...

    @property
    def routes(self) -> Sequence[Route]: ...

    def read_request(self, document: dict[str, Any], fields: list[tuple[str, str]], exchange: Exchange) -> None:
        """Let ``exchange`` read the texts of a request, a lookup's too, and put back what the policy rewrites.

        Raises :class:`Refused`, and what :meth:`~cotguard.moderation.exchange.Exchange.read` raises.
        """
        ...

    def prepare(self, request: Incoming) -> Prepared:
        """Read, check and rewrite a request (switches that open leaks are stripped). Raises :class:`Refused`."""
        ...

    def tools(self, document: Mapping[str, Any]) -> list[Tool]:
        """The tools that a request's document describes."""
        ...

    def stream(self, prepared: Prepared, exchange: Exchange, content_type: str) -> Translator | None:
        """Who translates a response of ``content_type``; None if that is not how this dialect streams."""
        ...

    def body(self, data: bytes, prepared: Prepared, exchange: Exchange) -> bytes:
        """Moderate a whole, non-streaming response. Raises :class:`UpstreamFault`."""
        ...

    def question(self, request: Incoming) -> dict[str, Any]:
        """The document of a lookup's request, as it goes upstream. Raises :class:`Refused`."""
        ...

    def lookup(self, data: bytes, action: str) -> bytes:
        """The answer of a route that is a lookup: its structure. Raises :class:`UpstreamFault`."""
        ...

    def error(self, kind: ErrorKind, message: str) -> bytes:
        """The dialect's error body for a response that has not begun."""
        ...

    def upstream_error(self, status: int, data: bytes) -> bytes:
        """An upstream's error body, rebuilt from its type and code; nothing else is copied."""
        ...
