"""Traces, recorded by OpenTelemetry and sent by a thread of its own (OTLP over HTTP).

1. The client's ``traceparent`` is the parent. A client that decided whether its trace is recorded is obeyed; of the
   others a share is.
2. The upstream gets the ``traceparent`` of the span of its call. ``tracestate`` goes on as it came and is not recorded:
   it is a string of the client's.
3. An exchange that is not recorded costs one span context and one header.
4. The batch of a classifier belongs to the first exchange that is recorded and asked, and is linked to the others.

Bounded: what waits to be sent is 2,048 spans, what is above that is dropped; an exchange is named by at most
``_MAX_BATCHES`` batches. A collector that is slow or down holds up nothing.
"""

import asyncio
import re
from collections.abc import Collection, Mapping, Sequence
from threading import Thread

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from cotguard import __version__
from cotguard.taxonomy import label
from cotguard.telemetry.tracing import Asked, Batch, Ended, Tally, Trace, Tracing

__all__ = ["OpenTelemetry"]

_PARENT = "traceparent"
_STATE = "tracestate"
_CONTEXT = TraceContextTextMapPropagator()
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,127}(@[0-9]{1,12})?")
_SEND_SECONDS = 5.0
_CLOSE_SECONDS = 2.0
"""What a collector that does not answer may add to the end of the process."""
_MAX_BATCHES = 64
"""Batches that name one exchange: a long stream may ask thousands of times."""

_PROVIDERS = {
    "anthropic": "anthropic",
    "bedrock": "aws.bedrock",
    "cohere": "cohere",
    "gemini": "gcp.gen_ai",
    "generate": "huggingface.tgi",
    "interactions": "gcp.gen_ai",
    "llamacpp": "llama.cpp",
    "mistral_conversations": "mistral_ai",
    "ollama": "ollama",
}
"""All others speak OpenAI's APIs."""
_OPERATIONS = {
    "completions": "text_completion",
    "gemini": "generate_content",
    "generate": "text_completion",
    "interactions": "generate_content",
    "llamacpp": "text_completion",
    "transcription": "transcription",
}
"""All others chat."""


class OpenTelemetry(Tracing):
    """See :func:`cotguard.telemetry.tracing.tracing`. ``OTEL_EXPORTER_OTLP_*`` say what the endpoint wants besides."""

    def __init__(self, endpoint: str, sample: float) -> None:
        resource = Resource.create({SERVICE_NAME: "cotguard", SERVICE_VERSION: __version__})
        sampler = ParentBased(TraceIdRatioBased(sample))
        self._provider = TracerProvider(sampler, resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=_SEND_SECONDS)))
        self._tracer = self._provider.get_tracer("cotguard", __version__)

    def exchange(self, headers: Mapping[str, str], method: str, route: str, dialect: str, request_id: str) -> Trace:
        parent = {name: value for name, value in headers.items() if name.lower() == _PARENT}
        span = self._tracer.start_span(
            f"{method} {route}",
            _CONTEXT.extract({name.lower(): value for name, value in parent.items()}),
            SpanKind.SERVER,
            {
                "http.request.method": method,
                "http.route": route,
                "cotguard.request_id": request_id,
                "cotguard.dialect": dialect,
            },
        )
        return _Recorded(self._tracer, span) if span.is_recording() else _Unrecorded(span)

    def batch(self, name: str, traces: Collection[Trace], size: int) -> Batch:
        asking = [trace for trace in dict.fromkeys(traces) if isinstance(trace, _Recorded) and trace.takes_batch()]
        if not asking:
            return Batch()
        span = self._tracer.start_span(
            name,
            asking[0].context,
            SpanKind.INTERNAL,
            {"cotguard.batch_size": size},
            [Link(trace.span.get_span_context()) for trace in asking[1:]],
        )
        return _RecordedBatch(span)

    async def close(self) -> None:
        closing = Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, _CLOSE_SECONDS)


class _Unrecorded(Trace):
    """The trace of an exchange that was not chosen: the upstream is told so."""

    def __init__(self, span: Span) -> None:
        self.span = span

    def ask(self, asked: Asked, headers: Mapping[str, str]) -> dict[str, str]:
        return _with_context(headers, self.span)


