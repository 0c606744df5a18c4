"""What a request needs at the server that is tried: its address, our credential, a signature, a form of its own."""

from functools import cache, partial

import pytest
from upstreams_kit import LIMIT, pools, refusing, serving
from yarl import URL

from cotguard.dialects.catalogue import dialects
from cotguard.dialects.routes import Router
from cotguard.http.form import written_form
from cotguard.http.signing import Signer
from cotguard.upstreams.outbound import Credentials, Draft

CLIENTS = {"Authorization": "Bearer client", "openai-organization": "theirs", "user-agent": "sdk", "x-other": "1"}


def credentials(key: str = "", header: str = "", *, authenticates: bool = False) -> Credentials:
    return Credentials(key, header, authenticates, Signer())


@cache
def router() -> Router:
    return Router(dialects())


def draft(path: str, own: Credentials, **changes: object) -> Draft:
    match = router().find("POST", path)
    draft = Draft(own, match, "POST", match.upstream, {}, own.passed(CLIENTS), b'{"n": 1}', False, CLIENTS, path)
    for name, value in changes.items():
        setattr(draft, name, value)
    return draft


@pytest.mark.parametrize("base", ["http://a:8000", "https://a/openai", "http://localhost"])
async def test_the_address_begins_with_the_servers(base: str) -> None:
    made = await draft("/v1/chat/completions", credentials(), query={"a": "b@c/d ?e"}).outgoing(base)
    assert str(made.url) == base + "/v1/chat/completions?a=b%40c%2Fd+%3Fe"
    assert made.url.origin() == URL(base).origin()


@pytest.mark.parametrize(
    ("path", "own", "sent"),
    [
        ("/v1/chat/completions", credentials(), {"authorization": "Bearer client", "openai-organization": "theirs"}),
        ("/v1/chat/completions", credentials(authenticates=True), {}),
        ("/v1/chat/completions", credentials("ours"), {"authorization": "Bearer ours"}),
        ("/v1/messages", credentials("ours"), {"x-api-key": "ours"}),
        ("/v1/messages", credentials("ours", "Authorization"), {"authorization": "Bearer ours"}),
    ],
)
async def test_whose_credential_goes_upstream(path: str, own: Credentials, sent: dict[str, str]) -> None:
    made = await draft(path, own).outgoing("http://a")
    assert made.headers == sent | {
        "user-agent": "sdk",
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
    }


async def test_each_server_that_is_tried_has_a_signature_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDPROXY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "proxy-secret")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    signing = draft("/model/m/converse", credentials(authenticates=True))
    made = [await signing.outgoing(base) for base in ("http://a:1", "http://b:1")]
    first, second = (each.headers["Authorization"] for each in made)
    assert first.partition(" Signature=")[0] == second.partition(" Signature=")[0]
    assert "SignedHeaders=content-type;host;" in first
    assert first != second
    assert "Authorization" not in signing.headers


async def test_a_form_arrives_whole_at_the_server_that_is_there() -> None:
    async with serving() as model:
        with refusing() as one, refusing() as two:
            async with pools(main={"servers": [one, two, model.url]}) as made:
                pool = made.current["main"]
                for _ in range(3):
                    write = partial(written_form, [("model", "whisper")], None)
                    form = draft("/v1/audio/transcriptions", pool.credentials, form=write)
                    answer = await pool.send("POST", form.outgoing)
                    assert await answer.whole(LIMIT) == b"a"
                    answer.close()
    assert len(model.bodies) == 3
    for body in model.bodies:
        assert body.count(b'name="model"') == body.count(b"whisper") == 1


async def test_what_was_sent_is_forgotten() -> None:
    sent = draft("/v1/chat/completions", credentials(), form=lambda: written_form([], None))
    sent.sent()
    assert (sent.body, sent.form) == (None, None)
    assert "Bearer" not in repr(sent)
