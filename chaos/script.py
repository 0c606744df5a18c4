"""What the scripted upstream says in exchange ``number``: prose with secrets that no other exchange has.

Everything follows from the number, so that the upstream, in a process of its own, and whoever checks what a client got
need not talk to each other. A secret found anywhere tells by its value whose it was.
"""

import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from loadtest.script import PROSE, Channel

__all__ = ["FILLER", "LANDMARK", "Script", "cut"]

FILLER = " and so on" * 10
"""Says nothing: for streams that shall be long."""

LANDMARK = "10.20.30.40"
"""No secret: an address that one policy takes out and another leaves, which tells by whose rules a text went."""

_LONGEST_PIECE = 12
_NAMES = ("Ann Lee", "Carlos Mendez", "Priya Raman", "Johann Becker", "Amara Okafor", "Mary Whitfield")
"""Only a classifier finds them."""

_SENTENCES = [sentence.strip() + ". " for sentence in PROSE.replace("\n", " ").split(". ") if sentence.strip()]
_LOWER = string.ascii_lowercase + string.digits
_UPPER = string.ascii_uppercase + "234567"
_MIXED = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Script:
    """One exchange's text; its reasoning begins with ``filler`` times :data:`FILLER`."""

    number: int
    filler: int = 0

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """The values, all of different kinds."""
        draw = random.Random(f"secrets {self.number}")  # noqa: S311  # a script, no secret
        return tuple(make(draw) for make, _ in _KINDS)

    @cached_property
    def deltas(self) -> list[tuple[Channel, str]]:
        """The text without the filler, cut at random, with the channel of each piece."""
        draw = random.Random(f"text {self.number}")  # noqa: S311  # a script, no secret
        told = [carrier.format(secret) for secret, (_, carrier) in zip(self.secrets, _KINDS, strict=True)]
        draw.shuffle(told)
        half = len(told) // 2
        found: list[tuple[Channel, str]] = []
        channels: tuple[tuple[Channel, list[str]], ...] = (("reasoning", told[:half]), ("answer", told[half:]))
        for channel, carried in channels:
            name = draw.choice(_NAMES)
            harmless = [f"The customer is {name}, who called. ", f"The host {LANDMARK} is up. "]
            sentences = [*carried, *harmless, *draw.sample(_SENTENCES, 4)]
            draw.shuffle(sentences)
            found += [(channel, piece) for piece in cut("".join(sentences), draw)]
        return found

    def text(self, channel: Channel) -> str:
        """All of one channel."""
        spoken = "".join(piece for said, piece in self.deltas if said == channel)
        return FILLER * self.filler + spoken if channel == "reasoning" else spoken


def cut(text: str, draw: random.Random) -> Iterator[str]:
    """``text`` in pieces of one to a dozen characters."""
    at = 0
    while at < len(text):
        width = draw.randint(1, _LONGEST_PIECE)
        yield text[at : at + width]
        at += width


def _some(draw: random.Random, letters: str, count: int) -> str:
    return "".join(draw.choices(letters, k=count))


def _email(draw: random.Random) -> str:
    return f"{_some(draw, string.ascii_lowercase, 7)}.{_some(draw, _LOWER, 6)}@{_some(draw, _LOWER, 8)}.example.com"


def _aws_key(draw: random.Random) -> str:
    return "AKIA" + _some(draw, _UPPER, 16)


def _stripe_key(draw: random.Random) -> str:
    return "sk_live_" + _some(draw, _MIXED, 24)


def _password(draw: random.Random) -> str:
    return f"{_some(draw, _LOWER, 5).capitalize()}!{_some(draw, _MIXED, 6)}7"


def _connection(draw: random.Random) -> str:
    return (
        f"postgres://{_some(draw, _LOWER, 5)}:{_some(draw, _MIXED, 10)}@{_some(draw, _LOWER, 6)}.example.net:5432/prod"
    )


def _card(draw: random.Random) -> str:
    digits = "4" + _some(draw, string.digits, 14)
    doubled = (int(digit) * (2 - at % 2) for at, digit in enumerate(digits))
    whole = digits + str(-sum(value // 10 + value % 10 for value in doubled) % 10)
    return " ".join(whole[at : at + 4] for at in range(0, 16, 4))


def _iban(draw: random.Random) -> str:
    account = _some(draw, string.digits, 18)
    return f"DE{98 - int(account + '131400') % 97:02}{account}"  # D is 13, E is 14


def _pem(draw: random.Random) -> str:
    lines = "\n".join(_some(draw, _MIXED + "+/", 64) for _ in range(3))
    return f"-----BEGIN EC PRIVATE KEY-----\n{lines}\n-----END EC PRIVATE KEY-----"


_KINDS: tuple[tuple[Callable[[random.Random], str], str], ...] = (
    (_email, "Write to {} about it. "),
    (_aws_key, "The job has the key {} in its environment. "),
    (_stripe_key, "It charges with {} from the job. "),
    (_password, "The admin password is {} , he typed. "),
    (_connection, "It connects with {} daily. "),
    (_card, "Charged to {} yesterday. "),
    (_iban, "Pay into {} by Monday. "),
    (_pem, "The file has {} at its end. "),
)
