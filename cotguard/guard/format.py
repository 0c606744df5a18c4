"""How a family of guard models is asked, and how its answer is read: a format, which is a YAML file.

Ready formats are beside this module, in ``formats``; ``docs/guard-models.md`` describes the fields. Reading is plain
comparison of strings, linear in the answer. What the format does not know is no verdict but a fault
(:class:`GuardError`), so that a guard which answers something else than a verdict never means "safe".
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cotguard.framing.json import dumps
from cotguard.taxonomy import GROUPS

__all__ = ["GuardError", "GuardFormat", "GuardFormatError", "Hazard", "Passage", "Question", "load_format"]

MAX_SEGMENT = 8192
"""Characters of the longest segment a format may ask for: far below what a channel may hold."""

_HAZARDS = frozenset(GROUPS["HAZARD"])
_SLOT = re.compile(r"\{(user|before|segment|question)\}")
_WORD = re.compile(r"[^\W\d_]+")
_FOLDER = files("cotguard.guard") / "formats"
_OURS = frozenset({"messages", "model", "stream", "n"})
_THOUGHT = "</think>"


class GuardFormatError(ValueError):
    """A format cannot be read; the message says why and what to write."""


class GuardError(Exception):
    """A guard gave no verdict. ``kind`` is from a fixed set; the message holds nothing of question or answer."""

    def __init__(self, kind: Literal["status", "malformed", "verdict"], message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Hazard(NamedTuple):
    """What a guard found in a segment."""

    entity: str
    score: float


@dataclass(frozen=True, slots=True)
class Passage:
    """A segment with its context: the user's last message, and the channel's text before the segment."""

    user: str = field(repr=False)
    before: str = field(repr=False)
    segment: str = field(repr=False)


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Hazards = Annotated[tuple[str, ...], Field(min_length=1)]


def _known(hazards: Collection[str]) -> None:
    for hazard in hazards:
        if hazard not in _HAZARDS:
            raise ValueError(f"{hazard} is no hazard; write one of: {', '.join(GROUPS['HAZARD'])}")


class _Segment(_Document):
    least: int = Field(default=200, ge=1)
    most: int = Field(default=800, le=MAX_SEGMENT)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least > self.most:
            raise ValueError("least must not be above most")
        return self


class _Context(_Document):
    user: int = Field(default=2000, ge=0)
    before: int = Field(default=600, ge=0)


class _Message(_Document):
    role: Literal["system", "user", "assistant"]
    content: str


class _Categories(_Document):
    after: str = ""
    separator: str = Field(default=",", min_length=1)


class _Verdict(_Document):
    after: str = ""
    until: str = ""
    first_word: bool = False
    scores: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(min_length=1)
    categories: _Categories | None = None
    whole: bool = True

    @field_validator("scores")
    @classmethod
    def _folded(cls, value: dict[str, float]) -> dict[str, float]:
        return {label.casefold(): score for label, score in value.items()}


class Question(_Document):
    """One of the requests that are made for a segment."""

    text: str = ""
    hazards: tuple[str, ...] = ()
    request: dict[str, Any] = {}

    @field_validator("hazards")
    @classmethod
    def _taxonomy(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        _known(value)
        return value


class GuardFormat(_Document):
    """See the module."""

    version: Literal[1]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")
    segment: _Segment = _Segment()
    context: _Context = _Context()
    messages: tuple[_Message, ...] = Field(min_length=1)
    no_user: str = "-"
    breaks: tuple[Annotated[str, Field(min_length=2)], ...] = ()
    request: dict[str, Any] = {}
    questions: tuple[Question, ...] = Field(default=(Question(),), min_length=1)
    verdict: _Verdict
    categories: dict[str, _Hazards | None] = {}

    @field_validator("categories")
    @classmethod
    def _categories_folded(cls, value: dict[str, tuple[str, ...] | None]) -> dict[str, tuple[str, ...] | None]:
        for hazards in value.values():
            _known(hazards or ())
        return {category.casefold(): hazards for category, hazards in value.items()}

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not any("{segment}" in message.content for message in self.messages):
            raise ValueError("no message has {segment} in it")
        for request in (self.request, *(question.request for question in self.questions)):
            if ours := _OURS & request.keys():
                raise ValueError(f"request: leave out {', '.join(sorted(ours))}: cotguard writes it")
        if (self.verdict.categories is None) is bool(self.categories):
            raise ValueError("categories and verdict.categories: write both or none")
        if self.verdict.categories is None and not all(question.hazards for question in self.questions):
            raise ValueError("questions: each needs hazards where the verdict names no categories")
        return self

    @property
    def hazards(self) -> frozenset[str]:
        """All that can be found."""
        named = [hazards or () for hazards in self.categories.values()]
        return frozenset().union(*named, *(question.hazards for question in self.questions))

    def asking(self, wanted: Collection[str]) -> Self:
        """The same with only those questions that can find one of the hazards ``wanted``."""
        if self.categories:
            return self
        asked = tuple(question for question in self.questions if not {*question.hazards}.isdisjoint(wanted))
        return self.model_copy(update={"questions": asked})

    def body(self, passage: Passage, question: Question, model: str) -> bytes:
        """The request that asks ``question`` about ``passage``."""
        slots = {
            "user": passage.user or self.no_user,
            "before": passage.before,
            "segment": passage.segment,
            "question": question.text,
        }
        messages = [
            {"role": message.role, "content": self._broken(_SLOT.sub(lambda slot: slots[slot[1]], message.content))}
            for message in self.messages
        ]
        named = {"model": model} if model else {}
        fixed = {"messages": messages, "stream": False}
        return dumps({**named, "temperature": 0, **self.request, **question.request, **fixed})

    def _broken(self, text: str) -> str:
        """``text`` with the marks of the guard's own prompt taken apart: a text must not end its own examination."""
        for mark in self.breaks:
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
        return text

    def read(self, answer: str, question: Question, *, cut: bool) -> tuple[Hazard, ...]:
        """The hazards a guard's answer to ``question`` tells. ``cut``: it ended where no more was allowed.

        Raises :class:`GuardError` where that is no verdict.
        """
        verdict = self.verdict
        if cut and verdict.whole:
            raise GuardError("verdict", "the answer was cut short")
        lines = [stripped for line in answer.rpartition(_THOUGHT)[2].splitlines() if (stripped := line.strip())]
        label = _between(lines[0] if lines else "", verdict.after, verdict.until)
        if verdict.first_word and (word := _WORD.match(label)):
            label = word[0]
        score = verdict.scores.get(label.casefold())
        if score is None:
            raise GuardError("verdict", "the answer begins with no label of the format")
        if not score:
            return ()
        found = question.hazards if verdict.categories is None else self._categories(lines[1:], verdict.categories)
        return tuple(Hazard(entity, score) for entity in dict.fromkeys(found))

    def _categories(self, lines: Sequence[str], syntax: _Categories) -> list[str]:
        named = _between(lines[0] if lines else "", syntax.after, "").split(syntax.separator)
        found: list[str] = []
        for category in named:
            known = category.strip().casefold()
            if known not in self.categories:
                raise GuardError("verdict", "the answer names a category that the format does not know")
            found += self.categories[known] or ()
        if not found:
            raise GuardError("verdict", "the answer names no category for what it found")
        return found


def _between(line: str, after: str, until: str) -> str:
    """What stands between the two in ``line``; nothing where they do not enclose it."""
    if not line.startswith(after) or not line.endswith(until):
        return ""
    return line[len(after) : len(line) - len(until)].strip()


def load_format(name: str) -> GuardFormat:
    """The ready format ``name``, or that of a file. Raises :class:`GuardFormatError`."""
    ready = {entry.name.removesuffix(".yaml"): entry for entry in _FOLDER.iterdir()}
    try:
        source = ready[name] if name in ready else Path(name)
        return GuardFormat.model_validate(yaml.safe_load(source.read_text(encoding="utf-8")))
    except (FileNotFoundError, IsADirectoryError):
        raise GuardFormatError(f"{name}: no such format; write a file or one of: {', '.join(sorted(ready))}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise GuardFormatError(f"{name}: {place}: {first['msg'].removeprefix('Value error, ')}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise GuardFormatError(f"{name}: {error}") from error
