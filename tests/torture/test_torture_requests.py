"""Malformed and tricky requests, each on a connection of its own: what reaches the upstream, and what comes after.

For each row of ``requests.yaml``: the answers are those of the table; the upstream gets a request for each answer of
status 200 and none else, and each is the very request that a plain one becomes, so that none of the client's bytes are
in it; and the connection is either closed or serves the next request with its own answer.
"""

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import NamedTuple

import pytest

from torture.cases import LIMIT, Case, plain, requests
from torture.gateway_process import GatewayProcess, gateway_process
from torture.wire import Client, Received, Upstream, listening, said_in

_NUMBERS = count()
_LOG = re.compile(r"time=\S+ level=[a-z]+ logger=[a-z.]+ [ -~]*")


class Setting(NamedTuple):
    """What the cases of one parser share."""

    parser: str
    gateway: GatewayProcess
    upstream: Upstream
    usual: Received


@pytest.fixture(scope="module", params=["compiled", pytest.param("pure", marks=pytest.mark.long)])
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    upstream, folder = Upstream(), tmp_path_factory.mktemp("torture")
    with (
        listening(upstream) as url,
        gateway_process(url, folder, request.param, max_request_bytes=LIMIT, client_timeout=1) as gateway,
    ):
        with Client(gateway.address) as client:
            client.send(plain("x"))
            assert client.answer() is not None
        (usual,) = upstream.received
        yield Setting(request.param, gateway, upstream, usual)


def _follow(client: Client) -> None:
    """Send a plain request on the same connection: it gets its own answer, or the connection is at its end."""
    text = f"number {next(_NUMBERS)}"
    client.send(plain(text))
    answer = client.answer()
    if answer is not None and answer.status == 200:
        assert said_in(answer.body) == f"You said: {text}"
    elif answer is not None:
        assert answer.status == 400
        assert client.answer() is None


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.group}: {case.name}") for case in requests()])
def test_a_request(setting: Setting, case: Case) -> None:
    setting.upstream.reset()
    expected = case.answers[setting.parser]
    with Client(setting.gateway.address) as client:
        client.send(case.data)
        if not expected:
            client.end()
            assert client.answer() is None
        answers = [client.answer(to_head=case.to_head) for _ in expected]
        assert [answer and answer.status for answer in answers] == expected
        received = list(setting.upstream.received)
        if expected:
            _follow(client)
    assert len(received) == expected.count(200)
    assert len(setting.upstream.received) <= len(received) + 1  # that is the plain one
    for each in received:
        _check(each, case, setting.usual)


def _check(received: Received, case: Case, usual: Received) -> None:
    """Nothing of what was received is the client's own writing."""
    if received.line.startswith(b"GET "):
        assert received.line == b"GET /v1/models HTTP/1.1\r\n"
        assert received.body == b""
        return
    assert received.line == usual.line
    assert received.body is not None
    length = {"content-length": str(len(received.body))}
    assert received.headers == {**usual.headers, **length, **case.passes}
    assert usual.body is not None
    assert said_in(received.body) == case.says
    assert received.body == plain(case.says).partition(b"\r\n\r\n")[2] or received.body == usual.body


def test_chunks_that_come_behind_the_head(setting: Setting) -> None:
    """A head that is fine has been read, and its body waited for, when the malformed chunk comes."""

    def status(case: Case) -> int | None:
        head, blank, body = case.data.partition(b"\r\n\r\n")
        with Client(setting.gateway.address) as client:
            client.send(head + blank)
            time.sleep(0.05)
            client.send(body)
            answer = client.answer()
            return answer and answer.status

    setting.upstream.reset()
    cases = [case for case in requests() if case.group == "chunks" and 400 in case.answers[setting.parser]]
    with ThreadPoolExecutor(len(cases)) as pool:
        found = dict(zip([case.name for case in cases], pool.map(status, cases), strict=True))
    assert [name for name, status in found.items() if status not in (400, 408)] == []
    assert setting.upstream.received == []


def test_the_log_quotes_no_request(setting: Setting) -> None:
    for line in setting.gateway.log.read_text("utf-8").splitlines():
        assert _LOG.fullmatch(line), line
