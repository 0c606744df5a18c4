"""Numbers by which governments know people: the United States', documents of any country, and all of ``national``.

* US social security numbers follow the rules in force since 2011: area not 000, 666 or 9xx, group not 00, serial not
  0000; US taxpayer numbers those of python-stdnum. Grouped 3-2-4 they need no context, plain they need a word. Right
  behind the word any nine digits but nines and noughts are reported, with score ``MISTYPED``.
* Passports, driving licences and other documents have no common format: the label decides. A passport number is called
  US when it has the US shape (nine digits, or a letter and eight).
"""

import re
from collections.abc import Iterator

from stdnum.us import itin

from cotguard.detectors.rule import NOT_DIGIT, Candidate, Found, Rule
from cotguard.detectors.rules import national
from cotguard.detectors.rules.context import IDENTIFIER, Context, digits, is_joined
from cotguard.detectors.rules.national import MISTYPED

__all__ = ["RULES"]

# ---- United States ----

_SSN_WORD = Context(
    *(
        "ssn",
        "ssns",
        "social security",
        "social security number",
        "social security no",
        "soc sec",
        "social",
        "ss number",
    ),
    *("seguro social", "ssa"),
    reach=60,
)
_ITIN_WORD = Context("itin", "individual taxpayer", "taxpayer id", "taxpayer identification", "tin", "tax id")
_NOTHING = frozenset({"000000000", "999999999"})
_NOT_DIGIT = re.compile("[^0-9]")


def _us_number(candidate: Candidate) -> Iterator[Found]:
    text, before = candidate.text, candidate.before
    number = digits(text)
    if is_joined(candidate) or number in _NOTHING or len(set(_NOT_DIGIT.findall(text))) > 1:
        return
    is_grouped = len(text) == 11 and text[3] != "."
    is_ssn = number[:3] not in ("000", "666") and number[0] != "9" and number[3:5] != "00" and number[5:] != "0000"
    is_itin = itin.is_valid(number)
    if is_ssn and (is_grouped or _SSN_WORD.near(before)):
        yield Found(0, len(text), "US_SSN", 0.95 if _SSN_WORD.near(before) else 0.8)
    elif is_itin and (is_grouped or _ITIN_WORD.near(before)):
        yield Found(0, len(text), "US_ITIN", 0.9 if _ITIN_WORD.near(before) else 0.75)
    elif _SSN_WORD.labels(before) or (is_grouped and _SSN_WORD.near(before)):
        yield Found(0, len(text), "US_SSN", MISTYPED)
    elif _ITIN_WORD.labels(before):
        yield Found(0, len(text), "US_ITIN", MISTYPED)


# ---- Documents known by their label ----

_PASSPORT = Context(
    *("passport", "passport number", "passport no", "passport id", "passport num", "reisepass", "reisepassnummer"),
    *("passeport", "numéro de passeport", "pasaporte", "passaporto", "passaporte", "paspoort"),
    reach=45,
)
_LICENSE = Context(
    *(
        "driver's license",
        "drivers license",
        "driver license",
        "driving licence",
        "driving license",
        "driver's licence",
    ),
    *("driver licence", "dl number", "dl no", "dln", "dl", "license number", "licence number", "permis de conduire"),
    *(
        "führerschein",
        "führerscheinnummer",
        "licencia de conducir",
        "permiso de conducir",
        "patente di guida",
        "rijbewijs",
    ),
    reach=45,
)
_DOCUMENT = Context(
    *("national id", "national id number", "national identity", "national identity number", "identity card number"),
    *("government id", "government id number", "citizen id", "voter id", "resident permit", "residence permit"),
    *("green card", "green card number", "alien number", "alien registration", "a number", "uscis", "visa number"),
    *("personalausweis", "personalausweisnummer", "carte d'identité", "carta d'identità", "cédula", "id card number"),
    *("tax id", "tax identification number", "taxpayer id", "ein", "military id", "state id", "identity number"),
    reach=45,
)
_MEDICAL_LICENSE = Context("medical license", "medical licence", "nursing license", "physician license", reach=60)
_PASSPORT_SHAPE = re.compile("[A-Z]{0,3}[0-9]{6,9}[A-Z]?|[A-Z]{1,2}[0-9][0-9A-Z]{6,7}", re.IGNORECASE)
_US_PASSPORT_SHAPE = re.compile("[0-9]{9}|[A-Z][0-9]{8}", re.IGNORECASE)


def _document(candidate: Candidate) -> Iterator[Found]:
    text, before = candidate.text, candidate.before
    count = len(digits(text))
    if is_joined(candidate) or count < 5:
        return
    if _PASSPORT.labels(before) and _PASSPORT_SHAPE.fullmatch(text):
        is_us = _US_PASSPORT_SHAPE.fullmatch(text) is not None
        yield Found(0, len(text), "US_PASSPORT" if is_us else "GOVERNMENT_ID", 0.85)
    elif _LICENSE.labels(before) and not _MEDICAL_LICENSE.near(before):
        yield Found(0, len(text), "US_DRIVER_LICENSE", 0.8)
    elif _DOCUMENT.labels(before):
        yield Found(0, len(text), "GOVERNMENT_ID", 0.75)


RULES: tuple[Rule, ...] = (
    *national.RULES,
    Rule(
        name="us-ssn",
        entity="US_SSN",
        value="[0-9]{3}[ .-]?[0-9]{2}[ .-]?[0-9]{4}",
        before=NOT_DIGIT,  # "SSN123-45-6789"
        after=NOT_DIGIT,
        check=_us_number,
        also=frozenset({"US_ITIN"}),
    ),
    Rule(
        name="identity-document",
        entity="GOVERNMENT_ID",
        value=IDENTIFIER,
        check=_document,
        also=frozenset({"US_PASSPORT", "US_DRIVER_LICENSE"}),
    ),
)
