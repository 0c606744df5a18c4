"""Where a credential stands in a request, the client's and ours."""

import hashlib
from collections.abc import Iterator, Mapping

__all__ = ["CREDENTIALS", "PARAMETER", "credentials_of", "fingerprint", "injected", "is_token", "without_credentials"]

CREDENTIALS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
"""Where the SDKs of the dialects send an API key."""

PARAMETER = "key"
"""The parameter of a URL that stands for ``x-goog-api-key``."""

_ACCOUNT_HEADERS = (
    "openai-organization",
    "openai-project",
    "x-goog-user-project",
    "x-amzn-bedrock-projectidentifier",
)
"""They choose an account of the upstream's, which is the credential's owner's choice."""

_BEARER = "bearer "
_SIGNATURE = "aws4-hmac-sha256 "
_OWN_HEADERS: Mapping[str, str] = {
    "anthropic": "x-api-key",
    "gemini": "x-goog-api-key",
    "interactions": "x-goog-api-key",
}


def credentials_of(headers: Mapping[str, str]) -> Iterator[str]:
    """What the client sent in places of credentials; of ``Authorization`` only a bearer token."""
    for name in CREDENTIALS:
        value = headers.get(name, "").strip()
        if name == "authorization":
            value = value[len(_BEARER) :].strip() if value.lower().startswith(_BEARER) else ""
        if value:
            yield value


def fingerprint(headers: Mapping[str, str]) -> str:
    """A hash of the credentials that will go upstream, the same in all replicas; empty where there are none.

    A signature is none: it is another one for every request, and is not checked here. The hash has no key, so it is
    for comparison only, and for no log.
    """
    found = [(name, headers[name].strip()) for name in CREDENTIALS if headers.get(name, "").strip()]
    found = [(name, value) for name, value in found if not value.lower().startswith(_SIGNATURE)]
    if not found:
        return ""
    told = "\0".join(f"{name}:{value}" for name, value in found)
    return hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()


def without_credentials(headers: Mapping[str, str]) -> dict[str, str]:
    """``headers``, whose names are in lower case, without the client's credentials and its choice of an account."""
    return {name: value for name, value in headers.items() if name not in CREDENTIALS + _ACCOUNT_HEADERS}


def injected(dialect: str, key: str, header: str = "") -> dict[str, str]:
    """The upstream's credential, in ``header``, or else where clients of the dialect send it."""
    name = header.lower() or _OWN_HEADERS.get(dialect, "authorization")
    return {name: f"Bearer {key}" if name == "authorization" else key}


def is_token(credential: str) -> bool:
    """Whether ``credential`` has the form of a JSON Web Token."""
    return credential.count(".") == 2
