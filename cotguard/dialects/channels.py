"""The channel names that tables use for texts, and what each of them means."""

from collections.abc import Mapping

from cotguard.moderation.json_view import JsonView
from cotguard.moderation.markers import MarkerView, initial_kind
from cotguard.moderation.view import PlainView, View
from cotguard.spans import ChannelKind

__all__ = ["KINDS", "STRUCTURED", "view_of"]

KINDS: Mapping[str, ChannelKind] = {
    "reasoning": ChannelKind.REASONING,
    "content": ChannelKind.OUTPUT,
    "refusal": ChannelKind.REFUSAL,
    "transcript": ChannelKind.OUTPUT,
    "arguments": ChannelKind.TOOL_CALL,
    "input": ChannelKind.TOOL_CALL,
    "other": ChannelKind.OTHER,
}
"""``content`` may hold inline reasoning, ``arguments`` are JSON, as text or as a value, ``other`` is any other text."""

STRUCTURED = "arguments"


def view_of(channel: str, model: str = "") -> View:
    """The view of a channel's text. ``model``: where nothing but its name tells whether it opens inside a thought."""
    if channel == STRUCTURED:
        return JsonView()
    if channel == "content":
        return MarkerView(initial_kind(model))
    return PlainView(KINDS[channel])
