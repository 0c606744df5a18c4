"""System prompt recall: runs of words of the exchange's own system prompt that come back.

Words are compared, so case, punctuation, line breaks, markdown and quotes between words make no difference. A word is
a run of letters and digits without its apostrophes; a letter of a script without case (an ideograph, kana, Hangul ...)
is a word of its own. Look-alikes, invisible characters and escapes are resolved on both sides
(:mod:`cotguard.detectors.characters`).

Algorithm:

1. The prompts' words are numbered, and a suffix automaton is built over the numbers: linear in the prompts. Source:
   Blumer et al., "The smallest automaton recognizing the subwords of a text", TCS 40, 1985.
2. A session follows the text through the automaton, whose state is the longest run of words up to here that occurs in
   a prompt. An unfinished word is looked up among the beginnings of the prompts' words, so a word that is in no prompt
   is known as soon as it cannot become one.
3. When a run ends, it is a span if it has ``min_words`` words. Everything from the start of the run under way is held.

A run is reported at least every ``MAX_RUN`` words, as spans that adjoin, so that what is held and kept is bounded:
``MAX_RUN`` words of at most ``MAX_WORD`` characters (longer ones count as several), with at most ``MAX_GAP`` other
characters in between. The indexes of the last few prompts are kept for the next channel and the next turn.

Limits: one changed word ends a run, and what is left on either side counts by itself; translations and paraphrases
are not found.
"""

import re
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from cotguard.detectors.characters import CharacterReader, Characters, glues
from cotguard.detectors.contract import Scope, Session
from cotguard.spans import Span

__all__ = ["MAX_GAP", "MAX_RUN", "MAX_WORD", "SystemPromptRecall"]

ENTITY = "SYSTEM_PROMPT"

MAX_RUN = 256
"""Most words that one span covers."""

MAX_WORD = 64
"""Most characters of a word."""

MAX_GAP = 128
"""Most characters between two words of a run: enough for a ruler or the border of a table."""

_CACHED_INDEXES = 8
_APOSTROPHE = "'"  # folding has made it of all the others
_PIECES = re.compile(r"(?P<word>[0-9A-Za-z]+)|(?P<gap>[\x00-&(-/:-@\[-`{-\x7f]+)|(?P<other>.)", re.DOTALL)
"""ASCII letters and digits; ASCII that is in no word; what is looked at by itself: apostrophes, other scripts."""

_DEAD = -1


class SystemPromptRecall:
    """Finds ``min_words`` or more consecutive words of a system prompt of the request."""

    name: Final = "system-prompt"
    entities: Final = frozenset({ENTITY})

    def __init__(self, min_words: int = 8) -> None:
        if min_words < 2:
            raise ValueError("min_words must be at least 2: single words of a prompt are everywhere")
        if min_words > MAX_RUN:
            raise ValueError(f"min_words must be at most {MAX_RUN}: no more words of a run are kept")
        self._min_words = min_words
        self._index = lru_cache(_CACHED_INDEXES)(_Index)

    def open(self, scope: Scope) -> Session | None:
        prompts = scope.request.system_prompts
        if not prompts:
            return None
        index = self._index(prompts)
        if index.longest < self._min_words:
            return None
        return _RecallSession(index, self._min_words, scope.context)


class _Index:
    """All runs of words of ``prompts``, as a suffix automaton over word numbers.

    State 0 is the empty run. ``lengths[state]`` is the number of words of a state's longest run, ``links[state]`` the
    state of its longest suffix that occurs in more places. ``beginnings`` are those of all words.
    """

    __slots__ = ("_last", "beginnings", "following", "lengths", "links", "longest", "numbers")

    def __init__(self, prompts: tuple[str, ...]) -> None:
        self.numbers: dict[str, int] = {}
        self.beginnings: set[str] = set()
        self.following: list[dict[int, int]] = [{}]
        self.lengths = [0]
        self.links = [_DEAD]
        self.longest = 0
        for prompt in prompts:
            self._last = 0
            words = _words(prompt)
            self.longest = max(self.longest, len(words))
            for word in words:
                self._append(self._number(word))

    def _number(self, word: str) -> int:
        number = self.numbers.get(word)
        if number is None:
            number = self.numbers[word] = len(self.numbers)
            self.beginnings.update(word[:length] for length in range(1, len(word) + 1))
        return number

    def _append(self, word: int) -> None:
        """Extend the current prompt by one word."""
        following, lengths, links = self.following, self.lengths, self.links
        state = self._last
        known = following[state].get(word)
        if known is not None:  # an earlier prompt has this run
            self._last = known if lengths[known] == lengths[state] + 1 else self._split(state, word, known)
            return
        new = self._state(lengths[state] + 1, 0, {})
        while state != _DEAD and word not in following[state]:
            following[state][word] = new
            state = links[state]
        if state != _DEAD:
            known = following[state][word]
            links[new] = known if lengths[known] == lengths[state] + 1 else self._split(state, word, known)
        self._last = new

    def _split(self, state: int, word: int, known: int) -> int:
        """Part the runs of ``known`` that are not longer than ``state``'s and one word from the longer ones."""
        following, lengths, links = self.following, self.lengths, self.links
        twin = self._state(lengths[state] + 1, links[known], following[known].copy())
        links[known] = twin
        while state != _DEAD and following[state].get(word) == known:
            following[state][word] = twin
            state = links[state]
        return twin

    def _state(self, length: int, link: int, following: dict[int, int]) -> int:
        self.following.append(following)
        self.lengths.append(length)
        self.links.append(link)
        return len(self.lengths) - 1


