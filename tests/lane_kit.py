"""An answer in pieces, as a client gets it."""

from collections.abc import Callable, Sequence

from cotguard.moderation.exchange import Exchange, Lane
from cotguard.moderation.view import View

__all__ = ["answers"]


def answers(
    exchange: Exchange, view: View, parts: Sequence[str], look: Callable[[Lane], None] = lambda _lane: None
) -> list[str]:
    """What the client has got of an answer after each part, and in the end; ``look`` is called after each part."""
    lane = exchange.lane(0)
    lane.open("text", view)
    delivered = [""]
    for part in parts:
        lane.feed("text", part)
        delivered.append(delivered[-1] + "".join(emission.text for emission in lane.take()))
        look(lane)
    lane.finish()
    delivered.append(delivered[-1] + "".join(emission.text for emission in lane.take()))
    return delivered
