"""The clients and models of the tests, which know every dialect's wire, and the policy that all of them are under."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from conversations import CLIENTS, Client, Reply, Said, conversation  # of the folder added above
from dialect_kit import exchange  # same

from cotguard.detectors.registry import build  # same
from cotguard.policy import parse  # same
from fuzz.literals import Literals  # same
from fuzz.mutation import CANARY  # same

__all__ = ["CLIENTS", "EMAIL", "FORBIDDEN", "KEY", "MODERATION", "TALK", "Client", "exchange", "reply"]

_POLICY = parse(
    "version: 1\nname: fuzz\nclassifier: false\nrules:\n"
    "  - entities: [EMAIL_ADDRESS, SECRET_API_KEY, KNOWN_VALUE]\n    action: redact\n"
    f"known_values:\n  values: [{CANARY!r}]\n",
    "fuzz.yaml",
    None,
)
EMAIL, KEY = "o'brien+billing@mail.example.co.uk", "AKIAIOSFODNN7EXAMPLE"
FORBIDDEN = (CANARY, EMAIL, KEY)
MODERATION = _POLICY, (*build(_POLICY), Literals(FORBIDDEN))
"""What is planted is redacted; few detectors, since it is not them that are fuzzed."""

TALK = conversation(1)
"""The request that the fuzzed responses answer."""


def reply(text: str) -> Reply:
    """A model's answer that says ``text`` in each of its channels."""
    return Reply(Said(text), Said(text), Said(f'{{"note": "{text}", "list": ["{text}", 4]}}'))
