"""How much the report measures."""

from collections.abc import Sequence
from dataclasses import dataclass

from cotguard.classifier.bundle import DEFAULT, ready_bundles
from loadtest.baselines import BASELINES
from loadtest.contenders import DIRECT, NGINX, REFERENCE, compiled, cotguard
from loadtest.dialects import DIALECTS

__all__ = ["FULL", "QUICK", "Plan"]

_NOTHING, _SECRETS, _PATTERNS = map(cotguard, ("nothing", "secrets-only", "patterns-only"))


@dataclass(frozen=True)
class Plan:
    """Seconds are those in which something counts; starting, warming up and ending come on top."""

    repeat: int = 3
    seconds: float = 4.0
    rate: float = 50.0
    """Tokens a second of a paced stream."""
    busy: int = 64
    """Streams of the comparison of costs."""
    concurrent: int = 50
    """Streams of the open loop, on average."""
    stream_tokens: int = 200
    """Of a stream of the open loop."""
    open_seconds: float = 12.0
    most_events: float = 3200.0
    """Events a second of all paced streams together: with more streams each of them is slower."""
    streams: Sequence[int] = (1, 4, 16, 64, 256, 1024)
    more_streams: Sequence[int] = (4096,)
    """On top, where each is slow."""
    memory_streams: Sequence[int] = (128, 1024)
    lengths: Sequence[int] = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
    hold_tokens: int = 1000
    bundles: Sequence[str] = (DEFAULT, *(name for name in ready_bundles() if name != DEFAULT))
    classifier_streams: Sequence[int] = (16, 32, 48, 64)
    classifier_turns: int = 3
    classifier_tokens: int = 400
    classifier_lengths: Sequence[int] = (1_000, 3_000, 10_000, 30_000)
    dialects: Sequence[str] = tuple(DIALECTS)
    compared: Sequence[str] = (DIRECT, *BASELINES, NGINX, _NOTHING, _SECRETS, _PATTERNS, compiled("patterns-only"))
    spoken: Sequence[str] = (REFERENCE, _PATTERNS)
    """Who is measured in every dialect."""
    scaled: Sequence[str] = (*BASELINES, NGINX, _PATTERNS)
    lengthened: Sequence[str] = (REFERENCE, _SECRETS, _PATTERNS)
    remembered: Sequence[str] = (REFERENCE, NGINX, _PATTERNS)
    hold_policies: Sequence[str] = ("secrets-only", "patterns-only")

    def rate_of(self, streams: int) -> float:
        """Tokens a second of each of ``streams``."""
        return min(self.rate, self.most_events / streams)


FULL = Plan()
QUICK = Plan(
    repeat=1,
    seconds=0.3,
    busy=2,
    concurrent=2,
    stream_tokens=10,
    open_seconds=0.4,
    streams=(2,),
    more_streams=(),
    memory_streams=(2,),
    lengths=(300, 1000),
    bundles=(),
    compared=(DIRECT, REFERENCE, NGINX, _NOTHING),
    dialects=("chat",),
    spoken=(REFERENCE, _NOTHING),
    scaled=(REFERENCE, _NOTHING),
    lengthened=(REFERENCE, _NOTHING),
    remembered=(REFERENCE, _NOTHING),
    hold_policies=(),
)
"""Seconds, to see that it works: its figures mean nothing. No detector is built, which alone takes seconds."""
