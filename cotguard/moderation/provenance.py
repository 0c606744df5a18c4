"""Provenance: what is learned from a request's texts about the values that may come back.

provenance = Provenance(policy)                        # one per exchange
provenance.origins.add(ChannelKind.SYSTEM, text)       # every text of the request
provenance.learn(ChannelKind.SYSTEM, text, spans)      # and what was found in it
detector = provenance.detector()                       # finds again what was learned; None: nothing to find

Values in texts that are not the user's own (``SOURCES``) are recalled if the policy may act on them in something that
the model writes. They must be telling enough to be looked for without their surroundings:

* a number has at least ``MIN_DIGITS`` digits, anything else at least three letters and digits;
* what the classifier found has two words or a digit: a first name by itself is everywhere. So a full name is recalled,
  and a part of it is left to the classifier, which reads the response, too.

Hazards and the PROMPT group are no values of a text, or have detectors of their own. A value longer than ``MAX_CHARS``
is not recalled: its encoded forms would not fit into what a channel may hold.
"""

from collections.abc import Iterable

from cotguard.detectors.characters import glues, squeeze
from cotguard.detectors.known_values import MIN_CHARS
from cotguard.detectors.recalled import Recalled
from cotguard.moderation.channel import ModerationFault
from cotguard.moderation.origins import Origins
from cotguard.policy import Policy
from cotguard.spans import ChannelKind, Span
from cotguard.taxonomy import GROUPS

__all__ = ["MAX_CHARS", "MAX_VALUES", "MIN_DIGITS", "SOURCES", "Provenance"]

SOURCES = frozenset({ChannelKind.SYSTEM, ChannelKind.TOOL_RESULT, ChannelKind.TOOL_DESCRIPTION})
"""Kinds of texts whose values are recalled."""

MAX_VALUES = 2_000
"""Different values that one request may hold; with more the exchange fails closed."""

MAX_CHARS = 4_096
"""Characters of the longest value that is recalled."""

MIN_DIGITS = 4
"""Digits of the shortest number that is recalled. Shorter ones are in every calculation."""

_WRITTEN = (
    ChannelKind.REASONING,
    ChannelKind.OUTPUT,
    ChannelKind.TOOL_CALL,
    ChannelKind.REFUSAL,
    ChannelKind.OTHER,
)
_NO_VALUES = frozenset((*GROUPS["HAZARD"], *GROUPS["PROMPT"]))


class Provenance:
    """See the module. ``origins`` tells where in the request a value stands."""

    __slots__ = ("_policy", "_values", "origins")

    def __init__(self, policy: Policy) -> None:
        self.origins = Origins()
        self._policy = policy
        self._values: dict[tuple[str, str], None] = {}  # entity and value, in order

    def learn(self, kind: ChannelKind, text: str, spans: Iterable[Span]) -> None:
        """The request has ``text``, of ``kind``, with ``spans`` in it.

        Raises :class:`~cotguard.moderation.channel.ModerationFault` when there are more than ``MAX_VALUES`` values.
        """
        if kind not in SOURCES:
            return
        for span in spans:
            value = text[span.start : span.end].strip()
            if (span.entity, value) not in self._values and self._is_recalled(span, value):
                self._values[span.entity, value] = None
                if len(self._values) > MAX_VALUES:
                    raise ModerationFault(f"more than {MAX_VALUES} values in the request's texts")

    def _is_recalled(self, span: Span, value: str) -> bool:
        if span.entity in _NO_VALUES or len(value) > MAX_CHARS:
            return False
        return _is_telling(value, learned=span.learned) and self._policy.may_act(span.entity, _WRITTEN, span.score)

    def detector(self) -> Recalled | None:
        """Finds what was learned; ``None`` where that is nothing."""
        return Recalled(self._values) if self._values else None


def _is_telling(value: str, *, learned: bool) -> bool:
    core = squeeze(value)
    if core.isdigit():
        return len(core) >= MIN_DIGITS
    if len(core) < MIN_CHARS:
        return False
    return not learned or any(map(str.isdigit, core)) or _words(value) > 1


def _words(text: str) -> int:
    """Words of ``text``; a letter of a script without case is a word of its own."""
    words = 0
    inside = False
    for character in text:
        glued = glues(character)
        words += character.isalnum() and not (glued and inside)
        inside = glued
    return words
