"""How to reach a person, and when she was born: e-mail addresses, phone numbers, dates of birth.

* E-mail: dot-atoms (RFC 5321) without the characters that in running text separate rather than belong; any top-level
  domain. ``name [at] host [dot] org``, ``name(at)host.org``, ``name AT host DOT org`` and ``name at host dot org`` too.
* Phone: digit groups, up to 15 digits and an extension. With a country code, libphonenumber says what is possible. The
  North American grouping and a few other national ones speak for themselves; every other number needs a word
  ("call", "tel", "WhatsApp" ...) before it, or must be valid in one of ``_REGIONS`` and start like a national number.
  Numbers reserved for fiction (555-01xx) are phones.
* Date of birth: a date in one of many shapes behind a word for birth. Other dates are not sensitive.

Limits: phone numbers in words ("five five five") and dates in scripts without case are not found; the year alone
("born in 1984") is not reported.
"""

import functools
import re
from collections.abc import Iterator

import phonenumbers

from cotguard.detectors.rule import Candidate, Found, Rule
from cotguard.detectors.rules.context import Context, cuts, digits

__all__ = ["RULES"]

# ---- E-mail ----

_LOCAL = r"[0-9A-Za-z_\xaa][0-9A-Za-z_\xaa.%+'&-]{0,63}"
_WITHIN_LOCAL = re.compile(r"[0-9A-Za-z_\xaa][.%+'&-]+\Z")
_TOP_LEVEL = re.compile(r"[A-Za-z\xaa]{2,63}|xn--[0-9a-z-]{2,59}", re.IGNORECASE)
_BRACKETED_AT = re.compile(r" ?[\[({<] ?(?:at|@) ?[\])}>] ?", re.IGNORECASE)
_BRACKETED_DOT = re.compile(r" ?[\[({<] ?(?:dot|\.) ?[\])}>] ?| dot |\.", re.IGNORECASE)
_NOT_A_HOST = frozenset({"the", "a", "an", "this", "that", "each", "every", "which", "one", "some", "any", "least"})


def _email(candidate: Candidate) -> Iterator[Found]:
    local, _, host = candidate.text.partition("@")
    if _WITHIN_LOCAL.search(candidate.before) or local == "git":
        return  # the address began earlier; git@host is a repository
    labels = host.partition("..")[0].split(".")
    while labels and not _TOP_LEVEL.fullmatch(labels[-1]):
        labels.pop()  # "a@b.org.2" ends before the 2
    if len(labels) > 1:
        yield Found(0, len(local) + 1 + len(".".join(labels)), "EMAIL_ADDRESS", 0.95)


def _spelled_email(candidate: Candidate) -> Iterator[Found]:
    text = candidate.text
    if _WITHIN_LOCAL.search(candidate.before):
        return
    if _BRACKETED_AT.search(text):
        labels = _BRACKETED_DOT.split(_BRACKETED_AT.split(text, maxsplit=1)[1])
        score = 0.85
    else:
        labels = text.lower().split(" at ", 1)[1].split(" dot ")  # "look at example.org" has its dot unspelled
        score = 0.7
    if len(labels) > 1 and labels[0].lower() not in _NOT_A_HOST and _TOP_LEVEL.fullmatch(labels[-1]):
        yield Found(0, len(text), "EMAIL_ADDRESS", score)


# ---- Phone ----

_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "IN", "AU", "BR", "MX", "JP", "CN", "NL", "PL", "CH", "SE", "ZA", "KR")
"""Where a number without a country code is tried."""

