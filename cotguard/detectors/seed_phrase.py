"""Seed phrases: the 12 to 24 words from which a cryptocurrency wallet is restored.

A phrase is 12, 15, 18, 21 or 24 consecutive words of the English list of BIP 39, in any case, with spaces, line
breaks, commas or numbering in between, whose checksum is right. The list (``bip39_english.txt``) is that of the BIP,
under the MIT licence; source: https://github.com/bitcoin/bips/blob/master/bip-0039.mediawiki.

Algorithm: text is read as folded characters and cut into words, each looked up once. The list words of the current
run are kept, at most 24; with every new one the phrases that end with it are checked. Words longer than any list word
are not kept.

What is held: half of all words in prose are, or begin as, words of the list, so holding each of them would make all
text a word late. A phrase is expected, and text held from its first letter on,

* at the start of the text or a line, and behind anything but a space: punctuation, quotes, numbering;
* behind one of ``_INTRODUCERS``, words after which a value is told ("it is ...", "he wrote ...");
* within ``HINT_CHARS`` after one of ``_HINTS``, words about wallets and secrets;
* behind two list words in a row.

So of a phrase in the middle of a sentence that nothing announces, the first two words pass, and its span begins with
the third: 22 bits of at least 128.

Limits: other languages' lists; phrases with other words in between. One run in 16 of 12 list words has a right
checksum by chance.
"""

import hashlib
import re
from collections import deque
from collections.abc import Sequence
from importlib.resources import files
from itertools import islice
from typing import Final, NamedTuple

from cotguard.detectors.characters import CharacterReader
from cotguard.detectors.contract import Scope, Session
from cotguard.spans import Span

__all__ = ["HINT_CHARS", "MAX_GAP", "SeedPhrases", "word_list"]

ENTITY = "SECRET_SEED_PHRASE"

MAX_GAP = 16
"""Most characters between two words: numbering, a bullet, a table's border."""

HINT_CHARS = 256
"""How far behind a hint a phrase may begin in the middle of a sentence."""

_UNEXPECTED = 2
"""List words in a row after which a phrase is expected anywhere."""

_COUNTS = (12, 15, 18, 21, 24)
_WORD_BITS = 11


def word_list() -> tuple[str, ...]:
    """The 2048 English words of BIP 39, in order."""
    return tuple((files(__package__) / "bip39_english.txt").read_text("ascii").split())


_WORDS = word_list()
_NUMBERS = {word: number for number, word in enumerate(_WORDS)}
_BEGINNINGS = frozenset(word[:length] for word in _WORDS for length in range(1, len(word) + 1))
_LONGEST = max(map(len, _WORDS))

_INTRODUCERS = frozenset(
    """
    am are as be been being called check copy enter entered from gave get give given got had has have him import
    includes input is it key me paste pasted provided read reads received remember repeat said save saved say says see
    sent shared shows store stored tells that them these this told to type typed us use used uses using was were with
    word words write writes written wrote you
    """.split()  # noqa: SIM905  # a hundred quotes would hide the words
)
_HINTS = frozenset(
    """
    bip bitcoin btc crypto cryptocurrency eth ethereum ledger metamask mnemonic mnemonics passphrase phrase phrases
    recovery seed seeds trezor wallet wallets
    """.split()  # noqa: SIM905  # a hundred quotes would hide the words
)

_TELLING = _INTRODUCERS | _HINTS

_PIECES = re.compile(r"(?P<letters>[^\W\d_]+)|[\W\d_]+")


def _checksum_holds(numbers: Sequence[int]) -> bool:
    """Whether the last ``len(numbers) / 3`` bits begin the SHA-256 of the others (BIP 39)."""
    bits = 0
    for number in numbers:
        bits = bits << _WORD_BITS | number
    size = len(numbers) // 3
    entropy = (bits >> size).to_bytes(size * 4, "big")
    return hashlib.sha256(entropy).digest()[0] >> (8 - size) == bits & ((1 << size) - 1)


