"""Logs: one line an event, as logfmt or JSON, with nothing in it that anybody else wrote.

1. Our own events are constant text with fields; a field is written only if :data:`FIELDS` has its name.
2. What libraries log may quote what they were given: a request line, a header, a value that could not be parsed. So of
   their records the place in the code, and the exceptions' types, are written, and their text is not.
3. Of an exception only its type and the places it passed are written, of ours too: its message may quote its input.
   That goes for whatever nobody caught, in threads and finalizers as well.
4. What is logged for an exchange has its request id, and its trace id if it is recorded.
"""

import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Final

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError
from orjson import dumps

from cotguard.telemetry.tracing import current

__all__ = ["FIELDS", "Access", "LogFormat", "access", "configure", "exchange", "formatter"]

FIELDS: Final = {
    "caller_role": "role of the caller, empty without callers",
    "chain": "of the audit trail",
    "dialect": "as in `cotguard_requests_total`",
    "error": "type of the exception",
    "exit": "exit status of a process, negative: the signal that ended it",
    "file": "name of a file of the audit trail",
    "found": "number of the last record of the audit trail that is there",
    "head": "of the audit trail: the number and the hash of its last record",
    "kind": "kind of the fault, as in `cotguard_failures_total`",
    "known": "number of the last record of the audit trail that was written",
    "outcome": "as in `cotguard_requests_total`",
    "policy": "digest of the policy",
    "policy_name": "its name",
    "pool": "name of an upstream",
    "port": "`data` or `admin`",
    "problem": "what is wrong with files, with its place; it quotes no value",
    "reason": "why, in a word of a fixed set",
    "records": "how many records of the audit trail",
    "replica": "address of a replica of the classifier, from the settings",
    "seconds": "how long it took",
    "server": "a server of an upstream, as in `cotguard_upstream_up`",
    "setting": "name of a setting",
    "settings": "names of settings",
    "sink": "where audit records go, as in `cotguard_audit_failures_total`",
    "status": "HTTP status; 499 where the client left",
    "worker": "number of a worker",
}
"""The fields of events, and what they say."""

ALWAYS: Final = {
    "time": "UTC, ISO 8601 with milliseconds",
    "level": "`debug`, `info`, `warning`, `error` or `critical`",
    "logger": "which part says it",
    "event": "what happened: constant text. Of a library `a library's message, withheld`",
    "request_id": "of the exchange: the `x-cotguard-request-id` of its response",
    "trace_id": "of the exchange, if its trace is recorded",
    "at": "the place in the code, for what libraries say: `FILE:LINE FUNCTION`",
    "exception": "type of the exception, and of those that caused it",
    "frames": "the places that the exception passed, the last ones",
}
"""The fields of all lines; from ``request_id`` on where there is something to say."""

_OURS = "cotguard"
_WITHHELD = "a library's message, withheld"
_MAX_FRAMES = 12
_REQUEST: ContextVar[str] = ContextVar("request_id", default="")
_ACCESS = logging.getLogger("cotguard.access")

Value = str | int | float | bool


class LogFormat(StrEnum):
    """How lines are written."""

    TEXT = "text"
    JSON = "json"


class Access(dict[str, Value]):
    """The fields of the line that an exchange ends with."""

    def __init__(
        self, *, dialect: str, status: int, outcome: str, seconds: float, caller_role: str, policy: str
    ) -> None:
        super().__init__(
            dialect=dialect,
            status=status,
            outcome=outcome,
            seconds=round(seconds, 6),
            caller_role=caller_role,
            policy=policy,
        )


def access(line: Access) -> None:
    """Log the end of an exchange."""
    _ACCESS.info("exchange", extra=line)


@contextmanager
def exchange(request_id: str) -> Iterator[None]:
    """What is logged here, and in tasks that begin here, is about this exchange."""
    token = _REQUEST.set(request_id)
    try:
        yield
    finally:
        _REQUEST.reset(token)


class _Formatter(logging.Formatter):
    """Decides what of a record is written; subclasses how."""

    def format(self, record: logging.LogRecord) -> str:
        return self.line(_fields(record))

    def line(self, fields: dict[str, Value]) -> str:
        raise NotImplementedError


class _Text(_Formatter):
    """logfmt: ``key=value``, quoted where a value has anything but plain characters."""

    def line(self, fields: dict[str, Value]) -> str:
        return " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())


class _Json(_Formatter):
    """One object."""

    def line(self, fields: dict[str, Value]) -> str:
        return dumps(fields).decode()


_FORMATTERS: Final = {LogFormat.TEXT: _Text, LogFormat.JSON: _Json}


def formatter(form: str) -> logging.Formatter:
    """How lines are written in this form."""
    return _FORMATTERS[LogFormat(form)]()


def configure(form: str, level: str) -> None:
    """Log to standard error from now on; ``level`` is a name as :mod:`logging` has it, in any case."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(form))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("aiohttp.server").addFilter(_clients_fault)
    logging.raiseExceptions = False  # else a record that cannot be written is printed with its values
    logging.captureWarnings(capture=True)  # they quote code and objects
    sys.excepthook = _uncaught
    sys.unraisablehook = _unraisable
    threading.excepthook = _ended_thread


def _clients_fault(record: logging.LogRecord) -> bool:
    """Lower the level of what is no fault of ours: a request that is no HTTP, a client that has gone."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError | RequestPayloadError | ConnectionError):
        record.levelno, record.levelname = logging.INFO, "INFO"
    return logging.getLogger().isEnabledFor(record.levelno)


def _fields(record: logging.LogRecord) -> dict[str, Value]:
    """What may be written of a record."""
    ours = record.name == _OURS or record.name.startswith(f"{_OURS}.")
    fields: dict[str, Value] = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": str(record.msg) if ours else _WITHHELD,
    }
    if request_id := _REQUEST.get():
        fields["request_id"] = request_id
    if trace_id := current().trace_id:
        fields["trace_id"] = trace_id
    if ours:
        fields |= {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}
    else:
        fields["at"] = f"{_place(record.pathname)}:{record.lineno} {record.funcName}"
    if record.exc_info and record.exc_info[1] is not None:
        fields |= _described(record.exc_info[1])
    return fields


def _described(error: BaseException) -> dict[str, Value]:
    """An exception without its message."""
    kinds = [type(error).__name__]
    cause: BaseException | None = error
    while cause is not None and len(kinds) < _MAX_FRAMES:
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        if cause is not None:
            kinds.append(type(cause).__name__)
    return {"exception": " < ".join(kinds), "frames": " > ".join(_places(error.__traceback__))}


def _places(trace: TracebackType | None) -> Iterator[str]:
    for frame, line in list(traceback.walk_tb(trace))[-_MAX_FRAMES:]:
        yield f"{_place(frame.f_code.co_filename)}:{line} {frame.f_code.co_name}"


def _place(file: str) -> str:
    """A file by its last two names."""
    return "/".join(Path(file).parts[-2:])


def _quoted(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    plain = text.isprintable() and text.isascii() and not set(text) & set(' "=\\')
    return text if plain and text else dumps(text).decode()


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger(_OURS).critical("uncaught exception", exc_info=(kind, error, trace))


def _unraisable(caught: "sys.UnraisableHookArgs") -> None:
    error = caught.exc_value
    logging.getLogger(_OURS).error("exception in a finalizer", exc_info=error if error is not None else False)


def _ended_thread(caught: threading.ExceptHookArgs) -> None:
    error = caught.exc_value
    logging.getLogger(_OURS).error("exception in a thread", exc_info=error if error is not None else False)
