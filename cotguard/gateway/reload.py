"""Reload: the configuration in force follows its files.

1. Watched are the config file, those that it refers to, policies, lists of known values, the callers file, and the
   certificates that upstreams are shown.
2. Everything is loaded and checked beside what is in force, and takes its place in one step. Exchanges under way keep
   theirs.
3. What cannot be used changes nothing: the last good configuration stays, with a log line and a metric.
4. Settings that take effect at a start only keep the value of the start; a log line names those that differ.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from cotguard.callers.keys import KeyStoreError
from cotguard.classifier.bundle import BundleError
from cotguard.config.errors import SettingsError
from cotguard.config.settings import Settings, needs_restart
from cotguard.config.sources import Loaded, Sources
from cotguard.gateway.app import Gateway
from cotguard.gateway.memory import give_back
from cotguard.gateway.moderations import Moderation, load_moderations
from cotguard.http.watching import Stamps, Watch
from cotguard.policy import PolicyError

__all__ = ["Reloader", "files_of"]

_LOG = logging.getLogger("cotguard.config")


class Reloader:
    """See the module. ``stamps``: the files of what ``gateway`` was made from, ``first`` its settings, as they were."""

    def __init__(self, gateway: Gateway, sources: Sources, first: Settings, stamps: Stamps) -> None:
        self._gateway = gateway
        self._sources = sources
        self._first = first
        self._watch = Watch(stamps)
        self._turn = asyncio.Lock()

    async def follow(self) -> None:
        """Reload whenever the files have changed; until cancelled."""
        while True:
            await self._watch.changed()
            await self.reload()

    async def catch_up(self) -> None:
        """Reload if the files have changed since the gateway was made."""
        if self._watch.differs:
            await self.reload()

    async def reload(self) -> str:
        """Load everything anew. Returns why it cannot be used, empty if it is in force now."""
        async with self._turn:
            self._watch.read()
            try:
                await self._reload()
            except (SettingsError, PolicyError, BundleError, KeyStoreError, ValueError) as error:
                return self._refused(str(error))
            except Exception as error:  # whatever it is, what is in force stays so
                return self._refused(type(error).__name__)
            return ""

    async def _reload(self) -> None:
        loaded = await asyncio.to_thread(self._sources.load)
        self._watch.add(files_of(loaded, ()))  # also where they are bad: a change in them may mend it
        settings = self._kept(loaded.settings)
        known = list(self._gateway.active.moderations.values())
        moderations = await asyncio.to_thread(load_moderations, settings, known)
        await self._gateway.adopt(settings, moderations)
        give_back()  # of what was compiled, and of policies that no exchange is under any more
        self._watch.keep(files_of(loaded, moderations.values()))
        self._gateway.account_reload(applied=True)

    def _refused(self, reason: str) -> str:
        for line in reason.splitlines():
            _LOG.error("configuration refused, the last good one stays", extra={"problem": line})
        self._gateway.account_reload(applied=False)
        return reason

    def _kept(self, settings: Settings) -> Settings:
        """``settings`` with those of the start where a change waits for the next one."""
        fixed = [name for name in Settings.model_fields if needs_restart(name)]
        differing = [name for name in fixed if getattr(settings, name) != getattr(self._first, name)]
        if differing:
            _LOG.warning("some settings take effect at the next start", extra={"settings": ", ".join(differing)})
        running = self._gateway.active.settings
        values = {name: getattr(settings, name) for name in Settings.model_fields}
        return Settings.model_validate(values | {name: getattr(running, name) for name in fixed})


def files_of(loaded: Loaded, moderations: Iterable[Moderation]) -> list[Path]:
    """All files that the configuration is made of."""
    return list(dict.fromkeys(_files(loaded, moderations)))


def _files(loaded: Loaded, moderations: Iterable[Moderation]) -> Iterator[Path]:
    settings = loaded.settings
    yield from loaded.files
    yield from map(Path, settings.policies)  # of a ready policy's name there is no file, unless one is made
    for moderation in moderations:
        yield from map(Path, moderation.policy.files)
    if settings.callers_file:
        yield Path(settings.callers_file)
    for pool in settings.pools.values():
        if pool.tls:
            yield from (Path(name) for name in (pool.tls.ca, pool.tls.cert, pool.tls.key) if name)
