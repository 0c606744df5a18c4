"""What the dialects of raw text have in common: prompts, choices, whole results, the order of a stream.

1. A server completes a prompt and takes nothing apart, so reasoning stands in the text, between its markers. Where the
   prompt leaves a thought open, the text begins inside of it.
2. A request may hold several prompts and ask for several completions of each. Each of them is a choice with a lane of
   its own; choices come one behind the other or interleaved.
3. A choice ends by an event that says why; what was held of its text is decided and written before.

Known limit: of several prompts the last one that opens or closes a thought decides where all texts begin.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cotguard.dialects.channels import KINDS
from cotguard.dialects.chat.format import Format
from cotguard.dialects.contract import UPSTREAM_REPORTED, ErrorKind, Prepared, UpstreamFault
from cotguard.dialects.reported import Reported
from cotguard.dialects.request import bad
from cotguard.dialects.stream import EventStream, Outgoing
from cotguard.dialects.table import Table
from cotguard.dialects.whole import UNREADABLE
from cotguard.framing.contract import Event, Framing
from cotguard.framing.json import JSONError, loads
from cotguard.framing.sse import is_done
from cotguard.moderation.exchange import Exchange
from cotguard.moderation.markers import MarkerView, initial_kind
from cotguard.spans import ChannelKind

__all__ = [
    "INTERRUPTED",
    "OPENAI",
    "RawStream",
    "choices_of",
    "invalid",
    "opening_kind",
    "prompt_text",
    "prompts_of",
    "read_results",
]

INTERRUPTED = "The upstream ended the stream early."
OPENAI = Format(Table.load("chat/chat_completions.yaml", tuple(KINDS)))
"""What the whole family of OpenAI's API has in common: the fields around choices, errors, switches of requests."""

MAX_CHOICES = 64
"""Choices one request may ask for: each has its own state here."""


def invalid(message: str = UNREADABLE) -> UpstreamFault:
    """What to raise for a response that is not of the dialect."""
    return UpstreamFault(ErrorKind.UPSTREAM_INVALID, message)


def prompts_of(prompt: object) -> int:
    """How many prompts a ``prompt`` field holds. Token ids, alone or between strings, are one prompt."""
    if isinstance(prompt, list) and not any(isinstance(each, int) for each in prompt):
        return len(prompt) or 1
    return 1


def prompt_text(prompt: object) -> str:
    """The text of a prompt or of several."""
    return "\n".join(_texts(prompt))


def _texts(prompt: object) -> Iterator[str]:
    if isinstance(prompt, str):
        yield prompt
    elif isinstance(prompt, list):
        for each in prompt:
            yield from _texts(each)
    elif isinstance(prompt, dict):  # llama.cpp, beside pictures
        yield from _texts(prompt.get("prompt_string"))


def choices_of(prompts: int, each: int) -> int:
    """How many choices are asked for. Raises :class:`~cotguard.dialects.contract.Refused`."""
    if prompts * each > MAX_CHOICES:
        raise bad(f"A request may ask for {MAX_CHOICES} completions at most, over all prompts.")
    return prompts * each


def opening_kind(prepared: Prepared) -> ChannelKind:
    """The kind that completions begin with: reasoning where the prompt leaves a thought open."""
    prompt = MarkerView(ChannelKind.OUTPUT)
    length = len(prompt.feed(prepared.facts.user, final=True))
    kind = prompt.kind_at(length)
    return initial_kind(prepared.model) if kind is ChannelKind.OUTPUT else kind


def read_results(data: bytes, reported: Reported | None) -> tuple[list[dict[str, Any]], bool]:
    """The results of a whole body, noted in ``reported``, and whether they are in a list.

    Raises :class:`UpstreamFault`.
    """
    try:
        value: Any = loads(data)
    except JSONError:
        value = None
    listed = isinstance(value, list)
    results: list[Any] = value if listed else [value]
    if not results or not all(isinstance(each, dict) for each in results):
        raise invalid()
    if any(each.get("error") for each in results):
        raise UpstreamFault(ErrorKind.UPSTREAM_ERROR, UPSTREAM_REPORTED)
    if reported is not None:
        for each in results:
            reported.take(each)
    return results, listed


class RawStream(EventStream):
    """A stream of texts, one for each choice; a choice's index is its lane and its channel."""

    def __init__(self, framing: Framing, prepared: Prepared, exchange: Exchange, *, repeats: bool = False) -> None:
        super().__init__(framing, prepared, exchange, repeats=repeats)
        self.choices: dict[int, None] = {}
        """Those that the upstream has sent something of."""
        self.kind = opening_kind(prepared)

    @abstractmethod
    def delta(self, index: int) -> Outgoing:
        """The event that carries text of a choice, with a hole for it."""

    def choice(self, holder: Mapping[str, object], default: object = 0) -> int:
        """The index of a choice that was asked for."""
        index = holder.get("index", default)
        if type(index) is not int or not 0 <= index < self.prepared.choices:
            raise invalid("The upstream sent a choice that was not asked for.")
        self.choices[index] = None
        return index

    def feed_text(self, index: int, text: str) -> None:
        """Take text of a choice."""
        if not self.is_open(index):
            self.open(index, MarkerView(self.kind), self.delta(index), lane=index)
        self.feed(index, text)

    def read(self, event: Event) -> dict[str, Any] | None:
        if is_done(event.data):
            self.upstream_done()
            return None
        if event.name not in ("", "message", "error"):
            return None  # copies in disguise, or nothing
        document = loads(event.data)
        if document is None:  # llama.cpp, between the choices of several prompts
            return None
        if not isinstance(document, dict):
            raise invalid("The upstream's stream could not be read.")
        return document

    def upstream_done(self) -> None:
        """The upstream says that all is written: a choice that was not ended ends without a reason."""
        for index in self.choices:
            self.finish(index)
        self.complete()

    def all_over(self, indexes: Iterable[int]) -> bool:
        """Whether nothing of these choices is moderated any more."""
        return all(self.is_over(index) for index in indexes)

    def upstream_ended(self) -> None:
        if not self.choices or not self.all_over(self.choices):
            raise UpstreamFault(ErrorKind.UPSTREAM_INTERRUPTED, INTERRUPTED)
        self.complete()
