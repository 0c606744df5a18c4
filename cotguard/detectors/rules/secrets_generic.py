"""Secrets known by the syntax around them: headers, cookies, URLs, connection strings, key documents, codes.

The context is not part of the secret; a check then reads what stands there. Includes the rules for named secrets
(:mod:`cotguard.detectors.rules.secrets_assignments`).

Scores: 0.9 where the syntax leaves no doubt, 0.8 where a name has to, 0.6 for a bare ``code``.

Sources: RFC 3986 section 3.2.1 (userinfo), RFC 6265 (cookies), RFC 6750 (bearer), RFC 7617 (basic), RFC 7517 (JWK).

Known limits: ``user:password@`` with these very words is taken for documentation; a one-time code needs a word for it
before the digits.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable

from cotguard.detectors.rule import ANY, Candidate, Found, Rule
from cotguard.detectors.rules import secrets_assignments
from cotguard.detectors.rules.secrets_plausibility import entropy, is_placeholder, is_random, mixes_classes

__all__ = ["RULES"]

_CLOSING = ".,;:)]}>*\\"

# --- Headers -----------------------------------------------------------------------------------------------------

_CREDENTIAL = r"[0-9A-Za-z._~+/=:-]{6,}"


def _bearer(least: int, score: float) -> Callable[[Candidate], Iterable[Found]]:
    def check(candidate: Candidate) -> Iterable[Found]:
        text = candidate.text.rstrip(".:")
        if len(text) < least or is_placeholder(text):
            return ()
        if not (any(character.isdigit() for character in text) or is_random(text, least=20, bits=3.0)):
            return ()
        return (Found(0, len(text), "SECRET_ACCESS_TOKEN", score),)

    return check


def _basic(candidate: Candidate) -> Iterable[Found]:
    """RFC 7617: base64 of ``user:password``."""
    text = candidate.text
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ()
    if ":" not in decoded or not decoded.isprintable():
        return ()
    return (Found(0, len(text), "SECRET_PASSWORD", 0.9),)


_SESSION_NAME = re.compile(r"sess|sid$|token|auth|jwt|login|remember|csrf|xsrf|secret|key|credential", re.IGNORECASE)
_ATTRIBUTES = frozenset(("path", "domain", "expires", "max-age", "samesite", "priority", "version", "comment"))
_PAIR = re.compile(r"([\w.-]{1,60})=([^\s;,\"']*)")


def _cookies(candidate: Candidate) -> Iterable[Found]:
    """RFC 6265: the values of cookies that are named like a session or look random."""
    for pair in _PAIR.finditer(candidate.text):
        name, value = pair[1], pair[2]
        if name.lower() in _ATTRIBUTES or len(value) < 6 or is_placeholder(value):
            continue
        named = _SESSION_NAME.search(name) is not None
        if named or (len(value) >= 16 and mixes_classes(value) and entropy(value) >= 3):
            yield Found(pair.start(2), pair.end(2), "SECRET_ACCESS_TOKEN", 0.9 if named else 0.6)


_HEADERS = (
    Rule(
        name="authorization",
        entity="SECRET_ACCESS_TOKEN",
        value=_CREDENTIAL,
        context=(
            r"auth(?:orization)?[\"']?\s{0,2}[:=,]\s{0,2}[\"']?"
            r"(?:bearer|token|apikey|api-key|negotiate|ssws|key|splunk|bot|genie ?key)\s{1,2}"
        ),
        before=ANY,
        ignore_case=True,
        check=_bearer(6, 0.9),
    ),
    Rule(
        name="bearer",
        entity="SECRET_ACCESS_TOKEN",
        value=_CREDENTIAL,
        context=r"bearer\s{1,2}",
        ignore_case=True,
        check=_bearer(16, 0.8),
    ),
    Rule(
        name="basic",
        entity="SECRET_PASSWORD",
        value=r"[0-9A-Za-z+/]{6,}={0,2}",
        context=r"basic\s{1,2}",
        ignore_case=True,
        check=_basic,
    ),
    Rule(
        name="cookies",
        entity="SECRET_ACCESS_TOKEN",
        value=r"[0-9A-Za-z_.-]{1,}=[^\s;,\"']*(?:; ?[0-9A-Za-z_.-]{1,}(?:=[^;\"'\n]*)?)*",
        context=r"cookie[\"']?\s?[:=]\s?[\"']?",
        before=ANY,
        after=ANY,
        ignore_case=True,
        check=_cookies,
    ),
)


# --- URLs and connection strings ---------------------------------------------------------------------------------

_SCHEMES = (
    r"(?:postgres(?:ql)?|postgis|mysql|mysqlx|mariadb|mongodb|redis|rediss|valkey|amqps?|mssql|sqlserver|oracle"
    r"|cockroachdb|clickhouse|cassandra|kafka|nats|mqtts?|ldaps?|smtps?|imaps?|snowflake|cloudinary|neo4j|bolt"
    r"|couchdb|elasticsearch|influxdb|memcached|trino|presto|hive|db2|libsql|vertica|redshift|bigquery|sentinel)"
)
_STAND_INS = frozenset(("password", "passwd", "pass", "pwd", "pw", "secret", "token", "x", "xxx", "user", "username"))


def _names_only(password: str) -> bool:
    return not password or password.lower() in _STAND_INS or is_placeholder(password) or "{" in password


def _userinfo(candidate: Candidate) -> Iterable[Found]:
    """The password of ``scheme://user:password@host``."""
    password = candidate.text.rpartition("@")[0]
    if not _names_only(password):
        yield Found(0, len(password), "SECRET_PASSWORD", 0.9)


