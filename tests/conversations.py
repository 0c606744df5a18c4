"""Generated conversations, and a client and a model for each dialect: what one sends, the other answers, one gets.

A conversation is the same for all dialects: a system prompt, a tool, turns of user, assistant and tool. Planted values
stand in all of its texts, each in a sentence that only this value has, and come again in later turns. A client writes
the request as its dialect has it and joins what it gets; a model answers with placeholders that it saw and with planted
values that were never sent.
"""

import contextlib
import json
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar
from urllib.parse import quote

import raw_text_kit
import responses_kit
import test_dialect_anthropic as anthropic_kit
import test_dialect_bedrock as bedrock
import test_dialect_chat as chat
import test_dialect_cohere as cohere_kit
import test_dialect_gemini as gemini
import test_dialect_interactions as interactions
import test_dialect_mistral_conversations as mistral
import test_dialect_ollama as ollama
import test_dialect_transcription as transcription
from bedrock_kit import STREAM, chunks, frames
from dialect_checks import events, pieces
from genai_kit import elements
from genai_kit import events as google_events
from planted import PLANTED, Planted, carried

from cotguard.dialects.contract import Dialect, Incoming, Prepared
from cotguard.dialects.responses.dialect import Responses as ResponsesDialect
from cotguard.framing.bedrock import Chunks

__all__ = [
    "CLIENTS",
    "SIGNATURE",
    "Client",
    "Conversation",
    "Reply",
    "Said",
    "Turn",
    "answered",
    "conversation",
    "harmless",
    "leaves",
    "placeholders",
]

Json = dict[str, Any]

SIGNATURE = "Eo8BCioIAhgBIiQyYjQ0OWJmZi" * 6
"""Ciphertext of the upstream's, that clients send back."""

_ENTRIES = ("Alfa", "Bravo", "Charlie", "Delta", "Echo", "Foxtrot", "Golf", "Hotel", "India", "Juliett", "Kilo", "Lima")
_CARD = Planted("CREDIT_CARD", "4111111111111111")
_FILLERS = ("So it stands.", "We go on with that.", "Nothing else was asked.", "It was looked at twice.", "Let us see.")
_ASIDES = ("I wonder why.", "One might doubt it.", "Hardly anybody minds.", "That may change later.")
"""What only the model says: words of the system prompt would be taken out."""


# --- Conversations -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """What the user says, and what came of it. Of the last turn there is only the user's text."""

    user: str
    reasoning: str = ""
    answer: str = ""
    arguments: Json = field(default_factory=dict)
    result: str | Json = ""


@dataclass(frozen=True)
class Conversation:
    """See the module. ``entries``: the word before the sentence of each planted value. ``foreign`` are never sent."""

    system: str
    tool: Json
    turns: Sequence[Turn]
    identity: str
    entries: Mapping[Planted, str]
    foreign: Sequence[Planted]

    @property
    def planted(self) -> Sequence[Planted]:
        """The values that are sent."""
        return tuple(self.entries)

    def transcript(self) -> str:
        """The conversation as one text."""
        said = [self.system, f"Tool: {_prose(self.tool)}"]
        for turn in self.turns:
            said += [f"User: {turn.user}", f"Thought: {turn.reasoning}", f"Model: {turn.answer}"]
            said += [f"Call: {_prose(turn.arguments)}", f"Result: {_prose(turn.result)}"]
        return "\n\n".join(said)

    @staticmethod
    def written(result: str | Json) -> str:
        """A tool's result as a string."""
        return result if isinstance(result, str) else json.dumps(result)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _prose(value: object) -> str:
    """JSON as it stands within a text: with its line breaks, which escaped would be another value."""
    return _json(value).replace("\\n", "\n")


def _apart(planted: Planted, others: Sequence[Planted]) -> bool:
    """Whether no other value holds this one or is held by it, but for its end, which some spellings lack."""
    return all(planted.value[:-3] not in each.value and each.value[:-3] not in planted.value for each in others)


def conversation(seed: int) -> Conversation:
    """The conversation with this number."""
    rng = random.Random(seed)
    chosen: list[Planted] = []
    for planted in rng.sample((*PLANTED, _CARD), 16):
        if _apart(planted, chosen):
            chosen.append(planted)
    count = rng.randint(3, 8)
    entries = dict(zip(chosen[:count], rng.sample(_ENTRIES, count), strict=True))

    def sentence() -> str:
        planted = rng.choice(tuple(entries))
        return f"Entry {entries[planted]}. {carried(planted)}"

    def text() -> str:
        return " ".join(rng.choice((rng.choice(_FILLERS), sentence())) for _ in range(rng.randint(1, 4)))

    def value() -> Any:
        bare = rng.choice(tuple(entries))
        if bare is _CARD:
            return int(bare.value)
        return rng.choice((text(), [sentence(), 7], {"inner": sentence(), "ok": True}, 12.5, None))

    def document() -> Json:
        found = {name: value() for name in rng.sample(("note", "who", "list", "of"), rng.randint(1, 3))}
        keys = [each for each in entries if each.carrier == _CARD.carrier]
        if keys and rng.random() < 0.5:
            found[rng.choice(keys).value] = rng.choice((1, "x"))
        return found

    schema = {
        "type": "object",
        "properties": {
            "note": {"type": "string", "description": text(), "default": sentence(), "examples": [text()]},
            "who": {"enum": [sentence(), "nobody"]},
        },
    }
    turns = [Turn(text(), text(), text(), document(), rng.choice((text, document))()) for _ in range(rng.randint(0, 5))]
    everything = " ".join(f"Entry {entry}. {carried(planted)}" for planted, entry in entries.items())
    return Conversation(
        system=f"You help. {text()}",
        tool={"name": "send", "description": f"It sends. {text()}", "parameters": schema},
        turns=[*turns, Turn(everything)],
        identity=sentence(),
        entries=entries,
        foreign=chosen[count : count + rng.randint(1, 4)],
    )


