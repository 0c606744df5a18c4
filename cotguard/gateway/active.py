"""What requests are answered by. It is replaced as a whole when the configuration changes; exchanges keep theirs."""

from collections import Counter
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

    @property
    def policies(self) -> dict[str, Moderation]:
        """Each policy in force once, by its name; those that share one by what the settings call them."""
        called: dict[str, tuple[str, Moderation]] = {}
        for name, each in self.moderations.items():
            called.setdefault(each.policy.digest, (name, each))
        alike = Counter(each.policy.name for _, each in called.values())
        return {each.policy.name if alike[each.policy.name] == 1 else name: each for name, each in called.values()}

    def named(self, name: str) -> Moderation:
        """Of the policies in force the one that :attr:`policies` or the settings call so. Raises ``ValueError``."""
        found = self.policies.get(name) or self.moderations.get(name)
        if found is None:
            raise ValueError(f"policy: none of this name is in force; write one of: {', '.join(sorted(self.policies))}")
        return found