_PHONE_WORD = Context(
    *("phone", "telephone", "tel", "mobile", "cell", "cellphone", "fax", "WhatsApp", "signal", "sms", "text", "call"),
    *(
        "called",
        "dial",
        "hotline",
        "helpline",
        "landline",
        "contact",
        "contact number",
        "ring",
        "viber",
        "telegram",
        "reach",
    ),
    *("handy", "telefon", "telefonnummer", "rufnummer", "mobil", "mobilnummer", "téléphone", "portable", "appelez"),
    *("teléfono", "móvil", "celular", "llama", "telefono", "cellulare", "telefone", "telemóvel", "telefoon", "numer"),
    reach=60,
)
_PHONE_LABEL = Context(
    *("phone", "phone number", "phone no", "telephone", "telephone number", "tel", "mobile", "mobile number", "cell"),
    *("cell number", "fax", "fax number", "WhatsApp", "contact number", "handy", "telefon", "telefonnummer", "mobil"),
    *("téléphone", "portable", "teléfono", "móvil", "celular", "telefono", "cellulare", "telefone", "call me at"),
    *(
        "call me on",
        "phone is",
        "number is",
        "handynummer",
        "rufnummer",
        "phone real",
        "dial",
        "text me at",
        "reach me at",
    ),
    reach=32,
)
_EXTENSION = re.compile(r"[ ,]*(?:x|ext\.?|extension)[ .:]*[0-9]{1,6}\Z", re.IGNORECASE)
_GROUPS = re.compile(r"[0-9]+")
_NORTH_AMERICAN = re.compile(
    r"(?:\+?1[ .-]|00[ -]?1[ .-])?(?:\([2-9][0-9]{2}\)[ .-]{0,3}|[2-9][0-9]{2}(?: - |[.-]))"
    r"[2-9][0-9]{2}(?: - |[ .-])[0-9]{4}"
)
_NATIONAL = re.compile(
    r"1[3-9][0-9][ -][0-9]{4}[ -][0-9]{4}"  # China, mobile
    r"|[6-9][0-9]{4} [0-9]{5}"  # India, mobile
    r"|\([1-9][0-9]\) ?9?[0-9]{4}[ -][0-9]{4}"  # Brazil
    r"|1?[ -]?8(?:00|33|44|55|66|77|88)[ .-][0-9]{3}[ .-][0-9]{4}"  # North America, toll-free
    r"|555-01[0-9]{2}"  # North America, reserved for fiction
)
_NOT_A_PHONE = re.compile(
    r"(?:19|20)[0-9]{2}([-/. ])[01]?[0-9]\1[0-3]?[0-9](?:[ .-].*)?"  # date, date and time
    r"|[0-3]?[0-9]([-/. ])[01]?[0-9]\2(?:19|20)[0-9]{2}(?:[ -].*)?|[01]?[0-9]/[0-3]?[0-9]/(?:19|20)[0-9]{2}"
    r"|(?:19|20)[0-9]{2} ?[-/] ?(?:19|20)[0-9]{2}"  # years
    r"|[0-9]{1,3}(?:\.[0-9]{1,3}){3}"  # IPv4
    r"|[0-9]{3}[ -][0-9]{2}[ -][0-9]{4}"  # social security number
    r"|[1-9][0-9]*\.[0-9]+|[0-9]+\.[0-9]+(?: ?[-/] ?[0-9]+\.[0-9]+)+"  # decimals
    r"|[1-9][0-9]*(?: ?/ ?| - )[0-9]+"  # quotient, difference
    r"|(?:[0-9]{4}[ -]){3}[0-9]{4}"  # payment card
)
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?: [0-9]{3})+")
_AFTER_NUMBER = re.compile(r"(?:[0-9A-Za-z\xaa][-.]|[+^$#])\Z")
_WITHIN_NUMBER = re.compile(r"[0-9)][ ().-]*\Z")


def _phone(candidate: Candidate) -> Iterator[Found]:
    text = candidate.text
    if _AFTER_NUMBER.search(candidate.before) or _NOT_A_PHONE.fullmatch(text):
        return
    score, end = max((_phone_score(_EXTENSION.sub("", text[:end]), candidate.before), end) for end in cuts(text))
    if score:
        yield Found(0, end, "PHONE_NUMBER", score)


