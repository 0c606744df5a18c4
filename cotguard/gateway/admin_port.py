"""Where the admin port listens, and who may use it.

Without an admin token, which other addresses than this machine's own need, there is no console. Whoever starts the
gateway at a terminal is shown a token for the console alone that lasts as long as the process: he wants to look.
"""

import secrets
import ssl
import sys
from typing import NamedTuple, Self, TextIO

from aiohttp import web

from cotguard.addresses import split_address
from cotguard.config.settings import Settings
from cotguard.console.app import PREFIX
from cotguard.gateway.admin import State, create_admin_app
from cotguard.http.tls import ReloadingContext, TlsFiles, context_of
from cotguard.telemetry.metrics import Metrics

__all__ = ["AdminPort", "url_of"]


class AdminPort(NamedTuple):
    """See the module. ``console``: what is shown to log in there; empty where there is none."""

    host: str
    port: int
    token: str
    tls: TlsFiles | None
    audit_dir: str
    console: str

    @classmethod
    def of(cls, settings: Settings, terminal: TextIO = sys.stderr) -> Self:
        """The admin port of a gateway that is being started."""
        token = settings.admin_token
        console = token or (secrets.token_urlsafe(16) if terminal.isatty() else "")
        return cls(*split_address(settings.admin_listen), token, settings.admin_tls, settings.audit_dir, console)

    async def start(self, state: State, metrics: Metrics) -> tuple[web.AppRunner, ReloadingContext | None]:
        """Listen. Returns what is to be cleaned up at the end, and the certificate that is to be followed."""
        app = create_admin_app(state, self.token, self.audit_dir, self.console)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        tls = context_of("admin", self.tls, metrics)
        await web.TCPSite(runner, self.host, self.port, ssl_context=tls).start()
        if self.console != self.token:
            sys.stderr.write(f"cotguard: the console is at {url_of(runner, tls)}{PREFIX}/, token {self.console}\n")
        return runner, tls


def url_of(runner: web.AppRunner, context: ssl.SSLContext | None) -> str:
    """Where ``runner`` listens."""
    host, port, *_ = runner.addresses[0]
    return f"{'http' if context is None else 'https'}://{host}:{port}"
