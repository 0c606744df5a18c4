"""The reference of the policy language, from its models."""

import re
from importlib.resources import files

from cotguard.detectors.contract import RequestFacts
from cotguard.detectors.patterns import PatternDetector
from cotguard.detectors.rules import contact
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.view import PlainView
from cotguard.policy import ready_policies
from cotguard.policy.loading import parse
from cotguard.policy.schema import schema
from cotguard.spans import Action, ChannelKind
from docs_build import tables

__all__ = ["actions", "keys", "ready"]

_TEXT = "Mail ann.lee@example.com now."
_KEY = b"of the examples, which are the same every time"


def keys() -> str:
    """Every key, where it may stand."""
    parts = {
        "A policy": "",
        "A rule": "RuleDocument",
        "`request`": "RequestDocument",
        "`known_values`": "KnownValuesDocument",
    }
    return "\n".join(f"### {title}\n\n{tables.keys(schema(), name)}" for title, name in parts.items())


def actions() -> str:
    """What becomes of a text, by action, from mildest to most severe."""
    rows = ((f"`{action}`", f"`{_moderated(action)}`") for action in Action)
    return tables.table(("action", f"`{_TEXT}` becomes"), rows)


def _moderated(action: Action) -> str:
    rule = f"{{entities: [EMAIL_ADDRESS], action: {action}}}"
    policy = parse(f"version: 1\nname: example\nrules: [{rule}]\n", "example", None)
    lane = Exchange(policy, [PatternDetector(contact.RULES)], RequestFacts(), _KEY).lane(0)
    lane.open(ChannelKind.OUTPUT, PlainView(ChannelKind.OUTPUT))
    lane.feed(ChannelKind.OUTPUT, _TEXT)
    lane.finish()
    text = "".join(emission.text for emission in lane.take())
    return re.sub(r"(?<=EMAIL_ADDRESS_)\w{5}", "XXXXX", text)  # it is another one in every exchange


def ready() -> str:
    """The ready policies, as their files say."""
    folder = files("cotguard.policy") / "ready"
    texts = {name: (folder / f"{name}.yaml").read_text(encoding="utf-8") for name in ready_policies()}
    return "\n".join(f"## {name}\n\n```yaml\n{text}```\n" for name, text in texts.items())
