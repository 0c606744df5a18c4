"""The data port: one request in, one exchange, one coroutine.

1. Path, method, query, content type and encoding are checked against small tables; everything else is refused.
2. The dialect reads and rewrites the request; only what it wrote goes upstream, where a route sends it
   (:mod:`cotguard.gateway.requests`).
3. What the upstream answers is moderated on its way to the client (:mod:`cotguard.gateway.responses`).
4. A client that leaves cancels the handler, which closes the upstream connection.
5. A fault ends the exchange in the dialect's error shape; nothing on hold is written.
6. What was decided is recorded before it is delivered, where a trail is kept; what became of a request is accounted for
   once, at its end.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from typing import NoReturn

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from cotguard.audit.records import Event
from cotguard.audit.trail import Trail
from cotguard.callers.credentials import PARAMETER
from cotguard.callers.denied import Denied
from cotguard.callers.limits import tokens_in
from cotguard.callers.reception import Reception, limiter
from cotguard.config.routes import Routes
from cotguard.config.settings import Settings
from cotguard.detectors.contract import Detector
from cotguard.dialects.catalogue import dialects
from cotguard.dialects.contract import ErrorKind, Refused
from cotguard.dialects.routes import Match, RefusedRoute, Router
from cotguard.gateway.accounts import Accounts
from cotguard.gateway.active import Active
from cotguard.gateway.admission import Admission
from cotguard.gateway.analysis import Analyst
from cotguard.gateway.answerers import Staff
from cotguard.gateway.call import Call
from cotguard.gateway.drafting import Drafts
from cotguard.gateway.failures import answer_error, answer_refused, later
from cotguard.gateway.memory import give_back_regularly
from cotguard.gateway.moderations import OWN, Moderation, load_moderations
from cotguard.gateway.pinning import Pins
from cotguard.gateway.requests import Requests
from cotguard.gateway.responses import Responses
from cotguard.gateway.sealing import key_ring
from cotguard.gateway.trial import Trial
from cotguard.http.answers import CLIENT_GONE, Failure, failure_of
from cotguard.http.encodings import EncodingError, TooLargeError
from cotguard.http.head import check_head
from cotguard.http.headers import lower
from cotguard.moderation.exchange import ModerationFault
from cotguard.policy import OnError
from cotguard.sealing.keyring import KeyRing
from cotguard.telemetry import logs
from cotguard.telemetry.loop_lag import observe_loop_lag
from cotguard.telemetry.metrics import METRICS, Metrics
from cotguard.telemetry.tracing import OFF, tracing, under
from cotguard.upstreams.errors import PoolError
from cotguard.upstreams.pools import Pools

__all__ = ["GATEWAY", "Gateway", "create_app"]

_LOG = logging.getLogger("cotguard.gateway")
_FAREWELL = 60
"""Seconds that what was replaced is kept open for: requests that came before may ask it."""


class Gateway:
    """The handlers and what they share. Not to be forked.

    ``moderations`` and ``keys`` (of seals) default to what the settings name. ``trail``: where things are recorded.
    """

    def __init__(
        self,
        settings: Settings,
        moderations: Mapping[str, Moderation] | None = None,
        metrics: Metrics = METRICS,
        *,
        keys: KeyRing | None = None,
        trail: Trail | None = None,
    ) -> None:
        self.metrics = metrics
        self.leaving = False
        self._admission = Admission(settings.max_exchanges, settings.max_waiting, settings.queue_timeout, metrics)
        served = dialects()
        self._router = Router(served)
        self._default = served[0]  # in whose shape an unknown path is refused
        self._limiter = limiter(settings.limits_url)
        self._pools = Pools(settings.pools, metrics, authenticates=settings.authenticates)
        self._pins = Pins(settings.pins_file)
        self._accounts = Accounts(metrics, trail)
        self._tracing = OFF
        self._chores: list[asyncio.Task[NoReturn]] = []
        moderations = load_moderations(settings) if moderations is None else moderations
        self.staff = Staff(settings, metrics)
        self.staff.engage(_detectors(moderations))
        hash_key = settings.hash_key.encode() or secrets.token_bytes(32)
        self.trial = Trial(self.staff.answerers)
        self._requests = Requests(self.staff, self._accounts, self._pins, hash_key, self.trial)
        self.analyst = Analyst(lambda: self._active.moderations[OWN], self.staff.answerers, hash_key, metrics)
        self._responses = Responses(self.staff, self._accounts, metrics)
        self.drafts = Drafts(lambda: self._active, self.engage)
        self._active = self._made(settings, moderations, self._reception(settings), keys or key_ring(settings))

    @property
    def active(self) -> Active:
        """What requests that come now are answered by."""
        return self._active

    async def start(self) -> None:
        """What needs the running loop."""
        settings = self._active.settings
        self._tracing = tracing(settings.traces, settings.trace_sample)
        await self.staff.start(self._tracing)
        self._pools.start()
        self._chores = [
            asyncio.create_task(observe_loop_lag(self.metrics)),
            asyncio.create_task(give_back_regularly()),
        ]
        await self._accounts.start(self._active.moderations[OWN].policy.digest)

    async def close(self) -> None:
        """Close the connections to the upstreams; stop what ``start`` started."""
        for chore in self._chores:
            chore.cancel()
        self.trial.end()
        await self._pools.close()
        await self.staff.close()
        await self._tracing.close()
        await self._active.reception.close()
        await self._limiter.close()
        self._pins.close()
        await self._accounts.end()

    def _reception(self, settings: Settings) -> Reception:
        return Reception(settings.callers, settings.keys, self._limiter)

    def _made(
        self, settings: Settings, moderations: Mapping[str, Moderation], reception: Reception, keys: KeyRing | None
    ) -> Active:
        for each in moderations.values():
            self.metrics.policy.labels(each.policy.name, each.policy.digest).set(1)
        routes = Routes(settings.routes, settings.default_pool)
        return Active(settings, moderations, routes, self._pools.current, reception, keys)

    async def adopt(self, settings: Settings, moderations: Mapping[str, Moderation]) -> None:
        """Answer the requests that come from now on by other settings; exchanges under way keep theirs.

        Raises what opening the files that the settings name raises, and then nothing has changed.
        """
        former = self._active
        sealing = (settings.seal, settings.seal_keys) == (former.settings.seal, former.settings.seal_keys)
        keys = former.keys if sealing else key_ring(settings)
        reception = self._reception(settings)
        await self.engage(_detectors(moderations))
        self._pools.reload(settings.pools, authenticates=settings.authenticates)
        self._active = self._made(settings, moderations, reception, keys)
        self.trial.follow(moderations)
        kept = {(each.policy.name, each.policy.digest) for each in moderations.values()}
        for name, digest in {(each.policy.name, each.policy.digest) for each in former.moderations.values()} - kept:
            self.metrics.policy.remove(name, digest)
        asyncio.get_running_loop().call_later(_FAREWELL, self._dismiss, former.reception)

    async def engage(self, detectors: Sequence[Detector]) -> None:
        """Have everybody there whom ``detectors`` ask."""
        self.staff.engage(detectors)
        await self.staff.start(self._tracing)

    def account_reload(self, *, applied: bool) -> None:
        """Account for a reload of the configuration."""
        policy = self._active.moderations[OWN].policy
        self._accounts.reloaded(policy.digest, applied=applied)
        if applied:
            _LOG.info("configuration applied", extra={"policy_name": policy.name, "policy": policy.digest})

    async def record(self, event: Event, detail: str) -> bool:
        """Record what somebody is about to do; False if it must not be done, since that cannot be recorded."""
        own = self._active.moderations[OWN].policy
        return await self._accounts.done(event, detail) or own.on_audit_error is OnError.OPEN

    @property
    def hindrance(self) -> str:
        """Why no requests can be taken now, as far as records decide; empty when they can."""
        closed = self._active.moderations[OWN].policy.on_audit_error is OnError.CLOSED
        return "the audit trail takes no records" if closed and self._accounts.failing else ""

    def _dismiss(self, reception: Reception) -> None:
        self._dismissed = asyncio.ensure_future(reception.close())

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What every request passes first, those without a route too."""
        try:
            check_head(request)
        except Refused as refused:
            call = Call(request, self._active, self._default)
            with logs.exchange(call.id):
                response = answer_refused(call, refused)
                self._accounts.close_now(call)
            response.headers.update(call.headers)
            response.force_close()
            return response
        return await handler(request)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Every request of the data port."""
        call = Call(request, self._active, self._default)
        with logs.exchange(call.id):
            try:
                return await self._handled(call)
            finally:
                if call.recording is not None and call.exchange is not None:
                    call.recording.over(call.exchange.tally)

    async def _handled(self, call: Call) -> web.StreamResponse:
        try:
            response = await self._answered(call)
            if response.prepared:
                self._accounts.close_now(call)
            elif not await self._accounts.close(call):
                response = answer_error(call, failure_of(ModerationFault()), "failed")
        except asyncio.CancelledError:  # the client left, and took the handler with it
            call.end(CLIENT_GONE, "client_gone")
            self._accounts.close_now(call)
            raise
        if not response.prepared:
            response.headers.update(call.headers)
        return response

    async def _answered(self, call: Call) -> web.StreamResponse:
        try:
            match = self._router.find(call.request.method, call.request.rel_url.raw_path)
            call.match, call.dialect = match, match.dialect
            headers, method = call.request.headers, call.request.method
            call.trace = self._tracing.exchange(headers, method, match.route.path, match.dialect.name, call.id)
            with under(call.trace):
                return await self._admitted(call, match)
        except Refused as refused:
            if isinstance(refused, RefusedRoute):
                call.dialect = refused.dialect
            return answer_refused(call, refused)
        except Denied as denied:
            self.metrics.denied.labels(denied.reason).inc()
            return answer_refused(call, denied.refused)
        except PoolError as error:
            response = self._responses.fail(call, Failure(error.status, error.kind, error.message))
            return response if error.retry_after is None else later(response, error.retry_after)
        except TooLargeError as error:
            return answer_error(call, Failure(413, ErrorKind.TOO_LARGE, str(error)), "refused")
        except EncodingError as error:
            return answer_error(call, Failure(415, ErrorKind.UNSUPPORTED, str(error)), "refused")
        except ModerationFault as fault:  # before the upstream was asked
            return self._responses.fail(call, failure_of(fault))
        except Exception as error:  # a fault of ours: its message may quote what it was about
            _LOG.error("request failed", exc_info=error)
            return self._responses.fail(call, failure_of(ModerationFault()))

    async def _admitted(self, call: Call, match: Match) -> web.StreamResponse:
        active = call.active
        told = lower(call.request.headers)
        if PARAMETER in call.request.query:
            told.setdefault("x-goog-api-key", call.request.query[PARAMETER])
        caller = call.caller = await active.reception.caller(told, call.request.get_extra_info("peercert"))
        caller.scope.check_route(match.path, match.dialect.name)
        if match.route.lookup:
            async with self._leased(call, 0):
                with closing(await self._requests.look_up(call, match, told)) as answer:
                    return await self._responses.respond_lookup(call, match, answer)
        question = await self._requests.read(call, match, told)
        async with self._leased(call, question.tokens):
            with closing(await self._requests.ask(call, match, question)) as answer:
                return await self._responses.respond(call, question.prepared, question.exchange, answer)

    @asynccontextmanager
    async def _leased(self, call: Call, sent: int) -> AsyncIterator[None]:
        """While the request is under way, for its caller and for all. Raises :class:`Denied` and :class:`Refused`."""
        lease = await call.active.reception.admit(call.caller, sent)
        self.metrics.admitted.labels(call.caller.role).inc()
        try:
            await self._admission.admit(call.caller.scope.priority)
            try:
                with self.metrics.active.track_inprogress():
                    yield
            finally:
                self._admission.end()
        finally:
            if lease is not None:
                await lease.end(tokens_in(call.exchange.received if call.exchange else 0))

    def leave(self) -> None:
        """Ask for no more requests: those that come are answered, and their connections closed."""
        self.leaving = True

    def drain(self) -> None:
        """After leaving: no more requests come; streams under way may go on until the drain timeout."""
        self._responses.drain(self._active.settings.drain_timeout)


def _detectors(moderations: Mapping[str, Moderation]) -> list[Detector]:
    return [detector for each in moderations.values() for detector in each.detectors]


GATEWAY = web.AppKey("gateway", Gateway)


def create_app(gateway: Gateway) -> web.Application:
    """The data port as an application; ``app[GATEWAY]`` is the gateway."""
    # Bodies are limited where they are read, decoded; the framework's limit would apply to encoded ones.
    app = web.Application(client_max_size=0, middlewares=[gateway.check])
    app[GATEWAY] = gateway
    app.router.add_route("*", "/{path:.*}", gateway.handle)

    async def on_response_prepare(_request: web.Request, response: web.StreamResponse) -> None:
        if gateway.leaving:
            response.force_close()
            response.headers[hdrs.CONNECTION] = "close"

    async def on_startup(_app: web.Application) -> None:
        await gateway.start()

    async def on_cleanup(_app: web.Application) -> None:
        await gateway.close()

    app.on_response_prepare.append(on_response_prepare)
    app.on_startup.append(on_startup)
    app.on_cleanup.append(on_cleanup)
    return app