def harmless(talk: Conversation) -> Conversation:
    """The same conversation without the values."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            for planted, entry in talk.entries.items():
                value = value.replace(f"Entry {entry}. {carried(planted)}", _FILLERS[0])
            return value
        if isinstance(value, dict):
            values = {each.value for each in talk.planted}
            return {"key" if name in values else name: clean(each) for name, each in value.items()}
        if isinstance(value, list):
            return [clean(each) for each in value]
        return 7 if value == int(_CARD.value) else value

    turns = [Turn(*(clean(getattr(turn, each.name)) for each in fields(Turn))) for turn in talk.turns]
    return replace(
        talk,
        system=clean(talk.system),
        tool=clean(talk.tool),
        turns=turns,
        identity=clean(talk.identity),
        entries={},
    )


def leaves(value: object) -> Iterator[str]:
    """The strings in a document, with those in JSON that stands in strings."""
    if isinstance(value, str):
        yield value
        if value[:1] in ("{", "["):
            with contextlib.suppress(ValueError):
                yield from leaves(json.loads(value))
    elif isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each)


def placeholders(talk: Conversation, sent: object) -> dict[Planted, set[str]]:
    """What stands for each value in a request as it reached the upstream, by the sentence around it."""
    texts = list(leaves(sent))
    found: dict[Planted, set[str]] = {}
    for planted, entry in talk.entries.items():
        before, after = map(re.escape, f"Entry {entry}. {planted.carrier}".split("{}"))
        pattern = re.compile(f"{before}(.*?){after}", re.DOTALL)
        found[planted] = {match for text in texts for match in pattern.findall(text)}
    return found


# --- Answers -----------------------------------------------------------------------------------------------------


@dataclass
class Said:
    """What a model says in one channel, and what a client is to get of it."""

    said: str = ""
    expected: str = ""
    used: int = 0
    foreign: int = 0

    def add(self, said: str, expected: str) -> None:
        """A sentence more."""
        self.said += said + " "
        self.expected += expected + " "


@dataclass(frozen=True)
class Reply:
    """An answer: thoughts, text, and the arguments of one call."""

    reasoning: Said
    answer: Said
    arguments: Said

    def said(self, channel: str) -> str:
        """What the model says in a channel."""
        found: Said = getattr(self, channel)
        return found.said

    def pieces(self, channel: str, rng: random.Random) -> Sequence[str]:
        """The same as deltas."""
        return list(pieces(self.said(channel), rng))


def _escaped(placeholder: str) -> str:
    return re.sub(r"([\[\]_])", r"\\\1", placeholder)


_USES = (
    lambda p, v: (f"As for {p}, yes.", f"As for {v}, yes."),
    lambda p, v: (f"It is {p.lower()} again.", f"It is {v} again."),
    lambda p, v: (f"They said {_escaped(p)} then.", f"They said {v} then."),
    lambda p, v: (f"That is {p}'s turn.", f"That is {v}'s turn."),
    lambda p, v: (f"We have **{p}** here.", f"We have **{v}** here."),
    lambda p, v: (f"See [this one]({p}) first.", f"See [this one]({v}) first."),
    lambda p, v: (f"See ?q={p.replace('[', '%5B').replace(']', '%5D')} too.", f"See ?q={quote(v, safe='')} too."),
    lambda p, v: (f'Put {{"to": "{p}"}} there.', f'Put {{"to": "{v}"}} there.'),
    lambda p, v: (f"Take {p[1:-1]} now.", f"Take {v} now."),
    lambda p, v: (f"In code it is `{p}`.", f"In code it is `{v}`."),
)
"""How a model uses a placeholder: as it stands, re-cased, escaped, possessive, in bold, a link, a URL, JSON, code."""


def answered(talk: Conversation, given: Mapping[str, str], rng: random.Random) -> Reply:
    """An answer that uses placeholders (``given``: their values) and tells foreign values."""

    def prose() -> Said:
        said = Said()
        for _ in range(rng.randint(2, 5)):
            if given and rng.random() < 0.7:
                placeholder, value = rng.choice(tuple(given.items()))
                said.add(*rng.choice(_USES)(placeholder, value))
                said.used += 1
            if rng.random() < 0.3:
                said.add(*[rng.choice(_ASIDES)] * 2)
        for planted in rng.sample(talk.foreign, rng.randint(0, len(talk.foreign))):
            said.add(carried(planted), planted.carrier.format(f"[{planted.entity}]"))
            said.foreign += 1
        said.add("That is all.", "That is all.")
        return said

    inside = prose()
    said: Json = {"note": inside.said}
    expected: Json = {"note": inside.expected}
    if given:
        placeholder, value = rng.choice(tuple(given.items()))
        said |= {placeholder: 1, "list": [placeholder, True]}
        expected |= {value: 1, "list": [value, True]}
        inside.used += 2
    return Reply(prose(), prose(), Said(_json(said), _json(expected), inside.used, inside.foreign))


# --- Dialects ----------------------------------------------------------------------------------------------------


class Client(ABC):
    """One dialect, or one format of it: its client and its model."""

    name: str
    dialect: Dialect
    channels: ClassVar[Sequence[str]] = ("reasoning", "answer", "arguments")
    content_type = "text/event-stream"
    parameters: ClassVar[Mapping[str, str]] = {}

    def action(self, *, streamed: bool) -> str:
        """The route's."""
        return self.dialect.routes[0].action

    @abstractmethod
    def request(self, talk: Conversation, *, streamed: bool) -> Json:
        """The document that this dialect's clients send."""

    def fields(self, talk: Conversation) -> Sequence[tuple[str, str]]:
        """Those of a form."""
        return ()

    def prepared(self, document: Json, fields: Sequence[tuple[str, str]] = (), *, streamed: bool = True) -> Prepared:
        """A request, read."""
        action = self.action(streamed=streamed)
        route = next(route for route in self.dialect.routes if route.action == action)
        file = transcription.FILE if route.multipart else None
        incoming = Incoming(route, self.parameters, {}, json.dumps(document).encode(), fields, file)
        return self.dialect.prepare(incoming)

    @abstractmethod
    def stream(self, reply: Reply, rng: random.Random) -> bytes:
        """A streamed answer."""

    @abstractmethod
    def body(self, reply: Reply) -> bytes:
        """A whole answer."""

    @abstractmethod
    def read_stream(self, out: bytes) -> Mapping[str, str]:
        """What a client has of a stream, by channel."""

    @abstractmethod
    def read_body(self, out: bytes) -> Mapping[str, str]:
        """The same of a body."""


