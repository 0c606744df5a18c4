"""The real command with TLS on both ports, a token, and callers that are known by their certificates."""

import asyncio
import json
import sys
from pathlib import Path

import aiohttp
import aiohttp.test_utils
import pytest
from conftest import Upstream
from cryptography import x509
from scripted import CHAT_PATH, DONE, chunk, finish, streaming, texts
from test_serve import POLICY, until
from tls_kit import Authority

from cotguard.config.errors import SettingsError
from cotguard.config.sources import load_settings

CHAT = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
TOKEN = "0123456789abcdef"
EXPIRY = "cotguard_tls_certificate_expiry_timestamp_seconds"


@pytest.mark.parametrize("workers", [1, 2])
async def test_two_callers_and_an_administrator(upstream: Upstream, tmp_path: Path, workers: int) -> None:
    upstream.handler = streaming([chunk({"reasoning_content": "hm"}), chunk({"content": "yes"}), finish(), DONE])
    authority = Authority(tmp_path)
    certificate, key = authority.server("server")
    policy, callers = tmp_path / "policy.yaml", tmp_path / "callers.yaml"
    policy.write_text(POLICY, encoding="utf-8")
    roles = {"reader": {"reasoning": "hidden"}, "admin": {}}
    names = {"uri:spiffe://example.org/readers/*": "reader", "cn:ops": "admin"}
    callers.write_text(json.dumps({"roles": roles, "certificates": names}), encoding="utf-8")
    data, admin = aiohttp.test_utils.unused_port(), aiohttp.test_utils.unused_port()
    settings = {
        "upstream": upstream.url,
        "policy": policy,
        "listen": f"127.0.0.1:{data}",
        "admin-listen": f"127.0.0.1:{admin}",
        "tls-cert": certificate,
        "tls-key": key,
        "tls-client-ca": authority.pem,
        "admin-tls-cert": certificate,
        "admin-tls-key": key,
        "admin-token": TOKEN,
        "callers-file": callers,
        "workers": workers,
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cotguard", "serve", *options, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert f"listens on https://127.0.0.1:{data} " in line
    assert line.endswith(f"admin on https://127.0.0.1:{admin}\n")

    async def ask(*certificates: tuple[str, str]) -> tuple[int, str]:
        connector = aiohttp.TCPConnector(ssl=authority.client(*certificates))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(f"https://127.0.0.1:{data}{CHAT_PATH}", json=CHAT) as response,
        ):
            return response.status, await response.text()

    async def administer(path: str, token: str = TOKEN) -> tuple[int, str]:
        connector = aiohttp.TCPConnector(ssl=authority.client())
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(f"https://127.0.0.1:{admin}{path}", headers={"Authorization": f"Bearer {token}"}) as response,
        ):
            return response.status, await response.text()

    async def is_ready() -> bool:
        return (await administer("/readyz", "wrong"))[0] == 200

    try:
        await until(is_ready)
        reader = authority.issue("ann", "ann", x509.UniformResourceIdentifier("spiffe://example.org/readers/ann"))
        status, body = await ask(reader)
        assert (status, texts(body)) == (200, {(0, "content"): "yes"})
        status, body = await ask(authority.issue("ops", "ops"))
        assert (status, texts(body)) == (200, {(0, "reasoning_content"): "hm", (0, "content"): "yes"})
        status, body = await ask(authority.issue("bob", "bob"))
        assert (status, json.loads(body)["error"]["message"]) == (
            403,
            "The certificate of this connection has no role here.",
        )
        with pytest.raises(aiohttp.ClientError):
            await ask()
        assert (await administer("/metrics", "wrong"))[0] == 401
        status, metrics = await administer("/metrics")
        assert status == 200
        assert 'cotguard_callers_denied_total{reason="certificate"} 1.0' in metrics
        told = {
            line.partition(" ")[0]: float(line.partition(" ")[2]) for line in metrics.splitlines() if "#" not in line
        }
        assert told[f'{EXPIRY}{{port="admin"}}'] == told[f'{EXPIRY}{{port="data"}}']
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"tls_key": "k"}, "tls_cert: name the certificate of the data port too"),
        ({"admin_tls_key": "k"}, "admin_tls_cert: name the certificate of the admin port too"),
        ({"tls_cert": "nowhere.pem"}, "tls_cert: nowhere.pem: No such file or directory; write paths of PEM files"),
        ({"admin_token": "short"}, "admin_token: write at least 16 characters"),
        ({"admin_listen": "0.0.0.0:9090"}, "admin_listen: 0.0.0.0:9090 is open to other machines"),
    ],
)
def test_settings_that_do_not_go_together(flags: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings({"upstream": "http://127.0.0.1:8000", **flags}, {}, None)
    assert str(raised.value).startswith(told)


def test_certificates_with_roles_need_who_signs_them(tmp_path: Path) -> None:
    callers = tmp_path / "callers.yaml"
    callers.write_text('{"roles": {"a": {}}, "certificates": {"cn:*": "a"}}', encoding="utf-8")
    with pytest.raises(SettingsError, match="tls_client_ca: name who signs the certificates"):
        load_settings({"upstream": "http://127.0.0.1:8000", "callers_file": str(callers)}, {}, None)
