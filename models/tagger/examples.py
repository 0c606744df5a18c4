"""Labelled texts: JSON lines with ``text``, ``spans``, ``unlabelled``, ``hazards`` and ``source``."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.tagger.labels import ENTITIES, HAZARDS

__all__ = ["SPLITS", "Example", "digest", "read", "write"]

SPLITS = ("train", "dev", "dev_benign", "dev_code", "dev_refusing")
_ENTITIES = frozenset(ENTITIES)
_HAZARDS = frozenset(HAZARDS)


@dataclass(frozen=True, slots=True)
class Example:
    """A text with its spans (start, end, entity), half-open in code points.

    Nothing is known about the ranges ``unlabelled``: they are left out of the loss and of every figure. ``hazards`` is
    ``None`` where nobody has looked for hazards.
    """

    text: str
    spans: tuple[tuple[int, int, str], ...] = ()
    unlabelled: tuple[tuple[int, int], ...] = ()
    hazards: tuple[str, ...] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        for start, end, entity in self.spans:
            if not 0 <= start < end <= len(self.text) or entity not in _ENTITIES:
                raise ValueError(f"bad span {start, end, entity} in {self.source!r}")
        for start, end in self.unlabelled:
            if not 0 <= start <= end <= len(self.text):
                raise ValueError(f"bad range {start, end} in {self.source!r}")
        if self.hazards and not _HAZARDS.issuperset(self.hazards):
            raise ValueError(f"unknown hazard among {self.hazards} in {self.source!r}")

    @classmethod
    def from_json(cls, line: str | bytes) -> "Example":
        fields: dict[str, Any] = json.loads(line)
        hazards = fields.get("hazards")
        return cls(
            text=fields["text"],
            spans=tuple((start, end, entity) for start, end, entity in fields.get("spans", ())),
            unlabelled=tuple((start, end) for start, end in fields.get("unlabelled", ())),
            hazards=None if hazards is None else tuple(hazards),
            source=fields.get("source", ""),
        )

    def to_json(self) -> str:
        fields = {
            "text": self.text,
            "spans": self.spans,
            "unlabelled": self.unlabelled,
            "hazards": self.hazards,
            "source": self.source,
        }
        return json.dumps(fields, ensure_ascii=False)


def read(corpus: Path, split: str) -> list[Example]:
    """The examples of one split that have any text; a wrong line is an error that names it."""
    path = corpus / f"{split}.jsonl"
    examples: list[Example] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                example = Example.from_json(line)
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}:{number}: {error!r}") from error
            if example.text.strip():
                examples.append(example)
    return examples


def write(corpus: Path, split: str, examples: Iterable[Example]) -> None:
    """Make one split of a corpus."""
    corpus.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{example.to_json()}\n" for example in examples)
    (corpus / f"{split}.jsonl").write_text(text, encoding="utf-8")


def digest(corpus: Path) -> dict[str, str]:
    """SHA-256 of each split."""
    hashes = {}
    for split in SPLITS:
        with (corpus / f"{split}.jsonl").open("rb") as file:
            hashes[split] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
