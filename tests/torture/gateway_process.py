"""A gateway of its own process, in front of an upstream, with either of aiohttp's two parsers."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

__all__ = ["PARSERS", "GatewayProcess", "gateway_process"]

PARSERS = {"compiled": {}, "pure": {"AIOHTTP_NO_EXTENSIONS": "1"}}
"""The environment that chooses aiohttp's parser: llhttp, or the one in Python."""

_POLICY = "version: 1\nname: t\nclassifier: false\nrules:\n  - entities: [EMAIL_ADDRESS]\n    action: redact\n"


class GatewayProcess(NamedTuple):
    """Where it listens, and where its log is."""

    address: tuple[str, int]
    log: Path


@contextmanager
def gateway_process(upstream: str, folder: Path, parser: str, **flags: object) -> Iterator[GatewayProcess]:
    """A ``cotguard serve`` that is ready."""
    policy, log = folder / "policy.yaml", folder / "gateway.log"
    policy.write_text(_POLICY, encoding="utf-8")
    command = [sys.executable, "-m", "cotguard", "serve", "--upstream", upstream, "--policy", str(policy)]
    command += ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, env={**os.environ, **PARSERS[parser]}, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        assert process.stdout is not None
        try:
            said = re.search(r"listens on http://([\d.]+):(\d+)", process.stdout.readline().decode())
            assert said is not None, log.read_text("utf-8")
            yield GatewayProcess((said[1], int(said[2])), log)
        finally:
            process.terminate()
            process.wait(10)
