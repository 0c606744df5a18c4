"""What upstreams report of a response beside its text: why it ended, how many tokens it took. For traces.

Read by name where the dialects have it, and nowhere else: what a model wrote stands elsewhere. Reasons are words of a
fixed set.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["Reported"]

_REASON_NAMES: Final = ("finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason")
_REASONS: Final = frozenset(
    {
        *("stop", "length", "tool_calls", "content_filter", "function_call", "error", "abort"),
        *("end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal", "guardrail_intervened"),
        *(
            "eos_token",
            "complete",
            "tool_call",
            "timeout",
            "safety",
            "recitation",
            "content_filtered",
            "load",
            "unload",
        ),
    }
)
_LISTS: Final = ("choices", "candidates", "outputs")
_INPUT_NAMES: Final = (
    "prompt_tokens",
    "input_tokens",
    "inputTokens",
    "promptTokenCount",
    "prompt_eval_count",
    "tokens_evaluated",
)
_OUTPUT_NAMES: Final = (
    "completion_tokens",
    "output_tokens",
    "outputTokens",
    "candidatesTokenCount",
    "eval_count",
    "tokens_predicted",
    "generated_tokens",
)
_USAGE: Final = ("usage", "usageMetadata", "tokens")
_HOLDERS: Final = ("response", "message", "delta", "metadata", "details", "meta_info", "interaction")
"""Objects in a response, or in an event, that tell of all of it."""
_MAX_CHOICES: Final = 128


class Reported:
    """The account of one response. Counts are ``None`` where none were reported."""

    __slots__ = ("finish_reasons", "input_tokens", "output_tokens")

    def __init__(self) -> None:
        self.finish_reasons: list[str] = []
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None

    def take(self, document: Mapping[str, Any]) -> None:
        """Note what a whole response, or one event of a stream, reports. The last count is that of all."""
        for holder in _holders(document):
            self.input_tokens = _count(holder, _INPUT_NAMES, self.input_tokens)
            self.output_tokens = _count(holder, _OUTPUT_NAMES, self.output_tokens)
            for name in _REASON_NAMES:
                self._take_reason(holder.get(name))

    def _take_reason(self, reason: object) -> None:
        if isinstance(reason, dict):  # as SGLang has it
            reason = reason.get("type")
        if isinstance(reason, str) and reason and len(self.finish_reasons) < _MAX_CHOICES:
            word = reason.lower()
            self.finish_reasons.append(word if word in _REASONS else "other")


def _holders(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield document
    for name in _LISTS:
        items = document.get(name)
        if isinstance(items, list):
            yield from (item for item in items if isinstance(item, dict))
    for name in (*_HOLDERS, *_USAGE):
        inner = document.get(name)
        if isinstance(inner, dict):
            yield inner
            for usage in _USAGE:
                deeper = inner.get(usage)
                if isinstance(deeper, dict):
                    yield deeper
                    yield from (each for each in (deeper.get("tokens"),) if isinstance(each, dict))


def _count(holder: Mapping[str, Any], names: tuple[str, ...], before: int | None) -> int | None:
    for name in names:
        value = holder.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
            return value
    return before
