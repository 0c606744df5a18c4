"""What the service manager is told (systemd's ``sd_notify``): one datagram a message, to the socket it named.

Without a service manager nothing is told. Who is asked to keep a watchdog content does so as long as a question about
the service's health is answered: an event loop that hangs asks none.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Self

__all__ = ["Manager"]

_LOG = logging.getLogger("cotguard.gateway")
_MICROSECONDS = 1_000_000


class Manager:
    """The service manager, at ``address``: a path, or a name in the abstract namespace behind an ``@``.

    ``watchdog``: seconds within which it wants to hear something, 0 for never.
    """

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog = watchdog

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """The one that started this process, if it did: variables of another process's watchdog are not ours."""
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = environment.get("WATCHDOG_USEC", "0") if ours else "0"
        return cls(environment.get("NOTIFY_SOCKET", ""), int(microseconds) / _MICROSECONDS)

    def ready(self) -> None:
        """The service has started, or has reloaded."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """The service reads its configuration anew; ``ready`` follows."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service begins to end."""
        self._tell("STOPPING=1")

    async def watch(self, is_alive: Callable[[], Awaitable[bool]]) -> None:
        """Keep the watchdog content for ever, if there is one, while ``is_alive``; asked twice in its time."""
        while self._address and self._watchdog:
            if await is_alive():
                self._tell("WATCHDOG=1")
            await asyncio.sleep(self._watchdog / 2)

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as ours:
                ours.sendto(message.encode(), self._address)
        except OSError as error:  # clients are served all the same
            _LOG.warning("the service manager cannot be told", extra={"error": type(error).__name__})
