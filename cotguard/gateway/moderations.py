"""The policies in use, each with its detectors: the gateway's own, and those that roles name."""

from collections.abc import Sequence
from typing import NamedTuple

from cotguard.detectors.contract import Detector
from cotguard.detectors.registry import build
from cotguard.gateway.settings import Settings
from cotguard.policy import Policy, load

__all__ = ["Moderation", "load_roles", "with_detectors"]


class Moderation(NamedTuple):
    """A policy, and the detectors that it needs."""

    policy: Policy
    detectors: tuple[Detector, ...]


def with_detectors(policy: Policy, settings: Settings, loaded: Sequence[Detector] = ()) -> Moderation:
    """``policy`` with its detectors. A classifier among those ``loaded`` is not loaded again.

    Raises what :func:`~cotguard.detectors.registry.build` raises.
    """
    return Moderation(policy, build(policy, settings.bundle, settings.served, settings.guard, loaded))


def load_roles(settings: Settings, loaded: Sequence[Detector]) -> dict[str, Moderation]:
    """The policies of roles, by the name that roles give them; ``loaded`` as above.

    Raises what :func:`with_detectors` raises, and :class:`~cotguard.policy.PolicyError`.
    """
    found: dict[str, Moderation] = {}
    shared = list(loaded)
    for name in settings.callers.policies if settings.callers else ():
        found[name] = with_detectors(load(name), settings, shared)
        shared += found[name].detectors
    return found
