"""What stands around a candidate: words that name it, characters that join it to something larger.

Most numbers mean nothing by themselves: nine digits are a social security number after "SSN" and a price after
"$". :class:`Context` searches the text before a value for such words, as whole words:

1. The last ``reach`` characters are cut at camelCase, at underscores and at every other non-word character, and
   put into lower case, so that ``dateOfBirth``, ``date_of_birth`` and ``**Date of birth:**`` read alike.
2. Phrases are brought into the same form, accents and all (:func:`cotguard.detectors.normalize.fold`), and matched
   on word boundaries; a plural ``s`` is allowed. ``WhatsApp`` is found as one word and as two.

Limits: only text before a value counts ("555-0100 is my phone" has no context). Scripts without case (Chinese,
Arabic) do not survive normalisation, so they cannot be context.
"""

import re
from collections.abc import Iterator

from cotguard.detectors.normalize import fold
from cotguard.detectors.rule import Candidate

__all__ = ["IDENTIFIER", "Context", "cuts", "digits", "is_joined"]

IDENTIFIER = r"(?:[A-Za-z]{1,8}[-_./]?)?(?:[A-Za-z]{1,4}[-_./]?)?[0-9][0-9A-Za-z]{2,19}(?:[-_/][0-9A-Za-z]{1,12}){0,3}"
"""Value of a rule for made-up identifiers such as ``C-48291``, ``PT178299``, ``MRN/00-1234``. No spaces: prose is never
one; the check asks for a label and for enough digits."""

_WORD_BREAK = re.compile(r"(?<=[a-z])(?=[A-Z])|[^0-9A-Za-z\xaa]+")
_BEGUN_WORD = re.compile(r"[0-9A-Za-z\xaa]*")
_NOT_DIGIT = re.compile(r"[^0-9]+")
_JOINED = re.compile(r"(?:[0-9A-Za-z\xaa][-.]|[+^])\Z")


def _in_words(text: str) -> str:
    return f" {_WORD_BREAK.sub(' ', text)} ".lower()


class Context:
    """Phrases that name a value. ``reach``: how many characters before the value the phrase may begin."""

    def __init__(self, *phrases: str, reach: int = 50) -> None:
        self.phrases = phrases
        self._reach = reach
        folded = {
            _in_words("".join(map(fold, spelling))).strip()
            for phrase in phrases
            for spelling in (phrase, phrase.lower())
        }
        named = f" (?:{'|'.join(sorted(map(re.escape, folded), key=len, reverse=True))})s? "
        self._near = re.compile(named)
        self._label = re.compile(rf"{named}[^0-9]*\Z")

    def near(self, before: str) -> bool:
        """Whether a phrase stands within reach."""
        return self._near.search(self._tail(before)) is not None

    def labels(self, before: str) -> bool:
        """Whether a phrase stands within reach and no digit between it and the value: the value is *its* value."""
        return self._label.search(self._tail(before)) is not None

    def _tail(self, before: str) -> str:
        at = max(0, len(before) - self._reach)
        if at and (begun := _BEGUN_WORD.match(before, at)) and _BEGUN_WORD.fullmatch(before[at - 1]):
            at = begun.end()  # the rest of a word is not that word
        return _in_words(before[at:])


def digits(text: str) -> str:
    """The ASCII digits of ``text``."""
    return _NOT_DIGIT.sub("", text)


def is_joined(candidate: Candidate) -> bool:
    """Whether the value is the tail of something larger: of ``1234-``, of ``ORD-``, of a decimal."""
    return _JOINED.search(candidate.before) is not None


def cuts(text: str) -> Iterator[int]:
    """Offsets at which a value made of groups may end, longest first: the whole, then before each space or slash.

    A longest match may have run into the next number ("4111 1111 1111 1111 12/27"). There are no more than eight, so
    that hostile text ("1 1 1 1 ...") costs no more.
    """
    end = len(text)
    for _ in range(8):
        if end <= 0:
            return
        yield end
        end = max(text.rfind(" ", 0, end), text.rfind("/", 0, end))
        while end > 0 and not text[end - 1].isalnum():
            end -= 1
