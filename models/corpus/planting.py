"""Texts with values whose places are known: frames filled, and set between the sentences of a carrier."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from models.corpus.values import NEGATIVES, VALUES, Values
from models.tagger.examples import Example

__all__ = ["SECRETS", "Text", "fill", "name_of", "plant"]

_SLOT = re.compile(r"\{([A-Z_]+|[a-z]+)\}")
SECRETS = frozenset({"PASSWORD", "KEY", "CONNECTION", "OTP"})
"""Slots whose values are labelled ``SECRET``."""
_PARTS = {"LASTFOUR": "CREDIT_CARD", "SPOKEN": "PHONE_NUMBER", "MASKED": "GOVERNMENT_ID"}
"""Slots of partial or spelt values, and what these are parts of."""
_SENTENCE_END = re.compile(r"((?<=[.!?])\s+|\n+)")
_LINE_END = re.compile(r"(\n)")
_NAME_PART = re.compile(r"\w[\w'’-]+")
_HONORIFICS = re.compile(r"^(?:\w{1,5}\.\s?)+|\s(?:[A-Z]{2,4}|Jr\.|I+V?|PhD|MD)\.?$")


@dataclass
class Text:
    """A text under construction."""

    text: str = ""
    spans: list[tuple[int, int, str]] = field(default_factory=list)

    def add(self, text: str, entity: str | None = None) -> None:
        """Append ``text``, as a value of ``entity`` if given."""
        if entity is not None:
            self.spans.append((len(self.text), len(self.text) + len(text), entity))
        self.text += text

    def join(self, other: "Text") -> None:
        """Append another text with its spans."""
        offset = len(self.text)
        self.spans += [(start + offset, end + offset, entity) for start, end, entity in other.spans]
        self.text += other.text

    def example(self, source: str) -> Example:
        """The finished example, without hazard labels."""
        return Example(self.text, tuple(self.spans), source=source)


def fill(frame: str, values: Values, name: str | None = None) -> tuple[Text, str]:
    """The frame with fresh values, and the name it speaks of last: ``name`` unless it has its own."""
    text = Text()
    name = name or name_of(values)
    at = 0
    frame = frame.replace("\\n", "\n")
    for slot in _SLOT.finditer(frame):
        text.add(frame[at : slot.start()])
        at = slot.end()
        kind = slot[1]
        if kind == "PERSON":
            name = name_of(values)
            text.add(name, "PERSON")
        elif kind in ("FIRST", "LAST", "SPELT", "INITIALS"):
            text.add(_part_of(name, kind, values), "PERSON")
        elif kind in VALUES:
            text.add(VALUES[kind](values), "SECRET" if kind in SECRETS else _PARTS.get(kind, kind))
        elif kind in NEGATIVES:
            text.add(NEGATIVES[kind](values))
        else:
            text.add(slot[0])
    text.add(frame[at:])
    return text, name


def _part_of(name: str, kind: str, values: Values) -> str:
    parts: list[str] = _NAME_PART.findall(name)
    if kind == "INITIALS":
        return values.rng.choice((f"{parts[0][0]}. {parts[-1]}", f"{parts[0]} {parts[-1][0]}."))
    part = parts[0] if kind == "FIRST" or (kind == "SPELT" and values.rng.random() < 0.5) else parts[-1]
    if kind == "SPELT":
        return values.rng.choice(("-", " ", ", ", ". ")).join(part.upper())
    return part


def name_of(values: Values) -> str:
    """A full name without its title, as traces have it."""
    name = _HONORIFICS.sub("", VALUES["PERSON"](values)).strip()
    return name if _NAME_PART.search(name) else "Ann Lee"


def plant(carrier: str, frames: Sequence[str], values: Values, *, lines: bool = False) -> Text:
    """``carrier`` with ``frames`` between its sentences, or its lines.

    A frame that names nobody speaks of the person of the frame before.
    """
    pieces = (_LINE_END if lines else _SENTENCE_END).split(carrier)  # sentences, with what parts them in between
    places = sorted(values.rng.randrange(0, len(pieces), 2) for _ in frames)
    text = Text()
    name: str | None = None
    for index, piece in enumerate(pieces):
        while places and places[0] == index:
            filled, name = fill(frames[len(frames) - len(places)], values, name)
            places.pop(0)
            text.join(filled)
            text.add("\n" if lines else values.rng.choice((" ", " ", "\n", "\n\n")))
        text.add(piece)
    return text
