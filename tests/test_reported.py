"""What traces say of a response: token counts and reasons, wherever a dialect has them, and nothing else."""

from typing import Any

import pytest

from cotguard.dialects.reported import Reported

VALUE = "ann.lee@example.com"


def reported(*documents: dict[str, Any]) -> tuple[list[str], int | None, int | None]:
    found = Reported()
    for document in documents:
        found.take(document)
    return found.finish_reasons, found.input_tokens, found.output_tokens


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        (  # Chat Completions, whole
            [
                {
                    "choices": [{"finish_reason": "stop"}, {"finish_reason": "length"}],
                    "usage": {"prompt_tokens": 3, "completion_tokens": 5},
                }
            ],
            (["stop", "length"], 3, 5),
        ),
        (  # and streamed
            [
                {"choices": [{"delta": {"content": "x"}, "finish_reason": None}]},
                {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
                {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}},
            ],
            (["tool_calls"], 3, 5),
        ),
        (  # Responses
            [{"type": "response.completed", "response": {"usage": {"input_tokens": 3, "output_tokens": 5}}}],
            ([], 3, 5),
        ),
        (  # Anthropic
            [
                {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}},
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}},
            ],
            (["end_turn"], 3, 5),
        ),
        (  # Gemini
            [
                {
                    "candidates": [{"finishReason": "MAX_TOKENS"}],
                    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 5},
                }
            ],
            (["max_tokens"], 3, 5),
        ),
        (  # Bedrock's Converse
            [{"stopReason": "tool_use"}, {"usage": {"inputTokens": 3, "outputTokens": 5}}],
            (["tool_use"], 3, 5),
        ),
        (  # Cohere
            [{"delta": {"finish_reason": "COMPLETE", "usage": {"tokens": {"input_tokens": 3, "output_tokens": 5}}}}],
            (["complete"], 3, 5),
        ),
        ([{"done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 5}], (["stop"], 3, 5)),  # Ollama
        (  # SGLang
            [{"meta_info": {"finish_reason": {"type": "length", "length": 9}, "prompt_tokens": 3}}],
            (["length"], 3, None),
        ),
    ],
)
def test_counts_and_reasons_of_every_dialect(documents: list[dict[str, Any]], expected: object) -> None:
    assert reported(*documents) == expected


def test_words_that_are_none_of_the_known_and_wrong_counts_are_not_taken() -> None:
    document = {
        "choices": [{"finish_reason": VALUE, "message": {"content": VALUE, "usage": {"prompt_tokens": 1}}}],
        "usage": {"prompt_tokens": VALUE, "completion_tokens": True},
        "message": {"tool_calls": [{"function": {"arguments": {"input_tokens": 12345}}}]},
        "delta": VALUE,
        "response": [VALUE],
    }
    assert reported(document) == (["other"], None, None)


def test_what_is_kept_is_bounded() -> None:
    reasons, *_ = reported({"choices": [{"finish_reason": "stop"}] * 1000})
    assert len(reasons) == 128
