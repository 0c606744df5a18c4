"""Secrets: every provider format, generic contexts, PEM blocks, and what only looks like a secret."""

import base64
import json
import random
import re._constants as op  # type: ignore[import-not-found]  # the pattern's own syntax tree tells how to write a value
import re._parser as parser  # type: ignore[import-not-found]  # same
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotguard.detectors.conformance import check_cuts, check_every_cut, find
from cotguard.detectors.contract import Scope
from cotguard.detectors.patterns import PatternDetector
from cotguard.detectors.rule import Rule
from cotguard.detectors.rules import pem, secrets_generic, secrets_providers
from cotguard.detectors.rules.secrets_plausibility import is_placeholder
from cotguard.spans import ChannelKind
from cotguard.taxonomy import GROUPS

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="module")
def detector() -> PatternDetector:
    return PatternDetector((*secrets_providers.RULES, *secrets_generic.RULES))


def written(pattern: str, rng: random.Random) -> str:
    """A shortest word of ``pattern``."""
    return _written(parser.parse(pattern), rng)


def _written(items: Any, rng: random.Random) -> str:
    out = ""
    for kind, argument in items:
        if kind is op.LITERAL:
            out += chr(argument)
        elif kind is op.IN:
            out += rng.choice([c for c in string.printable if any(_contains(member, c) for member in argument)])
        elif kind is op.MAX_REPEAT:
            low, _high, body = argument
            out += "".join(_written(body, rng) for _ in range(low))
        elif kind is op.SUBPATTERN:
            out += _written(argument[-1], rng)
        elif kind is op.BRANCH:
            out += _written(rng.choice(argument[1]), rng)
        else:
            raise AssertionError(kind)
    return out


def _contains(member: tuple[Any, Any], character: str) -> bool:
    kind, argument = member
    if kind is op.RANGE:
        return bool(argument[0] <= ord(character) <= argument[1])
    return kind is op.LITERAL and argument == ord(character)


def named(rules: tuple[Rule, ...]) -> list[Any]:
    return [pytest.param(rule, id=rule.name) for rule in rules]


# --- Providers ---------------------------------------------------------------------------------------------------


def test_there_are_enough_formats_and_each_says_whose_it_is() -> None:
    rules = secrets_providers.RULES
    assert len(rules) >= 200
    assert len({rule.name for rule in rules}) == len(rules)
    assert all(rule.provider and rule.name.startswith(rule.provider) for rule in rules)
    assert {rule.entity for rule in (*rules, *secrets_generic.RULES)} <= set(GROUPS["SECRET"])


@pytest.mark.parametrize("rule", named(secrets_providers.RULES))
@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "The one I was given is {}, I think",
        '{{"value": "{}"}}',
        "client = connect('{}')",
        "use `{}` here",
        "a={}\n",
    ],
)
def test_provider_value_is_found_whole(detector: PatternDetector, rule: Rule, text: str) -> None:
    value = written(rule.value, random.Random(rule.name))
    text = text.format(value)
    start = text.index(value)
    found = [(s.start, s.end, s.entity) for s in find(detector, text) if s.detector == f"patterns/{rule.name}"]
    assert (start, start + len(value), rule.entity) in found


@pytest.mark.parametrize("rule", named(tuple(r for r in secrets_providers.RULES if r.name != "jwt-token")))
def test_near_miss_is_not_the_provider_s(detector: PatternDetector, rule: Rule) -> None:
    value = written(rule.value, random.Random(rule.name))
    near_misses = {"short": value[:-1], "wrong class": value[:-1] + "†", "glued": "x" + value}
    for what, text in near_misses.items():
        start = len(text) - len(value) if what == "glued" else 0
        found = [s for s in find(detector, f"see {text} there") if s.detector == f"patterns/{rule.name}"]
        assert not [s for s in found if s.start == 4 + start], f"{what}: {text}"


def test_masked_value_in_a_provider_s_shape_is_not_reported(detector: PatternDetector) -> None:
    assert not find(detector, "Set it to ghp_" + "x" * 36 + " or AKIAXXXXXXXXXXXXXXXX")


def test_documented_example_key_is_reported(detector: PatternDetector) -> None:
    assert [(s.start, s.end) for s in find(detector, "use AKIAIOSFODNN7EXAMPLE here")] == [(4, 24)]


