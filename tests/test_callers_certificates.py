"""Callers that are known by their certificates, over TLS: whose counts, who has which role, what goes before."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from callers_kit import make_key
from cryptography import x509
from tls_kit import Authority, listen_tls

from cotguard.callers.caller import Scope
from cotguard.callers.certificates import Certificates
from cotguard.callers.denied import Denied, Reason
from cotguard.callers.document import CallersError, load_callers
from cotguard.callers.limits import LocalLimiter
from cotguard.callers.reception import Reception
from cotguard.http.headers import lower
from cotguard.http.tls import ReloadingContext, TlsFiles
from cotguard.telemetry.metrics import Metrics

ROLES: dict[str, object] = {"agent": {}, "batch": {}, "ops": {}, "other": {}}
AGENT = x509.UniformResourceIdentifier("spiffe://example.org/ns/agents/sa/ann")
Ask = Callable[..., Awaitable[str]]


def callers(folder: Path, **sections: object) -> Path:
    path = folder / "callers.yaml"
    path.write_text(json.dumps({"roles": ROLES, **sections}), encoding="utf-8")
    return path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest_asyncio.fixture
async def ask(authority: Authority, tmp_path: Path) -> AsyncIterator[Ask]:
    """Asks a TLS port who one is that shows a certificate with ``names`` there, and ``headers``."""
    roles = callers(
        tmp_path,
        certificates={
            "uri:spiffe://example.org/ns/agents/*": "agent",
            "dns:*.batch.example.org": "batch",
            "email:ann@example.org": "ops",
            "cn:ops-*": "ops",
        },
    )
    keys = str(tmp_path / "keys.db")
    _, key = make_key(keys, "other")
    reception = Reception(load_callers(str(roles)), keys, LocalLimiter())

    async def handler(request: web.Request) -> web.Response:
        try:
            caller = await reception.caller(lower(request.headers), request.get_extra_info("peercert"))
        except Denied as denied:
            return web.Response(text=denied.reason.value)
        return web.Response(text=f"{caller.role} {caller.id}")

    app = web.Application()
    app.router.add_get("/", handler)
    files = TlsFiles(*authority.server("server"), authority.pem)
    runner, url = await listen_tls(app, ReloadingContext("data", files, Metrics()))

    async def asked(common_name: str, *names: x509.GeneralName, **headers: str) -> str:
        client = authority.client(authority.issue("client", common_name, *names))
        sent = {name: value.format(key=key) for name, value in headers.items()}
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=client)) as session,
            session.get(url, headers=sent) as response,
        ):
            return await response.text()

    yield asked
    await reception.close()
    await runner.cleanup()


async def test_names_have_roles(ask: Ask) -> None:
    assert await ask("x", AGENT) == f"agent certificate:uri:{AGENT.value}"
    dns = x509.DNSName("Night.Batch.example.org")
    assert await ask("x", dns) == "batch certificate:dns:night.batch.example.org"
    assert await ask("x", x509.RFC822Name("ann@example.org")) == "ops certificate:email:ann@example.org"
    assert await ask("ops-1") == "ops certificate:cn:ops-1"
    assert await ask("ops-1", dns, AGENT) == f"agent certificate:uri:{AGENT.value}"  # the file's order counts


async def test_a_name_counts_as_what_it_is_only(ask: Ask) -> None:
    assert await ask(AGENT.value) == "certificate"
    assert await ask("x", x509.DNSName("ops-1"), x509.RFC822Name("bob@example.org")) == "certificate"
    assert await ask("x", x509.UniformResourceIdentifier("spiffe://example.org.evil/ns/agents/sa/ann")) == "certificate"


async def test_a_key_goes_before_a_certificate(ask: Ask) -> None:
    assert (await ask("ops-1", Authorization="Bearer {key}")).startswith("other key:")
    assert await ask("ops-1", Authorization="Bearer none-needed") == "ops certificate:cn:ops-1"
    wrong = "Bearer cg_0123456789abcdef_" + "x" * 43
    assert await ask("ops-1", Authorization=wrong) == "unknown"
    assert await ask("nobody", Authorization="Bearer none-needed") == "certificate"


async def test_without_a_certificate_nobody_is_known(tmp_path: Path) -> None:
    reception = Reception(load_callers(str(callers(tmp_path, certificates={"cn:*": "ops"}))), "", LocalLimiter())
    for headers, certificate, reason in (
        ({}, None, Reason.MISSING),
        ({"x-api-key": "none"}, {}, Reason.UNKNOWN),
        ({}, {"subject": ()}, Reason.CERTIFICATE),
    ):
        with pytest.raises(Denied) as raised:
            await reception.caller(headers, certificate)
        assert raised.value.reason is reason
    await reception.close()


async def test_without_the_section_a_certificate_is_nobodys(tmp_path: Path) -> None:
    reception = Reception(None, "", LocalLimiter())
    caller = await reception.caller({}, {"subject": ((("commonName", "ann"),),)})
    assert caller.id == "anonymous"
    await reception.close()


@pytest.mark.parametrize("name", ["ann\x00.example.org", "ann\n", "x" * 2049])
def test_names_that_are_none(name: str) -> None:
    certificates = Certificates({"dns:*": "ops"}, {"ops": Scope()})
    assert certificates.caller({"subjectAltName": (("DNS", name),)}) is None
    assert certificates.caller({"subjectAltName": (("DNS", name[:3]),)}) is not None


@pytest.mark.parametrize(
    ("certificates", "told"),
    [
        ({"ann": "ops"}, "ann: this is no certificate's name"),
        ({"ip:10.0.0.1": "ops"}, "write uri:, dns:, email: or cn: before the name"),
        ({"cn:": "ops"}, "this is no certificate's name"),
        ({"cn:ann": "opps"}, 'certificates: there is no role "opps"; name one of: agent, batch, ops, other'),
        ({}, 'write for example "certificates: {"uri:spiffe://example.com/batch/*": reader}"'),
    ],
)
def test_sections_that_do_not_do(tmp_path: Path, certificates: dict[str, str], told: str) -> None:
    path = callers(tmp_path, certificates=certificates)
    with pytest.raises(CallersError) as raised:
        load_callers(str(path))
    assert told in str(raised.value)
    assert str(raised.value).startswith(f"{path}:1:")


def test_the_example_of_the_docs(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[1] / "docs" / "tls.md").read_text(encoding="utf-8")
    path = tmp_path / "callers.yaml"
    path.write_text(docs.partition("```yaml\n")[2].partition("```")[0], encoding="utf-8")
    document = load_callers(str(path))
    assert document.certificates is not None
    assert list(document.certificates.values()) == ["agent", "batch", "admin", "admin"]
