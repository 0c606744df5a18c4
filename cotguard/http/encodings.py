"""Content encodings: gzip, deflate, br, zstd, decoded piece by piece with a limit. Anything else is refused."""

import zlib
from collections.abc import Callable

import brotli
import zstandard

from cotguard.framing.sse import MAX_EVENT_BYTES

__all__ = ["Decoder", "EncodingError", "TooLargeError", "decoder_for"]

_MOST_AT_ONCE = MAX_EVENT_BYTES
"""Bytes that one piece may decode to: in a stream, which has no other limit, a larger event is refused anyway."""


_IDENTITY = ("", "identity")


class EncodingError(ValueError):
    """An unknown encoding, or data that does not decode."""


class TooLargeError(EncodingError):
    """More output than allowed."""


class Decoder:
    """Decodes one body of at most ``limit`` bytes; ``identity``: nothing is encoded, ``encoding`` is empty.

    A piece that decodes to more than ``_MOST_AT_ONCE`` bytes is refused: a kilobyte of brotli can hold a gigabyte.
    """

    def __init__(self, encoding: str, limit: int) -> None:
        self.identity = encoding.strip().lower() in _IDENTITY
        self._feed = decoder_for(encoding)
        self._left = limit

    def feed(self, data: bytes) -> bytes:
        """Decode the next piece. Raises :class:`EncodingError`."""
        most = min(self._left, _MOST_AT_ONCE)
        try:
            decoded = self._feed(data, most + 1)
        except (zlib.error, brotli.error, zstandard.ZstdError) as error:
            raise EncodingError("the body does not decode") from error
        if len(decoded) > most:
            raise TooLargeError("the body is larger than allowed")
        self._left -= len(decoded)
        return decoded


def decoder_for(encoding: str) -> Callable[[bytes, int], bytes]:
    """A function ``(data, most bytes out) -> decoded``. Raises :class:`EncodingError` for what is not supported."""
    name = encoding.strip().lower()
    if name in _IDENTITY:
        return lambda data, _most: data
    if name in ("gzip", "x-gzip"):
        return _Members().feed
    if name == "deflate":
        return _deflated(zlib.decompressobj())
    if name == "br":
        stream = brotli.Decompressor()
        return lambda data, most: stream.process(data, output_buffer_limit=most)
    if name == "zstd":
        return _Frames().feed
    raise EncodingError("the body has an encoding that is not supported; send gzip, deflate, br, zstd or none")


def _deflated(stream: "zlib._Decompress") -> Callable[[bytes, int], bytes]:
    def feed(data: bytes, most: int) -> bytes:
        decoded = stream.decompress(data, most)
        if stream.unused_data:
            raise EncodingError("the body does not end where its encoding does")
        return decoded

    return feed


class _Members:
    """gzip with any number of members (RFC 1952 section 2.2)."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)

    def feed(self, data: bytes, most: int) -> bytes:
        pieces: list[bytes] = []
        while data and most > 0:
            if self._stream.eof:
                self._stream = zlib.decompressobj(wbits=31)
            pieces.append(self._stream.decompress(data, most))
            most -= len(pieces[-1])
            data = self._stream.unused_data
        return b"".join(pieces)


class _Frames:
    """zstd with any number of frames (RFC 8878). Its decoder takes no limit, so it is fed a little at a time."""

    _STEP = 256  # bytes: at most 64 blocks of 128 KiB come out of one step

    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj(read_across_frames=True)

    def feed(self, data: bytes, most: int) -> bytes:
        pieces: list[bytes] = []
        for at in range(0, len(data), self._STEP):
            pieces.append(self._stream.decompress(data[at : at + self._STEP]))
            most -= len(pieces[-1])
            if most <= 0:
                break
        return b"".join(pieces)