class SeedPhrases:
    """Finds BIP 39 seed phrases in English."""

    name: Final = "seed-phrase"
    entities: Final = frozenset({ENTITY})

    def open(self, scope: Scope) -> Session | None:
        return _SeedPhraseSession(scope.context)


class _ListWord(NamedTuple):
    """A word of the list in the current run. ``held``: text was held from its start on."""

    number: int
    start: int
    held: bool


class _SeedPhraseSession:
    __slots__ = ("_expected", "_gap", "_hinted_until", "_reader", "_run", "_word", "_word_end", "_word_start")

    def __init__(self, context: str) -> None:
        self._reader = CharacterReader(-len(context), escapes=True)
        self._run: deque[_ListWord] = deque(maxlen=_COUNTS[-1])
        self._word = ""  # the unfinished word, as far as it matters
        self._word_start = self._word_end = 0
        self._expected = True  # a phrase, by what stands right before the word
        self._hinted_until = -len(context)
        self._gap = 0  # characters since the last word
        self.advance(context, False)

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        spans: list[Span] = []
        start = None if final else self._reader.take_word(text)
        if start is not None:  # the common case, without the map of offsets
            end = start + len(text)
            if text[0] == " ":
                self._separate(" ", spans)
                text = text[1:]
                start += 1
            self._extend(text, start, end)
            return spans, self._stable()
        characters = self._reader.feed(text, final)
        for match in _PIECES.finditer(characters.symbols):
            if match.lastgroup:
                self._extend(match[0], characters.starts[match.start()], characters.ends[match.end() - 1])
            else:
                self._separate(match[0], spans)
        if final:
            self._separate("\n", spans)
            self._run.clear()
        return spans, self._stable()

    def _extend(self, letters: str, start: int, end: int) -> None:
        """Read letters, which stand at ``[start, end)``."""
        if not self._word:
            self._word_start = start
        if len(self._word) <= _LONGEST:
            self._word = (self._word + letters[: _LONGEST + 1]).lower()
        self._word_end = end
        if self._run and self._word not in _BEGINNINGS:
            self._run.clear()

    def _separate(self, gap: str, spans: list[Span]) -> None:
        """Read characters that are in no word: the word before them, if one is open, is finished."""
        word = self._word
        if word:
            number = _NUMBERS.get(word)
            if number is not None:
                self._run.append(_ListWord(number, self._word_start, self._is_held()))
                self._report(spans)
            elif self._run:
                self._run.clear()
            self._expected = False
            if word in _TELLING:
                self._expected = word in _INTRODUCERS
                if word in _HINTS:
                    self._hinted_until = self._word_end + HINT_CHARS
            self._word = ""
            self._gap = 0
        self._gap += len(gap)
        if self._gap > MAX_GAP:
            self._run.clear()
        if gap != " " and not self._expected:
            self._expected = not gap.isspace() or "\n" in gap

    def _is_held(self) -> bool:
        """Whether text is held from the start of the word on, should it be one of the list."""
        return self._expected or self._word_start <= self._hinted_until or len(self._run) >= _UNEXPECTED

    def _report(self, spans: list[Span]) -> None:
        """Phrases that end with the last word."""
        run = self._run
        if self._word_end <= 0:  # what ends in the context was the earlier channel's to report
            return
        for count in _COUNTS:
            if count > len(run):
                return
            phrase = list(islice(run, len(run) - count, None))
            if _checksum_holds([word.number for word in phrase]):
                start = next(word.start for word in phrase if word.held)
                spans.append(Span(start, self._word_end, ENTITY, 0.99, f"{SeedPhrases.name}/bip39"))

    def _stable(self) -> int:
        """Where the earliest phrase that may be under way is held from."""
        run = self._run
        if run:
            # A phrase that the next word completes takes at most this many of the words before it.
            for word in islice(run, max(0, len(run) - _COUNTS[-1] + 1), None):
                if word.held:
                    return word.start
        if self._word and self._is_held() and self._word in _BEGINNINGS:
            return self._word_start
        return self._reader.settled
