"""Claude by InvokeModel: the streams of Anthropic Messages in chunks, whose errors are exceptions here.

The last chunk, the message's stop, has the numbers that Bedrock adds.
"""

from typing import Any

from cotguard.dialects.anthropic.format import Format
from cotguard.dialects.anthropic.stream import MessagesStream
from cotguard.dialects.bedrock.stream import Exceptions
from cotguard.dialects.contract import ErrorKind, Prepared, UpstreamFault
from cotguard.dialects.stream import Fed, Outgoing, Written
from cotguard.dialects.table import Shape
from cotguard.framing.aws_event_stream import EXCEPTION
from cotguard.framing.bedrock import Chunks
from cotguard.framing.contract import Event
from cotguard.moderation.exchange import Exchange

__all__ = ["ClaudeStream"]


class ClaudeStream(MessagesStream):
    """See the module."""

    def __init__(
        self, form: Format, invocation: Shape, prepared: Prepared, exchange: Exchange, exceptions: Exceptions
    ) -> None:
        super().__init__(Chunks(), form, prepared, exchange)
        self._invocation = invocation
        self._exceptions = exceptions
        self._metrics: dict[str, Any] = {}

    def read(self, event: Event) -> dict[str, Any] | None:
        if event.name.startswith(EXCEPTION):
            raise self.upstream_failed(self._exceptions.reported(event.name))
        return super().read(event)

    def take(self, name: str, document: dict[str, Any]) -> Fed | None:
        self._metrics = self._invocation.copy(document).root
        return super().take(name, document)

    def write(self, event: Written) -> None:
        outgoing = event if isinstance(event, Outgoing) else event()
        if outgoing is not None and outgoing.name == "message_stop":
            outgoing = Outgoing(outgoing.name, {**outgoing.document, **self._metrics})
        if outgoing is not None:
            super().write(outgoing)

    def upstream_failed(self, error: Written) -> UpstreamFault:
        name = error.name if isinstance(error, Outgoing) else ""
        return super().upstream_failed(error if name.startswith(EXCEPTION) else self._exceptions.reported(name))

    def fault(self, kind: ErrorKind, message: str) -> Outgoing:
        return self._exceptions.fault(kind, message)
