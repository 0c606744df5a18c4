"""Tokens of an OpenID provider that runs in the test, with real key pairs."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import jwt
import pytest
import pytest_asyncio
from callers_kit import Issuer, issuing
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cotguard.callers.caller import Scope
from cotguard.callers.denied import Denied, Reason
from cotguard.callers.document import OidcDocument
from cotguard.callers.oidc import Oidc

ROLES = {"reader": Scope(), "admin": Scope(policy="strict")}


@pytest_asyncio.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with issuing() as found:
        yield found


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def checking(issuer: Issuer, clock: Clock | None = None, **settings: object) -> AsyncIterator[Oidc]:
    told = {"issuer": issuer.url, "audience": "cotguard", "roles": {"boss": "admin", "staff": "reader"}, "leeway": 0}
    algorithms = ("RS256", "PS256", "ES256", "EdDSA")
    oidc = Oidc(OidcDocument.model_validate(told | {"algorithms": algorithms} | settings), ROLES, clock or Clock())
    yield oidc
    await oidc.close()


async def reason_of(oidc: Oidc, token: str) -> Reason:
    with pytest.raises(Denied) as raised:
        await oidc.caller(token)
    return raised.value.reason


@pytest.mark.parametrize(
    ("kind", "algorithm"), [("RSA", "RS256"), ("RSA", "PS256"), ("EC", "ES256"), ("Ed25519", "EdDSA")]
)
async def test_a_token_tells_who_asks(issuer: Issuer, kind: str, algorithm: str) -> None:
    issuer.add("another")
    key = issuer.add("k", kind)
    async with checking(issuer) as oidc:
        ann = await oidc.caller(issuer.token("k", key, algorithm))
        boss = await oidc.caller(issuer.token("k", key, algorithm, roles="boss", sub="bob"))
    assert ann.id.startswith("jwt:")
    assert ann.id.endswith(":ann")
    assert issuer.url not in ann.id
    assert (ann.role, boss.role, boss.scope.policy) == ("reader", "admin", "strict")
    assert issuer.fetched == 1


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": 1_000_000}, Reason.EXPIRED),
        ({"exp": None}, Reason.TOKEN),
        ({"aud": "another"}, Reason.TOKEN),
        ({"aud": None}, Reason.TOKEN),
        ({"iss": "http://127.0.0.1:1"}, Reason.TOKEN),
        ({"iss": None}, Reason.TOKEN),
        ({"nbf": 4_000_000_000}, Reason.TOKEN),
        ({"sub": None}, Reason.TOKEN),
        ({"sub": ""}, Reason.TOKEN),
        ({"sub": "a" * 256}, Reason.TOKEN),
        ({"roles": ["guest"]}, Reason.ROLE),
        ({"roles": None}, Reason.ROLE),
        ({"roles": {"staff": True}}, Reason.ROLE),
    ],
)
async def test_claims_that_do_not_do(issuer: Issuer, claims: dict[str, object], reason: Reason) -> None:
    key = issuer.add("k")
    async with checking(issuer) as oidc:
        assert await reason_of(oidc, issuer.token("k", key, "RS256", **claims)) is reason


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


async def test_forged_signatures(issuer: Issuer) -> None:
    key, other = issuer.add("k"), rsa.generate_private_key(public_exponent=65537, key_size=2048)
    issuer.add("ec", "EC")
    assert isinstance(key, rsa.RSAPrivateKey)
    good = issuer.token("k", key)
    _, payload, signature = good.split(".")
    unsigned = encoded(json.dumps({"alg": "none", "kid": "k"}).encode())
    shared = encoded(json.dumps({"alg": "HS256", "kid": "k"}).encode())
    # The confusion of old libraries: the public key, which everybody has, as the secret of an HMAC.
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    confused = hmac.digest(public, f"{shared}.{payload}".encode(), "sha256")
    forged = [
        f"{unsigned}.{payload}.",
        f"{unsigned}.{payload}.{signature}",
        f"{shared}.{payload}.{encoded(confused)}",
        issuer.token("k", other),
        issuer.token("ec", key),  # a key of another type
        jwt.encode({"sub": "ann"}, "secret" * 9, algorithm="HS256", headers={"kid": "k"}),
        good[:-8] + "AAAAAAAA",
        good.replace(payload, encoded(json.dumps({"sub": "boss", "exp": 4_000_000_000}).encode())),
        issuer.token("k", key, "RS512"),  # not allowed
        "..",
        "a.b.c",
        "é.é.é",
        "\udcff.\udcff.",
    ]
    async with checking(issuer) as oidc:
        assert (await oidc.caller(good)).role == "reader"
        for token in forged:
            assert await reason_of(oidc, token) is Reason.TOKEN


async def test_algorithms_are_those_listed(issuer: Issuer) -> None:
    key = issuer.add("k", "EC")
    async with checking(issuer, algorithms=("RS256",)) as oidc:
        assert await reason_of(oidc, issuer.token("k", key, "ES256")) is Reason.TOKEN
    assert issuer.fetched == 0


async def test_a_clock_may_differ_by_the_leeway(issuer: Issuer) -> None:
    key = issuer.add("k")
    token = issuer.token("k", key, exp=int(time.time()) - 20)
    async with checking(issuer, leeway=60) as oidc:
        await oidc.caller(token)
    async with checking(issuer) as oidc:
        assert await reason_of(oidc, token) is Reason.EXPIRED


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("realm_access.roles", {"realm_access": {"roles": ["staff"]}}),
        ("https://x.example/roles", {"https://x.example/roles": "staff"}),
    ],
)
async def test_where_roles_stand(issuer: Issuer, claim: str, value: dict[str, object]) -> None:
    key = issuer.add("k")
    async with checking(issuer, role_claim=claim) as oidc:
        assert (await oidc.caller(issuer.token("k", key, "RS256", **value))).role == "reader"
        assert await reason_of(oidc, issuer.token("k", key)) is Reason.ROLE


async def test_a_rotated_key_is_fetched_and_made_up_ones_are_not_for_each(issuer: Issuer) -> None:
    clock = Clock()
    old = issuer.add("old")
    async with checking(issuer, clock) as oidc:
        await oidc.caller(issuer.token("old", old))
        new = issuer.add("new")
        del issuer.keys["old"]
        clock.now += 5
        answers = await asyncio.gather(*(oidc.caller(issuer.token("new", new)) for _ in range(20)))
        assert {caller.role for caller in answers} == {"reader"}
        assert issuer.fetched == 2
        assert await reason_of(oidc, issuer.token("old", old)) is Reason.TOKEN
        for number in range(20):
            assert await reason_of(oidc, issuer.token(f"made up {number}", new)) is Reason.TOKEN
        assert issuer.fetched == 2
        clock.now += 5
        assert await reason_of(oidc, issuer.token("made up", new)) is Reason.TOKEN
        assert issuer.fetched == 3


async def test_old_keys_are_fetched_anew_behind_the_scenes(issuer: Issuer) -> None:
    clock = Clock()
    key = issuer.add("k")
    async with checking(issuer, clock) as oidc:
        await oidc.caller(issuer.token("k", key))
        del issuer.keys["k"]
        clock.now += 601
        await oidc.caller(issuer.token("k", key))
        assert oidc._fetching is not None
        await oidc._fetching
        assert await reason_of(oidc, issuer.token("k", key)) is Reason.UNAVAILABLE  # no key at all is published


async def test_an_issuer_that_is_down(issuer: Issuer) -> None:
    clock = Clock()
    key = issuer.add("k")
    issuer.down = True
    async with checking(issuer, clock, keep_keys=3600) as oidc:
        assert await reason_of(oidc, issuer.token("k", key)) is Reason.UNAVAILABLE
        issuer.down = False
        assert await reason_of(oidc, issuer.token("k", key)) is Reason.UNAVAILABLE  # not asked again so soon
        clock.now += 5
        await oidc.caller(issuer.token("k", key))
        issuer.down = True
        clock.now += 3600
        await oidc.caller(issuer.token("k", key))
        clock.now += 601
        assert await reason_of(oidc, issuer.token("k", key)) is Reason.UNAVAILABLE


async def test_a_discovery_document_of_another_issuer(issuer: Issuer) -> None:
    key = issuer.add("k")
    issuer.told_issuer = "https://login.example.com"
    async with checking(issuer) as oidc:
        assert await reason_of(oidc, issuer.token("k", key)) is Reason.UNAVAILABLE
    async with checking(issuer, jwks_url=f"{issuer.url}/keys") as oidc:
        await oidc.caller(issuer.token("k", key))


async def test_a_token_without_a_key_id(issuer: Issuer) -> None:
    key = issuer.add("k")
    async with checking(issuer) as oidc:
        await oidc.caller(issuer.token(None, key))
    issuer.add("another")
    async with checking(issuer) as oidc:
        assert await reason_of(oidc, issuer.token(None, key)) is Reason.TOKEN
