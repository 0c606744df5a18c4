"""One exchange as a client sees it, every byte of it checked.

1. The text delivered must be a prefix of what the policy, which the response names, makes of the whole script; all of
   it if the exchange is complete.
2. No fragment of four characters or more of a secret may be in the text, nor one of eight anywhere in the body.
3. The exchange must end in a defined state within its deadline: whole, in its dialect's error shape, refused in it, or
   by its connection being closed. Which of these are in order is for the scenario to say.
"""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import aiohttp
import orjson
from cryptography import x509

from chaos.expected import Expectation, leaked
from chaos.script import Script
from chaos.upstream import abort
from loadtest.dialects import DIALECTS, Dialect

__all__ = ["SPOKEN", "Asked", "Client", "End", "Seen"]

_DEADLINE = 60.0
_RAW_FRAGMENT = 8


class End(StrEnum):
    """How an exchange ended."""

    COMPLETE = "complete"
    ERROR = "error"
    """Its stream ended in the dialect's error shape."""
    REFUSED = "refused"
    """Its answer, of status 400 or more, is the dialect's error shape."""
    CLOSED = "closed"
    """The connection was closed, or could not be made."""
    LEFT = "left"
    """The client went, as it was told to."""
    STUCK = "stuck"
    """Nothing of that within the deadline."""
    UNDEFINED = "undefined"
    """The body is over, and neither whole nor an error."""


class _Marks(NamedTuple):
    """What tells the last event of a stream: that it is whole, or an error."""

    whole: bytes
    error: bytes


_MARKS: Mapping[str, _Marks] = {
    "chat": _Marks(b"data: [DONE]", b'data: {"error":'),
    "anthropic": _Marks(b"event: message_stop", b"event: error"),
    "responses": _Marks(b"event: response.completed", b"event: error"),
    "gemini": _Marks(b'"finishReason":"STOP"', b'data: {"error":'),
    "ollama": _Marks(b'"done":true', b'{"error":'),
}

SPOKEN = tuple(_MARKS)
"""The dialects that exchanges are in, in turn."""


@dataclass(frozen=True)
class Asked:
    """What is asked. ``fate``: the upstream's; ``leave``: the seconds after which the client goes."""

    number: int
    rate: float
    fate: str = ""
    filler: int = 0
    leave: float | None = None

    @property
    def dialect(self) -> str:
        """Of the exchange."""
        return SPOKEN[self.number % len(SPOKEN)]

    @property
    def script(self) -> Script:
        """What the upstream will say."""
        return Script(self.number, self.filler)

    @property
    def body(self) -> Mapping[str, object]:
        """The request."""
        model = f"chaos:{self.rate:g}"
        return {
            "model": f"{model}:{self.fate}" if self.fate else model,
            **DIALECTS[self.dialect].prompt,
            "stream": True,
            "max_tokens": self.filler + 1,
            "seed": self.number,
        }


@dataclass
class Seen:
    """What became of an exchange. ``port`` is the client's own, ``serial`` that of the certificate it was shown."""

    number: int
    end: End = End.STUCK
    request_id: str = ""
    policy: str = ""
    port: int = 0
    serial: int = 0
    text: str = field(default="", repr=False)
    leaked: int = 0
    """Characters of secrets."""
    altered: bool = False
    """Whether the text is not what the policy makes of the script."""


class Client:
    """Asks the gateway at ``url``; ``expectations`` are by the policy's digest."""

    def __init__(
        self, url: str, expectations: Mapping[str, Expectation], context: ssl.SSLContext | None = None
    ) -> None:
        self._url = url
        self._expectations = expectations
        # Each exchange has a connection of its own, so that what is done to one harms no other.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True, ssl=context or True),
            timeout=aiohttp.ClientTimeout(total=None),
        )

    async def close(self) -> None:
        """Close what is left of connections."""
        await self._session.close()

    async def ask(self, asked: Asked, deadline: float = _DEADLINE) -> Seen:
        """One exchange."""
        seen, body = Seen(asked.number), bytearray()
        try:
            async with asyncio.timeout(deadline if asked.leave is None else asked.leave):
                seen.end = await self._read(asked, seen, body)
        except TimeoutError:
            seen.end = End.STUCK if asked.leave is None else End.LEFT
        except (aiohttp.ClientError, ConnectionError):
            seen.end = End.CLOSED
        self._check(asked, seen, bytes(body))
        return seen

    async def _read(self, asked: Asked, seen: Seen, body: bytearray) -> End:
        dialect = DIALECTS[asked.dialect]
        async with self._session.post(self._url + dialect.path, json=asked.body) as response:
            seen.request_id = response.headers.get("x-cotguard-request-id", "")
            seen.policy = response.headers.get("x-cotguard-policy", "")
            transport = response.connection.transport if response.connection else None
            if transport is not None:
                seen.port = transport.get_extra_info("sockname")[1]
                seen.serial = _serial(transport.get_extra_info("ssl_object"))
            if response.status >= 400:
                body += await response.read()
                return End.REFUSED if _is_error(body) else End.UNDEFINED
            try:
                async for data in response.content.iter_any():
                    body += data
            except asyncio.CancelledError:
                abort(transport, reset=asked.number % 2 == 0)
                raise
        return _end_of(bytes(body), asked.dialect)

    def _check(self, asked: Asked, seen: Seen, body: bytes) -> None:
        """Look for what should not be there."""
        script = asked.script
        if seen.end is End.REFUSED or not body:
            seen.leaked = leaked(script, body.decode(errors="replace"), "", _RAW_FRAGMENT)
            return
        dialect = DIALECTS[asked.dialect]
        spoken = [event for event in _whole_events(body, dialect) if _MARKS[asked.dialect].error not in event]
        seen.text = "".join(map(dialect.text, spoken))
        expectation = self._expectations.get(seen.policy)
        expected = expectation.text(script) if expectation else ""
        seen.leaked = leaked(script, seen.text, expected)
        seen.leaked += leaked(script, body.decode(errors="replace"), expected, _RAW_FRAGMENT)
        seen.altered = not (seen.text == expected if seen.end is End.COMPLETE else expected.startswith(seen.text))


def _serial(connection: ssl.SSLObject | None) -> int:
    """Of the certificate that the gateway showed; 0 without TLS."""
    certificate = connection.getpeercert(binary_form=True) if connection else None
    return x509.load_der_x509_certificate(certificate).serial_number if certificate else 0


def _whole_events(body: bytes, dialect: Dialect) -> list[bytes]:
    """Those that came to their end, without comments."""
    return [event for event in body.split(dialect.separator)[:-1] if not event.startswith(b":")]


def _end_of(body: bytes, dialect: str) -> End:
    last = next(iter(_whole_events(body, DIALECTS[dialect])[-1:]), b"")
    marks = _MARKS[dialect]
    if marks.whole in last:
        return End.COMPLETE
    return End.ERROR if marks.error in last else End.UNDEFINED


def _is_error(body: bytes | bytearray) -> bool:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(document, dict) and bool(document.get("error"))
