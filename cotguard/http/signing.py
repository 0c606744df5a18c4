"""Requests that carry an AWS signature (Signature Version 4): whose signature goes upstream.

A signature covers the host, the path, some headers and the body. A client that talks to the proxy has signed the
proxy's host, and the body that goes upstream is written anew; so its signature is not valid there.

1. A request with a bearer token (an API key of Amazon Bedrock) is not signed: the token goes upstream as it came.
2. A request in which nothing changes that its signature covers keeps it: same host, path and body, and all signed
   headers among those that go upstream. That is so for a client that reaches the proxy under the upstream's own name
   and writes JSON exactly as the proxy does; others are rare.
3. Any other request is signed here, with the proxy's own credentials. The client's signature never goes with it.
4. Without credentials of its own the proxy refuses it and says what to do.

The credentials are found as AWS's own tools find them (environment, files, roles), on the first request that needs
them, and renewed where they expire. If there are none, there are none until a restart. The region is the upstream's
host's, or ``AWS_REGION``'s. botocore does the work: the extra ``bedrock``.

Anyone who can reach the proxy uses its credentials: it does not check who signed a request.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from yarl import URL

from cotguard.dialects.contract import ErrorKind, Refused

__all__ = ["Signer", "Unsigned"]

_REGION = re.compile(r"\bbedrock-runtime(?:-fips)?\.([a-z]{2}(?:-[a-z]+)+-[0-9])\.")
_SIGNED = re.compile(r"AWS4-HMAC-SHA256 .*\bSignedHeaders=([a-z0-9;-]+)")
_CLIENTS_OWN = frozenset({"authorization", "api-key", "x-api-key"})
_OF_SIGNATURES = ("authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256")
_NO_BOTOCORE = (
    "Requests to this upstream are signed by this gateway, which lacks botocore: install cotguard[bedrock]. "
    "Or use an API key of Amazon Bedrock (AWS_BEARER_TOKEN_BEDROCK) in the client."
)
_NO_CREDENTIALS = (
    "The client's AWS signature is not valid upstream, since it covers the host and the body, and this gateway has no "
    "AWS credentials of its own. Give it some (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role), "
    "or use an API key of Amazon Bedrock (AWS_BEARER_TOKEN_BEDROCK) in the client."
)
_NOT_RENEWED = "This gateway cannot get its AWS credentials now."
_NO_REGION = "This gateway cannot tell the AWS region of its upstream: set AWS_REGION where it runs."


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A request on its way upstream. ``same_body``: it is, byte for byte, what the client sent."""

    service: str
    method: str
    url: URL
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    same_body: bool


class Signer:
    """See the module. ``headers_of`` blocks: it may ask other machines for credentials."""

    def __init__(self) -> None:
        self._credentials: Any = None  # what botocore found
        self._sought = False

    def headers_of(self, request: Unsigned, client: Mapping[str, str], client_path: str) -> dict[str, str]:
        """The headers that go upstream. ``client``: the client's own. Raises :class:`Refused`."""
        authorization = client.get("authorization", "")
        if authorization.lower().startswith("bearer "):
            return request.headers
        if _keeps(request, client, client_path):
            kept = {name: client[name] for name in _OF_SIGNATURES if name in client}
            return {**request.headers, **kept}
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _CLIENTS_OWN}
        return headers | self._sign(request, headers)

    def _sign(self, request: Unsigned, headers: Mapping[str, str]) -> dict[str, str]:
        try:
            from botocore.auth import SigV4Auth  # type: ignore[import-untyped]  # it ships no types, as those below
            from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
        except ImportError:
            raise _refused(_NO_BOTOCORE) from None
        credentials = self._found()
        signed = AWSRequest(
            method=request.method,
            url=str(request.url),
            data=request.body,
            headers={name: value for name, value in headers.items() if _is_covered(name)},
        )
        SigV4Auth(credentials, request.service, _region(request.url)).add_auth(signed)
        return dict(signed.headers.items())

    def _found(self) -> Any:
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
        from botocore.session import get_session  # type: ignore[import-untyped]

        try:
            if not self._sought:
                self._credentials = get_session().get_credentials()
                self._sought = True
            frozen = self._credentials and self._credentials.get_frozen_credentials()
        except BotoCoreError:
            raise Refused(503, ErrorKind.OVERLOADED, _NOT_RENEWED) from None
        if frozen is None:
            raise _refused(_NO_CREDENTIALS)
        return frozen


def _refused(message: str) -> Refused:
    return Refused(400, ErrorKind.UNSUPPORTED, message)


def _is_covered(name: str) -> bool:
    """Whether our signature covers a header: those that nothing on the way has reason to touch."""
    return name.lower() == "content-type" or name.lower().startswith("x-amzn-bedrock-")


def _region(url: URL) -> str:
    found = _REGION.search(url.host or "")
    region = found[1] if found else os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise _refused(_NO_REGION)
    return region


def _keeps(request: Unsigned, client: Mapping[str, str], client_path: str) -> bool:
    """Whether the client's signature is valid upstream as well."""
    signed = _SIGNED.match(client.get("authorization", ""))
    if signed is None or not request.same_body:
        return False
    host = request.url.raw_authority
    if client.get("host") != host or client_path != request.url.raw_path_qs:
        return False
    sent = {name.lower(): value for name, value in request.headers.items()} | {"host": host}
    return all(
        name in _OF_SIGNATURES or (name in sent and sent[name] == client.get(name)) for name in signed[1].split(";")
    )
