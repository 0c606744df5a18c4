"""All dialects, in the order in which their routes are tried."""

from collections.abc import Sequence

from cotguard.dialects.chat_completions import ChatCompletions
from cotguard.dialects.contract import Dialect
from cotguard.dialects.gemini import Gemini
from cotguard.dialects.interactions import Interactions
from cotguard.dialects.ollama import Ollama

__all__ = ["dialects"]


def dialects() -> Sequence[Dialect]:
    """One of each, with the tables that are shipped."""
    return (ChatCompletions(), Ollama(), Interactions(), Gemini())
