"""Policies that are being written: each made ready like one in force, and in force nowhere.

A draft stands in for a policy that is in force. It may read the file of known values that this one names and no other,
so whoever writes drafts reads no files through them. What it is compiled to takes seconds to make and some MiB, so the
last few drafts' detectors are kept.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from cotguard.detectors.contract import Detector
from cotguard.detectors.registry import build
from cotguard.gateway.active import Active
from cotguard.gateway.moderations import OWN, Moderation
from cotguard.policy import Policy, PolicyError, Problem, parse_draft

__all__ = ["KEPT", "MAX_DRAFT_CHARS", "Drafts", "asked"]

MAX_DRAFT_CHARS = 64 * 1024
"""The longest text of a draft: reading YAML takes a second for each MiB, and comparing rules its square."""

KEPT = 4
"""Drafts whose detectors are kept, the last used."""

SOURCE: Final = "draft"
"""What problems call a draft's text."""


class Drafts:
    """The drafts of one gateway. ``active`` tells what is in force, ``engage`` has those there whom detectors ask.

    They are made ready one after the other, in a thread.
    """

    def __init__(self, active: Callable[[], Active], engage: Callable[[Sequence[Detector]], Awaitable[None]]) -> None:
        self._active = active
        self._engage = engage
        self._turn = asyncio.Lock()
        self._built: OrderedDict[str, tuple[Detector, ...]] = OrderedDict()  # by digest

    async def policy(self, name: str, text: str) -> Policy:
        """The policy in ``text``, which may take the place of the one in force that is called ``name``.

        Raises :class:`~cotguard.policy.PolicyError`, and ``ValueError`` if there is none of that name.
        """
        replaced = self._active().named(name).policy
        if len(text) > MAX_DRAFT_CHARS:
            reason, hint = f"longer than {MAX_DRAFT_CHARS} characters", "put known values in a file of their own"
            raise PolicyError([Problem(SOURCE, 0, 0, reason, hint)])
        async with self._turn:
            return await asyncio.to_thread(parse_draft, text, SOURCE, replaced)

    async def moderation(self, name: str, text: str) -> Moderation:
        """The same with what moderates under it, and nothing found yet.

        Raises what ``policy`` and :func:`~cotguard.detectors.registry.build` raise.
        """
        policy = await self.policy(name, text)
        async with self._turn:
            detectors = self._built.pop(policy.digest, None)
            if detectors is None:
                detectors = await self._build(policy)
            self._built[policy.digest] = detectors
            if len(self._built) > KEPT:
                self._built.popitem(last=False)
        return Moderation.of(policy, detectors)

    async def _build(self, policy: Policy) -> tuple[Detector, ...]:
        active = self._active()
        in_force = {each.policy.digest: each for each in active.moderations.values()}
        if policy.digest in in_force:
            return in_force[policy.digest].detectors
        settings = active.settings
        loaded = [detector for each in in_force.values() for detector in each.detectors]
        loaded += [detector for each in self._built.values() for detector in each]
        detectors = await asyncio.to_thread(build, policy, settings.bundle, settings.served, settings.guard, loaded)
        await self._engage(detectors)
        return detectors


def asked(about: Mapping[str, Any]) -> tuple[str, str]:
    """The name of a policy and the text of a draft that is to take its place. Raises ``ValueError``."""
    name, text = about.get("policy", OWN), about.get("draft")
    if not isinstance(name, str):
        raise ValueError("policy: write the name of a policy that is in force")  # noqa: TRY004  # whoever asks is told
    if not isinstance(text, str):
        raise ValueError("draft: write the policy's text")  # noqa: TRY004
    return name, text
