"""Network addresses: IPv4, IPv6, MAC.

Each value takes in what would make it something else (a fifth group of an OID, a seventh pair of a fingerprint), so
that the check can refuse it. Addresses that name nobody are not reported: unspecified, loopback, broadcast, IPv4
masks. Private and documentation ranges are: they say how a network is built.

Limits: four numbers after "version", "v", "section" and the like, or after ``Name/``, are taken for a version. A short
compressed IPv6 address of which every group could be a word (``a::b``) is taken for code.
"""

import ipaddress
import re
from collections.abc import Iterator

from cotguard.detectors.rule import Candidate, Found, Rule

__all__ = ["RULES"]

_VERSION = re.compile(
    r"(?:(?<![a-z])(?:v|ver|version|release|firmware|build|section|chapter|clause|oid|revision|rev)[\s.:=\"'(]*|[a-z]/"
    r"|[a-z][.-]|[0-9]\.|[<>~^]=?\s?)\Z",
    re.IGNORECASE,
)
_DIGIT = re.compile(r"[0-9]")
_SEPARATORS = re.compile(r"[:.-]")


def _ipv4(candidate: Candidate) -> Iterator[Found]:
    address, _, prefix = candidate.text.partition("/")
    groups = [int(group) for group in address.split(".")]
    names_nobody = groups[0] in (0, 127, 255) or groups == [255] * 4
    if len(groups) == 4 and max(groups) <= 255 and not names_nobody and not _VERSION.search(candidate.before[-24:]):
        whole = len(candidate.text) if prefix and int(prefix) <= 32 else len(address)
        yield Found(0, whole, "IP_ADDRESS", 0.9)


def _ipv6(candidate: Candidate) -> Iterator[Found]:
    address = candidate.text.partition("%")[0]
    if address.endswith(":") and not address.endswith("::"):
        address = address[:-1]  # "2001:db8::1: the server"
        end = len(address)
    else:
        end = len(candidate.text)
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return
    groups = [group for group in address.split(":") if group]
    is_code = "::" in address and not (_DIGIT.search(address) and (len(groups) > 2 or len(groups[0]) == 4))
    if not parsed.is_unspecified and not parsed.is_loopback and not is_code:
        yield Found(0, end, "IP_ADDRESS", 0.9)


def _mac(candidate: Candidate) -> Iterator[Found]:
    pairs = _SEPARATORS.sub("", candidate.text).lower()
    if len(pairs) == 12 and pairs not in ("0" * 12, "f" * 12) and candidate.before[-1:] not in (":", "-"):
        yield Found(0, len(candidate.text), "MAC_ADDRESS", 0.9)


_HEX_PAIR = "[0-9A-Fa-f]{2}"

RULES: tuple[Rule, ...] = (
    Rule(
        name="ipv4",
        entity="IP_ADDRESS",
        value=r"[0-9]{1,3}(?:\.[0-9]{1,3}){3,7}(?:/[0-9]{1,2})?",
        check=_ipv4,
    ),
    Rule(
        name="ipv6",
        entity="IP_ADDRESS",
        value=r"(?:[0-9A-Fa-f]{1,4})?:(?:[0-9A-Fa-f]{0,4}:){1,7}(?:[0-9A-Fa-f]{1,4}|[0-9]{1,3}(?:\.[0-9]{1,3}){3})?"
        r"(?:%[0-9A-Za-z]{1,15})?",
        before=r"[^0-9A-Za-z_:\xaa]",
        after=r"[^0-9A-Za-z_:\xaa]",
        check=_ipv6,
    ),
    Rule(
        name="mac-address",
        entity="MAC_ADDRESS",
        value=rf"{_HEX_PAIR}(?::{_HEX_PAIR}){{5,7}}|{_HEX_PAIR}(?:-{_HEX_PAIR}){{5,7}}|[0-9A-Fa-f]{{4}}(?:\.[0-9A-Fa-f]{{4}}){{2}}",
        after=r"[^0-9A-Za-z_:\xaa]",
        check=_mac,
    ),
)
