"""The middleware: which of an application's paths are moderated, and their requests.

1. Paths are found by the dialects' tables, as in the proxy. The application sees the path as the table spells it.
2. A path that generates text is moderated, always. Every other path is refused, unless the operator lists it: then the
   application answers as if nothing stood before it.
3. The dialect reads and rewrites the request, the policy is carried out on its texts, and the application gets what was
   written. Its answer is moderated by :mod:`cotguard.asgi.answer`.

Headers are the application's: they reach it as they came, but for those that describe the body.
"""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from urllib.parse import parse_qsl, quote, urlencode

from cotguard.asgi.answer import Answer, send_whole
from cotguard.asgi.interface import Application, Arriving, ClientGone, Receive, Rewritten, Scope, Send
from cotguard.classifier.handover import pause
from cotguard.detectors.contract import RequestFacts
from cotguard.dialects.catalogue import dialects
from cotguard.dialects.contract import Dialect, ErrorKind, Incoming, Refused, Translator
from cotguard.dialects.routes import Match, RefusedRoute, Router, query_of
from cotguard.framing.json import dumps
from cotguard.gateway.intake import read_incoming, read_json
from cotguard.gateway.outgoing import Unmoderated, moderate
from cotguard.http.answers import FINAL_HEADERS
from cotguard.http.encodings import EncodingError, TooLargeError
from cotguard.http.form import written_form
from cotguard.moderation.exchange import Exchange, ModerationFault
from cotguard.moderation.request import Findings
from cotguard.moderator import Moderator
from cotguard.telemetry.metrics import METRICS, Metrics

__all__ = ["ModerationMiddleware"]

_ABOUT_THE_BODY = frozenset({b"content-length", b"content-type", b"content-encoding", b"transfer-encoding"})
_POLICY_VIOLATION = 1008
_FAILED = "Moderation failed; the request is not passed on."


