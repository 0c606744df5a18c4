"""The reference of entities, from the taxonomy and from what finds them."""

from collections.abc import Collection, Mapping
from importlib.resources import files

from cotguard.classifier.bundle import DEFAULT, load
from cotguard.detectors.injection import PromptInjection
from cotguard.detectors.registry import RULES
from cotguard.detectors.rules.pem import PrivateKeyDetector
from cotguard.detectors.seed_phrase import SeedPhrases
from cotguard.detectors.system_prompt import SystemPromptRecall
from cotguard.guard.format import load_format
from cotguard.taxonomy import GROUPS
from docs_build.tables import table

__all__ = ["reference"]


def reference() -> str:
    """Entities by group, each with what finds it where nothing else is installed."""
    finders = _finders()
    return "\n".join(f"## {group}\n\n{_table(members, finders)}" for group, members in GROUPS.items())


def _table(members: Collection[str], finders: Mapping[str, Collection[str]]) -> str:
    rows = (
        (f"`{entity}`", ", ".join(name for name, found in finders.items() if entity in found)) for entity in members
    )
    return table(("entity", "found by"), rows)


def _finders() -> Mapping[str, Collection[str]]:
    manifest = load(DEFAULT).manifest
    names = [entry.name.removesuffix(".yaml") for entry in (files("cotguard.guard") / "formats").iterdir()]
    own = (PrivateKeyDetector, SeedPhrases, SystemPromptRecall, PromptInjection)
    return {
        "patterns": {entity for rule in RULES for entity in rule.also | {rule.entity}},
        "a detector of its own": {entity for detector in own for entity in detector.entities},
        "your list": {"KNOWN_VALUE"},
        "comparing with the first definition": {"TOOL_CHANGED"},
        "the classifier": {*manifest.entities.values(), *manifest.hazard_entities.values()},
        "a guard model": {entity for name in names for entity in load_format(name).hazards},
    }