def _openai_tool(talk: Conversation) -> Json:
    return {"type": "function", "function": talk.tool}


class Chat(Client):
    """Chat Completions."""

    name = "chat"
    dialect = chat.DIALECT

    def request(self, talk: Conversation, *, streamed: bool) -> Json:
        messages: list[Json] = [{"role": "system", "content": talk.system}]
        for at, turn in enumerate(talk.turns):
            said: Any = turn.user if at % 2 else [{"type": "text", "text": turn.user}]
            messages.append({"role": "user", "content": said})
            if turn is not talk.turns[-1]:
                function = {"name": "send", "arguments": json.dumps(turn.arguments)}
                messages += [
                    {
                        "role": "assistant",
                        "content": turn.answer,
                        "reasoning_content": turn.reasoning,
                        "reasoning_details": [
                            {"type": "reasoning.text", "text": turn.reasoning, "signature": SIGNATURE}
                        ],
                        "tool_calls": [{"id": f"call_{at}", "type": "function", "function": function}],
                    },
                    {"role": "tool", "tool_call_id": f"call_{at}", "content": talk.written(turn.result)},
                ]
        return {
            "model": "m",
            "stream": streamed,
            "messages": messages,
            "tools": [_openai_tool(talk)],
            "user": talk.identity,
            "stop": ["END", talk.identity],
            "safety_identifier": talk.identity,
        }

    def stream(self, reply: Reply, rng: random.Random) -> bytes:
        return chat.sse(
            *(chat.say(each, "reasoning_content") for each in reply.pieces("reasoning", rng)),
            *(chat.say(each) for each in reply.pieces("answer", rng)),
            chat.calls(chat.call(0, "send", "", "call_9")),
            *(chat.calls(chat.call(0, arguments=each)) for each in reply.pieces("arguments", rng)),
            chat.stop("tool_calls"),
        )

    def body(self, reply: Reply) -> bytes:
        call = {"id": "call_9", "type": "function"}
        message = {
            "role": "assistant",
            "reasoning_content": reply.said("reasoning"),
            "content": reply.said("answer"),
            "tool_calls": [{**call, "function": {"name": "send", "arguments": reply.said("arguments")}}],
        }
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        return json.dumps({"id": "c", "object": "chat.completion", "choices": [choice]}).encode()

    def _read(self, message: Json) -> Mapping[str, str]:
        return {
            "reasoning": message["reasoning_content"],
            "answer": message["content"],
            "arguments": message["tool_calls"][0]["function"]["arguments"],
        }

    def read_stream(self, out: bytes) -> Mapping[str, str]:
        return self._read(chat.joined(chat.parse(out)))

    def read_body(self, out: bytes) -> Mapping[str, str]:
        return self._read(json.loads(out)["choices"][0]["message"])


class RawText(Client):
    """A form of raw text."""

    channels = ("answer",)

    def __init__(self, form: raw_text_kit.Form, prompt: str) -> None:
        self.form = form
        self.name = form.name
        self.dialect = form.dialect
        self._prompt = prompt

    def action(self, *, streamed: bool) -> str:
        return self.form.action if streamed else self.form.action.removesuffix("_stream")

    def request(self, talk: Conversation, *, streamed: bool) -> Json:
        return {**self.form.request(1, streamed=streamed), self._prompt: talk.transcript()}

    def stream(self, reply: Reply, rng: random.Random) -> bytes:
        return self.form.stream([(0, each) for each in reply.pieces("answer", rng)])

    def body(self, reply: Reply) -> bytes:
        return json.dumps(self.form.whole([reply.said("answer")])).encode()

    def read_stream(self, out: bytes) -> Mapping[str, str]:
        return {"answer": self.form.joined(out)[0]}

    def read_body(self, out: bytes) -> Mapping[str, str]:
        return {"answer": self.form.read_whole(json.loads(out))[0]}