class _Recorded(Trace):
    def __init__(self, tracer: Tracer, span: Span) -> None:
        self.span = span
        self.context = set_span_in_context(span)
        self.trace_id = format_trace_id(span.get_span_context().trace_id)
        self._tracer = tracer
        self._request: Span | None = self._child("moderate request")
        self._client: Span | None = None
        self._response: Span | None = None
        self._status = 0
        self._before = Tally()
        self._batches = 0

    def takes_batch(self) -> bool:
        """Whether one more batch may name this exchange; it is counted."""
        self._batches += 1
        return self._batches <= _MAX_BATCHES

    def moderated(self, tally: Tally) -> None:
        self._before = Tally(tally)
        if self._request is not None:
            _decided(self._request, tally)
            self._request.end()
            self._request = None

    def ask(self, asked: Asked, headers: Mapping[str, str]) -> dict[str, str]:
        operation = _OPERATIONS.get(asked.dialect, "chat")
        if (asked.dialect, asked.action) == ("ollama", "generate"):
            operation = "text_completion"
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": _PROVIDERS.get(asked.dialect, "openai"),
            "gen_ai.request.stream": asked.stream,
        }
        name = operation
        if _MODEL.fullmatch(asked.model):
            attributes["gen_ai.request.model"] = asked.model
            name = f"{operation} {asked.model}"
        self._client = self._tracer.start_span(name, self.context, SpanKind.CLIENT, attributes)
        return _with_context(headers, self._client)

    def answered(self, status: int, host: str, port: int | None) -> None:
        self._status = status
        if self._client is not None:
            self._client.set_attribute("server.address", host)
            if port is not None:
                self._client.set_attribute("server.port", port)
            self._client.set_attribute("http.response.status_code", status)
        self._response = self._child("moderate response")

    def end(self, ended: Ended, tally: Tally) -> None:
        if self._request is not None:
            self.moderated(tally)
        if self._response is not None:
            self._response.set_attribute("cotguard.received_characters", ended.received)
            self._response.set_attribute("cotguard.delivered_characters", ended.delivered)
            _decided(self._response, tally - self._before)
            self._response.end()
        if self._client is not None:
            _reported(self._client, ended)
            _fail(self._client, ended.error or (str(self._status) if self._status >= 400 else ""))
            self._client.end()
        self.span.set_attribute("http.response.status_code", ended.status)
        self.span.set_attribute("cotguard.outcome", ended.outcome)
        self.span.set_attribute("cotguard.policy", ended.policy)
        self.span.set_attribute("cotguard.role", ended.role)
        _fail(self.span, ended.error)
        self.span.end()

    def _child(self, name: str) -> Span:
        return self._tracer.start_span(name, self.context)


class _RecordedBatch(Batch):
    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self, error: str = "") -> None:
        _fail(self._span, error)
        self._span.end()


def _with_context(headers: Mapping[str, str], span: Span) -> dict[str, str]:
    """``headers`` with ``span`` as the parent of what the upstream does."""
    changed = {name: value for name, value in headers.items() if name.lower() != _PARENT}
    ours: dict[str, str] = {}
    _CONTEXT.inject(ours, set_span_in_context(span))
    return changed | {_PARENT: ours[_PARENT]}


def _decided(span: Span, tally: Tally) -> None:
    span.set_attribute("cotguard.decisions", tally.total())
    for verdict, count in tally.items():
        span.add_event(
            "cotguard.decision",
            {
                "cotguard.entity": label(verdict.entity),
                "cotguard.channel": verdict.kind,
                "cotguard.action": verdict.action,
                "cotguard.outcome": verdict.outcome,
                "cotguard.count": count,
            },
        )


def _reported(span: Span, ended: Ended) -> None:
    """What the upstream said of its answer."""
    reasons: Sequence[str] = tuple(ended.finish_reasons)
    if reasons:
        span.set_attribute("gen_ai.response.finish_reasons", reasons)
    if ended.input_tokens is not None:
        span.set_attribute("gen_ai.usage.input_tokens", ended.input_tokens)
    if ended.output_tokens is not None:
        span.set_attribute("gen_ai.usage.output_tokens", ended.output_tokens)


def _fail(span: Span, error: str) -> None:
    """Say that ``span`` ended with a fault of this kind, if there is one."""
    if error:
        span.set_attribute("error.type", error)
        span.set_status(Status(StatusCode.ERROR))
