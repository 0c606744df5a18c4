"""Memory that loading has freed, given back to the system: glibc does so by itself only at the heap's end."""

import asyncio
import ctypes
from typing import NoReturn

__all__ = ["give_back", "give_back_regularly"]

_EVERY_SECONDS = 10


def give_back() -> None:
    """Return what is free: in a millisecond, or ten where it is much. Does nothing where the C library cannot."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


async def give_back_regularly() -> NoReturn:
    """Return what exchanges have left, now and then: what clients that took nothing cost stays no longer than they."""
    while True:
        await asyncio.sleep(_EVERY_SECONDS)
        give_back()
