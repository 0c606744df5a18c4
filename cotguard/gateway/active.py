"""What requests are answered by. It is replaced as a whole when the configuration changes; exchanges keep theirs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cotguard.callers.caller import Caller
from cotguard.callers.reception import Reception
from cotguard.config.routes import RouteDocument, Routes
from cotguard.config.settings import Settings
from cotguard.gateway.moderations import Moderation
from cotguard.sealing.keyring import KeyRing
from cotguard.upstreams.pool import Pool

__all__ = ["Active"]


@dataclass(frozen=True, slots=True)
class Active:
    """See the module. ``keys`` are those of seals, ``moderations`` all policies by the names that are given to them."""

    settings: Settings
    moderations: Mapping[str, Moderation]
    routes: Routes
    pools: Mapping[str, Pool]
    reception: Reception
    keys: KeyRing | None = field(repr=False)

    def moderation(self, caller: Caller, route: RouteDocument) -> Moderation:
        """Of the policies that may hold for an exchange the caller's goes first, then the route's."""
        return self.moderations[caller.scope.policy or route.policy]

    def named(self, name: str) -> Moderation:
        """Of the policies in force the one that calls itself ``name``, or that the settings call so.

        Raises ``ValueError``.
        """
        found = next((each for each in self.moderations.values() if each.policy.name == name), None)
        found = found or self.moderations.get(name)
        if found is None:
            known = sorted({each.policy.name for each in self.moderations.values()})
            raise ValueError(f"policy: none of this name is in force; write one of: {', '.join(known)}")
        return found
