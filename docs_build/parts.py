"""The generated parts of pages, and where they go.

A part stands between ``<!-- NAME -->`` and ``<!-- end -->``, where NAME is one of ``PARTS``. There is no other
comment of this form.
"""

import re
from collections.abc import Callable, Mapping

from cotguard.dialects import listing
from cotguard.dialects.catalogue import dialects
from docs_build import commands, entities, nav, pictures, policies, settings

__all__ = ["PARTS", "filled"]

PARTS: Mapping[str, Callable[[], str]] = {
    "cotguard dialects": lambda: f"```text\n{listing.plain(dialects())}```\n",
    "cotguard dialects --markdown": lambda: listing.markdown(dialects()),
    "commands": commands.reference,
    "console pictures": pictures.reference,
    "entities": entities.reference,
    "pages": nav.reference,
    "policy actions": policies.actions,
    "policy keys": policies.keys,
    "ready policies": policies.ready,
    "settings": settings.reference,
    "settings of routes": settings.routes,
    "settings of upstreams": settings.upstreams,
}

_PART = re.compile(r"<!-- ([a-z -]+) -->\n.*?<!-- end -->", re.DOTALL)


def filled(text: str) -> str:
    """``text`` of a page with its parts as they are now. Raises ``KeyError`` for a part that is none."""
    return _PART.sub(lambda found: f"<!-- {found[1]} -->\n{PARTS[found[1]]()}<!-- end -->", text)
