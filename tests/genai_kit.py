"""What google-genai makes of a response: the official client, on a transport that answers with given bytes."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
from google import genai
from google.genai import errors, types

__all__ = ["ERRORS", "Seen", "array", "elements", "events", "read_body", "read_stream", "sdk"]

ERRORS = (errors.APIError,)


def sdk(data: bytes, content_type: str = "text/event-stream", status: int = 200) -> genai.Client:
    """A client whose every request is answered with ``data``."""

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=data, headers={"content-type": content_type})

    transport = httpx2.MockTransport(answer)
    options = types.HttpOptions(base_url="http://upstream", client_args={"transport": transport})
    return genai.Client(api_key="none", http_options=options)


def events(documents: Iterable[object]) -> bytes:
    """Documents as Google streams them."""
    return b"".join(b"data: " + json.dumps(each).encode() + b"\r\n\r\n" for each in documents)


def array(documents: Iterable[object]) -> bytes:
    """The same where no other form was asked for."""
    return b"[" + b"\n,\r\n".join(json.dumps(each, indent=2).encode() for each in documents) + b"\n]"


def elements(data: bytes, content_type: str = "text/event-stream") -> list[dict[str, Any]]:
    """The documents of a stream in either form."""
    if content_type == "application/json":
        found: list[dict[str, Any]] = json.loads(data)
        return found
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    return [json.loads(line.removeprefix(b"data: ")) for line in lines if line.startswith(b"data: ")]


@dataclass
class Seen:
    """What a user of the SDK has of one candidate."""

    thought: str = ""
    answer: str = ""
    calls: list[tuple[str | None, object]] = field(default_factory=list)
    code: list[tuple[str | None, str | None]] = field(default_factory=list)
    finish: str | None = None

    def add(self, candidate: types.Candidate) -> None:
        """Take the next part of the response."""
        for part in (candidate.content and candidate.content.parts) or ():
            if part.text is not None and part.thought:
                self.thought += part.text
            elif part.text is not None:
                self.answer += part.text
            if part.function_call is not None:
                self.calls.append((part.function_call.name, part.function_call.args))
            if part.executable_code is not None:
                self.code.append((part.executable_code.language, part.executable_code.code))
            if part.code_execution_result is not None:
                self.code.append((part.code_execution_result.outcome, part.code_execution_result.output))
        if candidate.finish_reason is not None:
            self.finish = candidate.finish_reason.value


@dataclass
class Response:
    """Candidates by index, the last usage, why a prompt was refused, and what was raised."""

    candidates: dict[int, Seen] = field(default_factory=dict)
    usage: Mapping[str, object] | None = None
    blocked: str | None = None
    error: errors.APIError | None = None

    def add(self, response: types.GenerateContentResponse) -> None:
        """Take the next part of the response."""
        if response.usage_metadata is not None:
            self.usage = response.usage_metadata.model_dump(exclude_none=True)
        if response.prompt_feedback is not None and response.prompt_feedback.block_reason is not None:
            self.blocked = response.prompt_feedback.block_reason.value
        for candidate in response.candidates or ():
            self.candidates.setdefault(candidate.index or 0, Seen()).add(candidate)


def read_stream(data: bytes, content_type: str = "text/event-stream") -> Response:
    """A stream as the SDK reads it, which always asks for events."""
    if content_type == "application/json":
        data = events(json.loads(data))
    seen, client = Response(), sdk(data)
    try:
        for chunk in client.models.generate_content_stream(model="m", contents="x"):
            seen.add(chunk)
    except errors.APIError as error:
        seen.error = error
    return seen


def read_body(data: bytes) -> Response:
    """A whole response as the SDK reads it."""
    seen, client = Response(), sdk(data, "application/json")
    seen.add(client.models.generate_content(model="m", contents="x"))
    return seen
