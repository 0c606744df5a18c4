"""Reload: the configuration in force follows its files.

1. The files are looked at a few times a second: the config file, those that it refers to, policies, lists of known
   values, the callers file, certificates. Looking also finds what file notification does not: a ConfigMap that is
   swapped through a link, a network share. A change counts once it stands still: a file half written is left alone.
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
from cotguard.gateway.moderations import OWN, Moderation, load_moderations
from cotguard.policy import PolicyError

__all__ = ["Reloader", "Stamps", "files_of", "stamps_of"]

_LOG = logging.getLogger("cotguard.config")
_LOOK_SECONDS = 0.25

Stamp = tuple[int, int, int] | None
Stamps = dict[Path, Stamp]

_UNKNOWN: Stamp = (0, 0, 0)


class Reloader:
    """See the module. ``stamps``: the files of what ``gateway`` was made from, ``first`` its settings, as they were."""

    def __init__(self, gateway: Gateway, sources: Sources, first: Settings, stamps: Stamps) -> None:
        self._gateway = gateway
        self._sources = sources
        self._first = first
        self._stamps = dict(stamps)
        self._turn = asyncio.Lock()

    async def follow(self) -> None:
        """Reload whenever the files have changed and stand still; until cancelled."""
        seen = self._stamps
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = stamps_of(self._stamps)
            if now == seen and now != self._stamps:
                await self.reload()
            seen = now

    async def catch_up(self) -> None:
        """Reload if the files have changed since the gateway was made."""
        if stamps_of(self._stamps) != self._stamps:
            await self.reload()

    async def reload(self) -> str:
        """Load everything anew. Returns why it cannot be used, empty if it is in force now."""
        async with self._turn:
            self._stamps = stamps_of(self._stamps)  # those of what is read now, or older ones
            try:
                await self._reload()
            except (SettingsError, PolicyError, BundleError, KeyStoreError, ValueError) as error:
                return self._refused(str(error))
            except Exception as error:  # whatever it is, what is in force stays so
                return self._refused(type(error).__name__)
            return ""

    async def _reload(self) -> None:
        loaded = await asyncio.to_thread(self._sources.load)
        self._follow_too(files_of(loaded, ()))  # also where they are bad: a change in them may mend it
        settings = self._kept(loaded.settings)
        known = list(self._gateway.active.moderations.values())
        moderations = await asyncio.to_thread(load_moderations, settings, known)
        await self._gateway.adopt(settings, moderations)
        files = files_of(loaded, moderations.values())
        self._stamps = {path: stamp for path, stamp in self._stamps.items() if path in files}
        self._follow_too(files)
        own = self._gateway.active.moderations[OWN].policy
        _LOG.info("configuration applied policy=%s digest=%s", own.name, own.digest)
        self._gateway.metrics.reloaded(applied=True)

    def _refused(self, reason: str) -> str:
        for line in reason.splitlines():
            _LOG.error("configuration refused, the last good one stays reason=%r", line)
        self._gateway.metrics.reloaded(applied=False)
        return reason

    def _kept(self, settings: Settings) -> Settings:
        """``settings`` with those of the start where a change waits for the next one."""
        fixed = [name for name in Settings.model_fields if needs_restart(name)]
        differing = [name for name in fixed if getattr(settings, name) != getattr(self._first, name)]
        if differing:
            _LOG.warning("these settings take effect at the next start: %s", ", ".join(differing))
        running = self._gateway.active.settings
        values = {name: getattr(settings, name) for name in Settings.model_fields}
        return Settings.model_validate(values | {name: getattr(running, name) for name in fixed})

    def _follow_too(self, files: Iterable[Path]) -> None:
        """Look at these as well. They are read at least once more, since they may have changed since they were."""
        for path in files:
            self._stamps.setdefault(path, _UNKNOWN)


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


def stamps_of(files: Iterable[Path]) -> Stamps:
    """How the files are now: by time, size and what a link leads to."""
    return {path: _stamp(path) for path in files}


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
