"""What a client must get: the moderation of the whole text at once, by the library."""

from functools import lru_cache
from pathlib import Path
from typing import Final

from chaos.script import Script
from cotguard.classifier.bundle import DEFAULT
from cotguard.detectors.contract import RequestFacts
from cotguard.detectors.registry import build
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.view import PlainView
from cotguard.policy import load
from cotguard.spans import ChannelKind

__all__ = ["CLASSIFIER", "FIRST", "SECOND", "Expectation", "leaked", "policy_file"]

FIRST: Final = "first"
SECOND: Final = "second"
CLASSIFIER: Final = "classifier"

_FRAGMENT = 4
_KEPT_TEXTS = 4096


def policy_file(name: str) -> str:
    """The path of one of the policies here."""
    return str(Path(__file__).with_name("policies") / f"{name}.yaml")


class Expectation:
    """What is delivered under the policy called ``name``, which is the one with ``digest``."""

    def __init__(self, name: str) -> None:
        self._policy = load(policy_file(name))
        self._detectors = build(self._policy, DEFAULT)
        self.digest = self._policy.digest
        self.text = lru_cache(_KEPT_TEXTS)(self._text)

    def _text(self, script: Script) -> str:
        """Reasoning and answer, as one text."""
        exchange = Exchange(self._policy, self._detectors, RequestFacts(), bytes(16))
        lane = exchange.lane(0)
        for channel, kind in (("reasoning", ChannelKind.REASONING), ("answer", ChannelKind.OUTPUT)):
            lane.open(channel, PlainView(kind))
            lane.feed(channel, script.text("reasoning" if channel == "reasoning" else "answer"))
        lane.finish()
        return "".join(emission.text for emission in lane.take())


def leaked(script: Script, delivered: str, allowed: str, fragment: int = _FRAGMENT) -> int:
    """How many characters of the script's secrets are in ``delivered``, as parts of fragments of so many or more.

    What is in ``allowed`` too is no part of a secret.
    """
    return sum(_shown(secret, delivered, allowed, fragment) for secret in script.secrets)


def _shown(secret: str, delivered: str, allowed: str, fragment: int) -> int:
    shown: set[int] = set()
    for at in range(len(secret) - fragment + 1):
        part = secret[at : at + fragment]
        if part in delivered and part not in allowed:
            shown.update(range(at, at + fragment))
    return len(shown)
