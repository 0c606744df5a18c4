"""What is to be rewritten in a channel's text: findings, and groups of them that are rewritten as one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cotguard.moderation.view import View
from cotguard.spans import Action, ChannelKind, Span

__all__ = ["Finding", "Group", "Range", "around"]

_ENDING = re.compile(r"['’]?[sS](?!\w)")
"""Of a plural or a possessive."""

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Finding:
    """A span that something is done about."""

    span: Span
    kind: ChannelKind
    action: Action


@dataclass(slots=True)
class Group:
    """Findings that overlap, or stand in the target of one link, rewritten as one.

    ``[start, end)`` is what is rewritten, the target included; ``[value_start, value_end)`` what was found in it, from
    which the replacement is made.
    """

    start: int
    end: int
    value_start: int
    value_end: int
    findings: list[Finding] = field(default_factory=list)

    @property
    def decisive(self) -> Finding:
        """The finding whose action and entity the group gets.

        The most severe action wins; then patterns, which know more kinds of values, before the classifier; then length.
        """
        return max(
            self.findings,
            key=lambda f: (
                f.action.severity,
                not f.span.learned,
                f.span.end - f.span.start,
                f.span.score,
                -f.span.start,
                f.span.entity,
            ),
        )

    @property
    def counted(self) -> list[Finding]:
        """The findings the account tells: what the classifier thinks of a value with a known format is left out."""
        return [f for f in self.findings if not f.span.learned] or self.findings


def around(view: View, start: int, end: int, given: Sequence[Span]) -> list[Range]:
    """The parts of ``[start, end)`` outside ``given`` with letters or digits in them, without space around.

    An ending of a word that is given goes with it.
    """
    parts: list[Range] = []
    at, behind = start, False
    for stop, following in [*((span.start, span.end) for span in given), (end, end)]:
        text = view.slice(at, min(stop, end)) if at < stop else ""
        if behind and (ending := _ENDING.match(text)):
            at += ending.end()
            text = text[ending.end() :]
        if any(map(str.isalnum, text)):
            parts.append((at + len(text) - len(text.lstrip()), at + len(text.rstrip())))
        at, behind = max(at, following), at <= following
    return parts