class Responses(Client):
    """OpenAI Responses."""

    name = "responses"
    dialect = ResponsesDialect()

    def request(self, talk: Conversation, *, streamed: bool) -> Json:
        items: list[Json] = []
        for at, turn in enumerate(talk.turns):
            content = [{"type": "input_text", "text": turn.user}]
            items.append({"type": "message", "role": "user", "content": content})
            if turn is not talk.turns[-1]:
                thought = {"type": "summary_text", "text": turn.reasoning}
                said = {"type": "output_text", "text": turn.answer, "annotations": []}
                call = {"type": "function_call", "call_id": f"call_{at}", "name": "send"}
                result = {"type": "function_call_output", "call_id": f"call_{at}"}
                items += [
                    {"type": "reasoning", "id": f"rs_{at}", "summary": [thought], "encrypted_content": SIGNATURE},
                    {"type": "message", "role": "assistant", "status": "completed", "content": [said]},
                    {**call, "arguments": json.dumps(turn.arguments)},
                    {**result, "output": talk.written(turn.result)},
                ]
        return {
            "model": "m",
            "stream": streamed,
            "instructions": talk.system,
            "input": items,
            "tools": [{"type": "function", **talk.tool}],
            "user": talk.identity,
        }

    def _texts(self, reply: Reply) -> Sequence[tuple[responses_kit.Field, str]]:
        summary, output, call = (responses_kit.STREAMED[at] for at in (3, 0, 4))
        channels = ((summary, "reasoning"), (output, "answer"), (call, "arguments"))
        return [(each, reply.said(channel)) for each, channel in channels]

    def stream(self, reply: Reply, rng: random.Random) -> bytes:
        return responses_kit.sse(responses_kit.server(*self._texts(reply), seed=rng.randint(1, 10**6)))

    def body(self, reply: Reply) -> bytes:
        items = [responses_kit.item_of(each, text) for each, text in self._texts(reply)]
        return json.dumps(responses_kit.whole_response(*items)).encode()

    def _read(self, response: Json) -> Mapping[str, str]:
        thought, said, call = response["output"]
        return {
            "reasoning": thought["summary"][0]["text"],
            "answer": said["content"][0]["text"],
            "arguments": call["arguments"],
        }

    def read_stream(self, out: bytes) -> Mapping[str, str]:
        sent = responses_kit.documents(out)
        responses_kit.coherent(sent)
        return self._read(sent[-1]["response"])

    def read_body(self, out: bytes) -> Mapping[str, str]:
        return self._read(json.loads(out))


def _claude_request(talk: Conversation) -> Json:
    messages: list[Json] = []
    for at, turn in enumerate(talk.turns):
        content: list[Json] = [{"type": "text", "text": turn.user}]
        if at:
            result = talk.turns[at - 1].result
            told: Any = talk.written(result) if at % 2 else [{"type": "text", "text": talk.written(result)}]
            content.insert(0, {"type": "tool_result", "tool_use_id": f"toolu_{at - 1}", "content": told})
        messages.append({"role": "user", "content": content})
        if turn is not talk.turns[-1]:
            said = [
                {"type": "thinking", "thinking": turn.reasoning, "signature": SIGNATURE},
                {"type": "text", "text": turn.answer},
                {"type": "tool_use", "id": f"toolu_{at}", "name": "send", "input": turn.arguments},
            ]
            messages.append({"role": "assistant", "content": said})
    tool = {"name": "send", "description": talk.tool["description"], "input_schema": talk.tool["parameters"]}
    return {
        "max_tokens": 9,
        "system": [{"type": "text", "text": talk.system, "cache_control": {"type": "ephemeral", "ttl": "5m"}}],
        "messages": messages,
        "tools": [tool],
        "metadata": {"user_id": talk.identity},
        "stop_sequences": [talk.identity],
    }


def _claude_stream(reply: Reply, rng: random.Random) -> list[Json]:
    return [
        anthropic_kit.started(),
        *anthropic_kit.thinking(0, *reply.pieces("reasoning", rng)),
        *anthropic_kit.text(1, *reply.pieces("answer", rng)),
        *anthropic_kit.call(2, *reply.pieces("arguments", rng)),
        *anthropic_kit.ended("tool_use"),
    ]


def _claude_body(reply: Reply) -> bytes:
    blocks = [
        {"type": "thinking", "thinking": reply.said("reasoning"), "signature": SIGNATURE},
        {"type": "text", "text": reply.said("answer")},
        {"type": "tool_use", "id": "toolu_9", "name": "send", "input": json.loads(reply.said("arguments"))},
    ]
    return anthropic_kit.whole(blocks)


_CLAUDE_DELTAS = {"thinking": "reasoning", "text": "answer", "partial_json": "arguments"}


def _claude_joined(sent: Sequence[Json]) -> Mapping[str, str]:
    found = dict.fromkeys(_CLAUDE_DELTAS.values(), "")
    for each in sent:
        for name, channel in _CLAUDE_DELTAS.items():
            found[channel] += each.get("delta", {}).get(name, "")
    return found


def _claude_read(message: Json) -> Mapping[str, str]:
    thought, said, call = message["content"]
    return {"reasoning": thought["thinking"], "answer": said["text"], "arguments": _json(call["input"])}


class Anthropic(Client):
    """Anthropic Messages."""

    name = "anthropic"
    dialect = anthropic_kit.DIALECT

    def request(self, talk: Conversation, *, streamed: bool) -> Json:
        return {"model": anthropic_kit.MODEL, "stream": streamed, **_claude_request(talk)}

    def stream(self, reply: Reply, rng: random.Random) -> bytes:
        return anthropic_kit.sse(*_claude_stream(reply, rng))

    def body(self, reply: Reply) -> bytes:
        return _claude_body(reply)

    def read_stream(self, out: bytes) -> Mapping[str, str]:
        return _claude_joined(anthropic_kit.events(out))

    def read_body(self, out: bytes) -> Mapping[str, str]:
        return _claude_read(json.loads(out))


