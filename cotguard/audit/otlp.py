"""A copy of the trail as OpenTelemetry logs: OTLP over HTTP, in its JSON encoding.

A record is acknowledged when the collector has answered that it took it. OpenTelemetry's own exporter drops what it
cannot deliver and does not tell, so the requests are made here; the encoding is a few nested objects. The body of a log
record is the line as it stands in the trail: it can be verified wherever it ends up. After a failure the same lines are
sent again, so a collector may get some twice; ``chain`` and ``seq`` tell.
"""

import http.client
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import orjson

from cotguard import __version__
from cotguard.audit.chain import parse

__all__ = ["Collector"]

_LOGS_PATH = "/v1/logs"
_INFO = 9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_ANSWER = 65_536


class Collector:
    """The collector at ``url``, whose path is ``/v1/logs`` if it has none. ``timeout``: seconds for each step."""

    name = "otlp"

    def __init__(self, url: str, timeout: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("write it as http://HOST:4318 or https://HOST/PATH")
        self._path = parts.path.rstrip("/") or _LOGS_PATH
        self._connection = (
            http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=timeout, context=ssl.create_default_context()
            )
            if parts.scheme == "https"
            else http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
        )

    def write(self, lines: Sequence[bytes]) -> None:
        body = orjson.dumps(_request(lines))
        try:
            try:
                self._send(body)
            except ConnectionError:  # the collector closes connections that were idle, without a word
                self._connection.close()
                self._send(body)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def _send(self, body: bytes) -> None:
        try:
            self._connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            response = self._connection.getresponse()
            answer = response.read(_MAX_ANSWER)
        except http.client.RemoteDisconnected:
            raise
        except http.client.HTTPException as error:
            raise OSError(f"the collector's answer is no HTTP: {type(error).__name__}") from None
        if response.status != http.client.OK:
            raise OSError(f"the collector answered with status {response.status}")
        if _rejected(answer):
            raise OSError("the collector rejected records")


def _rejected(answer: bytes) -> bool:
    """Whether the answer says that some records were not taken. The number may be a string, as in all JSON of OTLP."""
    try:
        partial = (orjson.loads(answer) or {}).get("partialSuccess") or {}
        return int(partial.get("rejectedLogRecords", 0)) > 0
    except (ValueError, TypeError, AttributeError):  # a status of 200 says the rest
        return False


def _request(lines: Sequence[bytes]) -> dict[str, Any]:
    return {
        "resourceLogs": [
            {
                "resource": {"attributes": [_attribute("service.name", "cotguard")]},
                "scopeLogs": [
                    {
                        "scope": {"name": "cotguard.audit", "version": __version__},
                        "logRecords": [_log_record(line) for line in lines],
                    }
                ],
            }
        ]
    }


def _log_record(line: bytes) -> dict[str, Any]:
    record = parse(line)
    if record is None:
        raise ValueError("this is no line of a trail")
    nanoseconds = str((datetime.fromisoformat(record.time) - _EPOCH) // timedelta(microseconds=1) * 1000)
    return {
        "timeUnixNano": nanoseconds,
        "observedTimeUnixNano": nanoseconds,
        "severityNumber": _INFO,
        "severityText": "INFO",
        "eventName": f"cotguard.audit.{record.type}",
        "body": {"stringValue": line.decode().removesuffix("\n")},
        "attributes": [_attribute("chain", record.head.chain), _attribute("seq", str(record.head.seq))],
    }


def _attribute(name: str, value: str) -> dict[str, Any]:
    return {"key": name, "value": {"stringValue": value}}
