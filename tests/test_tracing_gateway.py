"""Traces, exemplars and log lines of the gateway, over sockets."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence

import aiohttp
import numpy as np
import pytest
import pytest_asyncio
from aiohttp import web
from conftest import Proxy, ProxyFactory, Upstream
from otlp_kit import Collector, collecting
from scripted import CHAT_PATH, DONE, chunk, finish, streaming

from cotguard.classifier.inference import Inference
from cotguard.classifier.tensors import Answer, Window
from cotguard.telemetry.metrics import Metrics
from cotguard.telemetry.tracing import Trace, tracing, under

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
EMAIL = "ann.lee@example.com"
USAGE = f"data: {json.dumps({'choices': [], 'usage': {'prompt_tokens': 3, 'completion_tokens': 5}})}\n\n".encode()
SAID = [chunk({"reasoning": f"mail {EMAIL} "}), chunk({"content": f"now {EMAIL} ok"}), finish(), USAGE, DONE]


@pytest_asyncio.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as running:
        yield running


class Asking:
    """A client, with what the upstream got of its headers."""

    def __init__(self, proxy: Proxy, upstream: Upstream, events: Sequence[bytes]) -> None:
        self._proxy = proxy
        answer = streaming(events)

        async def handler(request: web.Request) -> web.StreamResponse:
            self.upstream_got = request.headers
            return await answer(request)

        upstream.handler = handler

    async def ask(self, **body: object) -> tuple[int, str]:
        """The status, and the request's id."""
        document = {"model": "m-1", "stream": True, "messages": [{"role": "user", "content": f"I am {EMAIL}"}], **body}
        headers = {"traceparent": PARENT, "tracestate": "a=1"}
        url = self._proxy.url + CHAT_PATH
        async with aiohttp.ClientSession() as session, session.post(url, json=document, headers=headers) as response:
            await response.read()
            return response.status, response.headers["x-cotguard-request-id"]


async def test_a_stream_is_traced_and_its_text_is_not(
    collector: Collector, upstream: Upstream, make_proxy: ProxyFactory, caplog: pytest.LogCaptureFixture
) -> None:
    proxy = await make_proxy(traces=collector.endpoint, trace_sample=0)
    asking = Asking(proxy, upstream, SAID)
    with caplog.at_level(logging.INFO, "cotguard.access"):
        status, request_id = await asking.ask()
    assert status == 200
    await proxy.gateway.close()
    server, client = collector.named("POST"), collector.named("chat")
    response = collector.named("moderate response")
    assert {span.trace for span in collector.spans} == {TRACE}
    assert asking.upstream_got["traceparent"] == f"00-{TRACE}-{client.id}-01"
    assert asking.upstream_got["tracestate"] == "a=1"
    assert client.name == "chat m-1"
    assert client.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert client.attributes["gen_ai.usage.output_tokens"] == 5
    assert server.attributes["cotguard.request_id"] == request_id
    assert server.attributes["http.route"] == "/v1/chat/completions"
    assert server.attributes["cotguard.policy"]
    found = {(event["cotguard.channel"], event["cotguard.entity"]) for event in response.events}
    assert found == {("reasoning", "EMAIL_ADDRESS"), ("output", "EMAIL_ADDRESS")}
    assert EMAIL.encode() not in b"".join(collector.raw)
    exposed = proxy.gateway.metrics.expose("application/openmetrics-text; version=1.0.0").decode()
    assert f'trace_id="{TRACE}"' in exposed
    (line,) = (record for record in caplog.records if record.name == "cotguard.access")
    assert vars(line)["outcome"] == "ok"


async def test_faults_are_told_alike_by_all(collector: Collector, upstream: Upstream, make_proxy: ProxyFactory) -> None:
    proxy = await make_proxy(traces=collector.endpoint, trace_sample=0)
    asking = Asking(proxy, upstream, SAID[:2])  # the upstream ends early
    assert (await asking.ask())[0] == 200
    assert (await asking.ask(messages=7))[0] == 400
    await proxy.gateway.close()
    faults = [(span.name, span.attributes["error.type"]) for span in collector.spans if "error.type" in span.attributes]
    assert sorted(faults) == [
        ("POST /v1/chat/completions", "upstream_interrupted"),
        ("chat m-1", "upstream_interrupted"),
    ]
    outcomes = {
        (span.attributes["http.response.status_code"], span.attributes["cotguard.outcome"])
        for span in collector.spans
        if span.kind == "server"
    }
    assert outcomes == {(200, "failed"), (400, "refused")} == {(int(s), o) for s, o in proxy.accounts.requests}


async def test_a_model_s_name_that_the_policy_takes_out_is_not_recorded(
    collector: Collector, upstream: Upstream, make_proxy: ProxyFactory
) -> None:
    proxy = await make_proxy(traces=collector.endpoint, trace_sample=0)
    asking = Asking(proxy, upstream, SAID)
    await asking.ask(model="sk-ant-api03-" + "Ab1" * 31 + "AA")
    await proxy.gateway.close()
    assert b"sk-ant" not in b"".join(collector.raw)


class Slow:
    """A judge that takes what came together."""

    ready, batch, lanes = True, 8, 1

    async def __call__(self, windows: Sequence[Window], until: float) -> list[Answer]:
        await asyncio.sleep(0)
        return [np.zeros((0, 0)) for _ in windows]  # type: ignore[misc]  # nobody looks at it

    async def close(self) -> None: ...


async def test_a_batch_of_the_classifier_names_who_asked(collector: Collector) -> None:
    traces = tracing(collector.endpoint, 1)
    inference = Inference(Slow(), deadline=5, metrics=Metrics(), tracing=traces)
    window = Window(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))

    async def ask(trace: Trace) -> None:
        with under(trace):
            await inference([window])

    asking = [traces.exchange({}, "POST", "/", "ollama", "") for _ in range(3)]
    await asyncio.gather(*map(ask, asking))
    await inference.close()
    await traces.close()
    batch = collector.named("classifier")
    assert batch.attributes == {"cotguard.batch_size": 3}
    assert len(batch.links) == 2


async def test_every_response_has_an_id_of_its_own(upstream: Upstream, make_proxy: ProxyFactory) -> None:
    proxy = await make_proxy()
    asking = Asking(proxy, upstream, SAID)
    answers = [await asking.ask(), await asking.ask(messages=7), await asking.ask(stream=False)]
    assert len({request_id for _, request_id in answers}) == 3
    assert asking.upstream_got["traceparent"] == PARENT  # traces are off: it passes
