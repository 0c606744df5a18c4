"""Seed phrases: the 12 to 24 words from which a cryptocurrency wallet is restored.

A phrase is 12, 15, 18, 21 or 24 consecutive words of the English list of BIP 39, in any case, with spaces, line
breaks, commas or numbering in between, whose checksum is right. The list (``bip39_english.txt``) is that of the BIP,
under the MIT licence; source: https://github.com/bitcoin/bips/blob/master/bip-0039.mediawiki.

Algorithm: text is read as folded characters and cut into words, each looked up once. The list words of the current
run are kept, at most 24; with every new one the phrases that end with it are checked. Everything from the start of
the run is held, since any list word may begin a phrase: in prose, a word or two. Words longer than any list word are
not kept.

Limits: other languages' lists; phrases with other words in between. One run in 16 of 12 list words has a right
checksum by chance.
"""

import hashlib
import re
from collections import deque
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import islice

from cotguard.detectors.characters import CharacterReader, Characters
from cotguard.detectors.contract import Scope, Session
from cotguard.spans import Span

__all__ = ["MAX_GAP", "SeedPhrases", "word_list"]

ENTITY = "SECRET_SEED_PHRASE"

MAX_GAP = 16
"""Most characters between two words: numbering, a bullet, a table's border."""

_COUNTS = (12, 15, 18, 21, 24)
_WORD_BITS = 11


def word_list() -> tuple[str, ...]:
    """The 2048 English words of BIP 39, in order."""
    return tuple((files(__package__) / "bip39_english.txt").read_text("ascii").split())


_WORDS = word_list()
_NUMBERS = {word: number for number, word in enumerate(_WORDS)}
_BEGINNINGS = frozenset(word[:length] for word in _WORDS for length in range(1, len(word) + 1))
_LONGEST = max(map(len, _WORDS))

_LETTERS = re.compile(r"[^\W\d_]+")


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

    name = "seed-phrase"
    entities = frozenset({ENTITY})

    def open(self, scope: Scope) -> Session | None:
        return _SeedPhraseSession(scope.context)


class _SeedPhraseSession:
    __slots__ = ("_gap", "_reader", "_run", "_word", "_word_end", "_word_start")

    def __init__(self, context: str) -> None:
        self._reader = CharacterReader(-len(context), escapes=True)
        self._run: deque[tuple[int, int]] = deque(maxlen=_COUNTS[-1])  # (number, start) of the last list words
        self._word = ""  # the unfinished word, as far as it matters
        self._word_start = self._word_end = 0
        self._gap = 0  # characters since the last word
        self.advance(context, False)

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        spans: list[Span] = []
        characters = self._reader.feed(text, final)
        at = 0
        for match in _LETTERS.finditer(characters.symbols):
            if match.start() > at:
                spans += self._separate(match.start() - at)
            at = match.end()
            self._extend(match[0], characters, match.start(), at)
        if len(characters.symbols) > at:
            spans += self._separate(len(characters.symbols) - at)
        if final:
            spans += self._separate(1)
            self._run.clear()
        return spans, self._stable()

    def _extend(self, letters: str, characters: Characters, start: int, end: int) -> None:
        if not self._word:
            self._word_start = characters.starts[start]
        if len(self._word) <= _LONGEST:
            self._word = (self._word + letters[: _LONGEST + 1]).lower()
        self._word_end = characters.ends[end - 1]
        if self._word not in _BEGINNINGS:
            self._run.clear()

    def _separate(self, count: int) -> Iterator[Span]:
        """Read ``count`` characters that are in no word: the word before them, if one is open, is finished."""
        if self._word:
            word, self._word = self._word, ""
            self._gap = 0
            number = _NUMBERS.get(word)
            if number is None:
                self._run.clear()
            else:
                self._run.append((number, self._word_start))
                yield from self._phrases()
        self._gap += count
        if self._gap > MAX_GAP:
            self._run.clear()

    def _phrases(self) -> Iterator[Span]:
        """Phrases that end with the last word."""
        run = self._run
        if self._word_end <= 0:  # what ends in the context was the earlier channel's to report
            return
        for count in _COUNTS:
            if count > len(run):
                return
            phrase = list(islice(run, len(run) - count, None))
            if _checksum_holds([number for number, _ in phrase]):
                yield Span(phrase[0][1], self._word_end, ENTITY, 0.99, f"{SeedPhrases.name}/bip39")

    def _stable(self) -> int:
        """Start of the earliest phrase that may be under way."""
        if self._run:
            # A phrase that the next word completes takes at most this many of the words before it.
            return self._run[-min(len(self._run), _COUNTS[-1] - 1)][1]
        if self._word in _BEGINNINGS:
            return self._word_start
        return self._reader.settled
