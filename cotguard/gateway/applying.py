"""Drafts put in force: written to the file of the policy that they replace, which is then loaded like any change of it.

1. The file is the truth. It is written only where it holds what is in force, and only for whoever names the digest of
   that: so nobody overwrites what he has not seen.
2. A draft is made ready as a whole before anything is written, and reads no files but those of the policy that it
   replaces.
3. The record that says who writes comes first. What stood in the file before is kept beside it (:func:`former_of`), and
   the draft takes its place in one step.
4. What cannot be loaded then, for whatever reason, is taken back.

Not written are policies that come with cotguard, links (what mounts a ConfigMap replaces them itself), and what lies in
folders that cannot be written.
"""

import asyncio
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotguard.audit.records import Event
from cotguard.gateway.drafting import asked
from cotguard.policy import Policy, PolicyError, is_ready, lists_values, parse

if TYPE_CHECKING:
    from cotguard.gateway.app import Gateway

__all__ = ["Applying", "Conflict", "former_of", "why_not_written"]


_LOG = logging.getLogger("cotguard.config")


class Conflict(Exception):  # noqa: N818  # not an error of ours: things have changed
    """What was asked does not fit what is there, and nothing was changed. The message says why."""


class Applying:
    """See the module. ``reload`` loads the configuration anew and returns why it cannot be used, empty if it can."""

    def __init__(self, gateway: "Gateway", reload: Callable[[], Awaitable[str]]) -> None:
        self._gateway = gateway
        self._reload = reload
        self._turn = asyncio.Lock()

    async def text(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """The text of the ``policy`` in force, or why it is not shown. Raises ``ValueError``."""
        policy = self._gateway.active.named(str(about.get("policy"))).policy
        try:
            return {"text": await asyncio.to_thread(_shown, policy), "why": ""}
        except Conflict as conflict:
            return {"text": None, "why": str(conflict)}

    async def apply(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Put the ``draft`` in force in the place of the ``policy`` whose ``digest`` is named, in the name of ``by``.

        Returns name and digest. Raises :class:`Conflict` and what
        :meth:`~cotguard.gateway.drafting.Drafts.moderation` raises.
        """
        name, text = asked(about)
        async with self._turn:
            return await self._put(name, self._replaced(name, about), text, about)

    async def roll_back(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """The same with what stood in the file before it was written here."""
        async with self._turn:
            name = str(about.get("policy"))
            replaced = self._replaced(name, about)
            former = await asyncio.to_thread(_read, former_of(replaced))
            if former is None:
                raise Conflict("There is nothing to go back to.")
            return await self._put(name, replaced, former.decode(errors="replace"), about)

    def _replaced(self, name: str, about: Mapping[str, Any]) -> Policy:
        policy = self._gateway.active.named(name).policy
        if why := why_not_written(policy):
            raise Conflict(why)
        if about.get("digest") != policy.digest:
            raise Conflict("Somebody has changed this policy meanwhile.")
        return policy

    async def _put(self, name: str, replaced: Policy, text: str, about: Mapping[str, Any]) -> dict[str, Any]:
        draft = (await self._gateway.drafts.moderation(name, text)).policy
        before = (await asyncio.to_thread(_text, replaced)).encode()
        if not await self._gateway.record(Event.POLICY_WRITTEN, f"{draft.digest} by {about.get('by')}"):
            raise Conflict("The audit trail takes no records.")
        _LOG.warning("policy written", extra={"policy_name": draft.name, "policy": draft.digest})
        path, former = Path(replaced.file), former_of(replaced)
        kept = await asyncio.to_thread(_read, former)
        try:
            await asyncio.to_thread(_replace, former, before, path)
            try:
                await asyncio.to_thread(_replace, path, text.encode(), path)
            except OSError:  # as where the file itself is mounted
                await asyncio.to_thread(_replace, former, kept, path)
                raise
        except OSError as error:
            raise Conflict(f"The file cannot be written: {error.strerror}.") from None
        if problem := await self._reload():
            await asyncio.to_thread(_replace, path, before, path)
            await asyncio.to_thread(_replace, former, kept, path)
            await self._reload()
            raise Conflict(f"The configuration cannot be loaded with it, and all is as it was: {problem}")
        called = (name for name, each in self._gateway.active.policies.items() if each.policy.digest == draft.digest)
        return {"name": next(called, draft.name), "digest": draft.digest}


def former_of(policy: Policy) -> Path:
    """Where what stood in a policy's file is kept when that is written."""
    return Path(f"{policy.file}~")


def why_not_written(policy: Policy) -> str:
    """Why the file of ``policy`` is not written; empty if it can be."""
    path = Path(policy.file)
    if is_ready(policy):
        return "It comes with cotguard: download it, and let the configuration name the file."
    if path.is_symlink():
        return "Its file is a link, as in a mounted ConfigMap: change what it is made from."
    if not os.access(path.parent, os.W_OK):
        return "The gateway may not write in the folder of its file."
    return ""


def _shown(policy: Policy) -> str:
    """The text of a policy in force. Raises :class:`Conflict` where it holds known values: nobody is shown those."""
    text = _text(policy)
    if lists_values(text) or any(value in text for value in policy.known_values):
        raise Conflict("It lists known values, which the console does not show.")
    return text


def _text(policy: Policy) -> str:
    """The text of a policy in force. Raises :class:`Conflict` where its file holds another one."""
    path = Path(policy.file)
    with suppress(PolicyError, UnicodeDecodeError):
        text = (_read(path) or b"").decode()
        if parse(text, policy.file, path.parent).digest == policy.digest:
            return text
    raise Conflict("Its file holds something else than what is in force; the gateway's log may say why.")


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _replace(path: Path, content: bytes | None, like: Path) -> None:
    """Let ``path`` have this content, or be gone, in one step; its mode is that of ``like``. Raises ``OSError``."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), like.stat().st_mode & 0o777)
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
