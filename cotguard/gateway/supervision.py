"""What systemd is told of the gateway: it is ready, it lives, it ends (``Type=notify``, ``WatchdogSec=``).

Where nobody listens (no ``$NOTIFY_SOCKET``) nothing is told, and what cannot be told is no fault: systemd draws its own
conclusions from silence.
"""

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress

__all__ = ["Notifier"]


class Notifier:
    """Tells systemd, if it started this process."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address  # @: in the abstract namespace
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog_seconds = int(environment.get("WATCHDOG_USEC", "0")) / 1e6 if ours else 0.0

    def ready(self) -> None:
        """Requests are taken."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """The drain has begun."""
        self._tell("STOPPING=1")

    async def live(self) -> None:
        """Say again and again that the event loop turns, until cancelled; returns at once where nobody watches."""
        while self._watchdog_seconds:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_seconds / 2)

    def _tell(self, state: str) -> None:
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
                channel.setblocking(False)
                channel.sendto(state.encode(), self._address)
