"""Gold: readers of labelled sets, by format.

========== ==========================================================================================================
format     what a file is
========== ==========================================================================================================
ours       JSON lines of ``models.tagger.examples``
presidio   a JSON list of ``{full_text, spans: [{entity_type, start_position, end_position}]}``
conll      a token and its BIO tag a line, an empty line between texts; tokens are joined by single spaces
masking    JSON lines ``{source_text, privacy_mask: [{start, end, label}]}``
moderation JSON lines ``{prompt, S, H, V, HR, SH, S3, H2, V2}``, the columns 0 or 1
prompts    CSV with a column of texts and one of labels
========== ==========================================================================================================

Labels are brought to entities of the taxonomy by their name, or by a map. Ranges with a label that means nothing to us
are left out of the score, and the labels are counted.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cotguard.taxonomy import ENTITIES, GROUPS

__all__ = ["FORMATS", "SAFE", "SOME_HAZARD", "Gold", "GoldError", "Item"]

SOME_HAZARD = "HAZARD"
"""A hazard of unknown kind."""
SAFE = frozenset({"", "0", "false", "no", "none", "safe", "benign"})
_MODERATION = {
    **dict.fromkeys(("S",), "SEXUAL_CONTENT"),
    **dict.fromkeys(("H", "H2", "HR"), "HATE"),
    **dict.fromkeys(("V", "V2"), "VIOLENT_CRIMES"),
    "SH": "SUICIDE_SELF_HARM",
    "S3": "CHILD_SEXUAL_EXPLOITATION",
}
_HAZARD_OF_CODE = dict(zip((*(f"S{number}" for number in range(1, 15)), "X2"), GROUPS["HAZARD"], strict=True))

Span = tuple[int, int, str]


class GoldError(ValueError):
    """A file is not of its format; the message says where."""


@dataclass(frozen=True, slots=True)
class Item:
    """A text and what is in it. ``unlabelled`` ranges count nowhere; ``hazards`` are unset where they are unknown."""

    id: str
    text: str
    spans: tuple[Span, ...] = ()
    unlabelled: tuple[tuple[int, int], ...] = ()
    hazards: frozenset[str] | None = None
    source: str = ""


@dataclass
class Gold:
    """Reads files. ``labels``: from their labels, in lower case, to entities; columns are those of ``prompts``."""

    labels: Mapping[str, str] = field(default_factory=dict)
    text_column: str = "text"
    label_column: str = "label"
    unknown: Counter[str] = field(default_factory=Counter)
    """Labels without an entity, and how often they came."""

    def read(self, path: Path, form: str) -> list[Item]:
        """The items of a file. Raises :class:`GoldError`."""
        try:
            with path.open(encoding="utf-8", newline="") as file:
                return list(_READERS[form](self, file))
        except (KeyError, TypeError, ValueError) as error:
            raise GoldError(f"{path}: not of the format {form}: {type(error).__name__}: {error}") from error

    def _item(self, number: int, text: str, spans: list[Span], **more: Any) -> Item:
        known, unlabelled = [], list(more.pop("unlabelled", ()))
        for start, end, label in spans:
            if not 0 <= start < end <= len(text):
                raise ValueError(f"text {number}: the span {start} to {end} is outside the text")
            entity = self.labels.get(label.lower(), label.upper())
            if entity in ENTITIES:
                known.append((start, end, entity))
            else:
                self.unknown[label] += 1
                unlabelled.append((start, end))
        return Item(str(number), text, tuple(known), tuple(unlabelled), **more)

    def _ours(self, file: Iterator[str]) -> Iterator[Item]:
        for number, record in _lines(file):
            hazards = record.get("hazards")
            yield self._item(
                number,
                record["text"],
                [tuple(span) for span in record["spans"]],
                unlabelled=[tuple(each) for each in record.get("unlabelled", ())],
                hazards=None if hazards is None else frozenset(_HAZARD_OF_CODE[code] for code in hazards),
                source=record.get("source", ""),
            )

    def _presidio(self, file: Iterator[str]) -> Iterator[Item]:
        for number, record in enumerate(json.loads("".join(file)), 1):
            spans = [
                (span["start_position"], span["end_position"], span["entity_type"]) for span in record["spans"] or ()
            ]
            yield self._item(number, record["full_text"], spans)

    def _conll(self, file: Iterator[str]) -> Iterator[Item]:
        text, spans, number = "", list[Span](), 1
        for line in [*file, "\n"]:
            fields = line.split()
            if not fields:
                if text:
                    yield self._item(number, text, spans)
                    number += 1
                text, spans = "", []
                continue
            if len(fields) < 2:
                raise ValueError(f"text {number}: a token without a tag")
            text += " " if text else ""
            start, tag = len(text), fields[-1]
            text += fields[0]
            if tag == "O":
                continue
            if tag.startswith("I-") and spans and spans[-1][1] == start - 1 and spans[-1][2] == tag[2:]:
                spans[-1] = (spans[-1][0], len(text), tag[2:])
            else:
                spans.append((start, len(text), tag[2:] if tag[1:2] == "-" else tag))

    def _masking(self, file: Iterator[str]) -> Iterator[Item]:
        for number, record in _lines(file):
            mask = record["privacy_mask"]
            mask = json.loads(mask) if isinstance(mask, str) else mask
            yield self._item(number, record["source_text"], [(m["start"], m["end"], m["label"]) for m in mask])

    def _moderation(self, file: Iterator[str]) -> Iterator[Item]:
        for number, record in _lines(file):
            hazards = frozenset(name for column, name in _MODERATION.items() if record.get(column) == 1)
            yield Item(str(number), record["prompt"], hazards=hazards)

    def _prompts(self, file: Iterator[str]) -> Iterator[Item]:
        for number, row in enumerate(csv.DictReader(file), 1):
            label = row[self.label_column].strip()
            entity = self.labels.get(label.lower(), label.upper())
            hazards = frozenset({entity if entity in ENTITIES else SOME_HAZARD}) if label.lower() not in SAFE else ()
            yield Item(str(number), row[self.text_column], hazards=frozenset(hazards))


def _lines(file: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error


_READERS: dict[str, Callable[[Gold, Iterator[str]], Iterator[Item]]] = {
    "ours": Gold._ours,  # noqa: SLF001  # the table of its own methods
    "presidio": Gold._presidio,  # noqa: SLF001  # same
    "conll": Gold._conll,  # noqa: SLF001  # same
    "masking": Gold._masking,  # noqa: SLF001  # same
    "moderation": Gold._moderation,  # noqa: SLF001  # same
    "prompts": Gold._prompts,  # noqa: SLF001  # same
}
FORMATS = tuple(_READERS)
