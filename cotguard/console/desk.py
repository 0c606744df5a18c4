"""What the console asks of a gateway, where its policies, detectors, callers and upstreams are."""

import logging
import platform
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cotguard import __version__
from cotguard.callers.denied import Denied, Reason
from cotguard.console.checking import checked, told
from cotguard.console.comparing import compared
from cotguard.console.playground import tried
from cotguard.dialects.catalogue import dialects
from cotguard.dialects.listing import lookups, moderated
from cotguard.gateway import trial
from cotguard.gateway.applying import Applying, Conflict, former_of, why_not_written
from cotguard.gateway.moderations import OWN
from cotguard.policy import Policy, PolicyError, is_ready, sentences

if TYPE_CHECKING:
    from cotguard.gateway.app import Gateway

__all__ = [
    "APPLY",
    "CALLER",
    "CHANGES",
    "ROLL_BACK",
    "TEXT",
    "TRIAL",
    "TRIALS",
    "TRIAL_START",
    "TRIAL_STOP",
    "Desk",
    "Reply",
]

Reply = tuple[int, Any]
"""A status, and what JSON has."""

CALLER: Final = "caller"
TEXT: Final = "text"
APPLY: Final = "apply"
ROLL_BACK: Final = "roll_back"
CHANGES: Final = frozenset({APPLY, ROLL_BACK})
"""What one worker is asked; then the others load what it has written."""

TRIAL: Final = "trial"
TRIAL_START: Final = "trial_start"
TRIAL_STOP: Final = "trial_stop"
TRIALS: Final = frozenset({TRIAL, TRIAL_START, TRIAL_STOP})
"""What all workers are asked; the answers are summed up (:func:`cotguard.gateway.trial.summed`)."""

_LOG = logging.getLogger("cotguard.console")

_LIBRARIES = ("aiohttp", "hyperscan", "google-re2", "onnxruntime", "phonenumbers", "python-stdnum", "tokenizers")


class Desk:
    """Answers for one gateway. ``reload`` is as :class:`~cotguard.gateway.applying.Applying` says."""

    def __init__(self, gateway: "Gateway", reload: Callable[[], Awaitable[str]]) -> None:
        applying = Applying(gateway, reload)
        self._questions: Mapping[str, Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]] = {
            **{name: partial(question, gateway) for name, question in _QUESTIONS.items()},
            TEXT: applying.text,
            APPLY: applying.apply,
            ROLL_BACK: applying.roll_back,
        }

    async def answered(self, name: str, about: Mapping[str, Any]) -> Reply:
        """The answer to the question ``name``. What is wrong with ``about`` is told without quoting it."""
        try:
            return 200, await self._questions[name](about)
        except PolicyError as error:
            return 422, {"error": "The draft cannot be used.", "problems": told(error)}
        except Conflict as conflict:
            return 409, {"error": str(conflict)}
        except Denied as denied:
            return denied.refused.status, {"error": denied.refused.message}
        except ValueError as error:
            return 400, {"error": str(error)}
        except Exception as error:  # a fault of ours: its message may quote what it was about
            _LOG.error("console failed", exc_info=error)
            return 500, {"error": "This failed; the log says where."}


async def _caller(gateway: "Gateway", about: Mapping[str, Any]) -> dict[str, Any]:
    """Whose ``credential`` it is, and his right in the console. Raises :class:`Denied`."""
    caller = await gateway.active.reception.caller({"authorization": f"Bearer {about['credential']}"})
    if not caller.role:  # nobody is known here
        raise Denied(Reason.UNKNOWN)
    return {"name": caller.id, "right": caller.scope.console}


async def _policies(gateway: "Gateway", _about: Mapping[str, Any]) -> dict[str, Any]:
    """The policies in force, as people read them, and whether their files can be written."""
    return {"policies": [_described(gateway, name, each.policy) for name, each in gateway.active.policies.items()]}


def _described(gateway: "Gateway", name: str, policy: Policy) -> dict[str, Any]:
    why_not = why_not_written(policy)
    return {
        "name": name,
        "digest": policy.digest,
        "mode": policy.mode,
        "sentences": sentences(policy),
        "file": None if is_ready(policy) else Path(policy.file).name,
        "writable": not why_not,
        "why_not": why_not,
        "previous": not why_not and former_of(policy).is_file(),
        "used_by": _users(gateway, policy),
    }


def _users(gateway: "Gateway", policy: Policy) -> list[str]:
    """Who names the policy: the gateway, routes, roles."""
    active = gateway.active
    named = {name for name, each in active.moderations.items() if each.policy is policy}
    routes = [(f"route {each.name or number}", each.policy) for number, each in enumerate(active.settings.routes, 1)]
    roles = active.settings.callers.roles if active.settings.callers else {}
    others = [*routes, *((f"role {name}", role.policy) for name, role in roles.items())]
    return ["the gateway"] * (OWN in named) + [user for user, name in others if name and name in named]


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
        "policies": [{"name": name, "digest": each.policy.digest} for name, each in gateway.active.policies.items()],
    }


_QUESTIONS: Final[Mapping[str, Callable[["Gateway", Mapping[str, Any]], Awaitable[dict[str, Any]]]]] = {
    CALLER: _caller,
    "policies": _policies,
    "loaded": _loaded,
    "try": tried,
    "check": checked,
    "compare": compared,
    TRIAL: trial.state,
    TRIAL_START: trial.start,
    TRIAL_STOP: trial.stop,
}
