"""All dialects, in the order in which their routes are tried."""

from collections.abc import Sequence

from cotguard.dialects.anthropic.dialect import Anthropic
from cotguard.dialects.bedrock.dialect import Bedrock
from cotguard.dialects.chat.dialect import ChatCompletions
from cotguard.dialects.cohere import Cohere
from cotguard.dialects.contract import Dialect
from cotguard.dialects.gemini.dialect import Gemini
from cotguard.dialects.gemini.interactions import Interactions
from cotguard.dialects.mistral_conversations import MistralConversations
from cotguard.dialects.ollama import Ollama
from cotguard.dialects.raw_text.completions import Completions
from cotguard.dialects.raw_text.generate import Generate
from cotguard.dialects.raw_text.llamacpp import LlamaCpp
from cotguard.dialects.responses.dialect import Responses
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
