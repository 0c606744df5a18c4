"""ASGI 3, as far as it is spoken here: its callables, and a request's body as it arrives."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from email.message import Message as Headers
from typing import Any

from multidict import CIMultiDict

__all__ = ["Application", "Arriving", "ClientGone", "Message", "Receive", "Rewritten", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class ClientGone(Exception):  # noqa: N818  # nobody's error
    """The client left before its request was there."""


class Arriving:
    """A request as :mod:`cotguard.gateway.intake` reads it; its body is received once."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.headers: Mapping[str, str] = CIMultiDict(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        )
        described = Headers()
        described["content-type"] = self.headers.get("content-type", "application/octet-stream")
        self.content_type = described.get_content_type()
        self.charset = described.get_content_charset()
        self._receive = receive

    @property
    def content(self) -> "Arriving":
        return self

    async def iter_any(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGone
            yield message.get("body", b"")
            more = message.get("more_body", False)


class Rewritten:
    """A request's body as it was written anew. ``gone``: the application was told that the client left."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self.gone = False
        self._body: bytes | None = body
        self._receive = receive

    async def receive(self) -> Message:
        """What the application is given: the body, then what the server says."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self._receive()
        self.gone = message["type"] == "http.disconnect"
        return message
