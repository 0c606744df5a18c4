"""Callers that are known by the certificate that they connected with, and their roles.

A certificate's names are spelled as in the callers file: ``uri:``, ``dns:`` or ``email:`` before its alternative names,
``cn:`` before its common name. That an authority of the operator's signed them was checked as the connection was made.
"""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from cotguard.callers.caller import Caller, Scope

__all__ = ["KINDS", "Certificates", "PeerCertificate"]

PeerCertificate = Mapping[str, Any]
"""As :meth:`ssl.SSLSocket.getpeercert` tells it; empty for one that was not checked."""

KINDS = ("uri", "dns", "email", "cn")

_ALTERNATIVES: Mapping[str, str] = {"URI": "uri", "DNS": "dns", "email": "email"}
_MAX_NAME = 2048


class Certificates:
    """``roles``: the callers file's section, whose first match counts. ``scopes`` are by role."""

    def __init__(self, roles: Mapping[str, str], scopes: Mapping[str, Scope]) -> None:
        self._roles = roles
        self._scopes = scopes

    def caller(self, certificate: PeerCertificate) -> Caller | None:
        """Whose certificate it is, if any of its names has a role."""
        names = list(_names(certificate))
        for glob, role in self._roles.items():
            for name in names:
                if fnmatchcase(name, glob):
                    return Caller(f"certificate:{name}", self._scopes[role], role)
        return None


def _names(certificate: PeerCertificate) -> Iterator[str]:
    for kind, value in certificate.get("subjectAltName", ()):
        if kind in _ALTERNATIVES and _is_name(value):
            yield f"{_ALTERNATIVES[kind]}:{value.lower() if kind == 'DNS' else value}"
    for part in certificate.get("subject", ()):
        for attribute, value in part:
            if attribute == "commonName" and _is_name(value):
                yield f"cn:{value}"


def _is_name(value: str) -> bool:
    return len(value) <= _MAX_NAME and value.isprintable()
