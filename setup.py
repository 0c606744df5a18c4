"""The optional native build: with ``COTGUARD_NATIVE=1`` the core is compiled by mypyc, everything else stays Python.

The same sources run either way. Needs a C compiler and mypy; see CONTRIBUTING.
"""

import os
from pathlib import Path

from setuptools import setup

_NATIVE = (
    "framing/*.py",
    "dialects/**/*.py",
    "moderation/*.py",
    "detectors/*.py",
    "detectors/rules/*.py",
    "gateway/streaming.py",
    "telemetry/buckets.py",
)


def _modules() -> list[str]:
    paths = (path for pattern in _NATIVE for path in sorted(Path("cotguard").glob(pattern)))
    return [str(path) for path in paths if path.name != "__init__.py"]


if os.environ.get("COTGUARD_NATIVE") == "1":
    from mypyc.build import mypycify

    setup(ext_modules=mypycify(_modules(), opt_level="3"))
else:
    setup()