def _connection_url(candidate: Candidate) -> Iterable[Found]:
    text = candidate.text.rstrip(_CLOSING)
    userinfo = text.partition("://")[2].rpartition("@")[0]
    if not _names_only(userinfo.partition(":")[2]):
        yield Found(0, len(text), "SECRET_CONNECTION_STRING", 0.9)


_ASSIGNED_SECRET = re.compile(
    r"(?:password|pwd|accountkey|sharedaccesskey|sharedsecretvalue|sharedaccesssignature|secret)\s?=\s?([^;&]*)",
    re.IGNORECASE,
)


def _connection_pairs(candidate: Candidate) -> Iterable[Found]:
    text = candidate.text.rstrip(".,)]}>")
    assigned = _ASSIGNED_SECRET.search(text)
    if assigned and not _names_only(assigned[1].strip()):
        yield Found(0, len(text), "SECRET_CONNECTION_STRING", 0.9)


_CONNECTIONS = (
    Rule(
        name="url-password",
        entity="SECRET_PASSWORD",
        value=r"[^\s\"'<>`/]{1,}@",
        context=r"[0-9A-Za-z]://[^\s\"'<>`/:@]{0,64}:",
        before=ANY,
        after=ANY,
        check=_userinfo,
    ),
    Rule(
        name="connection-url",
        entity="SECRET_CONNECTION_STRING",
        value=_SCHEMES + r"(?:\+[0-9a-z]{1,12})?://[^\s\"'<>`@/:]*:[^\s\"'<>`]{1,}@[^\s\"'<>`]{1,}",
        after=r"[\s\"'<>`]",
        check=_connection_url,
    ),
    Rule(
        name="jdbc-url",
        entity="SECRET_CONNECTION_STRING",
        value=r"jdbc:[0-9a-z:]{2,30}[^\s\"'<>`]{1,}(?:[Pp]assword|pwd)=[^\s\"'<>`]{1,}",
        after=r"[\s\"'<>`]",
        check=_connection_pairs,
    ),
    Rule(
        name="connection-pairs",
        entity="SECRET_CONNECTION_STRING",
        value=(
            r"(?:server|data source|defaultendpointsprotocol|accountname|endpoint|hostname|host|driver|user id|uid)"
            r" ?=[^;\n\"'<>]{1,};(?: ?[a-z ]{2,30}=[^;\n\"'<>]*;)*"
            r" ?(?:password|pwd|accountkey|sharedaccesskey|sharedsecretvalue|sharedaccesssignature|secret) ?="
            r"[^;\s\"'<>]{1,}(?:; ?[a-z ]{2,30}=[^;\s\"'<>]{1,})*;?"
        ),
        after=r"[\s\"'<>;]",
        ignore_case=True,
        check=_connection_pairs,
    ),
    Rule(
        name="account-key",
        entity="SECRET_CONNECTION_STRING",
        value=r"[0-9A-Za-z+/]{20,}={0,2}",
        context=r"(?:accountkey|sharedaccesskey|sharedsecretvalue)[\"']?\s?[:=]\s?[\"']?",
        before=ANY,
        ignore_case=True,
        provider="azure",
    ),
    Rule(
        name="url-signature",
        entity="SECRET_ACCESS_TOKEN",
        value=r"[0-9A-Za-z%+/_-]{20,}={0,2}",
        context=r"[?&;](?:sig|signature|x-amz-signature|x-amz-security-token|x-goog-signature)=",
        before=ANY,
        ignore_case=True,
    ),
)


