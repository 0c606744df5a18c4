"""System prompt recall: runs of words of the exchange's own system prompt that come back.

Words are compared, so case, punctuation, line breaks, markdown and quotes between words make no difference. A word is
a run of letters and digits without its apostrophes; a letter of a script without case (an ideograph, kana, Hangul ...)
is a word of its own. Look-alikes, invisible characters and escapes are resolved on both sides
(:mod:`cotguard.detectors.characters`).

Algorithm:

1. The prompts' words are numbered by the nodes of a trie, and a suffix automaton is built over the numbers: linear in
   the prompts. Source: Blumer et al., "The smallest automaton recognizing the subwords of a text", TCS 40, 1985.
2. A session follows the text through both. The automaton's state is the longest run of words up to here that occurs
   in a prompt. An unfinished word is followed through the trie, so a word that is in no prompt is known as soon as it
   cannot become one.
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

_ROOT = 0
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
    state of its longest suffix that occurs in more places. ``letters[node]`` are the branches of the words' trie.
    """

    __slots__ = ("_last", "following", "lengths", "letters", "links", "longest")

    def __init__(self, prompts: tuple[str, ...]) -> None:
        self.letters: list[dict[str, int]] = [{}]
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
        node = _ROOT
        for letter in word:
            child = self.letters[node].get(letter)
            if child is None:
                child = self.letters[node][letter] = len(self.letters)
                self.letters.append({})
            node = child
        return node

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
        "_min_words",
        "_node",
        "_reader",
        "_run",
        "_spans",
        "_starts",
        "_state",
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
        self._node = _ROOT  # of the unfinished word, or _DEAD
        self._word_chars = 0
        self._word_start = self._word_end = 0
        self._gap = 0  # characters since the last word began that are in no word
        self._spans: list[Span] = []
        self.advance(context, False)

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
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
        spans, self._spans = self._spans, []
        return spans, self._stable()

    def _stable(self) -> int:
        if self._run:
            return self._run_start()
        if self._word_chars and self._node != _DEAD:
            return self._word_start
        return self._reader.settled

    def _letters(self, characters: Characters, start: int, end: int) -> None:
        """Read letters and digits. A word that is in no prompt is passed over at once: in prose, most are."""
        letters = self._index.letters
        while start < end:
            if not self._word_chars:
                self._node = _ROOT
                self._word_start = characters.starts[start]
                self._gap = 0
            stop = min(end, start + MAX_WORD - self._word_chars)
            node = self._node
            if node != _DEAD:
                for letter in characters.symbols[start:stop].lower():
                    node = letters[node].get(letter, _DEAD)
                    if node == _DEAD:
                        self._lose()
                        break
                self._node = node
            self._word_chars += stop - start
            self._word_end = characters.ends[stop - 1]
            if self._word_chars == MAX_WORD:
                self._finish_word()
            start = stop

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
        self._node = _DEAD

    def _finish_word(self) -> None:
        if not self._word_chars:
            return
        self._word_chars = 0
        if self._node == _DEAD:
            return
        following, links, lengths = self._index.following, self._index.links, self._index.lengths
        word, state, run = self._node, self._state, self._run
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
