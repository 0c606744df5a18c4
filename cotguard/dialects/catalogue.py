"""All dialects, in the order in which their routes are tried."""

from collections.abc import Sequence

from cotguard.dialects.anthropic import Anthropic
from cotguard.dialects.bedrock import Bedrock
from cotguard.dialects.chat_completions import ChatCompletions
from cotguard.dialects.cohere import Cohere
from cotguard.dialects.completions import Completions
from cotguard.dialects.contract import Dialect
from cotguard.dialects.gemini import Gemini
from cotguard.dialects.generate import Generate
from cotguard.dialects.interactions import Interactions
from cotguard.dialects.llamacpp import LlamaCpp
from cotguard.dialects.mistral_conversations import MistralConversations
from cotguard.dialects.ollama import Ollama
from cotguard.dialects.responses import Responses
from cotguard.dialects.transcription import Transcription

__all__ = ["dialects"]


def dialects() -> Sequence[Dialect]:
    """One of each, with the tables that are shipped."""
    return (
        ChatCompletions(),
        Completions(),
        Responses(),
        Anthropic(),
        Gemini(),
        Interactions(),
        Ollama(),
        Bedrock(),
        LlamaCpp(),
        Generate(),
        Cohere(),
        MistralConversations(),
        Transcription(),
    )
