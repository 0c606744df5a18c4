"""Makes the corpus: ``python -m models.corpus --data DIR --out DIR``.

Everything is decided by the seed. Held out from training: one frame in ten, one locale in five, one carrier in ten, one
agent message in ten. Half of the texts made of them are for development (``dev``: thresholds are set by them), half for
scoring (``test``). About half of all texts hold no value, but what looks like one.
"""

import argparse
import hashlib
import json
import os
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from models.corpus import frames, readers
from models.corpus.fields import Fields
from models.corpus.names import benign, unknown_names
from models.corpus.planting import Text, fill, plant
from models.corpus.refill import refill
from models.corpus.values import HELD_OUT_LOCALES, LOCALES, Values
from models.tagger.examples import Example, digest, write

__all__ = ["main"]

_SIZE = 60_000
_SAMPLE = 600
_DEV_SHARE = 0.025
_CODE_LINES = 24
_MAX_CHARS = 1600
_LOWER_SHARE = 0.15
_T = TypeVar("_T")


def _held_out(thing: object) -> bool:
    return hashlib.sha256(str(thing).encode()).digest()[0] % 10 == 0


def _for_development(example: Example) -> bool:
    """Which half of the held-out texts it belongs to; by another byte, so that the halves are alike."""
    return hashlib.sha256(example.text.encode()).digest()[1] % 2 == 0


def _part(things: Sequence[_T], *, dev: bool) -> list[_T]:
    """The things of one side of the split."""
    return [thing for thing in things if _held_out(thing) is dev]


def _turns(things: Sequence[_T], *, dev: bool) -> list[_T]:
    """The things of one side of the split, for lists too short for chance."""
    return [thing for index, thing in enumerate(things) if (index % 10 == 9) is dev]


class _Maker:
    """Makes examples of one side of the split."""

    def __init__(self, data: Path, seed: int, *, dev: bool) -> None:
        locales = [locale for locale in LOCALES if (locale in HELD_OUT_LOCALES) is dev]
        self.values = Values(seed + dev, locales)
        self.fields = Fields(self.values, dev=dev)
        self.carriers = _part(readers.carriers(data), dev=dev)
        self._carrier_weights = list(accumulate(map(len, self.carriers)))
        self.messages = _part(readers.agent_messages(data), dev=dev)
        self.posts = readers.posts(data, "wnut17_dev.conll" if dev else "wnut17_train.conll")
        self.secret_lines = _part(readers.secret_lines(data), dev=dev)
        self.judged_lines = _part(readers.judged_lines(data), dev=dev)
        self.code = [chunk for path in _part(_sources(), dev=dev) for chunk in _chunks(path)]
        self._frames = {
            name: _turns(getattr(frames, name).strip("\n").split("\n"), dev=dev)
            for name in ("RECALL", "CHAT", "RECORDS", "CODE", "POSTS", "NEGATIVE")
        }

    def _pick(self, *kinds: str) -> str:
        rng = self.values.rng
        return str(rng.choice(self._frames[rng.choice(kinds)]))

    def _carrier(self) -> str:
        rng = self.values.rng
        text = rng.choices(self.carriers, cum_weights=self._carrier_weights)[0]  # a character is as likely as another
        start = rng.randrange(max(1, len(text) - 600))
        return text[start : start + rng.randint(100, _MAX_CHARS - 400)].strip()

    def trace(self) -> Example:
        """A piece of a trace with recalled values in it."""
        carrier = self._carrier()
        wanted = [
            self._pick("RECALL", "RECALL", "RECALL", "CHAT", "NEGATIVE") for _ in range(self.values.rng.randint(1, 5))
        ]
        return self._finish(plant(carrier, wanted, self.values), "traces")

    def record(self) -> Example:
        """Structured data, alone or in a trace."""
        rng = self.values.rng
        kind = rng.random()
        if kind < 0.2:
            return self._finish(plant(self._carrier(), [self._pick("RECORDS")], self.values), "structured")
        text = Text()
        if kind < 0.5:
            text.add(self._carrier()[: rng.randint(0, 300)] + "\n")
        for _ in range(rng.randint(1, 4)):
            form = rng.random()
            if form < 0.3:
                text.join(fill(self._pick("RECORDS", "RECORDS", "NEGATIVE"), self.values)[0])
            else:
                text.join(self.fields.table() if form < 0.45 else self.fields.record())
            text.add(rng.choice(("\n", "\n\n", " ")))
        if rng.random() < 0.3:
            text.add(self._carrier()[: rng.randint(0, 300)])
        return self._finish(text, "structured")

    def chat(self) -> Example:
        """Mail, chat, tickets."""
        text = Text()
        name: str | None = None
        for _ in range(self.values.rng.randint(1, 4)):
            filled, name = fill(self._pick("CHAT", "CHAT", "RECALL", "NEGATIVE"), self.values, name)
            text.join(filled)
            text.add(self.values.rng.choice(("\n", " ", "\n\n")))
        return self._finish(text, "chat")

    def secret(self) -> Example:
        """Code with secrets and look-alikes."""
        rng = self.values.rng
        if rng.random() < 0.15:
            return rng.choice(self.secret_lines)
        if rng.random() < 0.15:
            return rng.choice(self.judged_lines)
        if rng.random() < 0.4:
            text = Text()
            text.add(rng.choice(self.code)[: rng.randint(0, 300)] + "\n" if rng.random() < 0.5 else "")
            text.join(self.fields.record(secret=True))
            return text.example("secrets")
        wanted = [self._pick("CODE", "CODE", "NEGATIVE") for _ in range(rng.randint(1, 4))]
        carrier = rng.choice(self.code) if rng.random() < 0.6 else ""
        return self._finish(plant(carrier, wanted, self.values, lines=True), "secrets")

    def post(self) -> Example:
        """A noisy post, real or made up."""
        if self.values.rng.random() < 0.6:
            return self.values.rng.choice(self.posts)
        return self._finish(fill(self._pick("POSTS"), self.values)[0], "wnut")

    def message(self) -> Example:
        """A piece of an agent's message, with its own values or fresh ones."""
        rng = self.values.rng
        example = rng.choice(self.messages)
        if rng.random() < 0.6:
            example = refill(example, self.values)
        return _cut(example, rng.randrange(max(1, len(example.text) - 300)), _MAX_CHARS)

    def plain(self) -> Example:
        """Nothing to find, much that looks like it."""
        rng = self.values.rng
        kind = rng.random()
        if kind < 0.25:
            return benign(rng.choice(self.code), "code")
        if kind < 0.6:
            return benign(self._carrier(), "benign")
        wanted = [self._pick("NEGATIVE") for _ in range(rng.randint(1, 6))]
        carrier, lines = (self._carrier(), False) if kind < 0.8 else (rng.choice(self.code), True)
        return self._finish(plant(carrier, wanted, self.values, lines=lines), "negatives")

    def _finish(self, text: Text, source: str) -> Example:
        example = text.example(source)
        known = example.spans
        free = [(s, e) for s, e in unknown_names(example.text) if all(e <= a or b <= s for a, b, _ in known)]
        written = example.text
        if source != "secrets" and self.values.rng.random() < _LOWER_SHARE and len(written.lower()) == len(written):
            written = written.lower()
        return Example(written, known, tuple(free), source=source)


