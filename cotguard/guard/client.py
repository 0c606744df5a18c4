"""The way to a guard model: an endpoint that speaks Chat Completions.

1. What a stream asks about at once becomes one request for each passage and question. All streams together have at most
   ``concurrency`` requests under way; the others wait in turn. The server makes batches of them.
2. A request has ``deadline`` seconds, its turn included. What nobody waits for any more is cancelled.
3. Anything but a verdict is a fault, raised where it was asked. A connection that broke is tried once more: servers
   close idle ones at any time.

Nothing of questions, answers or the key is logged or counted.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence

import aiohttp

from cotguard.framing.json import JSONError, loads
from cotguard.guard.format import GuardError, GuardFormat, Hazard, Passage, Question
from cotguard.telemetry.metrics import Metrics

__all__ = ["GuardClient"]

_MAX_ANSWER = 64 * 1024
_PROBE = Passage("Hello.", "", "Hello, how can I help?")


class GuardClient:
    """Answers what :class:`~cotguard.guard.detector.Guard` asks. Made in the event loop in which it is used.

    ``url`` is the server's, without the ``/v1`` of its API paths; ``deadline`` in seconds.
    """

    def __init__(
        self,
        form: GuardFormat,
        url: str,
        *,
        model: str,
        api_key: str,
        deadline: float,
        concurrency: int,
        metrics: Metrics,
    ) -> None:
        self._form = form
        self._url = url + "/v1/chat/completions"
        self._model = model
        self._deadline = deadline
        self._concurrency = concurrency
        self._metrics = metrics
        self._turns = asyncio.Semaphore(concurrency)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=concurrency),
            timeout=aiohttp.ClientTimeout(total=None),  # the deadline is over all of it
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Content-Type": "application/json",
                "Accept-Encoding": "identity",  # or a small answer could unpack to a large one
                **({"Authorization": f"Bearer {api_key}"} if api_key else {}),
            },
            trust_env=False,
        )
        self.failing = True
        """Whether the last question went unanswered, or none was asked yet."""

    async def __call__(self, passages: Sequence[Passage]) -> Sequence[Sequence[Hazard]]:
        """The hazards of each passage. Raises ``TimeoutError``, ``aiohttp.ClientError`` and :class:`GuardError`."""
        found: list[list[Hazard]] = [[] for _ in passages]
        jobs = [(place, question) for place in range(len(passages)) for question in self._form.questions]
        queue = iter(jobs)

        async def work(jobs: Iterator[tuple[int, Question]]) -> None:
            for place, question in jobs:
                found[place] += await self._ask(passages[place], question)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(len(jobs), self._concurrency)):
                    group.create_task(work(queue))
        except ExceptionGroup as faults:
            error = faults.exceptions[0]
            self.failing = True
            self._metrics.guard_failures.labels(_kind(error)).inc()
            raise error from None
        self.failing = False
        return found

    async def check(self) -> bool:
        """Whether the guard answers now: asked about a harmless text if it did not the last time."""
        if self.failing:
            try:
                await self([_PROBE])
            except Exception:  # any fault is counted, and means that it does not
                return False
        return True

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _ask(self, passage: Passage, question: Question) -> tuple[Hazard, ...]:
        metrics = self._metrics
        body = self._form.body(passage, question, self._model)
        metrics.guard_queue.inc()
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._deadline), self._turns:
                metrics.guard_wait.observe(time.monotonic() - began)
                began = time.monotonic()
                try:
                    data = await self._post(body)
                except aiohttp.ClientConnectionError:
                    data = await self._post(body)
        finally:
            metrics.guard_queue.dec()
        metrics.guard_seconds.observe(time.monotonic() - began)
        answer, cut = _answer(data)
        return self._form.read(answer, question, cut=cut)

    async def _post(self, body: bytes) -> bytes:
        async with self._session.post(self._url, data=body, allow_redirects=False) as response:
            if response.status != 200:
                raise GuardError("status", "the guard's status is not 200")
            data = bytearray()
            async for chunk in response.content.iter_any():
                data += chunk
                if len(data) > _MAX_ANSWER:
                    raise GuardError("malformed", "the guard's answer is too large")
            return bytes(data)


def _answer(data: bytes) -> tuple[str, bool]:
    """The text of a completion, and whether it was cut at the most tokens allowed."""
    try:
        completion = loads(data)
    except JSONError:
        completion = None
    choices = completion.get("choices") if isinstance(completion, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(choice, dict) or not isinstance(content, str):
        raise GuardError("malformed", "the guard's answer is no completion")
    return content, choice.get("finish_reason") == "length"


def _kind(error: Exception) -> str:
    """The label a fault is counted under."""
    if isinstance(error, GuardError):
        return error.kind
    if isinstance(error, TimeoutError):
        return "timeout"
    return "connection" if isinstance(error, aiohttp.ClientError) else "error"
