"""The store of originals that stay inside: what the core asks it.

Sealing is part of the synchronous core, so it asks the shell (:mod:`cotguard.classifier.handover`): the exchange stops
where it seals or opens, and goes on when the store has answered. A token is therefore written to a client only when its
original is kept. A store that fails ends the exchange (G5).
"""

from typing import NamedTuple

from cotguard.classifier.handover import ask
from cotguard.moderation.exchange import ModerationFault

__all__ = ["STORE", "Question", "StoreFault", "fetched", "kept"]

STORE = "seals"
"""By this name the store is asked."""


class StoreFault(ModerationFault):
    """The store did not answer. The message is constant text."""

    def __init__(self) -> None:
        super().__init__("the store of sealed originals failed")


class Question(NamedTuple):
    """To keep ``value`` under ``handle`` for ``seconds``, or, without one, to fetch what is kept there."""

    handle: str
    value: bytes | None = None
    seconds: float = 0


def kept(handle: str, value: bytes, seconds: float) -> None:
    """Have ``value`` kept. Raises :class:`StoreFault`."""
    _asked(Question(handle, value, seconds))


def fetched(handle: str) -> bytes | None:
    """What is kept under ``handle``; None if there is nothing, or no longer. Raises :class:`StoreFault`."""
    return _asked(Question(handle))


def _asked(question: Question) -> bytes | None:
    try:
        return ask(STORE, _nobody, question)
    except Exception:  # whatever it was, it may quote what it choked on
        raise StoreFault from None


def _nobody(_question: Question) -> bytes | None:
    raise StoreFault
