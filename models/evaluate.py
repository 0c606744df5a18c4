"""Score what is shipped: ``python -m models.evaluate GOLD --format FORMAT``.

Predictions come from ``cotguard scan --jsonl``: the served model, in windows, with patterns and policy. Gold is read
here and nowhere else. With ``--trained-on`` the set is compared with what was trained on; where more than one text in a
hundred was, there is no score.
"""

import argparse
import hashlib
import json
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import yaml

from cotguard.classifier.bundle import DEFAULT, NONE, BundleError, load
from models.evaluation.audit import audit
from models.evaluation.gold import FORMATS, Gold, GoldError, Item
from models.evaluation.predictions import PredictionsError, predict
from models.evaluation.report import figures, markdown
from models.evaluation.scoring import score

__all__ = ["main"]

_MOST_CONTAMINATED = 0.01
_USAGE, _CONTAMINATED = 2, 3
_CHARACTERS_A_TOKEN = 4
_EVERYTHING = Path(__file__).parent / "evaluation" / "everything.yaml"
_EXAMPLES = """\
examples:
  python -m models.evaluate models/runs/corpus/dev.jsonl --format ours --trained-on models/runs/corpus/train.jsonl
  python -m models.evaluate traces.jsonl --format ours --policy balanced --acted-only   # what a policy alters
  python -m models.evaluate set.json --format presidio --labels map.yaml --out report   # lines of `their: OURS`"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Score a set; returns 0, 2 for wrong input, 3 for a contaminated set."""
    options = _parser().parse_args(arguments)
    try:
        labels = yaml.safe_load(options.labels.read_text(encoding="utf-8")) if options.labels else {}
        gold = Gold({str(k).lower(): v for k, v in labels.items()}, options.text_column, options.label_column)
        items = gold.read(options.gold, options.format)[: options.limit]
        items, notes = _audited(items, options.trained_on, leave_out=options.leave_out_contaminated)
        predictions = predict(items, policy=options.policy, bundle=options.bundle, channel=options.channel)
        digest = NONE if options.bundle == NONE else f"{options.bundle}, digest {load(options.bundle).digest}"
    except (GoldError, OSError, BundleError, PredictionsError) as error:
        sys.stderr.write(f"{error}\n")
        return _USAGE
    except _ContaminatedError as error:
        sys.stderr.write(f"{error}\n")
        return _CONTAMINATED
    characters = sum(len(item.text) for item in items)
    speed = characters / max(predictions.seconds, 1e-9)
    facts = {
        "set": f"{options.gold.name}, {len(items)} texts, {characters:,} characters",
        "SHA-256": hashlib.sha256(options.gold.read_bytes()).hexdigest(),
        **notes,
        "bundle": digest,
        "policy": f"{options.policy}{', what it alters' if options.acted_only else ', all that it finds'}",
        "channel": options.channel,
        "labels without an entity": ", ".join(f"{n} {count}" for n, count in gold.unknown.most_common()) or "none",
        "speed": f"{speed:,.0f} characters/s, about {speed / _CHARACTERS_A_TOKEN:,.0f} tokens/s, one process",
        "made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {platform.machine()}, Python {platform.python_version()}, "
        f"cotguard {version('cotguard')}, onnxruntime {version('onnxruntime')}",
    }
    found = figures(score(items, predictions.spans, acted_only=options.acted_only))
    report = markdown(facts, found)
    sys.stdout.write(report)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        stem = options.gold.stem
        (options.out / f"{stem}.md").write_text(report, encoding="utf-8")
        (options.out / f"{stem}.json").write_text(
            json.dumps({"run": facts, **found}, indent=2) + "\n", encoding="utf-8"
        )
    return 0


class _ContaminatedError(Exception):
    """There is no score."""


def _audited(items: list[Item], trained_on: Sequence[Path], *, leave_out: bool) -> tuple[list[Item], dict[str, str]]:
    """What may be scored, and what the report says about it."""
    if not trained_on:
        return items, {"audit": "none: --trained-on was not given"}
    found = audit(items, trained_on)
    told = f"{len(found.contaminated)} of {found.items} texts were trained on; {found.values:.1%} of the values were"
    if found.share > _MOST_CONTAMINATED and not leave_out:
        raise _ContaminatedError(f"no score: {told}. --leave-out-contaminated scores the others")
    if leave_out:
        items = [item for item in items if item.id not in found.contaminated]
        told += "; the texts are left out"
    return items, {"audit": told}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.evaluate",
        description="Score cotguard on labelled texts, through `cotguard scan`.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("gold", type=Path, help="the labelled texts; only read")
    parser.add_argument(
        "--format", required=True, choices=FORMATS, help="what the file is, see models/evaluation/gold.py"
    )
    parser.add_argument("--labels", type=Path, metavar="MAP", help="YAML, from the file's labels to entities")
    parser.add_argument("--text-column", default="text", help="of the format prompts (default %(default)s)")
    parser.add_argument("--label-column", default="label", help="of the format prompts (default %(default)s)")
    parser.add_argument("--policy", default=str(_EVERYTHING), help="(default: one that redacts everything)")
    parser.add_argument(
        "--bundle", default=DEFAULT, help=f"a ready bundle, a directory, or {NONE} (default %(default)s)"
    )
    parser.add_argument("--channel", default="reasoning", help="what the texts are (default %(default)s)")
    parser.add_argument("--acted-only", action="store_true", help="count only what the policy alters")
    parser.add_argument("--trained-on", type=Path, nargs="*", default=[], metavar="FILE", help="training examples")
    parser.add_argument("--leave-out-contaminated", action="store_true", help="score the other texts")
    parser.add_argument("--limit", type=int, help="only so many texts")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where a Markdown and a JSON report go")
    return parser


if __name__ == "__main__":
    sys.exit(main())
