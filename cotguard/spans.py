"""The words everything else is written in: channel kinds, spans and actions.

Offsets are code points of one channel's text, half-open ``[start, end)``.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

__all__ = ["INBOUND", "Action", "ChannelKind", "Span"]


class ChannelKind(StrEnum):
    """What a channel's text is. The first row is written by the model, the second is sent to it."""

    REASONING = "reasoning"
    OUTPUT = "output"
    TOOL_CALL = "tool_call"
    REFUSAL = "refusal"
    OTHER = "other"

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL_RESULT = "tool_result"
    TOOL_DESCRIPTION = "tool_description"


INBOUND: Final = (
    ChannelKind.SYSTEM,
    ChannelKind.USER,
    ChannelKind.ASSISTANT,
    ChannelKind.TOOL_RESULT,
    ChannelKind.TOOL_DESCRIPTION,
)
"""Those that are sent to the model."""


class Action(StrEnum):
    """What the policy does with a span, from mildest to most severe."""

    ALLOW = "allow"
    FLAG = "flag"
    MASK = "mask"
    PSEUDONYMIZE = "pseudonymize"
    HASH = "hash"
    REDACT = "redact"
    WITHHOLD = "withhold"
    BLOCK = "block"

    @property
    def severity(self) -> int:
        """Rank for choosing among overlapping spans: the larger wins."""
        return _SEVERITY[self]

    @property
    def rewrites(self) -> bool:
        """Whether delivered text differs from the model's."""
        return _SEVERITY[self] >= _SEVERITY[Action.MASK]


_SEVERITY = {action: rank for rank, action in enumerate(Action)}


@dataclass(frozen=True, slots=True)
class Span:
    """A found value. ``score`` is in [0, 1]; ``detector`` names the finder, as ``detector/rule``.

    ``value`` is what the span's text stands for, where that may be another text (the base64 of a value ...), and
    ``None`` where it is that text itself. A part of a value stands for nothing: its ``value`` is empty.
    """

    start: int
    end: int
    entity: str
    score: float
    detector: str
    value: str | None = field(default=None, repr=False)

    @property
    def learned(self) -> bool:
        """Whether a model found it; what a pattern and its checks found at the same place goes before it."""
        return self.detector.startswith("classifier/")

    def moved(self, start: int, end: int) -> "Span":
        """The same value at other offsets."""
        return replace(self, start=start, end=end)

    def part(self, start: int, end: int) -> "Span":
        """A part of the value, at other offsets."""
        return replace(self, start=start, end=end, value=self.value or "")

    @property
    def given(self) -> bool:
        """Whether it is a placeholder that was given out in this exchange: it is restored, whatever the policy says."""
        return self.detector == "placeholders/given"
