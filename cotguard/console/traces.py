"""Sample traces that come with cotguard: made-up requests and answers, each to show a family of values.

One file of ``samples/`` holds one:

    title: what people read
    finds: [EMAIL_ADDRESS]                 # entities that patterns find in it
    request: [{user: a text}, ...]         # may be left out; of each kind one text
    response: [{reasoning: a text}, ...]   # in the order in which the model writes; of each kind one text
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from cotguard.spans import INBOUND, ChannelKind

__all__ = ["Sample", "samples"]

_FOLDER = Path(__file__).with_name("samples")

Texts = tuple[tuple[ChannelKind, str], ...]


def _pairs(value: Any) -> Any:
    return tuple(pair for each in value for pair in each.items())


def _once(texts: Texts) -> Texts:
    if len({kind for kind, _ in texts}) < len(texts):
        raise ValueError("of each kind there is one text")
    return texts


class Sample(BaseModel):
    """One sample: what is sent to a model and what it writes, each text with its kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    finds: tuple[str, ...]
    request: Annotated[Texts, BeforeValidator(_pairs), AfterValidator(_once)] = ()
    response: Annotated[Texts, BeforeValidator(_pairs), AfterValidator(_once)]

    def model_post_init(self, _context: object) -> None:
        if any(kind not in INBOUND for kind, _ in self.request) or any(kind in INBOUND for kind, _ in self.response):
            raise ValueError("a text is in the wrong direction")


@cache
def samples() -> tuple[Sample, ...]:
    """All of them, by the names of their files."""
    return tuple(
        Sample.model_validate(yaml.safe_load(file.read_text("utf-8"))) for file in sorted(_FOLDER.glob("*.yaml"))
    )
