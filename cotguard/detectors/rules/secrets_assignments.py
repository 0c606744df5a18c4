"""Secrets known by their name: ``password = x``, ``"api_key": "x"``, ``--token x``, 'the password is x'.

1. One rule for each way of naming: an assignment (code, JSON, YAML, environment, XML, query, table), a statement in
   prose, a flag on a command line.
2. The check reads the name back from the text before the value, and judges the value by it
   (:mod:`cotguard.detectors.rules.secrets_plausibility`): passwords are believed when they are quoted or no plain
   word, keys and tokens when they look random. So ``password is required``, ``token: str`` and
   ``key = os.environ["KEY"]`` stay.

Scores: 0.8 for assignments and flags, 0.7 for phrases, 0.6 for prose.

Known limits: a password in prose that is a plain word is found only in quotes; names are English, with the words for
'password' in German, French, Spanish, Portuguese and Dutch; a value ends at the first white space or quote, quoted
passphrases apart. Many names inside one unbroken run of characters cost quadratic time in that run, which the limit
on held characters bounds.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cotguard.detectors.rule import ANY, Candidate, Found, Rule
from cotguard.detectors.rules.secrets_plausibility import is_password, is_random, is_reference, mixes_classes

__all__ = ["RULES"]

_NAMES = {
    "password": r"pass(?:word|wd|phrase|code)|pwd|passwort|kennwort|wachtwoord|senha|contrasena|mot[ _-]de[ _-]passe",
    "key": (
        r"(?:api|access|secret|private|auth|encrypt|encryption|signing|master|account|client|app|consumer|service|license"
        r"|shared|webhook|jwt|hmac|storage|subscription)[ _.-]?(?:key|secret)(?:[ _.-]?(?:id|secret))?"
    ),
    "token": r"(?:php|jsession|session|sess|connect\.s)[ _.-]?(?:id|token|key)?|token|authorization|jwt|oauth|[cx]srf",
    "secret": r"secret|credentials?|creds",
}
_SHORT_NAMES = r"pass|psw|pw|key|sid"

# From the end of a name to its value: `=`, `:`, `:=`, `=>`, `: str =`, `>`, `", "`, `" value=`, a table's bar, with
# Markdown's emphasis in between.
_NAME_END = r"(?:[_.-]?(?:value|string|str|text|plain|raw|hash|b64|base64|env|prod|dev|test|staging|live|[0-9]{1,2}))?"
_SEPARATOR = (
    r"(?:[\"'`*\])]{0,3}[ \t]{0,16}(?:: ?[A-Za-z.]{1,12} ?=|:=|=>|={1,3}|:)[ \t]{0,8}\*{0,2}[ \t]{0,2}"
    r"|[\"']?>|[\"'], ?|[\"'] {1,2}value=|[`*]{0,2} {0,3}\| {0,3}[`*]{0,2})"
)
_QUOTE = r"[\"'`]{1,3}"
_ASSIGNED = f"(?:{'|'.join(_NAMES.values())}|{_SHORT_NAMES}){_NAME_END}{_SEPARATOR}"

# With the closing quote, so that a check can tell a quoted value from the first word of a quoted sentence.
_VALUE = r"[^\s\"'`\xa7][^\s\"'`]{3,}[\"'`]?"
_QUOTES = ("'", '"', "`")
_LEAST_CHARS = 4
_JUDGED_CHARS = 512  # of a longer value the beginning is judged, so that judging many is linear in the text
_QUOTED_END = r"[\"'`\n]"

_FOR_WHOM = r"(?: (?:for|of|to|on) [^\s.,:;]{1,24}(?: [^\s.,:;]{1,24})?)?"
_IS = r"(?:'s|(?: (?:is|was|has been|will be|remains|equals))?(?: (?:now|still|set to|reset to|changed to))?:?)? {1,2}"
_EMPHASIS = r"[\"'`*(]{0,3}"
_STATED = f"(?:{_NAMES['password']}|key|token|secret|credentials?){_FOR_WHOM}{_IS}{_EMPHASIS}"
_FLAG = r"--?(?:[a-z]{1,12}-)?(?:pass(?:word|wd|phrase)?|pwd|requirepass|token|secret|key)(?:=| {1,2})[\"']?"

# What the name was, read back from the text before a value. `re` on at most BEFORE_CHARS characters.
_INITIAL = r"(?:(?<![A-Za-z])|(?-i:(?<=[a-z])(?=[A-Z])))"  # the beginning of a word: api_key, apiKey, not monkey
_KIND = (
    rf"(?:(?P<password>{_NAMES['password']}|requirepass|{_INITIAL}(?:pass|psw|pw))"
    rf"|(?P<key>{_NAMES['key']})|(?P<token>{_NAMES['token']}|{_INITIAL}sid)"
    rf"|(?P<secret>{_NAMES['secret']})|(?P<other>{_INITIAL}key))"
)
_ASSIGNED_NAME = re.compile(rf"{_KIND}{_NAME_END}{_SEPARATOR}(?:{_QUOTE})?\Z", re.IGNORECASE)
_STATED_NAME = re.compile(rf"{_KIND}{_FOR_WHOM}{_IS}{_EMPHASIS}\Z", re.IGNORECASE)
_FLAG_NAME = re.compile(rf"{_KIND}(?:=| {{1,2}})[\"']?\Z", re.IGNORECASE)

_ENTITY = {
    "password": "SECRET_PASSWORD",
    "key": "SECRET_API_KEY",
    "token": "SECRET_ACCESS_TOKEN",
    "secret": "SECRET",
    "other": "SECRET_API_KEY",
}
_NAMED = frozenset(_ENTITY.values())

_CUT = re.compile(r"</|&[\w.-]{1,40}=")
_CLOSING = ".,;:)]}>*|\\"
_PUBLIC = re.compile(r"public[ _-]?\Z", re.IGNORECASE)
_LISTED = re.compile(r"[\"'], ?[\"']\Z")
_ENV_NAME = re.compile(r"[A-Z0-9_]{3,}=\Z")


@dataclass(frozen=True, slots=True)
class _Value:
    """What stands behind a name: as far as it is judged, where it ends in the candidate, and whether it was quoted."""

    judged: str
    end: int
    quoted: bool


def _value(candidate: Candidate) -> _Value | None:
    """The value without its closing quote, or without what follows a bare value; ``None``: nothing, or a reference."""
    text, end, quoted = candidate.text, len(candidate.text), False
    if text[-1] in _QUOTES:
        end -= 1
        quoted = candidate.before.endswith(_QUOTES)
    text = text[: min(end, _JUDGED_CHARS)]
    if not quoted:
        if cut := _CUT.search(text):
            text = text[: cut.start()]
            end = len(text)
        if end == len(text):
            text = text.rstrip(_CLOSING)
            end = len(text)
    return _Value(text, end, quoted) if len(text) >= _LEAST_CHARS and not is_reference(text) else None


def _assigned(candidate: Candidate, name: re.Pattern[str]) -> Iterable[Found]:
    value, match = _value(candidate), name.search(candidate.before)
    if value is None or match is None or match.lastgroup is None:
        return
    kind, text = match.lastgroup, value.judged
    if kind == "password":
        # `("password", "letmein")` may be a list of words as well as a name and its value.
        quoted = value.quoted and _LISTED.search(candidate.before) is None
        believed = is_password(text, quoted=quoted) or (
            _ENV_NAME.search(candidate.before) is not None and text.isalpha()
        )
    elif _PUBLIC.search(candidate.before[: match.start()]):
        believed = False
    elif kind == "other":
        believed = is_random(text, least=16, bits=3.0)
    else:
        believed = is_random(text, least=8, bits=2.5)
    if believed:
        yield Found(0, value.end, _ENTITY[kind], 0.8)


def _phrase(candidate: Candidate) -> Iterable[Found]:
    """A quoted value of several words: a passphrase by its name, or a password by its digits."""
    text = candidate.text
    if " " not in text.strip() or len(text) > 100 or is_reference(text):
        return
    named = "phrase" in candidate.before[-40:].lower()
    if named or (len(text) <= 40 and text.count(" ") <= 3 and mixes_classes(text.replace(" ", ""))):
        yield Found(0, len(text), "SECRET_PASSWORD", 0.7)


def _stated(candidate: Candidate) -> Iterable[Found]:
    """Prose: what is quoted or looks random; a plain word after 'the password is' says something about it."""
    value, match = _value(candidate), _STATED_NAME.search(candidate.before)
    if value is None or match is None or match.lastgroup is None:
        return
    kind, text = match.lastgroup, value.judged
    if kind == "password":
        believed = is_password(text, quoted=value.quoted)
    else:
        believed = is_random(text, least=12, bits=2.8) and any(character.isdigit() for character in text)
    if believed:
        yield Found(0, value.end, _ENTITY[kind], 0.6)


def _user_password(candidate: Candidate) -> Iterable[Found]:
    value = _value(candidate)
    if value is not None and is_password(value.judged, quoted=False):
        yield Found(0, value.end, "SECRET_PASSWORD", 0.8)


RULES: tuple[Rule, ...] = (
    Rule(
        name="assignment",
        entity="SECRET",
        also=_NAMED,
        value=_VALUE,
        before=ANY,
        after=ANY,
        context=f"{_ASSIGNED}(?:{_QUOTE})?",
        ignore_case=True,
        check=lambda candidate: _assigned(candidate, _ASSIGNED_NAME),
    ),
    Rule(
        name="passphrase",
        entity="SECRET_PASSWORD",
        value=r"[^\"'`\n]{4,}",
        before=ANY,
        after=_QUOTED_END,
        context=rf"(?:{_NAMES['password']}){_NAME_END}{_SEPARATOR}[\"']",
        ignore_case=True,
        check=_phrase,
    ),
    Rule(
        name="stated",
        entity="SECRET",
        also=_NAMED,
        value=_VALUE,
        before=r"[^A-Za-z\xaa]",
        after=ANY,
        context=_STATED,
        ignore_case=True,
        check=_stated,
    ),
    Rule(
        name="flag",
        entity="SECRET",
        also=_NAMED,
        value=_VALUE,
        after=ANY,
        context=_FLAG,
        check=lambda candidate: _assigned(candidate, _FLAG_NAME),
    ),
    Rule(
        name="user-flag",
        entity="SECRET_PASSWORD",
        value=_VALUE,
        after=ANY,
        context=r"(?:-u|--user|--proxy-user|-U)[= ]{0,2}[\"']?[^\s:\"'/]{1,40}:",
        check=_user_password,
    ),
    Rule(
        name="client-flag",
        entity="SECRET_PASSWORD",
        value=_VALUE,
        after=ANY,
        context=r"(?:mysql|mysqldump|mysqladmin|sshpass)(?: -[A-Za-z-]{1,10}[ =]?[0-9A-Za-z_.]{0,20}){0,2} -p ?[\"']?",
        check=_user_password,
    ),
)
