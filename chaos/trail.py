"""What the audit trail must hold, given what clients saw.

1. It verifies.
2. Every exchange that a client saw complete has one record, of the policy that its response named, and as many
   decisions as that record says.
3. Every value whose replacement was delivered has its decision.
4. Nothing in it, in the log or in the metrics is a part of a secret.
"""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from chaos.exchange import End, Seen
from chaos.script import Script

__all__ = ["Account", "account", "quoted", "verifies"]

_LABEL = re.compile(r"\[([A-Z_]+)\]")
_FRAGMENT = 12
"""So long that no hash is taken for a part of a secret, in millions of characters."""


class Account(NamedTuple):
    """What was found: how many records, and how many of exchanges and of decisions are missing.

    ``hours``: between the earliest and the latest time that records tell.
    """

    records: int
    exchanges: int
    decisions: int
    hours: float


def account(trail: Path, seen: Iterable[Seen]) -> Account:
    """Hold the trail against what clients saw."""
    exchanges: dict[str, list[dict[str, Any]]] = {}
    decisions: dict[str, list[dict[str, Any]]] = {}
    times: list[datetime] = []
    for record in _records(trail):
        times.append(datetime.fromisoformat(record["time"]))
        if record["type"] == "exchange":
            exchanges.setdefault(record["request_id"], []).append(record)
        elif record["type"] == "decision":
            decisions.setdefault(record["request_id"], []).append(record)
    unrecorded = undecided = 0
    for each in seen:
        unrecorded += each.end is End.COMPLETE and not _is_recorded(each, exchanges.get(each.request_id, []))
        undecided += _undecided(each, decisions.get(each.request_id, []))
    for request_id, found in exchanges.items():
        undecided += sum(abs(each["decisions"] - len(decisions.get(request_id, []))) for each in found)
    hours = (max(times) - min(times)).total_seconds() / 3600 if times else 0.0
    return Account(len(times), unrecorded, undecided, hours)


def verifies(trail: Path) -> bool:
    """Whether ``cotguard audit verify`` finds it whole."""
    command = (sys.executable, "-m", "cotguard", "audit", "verify", str(trail))
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603  # our own program


def quoted(texts: Iterable[str], numbers: Iterable[int]) -> int:
    """How many of ``texts`` hold a part of a secret of these exchanges."""
    parts = _parts(numbers) - (_parts([-1]) & _parts([-2]))  # what two scripts share is no secret
    return sum(any(text[at : at + _FRAGMENT] in parts for at in range(len(text))) for text in texts)


def _parts(numbers: Iterable[int]) -> set[str]:
    return {
        secret[at : at + _FRAGMENT]
        for number in numbers
        for secret in Script(number).secrets
        for at in range(len(secret) - _FRAGMENT + 1)
    }


def _is_recorded(seen: Seen, exchanges: Sequence[dict[str, Any]]) -> bool:
    fitting = [each for each in exchanges if each["policy_digest"] == seen.policy and each["outcome"] == "ok"]
    return len(exchanges) == len(fitting) == 1


def _undecided(seen: Seen, decisions: Sequence[dict[str, Any]]) -> int:
    """Replacements that were delivered without a decision in the trail."""
    recorded = Counter(each["entity"] for each in decisions if each["direction"] == "response")
    return (Counter(_LABEL.findall(seen.text)) - recorded).total()


def _records(trail: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(trail.glob("audit-*.jsonl")):
        with file.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):  # else it is of a writer that was killed, and was not acknowledged
                    yield orjson.loads(line)
