"""A collector of traces: takes what OTLP over HTTP brings, and shows it as tests ask for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, str(kind))


def _attributes(pairs: Any) -> dict[str, Any]:
    found: list[KeyValue] = list(pairs)
    return {pair.key: _value(pair.value) for pair in found}


@dataclass(frozen=True)
class Recorded:
    """A span as it was sent; ids in hexadecimal."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    links: list[str]
    failed: bool
    attributes: dict[str, Any]
    events: list[dict[str, Any]]

    @classmethod
    def of(cls, span: trace_pb2.Span) -> "Recorded":
        return cls(
            span.name,
            trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            [link.span_id.hex() for link in span.links],
            span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
            _attributes(span.attributes),
            [_attributes(event.attributes) for event in span.events],
        )


@dataclass
class Collector:
    """What was sent to it; ``raw`` are the requests' bodies."""

    endpoint: str = ""
    raw: list[bytes] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)
    spans: list[Recorded] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def named(self, start: str) -> Recorded:
        """The one span whose name begins so."""
        (found,) = (span for span in self.spans if span.name.startswith(start))
        return found

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.raw.append(body)
        for each in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = _attributes(each.resource.attributes)
            self.spans += [Recorded.of(span) for scope in each.scope_spans for span in scope.spans]
        self.came.set()
        return web.Response()


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector that listens."""
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collector.take)
    async with TestServer(app) as server:
        collector.endpoint = str(server.make_url("/v1/traces"))
        yield collector
