"""Hyperscan databases: compiled, or as they were compiled before.

Compiling all rules takes seconds, and memory that is not given back; loading what :mod:`cotguard.cache` kept takes
milliseconds. The name under which a database is kept stands for all that it follows from: expressions, numbers, the
library's version and what it compiles for on this processor. Hyperscan itself refuses what was made by another version
or for another platform.
"""

import hashlib
import os
from collections.abc import Sequence
from typing import Any, Final

import hyperscan

from cotguard import cache

__all__ = ["database"]

_WORTH_KEEPING_BYTES: Final = 2**17
"""Smaller databases are compiled in a tenth of a second."""


def database(expressions: Sequence[tuple[bytes, int]]) -> hyperscan.Database:
    """A block database of expressions with the numbers that it reports them by, ready to scan if there are any."""
    if not expressions:
        return hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    name = _name(expressions)
    kept = cache.read(name)
    if kept is not None:
        try:
            loaded = hyperscan.loadb(kept, hyperscan.HS_MODE_BLOCK)
            loaded.scratch = hyperscan.Scratch(loaded)
        except hyperscan.HyperscanError:
            pass  # compiled anew
        else:
            return loaded
    compiled = _compile(expressions)
    if compiled.size() >= _WORTH_KEEPING_BYTES:
        cache.write(name, hyperscan.dumpb(compiled))
    return compiled


def _compile(expressions: Sequence[tuple[bytes, int]]) -> hyperscan.Database:
    compiled = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    compiled.compile(
        expressions=[expression for expression, _ in expressions],
        ids=[number for _, number in expressions],
        flags=[0] * len(expressions),
    )
    return compiled


def _name(expressions: Sequence[tuple[bytes, int]]) -> str:
    # The library says its version, and what it compiles for, only of something compiled.
    compiled: Any = _compile([(b"a", 0)])  # its type says that `info` gives text, which is not so
    made_by = (os.uname().machine, compiled.info())
    return hashlib.sha256(repr((made_by, list(expressions))).encode()).hexdigest()