def jose(value: dict[str, object] | bytes) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_json_web_tokens(detector: PatternDetector, parts: int) -> None:
    header, claims = jose({"alg": "HS256", "typ": "JWT"}), jose({"sub": "4711", "name": "A. N. Other"})
    rest = [jose(random.Random(part).randbytes(24)) for part in range(parts - 2)]
    token = ".".join([header, claims, *rest])
    text = f"I was sent {token}. What now?"
    spans = [(s.start, s.end) for s in find(detector, text)]
    # Two parts may be an unsecured token, to which the dot belongs. The claims may look like a header again.
    assert spans[0][0] == 11
    assert max(end for _, end in spans) == 11 + len(token) + (parts == 2)


def test_a_jose_header_alone_is_no_token(detector: PatternDetector) -> None:
    assert not find(detector, f"It starts with {jose({'alg': 'HS256', 'typ': 'JWT'})}. And then.")


# --- Contexts ----------------------------------------------------------------------------------------------------

HEX = "9f86d081884c7d659a2feaa0c55ad015"
MIXED = "qV7xK2mW9tRb4LcZ"
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

CONTEXTS = [
    # assignments
    ('password = "{}"', "hunter2", "SECRET_PASSWORD"),
    ("password: {}", "Tr0ub4dor&3", "SECRET_PASSWORD"),
    ("DB_PASSWORD={}", "correcthorse", "SECRET_PASSWORD"),
    ("const dbPassword = '{}';", "RootPassHere", "SECRET_PASSWORD"),
    ("$user_pass = '{}'", "SecretPass", "SECRET_PASSWORD"),
    ('{{"passwd": "{}", "user": "bob"}}', "s3cr3t!x", "SECRET_PASSWORD"),
    ("passphrase: '{}'", "correct horse battery staple", "SECRET_PASSWORD"),
    ("<password>{}</password>", "Zx81$kk", "SECRET_PASSWORD"),
    ("**Password:** {}", "Xk9(2!fD", "SECRET_PASSWORD"),
    ("| password | {} |", "Xk92!fDw", "SECRET_PASSWORD"),
    ("contraseña: {}", "gato1984!", "SECRET_PASSWORD"),
    ("pw={}&next=/home", "k1tt3ns", "SECRET_PASSWORD"),
    ("password: str = '{}'", "k1tt3ns", "SECRET_PASSWORD"),
    ('api_key = "{}"', HEX, "SECRET_API_KEY"),
    ("X-Api-Key: {}", MIXED, "SECRET_API_KEY"),
    ("export CLIENT_SECRET={}", MIXED, "SECRET_API_KEY"),
    ("encryption key: {}", HEX, "SECRET_API_KEY"),
    ("MAPS_KEY={}", HEX, "SECRET_API_KEY"),
    ("access_token={}&state=1", MIXED, "SECRET_ACCESS_TOKEN"),
    ('"sessionId": "{}"', MIXED, "SECRET_ACCESS_TOKEN"),
    ("JSESSIONID={}", HEX.upper(), "SECRET_ACCESS_TOKEN"),
    ("setItem('sessionToken', '{}');", MIXED, "SECRET_ACCESS_TOKEN"),
    ("secret: {}", MIXED, "SECRET"),
    # command lines
    (":password       => '{}',", "4ian1234", "SECRET_PASSWORD"),
    ("adobeKey = {}", HEX, "SECRET_API_KEY"),
    ("docparser_token {}", HEX, "SECRET_ACCESS_TOKEN"),
    ('secret_key = "{}"', "/" + MIXED, "SECRET_API_KEY"),
    ("deploy --password {} --force", "h4rdpass", "SECRET_PASSWORD"),
    ("gh auth --token {}", MIXED, "SECRET_ACCESS_TOKEN"),
    ("curl -u bob:{} https://x.example", "pa55w0rd", "SECRET_PASSWORD"),
    ("mysql -u root -p{} shop", "r00tpass", "SECRET_PASSWORD"),
    ("sshpass -p {} ssh root@h", "r00tpass", "SECRET_PASSWORD"),
    # headers
    ("Authorization: Bearer {}", MIXED, "SECRET_ACCESS_TOKEN"),
    ("curl -H 'authorization: token {}'", MIXED, "SECRET_ACCESS_TOKEN"),
    ("Authorization: Bearer {}", "qVxKmWtRbLcZhYpQsNdF", "SECRET_ACCESS_TOKEN"),
    ("password: {}", "pa|ss-9x", "SECRET_PASSWORD"),
    ("send Bearer {} with it", HEX, "SECRET_ACCESS_TOKEN"),
    ("Authorization: Basic {}", base64.b64encode(b"bob:builder7").decode(), "SECRET_PASSWORD"),
    ("Cookie: theme=dark; session_id={}; lang=en", "ab12cd34ef", "SECRET_ACCESS_TOKEN"),
    ("Set-Cookie: sid={}; Path=/; HttpOnly", "ab12cd34ef", "SECRET_ACCESS_TOKEN"),
    # URLs and connection strings
    ("open https://bob:{}@host.example/path", "s3cret", "SECRET_PASSWORD"),
    ("git clone https://bob:{}@git.example/x.git", "p@ss", "SECRET_PASSWORD"),
    ("url: {}", "postgresql://app:pw-4711@db.example:5432/shop?sslmode=require", "SECRET_CONNECTION_STRING"),
    ("use {} for it", "mongodb+srv://u:k1tt3n@cluster0.example.net/db", "SECRET_CONNECTION_STRING"),
    ("the cache is {}", "redis://:k1tt3n@cache:6379/0", "SECRET_CONNECTION_STRING"),
    ("{}", "amqps://svc:a/b+c@mq.example/vhost", "SECRET_CONNECTION_STRING"),
    ("db={}", "jdbc:mysql://h:3306/db?user=app&password=k1tt3n", "SECRET_CONNECTION_STRING"),
    (
        'conn = "{}"',
        "Server=tcp:db.example,1433;Database=shop;User ID=sa;Password=k1tt3n!;",
        "SECRET_CONNECTION_STRING",
    ),
    (
        "{}",
        "DefaultEndpointsProtocol=https;AccountName=acct;AccountKey=" + "qV7xK2mW9tRb4LcZ" * 5 + "==",
        "SECRET_CONNECTION_STRING",
    ),
    ("AccountKey={}", "qV7xK2mW9tRb4LcZ" * 5 + "==", "SECRET_CONNECTION_STRING"),
    ("https://a.blob.example/c?sv=2020&sig={}&se=1", "abcdefghijklmnop%2Fqrstuvwxyz12%3D", "SECRET_ACCESS_TOKEN"),
    # prose
    ("The password is {}", "hunter2", "SECRET_PASSWORD"),
    ("the password for admin is '{}', so", "swordfish", "SECRET_PASSWORD"),
    ("password was changed to {}.", "Gr33nT3a", "SECRET_PASSWORD"),
    ("login bob password {}", "n3trcpw", "SECRET_PASSWORD"),
    ("Your API key is {}.", MIXED, "SECRET_API_KEY"),
    ("the AWS secret access key {} works", AWS_SECRET, "SECRET_API_KEY"),
    ("AKIAIOSFODNN7EXAMPLE / {}", AWS_SECRET, "SECRET_API_KEY"),
    ("PrivateKey = {}", "qV7xK2mW9tRb4LcZqV7xK2mW9tRb4LcZqV7xK2mW9tR=", "SECRET_PRIVATE_KEY"),
    ('{{"kty":"EC","d":"{}"}}', "qV7xK2mW9tRb4LcZqV7xK2mW9tRb4LcZqV7xK2mW9tR", "SECRET_PRIVATE_KEY"),
    # codes
    ("Your code is {}", "493021", "SECRET_OTP"),
    ("OTP: {}", "1234", "SECRET_OTP"),
    ("The verification code for your login is {}.", "8413", "SECRET_OTP"),
    ("one-time password {} expires", "774 201", "SECRET_OTP"),
    ("PIN is {}", "4821", "SECRET_OTP"),
]


