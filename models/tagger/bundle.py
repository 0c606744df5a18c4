"""A bundle's manifest and its card."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from cotguard.classifier.bundle import MANIFEST, MODEL, TOKENIZER, checksum
from models.tagger.labels import TAGS

__all__ = ["MANIFEST", "card", "checksum", "checksums", "read_manifest", "write_manifest"]


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that make the bundle's answers."""
    return {name: checksum(folder / name) for name in (MODEL, TOKENIZER)}


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write ``bundle.yaml``."""
    text = yaml.safe_dump(dict(manifest), sort_keys=False, width=120, allow_unicode=True)
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the bundle in ``folder``."""
    manifest: dict[str, Any] = yaml.safe_load((folder / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def card(manifest: Mapping[str, Any]) -> str:
    """The model card, in Markdown."""
    training = manifest["training"]
    figures, window = training["figures"], manifest["window"]
    return f"""# {manifest["name"]}

Finds personal data, identifiers and secrets in reasoning and answers of language models while they stream, and flags
hazards. It is the learned half of cotguard's detection: patterns go before it where a format can be checked.

- Base: {manifest["base"]}; licence: {manifest["licence"]}.
- {training["layers"]} encoder layers, {training["bytes"] / 1e6:.1f} MB, int8 (per channel, embeddings included).
- Reads word pieces in windows of {window["left"]} + {window["core"]} + {window["right"]} (before, judged, after).
- {len(TAGS)} tags (BIOES over {len(manifest["entities"])} entities) and {len(manifest["hazards"])} hazards.

## Intended use

Redacting or flagging text in the proxy, in English first of all. Not for deciding about people, and not the only
guard where a leak or a harmful answer would be grave.

## Data

{training["examples"]} examples, made by `models/corpus` from public texts and planted values; the development sets hold
templates and locales that training has not seen. SHA-256 of each set is in `bundle.yaml`, the run in `record.json`.

## Figures

On the development sets, by which thresholds were chosen, from the int8 model, in characters of word pieces and
without patterns: masking recall {_percent(figures["masking"]["recall"])} at
{_percent(figures["masking"]["over"])} over-masking (score {figures["masking"]["score"]:.3f}). Altered in benign traces
{_percent(figures["altered"]["benign"])}, in code {_percent(figures["altered"]["code"])} (PERSON apart:
{_percent(figures["altered"]["benign_person"])} and {_percent(figures["altered"]["code_person"])}).

*Masked* does not look at labels; precision, recall and F1 do, in word pieces. *Benign* and *code* are the shares of
characters altered where nothing is to be found.

{_entities(manifest)}

{_sources(figures["sources"])}

Hazards, by text: {_percent(figures["hazards"]["refusing"])} of refusing and {_percent(figures["hazards"]["benign"])} of
benign traces are flagged, and {_percent(figures["hazards"]["code"])} of code.

{_hazards(manifest)}

int8 against float32: {_percent(training["parity"]["int8"]["agree"])} of pieces get the same answer; a probability
moves by up to {training["parity"]["int8"]["pieces"]:.2f}, so thresholds belong to this file. float32 ONNX against
torch: {training["parity"]["float32"]["pieces"]:.1e} at most.

## Limits

- Made data is more regular than life: expect lower recall on noisy posts and in languages other than English.
- Names that are also words, names spelt out over many lines, and values cut apart by other text are missed at times.
- What an entity without figures above does is not known.
- The hazard head is set for precision and misses much; for strong moderation use a guard model.
- Activations are scaled over all of an input: windows must be run one by one for the same text to get the same answer.
"""


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _rows(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _entities(manifest: Mapping[str, Any]) -> str:
    figures = manifest["training"]["figures"]
    rows = []
    for name, threshold in manifest["thresholds"].items():
        found = figures["entities"].get(name)
        shares = [figures[share].get(name, 0.0) for share in ("benign_by_entity", "code_by_entity")]
        cells = [f"{found[key]:.3f}" for key in ("masked", "precision", "recall", "f1")] if found else ["-"] * 4
        count = str(found["pieces"]) if found else "0"
        rows.append([name, count, *cells, *map(_percent, shares), f"{threshold:.2f}"])
    return _rows(
        ["entity", "pieces", "masked", "precision", "recall", "F1", "benign", "code", "threshold"],
        rows,
    )


def _sources(sources: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [name, str(found["texts"]), *(f"{found[key]:.3f}" for key in ("recall", "over", "score"))]
        for name, found in sources.items()
    ]
    return _rows(["source", "texts", "recall", "over-masking", "score"], rows)


def _hazards(manifest: Mapping[str, Any]) -> str:
    figures = manifest["training"]["figures"]["hazards"]["codes"]
    rows = []
    for code, threshold in manifest["hazard_thresholds"].items():
        found = figures.get(code)
        cells = (
            [str(found["texts"]), f"{found['precision']:.2f}", f"{found['recall']:.2f}"] if found else ["0", "-", "-"]
        )
        rows.append([code, *cells, f"{threshold:.3f}"])
    return _rows(["hazard", "texts", "precision", "recall", "threshold"], rows)
