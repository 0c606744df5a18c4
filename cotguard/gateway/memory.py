"""Memory that loading has freed, given back to the system: glibc does so by itself only at the heap's end."""

import ctypes

__all__ = ["give_back"]


def give_back() -> None:
    """Return what is free. Takes milliseconds; does nothing where the C library has no such call."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
