"""The tables of this folder as cases: placeholders filled in, names checked."""

import gzip
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import brotli
import yaml
import zstandard

__all__ = ["FOLDER", "LIMIT", "PLANTED", "TEXT", "Case", "Reply", "counted", "plain", "replies", "requests"]

FOLDER = Path(__file__).parent
TEXT = "the case"
PLANTED = "ann.lee@example.com"
LIMIT = 2**20
"""Bytes of the largest request that the gateway takes."""

_POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
_HIDDEN = "the hidden one"
_REPEATED = re.compile(rb"<(.)\*(\d+)>")
_NAMED = re.compile(rb"<([A-Za-z0-9-]+)>")
_KEYS = frozenset({"name", "why", "send", "answers", "pure", "passes", "says"})
_REPLY_KEYS = frozenset({"name", "why", "send", "stream", "later", "then", "status", "error", "pure"})


class Case(NamedTuple):
    """A row of the table of requests. ``answers`` by parser."""

    group: str
    name: str
    data: bytes
    answers: Mapping[str, list[int]]
    passes: Mapping[str, str]
    says: str

    @property
    def to_head(self) -> bool:
        """Whether the answer has no body."""
        return self.data.startswith(b"HEAD ")


def _body(text: str, **more: object) -> bytes:
    document = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    return json.dumps(document, separators=(",", ":")).encode()


def plain(text: str, **more: object) -> bytes:
    """A request that nobody could object to; ``more`` is added to its document."""
    body = _body(text, **more)
    return _POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


class Reply(NamedTuple):
    """A row of the table of responses. ``status`` by parser."""

    group: str
    name: str
    data: bytes
    stream: bool
    later: bytes
    then: str
    status: Mapping[str, int]
    errors: Sequence[str]


def _completion(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps({"id": "c-1", "object": "chat.completion", "choices": [choice]}).encode()


def _chunk(delta: Mapping[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: %b\n\n" % json.dumps({"id": "c-1", "object": "chat.completion.chunk", "choices": [choice]}).encode()


@cache
def _answered() -> Mapping[str, bytes]:
    """What stands for the names in angle brackets, of responses."""
    text = f"mail {PLANTED} now"
    body, head = _completion(text), _chunk({"content": text[:-4]})
    packed = gzip.compress(body)
    found = {
        "body": body,
        "events": _chunk({"content": text}) + _chunk({}, "stop") + b"data: [DONE]\n\n",
        "error": json.dumps({"error": {"message": PLANTED, "type": PLANTED, "code": PLANTED}}).encode(),
        "page": f"<html>{PLANTED}</html>".encode(),
        "gzip": packed,
        "gzip-tail": packed + PLANTED.encode(),
        "bomb": gzip.compress(b" " * 2**26, 1),
    }
    lengths = {f"{name}-length": b"%d" % len(data) for name, data in found.items()}
    stray = _completion(f"a stray {PLANTED}")
    ok, sse = (
        b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n" % kind for kind in (b"application/json", b"text/event-stream")
    )
    return (
        found
        | lengths
        | {
            "ok": ok,
            "sse": sse,
            "length": lengths["body-length"],
            "hex": b"%x" % len(body),
            "chunked": b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
            "head": head,
            "head-hex": b"%x" % len(head),
            "stray": ok + b"Content-Length: %d\r\n\r\n%b" % (len(stray), stray),
            "continues": b"HTTP/1.1 100 Continue\r\nX-Request-Id: ann.lee@example.com\r\n\r\n" * 100,
        }
    )


@cache
def _named() -> Mapping[str, bytes]:
    """What stands for the names in angle brackets."""
    body, hidden = _body(TEXT), plain(_HIDDEN)
    packed, bomb = gzip.compress(body), b" " * (LIMIT + 1)
    zstd = zstandard.ZstdCompressor().compress
    found = {
        "body": body,
        "hidden": hidden,
        "quoted": _body("POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n\r\n"),
        "utf-16": body.decode().encode("utf-16"),
        "bom": b"\xef\xbb\xbf" + body,
        "twice": body.replace(b'"model":"m"', b'"model":"other","model":"m"'),
        "two": body + b"\n" + body,
        "gzip": packed,
        "gzip-gzip": gzip.compress(packed),
        "gzip-tail": packed + hidden,
        "gzip-cut": packed[:-8],
        "gzip-sum": packed[:-8] + bytes(8),
        "gzip-bomb": gzip.compress(bomb),
        "gzip-members": gzip.compress(b"") * 2000 + packed,
        "deflate-tail": zlib.compress(body) + hidden,
        "deflate-cut": zlib.compress(body)[:-4],
        "deflate-bomb": zlib.compress(bomb),
        "br-tail": brotli.compress(body) + hidden,
        "br-bomb": brotli.compress(bomb, quality=1),
        "zstd-tail": zstd(body) + hidden,
        "zstd-bomb": zstd(bomb),
    }
    lengths = {f"{name}-length": b"%d" % len(data) for name, data in found.items()}
    return (
        found
        | lengths
        | {
            "post": _POST,
            "length": b"%d" % len(body),
            "hex": b"%x" % len(body),
            "HEX": b"%X" % len(body),
            "chunked": b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
            "bytewise": b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n",
            "fields": b"".join(b"X-%d: a\r\n" % number for number in range(1000)),
            "trailers": b"".join(b"X-%d: a\r\n" % number for number in range(10_000)),
        }
    )


def _filled(text: str, named: Mapping[str, bytes]) -> bytes:
    data = _REPEATED.sub(lambda found: found[1] * int(found[2]), text.encode("latin-1"))
    return _NAMED.sub(lambda found: named[found[1].decode()], data)


def _case(group: str, row: Mapping[str, Any]) -> Case:
    assert {"name", "why", "send", "answers"} <= row.keys() <= _KEYS, row["name"]
    answers = {"compiled": row["answers"], "pure": row.get("pure", row["answers"])}
    return Case(
        group, row["name"], _filled(row["send"], _named()), answers, row.get("passes", {}), row.get("says", TEXT)
    )


def _table(name: str) -> dict[str, list[dict[str, Any]]]:
    table: dict[str, list[dict[str, Any]]] = yaml.safe_load((FOLDER / name).read_text("utf-8"))
    return table


def requests() -> list[Case]:
    """The cases of ``requests.yaml``."""
    return [_case(group, row) for group, rows in _table("requests.yaml").items() for row in rows]


def replies() -> list[Reply]:
    """The cases of ``responses.yaml``."""
    return [_reply(group, row) for group, rows in _table("responses.yaml").items() for row in rows]


def _reply(group: str, row: Mapping[str, Any]) -> Reply:
    assert {"name", "why", "send", "status"} <= row.keys() <= _REPLY_KEYS, row["name"]
    data, later = (_filled(row.get(key, ""), _answered()) for key in ("send", "later"))
    status = {"compiled": row["status"], "pure": row.get("pure", row["status"])}
    errors = row.get("error", [])
    return Reply(
        group,
        row["name"],
        data,
        row.get("stream", False),
        later,
        row.get("then", "close"),
        status,
        [errors] if isinstance(errors, str) else errors,
    )


def counted() -> str:
    """The tables' classes and counts as a table of the documentation."""
    lines = []
    for title in ("requests", "responses"):
        found = {group: len(rows) for group, rows in _table(f"{title}.yaml").items()}
        lines += [f"| {title} | cases |", "|---|---:|"]
        lines += [f"| {group} | {number} |" for group, number in found.items()]
        lines += [f"| all | {sum(found.values())} |", ""]
    return "\n".join(lines)
