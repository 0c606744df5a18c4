"""All dialects, in the order in which their routes are tried."""

from collections.abc import Sequence

from cotguard.dialects.chat_completions import ChatCompletions
from cotguard.dialects.cohere import Cohere
from cotguard.dialects.contract import Dialect
from cotguard.dialects.mistral_conversations import MistralConversations
from cotguard.dialects.ollama import Ollama
from cotguard.dialects.transcription import Transcription

__all__ = ["dialects"]


def dialects() -> Sequence[Dialect]:
    """One of each, with the tables that are shipped."""
    return (ChatCompletions(), Ollama(), Cohere(), MistralConversations(), Transcription())
