"""The request side: what a client sent, read, routed, moderated, and asked of an upstream."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import aiohttp
from aiohttp import hdrs

from cotguard.callers.caller import models_of
from cotguard.callers.credentials import PARAMETER
from cotguard.callers.limits import tokens_in
from cotguard.classifier.handover import handed_over
from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.contract import Incoming, Prepared
from cotguard.dialects.definitions import Tool
from cotguard.dialects.reported import Reported
from cotguard.dialects.routes import Match, query_of
from cotguard.framing.json import dumps
from cotguard.gateway.accounts import Accounts
from cotguard.gateway.answerers import Staff
from cotguard.gateway.call import Call
from cotguard.gateway.intake import read_incoming, read_json
from cotguard.gateway.outgoing import Unmoderated, is_recordable, moderate
from cotguard.gateway.pinning import Pins, PinsError
from cotguard.gateway.sealing import seals_for
from cotguard.gateway.trial import Trial
from cotguard.http.form import written_form
from cotguard.moderation.exchange import Exchange, ModerationFault
from cotguard.sealing.seals import Seals
from cotguard.spans import Action, ChannelKind
from cotguard.telemetry.tracing import Asked
from cotguard.upstreams.outbound import Draft
from cotguard.upstreams.pool import Answer

__all__ = ["Question", "Requests"]

_Read = TypeVar("_Read")


@dataclass(slots=True)
class Question:
    """A request that was read and routed: what is to be asked, and the exchange that it began.

    ``body`` is as it came, and empty once it is sent: a stream lasts longer, and may be one of thousands. ``tokens``
    estimates what the caller sends.
    """

    prepared: Prepared
    query: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    exchange: Exchange
    tokens: int


class Requests:
    """See the module. ``hash_key`` keys hashes that outlive an exchange; ``trial`` may record them."""

    def __init__(self, staff: Staff, accounts: Accounts, pins: Pins, hash_key: bytes, trial: Trial) -> None:
        self._staff = staff
        self._accounts = accounts
        self._pins = pins
        self._hash_key = hash_key
        self._trial = trial

    async def read(self, call: Call, match: Match, told: Mapping[str, str]) -> Question:
        """The request of a call whose answer holds generated text; ``told`` are its headers, in lower case.

        Raises :class:`Refused`, :class:`Denied`, :class:`ModerationFault` and :class:`EncodingError`.
        """
        query = query_of(match.route, call.request.query)
        settings = call.active.settings
        incoming = await read_incoming(call.request, match, query, settings.max_request_bytes, settings.client_timeout)
        incoming = replace(incoming, seals=self._seals(call, told))
        prepared = await self._opened(partial(match.dialect.prepare, incoming))
        self._route(call, models_of(match.parameters, prepared.document) or {prepared.model}, told)
        call.named(prepared.model)
        call.stream = prepared.stream
        if call.trace.trace_id:
            call.reported = prepared.reported = Reported()
        sent = tokens_in(len(incoming.body) or sum(len(value) for _, value in incoming.fields))
        asked = query if prepared.query is None else prepared.query
        return Question(prepared, asked, incoming.body, self._begun(call, prepared.facts), sent)

    async def ask(self, call: Call, match: Match, question: Question) -> Answer:
        """The upstream's answer to a request, moderated; nothing of the request is kept.

        Raises :class:`Refused`, :class:`ModerationFault` and :class:`~cotguard.upstreams.errors.PoolError`.
        """
        prepared, received, question.body = question.prepared, question.body, b""
        changed = await self._changed(call, prepared.document)
        fields, file = prepared.fields, prepared.file
        strings = _strings(call, match, prepared.document, question.query, fields or [], changed, file=file is not None)
        await self._moderate(call, strings)
        body = dumps(prepared.document)
        form = None if fields is None else partial(written_form, fields, file)
        prepared.document, prepared.file = {}, None
        return await self._send(call, match, strings, prepared.upstream or match.upstream, body, received, form)

    async def look_up(self, call: Call, match: Match, told: Mapping[str, str]) -> Answer:
        """The answer to a question that needs no generation. Raises what ``read`` and ``ask`` raise."""
        query = query_of(match.route, call.request.query)
        posted = call.request.method == hdrs.METH_POST
        settings, received = call.active.settings, b""
        if posted:
            received = await read_json(call.request, settings.max_request_bytes, settings.client_timeout)
        asked = Incoming(match.route, match.parameters, query, received or b"{}", seals=self._seals(call, told))
        document = await self._opened(partial(match.dialect.question, asked))
        self._route(call, models_of(match.parameters, document), told)
        self._begun(call, RequestFacts())
        strings = _strings(call, match, document, query)
        await self._moderate(call, strings)
        return await self._send(call, match, strings, match.upstream, dumps(document) if posted else None, received)

    def _route(self, call: Call, models: Collection[str], told: Mapping[str, str]) -> None:
        """Find the route, and with it the policy. Raises :class:`Refused` and :class:`Denied`."""
        call.caller.scope.check_models(models)
        call.route = call.active.routes.find(call.request.host, call.path, models, told)

    def _begun(self, call: Call, facts: RequestFacts) -> Exchange:
        moderation, journal = call.moderation, self._accounts.journal()
        call.journal = journal
        call.exchange = Exchange(
            moderation.policy,
            moderation.detectors,
            facts,
            self._hash_key,
            findings=moderation.findings,
            hidden=call.caller.scope.hidden,
            journal=journal,
            max_bytes=call.active.settings.max_exchange_bytes,
        )
        self._accounts.check(call.exchange)
        return call.exchange

    def _seals(self, call: Call, told: Mapping[str, str]) -> Seals | None:
        """Those of the exchange that begins now."""
        active = call.active
        if active.keys is None:
            return None

        def upstream(model: str) -> str:
            route = active.routes.find(call.request.host, call.path, {model}, told)
            return active.settings.upstream if route.upstream == active.settings.default_pool else route.upstream

        return seals_for(active.keys, call.caller.id, upstream, active.settings)

    async def _opened(self, read: Callable[[], _Read]) -> _Read:
        """What ``read`` returns, which may open seals."""
        return read() if not self._staff.keeps_originals else await handed_over(read, self._staff.answerers)

    async def _changed(self, call: Call, document: dict[str, Any]) -> Sequence[Tool]:
        """Tools of the request that are not defined as they were at first, if the policy cares."""
        if call.moderation.policy.decide("TOOL_CHANGED", ChannelKind.TOOL_DESCRIPTION, 1.0) is Action.ALLOW:
            return ()
        tools = call.dialect.tools(document)
        if not tools:
            return ()
        described = [(tool.name, tool.definition) for tool in tools]
        try:
            if call.active.settings.pins_file:
                changed = await asyncio.to_thread(self._pins.changed, call.caller.id, described)
            else:
                changed = self._pins.changed(call.caller.id, described)
        except PinsError as error:
            raise ModerationFault(str(error)) from error
        return [tool for tool in tools if tool.name in changed]

    async def _moderate(self, call: Call, unmoderated: Unmoderated) -> None:
        """Carry out the policy on a request."""
        assert call.exchange is not None  # noqa: S101  # it has begun
        if self._trial.running is not None:
            call.recording = self._trial.begin(call, unmoderated)
        try:
            await handed_over(partial(moderate, unmoderated, call.dialect, call.exchange), self._staff.answerers)
        finally:
            if (call.trace.trace_id or call.journal) and not is_recordable(call.model, call.exchange):
                call.model = ""
            call.trace.moderated(call.exchange.tally)
            await self._accounts.record(call)

    async def _send(
        self,
        call: Call,
        match: Match,
        strings: Unmoderated,
        path: str,
        body: bytes | None,
        received: bytes,
        form: Callable[[], aiohttp.FormData] | None = None,
    ) -> Answer:
        """The answer of one of the upstream's servers. Raises :class:`Refused` and :class:`PoolError`."""
        request, pool = call.request, call.pool
        asked = Asked(call.dialect.name, match.route.action, call.model, call.stream)
        draft = Draft(
            pool.credentials,
            match,
            request.method,
            path,
            strings.query,
            call.trace.ask(asked, strings.headers),
            body,
            body == received,
            request.headers,
            request.rel_url.raw_path_qs,
            form,
        )
        answer = await pool.send(request.method, draft.outgoing)
        try:
            draft.sent()
            call.server = answer.server
            url = answer.response.url
            call.trace.answered(answer.response.status, url.host or "", url.port)
        except BaseException:
            answer.close()
            raise
        return answer


def _strings(
    call: Call,
    match: Match,
    document: dict[str, Any],
    query: Mapping[str, str],
    fields: list[tuple[str, str]] | None = None,
    changed: Sequence[Tool] = (),
    *,
    file: bool = False,
) -> Unmoderated:
    """All strings of a request that may go upstream."""
    credentials = call.pool.credentials
    if credentials.replaced:
        query = {name: value for name, value in query.items() if name != PARAMETER}
    headers = credentials.passed(call.request.headers)
    return Unmoderated(document, fields or [], headers, match.parameters, query, changed, file)
