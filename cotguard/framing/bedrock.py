"""What Amazon Bedrock adds to AWS event streams: padding, and a second layer with a model's own stream.

Payloads have a member ``p`` of random length, which means nothing. It is cut off where events are read, so that events
which differ in nothing else are equal, and not written.
"""

import re
from base64 import b64decode, b64encode
from binascii import Error

from cotguard.framing.aws_event_stream import EXCEPTION, UNREADABLE, AwsEventStream
from cotguard.framing.contract import Event
from cotguard.framing.json import JSONError, loads

__all__ = ["Chunks", "Padded"]

# In valid JSON nothing but the last member of the outermost object can look like this.
_PADDING = re.compile(rb',"p":"[A-Za-z0-9]*"\}\Z')
_CHUNK = b"chunk\0"


class Padded(AwsEventStream):
    """The streams of Converse."""

    def feed(self, data: bytes) -> list[bytes]:
        return [_PADDING.sub(b"}", block) for block in super().feed(data)]


class Chunks(AwsEventStream):
    """The streams of InvokeModel: events ``chunk``, ``{"bytes": BASE64}``, each of them an event of the model's own.

    Those have no names here, nor are they read for one: their data is what was in the base64, exceptions are as they
    are everywhere. Events that are no chunks are dropped.
    """

    def feed(self, data: bytes) -> list[bytes]:
        return [
            _unwrapped(block.removeprefix(_CHUNK)) if block.startswith(_CHUNK) else block
            for block in super().feed(data)
            if block.startswith((_CHUNK, EXCEPTION.encode())) or block == UNREADABLE
        ]

    def write(self, event: Event) -> bytes:
        if event.name.startswith(EXCEPTION):
            return super().write(event)
        return super().write(Event("chunk", b'{"bytes":"' + b64encode(event.data) + b'"}'))


def _unwrapped(payload: bytes) -> bytes:
    """The block of what is in a chunk."""
    data: bytes | None = None
    try:
        document = loads(payload)
        inner = document.get("bytes") if isinstance(document, dict) else None
        if isinstance(inner, str):
            data = b64decode(inner, validate=True)
            data.decode()
    except (JSONError, Error, ValueError):
        data = None
    return UNREADABLE if data is None else b"\0" + data
