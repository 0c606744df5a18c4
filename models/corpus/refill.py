"""Labelled messages with fresh values in the old places: a name becomes the same new one all over, in parts too."""

from models.corpus.planting import name_of
from models.corpus.values import VALUES, Values
from models.tagger.examples import Example

__all__ = ["refill"]


def refill(example: Example, values: Values) -> Example:
    """``example`` with every labelled value replaced."""
    people = _new_names({example.text[s:e] for s, e, entity in example.spans if entity == "PERSON"}, values)
    others: dict[str, str] = {}
    text = ""
    at = 0
    moves: list[tuple[int, int]] = []  # where the old text went on, and by how much it is moved there
    spans: list[tuple[int, int, str]] = []
    for start, end, entity in example.spans:
        old = example.text[start:end]
        new = people[old] if entity == "PERSON" else others.setdefault(old, VALUES[entity](values))
        text += example.text[at:start]
        spans.append((len(text), len(text) + len(new), entity))
        text += new
        at = end
        moves.append((end, len(text) - end))
    text += example.text[at:]

    def moved(offset: int) -> int:
        return offset + next((by for place, by in reversed(moves) if place <= offset), 0)

    unlabelled = tuple((moved(start), moved(end)) for start, end in example.unlabelled)
    return Example(text, tuple(spans), tuple((s, e) for s, e in unlabelled if s < e), example.hazards, example.source)


def _new_names(old: set[str], values: Values) -> dict[str, str]:
    new: dict[str, str] = {}
    for full in sorted(old, key=lambda text: (-len(text), text)):
        if full in new:
            continue
        fresh = name_of(values)
        new[full] = fresh
        old_parts, parts = full.split(), fresh.split()
        if len(old_parts) > 1:
            new.setdefault(old_parts[0], parts[0])
            new.setdefault(old_parts[-1], parts[-1])
    return new
