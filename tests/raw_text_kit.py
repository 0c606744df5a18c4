"""The forms of raw text as their servers send them and their clients read them, for tests that hold for all of them."""

import json
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from dialect_kit import CANARY, ask

from cotguard.dialects.contract import Dialect, Prepared
from cotguard.dialects.raw_text.completions import Completions
from cotguard.dialects.raw_text.generate import Generate
from cotguard.dialects.raw_text.llamacpp import LlamaCpp

__all__ = ["FORMS", "PROMPT", "Form", "cuts", "events", "sse"]

PROMPT = "Go on:"
Piece = tuple[int, str]
State = dict[int, str]


def sse(documents: Sequence[object], *, done: bool = False) -> bytes:
    """Documents as a stream."""
    blocks = [b"data: " + json.dumps(each).encode() + b"\n\n" for each in documents]
    return b"".join([*blocks, *([b"data: [DONE]\n\n"] if done else [])])


def events(out: bytes) -> list[dict[str, Any]]:
    """The documents of a stream."""
    lines = [line.removeprefix(b"data: ") for line in out.split(b"\n\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def cuts(text: str, seed: int, most: int = 6) -> list[str]:
    """The text in pieces of one to ``most`` characters."""
    rng, pieces = random.Random(seed), []
    while text:
        size = rng.randint(1, most)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


class Form(ABC):
    """One form: what a server sends for pieces of text, and what a client has in the end."""

    name: str
    dialect: Dialect
    action: str
    done = False
    mirrors: Sequence[str] = ()
    """Paths of places in an event or document, of copies and of texts that are not the answer, with their values."""

    @abstractmethod
    def request(self, choices: int, *, streamed: bool) -> dict[str, Any]: ...

    def prepared(self, choices: int = 1, *, streamed: bool = True) -> Prepared:
        return ask(self.dialect, self.action, self.request(choices, streamed=streamed))

    @abstractmethod
    def documents(self, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        """The events for pieces of choices, in that order, and the ends of all choices."""

    @abstractmethod
    def whole(self, texts: Sequence[str]) -> Any:
        """A whole body."""

    @abstractmethod
    def read(self, state: State, event: dict[str, Any]) -> None:
        """What a client makes of an event."""

    @abstractmethod
    def read_whole(self, body: Any) -> State:
        """What a client makes of a whole body."""

    @abstractmethod
    def reasons(self, documents: Sequence[dict[str, Any]]) -> list[object]:
        """Why choices ended, in order."""

    def stream(self, pieces: Sequence[Piece]) -> bytes:
        return sse(self.documents(pieces), done=self.done)

    def states(self, out: bytes) -> Iterator[State]:
        """What a client has after each event."""
        state: State = {}
        for event in events(out):
            self.read(state, event)
            yield dict(state)

    def joined(self, out: bytes) -> State:
        *_, last = self.states(out)
        return last


def _indexes(pieces: Sequence[Piece]) -> list[int]:
    return list(dict.fromkeys(index for index, _ in pieces))


class OpenAI(Form):
    name = "completions"
    dialect = Completions()
    action = "complete"
    done = True
    mirrors = (
        "x",
        "prompt_text",
        "__verbose.content",
        "kv_transfer_params.host",
        "sglext.output_ids",
        "obfuscation",
        "prompt_filter_results.0.text",
        "usage.note",
        "choices.0.x",
        "choices.0.delta.content",
        "choices.0.message.content",
        "choices.0.logprobs.tokens.0",
        f"choices.0.logprobs.top_logprobs.0.{CANARY}",
        "choices.0.stop_reason",
        "choices.0.matched_stop",
        "choices.0.token_ids.0",
        "choices.0.prompt_token_ids.0",
        "choices.0.prompt_logprobs.0.decoded_token",
        "choices.0.hidden_states.0",
        "choices.0.routed_experts",
        "choices.0.content_filter_results.citation.URL",
    )

    def request(self, choices: int, *, streamed: bool) -> dict[str, Any]:
        return {"model": "m", "prompt": PROMPT, "n": choices, "stream": streamed}

    def _around(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        fields = {"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m"}
        return {**fields, "choices": choices}

    def _choice(self, index: int, text: str, reason: str | None) -> dict[str, Any]:
        return {"text": text, "index": index, "logprobs": None, "finish_reason": reason}

    def documents(self, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        texts = [self._around([self._choice(index, text, None)]) for index, text in pieces]
        ends = [self._around([self._choice(index, "", "length")]) for index in _indexes(pieces)]
        return [*texts, *ends, {**self._around([]), "usage": {"total_tokens": 5}}]

    def whole(self, texts: Sequence[str]) -> Any:
        choices = [self._choice(index, text, "length") for index, text in enumerate(texts)]
        return {**self._around(choices), "usage": {"total_tokens": 5}}

    def read(self, state: State, event: dict[str, Any]) -> None:
        for choice in event.get("choices", ()):
            state[choice["index"]] = state.get(choice["index"], "") + choice["text"]

    def read_whole(self, body: Any) -> State:
        return {choice["index"]: choice["text"] for choice in body["choices"]}

    def reasons(self, documents: Sequence[dict[str, Any]]) -> list[object]:
        reasons = [choice["finish_reason"] for each in documents for choice in each.get("choices", ())]
        return [reason for reason in reasons if reason]


class Llama(Form):
    name = "llamacpp"
    dialect = LlamaCpp()
    action = "complete"
    mirrors = (
        "x",
        "tokens.0",
        "prompt",
        "stopping_word",
        "stop_type",
        "generation_settings.grammar",
        "generation_settings/stop",
        "completion_probabilities.0.token",
        "completion_probabilities.0.top_logprobs.0.bytes",
        "probs.0.tok_str",
        "prompt_progress.note",
        "timings.note",
        "__verbose.content",
        "id_slot",
    )

    def request(self, choices: int, *, streamed: bool) -> dict[str, Any]:
        prompt = PROMPT if choices == 1 else [PROMPT] * choices
        return {"prompt": prompt, "n_predict": 9, "stream": streamed}

    def _last(self, index: int, content: str) -> dict[str, Any]:
        fields = {"index": index, "content": content, "tokens": [], "id_slot": 0, "stop": True, "model": "m.gguf"}
        numbers = {"tokens_predicted": 3, "tokens_evaluated": 1, "tokens_cached": 4, "timings": {"predicted_n": 3}}
        told = {"generation_settings": {"seed": 1}, "prompt": PROMPT, "has_new_line": False, "stopping_word": ""}
        return {**fields, **numbers, **told, "truncated": False, "stop_type": "limit"}

    def documents(self, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        texts = [
            {"index": index, "content": text, "tokens": [9], "stop": False, "id_slot": -1, "tokens_predicted": number}
            for number, (index, text) in enumerate(pieces)
        ]
        return [*texts, *(self._last(index, "") for index in _indexes(pieces))]

    def whole(self, texts: Sequence[str]) -> Any:
        results = [self._last(index, text) for index, text in enumerate(texts)]
        return results[0] if len(results) == 1 else results

    def read(self, state: State, event: dict[str, Any]) -> None:
        if "content" in event:
            state[event["index"]] = state.get(event["index"], "") + event["content"]

    def read_whole(self, body: Any) -> State:
        return {each["index"]: each["content"] for each in (body if isinstance(body, list) else [body])}

    def reasons(self, documents: Sequence[dict[str, Any]]) -> list[object]:
        return [each["stop_type"] for each in documents if each.get("stop")]


class Tgi(Form):
    name = "tgi"
    dialect = Generate()
    action = "generate_stream"
    mirrors = (
        "x",
        "prompt",
        "token.x",
        "token.id",
        "top_tokens.0.text",
        "details.x",
        "details.finish_reason",
        "details.tokens.0.text",
        "details.prefill.0.text",
        "details.best_of_sequences.0.generated_text",
    )

    def request(self, choices: int, *, streamed: bool) -> dict[str, Any]:
        return {"inputs": PROMPT, "parameters": {"details": True}}

    def _event(self, at: int, text: str, *, special: bool = False) -> dict[str, Any]:
        token = {"id": 9, "text": text, "logprob": -0.5, "special": special}
        return {"index": at, "token": token, "generated_text": None, "details": None}

    def documents(self, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        texts = [self._event(at, text) for at, (_, text) in enumerate(pieces, start=1)]
        details = {"finish_reason": "eos_token", "generated_tokens": 3, "input_length": 2, "seed": None}
        last = self._event(len(pieces) + 1, "</s>", special=True)
        return [*texts, {**last, "generated_text": "".join(text for _, text in pieces), "details": details}]

    def whole(self, texts: Sequence[str]) -> Any:
        token = {"id": 9, "text": texts[0], "logprob": -0.5, "special": False}
        details = {"finish_reason": "eos_token", "generated_tokens": 3, "seed": None, "prefill": [], "tokens": [token]}
        return {"generated_text": texts[0], "details": details}

    def read(self, state: State, event: dict[str, Any]) -> None:
        token = event.get("token")
        if token and not token["special"]:
            state[0] = state.get(0, "") + token["text"]
        if event.get("generated_text") is not None:
            assert state.get(0, "") == event["generated_text"]

    def read_whole(self, body: Any) -> State:
        return {0: body["generated_text"]}

    def reasons(self, documents: Sequence[dict[str, Any]]) -> list[object]:
        return [each["details"]["finish_reason"] for each in documents if each.get("details")]


class Repeating(Form):
    name = "sglang"
    dialect = Tgi.dialect
    action = "generate"
    done = True
    mirrors = (
        "x",
        "output_ids.0",
        "meta_info.x",
        "meta_info.output_token_logprobs.0.2",
        "meta_info.input_token_logprobs.0.2",
        "meta_info.hidden_states.0",
        "meta_info.routed_experts",
        "meta_info.prompt_token_ids.0",
        "meta_info.weight_version",
        "meta_info.finish_reason.matched",
        "meta_info.finish_reason.message",
        "meta_info.finish_reason.type",
    )
    _repeats = True

    def request(self, choices: int, *, streamed: bool) -> dict[str, Any]:
        return {"text": PROMPT, "sampling_params": {"n": choices}, "stream": streamed}

    def _event(self, index: int, text: str, reason: object, **fields: object) -> dict[str, Any]:
        meta = {"id": "r1", "finish_reason": reason, "prompt_tokens": 2, "completion_tokens": 3, "cached_tokens": 0}
        return {"text": text, "output_ids": [9], "meta_info": meta, "index": index, **fields}

    def documents(self, pieces: Sequence[Piece]) -> list[dict[str, Any]]:
        texts: State = {}
        found = []
        for index, text in pieces:
            texts[index] = texts.get(index, "") + text
            found.append(self._event(index, texts[index] if self._repeats else text, None))
        for index, text in texts.items():
            found.append(self._event(index, text if self._repeats else "", {"type": "length", "length": 9}))
        return found

    def whole(self, texts: Sequence[str]) -> Any:
        results = [self._event(index, text, {"type": "length", "length": 9}) for index, text in enumerate(texts)]
        return results[0] if len(results) == 1 else results

    def read(self, state: State, event: dict[str, Any]) -> None:
        if "text" in event:
            before = "" if self._repeats else state.get(event["index"], "")
            state[event["index"]] = before + event["text"]

    def read_whole(self, body: Any) -> State:
        return {each["index"]: each["text"] for each in (body if isinstance(body, list) else [body])}

    def reasons(self, documents: Sequence[dict[str, Any]]) -> list[object]:
        found = [each["meta_info"]["finish_reason"] for each in documents if "meta_info" in each]
        return [reason["type"] for reason in found if reason]


class Incremental(Repeating):
    name = "sglang-incremental"
    _repeats = False


FORMS: Sequence[Form] = (OpenAI(), Llama(), Tgi(), Repeating(), Incremental())