class Gemini(Client):
    """Google Gemini."""

    name = "gemini"
    dialect = gemini.DIALECT
    parameters = gemini.MODEL

    def action(self, *, streamed: bool) -> str:
        return "stream" if streamed else "generate"

    def request(self, talk: Conversation, *, streamed: bool) -> Json:
        contents: list[Json] = []
        for at, turn in enumerate(talk.turns):
            contents.append({"role": "user", "parts": [{"text": turn.user}]})
            if turn is not talk.turns[-1]:
                call = {"name": "send", "args": turn.arguments}
                result = {"result": turn.result} if isinstance(turn.result, str) else turn.result
                contents += [
                    {
                        "role": "model",
                        "parts": [
                            {"text": turn.reasoning, "thought": True},
                            {"text": turn.answer, "thoughtSignature": SIGNATURE},
                            {"functionCall" if at % 2 else "function_call": call},
                        ],
                    },
                    {"role": "user", "parts": [{"functionResponse": {"name": "send", "response": result}}]},
                ]
        return {
            "systemInstruction": {"parts": [{"text": talk.system}]},
            "contents": contents,
            "tools": [{"functionDeclarations": [talk.tool]}],
            "generationConfig": {"stopSequences": [talk.identity]},
            "labels": {"who": talk.identity},
        }

    def stream(self, reply: Reply, rng: random.Random) -> bytes:
        return google_events(
            [
                *(gemini.part(text=each, thought=True) for each in reply.pieces("reasoning", rng)),
                *(gemini.part(text=each) for each in reply.pieces("answer", rng)),
                gemini.part(functionCall={"name": "send", "args": json.loads(reply.said("arguments"))}),
                gemini.last(),
            ]
        )

    def body(self, reply: Reply) -> bytes:
        parts = [
            {"text": reply.said("reasoning"), "thought": True},
            {"text": reply.said("answer")},
            {"functionCall": {"name": "send", "args": json.loads(reply.said("arguments"))}},
        ]
        candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": "STOP"}
        return json.dumps(gemini.response(candidate)).encode()

    def _read(self, sent: Sequence[Json]) -> Mapping[str, str]:
        found = dict.fromkeys(self.channels, "")
        for document in sent:
            for each in document["candidates"][0]["content"]["parts"]:
                if "functionCall" in each:
                    found["arguments"] = _json(each["functionCall"]["args"])
                else:
                    found["reasoning" if each.get("thought") else "answer"] += each["text"]
        return found

    def read_stream(self, out: bytes) -> Mapping[str, str]:
        return self._read(elements(out))

    def read_body(self, out: bytes) -> Mapping[str, str]:
        return self._read([json.loads(out)])


class Interactions(Client):
    """Gemini Interactions."""

    name = "interactions"
    dialect = interactions.DIALECT

    def request(self, talk: Conversation, *, streamed: bool) -> Json:
        steps: list[Json] = []
        for at, turn in enumerate(talk.turns):
            steps.append({"type": "user_input", "content": [{"type": "text", "text": turn.user}]})
            if turn is not talk.turns[-1]:
                thought, said = ([{"type": "text", "text": text}] for text in (turn.reasoning, turn.answer))
                call = {"type": "function_call", "id": f"c-{at}", "name": "send"}
                result = {"type": "function_result", "call_id": f"c-{at}", "name": "send"}
                steps += [
                    {"type": "thought", "summary": thought, "signature": SIGNATURE},
                    {"type": "model_output", "content": said},
                    {**call, "arguments": turn.arguments},
                    {**result, "result": turn.result},
                ]
        return {
            "model": "m",
            "stream": streamed,
            "system_instruction": talk.system,
            "input": steps,
            "tools": [{"type": "function", **talk.tool}],
            "labels": {"who": talk.identity},
        }

    def _sent(self, reply: Reply, rng: random.Random) -> list[Json]:
        return [
            interactions.created(),
            *interactions.thought(0, *reply.pieces("reasoning", rng)),
            *interactions.output(1, *reply.pieces("answer", rng)),
            *interactions.call(2, "send", *reply.pieces("arguments", rng)),
            interactions.completed("requires_action"),
        ]

    def stream(self, reply: Reply, rng: random.Random) -> bytes:
        return google_events(self._sent(reply, rng))

    def body(self, reply: Reply) -> bytes:
        return json.dumps(interactions.whole_of(self._sent(reply, random.Random(1)))).encode()

    def read_stream(self, out: bytes) -> Mapping[str, str]:
        seen = interactions.Seen()
        for each in elements(out):
            interactions.take(seen, each)
        kinds = ("thought", "model_output", "function_call")
        return dict(zip(self.channels, map(seen.of, kinds), strict=True))

    def read_body(self, out: bytes) -> Mapping[str, str]:
        thought, said, call = json.loads(out)["steps"]
        return {
            "reasoning": thought["summary"][0]["text"],
            "answer": said["content"][0]["text"],
            "arguments": _json(call["arguments"]),
        }


