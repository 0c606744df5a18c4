"""Callers files, keys, an OpenID provider and a Redis server for the tests of callers."""

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp.test_utils
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from cotguard.callers.document import KeyScope
from cotguard.callers.keys import KeyStore

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | Ed25519PrivateKey


def callers_file(folder: Path, roles: dict[str, object], oidc: dict[str, object] | None = None) -> str:
    """A callers file; JSON is YAML too."""
    path = folder / "callers.yaml"
    path.write_text(json.dumps({"roles": roles} | ({"oidc": oidc} if oidc else {})), encoding="utf-8")
    return str(path)


def make_key(path: str, role: str, *, lifetime: float | None = None, **narrowing: object) -> tuple[str, str]:
    """Identifier and text of a new key."""
    with KeyStore(path, create=True) as store:
        key, text = store.create("test", role, KeyScope.model_validate(narrowing), lifetime)
    return key.id, text


class Issuer:
    """An OpenID provider with a discovery document and a set of keys, all made here."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: dict[str, PrivateKey] = {}
        self.fetched = 0
        self.down = False
        self.told_issuer = ""

    def add(self, identifier: str, kind: str = "RSA") -> PrivateKey:
        """A new key pair, published."""
        key: PrivateKey
        if kind == "RSA":
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        elif kind == "EC":
            key = ec.generate_private_key(ec.SECP256R1())
        else:
            key = Ed25519PrivateKey.generate()
        self.keys[identifier] = key
        return key

    def token(self, identifier: str | None, key: PrivateKey, algorithm: str = "RS256", **claims: object) -> str:
        """A token that is valid unless ``claims`` say something else; those that are None are left out."""
        now = int(time.time())
        told = {"iss": self.url, "aud": "cotguard", "sub": "ann", "exp": now + 60, "iat": now, "roles": ["staff"]}
        payload = {name: value for name, value in (told | claims).items() if value is not None}
        headers = {} if identifier is None else {"kid": identifier}
        return jwt.encode(payload, key, algorithm=algorithm, headers=headers)

    def entry(self, identifier: str) -> dict[str, Any]:
        """A key as it is published."""
        public = self.keys[identifier].public_key()
        if isinstance(public, rsa.RSAPublicKey):
            entry = RSAAlgorithm.to_jwk(public, as_dict=True)
        elif isinstance(public, ec.EllipticCurvePublicKey):
            entry = ECAlgorithm.to_jwk(public, as_dict=True)
        else:
            entry = OKPAlgorithm.to_jwk(public, as_dict=True)
        return {**entry, "kid": identifier, "use": "sig"}

    async def answer(self, request: web.Request) -> web.Response:
        if self.down:
            return web.Response(status=503)
        if request.path == "/.well-known/openid-configuration":
            return web.json_response({"issuer": self.told_issuer or self.url, "jwks_uri": f"{self.url}/keys"})
        self.fetched += 1
        return web.json_response({"keys": [self.entry(identifier) for identifier in self.keys]})


@asynccontextmanager
async def issuing() -> AsyncIterator[Issuer]:
    """A provider that listens."""
    issuer = Issuer()
    app = web.Application()
    app.router.add_get("/{path:.*}", issuer.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    issuer.url = f"http://{host}:{port}"
    try:
        yield issuer
    finally:
        await runner.cleanup()


class RedisServer:
    """A real server on a free port, which can be stopped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = aiohttp.test_utils.unused_port()
        self._process: asyncio.subprocess.Process | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            pytest.skip("no redis-server or valkey-server is installed")
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = await asyncio.create_subprocess_exec(program, *options, stdout=asyncio.subprocess.DEVNULL)
        async with asyncio.timeout(20):
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self._port)
                    writer.close()
                    await writer.wait_closed()
                    return
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Stop it."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()
