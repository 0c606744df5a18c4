"""Both ends of a gateway on raw sockets: a client that reads strictly, and an upstream that records what it gets."""

import json
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BufferedIOBase
from typing import NamedTuple, Self

__all__ = ["Answer", "Client", "Received", "Upstream", "completion", "listening", "said_in"]

_SECONDS = 15
"""Until a test is over that waits for bytes which do not come; aiohttp takes 10 to close what it cannot read on."""

_LONGEST = 2**16
_STATUS = re.compile(rb"HTTP/\d\.\d (\d{3}) [ -~]*\r\n")  # aiohttp answers in the version that it was asked in
_REQUEST = re.compile(rb"([A-Z]+) (/[!-~]*) HTTP/1\.1\r\n")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([ -~]*)\r\n")


class Malformed(Exception):  # noqa: N818  # what was read is
    """A message that the strictest of readers would not take."""


class Received(NamedTuple):
    """A request as the upstream got it. ``body`` of a message that is no well-formed request is None."""

    line: bytes
    headers: dict[str, str]
    body: bytes | None


class Answer(NamedTuple):
    """A response as the client got it."""

    status: int
    headers: dict[str, str]
    body: bytes


def _headers(reader: BufferedIOBase) -> dict[str, str]:
    """Header lines up to the empty one; each name once."""
    found: dict[str, str] = {}
    while (line := reader.readline(_LONGEST)) != b"\r\n":
        match = _HEADER.fullmatch(line)
        if match is None or match[1].lower().decode() in found:
            raise Malformed(line)
        found[match[1].lower().decode()] = match[2].decode()
    return found


def _chunked(reader: BufferedIOBase) -> bytes:
    """The body of a chunked message, which has no extensions and no trailers."""
    body = b""
    while True:
        line = reader.readline(_LONGEST)
        if re.fullmatch(rb"[0-9a-f]+\r\n", line) is None:
            raise Malformed(line)
        size = int(line, 16)
        data = reader.read(size + 2)
        if len(data) != size + 2 or not data.endswith(b"\r\n"):
            raise Malformed(data)
        if not size:
            return body
        body += data[:-2]


class Client:
    """One connection to the gateway."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, _SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        """A gateway that has closed already gets nothing."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def end(self) -> None:
        """Send nothing more."""
        with suppress(OSError):  # it has closed
            self._socket.shutdown(socket.SHUT_WR)

    def answer(self, *, to_head: bool = False) -> Answer | None:
        """The next response, but for those of status 100; None where the gateway closes instead."""
        try:
            return self._answer(to_head=to_head)
        except ConnectionResetError:
            return None

    def _answer(self, *, to_head: bool) -> Answer | None:
        line = self._reader.readline(_LONGEST)
        if not line:
            return None
        match = _STATUS.fullmatch(line)
        if match is None:
            raise Malformed(line)
        headers = _headers(self._reader)
        status = int(match[1])
        if status == 100:
            return self._answer(to_head=to_head)
        assert "transfer-encoding" not in headers or "content-length" not in headers
        if to_head:
            body = b""
        elif "transfer-encoding" in headers:
            assert headers["transfer-encoding"] == "chunked"
            body = _chunked(self._reader)
        elif "content-length" in headers:
            body = self._reader.read(int(headers["content-length"]))
        else:
            body = self._reader.read()
        return Answer(status, headers, body)


def completion(text: str) -> bytes:
    """A response of Chat Completions that says ``text``."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    body = json.dumps({"id": "c-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]})
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


def said_in(body: bytes) -> str:
    """The text of the last message of a request, or of the first choice of a response."""
    document = json.loads(body)
    message = document["messages"][-1] if "messages" in document else document["choices"][0]["message"]
    text = message["content"]
    assert isinstance(text, str)
    return text


def _echo(received: Received) -> Iterator[bytes]:
    if received.line.startswith(b"GET "):
        body = b'{"object":"list","data":[]}'
        yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    else:
        yield completion(f"You said: {said_in(received.body or b'')}")


@dataclass
class Upstream:
    """A model server that keeps its connections, and says back what it was told until ``script`` says otherwise.

    A script yields pieces of a response; it may raise ``ConnectionAbortedError`` to close the connection.
    """

    address: tuple[str, int] = ("", 0)
    received: list[Received] = field(default_factory=list)
    script: Callable[[Received], Iterator[bytes]] = _echo

    def reset(self) -> None:
        """Forget what was received, and say back what is told."""
        self.received.clear()
        self.script = _echo

    def serve(self, reader: BufferedIOBase, writer: BufferedIOBase) -> None:
        """One connection."""
        while line := reader.readline(_LONGEST):
            received = self._read(line, reader)
            self.received.append(received)
            if received.body is None:
                return
            try:
                for piece in self.script(received):
                    writer.write(piece)
                    writer.flush()
            except ConnectionError:
                return

    def _read(self, line: bytes, reader: BufferedIOBase) -> Received:
        try:
            headers = _headers(reader)
        except Malformed:
            return Received(line, {}, None)
        length = headers.get("content-length", "0")
        if _REQUEST.fullmatch(line) is None or "transfer-encoding" in headers or not length.isdecimal():
            return Received(line, headers, None)
        return Received(line, headers, reader.read(int(length)))


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@contextmanager
def listening(upstream: Upstream) -> Iterator[str]:
    """The URL at which ``upstream`` is served meanwhile."""

    class Handler(socketserver.StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self) -> None:
            with suppress(ConnectionError):
                upstream.serve(self.rfile, self.wfile)

    with _Server(("127.0.0.1", 0), Handler) as server:
        upstream.address = ("127.0.0.1", server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{upstream.address[1]}"
        finally:
            server.shutdown()
            thread.join()
