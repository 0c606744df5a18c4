"""Is it a secret, or only where one would stand? Judgements over one short, normalised candidate.

Tutorials, templates and source code put something else where a secret stands: a placeholder, a type, a call that
reads it. These functions tell them apart by shape alone. All are linear in the candidate (RE2); what is not
recognised as harmless counts as a secret.
"""

import math
from collections import Counter

import re2

__all__ = ["entropy", "is_masked", "is_password", "is_placeholder", "is_random", "is_reference", "mixes_classes"]

_MASKED_TAIL = 12

# fmt: off
_FILLERS = frozenset((
    "password", "passwd", "passphrase", "pass", "pwd", "secret", "secretkey", "token", "apikey", "api_key",
    "access_token", "key", "value", "string", "str", "text", "none", "null", "nil", "true", "false", "undefined",
    "empty", "required", "optional", "missing", "invalid", "incorrect", "wrong", "hidden", "redacted", "masked",
    "placeholder", "todo", "tbd", "fixme", "example", "sample", "dummy", "mypassword", "yourpassword",
    "my_password", "user_password", "username", "user", "number", "int", "integer", "bool", "boolean", "bytes",
    "object", "array", "list", "dict", "any", "type", "default", "prompt", "input", "stdin", "env", "bearer",
    "basic", "digest", "oauth", "jwt", "session", "cookie", "here", "unknown", "varchar", "char", "unset",
    "removed", "omitted",
))
# fmt: on

_PLACEHOLDER_WORD = re2.compile(
    r"(?i)(?:^|[_.-])(?:your|insert|enter|replace|change|put|fill|placeholder|redacted|example|dummy|sample|todo)(?:$|[_.-])"
    r"|[_-](?:here|goes|placeholder)$|^(?:your|my|some|the|a|an)[_-][a-z_-]*(?:key|token|secret|password)s?(?:[_-]here)?$"
    r"|^(?:public|default)[_-]|[_-]public[_-]",
)
_WORD = r"(?:[a-z]*(?:[A-Z][a-z]*)*[0-9]{0,2}|[a-z]+[0-9]{0,2}(?:_[a-z]+[0-9]{0,2})*)"
_PATH = re2.compile(rf"\$?{_WORD}(?:(?:\.|->|::)(?:{_WORD}|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*))+")
_CONSTANT = re2.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")
_CAMEL = re2.compile(r"[a-z]+(?:[A-Z][a-z]+)*|[a-z]+(?:_[a-z]+)*|[A-Z][a-z]+(?:[A-Z][a-z]+)*")
_DATE = re2.compile(r"\d{4}-\d\d-\d\d")
_WORDS = re2.compile(r"[A-Za-z]?[a-z]+(?:[_.-][A-Za-z]?[a-z]+)*|[A-Z]+(?:[_.-][A-Z]+)*")
_FILE = re2.compile(r"(?:\.{0,2}|~)/[a-z][a-z._-]*(?:/[0-9A-Za-z._-]*)*")
_ELSEWHERE = ("http://", "https://", "arn:", "${", "$(", "#{", "{{", "<%")


def entropy(text: str) -> float:
    """Shannon entropy of ``text`` in bits per character."""
    size = len(text)
    return -sum(count / size * math.log2(count / size) for count in Counter(text).values())


def is_masked(text: str) -> bool:
    """Whether the end of ``text`` is filled with hardly any different characters: ``xxxx``, ``****``, ``1111``."""
    return len(set(text[-_MASKED_TAIL:].lower())) <= (2 if len(text) >= _MASKED_TAIL else 1)


def is_placeholder(text: str) -> bool:
    """Whether ``text`` names a secret instead of being one: ``YOUR_API_KEY``, ``<token>``, ``${TOKEN}``, ``none``."""
    if text.lower().strip("*_-.:!?") in _FILLERS or is_masked(text):
        return True
    if text[0] in "<[{$%(" and (text[0] != "$" or text[1:2] in "{(" or text[1:].replace("_", "").isalpha()):
        return text[0] == "$" or text[-1] in ">]})%"
    return _PLACEHOLDER_WORD.search(text) is not None


def _is_code(text: str) -> bool:
    """Whether bare ``text`` reads as source code or a word: ``settings.API_KEY``, ``DB_PASSWORD``, ``userPassword``."""
    return any(shape.fullmatch(text) for shape in (_PATH, _CONSTANT, _CAMEL))


def is_reference(text: str) -> bool:
    """Whether ``text`` says where the secret is: a placeholder, a call, an element, a path, a URL."""
    if is_placeholder(text) or text.startswith(_ELSEWHERE) or _FILE.fullmatch(text):
        return True
    head = text.partition("(")[0].partition("[")[0]
    return len(head) < len(text) and _is_code(head)


def mixes_classes(text: str) -> bool:
    """Whether ``text`` is no plain word: letters with digits, a symbol inside, or capitals inside."""
    inner = text[1:-1]
    has_letter = any(character.isalpha() for character in text)
    has_digit = any(character.isdigit() for character in text)
    has_symbol = any(not character.isalnum() and character not in "-'._" for character in inner)
    return (has_letter and (has_digit or has_symbol)) or (has_digit and has_symbol)


def is_password(text: str, *, quoted: bool) -> bool:
    """Bare, anything that is no plain word or short number; quoted, anything that is no constant's name."""
    if quoted:
        return _CONSTANT.fullmatch(text) is None
    return not _is_code(text) and (mixes_classes(text) or (text.isdigit() and len(text) >= 6))


def is_random(text: str, *, least: int, bits: float) -> bool:
    """Whether ``text`` looks like a key: ``least`` characters of ``bits`` bits each, with a digit or without words."""
    if len(text) < least or _is_code(text) or _DATE.match(text) or entropy(text) < bits:
        return False
    if not any(character.isalpha() for character in text):
        return len(text) >= 16
    return any(character.isdigit() for character in text) or (len(text) >= 20 and _WORDS.fullmatch(text) is None)