# --- Keys in context and codes -----------------------------------------------------------------------------------

_CODE_WORDS_BEFORE = re.compile(
    r"(?:zip|postal|post|area|error|status|exit|country|product|dress|bar|qr|promo|color|colour|hex|source|sort|return"
    r"|discount|coupon|item|dial|dialing|city|state|airport|response|http|key|morse|binary)\s?$",
    re.IGNORECASE,
)


def _code(candidate: Candidate) -> Iterable[Found]:
    """A one-time code; a bare ``code`` is believed with six digits and no other word for a kind of code before it."""
    digits = sum(character.isdigit() for character in candidate.text)
    named = re.search(r"code\W{1,3}(?:(?:is|was)\W{1,3})?\W{0,3}$", candidate.before, re.IGNORECASE)
    bare = named is not None and not re.search(
        r"(?:otp|pass|verification|security|auth(?:entication|orization)?|confirmation|login|access|2fa|mfa|sms"
        r"|one[- ]time|backup|recovery|pin|tan)[ -]?$",
        candidate.before[: named.start()],
        re.IGNORECASE,
    )
    if bare and (digits != 6 or (named and _CODE_WORDS_BEFORE.search(candidate.before[: named.start()]))):
        return ()
    return (Found(0, len(candidate.text), "SECRET_OTP", 0.6 if bare else 0.8),)


_IN_CONTEXT = (
    Rule(
        name="aws-secret-access-key",
        entity="SECRET_API_KEY",
        value=r"[0-9A-Za-z/+]{40,}",
        context=(
            r"(?:secret[ _-]?access[ _-]?key|aws[ _-]?secret(?:[ _-]?key)?|(?:AKIA|ASIA)[0-9A-Z]{16})"
            r"[\"'`*]{0,2}\s{0,3}(?:is|=>|[:=,;/|])?\s{0,3}[\"'`*]{0,2}"
        ),
        after=r"[^0-9A-Za-z/+]",
        ignore_case=True,
        provider="aws",
    ),
    Rule(
        name="jwk-private",
        entity="SECRET_PRIVATE_KEY",
        value=r"[0-9A-Za-z_-]{40,}",
        context=r"[\"'](?:d|p|q|dp|dq|qi|k)[\"'] ?: ?[\"']",
        before=ANY,
    ),
    Rule(
        name="wireguard-key",
        entity="SECRET_PRIVATE_KEY",
        value=r"[0-9A-Za-z+/]{43}=",
        context=r"(?:Private|Preshared)Key {0,2}= {0,2}",
        provider="wireguard",
    ),
    Rule(
        name="one-time-code",
        entity="SECRET_OTP",
        value=r"(?:[0-9]{3}[ -][0-9]{3,4}|[0-9]{4,8})",
        context=(
            r"(?:otp|totp|one[- ]time (?:code|password|passcode|pin)|passcode|pin(?: code)?|mtan"
            r"|(?:2fa|mfa|sms|[a-z]{4,14})[ -]code|code)(?: (?:for|to|from) [^\s.,:;]{1,24}(?: [^\s.,:;]{1,24}){0,2})?"
            r"(?: (?:is|was)| ?[:=#]| -)?:? {0,2}[\"'`*]{0,3}(?:g-)?"
        ),
        after=r"[^0-9A-Za-z_%]",
        ignore_case=True,
        check=_code,
    ),
)

RULES: tuple[Rule, ...] = (*secrets_assignments.RULES, *_HEADERS, *_CONNECTIONS, *_IN_CONTEXT)
