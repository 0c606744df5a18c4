"""Header allow-lists, both ways. What is not named here does not pass."""

import re
from collections.abc import Mapping

from cotguard.callers.credentials import CREDENTIALS

__all__ = ["lower", "request_headers", "response_headers"]

_REQUEST = frozenset(
    {
        *CREDENTIALS,
        "openai-organization",
        "openai-project",
        "openai-beta",
        "anthropic-version",
        "anthropic-beta",
        "x-goog-api-client",
        "x-goog-user-project",
        "user-agent",
        "x-request-id",
        "idempotency-key",
        "traceparent",
        "tracestate",
        "x-amzn-bedrock-guardrailidentifier",
        "x-amzn-bedrock-guardrailversion",
        "x-amzn-bedrock-performanceconfig-latency",
        "x-amzn-bedrock-service-tier",
        "x-amzn-bedrock-projectidentifier",
    }
)
_RESPONSE = frozenset(
    {
        "x-request-id",
        "request-id",
        "openai-processing-ms",
        "openai-version",
        "retry-after",
        "retry-after-ms",
        "x-amzn-requestid",
        "x-amzn-bedrock-content-type",
        "x-amzn-bedrock-input-token-count",
        "x-amzn-bedrock-output-token-count",
        "x-amzn-bedrock-invocation-latency",
    }
)
_RATE_LIMIT = re.compile(r"(x|anthropic)-ratelimit-[a-z-]{1,40}\Z")
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/=+-]{0,127}")
"""Identifiers, numbers, durations, times: no text, no address."""
_DATE = re.compile(r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")
_PRINTABLE = re.compile(r"[\x20-\x7e]*")


def request_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers for the upstream: the allowed ones of the client's, printable, each once and in lower case, and ours."""
    passed = {
        lower: value
        for name, value in headers.items()
        if (lower := name.lower()) in _REQUEST and _PRINTABLE.fullmatch(value)
    }
    return passed | {"Content-Type": "application/json", "Accept-Encoding": "identity"}


def response_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers for the client: the allowed ones of the upstream's, where they have the form of one that says no more."""
    return {
        name: value
        for name, value in headers.items()
        if (name.lower() in _RESPONSE or _RATE_LIMIT.match(name.lower()))
        and (_VALUE.fullmatch(value) or _DATE.fullmatch(value))
    }


def lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Each header once, the last of those that come twice, with its name in lower case."""
    return {name.lower(): value for name, value in headers.items()}