def _words(text: str) -> list[str]:
    words: list[str] = []
    word = ""
    for symbol in CharacterReader(0, escapes=True).feed(text, final=True).symbols:
        if glues(symbol):
            word += symbol.lower()
            if len(word) < MAX_WORD:
                continue
        elif symbol == _APOSTROPHE:
            continue
        if word:
            words.append(word)
            word = ""
        if symbol.isalnum() and not glues(symbol):
            words.append(symbol)
    if word:
        words.append(word)
    return words


class _RecallSession:
    __slots__ = (
        "_end",
        "_floor",
        "_fresh",
        "_gap",
        "_index",
        "_lost",
        "_min_words",
        "_reader",
        "_run",
        "_spans",
        "_starts",
        "_state",
        "_word",
        "_word_chars",
        "_word_end",
        "_word_start",
    )

    def __init__(self, index: _Index, min_words: int, context: str) -> None:
        self._index = index
        self._min_words = min_words
        self._reader = CharacterReader(-len(context), escapes=True)
        self._state = 0
        self._run = 0  # words of the longest run up to here
        self._starts: deque[int] = deque(maxlen=MAX_RUN)  # of the last words
        self._end = -len(context)  # of the last word
        self._floor = -len(context)  # end of the last span that was cut off at MAX_RUN words
        self._fresh = 0  # words since then
        self._word = ""  # the unfinished one
        self._lost = False  # it is in no prompt
        self._word_chars = 0
        self._word_start = self._word_end = 0
        self._gap = 0  # characters since the last word began that are in no word
        self._spans: list[Span] = []
        self.advance(context, False)

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        if not final and self._word_chars + len(text) <= MAX_WORD:
            start = self._reader.take_word(text)
            if start is not None:  # the common case, without the map of offsets
                end = start + len(text)
                if text[0] == " ":
                    self._finish_word()
                    self._widen_gap(1)
                    text = text[1:]
                    start += 1
                self._extend(text, start, end)
                return self._take_spans(), self._stable()
        characters = self._reader.feed(text, final)
        for match in _PIECES.finditer(characters.symbols):
            start, end = match.span()
            kind = match.lastgroup
            if kind == "word":
                self._letters(characters, start, end)
            elif kind == "gap":
                self._finish_word()
                self._widen_gap(end - start)
            else:
                self._other(characters, start)
        if final:
            self._finish_word()
            self._finish_run()
        return self._take_spans(), self._stable()

    def _take_spans(self) -> Sequence[Span]:
        if not self._spans:
            return ()
        spans, self._spans = self._spans, []
        return spans

    def _stable(self) -> int:
        if self._run:
            return self._run_start()
        if self._word_chars and not self._lost:
            return self._word_start
        return self._reader.settled

    def _letters(self, characters: Characters, start: int, end: int) -> None:
        """Read letters and digits, of one word or, where it is too long, of several."""
        while start < end:
            stop = min(end, start + MAX_WORD - self._word_chars)
            self._extend(characters.symbols[start:stop], characters.starts[start], characters.ends[stop - 1])
            start = stop

    def _extend(self, letters: str, start: int, end: int) -> None:
        """Read letters of one word, which stand at ``[start, end)``. In prose, most words are in no prompt."""
        if not self._word_chars:
            self._word = ""
            self._lost = False
            self._word_start = start
            self._gap = 0
        self._word_chars += len(letters)
        self._word_end = end
        if not self._lost:
            self._word += letters.lower()
            if self._word not in self._index.beginnings:
                self._lose()
        if self._word_chars == MAX_WORD:
            self._finish_word()

    def _other(self, characters: Characters, at: int) -> None:
        """Read a character that is no ASCII letter or digit."""
        symbol = characters.symbols[at]
        if glues(symbol):
            self._letters(characters, at, at + 1)
            return
        if symbol != _APOSTROPHE:
            self._finish_word()
            if symbol.isalnum():
                self._letters(characters, at, at + 1)
                self._finish_word()
                return
        self._widen_gap(1)

    def _widen_gap(self, count: int) -> None:
        self._gap += count
        if self._gap > MAX_GAP:
            self._lose()

    def _lose(self) -> None:
        """The run ends here: what comes next is in no prompt, or too far away."""
        self._finish_run()
        self._lost = True

    def _finish_word(self) -> None:
        if not self._word_chars:
            return
        self._word_chars = 0
        if self._lost:
            return
        following, links, lengths = self._index.following, self._index.links, self._index.lengths
        word, state, run = self._index.numbers.get(self._word, _DEAD), self._state, self._run
        while state and word not in following[state]:
            state = links[state]
            run = lengths[state]
        if run < self._run or word not in following[state]:
            self._finish_run()
        if word in following[state]:
            self._state, self._run = following[state][word], run + 1
        self._starts.append(self._word_start)
        self._end = self._word_end
        self._fresh += 1
        if self._run >= self._min_words and min(self._run, self._fresh) == MAX_RUN:
            self._report()
            self._floor, self._fresh = self._end, 0

    def _finish_run(self) -> None:
        if self._run >= self._min_words and self._fresh:
            self._report()
        self._state = self._run = 0

    def _run_start(self) -> int:
        return self._floor if self._run > self._fresh else self._starts[-self._run]

    def _report(self) -> None:
        if self._end > 0:  # what ends in the context was the earlier channel's to report
            self._spans.append(Span(self._run_start(), self._end, ENTITY, 1.0, f"{SystemPromptRecall.name}/recall"))
