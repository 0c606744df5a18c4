"""What the console asks of a gateway, where its policies, detectors and upstreams are."""

import platform
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from cotguard import __version__
from cotguard.console.checking import checked, told
from cotguard.console.comparing import compared
from cotguard.console.playground import tried
from cotguard.dialects.catalogue import dialects
from cotguard.gateway import trial
from cotguard.policy import PolicyError, sentences

if TYPE_CHECKING:
    from cotguard.gateway.app import Gateway

__all__ = ["Reply", "answered"]

Reply = tuple[int, Any]
"""A status, and what JSON has."""

_LIBRARIES = ("aiohttp", "hyperscan", "google-re2", "onnxruntime", "phonenumbers", "python-stdnum", "tokenizers")


async def answered(gateway: "Gateway", name: str, about: Mapping[str, Any]) -> Reply:
    """The answer to the question ``name``. What is wrong with ``about`` is told without quoting it."""
    try:
        return 200, await _QUESTIONS[name](gateway, about)
    except PolicyError as error:
        return 422, {"error": "The draft cannot be used.", "problems": told(error)}
    except ValueError as error:
        return 400, {"error": str(error)}


async def _policies(gateway: "Gateway", _about: Mapping[str, Any]) -> dict[str, Any]:
    """The policies in force, as people read them."""
    found = {each.policy.digest: each.policy for each in gateway.active.moderations.values()}
    return {
        "policies": [
            {"name": each.name, "digest": each.digest, "mode": each.mode, "sentences": sentences(each)}
            for each in found.values()
        ]
    }


async def _loaded(gateway: "Gateway", _about: Mapping[str, Any]) -> dict[str, Any]:
    """Dialects, upstreams, policies and the bundle, with versions and checksums."""
    settings = gateway.active.settings
    policies = {each.policy.digest: each.policy.name for each in gateway.active.moderations.values()}
    return {
        "version": __version__,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "dialects": [
            {
                "name": each.name,
                "title": each.title,
                "servers": each.servers,
                "moderated": [f"{r.method} {r.path}" for r in each.routes if not r.refused and not r.lookup],
                "lookups": [f"{r.method} {r.path}" for r in each.routes if r.lookup],
                "refused": [{"path": f"{r.method} {r.path}", "why": r.refused} for r in each.routes if r.refused],
            }
            for each in dialects()
        ],
        "upstreams": [
            {"name": name, "servers": [each.label for each in pool.servers], "key": bool(pool.key)}
            for name, pool in settings.pools.items()
        ],
        "bundle": gateway.staff.bundle,
        "guard": settings.guard,
        "policies": [{"name": name, "digest": digest} for digest, name in policies.items()],
    }


_QUESTIONS: Final[Mapping[str, Callable[["Gateway", Mapping[str, Any]], Awaitable[dict[str, Any]]]]] = {
    "policies": _policies,
    "loaded": _loaded,
    "try": tried,
    "check": checked,
    "compare": compared,
    "trial": trial.state,
    "trial_start": trial.start,
    "trial_stop": trial.stop,
}