def _phone_score(number: str, before: str) -> float:
    """How surely ``number`` is a phone number; 0 when it is none."""
    count = len(digits(number))
    if not 7 <= count <= 15 or number.count("(") != number.count(")") or _NOT_A_PHONE.fullmatch(number):
        return 0.0
    if number.startswith("+"):
        return 0.9 if _is_international(number) else 0.0
    if _NORTH_AMERICAN.fullmatch(number):
        return 0.85
    groups = _GROUPS.findall(number)
    if len(groups) > 1:
        starts_national = number[0] in "0(" and count >= 9 and len(groups[-1]) > 1
        is_near = _PHONE_WORD.near(before)
        if _WITHIN_NUMBER.search(before) and not (starts_national and is_near):
            return 0.0
        if is_near and len(groups) <= 6:
            return 0.8 if not _THOUSANDS.fullmatch(number) or _PHONE_LABEL.labels(before) else 0.0
        if _NATIONAL.fullmatch(number):
            return 0.7
        if starts_national and not _THOUSANDS.fullmatch(number) and _is_national(number):
            return 0.7
        return 0.7 if count == 10 and number[0] in "23456789" and list(map(len, groups)) == [3, 3, 4] else 0.0
    if _PHONE_LABEL.labels(before) or (_PHONE_WORD.near(before) and count >= 9 and _is_national(number)):
        return 0.75
    return 0.0


def _is_international(number: str) -> bool:
    """Whether the digits behind the calling code are as many as its numbering plan allows."""
    plain = digits(number.replace("(0)", ""))
    for size in (1, 2, 3):  # calling codes are prefix-free
        code = int(plain[:size])
        if code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
            return len(plain) - size in _possible_lengths(code)
    return False


@functools.cache
def _possible_lengths(code: int) -> frozenset[int]:
    region = phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code][0]
    metadata = phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(code, region)
    plan = metadata.general_desc if metadata else None
    return frozenset(plan.possible_length if plan else ())


def _is_national(number: str) -> bool:
    """Whether the digits are a line or a mobile number of one of ``_REGIONS``, as dialled within it."""
    plain = digits(number)
    if plain.startswith("00") and len(plain) > 9:
        return _is_international(plain[2:])
    return any(
        pattern.fullmatch(plain.removeprefix(prefix)) or pattern.fullmatch(plain) for prefix, pattern in _plans()
    )


@functools.cache
def _plans() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """National prefix and numbers of each region: libphonenumber's tables, whose parser is a hundred times slower."""
    found = (phonenumbers.PhoneMetadata.metadata_for_region(region) for region in _REGIONS)
    return tuple(
        (
            metadata.national_prefix or "",
            re.compile(
                "|".join(
                    kind.national_number_pattern
                    for kind in (metadata.fixed_line, metadata.mobile)
                    if kind and kind.national_number_pattern
                )
            ),
        )
        for metadata in found
        if metadata
    )


# ---- Date of birth ----

