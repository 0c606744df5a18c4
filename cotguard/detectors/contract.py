"""The detector contract, from which chunk invariance (G1) and the irrevocable prefix (G2) follow.

A *detector* is made once per policy. For every channel it opens a *session*, which is fed the channel's text
piece by piece and says, after every piece,

* which spans are newly decided, and
* ``stable``: the offset such that no continuation of the text can add, remove or change a span that starts
  before it. ``stable`` never decreases.

For every way of cutting a text the union of all returned spans must be the same; after ``final`` everything is
decided. A session is pure: no clock, no randomness, no I/O. Spans may overlap and come in any order; merging is
the core's business. Work per session is linear in its text, and what it keeps is bounded.

A detector that needs work outside (a model) lets ``stable`` stand until the result is there; it is then asked
again with an empty piece.

Check a detector with :mod:`cotguard.detectors.conformance`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from cotguard.spans import ChannelKind, Span

__all__ = ["Detector", "RequestFacts", "Scope", "Session"]


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What detectors may know of the request: the texts of its system prompts, and the user's last message."""

    system_prompts: tuple[str, ...] = ()
    user: str = field(default="", repr=False)

    @classmethod
    def of(cls, texts: Iterable[tuple[str, str]]) -> Self:
        """Those of a request with these texts, each with its kind, in their order."""
        told = list(texts)
        return cls(
            tuple(text for kind, text in told if kind == ChannelKind.SYSTEM),
            next((text for kind, text in reversed(told) if kind == ChannelKind.USER), ""),
        )


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a session's text stands.

    ``context`` is text that comes right before offset 0 and belongs to an earlier channel; it occupies the
    offsets ``[-len(context), 0)``. A value that begins there and ends in this channel is reported with a
    negative start.
    """

    kind: ChannelKind
    context: str = ""
    request: RequestFacts = RequestFacts()


class Session(Protocol):
    """One channel under one detector."""

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        """Take the next piece of text; return newly decided spans and ``stable``, both in absolute offsets."""
        ...


class Detector(Protocol):
    """A family of spans, ready to open sessions."""

    @property
    def name(self) -> str:
        """Short name, the first part of ``Span.detector``."""
        ...

    @property
    def entities(self) -> frozenset[str]:
        """Entities it can report; a policy that allows all of them everywhere leaves the detector out."""
        ...

    def open(self, scope: Scope) -> Session | None:
        """A new session, or ``None`` where there is nothing to look for."""
        ...
