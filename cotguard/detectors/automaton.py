"""Derives, from a rule's regular expressions, what tells where a match may be under way.

Reversed prefixes
    Let ``V`` be a rule's value. A text's tail may be the beginning of a value iff some suffix of it is a prefix
    of a word of ``V``. Read backwards from the end of the text, that suffix is a word of the *reversed prefixes*
    of ``V``, anchored at the (reversed) beginning. They form a regular language that follows from the syntax
    tree, of linear size:

        P(c)       = c | nothing
        P(A B)     = P(B) A' | P(A)                A' = A reversed
        P(A | B)   = P(A) | P(B)
        P(A{m,n})  = P(A) A'{0,n-1}

    One native automaton for all rules so answers 'how much of the tail must be held' by running backwards over
    the tail until nothing is possible any more: about one word in prose, whatever the number of rules.

The regular subset of Python's syntax is read with the standard library's own parser.
"""

import re._constants as _op  # type: ignore[import-not-found]  # the parser's opcodes; typeshed has only the old name
import re._parser as _parser  # type: ignore[import-not-found]  # CPython's own parser: ours would be a second one
from typing import Any

__all__ = ["RuleSyntaxError", "canonical", "max_width", "reversed_prefixes", "reversed_source"]

_CATEGORIES = {
    _op.CATEGORY_DIGIT: "0-9",
    _op.CATEGORY_WORD: "0-9A-Za-z_\\xaa",
    _op.CATEGORY_SPACE: "\\x09-\\x0d\\x20",
}


class RuleSyntaxError(ValueError):
    """A rule uses syntax outside the regular subset."""


def _parse(pattern: str) -> Any:
    try:
        return _parser.parse(pattern)
    except _parser.error as error:
        raise RuleSyntaxError(f"{pattern!r}: {error}") from error


def canonical(pattern: str) -> str:
    """``pattern`` written out in the syntax that Hyperscan and RE2 read alike, without capturing groups."""
    return _sequence(_parse(pattern), reverse=False)


def reversed_source(pattern: str) -> str:
    """A pattern for the reversed words of ``pattern``."""
    return _sequence(_parse(pattern), reverse=True)


def reversed_prefixes(pattern: str) -> str:
    """A pattern for the reversed prefixes of the words of ``pattern``, the empty one and whole words included."""
    return _prefixes(list(_parse(pattern)))


def max_width(pattern: str) -> int:
    """Length of the longest word of ``pattern``; very large when there is none."""
    return int(_parse(pattern).getwidth()[1])


def _sequence(items: Any, *, reverse: bool) -> str:
    parts = [_item(op, argument, reverse=reverse) for op, argument in items]
    return "".join(reversed(parts) if reverse else parts)


def _item(op: Any, argument: Any, *, reverse: bool) -> str:
    if op is _op.SUBPATTERN:
        return "(?:" + _sequence(_body(argument), reverse=reverse) + ")"
    if op is _op.BRANCH:
        return "(?:" + "|".join(_sequence(branch, reverse=reverse) for branch in argument[1]) + ")"
    if op is _op.MAX_REPEAT:
        low, high, body = argument
        return _repeat(_sequence(body, reverse=reverse), low, None if high is _op.MAXREPEAT else high)
    return _character(op, argument)


def _prefixes(items: list[tuple[Any, Any]]) -> str:
    if not items:
        return ""
    (op, argument), rest = items[0], items[1:]
    if op is _op.SUBPATTERN:
        first = _prefixes(list(_body(argument)))
    elif op is _op.BRANCH:
        first = "(?:" + "|".join(_prefixes(list(branch)) for branch in argument[1]) + ")"
    elif op is _op.MAX_REPEAT:
        _low, high, body = argument
        more = (
            "" if high == 1 else _repeat(_sequence(body, reverse=True), 0, None if high is _op.MAXREPEAT else high - 1)
        )
        first = f"(?:{_prefixes(list(body))}{more})"
    else:
        first = f"{_character(op, argument)}?"
    if not rest:
        return first
    return f"(?:{_prefixes(rest)}{_item(op, argument, reverse=True)}|{first})"


def _repeat(body: str, low: int, high: int | None) -> str:
    return f"(?:{body}){{{low},{'' if high is None else high}}}"


def _body(argument: Any) -> Any:
    _group, add_flags, del_flags, body = argument
    if add_flags or del_flags:
        raise RuleSyntaxError("inline flags are not supported; use Rule.ignore_case")
    return body


def _character(op: Any, argument: Any) -> str:
    if op is _op.LITERAL:
        return _byte(argument)
    if op is _op.NOT_LITERAL:
        return f"[^{_byte(argument)}]"
    if op is _op.ANY:
        return "[^\\x0a]"
    if op is _op.IN:
        return _class(argument)
    raise RuleSyntaxError(f"{str(op).lower()} is not in the regular subset (no anchors, look-around, lazy repeats)")


def _class(items: list[tuple[Any, Any]]) -> str:
    negated = ""
    members: list[str] = []
    for op, argument in items:
        if op is _op.NEGATE:
            negated = "^"
        elif op is _op.LITERAL:
            members.append(_byte(argument))
        elif op is _op.RANGE:
            members.append(f"{_byte(argument[0])}-{_byte(argument[1])}")
        elif op is _op.CATEGORY and argument in _CATEGORIES:
            members.append(_CATEGORIES[argument])
        else:
            raise RuleSyntaxError(f"{str(argument).lower()} is not supported inside a class")
    return f"[{negated}{''.join(members)}]"


def _byte(code_point: int) -> str:
    if code_point > 0xFF:
        raise RuleSyntaxError(f"{chr(code_point)!r} is not in normalised text, which is Latin-1")
    return f"\\x{code_point:02x}"
