"""Where figures come from: machine, load before, versions."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from loadtest.nginx import find_nginx, nginx_version

__all__ = ["describe"]


def describe() -> str:
    """One line: when, on which processor, how busy it was before, and the versions of what matters."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(": ")[2] for line in cpuinfo if line.startswith("model name")), platform.machine())
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("aiohttp", "uvloop", "orjson", "hyperscan", "onnxruntime")
    )
    program = find_nginx()
    nginx = f", nginx {nginx_version(program)}" if program else ""
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {model}, {len(os.sched_getaffinity(0))} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, load {os.getloadavg()[0]:.2f} before; "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {packages}{nginx}"
    )
