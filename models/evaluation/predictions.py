"""Predictions: what ``cotguard scan --jsonl``, the path that is shipped, says of texts."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.progress import track

from models.evaluation.gold import Item

__all__ = ["Predicted", "Predictions", "PredictionsError", "predict"]


class PredictionsError(RuntimeError):
    """``cotguard scan`` failed; the message is its own."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """A span and what the policy did about it."""

    start: int
    end: int
    entity: str
    score: float
    acted: bool
    """Whether the text delivered differs there."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Spans by item, and seconds from the first answer to the last: starting does not count."""

    spans: dict[str, list[Predicted]]
    seconds: float


def predict(items: Sequence[Item], *, policy: str, bundle: str, channel: str) -> Predictions:
    """Scan every item's text. Raises :class:`PredictionsError`."""
    command = [sys.executable, "-m", "cotguard", "scan", "--jsonl", "--policy", policy, "--bundle", bundle]
    scan = subprocess.Popen(  # noqa: S603  # our own module
        [*command, "--channel", channel], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    with scan:
        writer = threading.Thread(target=_write, args=(scan, items))
        writer.start()
        spans: dict[str, list[Predicted]] = {}
        begun = ended = 0.0
        assert scan.stdout is not None  # noqa: S101  # it is a pipe
        for line in track(scan.stdout, "scanning", total=len(items), disable=not sys.stderr.isatty()):
            ended = time.monotonic()
            begun = begun or ended
            record = json.loads(line)
            spans[record["id"]] = [_predicted(span) for span in record["spans"]]
        writer.join()
    if scan.returncode or len(spans) != len(items):
        raise PredictionsError(f"cotguard scan ended with status {scan.returncode} after {len(spans)} texts")
    return Predictions(spans, ended - begun)


def _write(scan: "subprocess.Popen[str]", items: Sequence[Item]) -> None:
    assert scan.stdin is not None  # noqa: S101  # it is a pipe
    try:
        for item in items:
            scan.stdin.write(json.dumps({"id": item.id, "text": item.text}) + "\n")
        scan.stdin.close()
    except BrokenPipeError:
        return  # it ended early, and says why itself


def _predicted(span: dict[str, object]) -> Predicted:
    start, end, score = span["start"], span["end"], span["score"]
    assert isinstance(start, int) and isinstance(end, int) and isinstance(score, int | float)  # noqa: S101, PT018
    return Predicted(start, end, str(span["entity"]), float(score), span["action"] not in ("allow", "flag"))
