"""What dialects have in common that are described by a table file: names, routes, lookups."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from cotguard.dialects.channels import KINDS
from cotguard.dialects.contract import ErrorKind, Incoming, Prepared, Route, Translator
from cotguard.dialects.definitions import Tool
from cotguard.dialects.inbound import Inbound, moderate_request
from cotguard.dialects.request import read_body
from cotguard.dialects.table import Table
from cotguard.dialects.whole import read_object
from cotguard.framing.json import JSONError, dumps, loads
from cotguard.moderation.exchange import Exchange

__all__ = ["TabledDialect"]


class TabledDialect(ABC):
    """A :class:`~cotguard.dialects.contract.Dialect` with the table ``file``, or another one in the same form.

    ``ValueError`` says which of the table's rows is wrong.
    """

    file: str

    def __init__(self, table: str | None = None) -> None:
        self.table = Table.load(self.file, tuple(KINDS)) if table is None else Table(table, tuple(KINDS))
        self.name = self.table.text("dialect", "name")
        self.title = self.table.text("dialect", "title")
        self.servers = self.table.text("dialect", "servers")
        self.routes: Sequence[Route] = self.table.routes()
        self.inbound = Inbound(self.table.pairs("inbound"), self.table.checks)
        self._lookups = self.table.lookups()
        self._definitions = self.table.tools()

    def read_request(self, document: dict[str, Any], fields: list[tuple[str, str]], exchange: Exchange) -> None:
        moderate_request(self.inbound, document, fields, exchange)

    @abstractmethod
    def prepare(self, request: Incoming) -> Prepared: ...

    @abstractmethod
    def stream(self, prepared: Prepared, exchange: Exchange, content_type: str) -> Translator | None: ...

    @abstractmethod
    def body(self, data: bytes, prepared: Prepared, exchange: Exchange) -> bytes: ...

    @abstractmethod
    def error(self, kind: ErrorKind, message: str) -> bytes: ...

    @abstractmethod
    def reported(self, error: object, message: str) -> dict[str, object]:
        """An upstream's error document, with ``message`` for its text. ``error``: what it sent, of any type."""

    def upstream_error(self, status: int, data: bytes) -> bytes:
        try:
            sent = loads(data)
        except JSONError:
            sent = None
        return dumps(self.reported(sent, f"The upstream answered with status {status}."))

    def tools(self, document: Mapping[str, Any]) -> list[Tool]:
        return self._definitions.read(document)

    def question(self, request: Incoming) -> dict[str, Any]:
        return read_body(request.body)

    def lookup(self, data: bytes, action: str) -> bytes:
        return dumps(self._lookups[action].copy(read_object(data)).root)
