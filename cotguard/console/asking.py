"""A question to an upstream of the gateway's, asked as a client of Chat Completions would."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import aiohttp

from cotguard.classifier.handover import handed_over
from cotguard.console.recorded import JSON_TYPE, SSE_TYPE, Recorded, cut, dialect_named
from cotguard.dialects.contract import ErrorKind, Incoming, Prepared, UpstreamFault
from cotguard.dialects.routes import Match
from cotguard.framing.json import dumps
from cotguard.gateway.outgoing import Unmoderated, moderate
from cotguard.http.encodings import TooLargeError
from cotguard.http.headers import request_headers
from cotguard.moderation.exchange import Exchange
from cotguard.upstreams.outbound import Draft
from cotguard.upstreams.pool import Pool

if TYPE_CHECKING:
    from cotguard.gateway.app import Gateway

__all__ = ["ANSWER_SECONDS", "MAX_ANSWER_BYTES", "Question", "asked"]

ANSWER_SECONDS = 60.0
"""How long an answer may take, from the question to its last byte."""

MAX_ANSWER_BYTES = 2 * 2**20
"""The largest answer."""

_DIALECT: Final = "chat_completions"
_PATH: Final = "/v1/chat/completions"
_TOO_LARGE: Final = f"The upstream's answer is larger than {MAX_ANSWER_BYTES} bytes."
_TOO_LONG: Final = f"The upstream did not answer within {ANSWER_SECONDS:.0f} seconds."
_TYPE: Final = "The upstream's content type is not one that is expected."


@dataclass(slots=True)
class Question:
    """A prompt for a model of an upstream, ready to be moderated and sent."""

    pool: Pool
    match: Match
    prepared: Prepared

    @classmethod
    def of(cls, pool: Pool, model: str, system: str, prompt: str) -> "Question":
        """The question ``prompt``, behind ``system`` if that is not empty."""
        messages = [{"role": "system", "content": system}] if system else []
        document = {"model": model, "messages": [*messages, {"role": "user", "content": prompt}], "stream": True}
        dialect = dialect_named(_DIALECT)
        route = next(route for route in dialect.routes if route.path == _PATH)
        return cls(pool, Match(dialect, route, {}), dialect.prepare(Incoming(route, {}, {}, dumps(document))))

    def moderate(self, exchange: Exchange) -> None:
        """Carry out the policy on it. Raises :class:`~cotguard.dialects.contract.Refused` and ``ModerationFault``."""
        moderate(Unmoderated(self.prepared.document, [], {}, {}, {}), self.match.dialect, exchange)

    def draft(self) -> Draft:
        """What is sent."""
        path, body = self.match.upstream, dumps(self.prepared.document)
        headers = request_headers({})
        return Draft(self.pool.credentials, self.match, "POST", path, {}, headers, body, False, {}, path)


async def asked(gateway: "Gateway", question: Question, exchange: Exchange, moderated: Callable[[], None]) -> Recorded:
    """The answer to ``question``, which is moderated first: then ``moderated`` is called.

    Raises :class:`~cotguard.dialects.contract.Refused`, ``ModerationFault``,
    :class:`~cotguard.upstreams.errors.PoolError`, :class:`~cotguard.dialects.contract.UpstreamFault` and what reading
    raises. All of their messages for clients are constant.
    """
    await handed_over(partial(question.moderate, exchange), gateway.staff.answerers)
    moderated()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await _answered(question)
    except TooLargeError:
        raise UpstreamFault(ErrorKind.TOO_LARGE, _TOO_LARGE) from None
    except TimeoutError:
        raise UpstreamFault(ErrorKind.UPSTREAM_TIMEOUT, _TOO_LONG) from None


async def _answered(question: Question) -> Recorded:
    with closing(await question.pool.send("POST", question.draft().outgoing)) as answer:
        response: aiohttp.ClientResponse = answer.response
        if response.status != 200:
            message = f"The upstream answered with status {response.status}."
            raise UpstreamFault(ErrorKind.UPSTREAM_ERROR, message)
        if response.content_type not in (SSE_TYPE, JSON_TYPE):
            raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, _TYPE)
        content_type = SSE_TYPE if response.content_type == SSE_TYPE else None
        data = await answer.whole(MAX_ANSWER_BYTES)
    return Recorded(question.match.dialect, question.prepared, content_type, cut(content_type, data))
