"""Exchanges and their decisions, as the audit trail has them. What is asked is searched for in a thread of its own."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from cotguard.audit.index import AuditIndex, Filters
from cotguard.audit.key import TrailError
from cotguard.console.desk import Reply

__all__ = ["Exchanges"]

_MOST: Final = 200
_FILTERS: Final = {"callers": "caller", "routes": "route", "models": "model", "entities": "entity"}
_CHAIN: Final = frozenset({"v", "chain", "mac"})
"""Fields that prove a record, and are of no use to who reads it."""

_MATCHED: Final = ("caller", "route", "model", "outcome", "since", "until")


class Exchanges:
    """Searches the trail in ``directory``; without one there is nothing to find."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cotguard-console")
        self._index: AuditIndex | None = None

    async def recent(self, asked: Mapping[str, str]) -> Reply:
        """Exchanges, the latest first."""
        try:
            limit, before = int(asked.get("limit", "50")), int(asked.get("before", "0"))
        except ValueError:
            return 400, {"error": "limit, before: write numbers."}
        limit = min(max(limit, 1), _MOST)
        filters = Filters(type="exchange", **{name: asked[name] for name in _MATCHED if asked.get(name)})

        def search(index: AuditIndex) -> dict[str, Any]:
            found = index.exchanges(filters, asked.get("entity", ""), before, limit + 1)
            return {"trail": True, "exchanges": [_told(each) for each in found[:limit]], "more": len(found) > limit}

        return await self._searched(search, {"trail": False, "exchanges": [], "more": False})

    async def filters(self) -> Reply:
        """What can be filtered by."""

        def search(index: AuditIndex) -> dict[str, Any]:
            told = {
                name: [value for value, _ in index.count(Filters(), column, _MOST)] for name, column in _FILTERS.items()
            }
            outcomes = index.count(Filters(type="exchange"), "outcome", _MOST)
            return {**told, "outcomes": [value for value, _ in outcomes]}

        return await self._searched(search, {name: [] for name in (*_FILTERS, "outcomes")})

    async def one(self, request_id: str) -> Reply:
        """One exchange, and what was decided in it."""
        filters = Filters(request_id=request_id)

        def search(index: AuditIndex) -> dict[str, Any]:
            ended = [_told(each) for each in index.search(replace(filters, type="exchange"), 1)]
            decisions = [_told(each) for each in index.search(replace(filters, type="decision"), 1000)[::-1]]
            times = {value: index.recurrences(value)[0] for value in {each["value"] for each in decisions} if value}
            for each in decisions:
                each["recurrences"] = times.get(each["value"], 0)
            return {"exchange": ended[0] if ended else None, "decisions": decisions}

        return await self._searched(search, {"exchange": None, "decisions": []})

    async def value(self, digest: str) -> Reply:
        """Where the value with this keyed hash was found."""

        def search(index: AuditIndex) -> dict[str, Any]:
            decisions, exchanges = index.recurrences(digest)
            latest = [_told(each) for each in index.search(Filters(type="decision", value=digest), 100)]
            return {"decisions": decisions, "exchanges": exchanges, "latest": latest}

        return await self._searched(search, {"decisions": 0, "exchanges": 0, "latest": []})

    def close(self) -> None:
        """Search no more."""
        if self._index is not None:
            self._thread.submit(self._index.close)
        self._thread.shutdown(wait=False)

    async def _searched(self, search: Callable[[AuditIndex], dict[str, Any]], nothing: dict[str, Any]) -> Reply:
        if self._directory is None:
            return 200, nothing
        run = partial(self._search, self._directory, search)
        try:
            return 200, await asyncio.get_running_loop().run_in_executor(self._thread, run)
        except TrailError:
            return 500, {"error": "The audit trail cannot be searched; see `cotguard audit query`."}

    def _search(self, directory: Path, search: Callable[[AuditIndex], dict[str, Any]]) -> dict[str, Any]:
        if self._index is None:
            self._index = AuditIndex(directory)
        self._index.update()
        return search(self._index)


def _told(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in _CHAIN}
