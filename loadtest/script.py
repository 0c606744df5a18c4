"""What the mock server says: prose without values, or the demo's script with them, cut into word-sized tokens."""

import re
from functools import cache
from itertools import accumulate, cycle, islice
from typing import Literal

from cotguard.demo.server import ANSWER, REASONING

__all__ = ["PROSE", "Channel", "Script", "script", "split"]

Channel = Literal["reasoning", "answer"]

PROSE = """\
Okay, the user says that the nightly import has been failing since the upgrade, and that only the second node shows \
it. Let me think about what changed. The release notes mention a new scheduler, a smaller connection pool (down from \
64 to 16) and stricter checks of the schema. A smaller pool would explain timeouts under load, but the import runs at \
3 in the morning, when hardly anyone is connected. Hmm, wait. The log they pasted says "relation is locked by another \
session", so it isn't a timeout at all: something keeps a lock. Which job holds one for that long? Perhaps the backup, \
since it was moved from Sunday to every night last month.

If the backup starts at 02:30 and takes about 45 minutes, both would overlap for a quarter of an hour. On the first \
node the backup is disabled, which fits what they observe. I should also consider that the import's retry loop gives \
up after 5 attempts, 20 seconds apart, so 100 seconds in all - far less than the overlap. So the plan: move the import \
to 04:00, or let the backup take a snapshot that doesn't need the lock; then raise the number of retries. Before that, \
they should verify it by looking at who holds the lock while the import waits. I'm fairly sure, but a check costs \
nothing. Also worth a remark: the error code isn't passed on by the wrapper script, therefore nobody was alerted.
"""

_TOKEN = re.compile(r"\s?[^\W\d_]{1,8}|\s?\d{1,3}|\s?[^\w\s]{1,3}|\s+|_+")

_ANSWER_SHARE = 4


def split(text: str) -> list[str]:
    """``text`` cut as tokenizers cut it, roughly: words with the space before them, three digits, punctuation."""
    return _TOKEN.findall(text)


class Script:
    """The first ``count`` tokens of a text told over and over; the last quarter of them is the answer."""

    def __init__(self, count: int, *, planted: bool) -> None:
        text = f"{REASONING}\n{ANSWER}\n" if planted else PROSE
        self.tokens = list(islice(cycle(split(text)), count))
        self.answer_from = count - count // _ANSWER_SHARE

    @property
    def text(self) -> str:
        """Reasoning and answer, as one text."""
        return "".join(self.tokens)

    @property
    def ends(self) -> list[int]:
        """For every token the offset in ``text`` at which it ends."""
        return list(accumulate(map(len, self.tokens)))

    @property
    def deltas(self) -> list[tuple[Channel, str]]:
        """The tokens with the channel of each."""
        return [("reasoning" if at < self.answer_from else "answer", token) for at, token in enumerate(self.tokens)]


@cache
def script(count: int, *, planted: bool) -> Script:
    """The one script of this process with these properties."""
    return Script(count, planted=planted)
