"""How long ordinary text is held, and how much of it is altered: ``python -m loadtest.hold TEXTS.jsonl ...``.

Every text is fed to an exchange of its own, token by token; after each token it is noted how many characters are on
hold, and how many tokens these belong to. Nothing waits for a clock, so the figures are the same on every machine.
Altered characters are those of the values that the policy rewrites, counted once where values overlap; on text
without values every one of them is a mistake. The report names entities, never the text.
"""

import argparse
import json
import os
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from cotguard.detectors.contract import Detector, RequestFacts
from cotguard.detectors.registry import build
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.observer import Recorder
from cotguard.moderation.view import PlainView
from cotguard.policy import Policy, load
from cotguard.spans import ChannelKind
from loadtest.script import split

__all__ = ["Holds", "main", "measure", "quantile", "texts"]

_PROGRESS_EVERY = 500


@dataclass
class Holds:
    """What was seen. ``characters`` and ``tokens``: how often how many of them were on hold after a token."""

    texts: int = 0
    received: int = 0
    altered: int = 0
    characters: Counter[int] = field(default_factory=Counter)
    tokens: Counter[int] = field(default_factory=Counter)
    entities: Counter[str] = field(default_factory=Counter)
    """Values rewritten, by entity."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each file and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.hold", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--policy", default="balanced", help="ready policy or file (default %(default)s)")
    parser.add_argument("--field", help="of the JSON objects (default: the one with the longest strings)")
    parser.add_argument("--limit", type=int, help="texts of each file (default: all)", metavar="N")
    parser.add_argument("files", nargs="+", type=Path, help="one JSON object a line", metavar="TEXTS.jsonl")
    given = parser.parse_args(arguments)
    policy = load(given.policy)
    detectors = build(policy)
    heads = "texts | characters | hold p50 | hold p99 | most | tokens late p50 | tokens late p99 | altered | values"
    sys.stdout.write(f"policy {policy.name}\n\n| file, field | {heads} |\n|---|{'---:|' * 8}---|\n")
    for file in given.files:
        name = given.field or _longest_field(file)
        holds = Holds()
        for text in islice(texts(file, name), given.limit):
            measure(text, policy, detectors, holds)
            if holds.texts % _PROGRESS_EVERY == 0:
                sys.stderr.write(f"{file.name}: {holds.texts} texts\n")
        sys.stdout.write(_row(f"{file.name}, {name}", holds))
        sys.stdout.flush()
    return 0


def texts(file: Path, name: str) -> Iterator[str]:
    """The strings of the field ``name``."""
    for record in _records(file):
        if isinstance(text := record.get(name), str):
            yield text


def measure(text: str, policy: Policy, detectors: Sequence[Detector], holds: Holds) -> None:
    """Stream ``text`` as reasoning and add what is seen to ``holds``."""
    recorder = Recorder()
    exchange = Exchange(policy, detectors, RequestFacts(), os.urandom(32), observer=recorder)
    lane = exchange.lane(0)
    lane.open("reasoning", PlainView(ChannelKind.REASONING))
    held_tokens: deque[int] = deque()  # where those end that are not wholly released
    end = 0
    for token in split(text):
        lane.feed("reasoning", token)
        end += len(token)
        held_tokens.append(end)
        while held_tokens and held_tokens[0] <= end - exchange.held:
            held_tokens.popleft()
        holds.characters[exchange.held] += 1
        holds.tokens[len(held_tokens)] += 1
    lane.finish()
    rewritten = sorted((span.start, span.end, span.entity) for span, action in recorder.spans if action.rewrites)
    until = 0
    for start, end, entity in rewritten:
        holds.altered += max(0, end - max(start, until))
        holds.entities[entity] += start >= until
        until = max(until, end)
    holds.texts += 1
    holds.received += exchange.received


def quantile(counts: Counter[int], share: float) -> int:
    """The smallest value that ``share`` of the observations do not exceed; 0 without observations."""
    left = share * counts.total()
    for value in sorted(counts):
        left -= counts[value]
        if left <= 0:
            return value
    return 0


def _row(title: str, holds: Holds) -> str:
    characters, tokens = holds.characters, holds.tokens
    cells = (
        title,
        f"{holds.texts:,}",
        f"{holds.received:,}",
        *(str(quantile(characters, share)) for share in (0.5, 0.99, 1)),
        *(str(quantile(tokens, share)) for share in (0.5, 0.99)),
        f"{holds.altered / max(1, holds.received):.3%}",
        ", ".join(f"{entity} {count}" for entity, count in holds.entities.most_common() if count),
    )
    return f"| {' | '.join(cells)} |\n"


def _records(file: Path) -> Iterator[dict[str, object]]:
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if isinstance(record := json.loads(line), dict):
                yield record


def _longest_field(file: Path) -> str:
    """The field whose strings are longest together, in the first records."""
    lengths: Counter[str] = Counter()
    for record in islice(_records(file), 100):
        lengths.update({name: len(value) for name, value in record.items() if isinstance(value, str)})
    if not lengths:
        raise SystemExit(f"{file}: no record has a string")
    return lengths.most_common(1)[0][0]


if __name__ == "__main__":
    sys.exit(main())