# The words in full, in the check, because each would cost the automata three times its length.
_MONTH = (
    "(?:jan|ene|gen|feb|fev|mar|maa|apr|avr|abr|may|mai|mag|mei|jun|jui|giu|jul|lug|aug|aou|ago|sep|set|oct|okt|ott|out|nov"
    "|dec|dez|dic)[a-z]{0,8}"
)
_MONTHS = re.compile(
    "jan(?:uary|vier|uari?|eiro)?|enero|gennaio|feb(?:ruary|ruari?|rero|braio)?|fev(?:rier|ereiro)?|mar(?:ch|s|z|zo|co)?|maart"
    "|apr(?:il|ile)?|avr(?:il)?|abr(?:il)?|mayo?|maio?|maggio|mei|june?|juni?o?|juin|junho|giugno|july?|juli?o?|juillet|julho"
    "|luglio|aug(?:ust|ustus)?|aout|ago(?:sto)?|sept?(?:ember|embre|iembre)?|set(?:tembre|embro|iembre)?|oct(?:ober|obre|ubre)?"
    "|okt(?:ober)?|ottobre|outubro|nov(?:ember|embre|iembre|embro)?|dec(?:ember|embre)?|dez(?:ember|embro)?|dic(?:iembre|embre)?",
    re.IGNORECASE,
)
_WORD = re.compile("[A-Za-z]{3,}")
_DATE = (
    r"(?:[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}"
    r"|[0-9]{1,2}(?:[-/] ?|\. ?|  ?)[0-9]{1,2}(?:[-/] ?|\. ?|  ?)(?:[0-9]{4}|[0-9]{2})"
    r"|(?:19|20)[0-9]{6}"
    rf"|[0-9]{{1,2}}(?:st|nd|rd|th|er|o)?\.?[ -](?:of |de |d')?{_MONTH}\.?,?[ -](?:de |del )?[0-9]{{4}}"
    rf"|{_MONTH}\.? [0-9]{{1,2}}(?:st|nd|rd|th)?,? [0-9]{{4}}"
    rf"|[0-9]{{4}}[ -]{_MONTH}[ -][0-9]{{1,2}})"
)
_BIRTH = Context(
    *("born", "birth", "birthday", "birthdate", "birthdays", "dob", "d o b", "date of birth", "bday", "b day"),
    *("né", "née", "né le", "née le", "naissance", "anniversaire", "geboren", "geburtsdatum", "geb", "geburtstag"),
    *("nacido", "nacida", "nací", "nació", "nacimiento", "cumpleaños", "nato", "nata", "nascita", "nascido"),
    *("nascida", "nascimento", "aniversário", "geboortedatum", "född", "født", "urodzony", "urodzona", "urodzenia"),
    reach=45,
)
_OTHER_DATE = Context(
    *("hire", "hired", "joined", "visit", "visited", "admitted", "admission", "discharge", "discharged", "issued"),
    *("issue date", "expiry", "expires", "expiration", "appointment", "died", "death", "due", "updated", "created"),
    *(
        "married",
        "start date",
        "end date",
        "today",
        "current date",
        "opened",
        "released",
        "dated",
        "deadline",
        "meeting",
        "last seen",
    ),
    reach=30,
)


def _birth_date(candidate: Candidate) -> Iterator[Found]:
    if _AFTER_NUMBER.search(candidate.before) or not _BIRTH.near(candidate.before):
        return
    if (_BIRTH.labels(candidate.before) or not _OTHER_DATE.near(candidate.before)) and _is_date(candidate.text):
        yield Found(0, len(candidate.text), "DATE_OF_BIRTH", 0.85)


def _is_date(text: str) -> bool:
    numbers = _GROUPS.findall(text)
    if len(numbers) == 1:  # 19840229
        return "01" <= text[4:6] <= "12" and "01" <= text[6:8] <= "31"
    if len(numbers) == 2:  # 29 February 1984
        return any(_MONTHS.fullmatch(word) for word in _WORD.findall(text))
    small = [int(number) for number in numbers if int(number) <= 31]
    return len(small) >= 2 and min(small) <= 12


RULES: tuple[Rule, ...] = (
    Rule(
        name="email",
        entity="EMAIL_ADDRESS",
        value=rf"{_LOCAL}@[0-9A-Za-z\xaa](?:[0-9A-Za-z\xaa.-]{{0,126}}[0-9A-Za-z\xaa])?",
        after=r"[^0-9A-Za-z\xaa]",
        check=_email,
    ),
    Rule(
        name="email-spelled",
        entity="EMAIL_ADDRESS",
        value=r"[0-9a-z_][0-9a-z_.+-]{0,31}(?: dot [0-9a-z_]{1,20})?"
        r"(?: ?[\[({<] ?(?:at|@) ?[\])}>] ?| at )[0-9a-z-]{1,32}"
        r"(?:(?: ?[\[({<] ?(?:dot|\.) ?[\])}>] ?| dot |\.)[0-9a-z-]{2,20}){1,3}",
        ignore_case=True,
        check=_spelled_email,
    ),
    Rule(
        name="phone",
        entity="PHONE_NUMBER",
        value=r"\(?\+?\(?[0-9](?:[ ./()-]{0,3}[0-9]){6,17}(?:,? ?(?:[xX]|[eE]xt(?:ension)?\.?)[ .:]?[0-9]{1,6})?",
        check=_phone,
    ),
    Rule(
        name="date-of-birth",
        entity="DATE_OF_BIRTH",
        value=_DATE,
        after="[^0-9]",
        ignore_case=True,
        check=_birth_date,
    ),
)
