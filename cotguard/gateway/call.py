"""One request of the data port: who asks what of whom, and what became of it."""

import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aiohttp import web

from cotguard.callers.caller import ANYBODY, Caller
from cotguard.config.routes import RouteDocument
from cotguard.dialects.contract import Dialect, ErrorKind
from cotguard.dialects.reported import Reported
from cotguard.dialects.routes import Match
from cotguard.gateway.active import Active
from cotguard.gateway.moderations import Moderation
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.verdict import Journal
from cotguard.telemetry.tracing import Trace
from cotguard.upstreams.pool import Pool

if TYPE_CHECKING:
    from cotguard.gateway.recording import Recording

__all__ = ["POLICY_HEADER", "REQUEST_ID_HEADER", "Call"]

POLICY_HEADER: Final = "x-cotguard-policy"
"""The digest of the policy that the exchange is under."""

REQUEST_ID_HEADER: Final = "x-cotguard-request-id"
"""Names the exchange in logs, traces and the audit trail."""

NOBODY: Final = Caller("", ANYBODY)
NOWHERE: Final = RouteDocument()

_MODEL = re.compile(r"[A-Za-z0-9][\w.:/@+-]{0,127}", re.ASCII)


@dataclass(slots=True)
class Call:
    """See the module. Who asks, and where the request goes, is nobody and nowhere until it is known."""

    request: web.Request
    active: Active
    dialect: Dialect
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    started: float = field(default_factory=time.monotonic)
    """On the monotonic clock."""
    match: Match | None = None
    caller: Caller = NOBODY
    route: RouteDocument = NOWHERE
    exchange: Exchange | None = None
    """There from when the request is moderated."""
    journal: Journal | None = None
    """Its decisions, where they are recorded."""
    reported: Reported | None = None
    """What the upstream reports, where it is traced."""
    recording: "Recording | None" = None
    """Of the exchange, if a trial replays it when it is over."""
    model: str = ""
    stream: bool = False
    server: str = ""
    """The model server that answered, as the configuration names it."""
    status: int = 0
    outcome: str = ""
    failure: ErrorKind | None = None
    decisions: int = 0
    """How many have been recorded."""
    trace: Trace = field(default_factory=Trace)
    recorded: str = ""
    """The outcome that its record tells, if it has one."""
    closed: bool = False
    """Whether it is accounted for."""

    @property
    def moderation(self) -> Moderation:
        """The policy of the exchange, and what moderates under it."""
        return self.active.moderation(self.caller, self.route)

    @property
    def pool(self) -> Pool:
        """The upstream of the route."""
        return self.active.pools[self.route.upstream]

    @property
    def path(self) -> str:
        """As the dialect's table spells it; empty where no dialect has it."""
        return self.match.path if self.match else ""

    def end(self, status: int, outcome: str) -> None:
        """Note what the client was answered."""
        self.status, self.outcome = status, outcome

    def named(self, model: str) -> None:
        """Note the model, if it is a word that may stand in an account: a client chose it."""
        self.model = model if _MODEL.fullmatch(model) else ""

    @property
    def headers(self) -> dict[str, str]:
        """What every answer says of the exchange."""
        told = {REQUEST_ID_HEADER: self.id}
        if self.exchange is not None:
            told[POLICY_HEADER] = self.exchange.policy.digest
        return told
