"""Callers and their scopes: who asks, and what they may."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Final

from cotguard.callers.denied import Denied, Reason
from cotguard.spans import ChannelKind

__all__ = ["ANYBODY", "Caller", "Console", "Globs", "Priority", "Reasoning", "Scope", "models_of"]

Globs = tuple[str, ...]
"""Alternatives, as :mod:`fnmatch` reads them: ``*`` stands for any text, slashes included."""

_HIDDEN = frozenset({ChannelKind.REASONING})


class Reasoning(StrEnum):
    """Whether a caller sees what the model thought."""

    VISIBLE = "visible"
    HIDDEN = "hidden"


class Priority(StrEnum):
    """Who is served first when there is too much to do."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class Console(StrEnum):
    """What a caller may do in the web console: each includes those before."""

    NONE = "none"
    VIEW = "view"
    TRY = "try"
    CHANGE = "change"

    def includes(self, other: "Console") -> bool:
        """Whether it allows what ``other`` does."""
        rights = list(Console)
        return rights.index(self) >= rights.index(other)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a caller may. Every list in ``routes``, ``models`` and ``dialects`` must have a match.

    ``policy``: a ready policy's name or a file, the gateway's own when empty. Limits that are ``None`` are none.
    """

    routes: tuple[Globs, ...] = ()
    models: tuple[Globs, ...] = ()
    dialects: tuple[Globs, ...] = ()
    policy: str = ""
    requests_per_minute: int | None = None
    concurrency: int | None = None
    tokens_per_day: int | None = None
    reasoning: Reasoning = Reasoning.VISIBLE
    priority: Priority = Priority.NORMAL
    console: Console = Console.NONE

    @property
    def hidden(self) -> frozenset[ChannelKind]:
        """Kinds of text that are moderated and not written."""
        return _HIDDEN if self.reasoning is Reasoning.HIDDEN else frozenset()

    @property
    def limited(self) -> bool:
        """Whether there is anything to count."""
        return (self.requests_per_minute, self.concurrency, self.tokens_per_day) != (None, None, None)

    def narrowed(self, other: "Scope") -> "Scope":
        """What both allow, under this one's policy, with its priority and its right in the console."""
        return Scope(
            self.routes + other.routes,
            self.models + other.models,
            self.dialects + other.dialects,
            self.policy,
            _least(self.requests_per_minute, other.requests_per_minute),
            _least(self.concurrency, other.concurrency),
            _least(self.tokens_per_day, other.tokens_per_day),
            max(self.reasoning, other.reasoning, key=lambda reasoning: reasoning is Reasoning.HIDDEN),
            self.priority,
            self.console,
        )

    def check_route(self, path: str, dialect: str) -> None:
        """Raise :class:`Denied` if ``path``, as the dialect's table spells it, may not be asked."""
        if not _match(self.routes, path):
            raise Denied(Reason.ROUTE)
        if not _match(self.dialects, dialect):
            raise Denied(Reason.DIALECT)

    def check_models(self, names: Collection[str]) -> None:
        """Raise :class:`Denied` if any of the models may not be asked."""
        if not all(_match(self.models, name) for name in names):
            raise Denied(Reason.MODEL)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``id`` tells callers apart and is never shown; ``role`` is a name from the callers file, or empty."""

    id: str
    scope: Scope
    role: str = ""


ANYBODY: Final = Scope()


def models_of(parameters: Mapping[str, str], document: Mapping[str, Any]) -> frozenset[str]:
    """The models that a request names: in its path, in its document, as a fallback, or for a tool of the server's."""
    named = [parameters[name] for name in ("model", "deployment") if name in parameters]
    return frozenset(named) | frozenset(_named(document))


def _named(document: Mapping[str, Any]) -> Iterator[str]:
    for value in (document.get("model"), *_listed(document.get("models"))):
        if isinstance(value, str) and value:
            yield value
    for holder in (*_listed(document.get("fallbacks")), *_listed(document.get("tools"))):
        value = holder.get("model") if isinstance(holder, dict) else holder
        if isinstance(value, str):
            yield value


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _match(lists: tuple[Globs, ...], text: str) -> bool:
    return all(any(fnmatchcase(text, glob) for glob in globs) for globs in lists)


def _least(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)