class ModerationMiddleware:
    """Stands before ``app``, moderates by ``moderator``, which is its maker's to close. Used in one event loop.

    ``passthrough`` lists the other paths of the application that are reached, WebSockets too: whole paths, in which
    ``*`` stands for any text (``/static/*``). Nothing that passes there is moderated. ``max_request_bytes`` and
    ``max_response_bytes`` are those of decoded bodies; a stream has no limit. A request's body must come within
    ``client_timeout`` seconds and a little more if it is large.
    """

    def __init__(
        self,
        app: Application,
        moderator: Moderator,
        *,
        passthrough: Sequence[str] = (),
        max_request_bytes: int = 32 * 2**20,
        max_response_bytes: int = 64 * 2**20,
        client_timeout: float = 60,
        metrics: Metrics = METRICS,
    ) -> None:
        self._app = app
        self._moderator = moderator
        self._passthrough = tuple(passthrough)
        self._max_request_bytes = max_request_bytes
        self._max_response_bytes = max_response_bytes
        self._client_timeout = client_timeout
        self._metrics = metrics
        self._findings = Findings(self._moderator.policy, self._moderator.detectors, pause)
        served = dialects()
        self._router = Router(served)
        self._default = served[0]  # in whose shape an unknown path is refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's entry."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan" or self._passes(scope):
            await self._app(scope, receive, send)
        else:  # a WebSocket
            await receive()
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        dialect = self._default
        try:
            match = self._find(scope)
            if match is None:
                await self._app(scope, receive, send)
                return
            dialect = match.dialect
            await (self._look_up if match.route.lookup else self._generate)(match, scope, receive, send)
        except Refused as refused:
            if isinstance(refused, RefusedRoute):
                dialect = refused.dialect
            await self._refuse(dialect, refused, send)
        except TooLargeError as error:
            await self._refuse(dialect, Refused(413, ErrorKind.TOO_LARGE, str(error)), send)
        except EncodingError as error:
            await self._refuse(dialect, Refused(415, ErrorKind.UNSUPPORTED, str(error)), send)
        except ModerationFault:  # of the request
            self._metrics.failures.labels(ErrorKind.MODERATION_FAILED, "closed").inc()
            await self._refuse(dialect, Refused(500, ErrorKind.MODERATION_FAILED, _FAILED), send, "failed")
        except ClientGone:
            pass

    def _find(self, scope: Scope) -> Match | None:
        """Whose a request is: None if the application's own. Raises :class:`Refused`."""
        try:
            match = self._router.find(scope["method"], _raw_path(scope))
        except Refused:
            if self._passes(scope):
                return None
            raise
        return None if match.route.lookup and self._passes(scope) else match

    def _passes(self, scope: Scope) -> bool:
        """Whether the operator lists the path, which leads nowhere else."""
        path = _below_root(scope["path"], scope)
        straight = not {".", ".."} & set(path.split("/"))
        return straight and any(fnmatchcase(path, pattern) for pattern in self._passthrough)

    async def _refuse(self, dialect: Dialect, refused: Refused, send: Send, outcome: str = "refused") -> None:
        self._metrics.requests.labels(dialect.name, str(refused.status), outcome).inc()
        body = dialect.error(refused.kind, refused.message)
        await send_whole(send, refused.status, body, FINAL_HEADERS)

    async def _generate(self, match: Match, scope: Scope, receive: Receive, send: Send) -> None:
        """A request whose answer is generated text."""
        dialect, query = match.dialect, query_of(match.route, _query(scope))
        arriving = Arriving(scope, receive)
        incoming = await read_incoming(arriving, match, query, self._max_request_bytes, self._client_timeout)
        prepared = dialect.prepare(incoming)
        asked = query if prepared.query is None else prepared.query
        exchange = self._exchange(prepared.facts)
        try:
            fields, file = prepared.fields, prepared.file
            strings = Unmoderated(prepared.document, fields or [], {}, match.parameters, asked, file=file is not None)
            await self._moderator.carry_out(partial(moderate, strings, dialect, exchange))
            content_type, body = "application/json", dumps(prepared.document)
            if fields is not None:
                form = written_form(fields, file)()
                content_type, body = form.content_type, await form.as_bytes()
            prepared.document, prepared.file = {}, None
            del incoming
            answer = self._answered(
                dialect,
                exchange,
                partial(dialect.stream, prepared, exchange),
                lambda data: dialect.body(data, prepared, exchange),
                send,
            )
            self._metrics.active.inc()
            try:
                await self._ask(_asked(match, scope, asked, content_type, body), Rewritten(body, receive), answer)
            finally:
                self._metrics.active.dec()
        finally:
            self._metrics.account(exchange)

    async def _look_up(self, match: Match, scope: Scope, receive: Receive, send: Send) -> None:
        """A question whose answer holds no generated text: it is copied through the table."""
        dialect, query = match.dialect, query_of(match.route, _query(scope))
        posted = scope["method"] == "POST"
        received = b"{}"
        if posted:
            received = await read_json(Arriving(scope, receive), self._max_request_bytes, self._client_timeout)
        document = dialect.question(Incoming(match.route, match.parameters, query, received))
        exchange = self._exchange(RequestFacts())
        try:
            strings = Unmoderated(document, [], {}, match.parameters, query)
            await self._moderator.carry_out(partial(moderate, strings, dialect, exchange))
        finally:
            self._metrics.account(exchange)
        body = dumps(document) if posted else b""
        answer = self._answered(
            dialect, exchange, _no_stream, lambda data: dialect.lookup(data, match.route.action), send
        )
        await self._ask(_asked(match, scope, query, "application/json", body), Rewritten(body, receive), answer)

    def _exchange(self, facts: RequestFacts) -> Exchange:
        moderator = self._moderator
        return Exchange(moderator.policy, moderator.detectors, facts, moderator.key, findings=self._findings)

    def _answered(
        self,
        dialect: Dialect,
        exchange: Exchange,
        stream: Callable[[str], Translator | None],
        whole: Callable[[bytes], bytes],
        send: Send,
    ) -> Answer:
        return Answer(
            dialect,
            exchange,
            stream,
            whole,
            send=send,
            limit=self._max_response_bytes,
            moderator=self._moderator,
            metrics=self._metrics,
        )

    async def _ask(self, scope: Scope, request: Rewritten, answer: Answer) -> None:
        """Let the application answer. What it raises is the server's to log."""
        try:
            await self._app(scope, request.receive, answer.send)
        except Exception:
            await answer.end(client_gone=request.gone)
            raise
        await answer.end(client_gone=request.gone)


def _raw_path(scope: Scope) -> str:
    raw: bytes | None = scope.get("raw_path")
    return _below_root(quote(scope["path"]) if raw is None else raw.decode("latin-1"), scope)


def _below_root(path: str, scope: Scope) -> str:
    """The path without the prefix that the application is mounted under."""
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if path.startswith(root + "/") else path


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


def _asked(match: Match, scope: Scope, query: Mapping[str, str], content_type: str, body: bytes) -> Scope:
    """The scope of a request as it was written anew.

    It offers no extensions: by one of them an application could send what is not looked at.
    """
    root = scope.get("root_path", "")
    headers = [(name, value) for name, value in scope["headers"] if name.lower() not in _ABOUT_THE_BODY]
    headers = [(name, value) for name, value in headers if name.lower() != b"accept-encoding"]
    if body:
        headers.append((b"content-type", content_type.encode("latin-1")))
        headers.append((b"content-length", str(len(body)).encode()))
    return {
        **scope,
        "path": root + match.path,
        "raw_path": quote(root + match.path, safe="/:@~+").encode(),
        "query_string": urlencode(query).encode(),
        "headers": headers,
        "extensions": {},
    }


def _no_stream(_content_type: str) -> None:
    return None
