"""Traces of exchanges, as a collector gets them."""

import asyncio
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio
from otlp_kit import Collector, collecting

from cotguard.moderation.verdict import Outcome, Verdict
from cotguard.spans import Action, ChannelKind
from cotguard.telemetry.attributes import ATTRIBUTES
from cotguard.telemetry.tracing import OFF, Asked, Ended, Trace, Tracing, current, tracing, under

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
EMAIL = Verdict("EMAIL_ADDRESS", ChannelKind.USER, Action.REDACT, Outcome.REDACTED)
OWN = Verdict("ann.lee@example.com", ChannelKind.OUTPUT, Action.BLOCK, Outcome.BLOCKED)  # a detector's own name
OK = Ended(200, "ok", policy="1234", role="reader", received=30, delivered=20)


@pytest_asyncio.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as running:
        yield running


def begin(traces: Tracing, headers: Mapping[str, str] | None = None) -> Trace:
    return traces.exchange(headers or {}, "POST", "/v1/models/{model}", "anthropic", "request-1")


def run(trace: Trace, model: str = "claude-1", headers: Mapping[str, str] | None = None) -> dict[str, str]:
    """A whole exchange; returns the headers that go upstream."""
    trace.moderated(Counter({EMAIL: 2}))
    sent = trace.ask(Asked("anthropic", "messages", model, stream=True), headers or {"x-api-key": "k"})
    trace.answered(200, "model.internal", 8000)
    trace.end(OK, Counter({EMAIL: 2, OWN: 1}))
    return sent


async def test_an_exchange_is_a_tree_of_spans(collector: Collector) -> None:
    traces = tracing(collector.endpoint, 0)
    client = {"Traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a=1"}
    trace = begin(traces, client)
    sent = run(trace, headers={"x-api-key": "k", "traceparent": client["Traceparent"], "tracestate": "a=1"})
    await traces.close()
    server, upstream = collector.named("POST"), collector.named("chat")
    request, response = collector.named("moderate request"), collector.named("moderate response")
    assert {span.trace for span in collector.spans} == {TRACE} == {trace.trace_id}
    assert (server.kind, server.parent, server.name) == ("server", PARENT, "POST /v1/models/{model}")
    assert [span.parent for span in (request, upstream, response)] == [server.id] * 3
    assert (upstream.kind, upstream.name) == ("client", "chat claude-1")
    assert sent == {"x-api-key": "k", "traceparent": f"00-{TRACE}-{upstream.id}-01", "tracestate": "a=1"}
    assert server.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/models/{model}",
        "http.response.status_code": 200,
        "cotguard.request_id": "request-1",
        "cotguard.dialect": "anthropic",
        "cotguard.outcome": "ok",
        "cotguard.policy": "1234",
        "cotguard.role": "reader",
    }
    assert upstream.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-1",
        "gen_ai.request.stream": True,
        "server.address": "model.internal",
        "server.port": 8000,
        "http.response.status_code": 200,
    }
    decision = {"cotguard.channel": "user", "cotguard.action": "redact", "cotguard.outcome": "redacted"}
    assert request.events == [{"cotguard.entity": "EMAIL_ADDRESS", **decision, "cotguard.count": 2}]
    assert request.attributes == {"cotguard.decisions": 2}
    assert [event["cotguard.entity"] for event in response.events] == ["OTHER"]
    assert response.attributes == {
        "cotguard.decisions": 1,
        "cotguard.received_characters": 30,
        "cotguard.delivered_characters": 20,
    }
    assert collector.resource["service.name"] == "cotguard"
    assert not any(span.failed for span in collector.spans)


async def test_every_attribute_is_in_the_reference(collector: Collector) -> None:
    traces = tracing(collector.endpoint, 1)
    run(begin(traces))
    trace = begin(traces)
    trace.ask(Asked("ollama", "generate"), {})
    traces.batch("classifier", [trace], 3).end("timeout")
    reported = Ended(502, "failed", "upstream_error", finish_reasons=["stop"], input_tokens=3, output_tokens=5)
    trace.end(reported, Counter())
    await traces.close()
    found = {name for span in collector.spans for holder in (span.attributes, *span.events) for name in holder}
    assert found == set(ATTRIBUTES)


