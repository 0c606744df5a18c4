"""What Amazon Bedrock's streams have in common: exceptions, which are named, and tell nothing but their names."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from cotguard.dialects.contract import ErrorKind, Prepared, UpstreamFault
from cotguard.dialects.stream import EventStream, Outgoing
from cotguard.dialects.table import Table
from cotguard.framing.aws_event_stream import EXCEPTION
from cotguard.framing.contract import Event, Framing
from cotguard.moderation.exchange import Exchange

__all__ = ["BedrockStream", "Exceptions"]

_REPORTED = "The upstream reported an error."


class Exceptions(NamedTuple):
    """How exceptions are named: in answers by what happened or the upstream's status, in streams, and those known."""

    kinds: Mapping[str, str]
    statuses: Mapping[str, str]
    streamed: Mapping[str, str]
    known: frozenset[str]

    @classmethod
    def of(cls, table: Table) -> "Exceptions":
        """Those of the table."""
        return cls(
            table.pairs("exceptions"),
            table.pairs("statuses"),
            table.pairs("stream_exceptions"),
            table.names("upstream_exceptions", "known"),
        )


class BedrockStream(EventStream):
    """An event stream that exceptions end."""

    def __init__(self, framing: Framing, prepared: Prepared, exchange: Exchange, exceptions: Exceptions) -> None:
        super().__init__(framing, prepared, exchange)
        self._exceptions = exceptions

    def read(self, event: Event) -> dict[str, Any] | None:
        if event.name.startswith(EXCEPTION):
            name = event.name.removeprefix(EXCEPTION)
            told = name if name in self._exceptions.known else "modelStreamErrorException"
            raise self.upstream_failed(Outgoing(EXCEPTION + told, {"message": _REPORTED}))
        return super().read(event)

    def fault(self, kind: ErrorKind, message: str) -> Outgoing:
        name = self._exceptions.streamed.get(kind.value, "internalServerException")
        return Outgoing(EXCEPTION + name, {"message": message})

    def interrupted(self) -> UpstreamFault:
        """What to raise where the body ends before the response does."""
        return UpstreamFault(ErrorKind.UPSTREAM_INTERRUPTED, "The upstream ended the stream early.")
