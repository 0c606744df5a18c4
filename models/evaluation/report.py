"""Reports: scores as Markdown and as JSON."""

from collections.abc import Iterable, Mapping
from typing import Any

from models.evaluation.scoring import Counts, Masking, Scores

__all__ = ["figures", "markdown"]


def figures(scores: Scores) -> dict[str, Any]:
    """Everything, as plain objects."""
    person = scores.altered.get("PERSON", 0)
    return {
        "masking": _masking(scores.masking),
        "control": _masking(scores.masking.control),
        "leaked_characters": scores.leaked,
        "sources": {name: _masking(masking) for name, masking in sorted(scores.by_source.items())},
        "entities": {
            name: {
                "characters": each.gold,
                "spans": each.spans,
                "leaking_spans": each.leaking,
                **_rounded(
                    masked=each.masked / max(each.gold, 1),
                    precision=each.precision,
                    recall=each.recall,
                    f1=each.f1,
                    f2=each.f2,
                ),
            }
            for name, each in sorted(scores.entities.items())
        },
        "altered": {
            "characters": scores.clean,
            **_rounded(
                without_person=(scores.altered.total() - person) / max(scores.clean, 1),
                person=person / max(scores.clean, 1),
            ),
            "by_entity": {name: round(n / max(scores.clean, 1), 6) for name, n in scores.altered.most_common()},
        },
        "hazards": {
            "harmless_texts": scores.harmless,
            "harmless_flagged": round(scores.flagged / max(scores.harmless, 1), 5),
            "any": _counts(scores.any_hazard),
            **{name: _counts(each) for name, each in sorted(scores.hazards.items())},
        },
    }


def _masking(masking: Masking) -> dict[str, float]:
    return _rounded(recall=masking.recall, over=masking.over, score=masking.score, f2=masking.f2)


def _counts(each: Counts) -> dict[str, float]:
    return {"texts": each.gold, **_rounded(precision=each.precision, recall=each.recall, f1=each.f1)}


def _rounded(**shares: float) -> dict[str, float]:
    return {name: round(share, 5) for name, share in shares.items()}


def markdown(facts: Mapping[str, object], found: Mapping[str, Any]) -> str:
    """The report for people: ``facts`` about the run, then what ``figures`` gave."""
    altered, hazards = found["altered"], found["hazards"]
    parts = ["# Evaluation\n", _table(("", ""), facts.items())]
    if any(each["characters"] for each in found["entities"].values()):
        rows = [("cotguard", found["masking"]), ("masking everything", found["control"])]
        rows += [(f"of {name}", masking) for name, masking in found["sources"].items() if name]
        parts.append("## Masking, label-agnostic\n")
        parts.append(
            _table(
                ("", "recall", "over-masking", "recall - over", "F2"),
                ((name, *(f"{m[key]:.4f}" for key in ("recall", "over", "score", "f2"))) for name, m in rows),
            )
        )
        parts.append(f"Characters of values that leaked: {found['leaked_characters']:,}.\n")
        parts.append("## Entities, label-strict (`masked`: under any label)\n")
        keys = ("masked", "precision", "recall", "f1", "f2")
        parts.append(
            _table(
                ("entity", "spans", "leaking", *keys),
                (
                    (name, each["spans"], each["leaking_spans"], *(f"{each[key]:.3f}" for key in keys))
                    for name, each in found["entities"].items()
                ),
            )
        )
    if altered["characters"]:
        parts.append("## Texts with nothing to find\n")
        parts.append(
            f"{altered['characters']:,} characters; altered {altered['without_person']:.3%}, and as PERSON "
            f"{altered['person']:.3%}.\n"
        )
        parts.append(_table(("entity", "altered"), ((n, f"{share:.4%}") for n, share in altered["by_entity"].items())))
    if hazards["harmless_texts"] or hazards["any"]["texts"]:
        parts.append("## Hazards, by text\n")
        parts.append(f"{hazards['harmless_flagged']:.2%} of {hazards['harmless_texts']} harmless texts are flagged.\n")
        rest = ((n, each) for n, each in hazards.items() if isinstance(each, Mapping))
        parts.append(
            _table(
                ("hazard", "texts", "precision", "recall", "F1"),
                (
                    (n, each["texts"], *(f"{each[key]:.3f}" for key in ("precision", "recall", "f1")))
                    for n, each in rest
                ),
            )
        )
    return "\n".join(parts)


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *([str(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
