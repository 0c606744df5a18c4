"""The key of a trail: a setting, or a random one in the trail's directory.

Two keys are derived from it, one that signs records and one that hashes values. Limit: who can read the key can write a
trail that verifies, and can find out values that can be guessed. Keep it elsewhere than the trail (``audit_key``) where
the gateway's own user is not trusted.
"""

import hashlib
import hmac
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

__all__ = ["AuditKey", "TrailError", "check_key", "keep_key", "read_key"]

_MIN_CHARS = 32
_NAME = "key"
_VALUE_CHARS = 32


class TrailError(ValueError):
    """A trail cannot be opened or read; the message says why and what to do."""


class AuditKey:
    """See the module; ``secret`` is the key's text."""

    __slots__ = ("_hashing", "secret", "signing")

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.signing = self._derived(b"cotguard audit: records")
        self._hashing = self._derived(b"cotguard audit: values")

    def hash(self, value: str) -> str:
        """What stands for ``value``, the same at every recurrence: 32 hexadecimal digits."""
        digest = hmac.digest(self._hashing, value.encode("utf-8", "surrogatepass"), hashlib.sha256)
        return digest.hex()[:_VALUE_CHARS]

    def _derived(self, purpose: bytes) -> bytes:
        return hmac.digest(self.secret.encode(), purpose, hashlib.sha256)


def check_key(secret: str) -> None:
    """Raise ``ValueError`` if a setting is too short to be a key."""
    if len(secret) < _MIN_CHARS:
        raise ValueError(f"write at least {_MIN_CHARS} characters, for example those of `openssl rand -hex 32`")


def keep_key(directory: Path, secret: str) -> str:
    """Keep ``secret`` in the directory, unless there is a key; returns the key that is there. Raises ``OSError``."""
    path = directory / _NAME
    if not path.exists():  # complete under another name first: nobody reads a part, and two makers do not collide
        draft = directory / f"{_NAME}.{secrets.token_hex(4)}"
        try:
            with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(secret + "\n")
            path.hardlink_to(draft)  # unlike a renaming, it replaces nothing
        except FileExistsError:
            pass
        finally:
            draft.unlink(missing_ok=True)
    if stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        raise PermissionError(None, "others can read the key; chmod 600 it", str(path))
    return path.read_text("ascii").strip()


def read_key(directory: Path | None, configured: str) -> AuditKey:
    """The key to verify with: the configured one, or that in the directory. Raises :class:`TrailError`."""
    if configured:
        return AuditKey(configured)
    if directory is not None:
        with suppress(OSError, UnicodeDecodeError):
            if secret := (directory / _NAME).read_text("ascii").strip():
                return AuditKey(secret)
    where = f"there is none in {directory} that you may read" if directory else "lines do not come with one"
    raise TrailError(f"the key is needed, and {where}; set COTGUARD_AUDIT_KEY to that of the gateway")