class OllamaChat(Client):
    """Ollama's chat."""

    name = "ollama-chat"
    dialect = ollama.DIALECT
    content_type = "application/x-ndjson"

    def action(self, *, streamed: bool) -> str:
        return "chat"

    def request(self, talk: Conversation, *, streamed: bool) -> Json:
        messages: list[Json] = [{"role": "system", "content": talk.system}]
        for turn in talk.turns:
            messages.append({"role": "user", "content": turn.user})
            if turn is not talk.turns[-1]:
                calls = [{"function": {"name": "send", "arguments": turn.arguments}}]
                said = {"content": turn.answer, "thinking": turn.reasoning, "tool_calls": calls}
                messages += [
                    {"role": "assistant", **said},
                    {"role": "tool", "tool_name": "send", "content": talk.written(turn.result)},
                ]
        options = {"stop": [talk.identity]}
        tools = [_openai_tool(talk)]
        return {"model": "m", "stream": streamed, "messages": messages, "tools": tools, "options": options}

    def _call(self, reply: Reply) -> list[Json]:
        return [{"function": {"name": "send", "arguments": json.loads(reply.said("arguments"))}}]

    def stream(self, reply: Reply, rng: random.Random) -> bytes:
        lines = [
            *(ollama.line(thinking=each) for each in reply.pieces("reasoning", rng)),
            *(ollama.line(content=each) for each in reply.pieces("answer", rng)),
            ollama.line(tool_calls=self._call(reply)),
            ollama.LAST,
        ]
        return b"".join(lines)

    def body(self, reply: Reply) -> bytes:
        said = {"thinking": reply.said("reasoning"), "content": reply.said("answer"), "tool_calls": self._call(reply)}
        return ollama.line(done=True, **said)

    def read_stream(self, out: bytes) -> Mapping[str, str]:
        sent = [json.loads(line) for line in out.splitlines()]
        calls = [call for each in sent for call in each["message"].get("tool_calls") or ()]
        (call,) = calls
        return {
            "reasoning": ollama.joined(sent, "thinking"),
            "answer": ollama.joined(sent, "content"),
            "arguments": _json(call["function"]["arguments"]),
        }

    def read_body(self, out: bytes) -> Mapping[str, str]:
        return self.read_stream(out)


class OllamaGenerate(Client):
    """Ollama's generate."""

    name = "ollama-generate"
    dialect = ollama.DIALECT
    channels = ("reasoning", "answer")
    content_type = "application/x-ndjson"

    def action(self, *, streamed: bool) -> str:
        return "generate"

    def request(self, talk: Conversation, *, streamed: bool) -> Json:
        return {"model": "m", "stream": streamed, "system": talk.system, "prompt": talk.transcript()}

    def _line(self, done: bool = False, **fields: object) -> bytes:
        reason = {"done_reason": "stop", "context": [1, 2]} if done else {}
        head = {"model": "m", "created_at": ollama.TIME, "response": "", "done": done}
        return json.dumps({**head, **fields, **reason}).encode() + b"\n"

    def stream(self, reply: Reply, rng: random.Random) -> bytes:
        lines = [
            *(self._line(thinking=each) for each in reply.pieces("reasoning", rng)),
            *(self._line(response=each) for each in reply.pieces("answer", rng)),
            self._line(done=True),
        ]
        return b"".join(lines)

    def body(self, reply: Reply) -> bytes:
        return self._line(done=True, thinking=reply.said("reasoning"), response=reply.said("answer"))

    def read_stream(self, out: bytes) -> Mapping[str, str]:
        sent = [json.loads(line) for line in out.splitlines()]
        names = {"reasoning": "thinking", "answer": "response"}
        return {channel: "".join(each.get(name) or "" for each in sent) for channel, name in names.items()}

    def read_body(self, out: bytes) -> Mapping[str, str]:
        return self.read_stream(out)


class Converse(Client):
    """Bedrock's Converse."""

    name = "converse"
    dialect = bedrock.DIALECT
    content_type = STREAM
    parameters: ClassVar[Mapping[str, str]] = {"model": "anthropic.claude-x-v1:0"}

    def action(self, *, streamed: bool) -> str:
        return "converse-stream" if streamed else "converse"

    def request(self, talk: Conversation, *, streamed: bool) -> Json:
        messages: list[Json] = []
        for at, turn in enumerate(talk.turns):
            content: list[Json] = [{"text": turn.user}]
            if at:
                result = talk.turns[at - 1].result
                told = {"text": result} if isinstance(result, str) else {"json": result}
                content.insert(0, {"toolResult": {"toolUseId": f"t_{at - 1}", "content": [told], "status": "success"}})
            messages.append({"role": "user", "content": content})
            if turn is not talk.turns[-1]:
                thought = {"text": turn.reasoning, "signature": SIGNATURE}
                use = {"toolUseId": f"t_{at}", "name": "send", "input": turn.arguments}
                said = [{"reasoningContent": {"reasoningText": thought}}, {"text": turn.answer}, {"toolUse": use}]
                messages.append({"role": "assistant", "content": said})
        spec = {"name": "send", "description": talk.tool["description"]}
        tool = {"toolSpec": {**spec, "inputSchema": {"json": talk.tool["parameters"]}}}
        return {
            "system": [{"text": talk.system}],
            "messages": messages,
            "toolConfig": {"tools": [tool]},
            "inferenceConfig": {"stopSequences": [talk.identity]},
            "requestMetadata": {"who": talk.identity},
        }

    def _sent(self, reply: Reply, rng: random.Random) -> bedrock.Events:
        return bedrock.message(
            bedrock.block(0, *(bedrock.reasoning(0, each) for each in reply.pieces("reasoning", rng))),
            bedrock.block(1, *(bedrock.delta(1, text=each) for each in reply.pieces("answer", rng))),
            bedrock.tool(2, *reply.pieces("arguments", rng)),
            stop="tool_use",
        )

    def stream(self, reply: Reply, rng: random.Random) -> bytes:
        return frames(self._sent(reply, rng))

    def body(self, reply: Reply) -> bytes:
        use = {"toolUseId": "t_9", "name": "send", "input": json.loads(reply.said("arguments"))}
        thought = {"reasoningContent": {"reasoningText": {"text": reply.said("reasoning")}}}
        return json.dumps(bedrock.answer(thought, {"text": reply.said("answer")}, {"toolUse": use})).encode()

    def _joined(self, sent: Sequence[tuple[str, Json]]) -> Mapping[str, str]:
        found = dict.fromkeys(self.channels, "")
        for name, document in sent:
            if name == "contentBlockDelta":
                delta = document["delta"]
                found["answer"] += delta.get("text", "")
                found["reasoning"] += delta.get("reasoningContent", {}).get("text", "")
                found["arguments"] += delta.get("toolUse", {}).get("input", "")
        return found

    def read_stream(self, out: bytes) -> Mapping[str, str]:
        return self._joined([(event.name, json.loads(event.data)) for event in bedrock.read(out)])

    def read_body(self, out: bytes) -> Mapping[str, str]:
        thought, said, call = json.loads(out)["output"]["message"]["content"]
        return {
            "reasoning": thought["reasoningContent"]["reasoningText"]["text"],
            "answer": said["text"],
            "arguments": _json(call["toolUse"]["input"]),
        }


