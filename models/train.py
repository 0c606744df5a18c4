"""Train the tagger: ``python -m models.train --corpus DIR --out DIR``.

1. It starts from MiniLM-L6, from ``--init`` or from layers of ``--teacher``; with a teacher it also learns the
   teacher's answers.
2. The learning rate rises, then falls to nought at the end of the time or steps given. The time is that of training:
   interruptions do not count.
3. Every few minutes it is judged on part of the development set and keeps a checkpoint in ``--out``. Started again with
   the same ``--out`` it goes on from there, with the same batches in the same order. What is finished stays.

``--out`` then holds the model, ``record.json`` and ``curves.png``.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from models.tagger.checkpoint import Checkpoint, Point, load_checkpoint, save_checkpoint
from models.tagger.examples import Example, digest, read
from models.tagger.judging import DEFAULT_GEOMETRY, TorchRunner, judge
from models.tagger.labels import ENTITIES
from models.tagger.losses import loss
from models.tagger.model import Tagger, load, load_tokenizer, pretrained, pretrained_folder, save, shrink
from models.tagger.record import curves, read_record, revision, versions, write_record
from models.tagger.scores import altered, label_figures, masking, table
from models.tagger.windows import Batch, Batches

__all__ = ["Options", "main", "train"]

_CHECKPOINT = "checkpoint.pt"
_CLIP = 1.0
_WEIGHT_DECAY = 0.01
_HEADS_FASTER = 5
_STEPS_A_POINT = 25
_JUDGED_CHARACTERS: Final = {"dev": 40_000, "dev_benign": 20_000, "dev_code": 10_000}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to train. ``steps`` goes before ``minutes``; ``threads`` 0 means one per core."""

    corpus: Path
    out: Path
    layers: int = 6
    minutes: float = 60.0
    steps: int = 0
    teacher: Path | None = None
    init: Path | None = None
    batch: int = 32
    lr: float = 1e-4
    warmup: float = 0.05
    seed: int = 1
    threads: int = 0
    checkpoint_minutes: float = 3.0
    device: str = "cpu"

    @property
    def start(self) -> Path | None:
        """The model whose weights training starts from."""
        return self.init or self.teacher

    def plan(self) -> dict[str, Any]:
        """What must be the same when a run goes on."""
        return {
            "data": digest(self.corpus),
            "layers": self.layers,
            "teacher": None if self.teacher is None else str(self.teacher),
            "init": None if self.init is None else str(self.init),
            "batch": self.batch,
            "lr": self.lr,
            "warmup": self.warmup,
            "seed": self.seed,
            "until": f"{self.steps} steps" if self.steps else f"{self.minutes} minutes",
        }


def train(options: Options) -> dict[str, Any]:
    """Train, or go on training; returns the record."""
    record = read_record(options.out)
    if record is not None and record["finished"]:
        return record
    return _Run(options).finish()


def _optimizer(model: Tagger, lr: float) -> torch.optim.Optimizer:
    """AdamW; heads, which start from nothing, learn faster; biases and norms do not decay."""
    groups = []
    for heads in (False, True):
        for decays in (False, True):
            weights = [
                weight
                for name, weight in model.named_parameters()
                if name.startswith("encoder.") is not heads and (weight.dim() > 1) is decays
            ]
            rate = lr * (_HEADS_FASTER if heads else 1)
            groups.append({"params": weights, "lr": rate, "top": rate, "weight_decay": _WEIGHT_DECAY * decays})
    return torch.optim.AdamW(groups, fused=True)


