"""A corpus from a few word lists, to try the whole path without any data. A model trained on it is of no use."""

from pathlib import Path
from random import Random

from models.tagger.examples import Example, write

__all__ = ["write_corpus"]

_SENTENCE = (
    "the user asks how to plan a trip so we think about what to say first and then check the numbers again "
    "maybe it is better to answer with care because nothing was given before this line of text"
)
_WORDS = _SENTENCE.split()
_CODE = (
    "for item in rows:",
    "total += item.size",
    "return {'id': 42}",
    "import json",
    "git show 9f1c2ab7",
    "x = y[1:]",
)
_GIVEN = ("Amira", "Bertrand", "Chiara", "Dmitri", "Eileen", "Farouk", "Greta", "Hiroshi")
_FAMILY = ("Achterberg", "Bandara", "Castellanos", "Dufresne", "Eklund", "Ferreira", "Grabowski")
_HARM = "first mix the oxidiser with the fuel and set the timer"
_DEV_SHARE = 0.1


def _value(draw: Random) -> tuple[str, str]:
    given, family = draw.choice(_GIVEN), draw.choice(_FAMILY)
    digits = "".join(draw.choices("0123456789", k=7))
    return draw.choice(
        [
            ("PERSON", f"{given} {family}"),
            ("EMAIL_ADDRESS", f"{given}.{family}@example.org".lower()),
            ("PHONE_NUMBER", f"+44 20 {digits[:3]} {digits[3:]}"),
            ("SECRET", "".join(draw.choices("abcdefghkmnpqrstuvwxyzABCDEFGHKLMNPQRSTUVWXYZ23456789", k=14))),
        ]
    )


def _planted(draw: Random) -> Example:
    text, spans = "", []
    for _ in range(draw.randint(1, 4)):
        text += " ".join(draw.choices(_WORDS, k=draw.randint(3, 30))) + " "
        entity, value = _value(draw)
        spans.append((len(text), len(text) + len(value), entity))
        text += f"{value}. "
    hazards = None if draw.random() < 0.5 else ()
    return Example(text, tuple(spans), (), hazards, "synthetic/planted")


def _benign(draw: Random) -> Example:
    return Example(" ".join(draw.choices(_WORDS, k=draw.randint(5, 200))), hazards=(), source="synthetic/benign")


def _code(draw: Random) -> Example:
    return Example("\n".join(draw.choices(_CODE, k=draw.randint(2, 12))), hazards=(), source="synthetic/code")


def _harmful(draw: Random) -> Example:
    text = f"{' '.join(draw.choices(_WORDS, k=8))} {_HARM} {' '.join(draw.choices(_WORDS, k=8))}"
    return Example(text, hazards=("S9",), source="synthetic/harmful")


def _refusing(draw: Random) -> Example:
    text = f"asked to {_HARM} we must refuse {' '.join(draw.choices(_WORDS, k=draw.randint(8, 30)))}"
    return Example(text, hazards=(), source="synthetic/refusing")


def write_corpus(folder: Path, count: int, seed: int = 1) -> None:
    """Write a corpus of ``count`` training examples and a tenth as many in each development set."""
    draw = Random(seed)  # noqa: S311  # nothing secret comes of it
    few = max(int(count * _DEV_SHARE), 4)
    kinds = (_planted, _planted, _planted, _benign, _code, _harmful, _refusing)
    write(folder, "train", [draw.choice(kinds)(draw) for _ in range(count)])
    write(folder, "dev", [draw.choice((_planted, _harmful))(draw) for _ in range(few)])
    for split, make in (("dev_benign", _benign), ("dev_code", _code), ("dev_refusing", _refusing)):
        write(folder, split, [make(draw) for _ in range(few)])