def _cut(example: Example, start: int, length: int) -> Example:
    """A piece of an example; values that are cut in two are left whole outside it."""
    end = start + length
    for span_start, span_end, _ in example.spans:
        if span_start < start < span_end:
            start = span_end
        if span_start < end < span_end:
            end = span_start
    spans = tuple((s - start, e - start, entity) for s, e, entity in example.spans if start <= s and e <= end)
    ranges = ((max(s, start) - start, min(e, end) - start) for s, e in example.unlabelled)
    unlabelled = tuple((s, e) for s, e in ranges if s < e)
    return Example(example.text[start:end], spans, unlabelled, example.hazards, example.source)


def _sources() -> list[Path]:
    """Python's own library: code under a permissive licence that every machine has."""
    library = Path(sysconfig.get_path("stdlib"))
    return sorted(library.glob("[a-z]*.py")) + sorted(library.glob("*/[a-z]*.py"))[:400]


def _chunks(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    chunks = ("\n".join(lines[at : at + _CODE_LINES]) for at in range(40, min(len(lines), 600), _CODE_LINES))
    return [chunk for chunk in chunks if 80 < len(chunk) < _MAX_CHARS]


def _make(maker: _Maker, size: int, title: str) -> list[Example]:
    kinds: tuple[tuple[Callable[[], Example], int], ...] = (
        (maker.plain, 34),
        (maker.trace, 20),
        (maker.message, 13),
        (maker.secret, 12),
        (maker.record, 10),
        (maker.post, 6),
        (maker.chat, 5),
    )
    makers, weights = zip(*kinds, strict=True)
    rng = maker.values.rng
    chosen = rng.choices(makers, weights, k=size)
    return [make() for make in tqdm(chosen, desc=title, unit="example", mininterval=1)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m models.corpus", description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the public data, as its MANIFEST says")
    parser.add_argument("--out", type=Path, required=True, help="where train.jsonl and the held-out sets go")
    parser.add_argument("--size", type=int, default=_SIZE, help="training examples (default %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="(default %(default)s)")
    parser.add_argument("--sample", action="store_true", help="a small one, to try things out")
    options = parser.parse_args(arguments)
    size = _SAMPLE if options.sample else options.size
    held_out = max(int(size * _DEV_SHARE), 60)

    train = _make(_Maker(options.data, options.seed, dev=False), size, "train")
    maker = _Maker(options.data, options.seed, dev=True)
    dev = _make(maker, held_out, "dev")
    hazards, refusing = readers.hazard_texts(options.data), readers.refusing(options.data)
    share = min(1.0, size / 20_000)
    for examples in (hazards, refusing):
        kept = _part(examples, dev=False)
        train += kept[: int(len(kept) * share)]
    maker.values.rng.shuffle(train)
    splits = {"train": train}
    for name, examples in (
        ("", dev + _part(hazards, dev=True)[:held_out]),
        ("_benign", [benign(text[:_MAX_CHARS], "benign", ()) for text in maker.carriers[:held_out]]),
        ("_code", [benign(text, "code", ()) for text in maker.code[:held_out]]),
        ("_refusing", _part(refusing, dev=True)[:held_out]),
    ):
        splits[f"dev{name}"] = [example for example in examples if _for_development(example)]
        splits[f"test{name}"] = [example for example in examples if not _for_development(example)]
    manifest: dict[str, object] = {"seed": options.seed, "size": size}
    for split, examples in splits.items():
        write(options.out, split, examples)
        manifest[split] = {
            "examples": len(examples),
            "without values": sum(not example.spans for example in examples),
            "sources": Counter(example.source for example in examples),
            "spans": Counter(entity for example in examples for *_, entity in example.spans),
        }
    manifest["sha256"] = digest(options.out)
    (options.out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # Faker draws some cities from a set
        command = [sys.executable, "-m", "models.corpus", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": "0"})  # noqa: S606  # ourselves
    sys.exit(main())
