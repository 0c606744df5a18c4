"""What the console asks of a gateway, where its policies, detectors and upstreams are."""

import logging
import platform
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from cotguard import __version__
from cotguard.console.checking import checked, told
from cotguard.console.comparing import compared
from cotguard.console.playground import tried
from cotguard.dialects.catalogue import dialects
from cotguard.dialects.listing import lookups, moderated
from cotguard.gateway import trial
from cotguard.policy import Policy, PolicyError, sentences

if TYPE_CHECKING:
    from cotguard.gateway.app import Gateway

__all__ = ["TRIAL", "TRIALS", "TRIAL_START", "TRIAL_STOP", "Reply", "answered"]

Reply = tuple[int, Any]
"""A status, and what JSON has."""

TRIAL: Final = "trial"
TRIAL_START: Final = "trial_start"
TRIAL_STOP: Final = "trial_stop"
TRIALS: Final = frozenset({TRIAL, TRIAL_START, TRIAL_STOP})
"""What all workers are asked; the answers are summed up (:func:`cotguard.gateway.trial.summed`)."""

_LOG = logging.getLogger("cotguard.console")

_LIBRARIES = ("aiohttp", "hyperscan", "google-re2", "onnxruntime", "phonenumbers", "python-stdnum", "tokenizers")


async def answered(gateway: "Gateway", name: str, about: Mapping[str, Any]) -> Reply:
    """The answer to the question ``name``. What is wrong with ``about`` is told without quoting it."""
    try:
        return 200, await _QUESTIONS[name](gateway, about)
    except PolicyError as error:
        return 422, {"error": "The draft cannot be used.", "problems": told(error)}
    except ValueError as error:
        return 400, {"error": str(error)}
    except Exception as error:  # a fault of ours: its message may quote what it was about
        _LOG.error("console failed", exc_info=error)
        return 500, {"error": "This failed; the log says where."}


async def _policies(gateway: "Gateway", _about: Mapping[str, Any]) -> dict[str, Any]:
    """The policies in force, as people read them."""
    return {
        "policies": [
            {"name": each.name, "digest": each.digest, "mode": each.mode, "sentences": sentences(each)}
            for each in _in_force(gateway)
        ]
    }


async def _loaded(gateway: "Gateway", _about: Mapping[str, Any]) -> dict[str, Any]:
    """Dialects, upstreams, policies and the bundle, with versions and checksums."""
    settings = gateway.active.settings
    return {
        "version": __version__,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "dialects": [
            {
                "name": each.name,
                "title": each.title,
                "servers": each.servers,
                "moderated": [f"{route.method} {route.path}" for route in moderated(each)],
                "lookups": [f"{route.method} {route.path}" for route in lookups(each)],
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
        "policies": [{"name": each.name, "digest": each.digest} for each in _in_force(gateway)],
    }


def _in_force(gateway: "Gateway") -> list[Policy]:
    """The policies, each once, whatever they are called by."""
    return list({each.policy.digest: each.policy for each in gateway.active.moderations.values()}.values())


_QUESTIONS: Final[Mapping[str, Callable[["Gateway", Mapping[str, Any]], Awaitable[dict[str, Any]]]]] = {
    "policies": _policies,
    "loaded": _loaded,
    "try": tried,
    "check": checked,
    "compare": compared,
    TRIAL: trial.state,
    TRIAL_START: trial.start,
    TRIAL_STOP: trial.stop,
}
