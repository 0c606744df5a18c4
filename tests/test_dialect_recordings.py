"""Every recording beside the repository is of a dialect that is served, or of a protocol that is refused."""

from pathlib import Path

import pytest

from cotguard.dialects.catalogue import dialects

MANIFEST = Path(__file__).resolve().parents[2] / "shared" / "fixtures" / "MANIFEST.tsv"
SERVED = {
    "chat-completions": "chat_completions",
    "tgi openai-compat": "chat_completions",
    "legacy-completions": "completions",
    "responses": "responses",
    "anthropic-messages": "anthropic",
    "ollama-api": "ollama",
    "gemini-generateContent": "gemini",
    "gemini-streamGenerateContent": "gemini",
    "gemini-interactions": "interactions",
    "bedrock": "bedrock",
    "cohere-v2": "cohere",
    "tgi-native": "generate",
}
REFUSED = ("realtime-websocket", "gemini-live-websocket", "replicate")
"""WebSockets, and a service whose streams are no JSON: nothing of them is served."""


@pytest.mark.skipif(not MANIFEST.is_file(), reason="no recordings beside the repository")
def test_every_recording_is_served_or_refused() -> None:
    names = {dialect.name for dialect in dialects()}
    for line in MANIFEST.read_text("utf-8").splitlines()[1:]:
        kind = line.split("\t")[2]
        served = [name for start, name in SERVED.items() if kind.startswith(start)]
        assert len(served) == 1 or kind.startswith(REFUSED), kind
        assert set(served) <= names