class _Run:
    """A run on its way: a model, its optimizer and how far they are."""

    def __init__(self, options: Options) -> None:
        self.options = options
        torch.set_num_threads(options.threads or len(os.sched_getaffinity(0)))
        torch.manual_seed(options.seed)
        source = options.start or pretrained_folder()
        self.tokenizer = load_tokenizer(source)
        options.out.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(options.out / "tokenizer.json")
        start = pretrained() if options.start is None else load(options.start)
        self.model = shrink(start, options.layers).to(options.device)
        self.teacher = None if options.teacher is None else load(options.teacher).to(options.device)
        self.optimizer = _optimizer(self.model, options.lr)
        self.dev = {name: _sample(read(options.corpus, name), size) for name, size in _JUDGED_CHARACTERS.items()}
        self.state = self._resume()

    def _resume(self) -> Checkpoint:
        plan = self.options.plan()
        kept = load_checkpoint(self.options.out / _CHECKPOINT)
        if kept is None:
            return Checkpoint(plan, {}, {}, torch.get_rng_state())
        if kept.plan != plan:
            different = sorted(name for name in plan if plan[name] != kept.plan.get(name))
            raise ValueError(f"{self.options.out} holds a run with other {', '.join(different)}: give another --out")
        self.model.load_state_dict(kept.model)
        self.optimizer.load_state_dict(kept.optimizer)
        torch.set_rng_state(kept.random)
        return kept

    def finish(self) -> dict[str, Any]:
        """Train until the time or the steps are over."""
        options, state = self.options, self.state
        batches = Batches(read(options.corpus, "train"), self.tokenizer, options.batch, options.seed)
        begun = time.monotonic() - state.seconds
        saved = state.seconds
        losses: list[torch.Tensor] = []
        self.model.train()
        with tqdm(total=100, unit="%", mininterval=5, bar_format="{l_bar}{bar}| {elapsed}{postfix}") as bar:
            for batch in batches.after(state.step):
                progress = self._progress()
                if progress >= 1:
                    break
                losses.append(self._step(batch, progress))
                state.step += 1
                state.seconds = time.monotonic() - begun
                if state.step % _STEPS_A_POINT == 0:
                    self._note(losses)
                    bar.set_postfix(self._latest(), refresh=False)
                bar.update(min(100 * self._progress(), 100) - bar.n)
                if state.seconds - saved >= 60 * options.checkpoint_minutes:
                    self._note(losses)
                    self._keep(batches)
                    saved = state.seconds
        self._note(losses)
        return self._keep(batches, finished=True)

    def _progress(self) -> float:
        """Which part of the run is over, from 0 to 1."""
        if self.options.steps:
            return self.state.step / self.options.steps
        return self.state.seconds / (60 * self.options.minutes)

    def _step(self, batch: Batch, progress: float) -> torch.Tensor:
        warmup = self.options.warmup
        # The first batches must learn something too, hence the floor.
        scale = max(progress, 0.001) / warmup if progress < warmup else (1 - progress) / (1 - warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["top"] * min(scale, 1.0)
        device = torch.device(self.options.device)
        batch = Batch(*(tensor.to(device, non_blocking=True) for tensor in batch))
        with torch.autocast(device.type, dtype=torch.bfloat16):
            logits = self.model(batch.ids, batch.mask, batch.types)
            with torch.no_grad():
                hints = None if self.teacher is None else self.teacher(batch.ids, batch.mask, batch.types)
        value = loss(logits, batch, hints)
        self.optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP)
        self.optimizer.step()
        return value.detach()

    def _note(self, losses: list[torch.Tensor]) -> None:
        """Add a point to the curve for the batches since the last one."""
        if losses:
            mean = torch.stack(losses).mean().item()
            self.state.curve.append({"step": self.state.step, "seconds": round(self.state.seconds, 1), "loss": mean})
            losses.clear()

    def _latest(self) -> Point:
        """The latest figure of each kind."""
        latest: Point = {}
        for point in self.state.curve:
            latest.update(point)
        return {
            "examples/s": round(self.state.step * self.options.batch / max(self.state.seconds, 1e-9), 1),
            **{name: round(latest[name], 4) for name in ("loss", "score", "benign") if name in latest},
        }

    def _keep(self, batches: Batches, *, finished: bool = False) -> dict[str, Any]:
        """Judge the model and write everything."""
        options, state = self.options, self.state
        state.curve.append({"step": state.step, "seconds": round(state.seconds, 1), **self._judge()})
        state.model, state.optimizer = self.model.state_dict(), self.optimizer.state_dict()
        state.random = torch.get_rng_state()
        save_checkpoint(state, options.out / _CHECKPOINT)
        save(self.model, options.out)
        curves(state.curve, options.out / "curves.png")
        record = {
            "finished": finished,
            **state.plan,
            "steps": state.step,
            "epochs": round(state.step / batches.per_epoch, 2),
            "seconds": round(state.seconds),
            "examples_per_second": round(state.step * options.batch / max(state.seconds, 1e-9), 1),
            "examples": len(batches.examples),
            "revision": revision(),
            "versions": versions(),
            "threads": torch.get_num_threads(),
            "device": options.device,
            "curve": state.curve,
        }
        write_record(options.out, record)
        return record

    def _judge(self) -> Point:
        """Figures at threshold 0.5 on part of the development sets."""
        self.model.eval()
        runner, half = TorchRunner(self.model), np.full(len(ENTITIES), 0.5, dtype=np.float32)
        rows = {name: table(judge(runner, self.tokenizer, texts, DEFAULT_GEOMETRY)) for name, texts in self.dev.items()}
        self.model.train()
        found, labels = masking(rows["dev"], half), label_figures(rows["dev"], half)
        persons = ENTITIES.index("PERSON")
        return {
            "recall": found.recall,
            "over": found.over,
            "score": found.score,
            "f1": float(np.mean([figures.f1 for figures in labels.values()])) if labels else 0.0,
            "benign": float(np.delete(altered(rows["dev_benign"], half), persons).sum()),
            "code": float(np.delete(altered(rows["dev_code"], half), persons).sum()),
            **{f"f1 {name}": figures.f1 for name, figures in labels.items()},
        }


def _sample(examples: Sequence[Example], characters: int) -> list[Example]:
    """The same few examples every time, of about so many characters in all."""
    chosen = []
    for index in np.random.default_rng(0).permutation(len(examples)):
        if characters <= 0:
            break
        chosen.append(examples[index])
        characters -= len(examples[index].text)
    return chosen


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser(prog="models.train", description="Train the tagger, or go on training it.")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of train.jsonl, dev.jsonl ...")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model; a checkpoint there is resumed")
    parser.add_argument("--layers", type=int, default=Options.layers, help="encoder layers")
    limits = parser.add_mutually_exclusive_group()
    limits.add_argument("--minutes", type=float, default=Options.minutes, help="minutes of training")
    limits.add_argument("--steps", type=int, default=Options.steps, help="batches instead of minutes")
    parser.add_argument("--teacher", type=Path, help="folder of a model to learn from")
    parser.add_argument("--init", type=Path, help="folder of a model to start from")
    parser.add_argument("--batch", type=int, default=Options.batch, help="windows in a batch")
    parser.add_argument("--lr", type=float, default=Options.lr, help="highest learning rate of the encoder")
    parser.add_argument("--warmup", type=float, default=Options.warmup, help="part of the run in which the rate rises")
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--threads", type=int, default=Options.threads, help="0: one per core")
    parser.add_argument("--checkpoint-minutes", type=float, default=Options.checkpoint_minutes)
    parser.add_argument("--device", default=Options.device, help="cpu, cuda")
    options = Options(**vars(parser.parse_args(arguments)))
    os.nice(10)
    record = train(options)
    sys.stdout.write(f"{options.out}: {record['steps']} steps, {record['examples_per_second']} examples/s\n")


if __name__ == "__main__":
    main()
