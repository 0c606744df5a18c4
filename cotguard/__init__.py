"""cotguard: moderation of reasoning traces and answers while they stream.

The names of the public API are loaded when they are asked for: importing the package alone costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cotguard.classifier.bundle import BundleError
    from cotguard.moderation.exchange import ModerationFault
    from cotguard.moderator import Found, Moderated, ModeratedExchange, Moderator, Piece, RequestBlocked, TextBlocked
    from cotguard.policy import PolicyError

__all__ = [
    "BundleError",
    "Found",
    "Moderated",
    "ModeratedExchange",
    "ModerationFault",
    "Moderator",
    "Piece",
    "PolicyError",
    "RequestBlocked",
    "TextBlocked",
    "__version__",
]

__version__ = "0.1.0"

_MODULES = {
    "BundleError": "cotguard.classifier.bundle",
    "ModerationFault": "cotguard.moderation.exchange",
    "PolicyError": "cotguard.policy",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "cotguard.moderator")), name)
