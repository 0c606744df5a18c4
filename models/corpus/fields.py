"""Fields of records: labels and values, written in many notations, mixed with fields that are nobody's."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from models.corpus.planting import SECRETS, Text, name_of
from models.corpus.values import NEGATIVES, VALUES, Values

__all__ = ["Fields"]

_LISTS: dict[str, dict[str, list[str]]] = yaml.safe_load(
    Path(__file__).with_name("fields.yaml").read_text(encoding="utf-8")
)
_SENSITIVE_SHARE = 0.55
_EMPTY_SHARE = 0.12
"""Sensitive labels with something that is no value: a placeholder, code."""
_OFTEN = ("PERSON", "PERSON", "PASSWORD", "KEY", "PASSWORD", "KEY", "USERNAME")


class _Field(NamedTuple):
    label: str
    value: str
    entity: str | None


class _Notation(NamedTuple):
    """How fields are written: ``item`` has ``%l`` for the label and ``%v`` for the value."""

    head: str
    item: str
    between: str
    tail: str
    case: str
    quotes: bool = False


_NOTATIONS = (
    _Notation("{", '"%l": "%v"', ", ", "}", "snake", quotes=True),
    _Notation("{\n  ", '"%l": "%v"', ",\n  ", "\n}", "camel", quotes=True),
    _Notation('{"result": {', '"%l": "%v"', ",", '}, "ok": true}', "snake", quotes=True),
    _Notation("", "%l: %v", "\n", "\n", "snake"),
    _Notation("record:\n  ", "%l: '%v'", "\n  ", "\n", "kebab", quotes=True),
    _Notation("", "%l=%v", "\n", "\n", "upper"),
    _Notation("", 'export %l="%v"', "\n", "\n", "upper", quotes=True),
    _Notation("2026-02-11 08:14:52 INFO ", "%l=%v", " ", "\n", "snake"),
    _Notation("[worker-3] DEBUG handled request ", '%l="%v"', " ", "", "snake", quotes=True),
    _Notation("level=warn msg=retry ", "%l=%v", " ", "\n", "camel"),
    _Notation("<record>", "<%l>%v</%l>", "", "</record>", "camel"),
    _Notation("<entry ", '%l="%v"', " ", "/>", "kebab", quotes=True),
    _Notation("[settings]\n", "%l = %v", "\n", "\n", "snake"),
    _Notation("", '%l = "%v"', "\n", "\n", "snake", quotes=True),
    _Notation("Record(", "%l='%v'", ", ", ")", "snake", quotes=True),
    _Notation("return {\n    ", "'%l': '%v'", ",\n    ", ",\n}", "snake", quotes=True),
    _Notation("const data = {\n  ", "%l: '%v'", ",\n  ", "\n};", "camel", quotes=True),
    _Notation("let ", '%l = "%v"', ";\nlet ", ";\n", "camel", quotes=True),
    _Notation(
        "public static final String ", '%l = "%v"', ";\npublic static final String ", ";\n", "upper", quotes=True
    ),
    _Notation("config.", '%l = "%v"', "\nconfig.", "\n", "snake", quotes=True),
    _Notation("app.", "%l=%v", "\napp.", "\n", "kebab"),
    _Notation("cmd --", "%l %v", " --", "\n", "kebab"),
    _Notation("cmd --", "%l='%v'", " --", "", "kebab", quotes=True),
    _Notation("POST /form?", "%l=%v", "&", " HTTP/1.1\n", "snake"),
    _Notation("- ", "%l: %v", "\n- ", "\n", "title"),
    _Notation("* **", "%l:** %v", "\n* **", "\n", "title"),
    _Notation("", "%l: %v", " | ", "", "title"),
    _Notation("", "%l: %v", ", ", ".", "words"),
    _Notation("(", "%l %v", "; ", ")", "words"),
    _Notation("", "%l - %v", "\n", "\n", "title"),
    _Notation("", "%l\t%v", "\n", "\n", "title"),
    _Notation("The ", "%l is %v", ", the ", ".", "words"),
    _Notation("So the ", "%l would be %v", " and the ", ", I think.", "words"),
    _Notation("I see ", "%v as the %l", " and ", " here.", "words"),
    _Notation("They gave ", "%v (%l)", ", ", " in the first message.", "words"),
    _Notation("Let me note: ", "%l → %v", ", ", "\n", "words"),
    _Notation("my ", "%l is %v", ", ", "", "words"),
    _Notation("your ", "%l has been set to %v", " and your ", ".", "words"),
    _Notation("Tool result: ", "%l %v", ", ", ".", "words"),
    _Notation("We have ", "%l = %v", ", ", " so far.", "words"),
)

_CASES: dict[str, Callable[[str], str]] = {
    "snake": lambda label: label.replace(" ", "_").replace("-", "_").lower(),
    "upper": lambda label: label.replace(" ", "_").replace("-", "_").upper(),
    "kebab": lambda label: label.replace(" ", "-").lower(),
    "camel": lambda label: label[0].lower() + label.title().replace(" ", "").replace("-", "")[1:],
    "title": lambda label: label[0].upper() + label[1:],
    "words": str,
}
_STATES = _LISTS["states"]["any"]


def _side(things: Sequence[str], *, dev: bool) -> list[str]:
    """One side of the split; short lists keep at least their first thing on either."""
    held_out = [thing for index, thing in enumerate(things) if index % 8 == 7]
    kept = [thing for index, thing in enumerate(things) if index % 8 != 7]
    return (held_out or list(things[:1])) if dev else kept


class Fields:
    """Makes records; labels and notations are held out for the development sets."""

    def __init__(self, values: Values, *, dev: bool) -> None:
        self._values = values
        self._labels = {entity: _side(labels, dev=dev) for entity, labels in _LISTS["labels"].items()}
        self._nothing = {kind: _side(labels, dev=dev) for kind, labels in _LISTS["nothing"].items()}
        self._notations = [each for index, each in enumerate(_NOTATIONS) if (index % 8 == 7) is dev]

    def record(self, *, secret: bool = False) -> Text:
        """One record of one to seven fields; with ``secret`` what is sensitive in it is one."""
        rng = self._values.rng
        notation = rng.choice(self._notations)
        name = name_of(self._values)
        fields = [self._field(name, secret=secret) for _ in range(rng.choice((1, 1, 2, 3, 4, 5, 7)))]
        text = Text()
        text.add(notation.head)
        for index, field in enumerate(fields):
            if index:
                text.add(notation.between)
            self._write(text, notation, field)
        text.add(notation.tail)
        return text

    def table(self) -> Text:
        """Several rows of the same columns."""
        rng = self._values.rng
        bar = rng.choice((",", ", ", " | ", "\t", ";"))
        edge = "| " if bar == " | " else ""
        columns = [self._kind(secret=False) for _ in range(rng.randint(2, 5))]
        text = Text()
        text.add(edge + bar.join(_CASES["snake"](self._label(kind)) for kind in columns) + edge.strip() + "\n")
        if edge:
            text.add("|" + "---|" * len(columns) + "\n")
        for _ in range(rng.randint(1, 4)):
            text.add(edge)
            for index, kind in enumerate(columns):
                text.add(bar if index else "")
                field = self._of(kind, name_of(self._values))
                text.add(field.value, field.entity)
            text.add(edge.strip() + "\n")
        return text

    def _kind(self, *, secret: bool) -> str:
        rng = self._values.rng
        if rng.random() > _SENSITIVE_SHARE:
            return str(rng.choice(list(self._nothing)))
        if secret:
            return str(rng.choice(("PASSWORD", "KEY", "PASSWORD", "KEY", "CONNECTION", "OTP")))
        return str(rng.choice((*_OFTEN, *self._labels)))

    def _label(self, kind: str) -> str:
        return str(self._values.rng.choice(self._labels.get(kind) or self._nothing[kind]))

    def _field(self, name: str, *, secret: bool) -> _Field:
        kind = self._kind(secret=secret)
        if kind in self._labels and self._values.rng.random() < _EMPTY_SHARE:
            empty = NEGATIVES[self._values.rng.choice(("placeholder", "placeholder", "code", "field"))]
            return _Field(self._label(kind), empty(self._values), None)
        return self._of(kind, name)

    def _of(self, kind: str, name: str) -> _Field:
        values, label = self._values, self._label(kind)
        if kind == "PERSON":
            return _Field(label, name, kind)
        if kind in VALUES:
            return _Field(label, VALUES[kind](values), "SECRET" if kind in SECRETS else kind)
        if kind == "state":
            return _Field(label, values.rng.choice(_STATES), None)
        return _Field(label, NEGATIVES[kind](values), None)

    def _write(self, text: Text, notation: _Notation, field: _Field) -> None:
        label = _CASES[notation.case](field.label)
        value = field.value.replace('"', "").replace("'", "") if notation.quotes else field.value
        item = notation.item.replace("%l", label)
        before, _, after = item.partition("%v")
        text.add(before)
        text.add(value, field.entity)
        text.add(after)
