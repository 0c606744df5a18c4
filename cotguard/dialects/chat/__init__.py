"""OpenAI Chat Completions and its many extensions."""
