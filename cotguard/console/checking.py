"""What is wrong with a draft of a policy, or what it does."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cotguard.gateway.drafting import asked
from cotguard.policy import PolicyError, sentences

if TYPE_CHECKING:
    from cotguard.gateway.app import Gateway

__all__ = ["checked", "told"]


async def checked(gateway: "Gateway", about: Mapping[str, Any]) -> dict[str, Any]:
    """Problems, or else sentences, name and digest.

    ``about`` has the ``draft``, and the name of the ``policy`` that it is to replace. Nothing is built for it. Raises
    ``ValueError`` where no policy is called so.
    """
    try:
        policy = await gateway.drafts.policy(*asked(about))
    except PolicyError as error:
        return {"problems": told(error), "sentences": [], "name": "", "digest": ""}
    return {"problems": [], "sentences": sentences(policy), "name": policy.name, "digest": policy.digest}


def told(error: PolicyError) -> list[dict[str, Any]]:
    """The problems as JSON. Lines and columns count from 1; both are 0 where the draft as a whole is meant."""
    return [
        {"line": each.line, "column": each.column, "reason": each.reason, "hint": each.hint} for each in error.problems
    ]
