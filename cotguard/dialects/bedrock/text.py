"""Models that complete a prompt by InvokeModel: Titan, Llama, Mistral and DeepSeek, each with a format of its own.

Every chunk holds the next piece of one text; the last says why it ended and adds numbers. Numbers of earlier chunks are
told with the last. DeepSeek leaves its reasoning in the text.

Only Titan has a reason for a cut; with the others a notice says it in the text.
"""

from typing import Any, NamedTuple

from cotguard.dialects.bedrock.stream import BedrockStream, Exceptions
from cotguard.dialects.channels import view_of
from cotguard.dialects.contract import ErrorKind, Prepared, UpstreamFault
from cotguard.dialects.stream import Fed, Outgoing
from cotguard.dialects.table import HOLE, Shape
from cotguard.dialects.whole import moderate
from cotguard.framing.bedrock import Chunks
from cotguard.moderation.exchange import Exchange

__all__ = ["CompletionStream", "TextForm", "text_body"]


_KEY = 0


class TextForm(NamedTuple):
    """How a family writes a text. ``within``: the list that holds it, whole; ``chunk_within``: and in chunks.

    ``cut`` is the reason of a text that a block ended; ``notice`` is written where it does not tell.
    """

    prompt: str
    whole: Shape
    chunk: Shape
    within: str
    chunk_within: str
    text: str
    reason: str
    cut: str
    notice: str


def _holder(document: dict[str, Any], within: str) -> dict[str, Any]:
    """The object that holds the text: the list's only item, or the document."""
    if not within:
        return document
    held = document.get(within)
    if held is None or held == []:
        return {}
    if not isinstance(held, list) or len(held) != 1 or not isinstance(held[0], dict):
        raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's response has more than one text.")
    return held[0]


def text_body(value: dict[str, Any], form: TextForm, prepared: Prepared, exchange: Exchange) -> dict[str, Any]:
    """The moderated answer of a model that completes a prompt."""
    _holder(value, form.within)
    lane = exchange.lane(0)
    written = moderate(value, form.whole, lane, lambda text: view_of(text.channel, prepared.model))
    if lane.cut:
        holder = _holder(written, form.within)
        ended = holder | {form.text: (holder.get(form.text) or "") + form.notice, form.reason: form.cut}
        written |= {form.within: [ended]} if form.within else ended
    return written


class CompletionStream(BedrockStream):
    """See the module."""

    def __init__(
        self, form: TextForm, invocation: Shape, prepared: Prepared, exchange: Exchange, exceptions: Exceptions
    ) -> None:
        super().__init__(Chunks(), prepared, exchange, exceptions)
        self._form = form
        self._invocation = invocation
        self._numbers: dict[str, Any] = {}
        self._stopped = False

    def _chunk(self, text: str, reason: str | None, rest: dict[str, Any]) -> Outgoing:
        form = self._form
        held = {form.text: text, form.reason: reason}
        return Outgoing("", {**({form.chunk_within: [held]} if form.chunk_within else held), **rest})

    def take(self, name: str, document: dict[str, Any]) -> Fed | None:
        form = self._form
        metrics = self._invocation.copy(document).root
        if self._stopped:
            if metrics:
                self.write(Outgoing("", metrics))
            return None
        reason = _holder(document, form.chunk_within).get(form.reason)
        copied = form.chunk.copy(document)
        for text in copied.texts:
            if not self.is_open(_KEY):
                self.open(_KEY, view_of(text.channel, self.prepared.model), self._chunk(HOLE, None, {}))
            self.feed(_KEY, text.text)
        own = (form.text, form.reason, form.chunk_within)
        numbers = {each: value for each, value in copied.root.items() if value is not None and each not in own}
        self._numbers |= numbers
        if isinstance(reason, str):
            if self.finish():
                self._stopped = True
                told = _holder(copied.root, form.chunk_within).get(form.reason)
                self.write(self._chunk("", told, {**self._numbers, **metrics}))
            return None
        only = copied.texts[0] if len(copied.texts) == 1 and not numbers else None
        return None if only is None else Fed(0, _KEY, only.text, only.origin)

    def upstream_ended(self) -> None:
        if not self._stopped:
            raise self.interrupted()
        self.complete()

    def was_cut(self, lane: int) -> None:
        self.write(self._chunk(self._form.notice, self._form.cut, {}))
        self.complete()
