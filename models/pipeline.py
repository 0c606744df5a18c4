"""From data to bundles in one command: ``python -m models.pipeline --data DIR``.

1. ``models.corpus`` makes the corpus in ``--runs``.
2. Six layers are trained, then four and three that learn from them as well.
3. Each becomes a bundle in ``--out``; ``trade-off.md`` and its plot set them side by side.

What is there already is kept, and what was interrupted goes on: give the same command again. ``--smoke`` does all of
it on a small sample in a few minutes; without ``--data`` it makes up a corpus.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.export import export
from models.tagger.bundle import MANIFEST, checksum, read_manifest
from models.tagger.examples import SPLITS, digest
from models.tagger.judging import DEFAULT_GEOMETRY, Geometry
from models.tagger.synthetic import write_corpus
from models.tagger.trade import measure, write_trade_off
from models.train import Options, train

__all__ = ["Plan", "main", "run"]

_HERE = Path(__file__).parent
_WINDOWS = {6: DEFAULT_GEOMETRY, 4: DEFAULT_GEOMETRY, 3: Geometry(left=16, core=48, right=8)}
"""By layers: the fastest model also judges more pieces at once, with less context."""
_SMOKE_EXAMPLES = 400
_SMOKE_STEPS = 20
_SMOKE_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where things are and how long to train. With ``smoke``, minutes do not count."""

    data: Path | None
    runs: Path
    out: Path
    minutes: float = 240.0
    distil_minutes: float = 90.0
    threads: int = 0
    device: str = "cpu"
    smoke: bool = False


def run(plan: Plan) -> list[Path]:
    """Do every step that is not done; returns the bundles."""
    corpus = _corpus(plan)
    bundles = []
    teacher: Path | None = None
    for layers, geometry in _WINDOWS.items():
        model = plan.runs / f"tagger-{layers}"
        _say(f"training {layers} layers in {model}")
        train(_options(plan, corpus, model, layers, teacher))
        folder = plan.out if teacher else plan.runs / "bundles"  # the teacher is too slow to be shipped
        teacher = teacher or model
        bundles.append(_bundle(corpus, model, folder / model.name, geometry))
    write_trade_off(measure(bundles), plan.out)
    return bundles


def _corpus(plan: Plan) -> Path:
    corpus = plan.runs / "corpus"
    if all((corpus / f"{split}.jsonl").exists() for split in SPLITS):
        _say(f"corpus: {corpus} is there")
    elif plan.data is None:
        if not plan.smoke:
            raise SystemExit("there is no corpus yet: say with --data what to make it of")
        write_corpus(corpus, _SMOKE_EXAMPLES)
    else:
        _say(f"corpus: making {corpus}")
        sample = ("--sample",) if plan.smoke else ()
        command = (sys.executable, "-m", "models.corpus", "--data", str(plan.data), "--out", str(corpus), *sample)
        subprocess.run(command, check=True, cwd=_HERE.parent)  # noqa: S603  # our own module
    return corpus


def _options(plan: Plan, corpus: Path, out: Path, layers: int, teacher: Path | None) -> Options:
    return Options(
        corpus=corpus,
        out=out,
        layers=layers,
        teacher=teacher,
        minutes=plan.distil_minutes if teacher else plan.minutes,
        steps=_SMOKE_STEPS if plan.smoke else 0,
        batch=_SMOKE_BATCH if plan.smoke else Options.batch,
        threads=plan.threads,
        device=plan.device,
    )


def _bundle(corpus: Path, model: Path, bundle: Path, geometry: Geometry) -> Path:
    if (bundle / MANIFEST).exists():
        manifest = read_manifest(bundle)
        training = manifest["training"]
        made_of = training["model"], training["data"], manifest["window"]
        if made_of == (checksum(model / "model.safetensors"), digest(corpus), geometry._asdict()):
            _say(f"bundle: {bundle} is there")
            return bundle
    _say(f"bundle: making {bundle}")
    export(model, corpus, bundle, geometry)
    return bundle


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(prog="models.pipeline", description="From data to bundles.")
    parser.add_argument("--data", type=Path, help="folder of the public labelled data")
    parser.add_argument("--runs", type=Path, default=_HERE / "runs", help="corpus, checkpoints, models")
    parser.add_argument("--out", type=Path, default=_HERE.parent / "cotguard" / "bundles", help="where bundles go")
    parser.add_argument("--minutes", type=float, default=Plan.minutes, help="training of six layers")
    parser.add_argument("--distil-minutes", type=float, default=Plan.distil_minutes, help="training of four, and three")
    parser.add_argument("--threads", type=int, default=Plan.threads, help="0: one per core")
    parser.add_argument("--device", default=Plan.device, help="cpu, cuda")
    parser.add_argument("--smoke", action="store_true", help="the whole path on a small sample")
    plan = Plan(**vars(parser.parse_args(arguments)))
    os.nice(10)
    for bundle in run(plan):
        _say(str(bundle))


if __name__ == "__main__":
    main()