def _chunks(out: bytes) -> list[Json]:
    framing = Chunks()
    found = (framing.parse(each) for each in framing.feed(out))
    return [json.loads(event.data) for event in found if event is not None]


class Nova(Converse):
    """A Nova model by Bedrock's InvokeModel."""

    name = "nova"
    parameters: ClassVar[Mapping[str, str]] = {"model": "us.amazon.nova-lite-v1:0"}

    def action(self, *, streamed: bool) -> str:
        return "invoke-stream" if streamed else "invoke"

    def stream(self, reply: Reply, rng: random.Random) -> bytes:
        return bedrock.nova(self._sent(reply, rng))

    def read_stream(self, out: bytes) -> Mapping[str, str]:
        return self._joined([item for each in _chunks(out) for item in each.items()])


class BedrockClaude(Anthropic):
    """Claude by Bedrock's InvokeModel."""

    name = "bedrock-claude"
    dialect = bedrock.DIALECT  # type: ignore[assignment]
    content_type = STREAM
    parameters: ClassVar[Mapping[str, str]] = {"model": bedrock.CLAUDE}

    def action(self, *, streamed: bool) -> str:
        return "invoke-stream" if streamed else "invoke"

    def request(self, talk: Conversation, *, streamed: bool) -> Json:
        return {"anthropic_version": "bedrock-2023-05-31", **_claude_request(talk)}

    def stream(self, reply: Reply, rng: random.Random) -> bytes:
        return chunks(_claude_stream(reply, rng))

    def read_stream(self, out: bytes) -> Mapping[str, str]:
        return _claude_joined(_chunks(out))


class BedrockText(Client):
    """A model by InvokeModel that takes a prompt."""

    channels = ("answer",)
    content_type = STREAM
    dialect = bedrock.DIALECT

    def __init__(self, name: str, prompt: str = "prompt") -> None:
        model, self._made = bedrock.FAMILIES[name]
        self.name = f"bedrock-{name}"
        self.parameters = {"model": model}  # type: ignore[misc]
        self._prompt = prompt

    def action(self, *, streamed: bool) -> str:
        return "invoke-stream" if streamed else "invoke"

    def request(self, talk: Conversation, *, streamed: bool) -> Json:
        return {self._prompt: talk.transcript()}

    def stream(self, reply: Reply, rng: random.Random) -> bytes:
        return chunks([*map(self._made, reply.pieces("answer", rng)), self._made("", "stop")])

    def body(self, reply: Reply) -> bytes:
        made = self._made(reply.said("answer"), "stop")
        return json.dumps({"results": [made]} if "outputText" in made else made).encode()

    def read_stream(self, out: bytes) -> Mapping[str, str]:
        return {"answer": "".join(map(bedrock.text_of, _chunks(out)))}

    def read_body(self, out: bytes) -> Mapping[str, str]:
        return {"answer": bedrock.text_of(json.loads(out))}


class Cohere(Client):
    """Cohere's chat."""

    name = "cohere"
    dialect = cohere_kit.DIALECT

    def request(self, talk: Conversation, *, streamed: bool) -> Json:
        messages: list[Json] = [{"role": "system", "content": talk.system}]
        for at, turn in enumerate(talk.turns):
            messages.append({"role": "user", "content": [{"type": "text", "text": turn.user}]})
            if turn is not talk.turns[-1]:
                function = {"name": "send", "arguments": json.dumps(turn.arguments)}
                content = [{"type": "thinking", "thinking": turn.reasoning}, {"type": "text", "text": turn.answer}]
                data = turn.result if isinstance(turn.result, dict) else {"text": turn.result}
                document = {"type": "document", "document": {"id": f"doc:{at}", "data": data}}
                messages += [
                    {
                        "role": "assistant",
                        "tool_plan": turn.answer,
                        "content": content,
                        "tool_calls": [{"id": f"call_{at}", "type": "function", "function": function}],
                    },
                    {"role": "tool", "tool_call_id": f"call_{at}", "content": [document]},
                ]
        return {
            "model": "command-a",
            "stream": streamed,
            "messages": messages,
            "tools": [_openai_tool(talk)],
            "documents": [talk.identity, {"id": "d", "data": {"note": talk.identity}}],
            "stop_sequences": [talk.identity],
        }

    def stream(self, reply: Reply, rng: random.Random) -> bytes:
        return events(
            [
                cohere_kit.START,
                *cohere_kit.block(0, "thinking", *reply.pieces("reasoning", rng)),
                *cohere_kit.block(1, "text", *reply.pieces("answer", rng)),
                *cohere_kit.call(0, "send", *reply.pieces("arguments", rng)),
                cohere_kit.END,
            ]
        )

    def body(self, reply: Reply) -> bytes:
        thought = {"type": "thinking", "thinking": reply.said("reasoning")}
        function = {"name": "send", "arguments": reply.said("arguments")}
        message = {
            "role": "assistant",
            "content": [thought, {"type": "text", "text": reply.said("answer")}],
            "tool_calls": [{"id": "c-1", "type": "function", "function": function}],
        }
        return json.dumps({**cohere_kit.WHOLE, "message": message}).encode()

    def read_stream(self, out: bytes) -> Mapping[str, str]:
        found = cohere_kit.joined(out)
        return {"reasoning": found["thinking 0"], "answer": found["text 1"], "arguments": found["call 0"]}

    def read_body(self, out: bytes) -> Mapping[str, str]:
        message = json.loads(out)["message"]
        thought, said = message["content"]
        arguments = message["tool_calls"][0]["function"]["arguments"]
        return {"reasoning": thought["thinking"], "answer": said["text"], "arguments": arguments}


