"""Forms (``multipart/form-data``): read into fields and one file, and written anew.

A form is read with aiohttp's reader from a body that was already decoded and limited in size. What goes upstream is
written by aiohttp's writer, under a boundary of its own: names are plain, texts are valid UTF-8, the file keeps its
bytes, the extension of its name, and its content type if that is one of sound or video.
"""

import asyncio
import io
import re
import warnings
from collections.abc import Sequence

import aiohttp
from aiohttp import hdrs
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError

from cotguard.dialects.contract import Upload
from cotguard.dialects.request import bad

__all__ = ["MAX_PARTS", "read_form", "written_form"]

MAX_PARTS = 64
"""Fields and files of one form."""

_NAME = re.compile(r"[A-Za-z_]\w{0,63}(\[\w{0,63}\])?", re.ASCII)
_EXTENSION = re.compile(r"\.([A-Za-z0-9]{1,8})\Z")
_MEDIA = re.compile(r"(?:audio|video)/[a-z0-9][a-z0-9.+-]{0,63}")
_AS_IT_IS = frozenset({"", "7bit", "8bit", "binary"})
_READ = 2**16  # the reader copies the rest of a piece when it puts some of it back
_UNREADABLE = "The form could not be read."


async def read_form(content_type: str, body: bytes) -> tuple[list[tuple[str, str]], Upload | None]:
    """The fields of a form, in order, and its file. Raises :class:`~cotguard.dialects.contract.Refused`."""
    loop = asyncio.get_running_loop()
    content = aiohttp.StreamReader(BaseProtocol(loop), _READ, loop=loop)
    for at in range(0, len(body), _READ):
        content.feed_data(body[at : at + _READ])
    content.feed_eof()
    fields: list[tuple[str, str]] = []
    file: Upload | None = None
    try:
        with warnings.catch_warnings(action="ignore"):  # they quote the form
            reader = aiohttp.MultipartReader({hdrs.CONTENT_TYPE: content_type}, content)
            while (part := await reader.next()) is not None:
                if not isinstance(part, aiohttp.BodyPartReader) or _is_encoded(part) or len(fields) >= MAX_PARTS:
                    raise bad(_UNREADABLE)
                name, data = part.name or "", bytes(await part.read())
                if part.filename is not None:
                    if file is not None or name != "file":
                        raise bad("A form holds one file, in the field 'file'.")
                    file = _upload(part, data)
                elif _NAME.fullmatch(name):
                    fields.append((name, data.decode()))
                else:
                    raise bad("A form's fields have plain names.")
    except (ValueError, RuntimeError, HttpProcessingError):
        raise bad(_UNREADABLE) from None
    return fields, file


def _is_encoded(part: aiohttp.BodyPartReader) -> bool:
    transfer = part.headers.get(hdrs.CONTENT_TRANSFER_ENCODING, "").lower()
    return hdrs.CONTENT_ENCODING in part.headers or transfer not in _AS_IT_IS


def _upload(part: aiohttp.BodyPartReader, data: bytes) -> Upload:
    extension = _EXTENSION.search(part.filename or "")
    content_type = part.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
    return Upload(
        "file" + (extension[0] if extension else ""),
        content_type if _MEDIA.fullmatch(content_type) else "application/octet-stream",
        data,
    )


def written_form(fields: Sequence[tuple[str, str]], file: Upload | None) -> aiohttp.FormData:
    """A form to be sent."""
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields:
        form.add_field(name, value)
    if file is not None:
        form.add_field("file", io.BytesIO(file.data), filename=file.filename, content_type=file.content_type)
    return form
