"""What a test logged, as ``cotguard serve`` writes it."""

import pytest

from cotguard.telemetry.logs import formatter

__all__ = ["lines"]


def lines(caplog: pytest.LogCaptureFixture) -> str:
    """The lines so far."""
    written = formatter("text")
    return "\n".join(map(written.format, caplog.records))
