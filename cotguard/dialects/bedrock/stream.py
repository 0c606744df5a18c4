"""What Amazon Bedrock's streams have in common: exceptions, which are named, and tell nothing but their names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cotguard.dialects.contract import UPSTREAM_REPORTED, ErrorKind, Prepared, UpstreamFault
from cotguard.dialects.stream import EventStream, Outgoing
from cotguard.dialects.table import Table
from cotguard.framing.aws_event_stream import EXCEPTION
from cotguard.framing.contract import Event, Framing
from cotguard.moderation.exchange import Exchange

__all__ = ["BedrockStream", "Exceptions"]


@dataclass(frozen=True, slots=True)
class Exceptions:
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

    def fault(self, kind: ErrorKind, message: str) -> Outgoing:
        """The exception that ends a stream under way."""
        return Outgoing(EXCEPTION + self.streamed.get(kind.value, "internalServerException"), {"message": message})

    def reported(self, name: str) -> Outgoing:
        """The exception that tells one of the upstream's, or its error in another shape."""
        known = name.removeprefix(EXCEPTION)
        told = known if known in self.known else "modelStreamErrorException"
        return Outgoing(EXCEPTION + told, {"message": UPSTREAM_REPORTED})


class BedrockStream(EventStream):
    """An event stream that exceptions end."""

    def __init__(self, framing: Framing, prepared: Prepared, exchange: Exchange, exceptions: Exceptions) -> None:
        super().__init__(framing, prepared, exchange)
        self._exceptions = exceptions

    def read(self, event: Event) -> dict[str, Any] | None:
        if event.name.startswith(EXCEPTION):
            raise self.upstream_failed(self._exceptions.reported(event.name))
        return super().read(event)

    def fault(self, kind: ErrorKind, message: str) -> Outgoing:
        return self._exceptions.fault(kind, message)

    def interrupted(self) -> UpstreamFault:
        """What to raise where the body ends before the response does."""
        return UpstreamFault(ErrorKind.UPSTREAM_INTERRUPTED, "The upstream ended the stream early.")