class MistralConversations(Client):
    """Mistral's conversations."""

    name = "mistral-conversations"
    dialect = mistral.DIALECT

    def request(self, talk: Conversation, *, streamed: bool) -> Json:
        entries: list[Json] = []
        for at, turn in enumerate(talk.turns):
            entries.append({"type": "message.input", "role": "user", "content": turn.user})
            if turn is not talk.turns[-1]:
                said = [mistral.thought(turn.reasoning), mistral.text(turn.answer)]
                call = {"type": "function.call", "tool_call_id": f"call{at}", "name": "send"}
                result = {"type": "function.result", "tool_call_id": f"call{at}"}
                entries += [
                    {"type": "message.output", "role": "assistant", "content": said},
                    {**call, "arguments": turn.arguments if at % 2 else json.dumps(turn.arguments)},
                    {**result, "result": talk.written(turn.result)},
                ]
        return {
            "model": "mistral-medium",
            "stream": streamed,
            "instructions": talk.system,
            "inputs": entries,
            "tools": [_openai_tool(talk)],
            "description": talk.identity,
            "completion_args": {"stop": [talk.identity]},
        }

    def stream(self, reply: Reply, rng: random.Random) -> bytes:
        return events(
            [
                mistral.START,
                *mistral.says(0, *map(mistral.thought, reply.pieces("reasoning", rng))),
                *mistral.says(0, *map(mistral.text, reply.pieces("answer", rng)), at=1),
                *mistral.calls(1, "send", *reply.pieces("arguments", rng)),
                mistral.END,
            ]
        )

    def body(self, reply: Reply) -> bytes:
        content = [mistral.thought(reply.said("reasoning")), mistral.text(reply.said("answer"))]
        call = {"type": "function.call", "tool_call_id": "c1", "name": "send", "arguments": reply.said("arguments")}
        said = {"type": "message.output", "role": "assistant", "content": content}
        outputs = [{**mistral.ENTRY, **said}, {**mistral.ENTRY, **call}]
        return json.dumps({**mistral.WHOLE, "outputs": outputs}).encode()

    def read_stream(self, out: bytes) -> Mapping[str, str]:
        found = mistral.joined(out)
        return {"reasoning": found["thinking 0"], "answer": found["text 0"], "arguments": found["call 1 send send1"]}

    def read_body(self, out: bytes) -> Mapping[str, str]:
        said, call = json.loads(out)["outputs"]
        thought, text = said["content"]
        return {"reasoning": thought["thinking"][0]["text"], "answer": text["text"], "arguments": call["arguments"]}


class Transcription(Client):
    """Speech, with what was said before as a prompt."""

    name = "transcription"
    dialect = transcription.DIALECT
    channels = ("answer",)

    def request(self, talk: Conversation, *, streamed: bool) -> Json:
        return {}

    def fields(self, talk: Conversation) -> Sequence[tuple[str, str]]:
        said = " ".join(turn.user for turn in talk.turns)
        return (("model", "whisper-1"), ("prompt", said), ("keywords", talk.identity), ("temperature", "0.2"))

    def stream(self, reply: Reply, rng: random.Random) -> bytes:
        said = reply.said("answer")
        return events([*map(transcription.delta, reply.pieces("answer", rng)), transcription.done(said)], named=False)

    def body(self, reply: Reply) -> bytes:
        return json.dumps({**transcription.PLAIN, "text": reply.said("answer")}).encode()

    def read_stream(self, out: bytes) -> Mapping[str, str]:
        found = transcription.joined(out)
        assert found["delta"].strip() == found["done"].strip()
        return {"answer": found["delta"]}

    def read_body(self, out: bytes) -> Mapping[str, str]:
        return {"answer": json.loads(out)["text"]}


CLIENTS: Sequence[Client] = (
    Chat(),
    *(
        RawText(form, prompt)
        for form, prompt in zip(raw_text_kit.FORMS, ("prompt", "prompt", "inputs", "text", "text"), strict=True)
    ),
    Responses(),
    Anthropic(),
    Gemini(),
    Interactions(),
    OllamaChat(),
    OllamaGenerate(),
    Converse(),
    Nova(),
    BedrockClaude(),
    *(BedrockText(name) for name in ("llama", "mistral", "deepseek")),
    BedrockText("titan", "inputText"),
    Cohere(),
    MistralConversations(),
    Transcription(),
)
