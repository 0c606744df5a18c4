"""National identification numbers: checksum, written form and context for each country.

Algorithm, for every number:

1. A shape: ten or so digits, or digits with the letters the country uses.
2. The country's own checksum and date rules: python-stdnum's, or ours where stdnum's ask for today's date, because a
   check must not depend on the clock.
3. A word for it in a language of the country; or, for numbers whose checksum is strong or whose written form is
   distinctive, that form alone.

A number of the right length right behind its own name, with a wrong check digit, is reported with score ``MISTYPED``:
models misremember, and a number with one wrong digit still gives the rest away.

Limits: the century of a date is not checked; words for a number in scripts without case are not seen.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from stdnum import luhn
from stdnum.au import tfn
from stdnum.bg import egn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cl import rut
from stdnum.cn import ric
from stdnum.cz import rc
from stdnum.de import idnr
from stdnum.ee import ik
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.gr import amka
from stdnum.hr import oib
from stdnum.ie import pps
from stdnum.il import idnr as teudat_zehut
from stdnum.in_ import aadhaar, pan
from stdnum.it import codicefiscale
from stdnum.kr import rrn
from stdnum.mx import curp
from stdnum.my import nric
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.pt import nif
from stdnum.ro import cnp
from stdnum.th import pin
from stdnum.tr import tckimlik

from cotguard.detectors.rule import Candidate, Found, Rule
from cotguard.detectors.rules.context import Context, cuts, digits, is_joined

__all__ = ["MISTYPED", "RULES"]

MISTYPED = 0.5
"""Score of a number that its name announces and its check digit denies."""

# ---- Checks of which stdnum's depend on today's date ----


def _has_date(number: str, order: str = "ymd") -> bool:
    """Whether six digits are a date; only day and month can be told from nonsense. Days and months may carry marks."""
    day, month = (number[4:6], number[2:4]) if order == "ymd" else (number[0:2], number[2:4])
    return 1 <= int(day) <= 31 and 1 <= int(month) <= 12


def _is_be_nn(number: str) -> bool:
    rest = int(number[:9])
    check = int(number[9:])
    return check in (97 - rest % 97, 97 - (2_000_000_000 + rest) % 97) and int(number[2:4]) <= 12


def _is_dk_cpr(number: str) -> bool:
    return _has_date(number, "dmy")  # the check digit was given up in 2007


def _is_no_fnr(number: str) -> bool:
    day = int(number[0:2]) % 40  # a D-number adds 40 to the day
    return (
        1 <= day <= 31
        and 1 <= int(number[2:4]) % 40 <= 12
        and bool(number[9] == fodselsnummer.calc_check_digit1(number))
        and bool(number[10] == fodselsnummer.calc_check_digit2(number))
    )


def _is_se_pnr(number: str) -> bool:
    number = number[-10:]
    day = int(number[4:6])
    return 1 <= int(number[2:4]) <= 12 and 1 <= day % 60 <= 31 and bool(luhn.is_valid(number))  # coordination: day + 60


def _is_za_id(number: str) -> bool:
    return _has_date(number) and number[10] in "012" and bool(luhn.is_valid(number))


# ---- Numbers of digits only ----


@dataclass(frozen=True, slots=True)
class _Number:
    """``lengths`` in digits; ``alone``: written forms (9 for a digit) that need no context."""

    entity: str
    lengths: tuple[int, ...]
    is_valid: Callable[[str], Any]
    context: Context
    alone: tuple[str, ...] = ()


def _named(*phrases: str) -> Context:
    return Context(*phrases, reach=60)


_NUMBERS = (
    _Number("UK_NHS", (10,), nhs.is_valid, _named("nhs", "nhs number", "nhs no", "health service")),
    _Number(
        "PL_PESEL",
        (11,),
        pesel.is_valid,
        _named("pesel", "numer pesel", "polish id", "polish national", "polish pesel"),
    ),
    _Number(
        "IN_AADHAAR",
        (12,),
        aadhaar.is_valid,
        _named("aadhaar", "aadhar", "adhaar", "aadhaar number", "uidai"),
        ("9999 9999 9999", "9999-9999-9999"),
    ),
    _Number(
        "DE_TAX_ID",
        (11,),
        idnr.is_valid,
        _named(
            "steuer id", "steueridentifikationsnummer", "steuernummer", "idnr", "tin", "tax id", "german tax", "steuer"
        ),
    ),
    _Number("AU_TFN", (8, 9), tfn.is_valid, _named("tfn", "tax file", "tax file number", "australian tax")),
    _Number(
        "CA_SIN", (9,), sin.is_valid, _named("sin", "social insurance", "social insurance number", "nas", "canadian")
    ),
    _Number("BR_CPF", (11,), cpf.is_valid, _named("cpf", "cadastro de pessoas", "brazilian tax"), ("999.999.999-99",)),
    _Number(
        "BE_NN",
        (11,),
        _is_be_nn,
        _named(
            "rijksregisternummer", "rijksregister", "registre national", "national register", "niss", "insz", "belgian"
        ),
        ("99.99.99-999.99",),
    ),
    _Number(
        "CN_RIC",
        (18,),
        ric.is_valid,
        _named("resident identity", "chinese id", "identity card", "id card", "shenfenzheng", "id number"),
        ("9" * 18,),
    ),
    _Number("DK_CPR", (10,), _is_dk_cpr, _named("cpr", "cpr nummer", "personnummer", "danish", "cpr number")),
    _Number(
        "KR_RRN", (13,), rrn.is_valid, _named("rrn", "resident registration", "korean", "jumin"), ("999999-9999999",)
    ),
    _Number(
        "NL_BSN",
        (8, 9),
        bsn.is_valid,
        _named("bsn", "burgerservicenummer", "sofinummer", "sofi nummer", "citizen service"),
    ),
    _Number(
        "NO_FNR",
        (11,),
        _is_no_fnr,
        _named("fødselsnummer", "fodselsnummer", "personnummer", "d nummer", "norwegian", "fnr", "birth number"),
        ("999999 99999", "999999-99999"),
    ),
    _Number(
        "SE_PNR",
        (10, 12),
        _is_se_pnr,
        _named("personnummer", "samordningsnummer", "swedish", "personal identity", "person nr"),
        ("999999-9999", "99999999-9999"),
    ),
    _Number(
        "TR_TCKN",
        (11,),
        tckimlik.is_valid,
        _named("tckn", "tc kimlik", "kimlik", "kimlik no", "kimlik numarası", "turkish"),
    ),
    _Number(
        "ZA_ID", (13,), _is_za_id, _named("south african", "sa id", "rsa id", "id number", "identity number", "id no")
    ),
    _Number("GOVERNMENT_ID", (13,), ahv.is_valid, _named("ahv", "avs", "swiss", "oasi"), ("999.9999.9999.99",)),
    _Number("GOVERNMENT_ID", (13,), cnp.is_valid, _named("cnp", "cod numeric personal", "romanian")),
    _Number("GOVERNMENT_ID", (13,), pin.is_valid, _named("thai", "thai id", "thai national id", "citizen id")),
    _Number("GOVERNMENT_ID", (12,), nric.is_valid, _named("MyKad", "malaysian", "nric", "ic number")),
    _Number("GOVERNMENT_ID", (11,), ik.is_valid, _named("isikukood", "estonian", "asmens kodas", "lithuanian")),
    _Number("GOVERNMENT_ID", (11,), oib.is_valid, _named("oib", "croatian")),
    _Number("GOVERNMENT_ID", (11,), amka.is_valid, _named("amka", "greek")),
    _Number("GOVERNMENT_ID", (10,), egn.is_valid, _named("egn", "bulgarian")),
    _Number(
        "GOVERNMENT_ID", (9, 10), rc.is_valid, _named("rodné číslo", "rodne cislo", "birth number", "czech", "slovak")
    ),
    _Number("GOVERNMENT_ID", (9,), nif.is_valid, _named("nif", "contribuinte", "portuguese")),
    _Number("GOVERNMENT_ID", (9,), teudat_zehut.is_valid, _named("teudat zehut", "israeli", "mispar zehut")),
)
_ANY_NAME = Context(*(phrase for row in _NUMBERS for phrase in row.context.phrases), reach=60)
_WRITTEN_FORMS = frozenset(form for row in _NUMBERS for form in row.alone)
_DIGIT = re.compile("[0-9]")


def _number(candidate: Candidate) -> Iterator[Found]:
    if is_joined(candidate):
        return
    text, before = candidate.text, candidate.before
    named = [row for row in _NUMBERS if row.context.near(before)] if _ANY_NAME.near(before) else []
    for end in cuts(text):
        number = digits(text[:end])
        form = _DIGIT.sub("9", text[:end])
        found = [Found(0, end, row.entity, 0.9) for row in named if len(number) in row.lengths and row.is_valid(number)]
        if form in _WRITTEN_FORMS:
            written = (row for row in _NUMBERS if form in row.alone and row not in named)
            found += [Found(0, end, row.entity, 0.7) for row in written if row.is_valid(number)]
        if found:
            yield from found
            return
    for row in named:
        if len(digits(text)) in row.lengths and row.context.labels(before):
            yield Found(0, len(text), row.entity, MISTYPED)


# ---- Codes with letters ----


@dataclass(frozen=True, slots=True)
class _Code:
    """A code whose shape is distinctive; ``alone`` tells whether shape and check suffice without context."""

    name: str
    entity: str
    value: str
    is_valid: Callable[[str], Any]
    context: Context
    alone: bool = True

    def rule(self) -> Rule:
        return Rule(name=self.name, entity=self.entity, value=self.value, ignore_case=True, check=self._check)

    def _check(self, candidate: Candidate) -> Iterator[Found]:
        if is_joined(candidate):
            return
        number = candidate.text.upper().replace(" ", "").replace(".", "")
        near = self.context.near(candidate.before)
        if (self.alone or near) and self.is_valid(number):
            yield Found(0, len(candidate.text), self.entity, 0.9 if near else 0.75)
        elif self.context.labels(candidate.before):
            yield Found(0, len(candidate.text), self.entity, MISTYPED)


_NINO = re.compile(r"(?!BG|GB|KN|NK|NT|TN|ZZ)[ABCEGHJ-PRSTW-Z][ABCEGHJ-NPRSTW-Z][0-9]{6}[A-D]?")
_SINGAPORE_WEIGHTS = (2, 7, 6, 5, 4, 3, 2)
_SINGAPORE_OFFSET = {"S": 0, "F": 0, "T": 4, "G": 4, "M": 3}
_SINGAPORE_LETTERS = {
    **dict.fromkeys("ST", "JZIHGFEDCBA"),
    **dict.fromkeys("FG", "XWUTRQPNMLK"),
    "M": "KLJNPQRTUWX",
}


def _is_nino(number: str) -> bool:
    return _NINO.fullmatch(number) is not None


def _is_sg_nric(number: str) -> bool:
    """Weighted sum modulo 11; series M (since 2022) counts its letters the other way round."""
    kind = number[0]
    total = sum(weight * int(digit) for weight, digit in zip(_SINGAPORE_WEIGHTS, number[1:8], strict=True))
    remainder = (total + _SINGAPORE_OFFSET[kind]) % 11
    return number[8] == _SINGAPORE_LETTERS[kind][10 - remainder if kind == "M" else remainder]


_CODES = (
    _Code(
        "uk-nino",
        "UK_NINO",
        "[A-CEGHJ-PRSTW-Z][A-CEGHJ-NPRSTW-Z](?:[0-9]{6}|(?: [0-9]{2}){3}|-[0-9]{2}-[0-9]{2}-[0-9]{2})[ -]?[A-D]",
        lambda number: _is_nino(number.replace("-", "")),
        _named("nino", "ni number", "national insurance", "national insurance number"),
    ),
    _Code(
        "es-nif",
        "ES_NIF",
        r"(?:[0-9]{8}|[0-9]{1,2}\.[0-9]{3}\.[0-9]{3})[ -]?[A-Z]",
        dni.is_valid,
        _named("dni", "nif", "documento nacional", "spanish"),
    ),
    _Code(
        "es-nie",
        "ES_NIE",
        "[XYZ][ -]?[0-9]{7}[ -]?[A-Z]",
        nie.is_valid,
        _named("nie", "extranjero", "foreigner identity"),
    ),
    _Code(
        "it-fiscal-code",
        "IT_FISCAL_CODE",
        "[A-Z]{3} ?[A-Z]{3} ?[0-9LMNPQRSTUV]{2}[A-EHLMPRST][0-9LMNPQRSTUV]{2} ?[A-Z][0-9LMNPQRSTUV]{3}[A-Z]",
        codicefiscale.is_valid,
        _named("codice fiscale", "fiscal code", "cf"),
    ),
    _Code(
        "in-pan", "IN_PAN", "[A-Z]{5}[0-9]{4}[A-Z]", pan.is_valid, _named("pan", "pan card", "permanent account number")
    ),
    _Code(
        "fr-nir",
        "FR_NIR",
        r"[1-478] ?[0-9]{2} ?[0-9]{2} ?(?:[0-9]{2}|2[AB]) ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}",
        nir.is_valid,
        _named("nir", "numéro de sécurité sociale", "sécurité sociale", "numéro de sécu", "insee", "carte vitale"),
    ),
    _Code(
        "sg-nric", "SG_NRIC_FIN", "[STFGM][0-9]{7}[A-Z]", _is_sg_nric, _named("nric", "fin", "fin number", "singapore")
    ),
    _Code("cn-ric-x", "CN_RIC", "[1-9][0-9]{16}X", ric.is_valid, _named("resident identity", "chinese id", "id card")),
    _Code(
        "fi-hetu",
        "FI_HETU",
        "[0-3][0-9][01][0-9]{3}[-+A-FU-Y][0-9]{3}[0-9A-Y]",
        hetu.is_valid,
        _named("hetu", "henkilötunnus", "finnish", "personal identity code"),
    ),
    _Code(
        "mx-curp", "MX_CURP", "[A-Z]{4}[0-9]{6}[HMX][A-Z]{5}[0-9A-Z][0-9]", curp.is_valid, _named("curp", "clave única")
    ),
    _Code(
        "cl-rut",
        "GOVERNMENT_ID",
        r"[0-9]{1,2}\.?[0-9]{3}\.?[0-9]{3}-[0-9K]",
        rut.is_valid,
        _named("rut", "run"),
        alone=False,
    ),
    _Code(
        "ie-pps",
        "GOVERNMENT_ID",
        "[0-9]{7}[A-W][A-IW]?",
        pps.is_valid,
        _named("pps", "ppsn", "pps number"),
        alone=False,
    ),
)


RULES: tuple[Rule, ...] = (
    Rule(
        name="national-number",
        entity="GOVERNMENT_ID",
        value="[0-9](?:[ ./-]?[0-9]){7,17}",
        check=_number,
        also=frozenset(row.entity for row in _NUMBERS),
    ),
    *(code.rule() for code in _CODES),
)
