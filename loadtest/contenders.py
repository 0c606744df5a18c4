"""Who is measured: no proxy at all, the baselines, nginx where it is installed, and cotguard with a policy."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtest.baselines import BASELINES
from loadtest.nginx import find_nginx, started_nginx
from loadtest.serving import Server, started

__all__ = [
    "DIRECT",
    "NGINX",
    "REFERENCE",
    "Contender",
    "compiled",
    "cotguard",
    "lineup",
    "started_cotguard",
]

DIRECT = "direct"
REFERENCE = next(iter(BASELINES))
"""What the others are compared with."""
NGINX = "nginx"

_COTGUARD = "cotguard "
_NATIVE = Path("build/native")
"""Where ``make native`` puts cotguard with its core compiled."""
_COMPILED = ", compiled"
_NOTHING = "nothing"


@dataclass(frozen=True)
class Contender:
    """A proxy, or none (``server`` unset). ``idle_bytes``: its memory before the first request."""

    name: str
    url: str
    server: Server | None = None
    admin: str | None = None
    idle_bytes: int = 0


def cotguard(policy: str) -> str:
    """The name of the contender that runs ``policy``."""
    return _COTGUARD + policy


def compiled(policy: str) -> str:
    """The name of the contender that runs ``policy`` in the compiled core."""
    return cotguard(policy) + _COMPILED


@contextmanager
def lineup(names: Iterable[str], upstream: str) -> Iterator[Sequence[Contender]]:
    """Contenders by name, before the mock server at ``upstream``.

    nginx is left out where it is not installed, the compiled core where it was not made.
    """
    with ExitStack() as stack:
        found = []
        for name in names:
            program = find_nginx()
            if name == DIRECT:
                found.append(Contender(name, upstream))
            elif name in BASELINES:
                server = stack.enter_context(started("loadtest.baselines", name, upstream))
                found.append(Contender(name, server.urls[0], server, idle_bytes=server.memory_bytes))
            elif name.endswith(_COMPILED) and not _NATIVE.is_dir():
                continue
            elif name.startswith(_COTGUARD):
                found.append(stack.enter_context(started_cotguard(name.removeprefix(_COTGUARD), upstream)))
            elif program is not None:
                server = stack.enter_context(started_nginx(program, upstream))
                found.append(Contender(name, server.urls[0], server, idle_bytes=server.memory_bytes))
        yield found


@contextmanager
def started_cotguard(
    policy: str, upstream: str, *, bundle: str = "none", options: Sequence[str] = ()
) -> Iterator[Contender]:
    """``cotguard serve`` with a ready policy, or the one that decides nothing, a classifier, and other options.

    A policy's name may end as that of a contender with the compiled core does.
    """
    name, modules = cotguard(policy), str(_NATIVE) if policy.endswith(_COMPILED) else ""
    policy = policy.removesuffix(_COMPILED)
    file = str(Path(__file__).with_name(f"{_NOTHING}.yaml")) if policy == _NOTHING else policy
    any_port = "127.0.0.1:0"
    arguments = ("--upstream", upstream, "--listen", any_port, "--admin-listen", any_port, "--policy", file)
    running: AbstractContextManager[Server] = started(
        "cotguard", "serve", *arguments, "--bundle", bundle, "--classifier-deadline", "60", *options, modules=modules
    )
    with running as server:
        yield Contender(name, server.urls[0], server, server.urls[-1], server.memory_bytes)