@pytest.mark.parametrize(
    ("flag", "sample", "recorded"), [("00", 1, False), ("01", 0, True), ("", 0, False), ("", 1, True)]
)
async def test_the_client_decides_and_else_the_share(
    collector: Collector, flag: str, sample: float, recorded: bool
) -> None:
    traces = tracing(collector.endpoint, sample)
    trace = begin(traces, {"traceparent": f"00-{TRACE}-{PARENT}-{flag}"} if flag else {})
    sent = run(trace)["traceparent"].split("-")
    await traces.close()
    assert bool(collector.spans) is recorded is bool(trace.trace_id) is (trace.exemplar is not None)
    assert bool(int(sent[3], 16) & 1) is recorded
    assert (sent[1] == TRACE) is bool(flag)
    assert sent[2] != PARENT


async def test_a_fault_ends_all_spans_and_is_told(collector: Collector) -> None:
    traces = tracing(collector.endpoint, 1)
    begin(traces).end(Ended(400, "refused"), Counter({EMAIL: 1}))
    trace = begin(traces)
    trace.moderated(Counter())
    trace.ask(Asked("chat_completions", "chat", "m"), {})
    trace.answered(200, "model.internal", None)
    trace.end(Ended(200, "failed", "upstream_interrupted"), Counter())
    refused = begin(traces)
    refused.ask(Asked("chat_completions", "chat", "m"), {})
    refused.answered(429, "model.internal", None)
    refused.end(Ended(429, "upstream_error"), Counter())
    await traces.close()
    told = sorted((span.name, span.attributes.get("error.type", "")) for span in collector.spans if span.failed)
    assert told == [
        ("POST /v1/models/{model}", "upstream_interrupted"),
        ("chat m", "429"),
        ("chat m", "upstream_interrupted"),
    ]
    assert Counter(span.name for span in collector.spans) == {
        "POST /v1/models/{model}": 3,
        "moderate request": 3,
        "moderate response": 2,
        "chat m": 2,
    }


async def test_nothing_that_a_client_wrote_is_recorded(collector: Collector) -> None:
    value = "ann.lee@example.com"
    traces = tracing(collector.endpoint, 1)
    for parent in (f"00-{TRACE}-{PARENT}-01", value, f"00-{TRACE}-{PARENT}-01-{value}", ""):
        trace = begin(traces, {"traceparent": parent, "tracestate": f"a={value}", "baggage": f"b={value}", "x": value})
        run(trace, model=f"a model of {value}")
        run(begin(traces, {"tracestate": f"a={value}"}), model=value)
    await traces.close()
    assert len(collector.spans) == 32
    assert value.encode() not in b"".join(collector.raw)


async def test_a_batch_is_linked_to_the_exchanges_that_asked(collector: Collector) -> None:
    traces = tracing(collector.endpoint, 1)
    one, other = begin(traces), begin(traces)
    unrecorded = begin(traces, {"traceparent": f"00-{TRACE}-{PARENT}-00"})
    traces.batch("classifier", [OFF.exchange({}, "", "", "", ""), unrecorded], 2).end()
    traces.batch("classifier", [unrecorded, one, other, one], 4).end()
    for trace in (one, other):
        trace.end(OK, Counter())
    await traces.close()
    batch = collector.named("classifier")
    servers = {span.trace: span.id for span in collector.spans if span.kind == "server"}
    assert (batch.parent, batch.links) == (servers[one.trace_id], [servers[other.trace_id]])
    assert batch.attributes == {"cotguard.batch_size": 4}


async def test_a_long_exchange_is_named_by_so_many_batches(collector: Collector) -> None:
    traces = tracing(collector.endpoint, 1)
    trace = begin(traces)
    for _ in range(100):
        traces.batch("classifier", [trace], 1).end()
    trace.end(OK, Counter())
    await traces.close()
    assert sum(span.name == "classifier" for span in collector.spans) == 64


async def test_who_works_for_an_exchange_finds_its_trace() -> None:
    trace = Trace()
    with under(trace):
        assert await asyncio.create_task(asyncio.sleep(0, current())) is current() is trace
    assert current() is not trace


async def test_a_collector_that_is_down_holds_up_nothing() -> None:
    with socket.socket() as silent:  # takes connections and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        traces = tracing(f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces", 1)
        for _ in range(600):  # more than what may wait
            run(begin(traces))
    await traces.close()  # it is gone now


def test_traces_that_are_off_load_nothing() -> None:
    code = "import sys, cotguard.gateway.serve; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert tracing("", 1) is OFF
    trace = begin(OFF)
    assert run(trace, headers={"traceparent": "x"}) == {"traceparent": "x"}
    assert (trace.trace_id, trace.exemplar) == ("", None)
