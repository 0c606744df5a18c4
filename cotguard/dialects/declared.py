"""Whole tool calls: only those of tools that the request declared are kept."""

from typing import Any

from cotguard.dialects.contract import ErrorKind, UpstreamFault

__all__ = ["keep_declared", "tool_name"]


def keep_declared(holder: dict[str, Any], tools: frozenset[str]) -> None:
    """Drop the other items of ``holder``'s ``tool_calls``, each of which names its tool in ``function.name``.

    Raises :class:`UpstreamFault` where they are no list.
    """
    calls = holder.get("tool_calls")
    if calls is None:
        return
    if not isinstance(calls, list):
        raise UpstreamFault(ErrorKind.UPSTREAM_INVALID, "The upstream's tool calls are not a list.")
    holder["tool_calls"] = [each for each in calls if tool_name(each) in tools]


def tool_name(call: object) -> str:
    """The tool that a call names; empty where it names none."""
    function = call.get("function") if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else ""
