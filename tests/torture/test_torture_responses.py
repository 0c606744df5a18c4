"""What a broken or hostile upstream answers: nothing of it reaches the client unmoderated, and nothing waits for ever.

For each row of ``responses.yaml``: the client gets one well-formed response with the status of the table, which is
moderated or is, or ends in, the dialect's error; the planted value is nowhere in it; and the next exchange gets its own
answer, whatever the upstream left on the connection.
"""

import json
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from torture.cases import Reply, plain, replies
from torture.gateway_process import GatewayProcess, gateway_process
from torture.wire import Answer, Client, Upstream, listening, said_in

_SILENCE = 0.5
"""Seconds that the gateway waits for the upstream."""


class Setting(NamedTuple):
    """What the cases of one parser share."""

    parser: str
    gateway: GatewayProcess
    upstream: Upstream


@pytest.fixture(scope="module", params=["compiled", pytest.param("pure", marks=pytest.mark.long)])
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    upstream, folder = Upstream(), tmp_path_factory.mktemp("torture")
    limits = {"idle_timeout": _SILENCE, "first_byte_timeout": _SILENCE, "max_response_bytes": 2**20}
    with listening(upstream) as url, gateway_process(url, folder, request.param, **limits) as gateway:
        yield Setting(request.param, gateway, upstream)


def _script(reply: Reply) -> Iterator[bytes]:
    yield reply.data
    if reply.later:
        time.sleep(0.05)
        yield reply.later
    if reply.then == "close":
        raise ConnectionAbortedError
    while reply.then == "flood":
        yield reply.data


def _code(answer: Answer) -> str:
    """The code of the error that a response is or ends in; empty where it is none."""
    last = [line for line in answer.body.splitlines() if line.strip()][-1].removeprefix(b"data: ")
    if not last.startswith(b"{"):
        return ""
    error = json.loads(last).get("error", {})
    return str(error.get("code") or error.get("type") or "")


@pytest.mark.parametrize("reply", [pytest.param(reply, id=f"{reply.group}: {reply.name}") for reply in replies()])
def test_a_response(setting: Setting, reply: Reply) -> None:
    setting.upstream.script = lambda _received: _script(reply)
    with Client(setting.gateway.address) as client:
        client.send(plain("x", stream=reply.stream))
        answer = client.answer()
        if reply.later:
            time.sleep(0.1)  # it has come
        setting.upstream.reset()
        client.send(plain("the next one"))
        following = client.answer()
    assert answer is not None
    assert b"lee" not in str(answer.headers).encode() + answer.body  # of the planted value
    assert answer.status == reply.status[setting.parser]
    if reply.errors and (reply.stream or answer.status != 200):
        assert _code(answer) in reply.errors
    else:
        assert b"[EMAIL_ADDRESS]" in answer.body
    assert following is not None
    assert said_in(following.body) == "You said: the next one"
