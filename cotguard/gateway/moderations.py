"""The policies in use, each with what moderates under it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from cotguard.classifier.handover import pause
from cotguard.config.settings import Settings
from cotguard.detectors.contract import Detector
from cotguard.detectors.registry import build
from cotguard.moderation.request import Findings
from cotguard.policy import Policy, load

__all__ = ["OWN", "Moderation", "load_moderations"]

OWN = ""
"""Names the gateway's own policy: what routes and roles name that name none."""


@dataclass(frozen=True, slots=True)
class Moderation:
    """A policy, the detectors that it needs, and what they found in texts of requests."""

    policy: Policy
    detectors: tuple[Detector, ...]
    findings: Findings = field(repr=False)

    @classmethod
    def of(cls, policy: Policy, detectors: Sequence[Detector]) -> Self:
        """With nothing found yet."""
        return cls(policy, tuple(detectors), Findings(policy, detectors, pause))


def load_moderations(
    settings: Settings, known: Iterable[Moderation] = (), own: Moderation | None = None
) -> dict[str, Moderation]:
    """All policies by the name that settings, routes and roles give them, the gateway's own under ``OWN`` too.

    Those among ``known`` whose policy has not changed are used again, and so is a classifier that any of them has.
    ``own``: the gateway's, if it is not the one that the settings name. Raises
    :class:`~cotguard.policy.PolicyError` and what :func:`~cotguard.detectors.registry.build` raises.
    """
    known = list(known) if own is None else [own, *known]
    found: dict[str, Moderation] = {} if own is None else {settings.policy: own}
    for name in settings.policies:
        if name in found:
            continue
        policy = load(name)
        moderation = next((each for each in known if each.policy.digest == policy.digest), None)
        if moderation is None:
            loaded = [detector for each in known for detector in each.detectors]
            moderation = Moderation.of(policy, build(policy, settings.bundle, settings.served, settings.guard, loaded))
            known.append(moderation)
        found[name] = moderation
    return {**found, OWN: found[settings.policy]}
