"""Pictures of the console's pages: which there are, what is seen on them, and how ``docs/console.md`` shows them.

:mod:`docs_build.screenshots` takes them.
"""

from collections.abc import Iterator
from itertools import product
from typing import Final, NamedTuple

from docs_build.tables import table

__all__ = ["FOLDER", "LOOKS", "PICTURES", "SCREENS", "Picture", "reference"]

FOLDER: Final = "console"
"""Where they lie, in ``docs``."""

SCREENS: Final = {"desktop": (1280, 800), "phone": (390, 844)}
"""Width and height in pixels."""

LOOKS: Final = tuple(product(SCREENS, ("light", "dark")))
"""What each picture is taken in."""


class Picture(NamedTuple):
    """``seen``: what its alternative text says."""

    name: str
    title: str
    seen: str

    def file(self, screen: str, scheme: str) -> str:
        """The name of the picture's file."""
        return f"{self.name}-{screen}-{scheme}.png"


PICTURES: Final = (
    Picture("login", "Logging in", "The login page: a field for the token, and which tokens it takes."),
    Picture("live", "Live, now", "Tiles with what goes on now: streams, rates, latencies, hold, failures, workers."),
    Picture("charts", "Live, the last hour", "Charts of requests, events, streams and latencies, with their values."),
    Picture("totals", "Live, since the start", "Counts since the start as the metrics have them, and the upstreams."),
    Picture("exchanges", "Exchanges", "A list of exchanges with caller, model, outcome and decisions; filters above."),
    Picture("exchange", "An exchange, opened", "The facts of an exchange, where its values stood, what was decided."),
    Picture("text", "Playground, a text", "A text with its values marked, beside what is delivered in its place."),
    Picture("stream", "Playground, a stream", "A recorded stream in the middle: what came, what is on hold, and why."),
    Picture("policy", "Policy", "The policy in force in sentences, and the draft of another in the editor below."),
    Picture("draft", "Policy, a draft", "What a changed draft would do otherwise, sentence by sentence."),
    Picture("compare", "Policy, compared", "Draft and policy in force on the same texts; what differs is marked."),
    Picture("trial", "Policy, on trial", "A trial in the shadow of live traffic, in counts."),
    Picture("apply", "Policy, put in force", "The question before a draft is applied, with what it changes."),
    Picture("loaded", "Loaded", "What runs: version and libraries, policies, upstreams, the bundle and its checksums."),
)


def reference() -> str:
    """All pictures, each page's in a row."""
    return "\n".join(_shown(picture) for picture in PICTURES)


def _shown(picture: Picture) -> str:
    headings = tuple(f"{screen}, {scheme}" for screen, scheme in LOOKS)
    return f"### {picture.title}\n\n{picture.seen}\n\n{table(headings, [tuple(_cells(picture))])}"


def _cells(picture: Picture) -> Iterator[str]:
    for screen, scheme in LOOKS:
        path = f"{FOLDER}/{picture.file(screen, scheme)}"
        yield f"[![{picture.seen}]({path})]({path})"