@pytest.mark.parametrize(("text", "value", "entity"), CONTEXTS)
def test_secret_is_found_by_its_context(detector: PatternDetector, text: str, value: str, entity: str) -> None:
    text = text.format(value)
    start = text.index(value)
    assert (start, start + len(value), entity) in [(s.start, s.end, s.entity) for s in find(detector, text)]


HARMLESS = [
    "The password is required.",
    "password is incorrect, so the password reset link is sent",
    "Password must be at least 8 characters",
    "password: required",
    'password = "********"',
    "password = getpass.getpass()",
    "password=os.environ['DB_PASSWORD']",
    "login(user=user, password=password)",
    'password: "{{ vault_password }}"',
    "password: ${DB_PASSWORD}",
    "password: <your password>",
    "if (password === confirmPassword) return",
    '"password": "must contain a digit and a symbol"',
    "PASSWORD_MIN_LENGTH = 8",
    "api_key: str",
    "api_key = 'YOUR_API_KEY'",
    'api_key = "your-api-key-here"',
    "api_key=settings.API_KEY",
    "API_KEY=xxxxxxxxxxxxxxxx",
    'secret = os.environ["APP_SECRET"]',
    "token: string;",
    "token = get_token(request)",
    "max_tokens=1024",
    "Authorization: Bearer <token>",
    "Authorization: Bearer YOUR_TOKEN_HERE",
    "the bearer of good news",
    "basic arithmetic is fun",
    "Cookie: theme=dark; lang=en-GB",
    "private_key = /etc/ssl/private/server.key",
    "monkey: 9f86d081884c7d659a2feaa0c55ad015",
    "my favourite cookie: chocolate chip",
    "public_key = 'pk-abcdef1234567890'",
    "primary_key = 'user_id'",
    "https://user:password@host.example/",
    "postgres://user:pass@localhost:5432/db",
    "postgres://user:${PGPASSWORD}@localhost/db",
    "http://localhost:8080/@scope/pkg",
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
    "request 550e8400-e29b-41d4-a716-446655440000 done",
    "sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJl3dIeudNqd0DPMRD6OIh65tjkxFNOtGcWI2yCgJPhM me@host",
    "color: #ff00aa; version 1.12.345",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4",
    "zip code: 90210, error code 500123",
    "the area code is 415",
    "status code: 404",
    "In 1234 we had 5678 apples.",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_is_left_alone(detector: PatternDetector, text: str) -> None:
    assert [text[s.start : s.end] for s in find(detector, text)] == []


@pytest.mark.parametrize(
    "text",
    ["YOUR_API_KEY", "<token>", "xxxx", "****", "${VAR}", "$TOKEN", "{{token}}", "%TOKEN%", "none", "my-secret-token"],
)
def test_placeholders(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize(
    "text", ["hunter2", "$2uperSecret", "abab", "@dm1n", "AKIAIOSFODNN7EXAMPLE", "yourself99", "<3mypuppy"]
)
def test_secrets_are_no_placeholders(text: str) -> None:
    assert not is_placeholder(text)


@pytest.mark.parametrize("unit", ["a", "aA", "a_", "A_", "a.", "a1", "my-", "a::", "a/", "x("])
def test_judging_a_long_value_takes_linear_time(detector: PatternDetector, unit: str) -> None:
    # With a backtracking engine any of these takes longer than the universe has.
    find(detector, f'password = "{unit * 3000}!" and token: {unit * 3000}!')


def test_long_value_is_found_to_its_end(detector: PatternDetector) -> None:
    value = "".join(random.Random(3).choices(string.ascii_letters + string.digits, k=3000))
    text = f'{{"api_key": "{value}"}}'
    assert (13, 3013) in [(s.start, s.end) for s in find(detector, text)]


# --- PEM ---------------------------------------------------------------------------------------------------------

PEM = pem.PrivateKeyDetector()


def block(label: str, body: str = "MIIEpAIBAAKC\nAQEA+/==", dashes: str = "-----") -> str:
    return f"{dashes}BEGIN {label}{dashes[::-1]}\n{body}\n{dashes}END {label}{dashes[::-1]}"


@pytest.mark.parametrize(
    ("label", "dashes"),
    [
        ("PRIVATE KEY", "-----"),
        ("RSA PRIVATE KEY", "-----"),
        ("EC PRIVATE KEY", "-----"),
        ("ENCRYPTED PRIVATE KEY", "-----"),
        ("OPENSSH PRIVATE KEY", "-----"),
        ("PGP PRIVATE KEY BLOCK", "-----"),
        ("SSH2 ENCRYPTED PRIVATE KEY", "---- "),
    ],
)
@pytest.mark.parametrize("around", ["it is - {} - ok", '{{"private_key": "{}\\n"}}', "---{}---"])
def test_private_key_block_at_every_cut(label: str, dashes: str, around: str) -> None:
    key = block(label, dashes=dashes)
    if "\\n" in around:
        key = key.replace("\n", "\\n")
    text = around.format(key)
    start = text.index(key)
    assert [(s.start, s.end, s.entity) for s in find(PEM, text)] == [(start, start + len(key), "SECRET_PRIVATE_KEY")]
    check_every_cut(PEM, text)


@pytest.mark.parametrize("label", ["CERTIFICATE", "PUBLIC KEY", "PGP PUBLIC KEY BLOCK", "CERTIFICATE REQUEST"])
def test_public_blocks_are_left_alone(label: str) -> None:
    text = f"see {block(label)} and -----BEGIN -----"
    assert find(PEM, text) == []
    check_every_cut(PEM, text)


def test_unfinished_block_reaches_to_the_end() -> None:
    text = "key: " + block("RSA PRIVATE KEY")[:60] + "\n> MIIE\n> AAAA"
    assert [(s.start, s.end) for s in find(PEM, text)] == [(5, len(text))]
    check_every_cut(PEM, text)


def test_two_blocks_and_the_text_between() -> None:
    first, second = block("RSA PRIVATE KEY"), block("PRIVATE KEY")
    text = f"{first} and {second}."
    assert [text[s.start : s.end] for s in find(PEM, text)] == [first, second]
    check_every_cut(PEM, text)


def test_long_block_is_reported_in_bounded_pieces() -> None:
    key = block("RSA PRIVATE KEY", "Ab0+" * 6000)
    text = f"{key} done"
    spans = find(PEM, text)
    assert [s.start for s in spans] == list(range(0, len(key), pem.PIECE_CHARS))
    assert spans[-1].end == len(key)
    rng = random.Random(7)
    for _ in range(20):
        check_cuts(PEM, text, rng.sample(range(len(text)), 30))


def test_block_that_never_ends_is_held_and_kept_within_bounds() -> None:
    session = PEM.open(Scope(ChannelKind.OUTPUT))
    assert session is not None
    received = 0
    for text in ["-----BEGIN PRIVATE KEY-----", *["QUJD\n" * 10] * 2000]:
        received += len(text)
        _, stable = session.advance(text, final=False)
        assert received - stable <= pem.PIECE_CHARS + len(text)
    assert len(session._window) < 1000  # type: ignore[attr-defined]


def test_block_begun_in_the_channel_before() -> None:
    key = block("PRIVATE KEY")
    scope = Scope(ChannelKind.OUTPUT, context="So: " + key[:20])
    rest = key[20:] + " ok"
    assert [(s.start, s.end) for s in find(PEM, rest, scope)] == [(-20, len(key) - 20)]
    check_cuts(PEM, rest, [3, 9, 30], scope)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from([*"- \n", "-----", "BEGIN ", "END ", "RSA ", "PRIVATE KEY", "A", "\\n", "\u200b"]), max_size=30
    ),
    st.data(),
)
def test_pem_is_chunk_invariant(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    check_cuts(PEM, text, data.draw(st.lists(st.integers(0, len(text)), max_size=8)))


# --- The contract, and benign text -------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(0, len(CONTEXTS), 3))
def test_contexts_at_every_cut(detector: PatternDetector, index: int) -> None:
    text, value, _ = CONTEXTS[index]
    check_every_cut(detector, text.format(value) + " and so on")


PIECES = [
    *("password", "token", "api_key", "Cookie", "the ", " is ", ": ", "=", '"', "'", "\n", " ", "&", ";", "code "),
    *("hunter2", "493021", "ghp_", "A1b2C3d4E5f6G7h8I9j0", "eyJhbGciOiJIUzI1NiJ9", ".", "://u:", "@h", "postgres"),
    *("Bearer ", "sk-", "AKIAIOSFODNN7EXAMPLE", "Server=x;", "Pwd=y9!k;", "\\n", "\u200b", "<", "ё"),
]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=16), st.data())
def test_secrets_are_chunk_invariant(detector: PatternDetector, parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    check_cuts(detector, text, data.draw(st.lists(st.integers(0, len(text)), max_size=6)))


def benign(name: str, count: int) -> str:
    path = SHARED / "data" / "train" / "reasoning" / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with path.open() as lines:
        records = [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]
    return "\n".join(value for record in records for value in record.values() if isinstance(value, str))


@pytest.mark.parametrize("name", ["gsm8k_train.jsonl", "star1.jsonl"])
def test_reasoning_is_left_alone_and_hardly_held(detector: PatternDetector, name: str) -> None:
    text = benign(name, 400)
    assert sum(s.end - s.start for s in find(detector, text)) <= len(text) / 10_000
    session = detector.open(Scope(ChannelKind.REASONING))
    assert session is not None
    received, held = 0, []
    for word in text[:100_000].split(" "):
        received += len(word) + 1
        _, stable = session.advance(f" {word}", final=False)
        held.append(received - stable)
    held.sort()
    assert held[len(held) // 2] == 0, "a word must not be a possible start at the median"
    assert held[len(held) * 99 // 100] <= 40
